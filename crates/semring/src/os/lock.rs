//! Locks of an open file description: the kernel releases them when the last descriptor of it is closed,
//! however the process ended. They work across pid and IPC namespaces.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// Beside others that are shared, too. The file must be open for reading.
    Shared,
    /// Alone. The file must be open for writing.
    Alone,
    Not,
}

/// Changes this description's lock on the file's first byte (the lock is advisory: it does not
/// restrict access to the byte); never waits. False if another description's lock is in the way.
pub(crate) fn hold(file: &File, hold: Hold) -> io::Result<bool> {
    hold_byte(file, 0, hold)
}

fn request(byte: u64, hold: Hold) -> libc::flock {
    let kind = match hold {
        Hold::Shared => libc::F_RDLCK,
        Hold::Alone => libc::F_WRLCK,
        Hold::Not => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// The same for any byte, there or not. A FIFO can be locked, too: its lock goes, when the last
/// descriptor of the description is closed, before others see the pipe hang up.
pub(crate) fn hold_byte(file: &File, byte: u64, hold: Hold) -> io::Result<bool> {
    let lock = request(byte, hold);
    // SAFETY: a descriptor that we hold, and a structure that lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match super::check(result) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Gives back all that this description holds, at once. Closing it does so, too, but only when the last copy
/// of the descriptor is closed: a program that is just being started has one of each until its exec.
pub(crate) fn release(file: &File) -> io::Result<()> {
    let mut all = request(0, Hold::Not);
    all.l_len = 0;
    // SAFETY: a descriptor that we hold, and a structure that lives through the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const all) };
    super::check(result).map(drop)
}

/// True if another description's lock would be in the way of holding this byte so. The file may be open
/// for anything.
pub(crate) fn would_be_refused(file: &File, byte: u64, hold: Hold) -> io::Result<bool> {
    any_would_be_refused(file, byte, 1, hold)
}

/// The same for one or more of the bytes from here on.
pub(crate) fn any_would_be_refused(
    file: &File,
    byte: u64,
    count: u64,
    hold: Hold,
) -> io::Result<bool> {
    let mut lock = request(byte, hold);
    lock.l_len = count as libc::off_t;
    // SAFETY: a descriptor that we hold, and a structure that lives through the call.
    super::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::testing::{Ended, in_child};
    use crate::os::{file, memfd};

    /// In a process of its own: children that concurrent tests fork have copies of its descriptors
    /// until they end, and so the locks.
    #[test]
    fn a_lock_belongs_to_the_description_and_not_to_the_process() {
        let ended = in_child(|| {
            let first = memfd::create(c"lock", 0o600, None).unwrap();
            let double = first.try_clone().unwrap();
            let second = file::reopen(&first, true).unwrap();
            assert!(hold(&first, Hold::Shared).unwrap());
            assert!(hold(&second, Hold::Shared).unwrap());
            assert!(!hold(&second, Hold::Alone).unwrap());
            drop(first);
            assert!(!hold(&second, Hold::Alone).unwrap(), "the double holds it");
            drop(double);
            assert!(hold(&second, Hold::Alone).unwrap());
            assert!(hold(&second, Hold::Not).unwrap());
            0
        });
        assert_eq!(ended, Ended::Code(0));
    }

    #[test]
    fn released_locks_are_gone_despite_copies() {
        let first = memfd::create(c"lock", 0o600, None).unwrap();
        let copy = first.try_clone().unwrap();
        let second = file::reopen(&first, true).unwrap();
        for byte in [0, 3, 1 << 40] {
            assert!(hold_byte(&first, byte, Hold::Alone).unwrap());
            assert!(!hold_byte(&second, byte, Hold::Alone).unwrap());
        }
        release(&first).unwrap();
        for byte in [0, 3, 1 << 40] {
            assert!(hold_byte(&second, byte, Hold::Alone).unwrap());
        }
        drop(copy);
    }
}
