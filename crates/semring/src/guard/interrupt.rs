//! Ending another thread's wait: a flag, and a token that wakes the sleeper.

use std::sync::Arc;

use super::{WakeTarget, Wakeups};
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicBool, Ordering};

/// Set by the interrupter, taken by the waiting thread.
#[derive(Debug)]
pub(crate) struct InterruptFlag(AtomicBool);

impl InterruptFlag {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(false)))
    }

    /// Sets the flag, then posts: a sleeper that misses the flag finds the token.
    pub(crate) fn raise(&self, guard: &dyn Wakeups, wakeup: WakeTarget) {
        if mutant::is(Mutant::InterruptFlagAfterPost) {
            let _ = guard.post(wakeup);
        }
        self.0.store(true, Ordering::SeqCst);
        if !mutant::is(Mutant::InterruptFlagAfterPost) && !mutant::is(Mutant::NoPostAtInterrupt) {
            // In a removed ring the sleepers are woken anyway.
            let _ = guard.post(wakeup);
        }
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// True once for each time it was raised.
    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::SeqCst)
    }
}
