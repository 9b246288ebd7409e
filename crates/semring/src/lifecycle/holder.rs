//! Records, in words of the ring, of the processes that hold its roles, for rings whose memory outlives its guard:
//! needed if the lock on the file is not conclusive.
//!
//! The holder of a role has a shared lock on the file, and a process that makes a new guard needs that lock
//! exclusively. A process that may only read the file can hold a shared lock, too, for any time. The two can't be
//! distinguished, so if there are shared locks the words decide: a recorded process (pid, start time, pid namespace)
//! that exists, or whose namespace can't be seen from here, counts as alive.
//!
//! ```text
//! holder of a role                         maker of a guard, beside shared locks
//!   pid, namespace, start time               the record word: no record counts
//!   full fence                               full fence
//!   is the guard still the newest one?       does any process hold a role?
//!   no: gives the role up                    no: makes the set, its record, and lets the record count
//! ```
//! One of the two sees the other. Both changes of the [record word](crate::layout::set_record) are comparisons with the
//! value before. If another maker was faster, the set is removed again, and no process has taken a role through it.
//!
//! A limit: a holder by an old guard that exists in another IPC namespace, overtaken between its first look (in
//! `Membership::enter`) and its second one, stores its words over those of a holder by the present guard, and clears them. A
//! maker in a third namespace, beside shared locks, then finds no holder. A look before the words does not help: it may
//! stop between the two. It takes one word that is changed by comparison (`holder_model_tests`), and pid, namespace and
//! start time are three; the makers' lock does not help, because a reader may keep it.

use super::RingCore;
use super::open::read_superblock;
use crate::guard::Role;
use crate::layout::set_record::record_word;
use crate::layout::view::RingView;
use crate::os::process::{self, Identity};
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering, fence};

/// The words of one role.
struct Words<'a> {
    pid: &'a AtomicU64,
    namespace: &'a AtomicU64,
    started: &'a AtomicU64,
}

fn words(view: &RingView, role: Role, use_words: impl FnOnce(Words<'_>)) {
    match role {
        Role::Consumer => {
            let page = view.consumer();
            use_words(Words {
                pid: &page.pid,
                namespace: &page.holder_namespace,
                started: &page.holder_started,
            });
        }
        Role::Producer { lane } => {
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

/// Records this process as the holder of a role that it has just taken; false if the ring has a newer guard than
/// the one that was opened. Then the role must be given up before anything else is written.
pub(super) fn register(ring: &RingCore, role: Role) -> bool {
    if !ring.object.outlives_its_guard() {
        return true;
    }
    let us = process::identity();
    let mut is_newest = false;
    words(&ring.view, role, |words| {
        is_newest = record_then_look(&words, us, || has_newest_guard(ring));
    });
    if !is_newest {
        unregister(ring, role);
    }
    is_newest
}

/// The holder's half of the handshake.
fn record_then_look(words: &Words<'_>, us: Identity, look: impl FnOnce() -> bool) -> bool {
    words.started.store(0, Ordering::Relaxed);
    words.pid.store(u64::from(us.pid), Ordering::Release);
    words.namespace.store(us.namespace, Ordering::Release);
    words.started.store(us.started, Ordering::Release);
    if !mutant::is(Mutant::NoHolderFence) {
        fence(Ordering::SeqCst);
    }
    look()
}

/// The maker's half: changes the record word from a value to another one. The answer of the look; `None` if another maker
/// has changed the word.
pub(super) fn announce_then_look(
    record_word: &AtomicU64,
    (from, to): (u64, u64),
    look: impl FnOnce() -> bool,
) -> Option<bool> {
    let announce = || record_word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    if !mutant::is(Mutant::MakerAnnouncesLate) {
        announce().ok()?;
    }
    if !mutant::is(Mutant::NoMakerFence) {
        fence(Ordering::SeqCst);
    }
    let answer = look();
    if mutant::is(Mutant::MakerAnnouncesLate) {
        announce().ok()?;
    }
    Some(answer)
}

/// Removes the record, while this process still holds the role.
pub(super) fn unregister(ring: &RingCore, role: Role) {
    if ring.object.outlives_its_guard() {
        words(&ring.view, role, |words| {
            words.started.store(0, Ordering::Release);
        });
    }
}

/// True if the ring names this handle's guard.
pub(super) fn has_newest_guard(ring: &RingCore) -> bool {
    let name = ring.address.to_string();
    let there = read_superblock(&name, &ring.object).ok().flatten();
    there.is_some_and(|there| {
        there.set == ring.superblock.set
            && there.record_word == ring.superblock.record_word
            && !record_word::is_announced(there.record_word)
    })
}

/// True unless all recorded holders are certainly gone.
pub(super) fn is_any_alive(view: &RingView, lanes: usize) -> bool {
    let roles = (0..lanes).map(|lane| Role::Producer { lane });
    std::iter::once(Role::Consumer)
        .chain(roles)
        .any(|role| is_alive(view, role))
}

fn is_alive(view: &RingView, role: Role) -> bool {
    let mut alive = true;
    words(view, role, |words| {
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

#[cfg(semring_loom)]
mod model_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::model::explore;

    /// A holder records itself and looks at the record word; a maker announces itself and looks for holders. (The other
    /// module of models has several of both, killed, in another language; this is the shipped code.)
    #[test]
    fn model_holder_or_maker_sees_the_other() {
        explore(None, || {
            let words = Arc::new([0; 4].map(AtomicU64::new));
            let of_holder = words.clone();
            let holder = thread::spawn(move || {
                let [pid, namespace, started, record_word] = &*of_holder;
                let words = Words {
                    pid,
                    namespace,
                    started,
                };
                let us = Identity {
                    pid: 1,
                    namespace: 1,
                    started: 1,
                };
                record_then_look(&words, us, || record_word.load(Ordering::Acquire) == 0)
            });
            let [_, _, started, record_word] = &*words;
            let look = || started.load(Ordering::Acquire) != 0;
            let found = announce_then_look(record_word, (0, 1), look);
            assert!(
                found == Some(true) || !holder.join().unwrap(),
                "a holder and a maker that have not seen each other"
            );
        });
    }
}
