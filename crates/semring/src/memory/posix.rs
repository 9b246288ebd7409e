//! POSIX shared memory: a file in /dev/shm, as `shm_open` would make it.
//!
//! A new object has no name until it is published (O_TMPFILE and a link), so a creator that dies
//! leaves nothing, and nobody ever finds a half-made ring.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Access, Backing, MemoryError, Ownership, Place, Result, Segment};
use crate::os::mapping::Mapping;
use crate::os::process;
use crate::os::{errno, file};

/// Where POSIX shared memory lives on Linux.
pub(crate) const DIRECTORY: &str = "/dev/shm";

const NO_SPACE: &str = "enlarge it (mount -o remount,size=… /dev/shm; docker run --shm-size=…), choose a \
                        smaller capacity, or use sysv:, which /dev/shm does not bound";

pub(crate) struct PosixObject {
    file: File,
    path: PathBuf,
}

impl PosixObject {
    pub(super) fn open(path: &Path, access: Access) -> Result<Self> {
        let file = file::open(path, access == Access::ReadWrite)
            .map_err(|error| MemoryError::of("open", error))?;
        let metadata = file
            .metadata()
            .map_err(|error| MemoryError::of("fstat", error))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Err(MemoryError::WrongType("a directory"));
        }
        if kind.is_fifo() || kind.is_socket() {
            return Err(MemoryError::WrongType("a FIFO or a socket"));
        }
        if !kind.is_file() {
            return Err(MemoryError::WrongType("a device"));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    pub(super) fn len(&self) -> Result<u64> {
        Ok(self
            .file
            .metadata()
            .map_err(|error| MemoryError::of("fstat", error))?
            .len())
    }

    pub(super) fn head(&self) -> Result<Box<[u8; 4096]>> {
        let mut bytes = Box::new([0; 4096]);
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(MemoryError::of("pread", error)),
            }
        }
        Ok(bytes)
    }

    pub(super) fn map(&self, len: usize, access: Access) -> Result<Segment> {
        let mapping = Mapping::shared(&self.file, len, access == Access::ReadWrite)
            .map_err(|error| MemoryError::of("mmap", error))?;
        Segment::new(Backing::Mapping(mapping))
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| MemoryError::of("fstat", error))?;
        Ok(Ownership {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        })
    }

    pub(super) fn try_lock(&self) -> Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(MemoryError::of("flock", error)),
        }
    }

    pub(super) fn unlink(&self) -> Result<()> {
        let ours = file::identity(&self.file).map_err(|error| MemoryError::of("fstat", error))?;
        // Somebody may have removed the name and made another object: that one is not ours to remove.
        match file::path_identity(&self.path) {
            Ok(there) if there == ours => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(MemoryError::of("lstat", error)),
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(MemoryError::of("unlink", error))
            }
            _ => Ok(()),
        }
    }
}

/// A new object that has no name yet.
pub(crate) struct NewPosix {
    file: File,
    path: PathBuf,
    /// Where unnamed files are not to be had, the object has this name until it is published.
    temporary: Option<PathBuf>,
}

impl NewPosix {
    pub(super) fn create(path: &Path, len: usize, mode: u32) -> Result<(Self, Segment)> {
        let directory = path.parent().unwrap_or(Path::new(DIRECTORY));
        let (file, temporary) = match file::create_unnamed(directory, mode) {
            Ok(file) => (file, None),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(errno::EOPNOTSUPP | errno::EISDIR)
                ) =>
            {
                let unique = u64::from_le_bytes(
                    process::random().map_err(|error| MemoryError::of("getrandom", error))?,
                );
                let temporary = directory.join(format!(".semring-{unique:016x}"));
                let file = file::create_named(&temporary, mode)
                    .map_err(|error| MemoryError::of("open", error))?;
                (file, Some(temporary))
            }
            // The directory is missing: that is not "no such ring".
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(MemoryError::Os {
                    call: "open(/dev/shm)",
                    source,
                });
            }
            Err(error) => return Err(MemoryError::of("open", error)),
        };
        let new = Self {
            file,
            path: path.to_owned(),
            temporary,
        };
        let free = file::free_bytes(directory).ok();
        file::allocate(&new.file, len as u64).map_err(|source| match source.raw_os_error() {
            Some(errno::ENOSPC | errno::EDQUOT | errno::EFBIG | errno::ENOMEM) => {
                MemoryError::NoSpace {
                    asked: len as u64,
                    free,
                    hint: NO_SPACE,
                }
            }
            _ => MemoryError::of("posix_fallocate", source),
        })?;
        let mapping = Mapping::shared(&new.file, len, true)
            .map_err(|error| MemoryError::of("mmap", error))?;
        let segment = Segment::new(Backing::Mapping(mapping))?;
        segment.populate().map_err(|_| MemoryError::NoSpace {
            asked: len as u64,
            free,
            hint: NO_SPACE,
        })?;
        Ok((new, segment))
    }

    pub(super) fn publish(mut self) -> Result<PosixObject> {
        // Whatever can fail comes before the name: with it the ring is there, and its set must stay.
        let file = self
            .file
            .try_clone()
            .map_err(|error| MemoryError::of("fcntl", error))?;
        match &self.temporary {
            None => file::link(&self.file, &self.path)
                .map_err(|error| MemoryError::of("linkat", error))?,
            Some(temporary) => std::fs::hard_link(temporary, &self.path)
                .map_err(|error| MemoryError::of("link", error))?,
        }
        let path = std::mem::take(&mut self.path);
        Ok(PosixObject { file, path })
    }
}

impl Drop for NewPosix {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Everything in /dev/shm that could be a ring by its size.
pub(super) fn places() -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            (metadata.is_file() && metadata.len() >= 4096).then(|| entry.path())
        })
        .collect();
    paths.sort();
    paths.into_iter().map(Place::Posix).collect()
}

impl std::fmt::Debug for PosixObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PosixObject({}, fd {})",
            self.path.display(),
            self.file.as_raw_fd()
        )
    }
}
