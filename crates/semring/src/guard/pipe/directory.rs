//! The pipes of a ring: a directory of FIFOs and one lock file, or pipes without a name that children
//! inherit.
//!
//! ```text
//! lock        bytes to lock, see the parent module; at 0 a mark of removal, at 1 one of completeness, from 8 the
//!             holders' pids, at 4096 where the ring is
//! messages    the consumer's wake-up FIFO      room.N      the wake-up FIFO of lane N's producer
//! consumer    open while it is attached       producer.N  open while lane N's producer is attached
//! remover     open while a process removes
//! ```
//! The directory is made before the ring has its name, and its `lock` first, with the creators' byte
//! locked:
//!
//! ```text
//! 1 the directory             killed: an empty directory of our kind of name
//! 2 lock, byte CREATION held  killed: its lock is free and the rest is missing: it is known to be dead
//! 3 the FIFOs, the owner      killed: likewise
//! 4 the mark of completeness
//! 5 the byte is unlocked       when the ring has its name
//! ```
//! Removing begins with a mark in `lock`, which all calls of the guard check, and ends with its name. A
//! remover that is killed in between leaves a directory that is marked as unused.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::os::fifo::{self, End};
use crate::os::fork::Private;
use crate::os::watch::DirectoryWatch;
use crate::os::{errno, file, memfd};

/// Bytes of the lock file: see the parent module.
pub(super) const REMOVAL: u64 = 0;
pub(super) const FORCED: u64 = 1;
/// Held by the process that makes the pipes of a ring.
pub(super) const CREATION: u64 = 2;
pub(super) const USERS: u64 = 3;

/// The prefix of all such directories.
pub(crate) const PREFIX: &str = ".semring-";

pub(super) const LOCK: &str = "lock";
/// Offset of the mark that it was removed.
pub(super) const REMOVED_AT: u64 = 0;
/// Offset of the mark that it is complete.
pub(super) const COMPLETE_AT: u64 = 1;
pub(super) const LOCATION_AT: u64 = 4096;

/// One pipe of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pipe {
    /// The consumer's wake-up FIFO.
    Messages,
    /// Open for writing while the consumer is attached.
    Consumer,
    /// Open for writing while a process removes the guard.
    Remover,
    /// Open for writing while the lane's producer is attached.
    Producer(usize),
    /// The wake-up FIFO of the lane's producer.
    Room(usize),
}

impl Pipe {
    pub(super) fn name(self) -> CString {
        fifo::name(&match self {
            Self::Messages => "messages".to_owned(),
            Self::Consumer => "consumer".to_owned(),
            Self::Remover => "remover".to_owned(),
            Self::Producer(lane) => format!("producer.{lane}"),
            Self::Room(lane) => format!("room.{lane}"),
        })
    }

    /// Permission bits, in a ring with these. A user that may not write the ring must not read wake-up
    /// FIFOs: a token taken by the wrong process is a lost wake-up.
    pub(super) const fn mode(self, ring: u32) -> u32 {
        match self {
            Self::Messages | Self::Room(_) => writers_only(ring),
            Self::Consumer | Self::Remover | Self::Producer(_) => ring,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Messages => 0,
            Self::Consumer => 1,
            Self::Remover => 2,
            Self::Producer(lane) => 3 + 2 * lane,
            Self::Room(lane) => 4 + 2 * lane,
        }
    }

    pub(super) fn all(lanes: usize) -> impl Iterator<Item = Self> {
        let lanes = (0..lanes).flat_map(|lane| [Self::Producer(lane), Self::Room(lane)]);
        [Self::Messages, Self::Consumer, Self::Remover]
            .into_iter()
            .chain(lanes)
    }
}

/// Permission bits for exactly those users that may write a ring of this mode.
pub(crate) const fn writers_only(ring: u32) -> u32 {
    let writers = ring & 0o222;
    writers | writers << 1
}

/// A call that was refused.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) call: &'static str,
    pub(crate) source: io::Error,
}

pub(super) fn failure(call: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure { call, source }
}

