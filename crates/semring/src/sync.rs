//! The one place that names atomics, fences and the spin hint: `core` in every normal build,
//! `loom` under `--cfg semring_loom`, where the models run.
//!
//! It also holds the switch of the *mutants*: under loom a model can request that one precaution is
//! left out, and must then fail. In every other build [`weakened`] is the constant `false`.
#![allow(clippy::disallowed_types)]

pub(crate) mod signals;

#[cfg(not(semring_loom))]
mod imp {
    pub(crate) type AtomicU64 = core::sync::atomic::AtomicU64;
    pub(crate) type AtomicU32 = core::sync::atomic::AtomicU32;
    pub(crate) type AtomicBool = core::sync::atomic::AtomicBool;
    pub(crate) use core::sync::atomic::{Ordering, compiler_fence, fence};

    #[inline(always)]
    pub(crate) fn spin_hint() {
        core::hint::spin_loop();
    }

    #[inline(always)]
    pub(crate) fn yield_now() {
        std::thread::yield_now();
    }

    #[inline(always)]
    pub(crate) const fn weakened(_twin: super::Twin) -> bool {
        false
    }
}

#[cfg(semring_loom)]
mod imp {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    pub(crate) use loom::sync::atomic::Ordering;

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
                        self.0.load(order)
                    } else {
                        Default::default()
                    }
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    if shared_operation() {
                        self.0.store(value, order);
                    }
                }

                #[track_caller]
                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    if shared_operation() {
                        self.0.swap(value, order)
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

    #[track_caller]
    pub(crate) fn fence(order: Ordering) {
        if shared_operation() {
            loom::sync::atomic::fence(order);
        }
    }

    /// loom does not support barriers from another process, for which this is used; see the
    /// store-buffer model.
    pub(crate) fn compiler_fence(_: Ordering) {
        unreachable!("no lane enters asymmetric mode in a model");
    }

    pub(crate) fn spin_hint() {
        loom::hint::spin_loop();
    }

    pub(crate) fn yield_now() {
        loom::thread::yield_now();
    }

    std::thread_local! {
        // loom runs all threads of a model on one OS thread, so this belongs to one model.
        static TWIN: Cell<Option<super::Twin>> = const { Cell::new(None) };
    }

    pub(crate) fn weakened(twin: super::Twin) -> bool {
        TWIN.with(|current| current.get() == Some(twin))
    }

    /// Leaves out one precaution in every operation of this OS thread until changed again.
    pub(crate) fn set_twin(twin: Option<super::Twin>) {
        TWIN.with(|current| current.set(twin));
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

/// The precautions that a model can leave out, to show that it would fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // named by the data path in every build, chosen by models only
pub(crate) enum Twin {
    /// K1 after K3: the next header is cleared only after this one is published.
    NextHeaderClearedLate,
    /// The slack word for the next header is not counted when looking for room.
    NoSlackWord,
    /// K3 with Relaxed.
    RelaxedCommit,
    /// K4 before K3.
    CommittedBeforeHeader,
    /// `released` stored with Relaxed.
    RelaxedRelease,
    /// The waker executes no fence between publishing and loading the wait word.
    NoWakerFence,
    /// The sleeper executes no fence between storing the wait word and looking again.
    NoSleeperFence,
    /// The waker clears the wait word (the usual swap) and then posts.
    WakerClearsWord,
    /// A new sleeper starts its epochs at 1 again.
    EpochsRestart,
    /// The check that no peer is left comes after the last look, and its result is used without
    /// another look.
    ProbeAfterScan,
}
