//! The limits of this process (`getrlimit`), and the kernel's limits for semaphores.

use std::io;

/// Reads a soft limit; `None` without one.
macro_rules! soft_limit {
    ($resource:ident) => {{
        let mut limit = std::mem::MaybeUninit::<libc::rlimit>::uninit();
        // SAFETY: the buffer is ours.
        let result = unsafe { libc::getrlimit(libc::$resource, limit.as_mut_ptr()) };
        if result == 0 {
            // SAFETY: getrlimit succeeded and filled it.
            let limit = unsafe { limit.assume_init() };
            (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
        } else {
            None
        }
    }};
}

/// RLIMIT_MEMLOCK: bytes that it may lock in memory.
pub(crate) fn locked_memory() -> Option<u64> {
    soft_limit!(RLIMIT_MEMLOCK)
}

/// RLIMIT_FSIZE: the size up to which it may extend a file.
pub(crate) fn file_size() -> Option<u64> {
    soft_limit!(RLIMIT_FSIZE)
}

/// RLIMIT_AS: bytes of its address space.
pub(crate) fn address_space() -> Option<u64> {
    soft_limit!(RLIMIT_AS)
}

/// Runs a call that may extend or write a file. Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which ends the
/// process by default, besides EFBIG: here there is only the error. Other threads and the process's signal
/// handlers notice nothing.
pub(crate) fn without_file_size_signal<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let blocked = Blocked::new()?;
    let result = call();
    if let Err(error) = &result
        && error.raw_os_error() == Some(libc::EFBIG)
    {
        blocked.take();
    }
    result
}

/// SIGXFSZ, blocked in this thread until this is dropped.
struct Blocked {
    signal: libc::sigset_t,
    before: libc::sigset_t,
    /// The signal was already pending before: it stays.
    was_pending: bool,
}

impl Blocked {
    fn new() -> io::Result<Self> {
        // SAFETY: a set of signals is made of integers, and zeros are an empty one.
        let mut signal: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is ours.
        unsafe { libc::sigaddset(&raw mut signal, libc::SIGXFSZ) };
        let mut before = signal;
        // SAFETY: both sets are ours.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signal, &raw mut before) };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        let mut pending = signal;
        // SAFETY: the set is ours.
        unsafe { libc::sigpending(&raw mut pending) };
        // SAFETY: the set is ours.
        let was_pending = unsafe { libc::sigismember(&raw const pending, libc::SIGXFSZ) } == 1;
        Ok(Self {
            signal,
            before,
            was_pending,
        })
    }

    /// Takes the signal that our call has brought.
    fn take(&self) {
        if self.was_pending {
            return;
        }
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: set and time are local; no details are requested.
        unsafe {
            libc::sigtimedwait(
                &raw const self.signal,
                std::ptr::null_mut(),
                &raw const at_once,
            )
        };
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was there before.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            )
        };
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::testing::{Ended, in_child};

    fn set_file_size(bytes: u64) {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: reads a structure of ours.
        // SAFETY: reads a structure of ours.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
        assert_eq!(result, 0);
    }

    #[test]
    fn file_size_limit_gives_an_error_and_no_signal() {
        let ended = in_child(|| {
            set_file_size(4096);
            assert_eq!(file_size(), Some(4096));
            let file = crate::os::memfd::create(c"limited", 0o600, None).unwrap();
            let refused = without_file_size_signal(|| file.set_len(8192)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EFBIG));
            0
        });
        assert_eq!(ended, Ended::Code(0));
    }

    #[test]
    fn file_size_signal_of_others_still_comes() {
        let ended = in_child(|| {
            set_file_size(4096);
            let file = crate::os::memfd::create(c"limited", 0o600, None).unwrap();
            let _ = without_file_size_signal(|| file.set_len(8192));
            let _ = file.set_len(8192);
            0
        });
        assert_eq!(ended, Ended::Signal(libc::SIGXFSZ));
    }
}
