//! One load shows whether a handle's memory is still mapped: it is not in a forked child, and not after
//! a truncation.

use std::io;
use std::ptr::NonNull;

use super::fork;
use crate::sync::signals::{INTACT, SignalWord, TORN};

const PAGE: usize = 4096;

/// A private page that is empty in a forked child: the kernel empties it (MADV_WIPEONFORK), and so does a
/// [fork handler](super::fork), where the kernel does not. Undo values are not inherited by fork, so a
/// handle of the parent must not work in the child: each operation checks this page first. The [handler
/// of SIGBUS](super::fault) writes into it as well, so that one load covers both.
pub(crate) struct MappingState {
    page: NonNull<SignalWord>,
}

// SAFETY: the page holds an atomic word.
unsafe impl Send for MappingState {}
// SAFETY: as above.
unsafe impl Sync for MappingState {}

impl MappingState {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a fresh private mapping, placed by the kernel.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping_state = Self {
            page: NonNull::new(page.cast()).expect("mmap gives no null page"),
        };
        // Refused, the handler of forks has to do; children of a bare clone(2) are not seen then.
        // SAFETY: the page was just mapped, one page long.
        let _ = unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) };
        mapping_state.word().set(INTACT);
        fork::mark_in_children(mapping_state.address());
        Ok(mapping_state)
    }

    /// Children forked from now on do not keep the pages that go with this mapping state, until
    /// [`end_of_pages`](Self::end_of_pages).
    pub(crate) fn keep_from_children(&self, base: NonNull<u8>, len: usize) {
        let start = base.expose_provenance().get();
        fork::unmap_in_children(self.address(), Some((start, len)));
    }

    /// To be called before the pages are unmapped: something else may lie there afterwards.
    pub(crate) fn end_of_pages(&self) {
        fork::unmap_in_children(self.address(), None);
    }

    /// The word itself, for code that checks it with each message.
    pub(crate) fn word(&self) -> &SignalWord {
        // SAFETY: mapped until drop, aligned; zeros are a valid word. Another process never writes it; the
        // kernel does at fork, before the child runs.
        unsafe { self.page.as_ref() }
    }

    /// The address of the word, for [`is_forked_at`] and [`tear_at`].
    pub(super) fn address(&self) -> usize {
        self.page.as_ptr().expose_provenance()
    }

    /// True while the memory is all there: neither in a forked child nor truncated.
    #[inline(always)]
    pub(crate) fn is_intact(&self) -> bool {
        self.word().says_intact()
    }

    /// True in a process that was forked after the mapping state was made.
    #[inline(always)]
    pub(crate) fn is_child(&self) -> bool {
        self.word().says_forked()
    }

    /// True if the memory was taken away before the last byte that this thread has read of it.
    #[inline(always)]
    pub(crate) fn is_truncated(&self) -> bool {
        self.word().says_truncated()
    }

    /// Notes that the memory was taken away.
    pub(crate) fn tear(&self) {
        if !self.is_child() {
            self.word().set(TORN);
        }
    }
}

/// [`MappingState::is_child`] for a signal handler.
///
/// # Safety
/// The address must be that of a mapping state that exists.
pub(super) unsafe fn is_forked_at(address: usize) -> bool {
    let word = std::ptr::with_exposed_provenance::<SignalWord>(address);
    // SAFETY: as the caller promises.
    unsafe { (*word).says_forked() }
}

/// [`MappingState::tear`] for a signal handler.
///
/// # Safety
/// As for [`is_forked_at`].
pub(super) unsafe fn tear_at(address: usize) {
    let word = std::ptr::with_exposed_provenance::<SignalWord>(address);
    // SAFETY: as the caller promises.
    unsafe { (*word).set(TORN) };
}

impl Drop for MappingState {
    fn drop(&mut self) {
        if self.is_child() {
            // The page stays with the child: in one of a bare clone(2) it is in the list of words still.
            return;
        }
        fork::forget(self.address());
        // SAFETY: our own mapping.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        let mapping_state = MappingState::new().unwrap();
        assert!(!mapping_state.is_child() && mapping_state.is_intact());
        // SAFETY: the child makes only async-signal-safe calls: a load and _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = if mapping_state.is_child() && !mapping_state.is_intact() {
                42
            } else {
                1
            };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child; status is ours.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(waited, pid);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert!(!mapping_state.is_child());
    }

    #[test]
    fn truncated_is_neither_intact_nor_forked() {
        let mapping_state = MappingState::new().unwrap();
        mapping_state.tear();
        assert!(
            mapping_state.is_truncated() && !mapping_state.is_intact() && !mapping_state.is_child()
        );
    }
}
