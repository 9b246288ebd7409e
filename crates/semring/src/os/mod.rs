//! Every system call of this crate, as a thin safe function that returns `io::Error`. System V calls
//! come from the `sysv-ipc` crate and are only re-exported here, so that all system calls are in one
//! module.
//!
//! Left out: any policy. A function here makes one call (repeated on EINTR where no caller could do
//! anything else) and returns the result.
#![allow(unsafe_code)]

pub(crate) mod barrier;
pub(crate) mod cgroup;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod fifo;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod mapping_state;
pub(crate) mod memfd;
pub(crate) mod peek;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod socket;
#[cfg(all(test, not(semring_loom)))]
pub(crate) mod testing;
pub(crate) mod undo;
pub(crate) mod watch;

/// The error numbers that the layers above distinguish.
pub(crate) mod errno {
    pub(crate) use libc::{
        E2BIG, EACCES, EAGAIN, EDQUOT, EEXIST, EFAULT, EFBIG, EIDRM, EINVAL, EIO, EISDIR, ELOOP,
        EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM,
        EROFS,
    };
}

/// System V calls.
pub(crate) mod sysv {
    pub(crate) use sysv_ipc::sem::{self, Op, SemSet};
    pub(crate) use sysv_ipc::shm::{self, Attachment, Shm};
    pub(crate) use sysv_ipc::{Error, Key, ftok, limits};
}

use std::io;

/// `-1` means that errno has the reason.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Makes a call again for as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
