//! `membarrier(2)` for the models: a barrier that one participant makes all others execute.
//!
//! loom has fences of the calling thread only. The barrier of the others is made of two parts:
//!
//! * A participant publishes its stores after each of them, with a release of a word that belongs to no ring.
//!   The caller of the barrier acquires that word, so it sees every store before the barrier. (Both swap the word: loom
//!   may take the caller's own last store for the newest one if the participant only stores.)
//! * A participant executes a full fence before its first operation after the barrier. So it sees every store
//!   of the caller before the caller's own fence.
//!
//! That is a barrier between two operations of the participant, as an interrupt of its CPU is. A store that is made, and
//! not yet shown, counts as made after the barrier, which the real one permits, too.
//!
//! Only a thread that [takes part](take_part) is reached, and only one of them in a model: the releases of two would
//! hide each other.

use std::cell::Cell;

use loom::sync::atomic::{AtomicU64, Ordering, fence};

std::thread_local! {
    // loom runs all threads of a model on one OS thread. Not a word of the model: no schedule depends on it.
    static BARRIERS: Cell<u64> = const { Cell::new(0) };
    // Whether any thread takes part in this execution: most models have no barriers, and need no further check.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

loom::thread_local! {
    // The number of barriers that this participant has executed; None: it takes no part.
    static GONE_THROUGH: Cell<Option<u64>> = Cell::new(None);
}

loom::lazy_static! {
    static ref SHOWN: AtomicU64 = AtomicU64::new(0);
}

/// At the beginning of an execution.
pub(crate) fn forget_barriers() {
    BARRIERS.set(0);
    IN_USE.set(false);
}

/// From here on the calling thread is reached by barriers: it is a process that is registered for them.
pub(crate) fn take_part() {
    IN_USE.set(true);
    SHOWN.swap(0, Ordering::AcqRel);
    GONE_THROUGH.with(|gone| gone.set(Some(BARRIERS.get())));
}

/// The barrier.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
    BARRIERS.set(BARRIERS.get() + 1);
    SHOWN.swap(0, Ordering::AcqRel);
}

pub(super) fn before_operation() {
    if !IN_USE.get() {
        return;
    }
    GONE_THROUGH.with(|gone| {
        if gone.get().is_some_and(|gone| gone != BARRIERS.get()) {
            fence(Ordering::SeqCst);
            gone.set(Some(BARRIERS.get()));
        }
    });
}

pub(super) fn after_store() {
    if IN_USE.get() && GONE_THROUGH.with(|gone| gone.get().is_some()) {
        SHOWN.swap(0, Ordering::AcqRel);
    }
}
