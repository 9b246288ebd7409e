//! Telling a forked child from its parent with one load.

use std::io;
use std::ptr::NonNull;

const PAGE: usize = 4096;

/// A private page that the kernel empties in a forked child (MADV_WIPEONFORK). Undo values are not
/// inherited by fork, so a handle of the parent must not work in the child: each operation looks at
/// this page first.
pub(crate) struct ForkSentinel {
    page: NonNull<u64>,
}

// SAFETY: the page is written once, before the sentinel exists, and only read from then on.
unsafe impl Send for ForkSentinel {}
// SAFETY: as above.
unsafe impl Sync for ForkSentinel {}

impl ForkSentinel {
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
        let sentinel = Self {
            page: NonNull::new(page.cast()).expect("mmap gives no null page"),
        };
        // SAFETY: the page was just mapped, one page long.
        super::check(unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) })?;
        // SAFETY: mapped read-write above, aligned, nobody else knows it yet.
        unsafe { sentinel.page.as_ptr().write_volatile(1) };
        Ok(sentinel)
    }

    /// True in a process that was forked after the sentinel was made.
    #[inline(always)]
    pub(crate) fn is_child(&self) -> bool {
        // SAFETY: mapped until drop; written only before the sentinel existed (or by the kernel at
        // fork, before the child runs). Volatile, because the compiler does not know about fork.
        unsafe { self.page.as_ptr().read_volatile() == 0 }
    }
}

impl Drop for ForkSentinel {
    fn drop(&mut self) {
        // SAFETY: our own mapping, in the child as well: it has a copy of it.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        let sentinel = ForkSentinel::new().unwrap();
        assert!(!sentinel.is_child());
        // SAFETY: the child makes only async-signal-safe calls: a load and _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = if sentinel.is_child() { 42 } else { 1 };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child; status is ours.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!(waited, pid);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert!(!sentinel.is_child());
    }
}
