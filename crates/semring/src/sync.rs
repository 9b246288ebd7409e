//! The one place that names atomics, fences and the spin hint: `core` in every normal build,
//! `loom` under `--cfg semring_loom`, where the models run.
//!
//! It also holds the switch of the *weakened twins*: under loom a model can ask for one precaution
//! to be left out and must then fail. In every other build [`weakened`] is the constant `false`.
#![allow(clippy::disallowed_types)]

#[cfg(not(semring_loom))]
mod imp {
    pub(crate) type AtomicU64 = core::sync::atomic::AtomicU64;
    pub(crate) type AtomicU32 = core::sync::atomic::AtomicU32;
    pub(crate) type AtomicBool = core::sync::atomic::AtomicBool;
    pub(crate) use core::sync::atomic::{Ordering, fence};

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

    pub(crate) type AtomicU64 = loom::sync::atomic::AtomicU64;
    pub(crate) type AtomicU32 = loom::sync::atomic::AtomicU32;
    pub(crate) type AtomicBool = loom::sync::atomic::AtomicBool;
    pub(crate) use loom::sync::atomic::{Ordering, fence};

    pub(crate) fn spin_hint() {
        loom::hint::spin_loop();
    }

    pub(crate) fn yield_now() {
        loom::thread::yield_now();
    }

    std::thread_local! {
        // loom runs all threads of a model on one OS thread, so this is per model.
        static TWIN: Cell<Option<super::Twin>> = const { Cell::new(None) };
    }

    pub(crate) fn weakened(twin: super::Twin) -> bool {
        TWIN.with(|current| current.get() == Some(twin))
    }

    /// Leaves out one precaution in every operation of this OS thread until changed again.
    pub(crate) fn set_twin(twin: Option<super::Twin>) {
        TWIN.with(|current| current.set(twin));
    }
}

pub(crate) use imp::*;

/// The precautions that a model can leave out, to see that it would notice.
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
    /// The waker does not fence between publishing and reading the wait word.
    NoWakerFence,
    /// The sleeper does not fence between arming the wait word and looking again.
    NoSleeperFence,
    /// The waker clears the wait word (the usual swap) and then posts.
    WakerClearsWord,
    /// A new sleeper starts its epochs at 1 again.
    EpochsRestart,
    /// End-of-stream is probed after the last scan in place of before it.
    ProbeAfterScan,
}
