//! Why memory can't be had or used, sorted by what the caller can do next.

use std::io;

use crate::os::errno;

/// What can go wrong with memory, before it is known what for.
#[derive(Debug)]
pub(crate) enum MemoryError {
    /// There is no object of this name.
    NotFound,
    /// There is one already.
    Exists,
    /// The object's mode or owner forbids it.
    Denied(io::Error),
    /// Not a kind of object that can hold a ring (a directory, a FIFO, a symbolic link).
    WrongType(&'static str),
    /// The memory can't be had. `free` is what could be had, where known; `hint` the way out.
    NoSpace {
        asked: u64,
        free: Option<u64>,
        hint: &'static str,
    },
    /// A limit of the system is in the way: which one, its value, and how to raise it.
    Limit(String),
    /// Any other refusal, with the call that was refused.
    Os {
        call: &'static str,
        source: io::Error,
    },
}

impl MemoryError {
    /// Sorts an error of a call by what the caller can do next.
    pub(super) fn of(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(errno::ENOENT) => Self::NotFound,
            Some(errno::EEXIST) => Self::Exists,
            Some(errno::EACCES | errno::EPERM | errno::EROFS) => Self::Denied(source),
            Some(errno::ELOOP) => Self::WrongType("a symbolic link"),
            Some(errno::EISDIR) => Self::WrongType("a directory"),
            Some(errno::ENXIO) => Self::WrongType("a FIFO or a socket"),
            _ => Self::Os { call, source },
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, MemoryError>;