/// Owner and permissions of the pipes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits of the ring.
    pub(crate) mode: u32,
}

/// The pipes of one ring, as opened by this process.
#[derive(Debug)]
pub(crate) enum PipeFiles {
    Directory {
        path: PathBuf,
        directory: File,
        /// Only for checks: holds no locks.
        lock: File,
    },
    Inherited {
        lock: File,
        /// Handles that hold no end open.
        pipes: Vec<File>,
    },
}

/// Why a directory is not that of a ring's pipes.
#[derive(Debug)]
pub(crate) enum NoPipeFiles {
    /// It does not exist, or is not complete.
    Missing,
    /// It has another owner than the ring.
    Stranger,
    Failed(Failure),
}

fn no_pipe_files(call: &'static str) -> impl FnOnce(io::Error) -> NoPipeFiles {
    move |source| match source.raw_os_error() {
        Some(errno::ENOENT | errno::ENOTDIR | errno::ELOOP | errno::EINVAL) => NoPipeFiles::Missing,
        _ => NoPipeFiles::Failed(Failure { call, source }),
    }
}

impl PipeFiles {
    /// Pipes without a name, for this process and those that it forks.
    pub(super) fn inherited(lanes: usize) -> Result<Self, Failure> {
        let lock = memfd::create(c"semring-guard", 0o600, None).map_err(failure("memfd_create"))?;
        let pipes: io::Result<Vec<File>> = Pipe::all(lanes).map(|_| fifo::anonymous()).collect();
        let pipes = pipes.map_err(failure("pipe2"))?;
        Ok(Self::Inherited { lock, pipes })
    }

    /// Opens the directory of a ring with this owner.
    pub(super) fn open(path: &Path, lanes: usize, owner: u32) -> Result<Self, NoPipeFiles> {
        let directory = file::open_directory(path).map_err(no_pipe_files("open"))?;
        let uid = directory.metadata().map_err(no_pipe_files("fstat"))?.uid();
        if uid != owner {
            return Err(NoPipeFiles::Stranger);
        }
        let lock = open_lock(&directory, false).map_err(no_pipe_files("openat"))?;
        // Half made: its creator is at work, or dead.
        if !is_complete(&lock).map_err(no_pipe_files("pread"))? || is_marked(&lock, REMOVED_AT) {
            return Err(NoPipeFiles::Missing);
        }
        // A user that may only read can't open the wake-up FIFOs.
        let last = Pipe::Producer(lanes - 1).name();
        fifo::open_at(&directory, &last, End::Read).map_err(no_pipe_files("openat"))?;
        Ok(Self::Directory {
            path: path.to_owned(),
            directory,
            lock,
        })
    }

