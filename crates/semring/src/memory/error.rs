//! Why memory can't be allocated or used, grouped by what the caller can do next.

use std::io;
use std::path::Path;

use crate::os::{errno, file, limits};

/// An error of memory, before the operation adds the address.
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
        requested: u64,
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
    /// The same as [`of`](Self::of) for a call on a System V segment.
    pub(crate) fn of_sysv(error: crate::os::sysv::Error) -> Self {
        super::sysv::error_of(error, 0)
    }

    /// Converts an error of a system call, grouped by what the caller can do next.
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

    /// Sorts an error of a call that maps `len` bytes.
    pub(super) fn of_mapping(call: &'static str, len: u64, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(errno::ENOMEM) => Self::Limit(match limits::address_space() {
                Some(limit) => format!(
                    "{len} bytes can't be mapped: this process may have {limit} bytes of address space (RLIMIT_AS); \
                     raise it (ulimit -v, LimitAS= of a service), or choose a smaller capacity"
                ),
                None => format!(
                    "the kernel refuses to map {len} bytes: this process has too many mappings (vm.max_map_count), or \
                     memory may not be overcommitted (vm.overcommit_memory); raise that, or choose a smaller capacity"
                ),
            }),
            // With mlockall(MCL_FUTURE) a mapping is locked from its beginning.
            Some(errno::EAGAIN) => Self::Limit(locked_memory_text(len)),
            Some(errno::ENODEV) => Self::Limit(
                "the file system has no shared mappings of files: put the ring on another one"
                    .to_owned(),
            ),
            _ => Self::of(call, source),
        }
    }

    /// Sorts an error of making a file in a directory.
    pub(super) fn of_new_file(directory: &Path, source: io::Error) -> Self {
        let at = directory.display();
        let inodes = || file::space(directory).ok()?.inodes;
        match source.raw_os_error() {
            // The directory is missing: that is not "no such ring".
            Some(errno::ENOENT) => Self::Os {
                call: "open (its folder)",
                source,
            },
            Some(errno::ENOSPC) if inodes() == Some(0) => Self::Limit(format!(
                "no file can be made in {at}: its file system has no inodes left (df -i); remove files there, or give \
                 it more (mount -o remount,nr_inodes=… of a tmpfs)"
            )),
            Some(errno::ENOSPC) => Self::Limit(format!(
                "no file can be made in {at}: its file system is full (df); free some space there"
            )),
            Some(errno::EDQUOT) => Self::Limit(quota_text(directory)),
            Some(errno::EOPNOTSUPP) => Self::Limit(format!(
                "the file system of {at} keeps no permission bits, which a ring needs: put the ring on another one"
            )),
            _ => Self::of("open (its folder)", source),
        }
    }

    /// Sorts an error of giving a new file its name.
    pub(super) fn of_link(path: &Path, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(errno::ENOENT) => Self::Os {
                call: "linkat (its folder)",
                source,
            },
            Some(errno::ENOSPC | errno::EDQUOT) => {
                Self::of_new_file(path.parent().unwrap_or(Path::new("/")), source)
            }
            _ if file::has_no_links(&source) => Self::Limit(format!(
                "a new ring gets its name by a hard link, and the file system of {}, or a filter of system calls, \
                 refuses that ({source}): put the ring on another file system",
                path.display()
            )),
            _ => Self::of("linkat", source),
        }
    }
}

pub(super) fn quota_text(directory: &Path) -> String {
    format!(
        "your disk quota on the file system of {} is used up (quota): remove files there, or put the ring on another \
         one",
        directory.display()
    )
}

pub(super) fn locked_memory_text(len: u64) -> String {
    format!(
        "{len} bytes can't be locked in memory: RLIMIT_MEMLOCK is {} (for all that a process locks); raise it \
         (ulimit -l, LimitMEMLOCK= of a service, --ulimit memlock= of a container), or don't lock",
        limits::locked_memory()
            .map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes")),
    )
}

pub(super) type Result<T> = std::result::Result<T, MemoryError>;
