//! Whether a panic interrupted the use of a handle.

use std::thread::panicking;

/// Whether the thread was unwinding when a handle was made.
///
/// A handle that is dropped by a panic was not used to its end: its message was not handled, its stream is
/// not complete. A destructor that runs during the unwinding may itself use a ring, though. The handles that
/// it makes are used to their end, and dropped while [`panicking`] is true as well: only a panic that began
/// *after* the handle was made counts.
///
/// Two cases are not detected, and count as no panic: a second panic within such a destructor that is also
/// caught there, and a handle that is made during unwinding and dropped by a panic of another thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnwindMark {
    already: bool,
}

impl UnwindMark {
    /// The mark for a handle that is made now.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        Self {
            already: panicking(),
        }
    }

    /// True while a panic that began after the mark was made unwinds this thread.
    #[inline(always)]
    pub(crate) fn is_interrupted(self) -> bool {
        panicking() && !self.already
    }
}
