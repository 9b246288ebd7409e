//! Locks of an open file description: the kernel releases them when the last descriptor of it is closed,
//! whatever ended the process. They see through pid and IPC namespaces.

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

/// Changes what this description holds of the file's first byte (locks are advice: nobody is kept from
/// the byte itself); never waits. False if somebody else's lock is in the way.
pub(crate) fn hold(file: &File, hold: Hold) -> io::Result<bool> {
    let kind = match hold {
        Hold::Shared => libc::F_RDLCK,
        Hold::Alone => libc::F_WRLCK,
        Hold::Not => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::{file, memfd};

    #[test]
    fn a_lock_belongs_to_the_description_and_not_to_the_process() {
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
    }
}
