//! The one place that names atomics, fences and the spin hint: `core` in every normal build,
//! `loom` under `--cfg semring_loom`, where the models run.
//!
//! It also holds the [mutants](mutant): one precaution is left out, and a test must then fail.
#![allow(clippy::disallowed_types)]

#[cfg(semring_loom)]
mod model_barrier;
#[cfg(semring_loom)]
mod model_trace;
pub(crate) mod mutant;
#[cfg(test)]
mod mutant_tests;
pub(crate) mod signals;

#[cfg(not(semring_loom))]
mod imp {
    pub(crate) type AtomicU64 = core::sync::atomic::AtomicU64;
    pub(crate) type AtomicU32 = core::sync::atomic::AtomicU32;
    pub(crate) type AtomicBool = core::sync::atomic::AtomicBool;
    /// A word that no decision rests on: counts, times, and words that this version does not use.
    pub(crate) type Statistic = AtomicU64;
    pub(crate) use core::sync::atomic::{Ordering, compiler_fence, fence};

    #[inline(always)]
    pub(crate) fn spin_hint() {
        core::hint::spin_loop();
    }

    #[inline(always)]
    pub(crate) fn yield_now() {
        std::thread::yield_now();
    }
}

#[cfg(semring_loom)]
mod imp {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    pub(crate) use loom::sync::atomic::Ordering;

    pub(crate) use super::model_barrier::barrier_everywhere;
    use super::model_barrier::{after_store, before_operation};
    #[cfg(test)]
    pub(crate) use super::model_barrier::{forget_barriers, take_part};
    pub(crate) use super::model_trace::Traced;
    use super::model_trace::trace;
    #[cfg(test)]
    pub(crate) use super::model_trace::traced;

    // loom's atomics, with a check before each operation whether the participant is killed there.
    macro_rules! mortal_atomic {
        ($($name:ident holds $value:ty;)*) => {$(
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    if shared_operation() {
                        let value = self.0.load(order);
                        trace(|| Traced::Load(&raw const *self as usize, u64::from(value)));
                        value
                    } else {
                        Default::default()
                    }
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    if shared_operation() {
                        self.0.store(value, order);
                        trace(|| Traced::Store(&raw const *self as usize, u64::from(value)));
                        after_store();
                    }
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    if shared_operation() {
                        let result = self.0.compare_exchange(current, new, success, failure);
                        after_store();
                        result
                    } else {
                        Err(Default::default())
                    }
                }

                #[track_caller]
                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    if shared_operation() {
                        let before = self.0.swap(value, order);
                        after_store();
                        before
                    } else {
                        Default::default()
                    }
                }
            }
        )*};
    }

    mortal_atomic! {
        AtomicU64 holds u64;
        AtomicU32 holds u32;
        AtomicBool holds bool;
    }

    /// A word that no decision rests on. A participant may be killed before each store to it; no other participant is
    /// scheduled there, so it adds no interleavings.
    #[derive(Debug)]
    pub(crate) struct Statistic(core::sync::atomic::AtomicU64);

    impl Statistic {
        pub(crate) fn new(value: u64) -> Self {
            Self(core::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            if survives() {
                self.0.store(value, order);
            }
        }
    }

    #[track_caller]
    pub(crate) fn fence(order: Ordering) {
        if shared_operation() {
            loom::sync::atomic::fence(order);
            trace(|| Traced::Fence);
        }
    }

    /// loom executes the operations in the order of the program.
    pub(crate) fn compiler_fence(_: Ordering) {}

    pub(crate) fn spin_hint() {
        loom::hint::spin_loop();
    }

    pub(crate) fn yield_now() {
        loom::thread::yield_now();
    }

    loom::thread_local! {
        // The number of operations that the participant on this thread of the model has left; None:
        // unlimited.
        static LIFE: Cell<Option<u32>> = Cell::new(None);
    }

    /// The participant was killed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Killed;

    /// Runs a participant that is killed before its operation number `life` (from 0) on shared
    /// memory or on the kernel. Everything before that happened, nothing after it, including
    /// destructors: the state that SIGKILL leaves.
    pub(crate) fn mortal<R>(life: u32, participant: impl FnOnce() -> R) -> Result<R, Killed> {
        LIFE.with(|state| state.set(Some(life)));
        let outcome = catch_unwind(AssertUnwindSafe(participant));
        LIFE.with(|state| state.set(None));
        outcome.or_else(|payload| match payload.downcast::<Killed>() {
            Ok(killed) => Err(*killed),
            Err(failure) => resume_unwind(failure),
        })
    }

    /// Called before each operation that another participant could notice. False: the operation must
    /// not happen, because the participant is dead (or the model has failed) and only unwinds.
    #[must_use]
    pub(crate) fn shared_operation() -> bool {
        let survives = survives();
        if survives {
            before_operation();
        }
        survives
    }

    /// Kills the participant if its operations are used up. False: it is dead already, and only unwinds.
    fn survives() -> bool {
        if std::thread::panicking() {
            return false;
        }
        let killed = LIFE.with(|life| {
            let left = life.get();
            life.set(left.and_then(|left| left.checked_sub(1)));
            left == Some(0)
        });
        if killed {
            // Not a panic: it has no message, and no hook runs.
            resume_unwind(Box::new(Killed));
        }
        true
    }
}

pub(crate) use imp::*;
