//! Calls of a forked child; signals; processors.
#![allow(unsafe_code)]

use std::io::Write;
use std::time::Duration;

use semring::any;

use super::{Answer, Peer, failed};

/// Forks. The child does its part and ends without running any destructor or handler; gives its exit
/// code. Sound because this process has one thread: the child finds no lock taken.
fn in_a_child(part: impl FnOnce()) -> i32 {
    std::io::stdout().flush().expect("stdout can be flushed");
    // SAFETY: the only thread forks, so the child is a complete process.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let sound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part)).is_ok();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if sound { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; status is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    }
}

/// Prints a line besides the answer.
pub(super) fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .expect("stdout takes the line");
}

fn name_of<T, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => {
            let text = format!("{error:?}");
            text.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default()
                .to_owned()
        }
    }
}

impl Peer {
    /// A child that tries every handle of its parent's, then drops them. One line has the results,
    /// the next one how it ended.
    pub(super) fn forked_handles(&mut self) -> Answer {
        let moment = Duration::from_millis(1);
        let code = in_a_child(|| {
            let mut results = Vec::new();
            if let Some(mut producer) = self.producer.take() {
                results.push(("send", name_of(producer.send(b"from the child"))));
                results.push(("try_send", name_of(producer.try_send(b"from the child"))));
                results.push((
                    "send_timeout",
                    name_of(producer.send_deadline(b"x", moment)),
                ));
                results.push(("reserve", name_of(producer.reserve(10))));
                results.push(("push", name_of(producer.batch().push(b"from the child"))));
                results.push(("check", name_of(producer.check_consumer())));
                results.push(("await_next", name_of(producer.accept_next_consumer())));
                results.push(("try_clone", name_of(producer.try_clone())));
                producer.interrupter().interrupt();
            }
            if let Some(mut consumer) = self.consumer.take() {
                results.push(("recv", name_of(consumer.recv())));
                results.push(("try_recv", name_of(consumer.try_recv())));
                results.push(("recv_timeout", name_of(consumer.recv_deadline(moment))));
                results.push(("recv_batch", name_of(consumer.recv_batch())));
                results.push(("flush", name_of(consumer.flush_released())));
                results.push(("remove_at_end", name_of(consumer.remove_at_end())));
                consumer.interrupter().interrupt();
            }
            let ring = self.ring.take().expect("a ring is open");
            results.push(("ring.producer", name_of(ring.attach_producer())));
            results.push(("ring.consumer", name_of(ring.attach_consumer())));
            drop(ring);
            let texts: Vec<String> = results
                .iter()
                .map(|(what, result)| format!("{what}={result}"))
                .collect();
            tell(&format!("tried {}", texts.join(" ")));
        });
        Ok(format!("child {code}"))
    }

    /// A child that requests a slice of a message of its parent's. The message is put back.
    pub(super) fn forked_slice(&mut self) -> Answer {
        let message = self.consumer().recv().map_err(failed)?;
        let code = in_a_child(|| {
            let slices = [message.as_slice(), message.as_message_ref().as_slice()]
                .map(|slice| slice.is_some());
            tell(&format!("slices {slices:?}"));
        });
        message.put_back();
        Ok(format!("child {code}"))
    }

    /// A child that gives back what its parent has received. What the parent has is put back.
    pub(super) fn forked_releases(&mut self) -> Answer {
        let mut message = Some(self.consumer().recv().map_err(failed)?);
        let of_a_message = in_a_child(|| message.take().expect("the parent's").release_part());
        message.take().expect("the parent's").put_back();
        drop(message);
        let mut batch = self.consumer().recv_batch().map_err(failed)?;
        let first = batch.next_message().expect("put back");
        let (lane, position) = (first.lane(), first.position());
        assert!(batch.next_message().is_some());
        let of_a_batch = in_a_child(|| batch.put_back_from(lane, position));
        let messages = batch.messages();
        batch.put_back();
        Ok(format!(
            "children {of_a_message} {of_a_batch}, {messages} messages"
        ))
    }

    /// A child that opens the ring by itself, sends a message and leaves.
    pub(super) fn forked_opener(&mut self, address: &str) -> Answer {
        let code = in_a_child(|| {
            let ring = any::open(address).expect("the child opens the ring");
            let mut producer = ring.attach_producer().expect("the child attaches");
            let mut bytes = Vec::new();
            semring_testkit::message::encode(77, 0, 40, &mut bytes);
            producer.send(&bytes).expect("the child sends");
        });
        Ok(format!("child {code}"))
    }
}

/// The kernel kills this process when the thread that started it ends.
pub(super) fn die_with_the_parent() {
    // SAFETY: sets a number of this process.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    assert_eq!(result, 0, "the kernel takes the wish");
}

/// Has what this descriptor leads to open under that number, too, also in programs that are started.
pub(super) fn open_as(number: i32, descriptor: &std::os::fd::OwnedFd) {
    let from = std::os::fd::AsRawFd::as_raw_fd(descriptor);
    // SAFETY: the caller gives the number away.
    let result = unsafe { libc::dup2(from, number) };
    assert_eq!(result, number, "any number can be given");
}

extern "C" fn nothing(_: i32) {}

/// A handler that does nothing, installed without SA_RESTART: every signal ends the system call under
/// way with EINTR.
pub(super) fn handle_usr1() {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: the handler does nothing, so it may run at any moment.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0, "SIGUSR1 can be handled");
}

/// Runs on this processor only.
pub(super) fn pin(cpu: usize) {
    // SAFETY: all zeros is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes within the set; a number beyond it panics.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: reads the set, whose length is passed.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(result, 0, "this process may run on processor {cpu}");
}

/// Becomes another program, which keeps stdin and stdout; returns only if that fails.
pub(super) fn become_cat() -> std::io::Error {
    use std::os::unix::process::CommandExt;
    // The test that waits for this has sent no further command, so nothing is lost in the input
    // buffer.
    tell("ok");
    std::process::Command::new("cat").exec()
}

/// Drops the privileges of root permanently, as a server does.
pub(super) fn become_nobody() -> std::io::Result<()> {
    const NOBODY: u32 = 65534;
    let done = |result: i32| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: reads nothing, as there are no groups.
    done(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: changes credentials, touches no memory.
    done(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })?;
    // SAFETY: as above.
    done(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })
}

/// Leaves the IPC namespace, as `unshare --ipc` does.
pub(super) fn unshare_ipc() -> std::io::Result<()> {
    // SAFETY: changes what this process sees of the kernel's objects, and no memory.
    match unsafe { libc::unshare(libc::CLONE_NEWIPC) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
