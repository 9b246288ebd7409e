//! A full memory barrier on every CPU that runs a registered process: `membarrier(2)`.

use std::io;

// From <linux/membarrier.h>; since Linux 4.16.
const QUERY: libc::c_int = 0;
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn membarrier(command: libc::c_int) -> io::Result<libc::c_long> {
    // SAFETY: takes numbers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// Registers this process, for as long as it does not `exec`; false if the kernel (or a filter of its
/// calls) has no such thing. Again is cheap. The first time takes 0.5 µs in a process of one thread, and
/// some milliseconds in one of several.
pub(crate) fn register() -> bool {
    // Models have no kernel: the threads that stand for processes register by themselves.
    cfg!(semring_loom) || membarrier(REGISTER_GLOBAL_EXPEDITED).is_ok()
}

/// Whether [`everywhere`] can be expected to work.
pub(crate) fn is_available() -> bool {
    let has = |answer: libc::c_long| answer & libc::c_long::from(GLOBAL_EXPEDITED) != 0;
    cfg!(semring_loom) || membarrier(QUERY).is_ok_and(has)
}

/// Returns after every thread of every registered process has executed a full memory barrier since the
/// call began; about 0.4 µs, and 2 to 7 µs while one of them runs on another CPU.
#[cfg(not(semring_loom))]
pub(crate) fn everywhere() -> io::Result<()> {
    #[cfg(test)]
    if REFUSED.get() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    membarrier(GLOBAL_EXPEDITED).map(drop)
}

#[cfg(all(test, not(semring_loom)))]
std::thread_local! {
    /// A filter of system calls has come over this thread.
    pub(crate) static REFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The same for the threads of a model that take part.
#[cfg(semring_loom)]
pub(crate) fn everywhere() -> io::Result<()> {
    crate::sync::barrier_everywhere();
    Ok(())
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_be_available_works() {
        assert_eq!(is_available(), everywhere().is_ok());
        assert_eq!(register(), register());
    }
}
