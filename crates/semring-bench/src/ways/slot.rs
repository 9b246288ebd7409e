//! A few slots of shared memory for each direction, and one system call to wake the receiver: the cheapest
//! possible wake-up. A sender may overtake a receiver that does not read; the receiver then reports an error.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use super::segment::Segment;
use super::way::{Category, End, Setup, Spec, Way};
use crate::error::{Result, wrong_length};
use crate::link::Link;
use crate::payload::Bytes;
use crate::workload::{WAKE_UPS, Workload};

pub(super) const WAYS: [Way; 2] = [
    Way {
        name: "eventfd",
        label: "shm + eventfd",
        about: "Slots of shared memory; eventfd(2) reports a full one.",
        category: Category::Usual,
        obstacle: one_at_a_time,
        make: make_eventfd,
        open: open_eventfd,
    },
    Way {
        name: "futex",
        label: "shm + futex",
        about: "Slots of shared memory; futex(2) reports a full one if the receiver sleeps.",
        category: Category::Usual,
        obstacle: one_at_a_time,
        make: make_futex,
        open: open_futex,
    },
];

/// Refuses workloads whose sender does not wait for answers: it would overtake the receiver.
fn one_at_a_time(spec: &Spec) -> Option<String> {
    let answered = matches!(spec.workload, Workload::RoundTrip | Workload::WakeUp);
    (!answered).then(|| "a few messages at a time".into())
}

// Each direction has a word with the number of messages sent, a word with the number of sleepers, and, in the
// next cache line, its slots.
const WORD: usize = 0;
const WAITERS: usize = 4;
const FIRST_SLOT: usize = 128;
/// A whole round of wake-ups has room, however late the receiver wakes.
const SLOTS: u32 = 256;
const _: () = assert!(SLOTS as u64 >= WAKE_UPS);

/// Wakes the receiver, and waits for the next message.
trait WakeUp {
    fn wake(&mut self, word: &AtomicU32, waiters: &AtomicU32) -> Result<()>;
    fn wait(&mut self, word: &AtomicU32, waiters: &AtomicU32, received: u32) -> Result<()>;
}

struct SlotLink<W> {
    bytes: Segment,
    size: usize,
    /// Offsets of the two directions.
    sends: usize,
    receives: usize,
    /// Messages sent, and messages received.
    sent: u32,
    received: u32,
    wake_up: W,
}

fn direction_bytes(size: usize) -> usize {
    FIRST_SLOT + SLOTS as usize * size.next_multiple_of(64)
}

/// Where message `number` is within its direction.
fn slot(number: u32, size: usize) -> usize {
    FIRST_SLOT + (number % SLOTS) as usize * size.next_multiple_of(64)
}

fn make<W: WakeUp + 'static>(
    mut spec: Spec,
    wake_up: W,
    stdio: Vec<(Stdio, Stdio)>,
) -> Result<Setup> {
    let there = direction_bytes(spec.size);
    let (bytes, id) = Segment::make(2 * there)?;
    spec.ids = vec![id];
    let link = SlotLink {
        bytes,
        size: spec.size,
        sends: 0,
        receives: there,
        sent: 0,
        received: 0,
        wake_up,
    };
    Ok(Setup::inherited(spec, link, stdio))
}

fn open<W: WakeUp + 'static>(spec: &Spec, wake_up: W) -> Result<Box<dyn End>> {
    let id = spec.ids.first().ok_or("no segment was named")?;
    let there = direction_bytes(spec.size);
    Ok(Box::new(SlotLink {
        bytes: Segment::open(*id, 2 * there)?,
        size: spec.size,
        sends: there,
        receives: 0,
        sent: 0,
        received: 0,
        wake_up,
    }))
}

