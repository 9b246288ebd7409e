//! Memory that a process shares with the children that it forks, and that outlives them.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words, all 0 at first, shared by this process and every child that it [forks](crate::fork) later.
/// Stores of a child stay after it was killed. Words that are never used cost nothing.
///
/// ```
/// use std::sync::atomic::Ordering::Relaxed;
/// use semring_testkit::{fork::fork, shared::SharedWords};
///
/// # if semring_testkit::fork::is_single_threaded() {
/// let words = SharedWords::new(16)?;
/// fork(|| {
///     words[3].store(7, Relaxed);
///     0
/// })?
/// .wait();
/// assert_eq!(words[3].load(Relaxed), 7);
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SharedWords {
    base: NonNull<AtomicU64>,
    len: usize,
}

impl SharedWords {
    /// This many words.
    ///
    /// # Errors
    /// Those of mmap.
    ///
    /// # Panics
    /// If `len` is 0.
    #[allow(unsafe_code)]
    pub fn new(len: usize) -> io::Result<SharedWords> {
        assert!(len > 0, "a mapping has at least one word");
        let bytes = len.checked_mul(size_of::<AtomicU64>());
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the kernel maps nothing at 0");
        Ok(SharedWords { base, len })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page aligned, zeroed, `len` words long, and lives as long as `self`;
        // all processes that have it access it by atomics only.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_are_zero_and_keep_what_is_stored() {
        let words = SharedWords::new(5000).unwrap();
        assert_eq!(words.len(), 5000);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[4999].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(words[4999].load(Ordering::Relaxed), u64::MAX);
        assert_eq!(words[4998].load(Ordering::Relaxed), 0);
    }
}
