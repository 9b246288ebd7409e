//! Which processes hold the seats of a ring whose memory outlives its guard, in words of the ring: for the one case in
//! which the lock on the file does not tell.
//!
//! The holder of a seat has a shared lock on the file, and a process that makes the guard anew needs that lock alone. A
//! process that may only read the file can hold a shared lock, too, for as long as it likes. Nothing tells the two
//! kinds apart, so beside shared locks the words decide: a process with the number, the start time and the pid
//! namespace that stand there, or with one that can't be seen from here, counts as alive.
//!
//! ```text
//! holder of a seat                        maker of a guard, beside shared locks
//!   pid, namespace, start time               a record that names no set
//!   full fence                               full fence
//!   is the guard still the newest one?       does anybody hold a seat?
//!   no: gives the seat up                    no: makes the set, writes its record
//! ```
//! One of the two sees the other. A maker that was overtaken by another one asks once more at the end, and takes its
//! set back.

use super::RingCore;
use super::open::read_superblock;
use crate::guard::Seat;
use crate::layout::view::RingView;
use crate::os::process::{self, Identity};
use crate::sync::{AtomicU64, Ordering, fence};

/// The words of one seat.
struct Words<'a> {
    pid: &'a AtomicU64,
    namespace: &'a AtomicU64,
    started: &'a AtomicU64,
}

fn words(view: &RingView, seat: Seat, use_words: impl FnOnce(Words<'_>)) {
    match seat {
        Seat::Consumer => {
            let page = view.consumer();
            use_words(Words {
                pid: &page.pid,
                namespace: &page.holder_namespace,
                started: &page.holder_started,
            });
        }
        Seat::Producer { lane } => {
            let lane = view.lane(lane);
            let page = lane.producer();
            use_words(Words {
                pid: &page.pid,
                namespace: &page.holder_namespace,
                started: &page.holder_started,
            });
        }
    }
}

/// Notes this process as the holder of a seat that it has just taken; false if the ring has got another guard since
/// this one was opened. Then the seat is to be given up before anything else is written.
pub(super) fn register(ring: &RingCore, seat: Seat) -> bool {
    if !ring.object.outlives_its_guard() {
        return true;
    }
    let us = process::identity();
    words(&ring.view, seat, |words| {
        words.started.store(0, Ordering::Relaxed);
        words.pid.store(u64::from(us.pid), Ordering::Release);
        words.namespace.store(us.namespace, Ordering::Release);
        words.started.store(us.started, Ordering::Release);
    });
    fence(Ordering::SeqCst);
    let is_newest = has_newest_guard(ring);
    if !is_newest {
        unregister(ring, seat);
    }
    is_newest
}

/// Takes the note back, while the seat is still ours.
pub(super) fn unregister(ring: &RingCore, seat: Seat) {
    if ring.object.outlives_its_guard() {
        words(&ring.view, seat, |words| {
            words.started.store(0, Ordering::Release);
        });
    }
}

/// True if the ring names the guard that we have.
pub(super) fn has_newest_guard(ring: &RingCore) -> bool {
    let name = ring.address.to_string();
    let there = read_superblock(&name, &ring.object).ok().flatten();
    there.is_some_and(|there| {
        there.set == ring.superblock.set && there.record == ring.superblock.record
    })
}

/// True unless all noted holders are surely gone.
pub(super) fn is_any_alive(view: &RingView, lanes: usize) -> bool {
    let seats = (0..lanes).map(|lane| Seat::Producer { lane });
    std::iter::once(Seat::Consumer)
        .chain(seats)
        .any(|seat| is_alive(view, seat))
}

fn is_alive(view: &RingView, seat: Seat) -> bool {
    let mut alive = true;
    words(view, seat, |words| {
        let started = words.started.load(Ordering::Acquire);
        let identity = Identity {
            pid: words.pid.load(Ordering::Acquire) as u32,
            namespace: words.namespace.load(Ordering::Acquire),
            started,
        };
        let is_same = words.started.load(Ordering::Acquire) == started;
        alive = started != 0 && !(is_same && process::is_gone(identity));
    });
    alive
}