impl<M: Bytes, W: WakeUp> Link<M> for SlotLink<W> {
    fn send(&mut self, message: &M) -> Result<()> {
        let bytes = message.bytes();
        if bytes.len() != self.size {
            return Err(wrong_length(bytes.len(), self.size));
        }
        let slot = slot(self.sent, self.size);
        // SAFETY: the other side, which is this program too, reads only after the word below has changed, and
        // checks whether it was overtaken.
        let slot = unsafe { self.bytes.own(self.sends + slot, self.size) };
        slot.copy_from_slice(bytes);
        self.sent = self.sent.wrapping_add(1);
        let word = self.bytes.futex(self.sends + WORD);
        word.store(self.sent, Ordering::SeqCst);
        self.wake_up
            .wake(word, self.bytes.futex(self.sends + WAITERS))
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        if bytes.len() != self.size {
            return Err(wrong_length(bytes.len(), self.size));
        }
        let word = self.bytes.futex(self.receives + WORD);
        let waiters = self.bytes.futex(self.receives + WAITERS);
        self.wake_up.wait(word, waiters, self.received)?;
        let slot = slot(self.received, self.size);
        // SAFETY: full, and not written again unless this side is overtaken, which is checked below.
        let slot = unsafe { self.bytes.own(self.receives + slot, self.size) };
        bytes.copy_from_slice(slot);
        if word.load(Ordering::SeqCst).wrapping_sub(self.received) > SLOTS {
            return Err("the receiver was overtaken: this machine is too busy".into());
        }
        self.received = self.received.wrapping_add(1);
        Ok(())
    }
}

/// The kernel counts messages, and wakes the reader.
struct EventFd {
    output: File,
    input: File,
}

impl WakeUp for EventFd {
    fn wake(&mut self, _: &AtomicU32, _: &AtomicU32) -> Result<()> {
        Ok(self.output.write_all(&1u64.to_ne_bytes())?)
    }

    fn wait(&mut self, word: &AtomicU32, _: &AtomicU32, received: u32) -> Result<()> {
        self.input.read_exact(&mut [0; 8])?;
        if word.load(Ordering::Acquire) == received {
            return Err("an eventfd was written without a message".into());
        }
        Ok(())
    }
}

fn eventfd() -> Result<OwnedFd> {
    // SAFETY: takes no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: just made, and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn make_eventfd(spec: Spec) -> Result<Setup> {
    let (there, back) = (eventfd()?, eventfd()?);
    let stdio = vec![(
        Stdio::from(there.try_clone()?),
        Stdio::from(back.try_clone()?),
    )];
    let wake_up = EventFd {
        output: there.into(),
        input: back.into(),
    };
    make(spec, wake_up, stdio)
}

fn open_eventfd(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let wake_up = EventFd {
        output: io::stdout().as_fd().try_clone_to_owned()?.into(),
        input: io::stdin().as_fd().try_clone_to_owned()?.into(),
    };
    open(spec, wake_up)
}

/// The kernel is called only if the receiver sleeps.
struct Futex;

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is mapped as long as the reference; a wait without a time-out takes no other memory.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_timeout) };
}

impl WakeUp for Futex {
    fn wake(&mut self, word: &AtomicU32, waiters: &AtomicU32) -> Result<()> {
        if waiters.load(Ordering::SeqCst) > 0 {
            futex(word, libc::FUTEX_WAKE, 1);
        }
        Ok(())
    }

    fn wait(&mut self, word: &AtomicU32, waiters: &AtomicU32, received: u32) -> Result<()> {
        if word.load(Ordering::Acquire) != received {
            return Ok(());
        }
        waiters.fetch_add(1, Ordering::SeqCst);
        while word.load(Ordering::SeqCst) == received {
            // Woken, changed meanwhile, or interrupted: the loop checks the word in any case.
            futex(word, libc::FUTEX_WAIT, received);
        }
        waiters.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

fn make_futex(spec: Spec) -> Result<Setup> {
    make(spec, Futex, vec![(Stdio::null(), Stdio::null())])
}

fn open_futex(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    open(spec, Futex)
}