    /// A second instance, with descriptors of its own.
    pub(super) fn reopen(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Directory {
                path,
                directory,
                lock,
            } => Self::Directory {
                path: path.clone(),
                directory: directory.try_clone()?,
                lock: lock.try_clone()?,
            },
            Self::Inherited { lock, pipes } => Self::Inherited {
                lock: lock.try_clone()?,
                pipes: pipes
                    .iter()
                    .map(File::try_clone)
                    .collect::<io::Result<_>>()?,
            },
        })
    }

    /// For checking the locks of other processes.
    pub(super) fn lock(&self) -> &File {
        match self {
            Self::Directory { lock, .. } | Self::Inherited { lock, .. } => lock,
        }
    }

    /// A new description of the lock file, for holding locks.
    pub(super) fn own_lock(&self) -> io::Result<Private> {
        Private::open(|| match self {
            Self::Directory { directory, .. } => open_lock(directory, true),
            Self::Inherited { lock, .. } => file::reopen(lock, true),
        })
    }

    pub(super) fn pipe(&self, pipe: Pipe, end: End) -> io::Result<File> {
        match self {
            Self::Directory { directory, .. } => fifo::open_at(directory, &pipe.name(), end),
            Self::Inherited { pipes, .. } => fifo::reopen(&pipes[pipe.index()], end),
        }
    }

    /// True if the guard was removed.
    pub(super) fn is_removed(&self) -> bool {
        match self {
            // By a remover; or the name was removed by other means.
            Self::Directory { lock, .. } => {
                is_marked(lock, REMOVED_AT) || file::links(lock).is_ok_and(|links| links == 0)
            }
            Self::Inherited { lock, .. } => is_marked(lock, REMOVED_AT),
        }
    }

    /// Reports the removal of the name of `lock`, if that is available: for sleepers whose directory is
    /// removed by other means than a remover (`rm -r`, systemd's RemoveIPC).
    pub(super) fn watch(&self) -> Option<DirectoryWatch> {
        match self {
            Self::Directory {
                directory, path, ..
            } => DirectoryWatch::names_in(directory, path).ok(),
            Self::Inherited { .. } => None,
        }
    }

    /// After this [`watch`](Self::watch) opens no descriptor.
    pub(super) fn prepare_watch(&self) {
        match self {
            Self::Directory { .. } => DirectoryWatch::prepare(),
            Self::Inherited { .. } => {}
        }
    }

    /// Removes the rest, once it is [marked](mark_removed). Needs no descriptor.
    pub(super) fn clear(&self, lanes: usize) -> io::Result<()> {
        match self {
            Self::Inherited { .. } => Ok(()),
            Self::Directory {
                path, directory, ..
            } => {
                for pipe in Pipe::all(lanes) {
                    file::unlink_in(directory, &pipe.name())?;
                }
                // Last: it identifies the directory.
                file::unlink_in(directory, &fifo::name(LOCK))?;
                let ours = file::identity(directory)?;
                if file::path_identity(path).is_ok_and(|there| there == ours) {
                    unless_gone(std::fs::remove_dir(path))?;
                }
                Ok(())
            }
        }
    }

    /// The owner of the directory; `None` for pipes without one.
    pub(super) fn owner(&self) -> Option<u32> {
        match self {
            Self::Directory { directory, .. } => directory.metadata().ok().map(|of| of.uid()),
            Self::Inherited { .. } => None,
        }
    }

    /// The process that was recorded last as a slot's holder; 0 for none.
    pub(super) fn recorded_holder(&self, role: usize) -> io::Result<u32> {
        let mut pid = [0; 4];
        let got = self.lock().read_at(&mut pid, 8 + 8 * role as u64)?;
        Ok(if got == 4 { u32::from_le_bytes(pid) } else { 0 })
    }
}

/// Opens the lock file of a directory. The owner of the directory chose what is in it: the file must have the
/// same owner and no other name, so that writing into it changes no other user's file. (When root makes a
/// directory for another user, it gives the contents away piece by piece, the directory last.)
pub(super) fn open_lock(directory: &File, writable: bool) -> io::Result<File> {
    let lock = file::open_in(directory, &fifo::name(LOCK), writable)?;
    let (of, owner) = (lock.metadata()?, directory.metadata()?.uid());
    if of.is_file() && (of.uid() == owner || owner == 0) && of.nlink() <= 1 {
        Ok(lock)
    } else {
        Err(io::Error::from_raw_os_error(errno::EINVAL))
    }
}

pub(super) fn is_complete(lock: &File) -> io::Result<bool> {
    let mut mark = [0];
    Ok(lock.read_at(&mut mark, COMPLETE_AT)? == 1 && mark != [0])
}

pub(super) fn is_marked(lock: &File, at: u64) -> bool {
    let mut mark = [0];
    matches!(lock.read_at(&mut mark, at), Ok(1)) && mark != [0]
}

/// From now on [`PipeFiles::is_removed`] holds, for all processes. The remover has had this lock file open from
/// the beginning: at the limit of descriptors it could not open another.
pub(super) fn mark_removed(lock: &File) -> io::Result<()> {
    file::write_at(lock, &[1], REMOVED_AT)
}

/// Records the holder of a slot.
pub(super) fn record_holder(lock: &Private, role: usize, pid: u32) -> io::Result<()> {
    let at = 8 + 8 * role as u64;
    file::write_at(lock.file(), &pid.to_le_bytes(), at)
}

pub(super) fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
