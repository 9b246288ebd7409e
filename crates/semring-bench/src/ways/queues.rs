//! The kernel's message queues.

use std::os::fd::AsRawFd;

use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_open, mq_receive, mq_send};
use nix::sys::stat::Mode;
use sysv_ipc::Key;
use sysv_ipc::msg::{Queue, Selector};

use super::way::{Category, End, Setup, Spec, Way, no_obstacle};
use crate::cleanup::CleanupGuard;
use crate::error::{Result, wrong_length};
use crate::link::Link;
use crate::payload::Bytes;

pub(super) const WAYS: [Way; 2] = [
    Way {
        name: "sysv-queue",
        label: "System V queue",
        about: "A System V message queue: msgsnd(2) and msgrcv(2).",
        category: Category::Usual,
        obstacle: too_long,
        make: make_sysv,
        open: open_sysv,
    },
    Way {
        name: "posix-queue",
        label: "POSIX queue",
        about: "A POSIX message queue: mq_send(3) and mq_receive(3).",
        category: Category::Usual,
        obstacle: no_obstacle,
        make: make_posix,
        open: open_posix,
    },
];

fn too_long(spec: &Spec) -> Option<String> {
    let max = sysv_ipc::limits::msg().ok()?.message_bytes;
    (spec.size as u64 > max).then(|| format!("kernel.msgmax is {max}"))
}

/// Type of the messages to the other process in the System V queue; those from it have the next type.
const THERE: i64 = 1;

pub(crate) struct SysvLink {
    queue: Queue,
    sends: i64,
    receives: i64,
    _cleanup: Option<CleanupGuard>,
}

fn make_sysv(mut spec: Spec) -> Result<Setup> {
    let (queue, cleanup) = CleanupGuard::queue(|| Ok(Queue::create(Key::PRIVATE, 0o600)?))?;
    spec.ids = vec![queue.id()];
    let link = SysvLink {
        queue,
        sends: THERE,
        receives: THERE + 1,
        _cleanup: Some(cleanup),
    };
    Ok(Setup::named(spec, link))
}

fn open_sysv(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let id = spec.ids.first().ok_or("no queue was named")?;
    Ok(Box::new(SysvLink {
        queue: Queue::from_id(*id),
        sends: THERE + 1,
        receives: THERE,
        _cleanup: None,
    }))
}

impl<M: Bytes> Link<M> for SysvLink {
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        Ok(self.queue.send(self.sends, bytes)?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        let expected = bytes.len();
        let got = self.queue.receive(bytes, Selector::Type(self.receives))?;
        if got.len == expected {
            Ok(())
        } else {
            Err(wrong_length(got.len, expected))
        }
    }
}

pub(crate) struct PosixLink {
    input: MqdT,
    output: MqdT,
    _cleanup: Vec<CleanupGuard>,
}

fn queue_name(spec: &Spec, direction: &str) -> String {
    format!("/{}-{direction}", spec.name)
}

fn make_posix(spec: Spec) -> Result<Setup> {
    // The most messages that an unprivileged user may have.
    let attributes = MqAttr::new(0, 10, spec.size as i64, 0);
    let mut cleanup = Vec::new();
    let mut made = Vec::new();
    for direction in ["there", "back"] {
        let name = queue_name(&spec, direction);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let make = || Ok(mq_open(name.as_str(), flags, mode, Some(&attributes))?);
        let (queue, removal) = CleanupGuard::posix_queue(&name, make)
            .map_err(|error| format!("{error}: see fs.mqueue.msgsize_max"))?;
        made.push(queue);
        cleanup.push(removal);
    }
    let (input, output) = match (made.pop(), made.pop()) {
        (Some(back), Some(there)) => (back, there),
        _ => return Err("two queues were made".into()),
    };
    let link = PosixLink {
        input,
        output,
        _cleanup: cleanup,
    };
    Ok(Setup::named(spec, link))
}

fn open_posix(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let open = |direction| {
        let name = queue_name(spec, direction);
        mq_open(name.as_str(), MQ_OFlag::O_RDWR, Mode::empty(), None)
    };
    Ok(Box::new(PosixLink {
        input: open("there")?,
        output: open("back")?,
        _cleanup: Vec::new(),
    }))
}

impl<M: Bytes> Link<M> for PosixLink {
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        Ok(mq_send(&self.output, bytes, 0)?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        let mut priority = 0;
        let expected = bytes.len();
        let got = mq_receive(&self.input, bytes, &mut priority)?;
        if got == expected {
            Ok(())
        } else {
            Err(wrong_length(got, expected))
        }
    }
}

impl Drop for PosixLink {
    fn drop(&mut self) {
        // nix does not close them.
        for queue in [&self.input, &self.output] {
            let _ = nix::unistd::close(queue.as_raw_fd());
        }
    }
}
