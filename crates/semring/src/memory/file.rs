//! A file that holds a ring: in /dev/shm, in another directory, or without a name (memfd).
//!
//! A new file has no name until it is published (O_TMPFILE and a link, or a temporary name and a link),
//! so if a creator dies, no process finds a half-made ring.
//!
//! A process that takes a role in the ring holds the file's lock, shared, as long as it has the role. A
//! process that makes a new guard holds it exclusively: then the kernel guarantees that no process has
//! a role, in any namespace.

use std::fs::{File, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::error::quota_text;
use super::new_object::check_available;
use super::{
    Access, MemoryError, Ownership, Pages, Request, Result, Segment, memfd, posix, prepare,
};
use crate::os::lock::{Hold, hold, hold_byte, would_be_refused};
use crate::os::mapping::{self, Mapping};
use crate::os::{errno, file, limits, process};

/// The byte that a remover of a ring without a guard locks. (Roles lock byte 0.)
const REMOVER_BYTE: u64 = 1;

/// The kind of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sort {
    /// In /dev/shm, under a ring's name.
    Posix,
    /// Anywhere.
    File,
    /// Without a name, and with a size that no process can change.
    Memfd,
}

impl Sort {
    /// See [`Object::mark`](super::Object::mark).
    pub(super) fn mark(self, inode: u64) -> String {
        let sort = match self {
            Self::Posix | Self::File => 'f',
            Self::Memfd => 'm',
        };
        format!("{sort}{inode:x}")
    }

    fn no_space(self) -> &'static str {
        match self {
            Self::Posix => posix::NO_SPACE,
            Self::File => {
                "free some space on its file system, put it on another one, or choose a smaller capacity"
            }
            Self::Memfd => memfd::NO_SPACE,
        }
    }
}

pub(crate) struct FileObject {
    file: File,
    /// The name that is removed with the ring; `None` if it has none, or was opened by a
    /// descriptor.
    path: Option<PathBuf>,
    sort: Sort,
    /// How many roles of this process hold the lock.
    roles: Mutex<usize>,
}

impl FileObject {
    fn new(file: File, path: Option<PathBuf>, sort: Sort) -> Self {
        Self {
            file,
            path,
            sort,
            roles: Mutex::new(0),
        }
    }

    /// Opens a file by its name, never through a symbolic link.
    pub(super) fn open(path: &Path, access: Access, sort: Sort) -> Result<Self> {
        let file = file::open(path, access == Access::ReadWrite)
            .map_err(|error| MemoryError::of("open", error))?;
        check_type(&file)?;
        Ok(Self::new(file, Some(path.to_owned()), sort))
    }

    /// Opens the target of a descriptor's link in /proc: a sealed memfd, or a file that has a name. The
    /// open file description is a new one, because locks belong to it.
    pub(super) fn of_descriptor(link: &Path, access: Access) -> Result<Self> {
        let file = file::follow(link, access == Access::ReadWrite)
            .map_err(|error| MemoryError::of("open", error))?;
        Self::of_nameless(file)
    }

    /// The same for a descriptor that was received.
    pub(super) fn of_received(file: &File) -> Result<Self> {
        let file = file::reopen(file, true).map_err(|error| MemoryError::of("open", error))?;
        Self::of_nameless(file)
    }

    fn of_nameless(file: File) -> Result<Self> {
        check_type(&file)?;
        let sort = if metadata(&file)?.nlink() > 0 {
            Sort::File
        } else {
            memfd::check_seals(&file)?;
            Sort::Memfd
        };
        Ok(Self::new(file, None, sort))
    }

    /// The same file once more, for a child that was forked with it.
    pub(super) fn reopen(&self) -> Result<Self> {
        let file =
            file::reopen(&self.file, true).map_err(|error| MemoryError::of("open", error))?;
        Ok(Self::new(file, self.path.clone(), self.sort))
    }

    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    /// The descriptor's number in this process.
    pub(super) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// True if it was not opened by a name.
    pub(super) fn is_nameless(&self) -> bool {
        self.path.is_none()
    }

    /// A descriptor to be passed on. Its description is a new one: the receiver must not hold this
    /// object's lock.
    pub(super) fn passable(&self) -> Result<OwnedFd> {
        file::reopen(&self.file, true)
            .map(OwnedFd::from)
            .map_err(|error| MemoryError::of("open (/proc/self/fd)", error))
    }

    pub(super) fn len(&self) -> Result<u64> {
        metadata(&self.file).map(|metadata| metadata.len())
    }

    /// The inode: a copied file has another one.
    pub(super) fn inode(&self) -> Result<u64> {
        metadata(&self.file).map(|metadata| metadata.ino())
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

    /// Copies bytes into a private segment at the same offset, up to the end of the file.
    pub(super) fn copy_into(&self, segment: &Segment, offset: usize, len: usize) -> Result<()> {
        let end = (offset + len).min(segment.len());
        let mut at = offset;
        while at < end {
            // SAFETY: at < segment.len(), so inside the mapping.
            let to = unsafe { segment.base().byte_add(at) };
            // SAFETY: the segment is private to this process, and `end` is not beyond it.
            let got = unsafe { file::read_raw_at(&self.file, to, end - at, at as u64) };
            match got.map_err(|error| MemoryError::of("pread", error))? {
                0 => break,
                got => at += got,
            }
        }
        Ok(())
    }

    pub(super) fn map(&self, len: usize, access: Access) -> Result<Segment> {
        let mapping = map(&self.file, len, access == Access::ReadWrite)?;
        Segment::of_file(mapping, self.sort == Sort::Memfd)
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        ownership(&self.file)
    }

    /// The directory that it is in.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => {
                file::path_of(&self.file).map_err(|error| MemoryError::of("readlink", error))?
            }
        };
        Ok(directory_of(&path).to_owned())
    }

    /// True if the name, where there is one, means this file.
    pub(super) fn has_its_name(&self) -> Result<bool> {
        let Some(path) = &self.path else {
            return Ok(true);
        };
        let ours = file::identity(&self.file).map_err(|error| MemoryError::of("fstat", error))?;
        match file::path_identity(path) {
            Ok(there) => Ok(there == ours),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(MemoryError::of("lstat", error)),
        }
    }

    /// A memfd never had a name. Renamed is not unlinked.
    pub(super) fn is_unlinked(&self) -> bool {
        self.sort != Sort::Memfd && file::links(&self.file).is_ok_and(|links| links == 0)
    }

    pub(super) fn unlink(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return match self.sort {
                Sort::Memfd => Ok(()),
                Sort::Posix | Sort::File => Err(MemoryError::WrongType(
                    "a descriptor of a file: remove the ring by its name",
                )),
            };
        };
        // Another process may have removed the name and made a new object: that must not be removed
        // here.
        if !self.has_its_name()? {
            return Ok(());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(MemoryError::of("unlink", error))
            }
            _ => Ok(()),
        }
    }

    /// Excludes other removers until this is dropped; false if one is active. A shared lock, which a process
    /// that may only read the file can hold, must not block removers: if there are such locks, the answer is
    /// true without a lock.
    pub(super) fn try_lock(&self) -> Result<bool> {
        let call = |error| MemoryError::of("fcntl(F_OFD_SETLK)", error);
        if hold_byte(&self.file, REMOVER_BYTE, Hold::Alone).map_err(call)? {
            return Ok(true);
        }
        let refused_by_a_writer = would_be_refused(&self.file, REMOVER_BYTE, Hold::Shared);
        refused_by_a_writer.map(|refused| !refused).map_err(call)
    }

    /// True if other processes have the byte of [`try_lock`](Self::try_lock) locked, shared.
    pub(super) fn is_lock_shared(&self) -> Result<bool> {
        would_be_refused(&self.file, REMOVER_BYTE, Hold::Alone)
            .map_err(|error| MemoryError::of("fcntl(F_OFD_GETLK)", error))
    }

    /// Gives up what [`try_lock`](Self::try_lock) took.
    pub(super) fn unlock(&self) {
        let _ = hold_byte(&self.file, REMOVER_BYTE, Hold::Not);
    }

    /// Takes the lock, shared, for one more role; false while another process makes a new guard.
    pub(super) fn enter(&self) -> Result<bool> {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        if *roles == 0 && !self.lock(Hold::Shared)? {
            return Ok(false);
        }
        *roles += 1;
        Ok(true)
    }

    /// One role less.
    pub(super) fn leave(&self) {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        *roles -= 1;
        if *roles == 0 {
            let _ = self.lock(Hold::Not);
        }
    }

    /// Takes the lock exclusively; false if a process has a role. For a new object it always
    /// succeeds.
    pub(super) fn take_over(&self) -> Result<bool> {
        self.lock(Hold::Alone)
    }

    /// True if only shared locks keep us from [`take_over`](Self::take_over): of holders of roles, or of processes
    /// that may only read the file.
    pub(super) fn is_shared(&self) -> Result<bool> {
        would_be_refused(&self.file, 0, Hold::Shared)
            .map(|refused| !refused)
            .map_err(|error| MemoryError::of("fcntl(F_OFD_GETLK)", error))
    }

    /// Gives up what [`take_over`](Self::take_over) took.
    pub(super) fn end_take_over(&self) {
        let _ = self.lock(Hold::Not);
    }

    fn lock(&self, how: Hold) -> Result<bool> {
        match hold(&self.file, how) {
            // Where there are no locks, there is no taking over either; then roles need none.
            Err(_) if how != Hold::Alone => Ok(true),
            other => other.map_err(|error| MemoryError::of("fcntl(F_OFD_SETLK)", error)),
        }
    }
}

fn metadata(file: &File) -> Result<Metadata> {
    file.metadata()
        .map_err(|error| MemoryError::of("fstat", error))
}

fn ownership(file: &File) -> Result<Ownership> {
    let metadata = metadata(file)?;
    Ok(Ownership {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    })
}

fn check_type(file: &File) -> Result<()> {
    let kind = metadata(file)?.file_type();
    if kind.is_dir() {
        return Err(MemoryError::WrongType("a directory"));
    }
    if kind.is_fifo() || kind.is_socket() {
        return Err(MemoryError::WrongType("a FIFO or a socket"));
    }
    if !kind.is_file() {
        return Err(MemoryError::WrongType("a device"));
    }
    Ok(())
}

fn map(file: &File, len: usize, writable: bool) -> Result<Mapping> {
    // The kernel maps reserved huge pages whole, and unmaps them whole only.
    let page = file::huge_page_bytes(file).unwrap_or(1);
    let len = len.next_multiple_of(page);
    Mapping::shared(file, len, writable)
        .map_err(|error| MemoryError::of_mapping("mmap", len as u64, error))
}

/// A new file that is no ring yet.
pub(crate) struct NewFile {
    file: File,
    path: Option<PathBuf>,
    sort: Sort,
    /// Where unnamed files are not to be had, the file has this name until it is published.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// A file that gets this name when it is published.
    pub(super) fn create(path: &Path, request: &Request, sort: Sort) -> Result<(Self, Segment)> {
        if request.pages != Pages::Ordinary {
            return Err(MemoryError::Limit(
                "huge pages are for memfd: and anonymous rings, transparent ones for sysv: rings, too; a file has the pages of \
                 its file system (mount -o huge=… of a tmpfs, a hugetlbfs): leave the option out"
                    .to_owned(),
            ));
        }
        let directory = directory_of(path);
        let unnamed = match file::create_unnamed(directory, request.mode) {
            // Its name will be a link to that in /proc.
            Ok(file) => file::is_linkable(&file).then_some(file),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(errno::EOPNOTSUPP | errno::EISDIR | errno::EINVAL)
                ) =>
            {
                None
            }
            Err(error) => return Err(MemoryError::of_new_file(directory, error)),
        };
        let (file, temporary) = match unnamed {
            Some(file) => (file, None),
            None => {
                let (file, temporary) = create_temporary(directory, request.mode)?;
                (file, Some(temporary))
            }
        };
        let new = Self {
            file,
            path: Some(path.to_owned()),
            sort,
            temporary,
        };
        let free = file::space(directory).ok().and_then(|space| space.bytes);
        new.fill(request, free)
    }

    /// A file that never has a name.
    pub(super) fn nameless(file: File, request: &Request) -> Result<(Self, Segment)> {
        let new = Self {
            file,
            path: None,
            sort: Sort::Memfd,
            temporary: None,
        };
        new.fill(request, None)
    }

    /// Allocates all of it, and maps it.
    fn fill(self, request: &Request, free: Option<u64>) -> Result<(Self, Segment)> {
        let page = file::huge_page_bytes(&self.file).unwrap_or(1);
        let len = request.len.next_multiple_of(page) as u64;
        let hint = self.sort.no_space();
        let no_space = || MemoryError::NoSpace {
            requested: len,
            free,
            hint,
        };
        if limits::file_size().is_some_and(|limit| len > limit) {
            return Err(too_large(len));
        }
        let in_memory = file::is_in_memory(&self.file);
        if in_memory && page == 1 {
            check_available(len)?;
        }
        // A disk would be filled completely before the call fails.
        if free.is_some_and(|free| len > free) {
            return Err(no_space());
        }
        file::allocate(&self.file, len).map_err(|source| match source.raw_os_error() {
            Some(errno::ENOSPC | errno::ENOMEM) => no_space(),
            Some(errno::EDQUOT) => MemoryError::Limit(quota_text(&self.folder())),
            Some(errno::EFBIG) => too_large(len),
            _ => MemoryError::of("fallocate", source),
        })?;
        file::set_owner(&self.file, request.uid, request.gid)
            .map_err(|error| MemoryError::of("fchown", error))?;
        let mapping = map(&self.file, request.len, true)?;
        let segment = Segment::of_file(mapping, self.sort == Sort::Memfd)?;
        if in_memory {
            prepare(&segment, request, hint)?;
        } else {
            // The blocks are there. To make all pages dirty would only have zeros written to the disk;
            // pages that can't be had now come when they are touched.
            let _ = mapping::populate_for_reading(segment.base(), segment.len());
        }
        Ok((self, segment))
    }

    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        ownership(&self.file)
    }

    pub(super) fn inode(&self) -> Result<u64> {
        metadata(&self.file).map(|metadata| metadata.ino())
    }

    /// The directory that it will be in; memory files have that of POSIX rings.
    pub(super) fn folder(&self) -> PathBuf {
        let path = self.path.as_deref();
        path.map_or(posix::DIRECTORY.as_ref(), directory_of)
            .to_owned()
    }

    pub(super) fn publish(mut self) -> Result<FileObject> {
        // Every step that can fail comes before the name: once the ring has its name, its set must
        // stay.
        let file = self
            .file
            .try_clone()
            .map_err(|error| MemoryError::of("fcntl", error))?;
        let Some(path) = self.path.take() else {
            memfd::seal(&file)?;
            return Ok(FileObject::new(file, None, self.sort));
        };
        if self.sort == Sort::File {
            // After a power failure, too, the name means a finished ring.
            file.sync_all()
                .map_err(|error| MemoryError::of("fsync", error))?;
        }
        let named = match &self.temporary {
            None => file::link(&file, &path),
            Some(temporary) => match std::fs::hard_link(temporary, &path) {
                // As on vfat.
                Err(error) if file::has_no_links(&error) => file::rename_new(temporary, &path)
                    .map_err(|refused| match refused.kind() {
                        std::io::ErrorKind::AlreadyExists => refused,
                        _ => error,
                    }),
                other => other,
            },
        };
        named.map_err(|error| MemoryError::of_link(&path, error))?;
        if self.sort == Sort::File {
            // The ring is there; at worst its name is not after a power failure.
            let _ = file::sync_directory(directory_of(&path));
        }
        Ok(FileObject::new(file, Some(path), self.sort))
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A new file under an unused name, for file systems without unnamed files.
fn create_temporary(directory: &Path, mode: u32) -> Result<(File, PathBuf)> {
    let unique =
        u64::from_le_bytes(process::random().map_err(|error| MemoryError::of("getrandom", error))?);
    let temporary = directory.join(format!(".semring-{unique:016x}"));
    let file = file::create_named(&temporary, mode)
        .map_err(|error| MemoryError::of_new_file(directory, error))?;
    Ok((file, temporary))
}

fn too_large(len: u64) -> MemoryError {
    MemoryError::Limit(match limits::file_size() {
        Some(limit) if len > limit => format!(
            "no room for {len} bytes: this process may make files of {limit} bytes (RLIMIT_FSIZE), which holds for rings \
             in files and in /dev/shm, and for memfd; raise it (ulimit -f, LimitFSIZE= of a service), choose a smaller \
             capacity, or use a sysv: or anonymous ring, which it does not bound"
        ),
        _ => format!(
            "the file system has no files of {len} bytes: put the ring on another one, or choose a smaller capacity"
        ),
    })
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

impl std::fmt::Debug for FileObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FileObject({:?} {:?}, fd {})",
            self.sort,
            self.path,
            self.file.as_raw_fd()
        )
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use semring_testkit::names;

    #[test]
    fn temporary_name_is_gone_after_publication() {
        let directory = std::env::temp_dir().join(names::unique("temporary"));
        std::fs::create_dir(&directory).unwrap();
        let names = || {
            let entries = std::fs::read_dir(&directory).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let path = directory.join("ring");
        let new = || {
            let (file, temporary) = create_temporary(&directory, 0o600).unwrap();
            NewFile {
                file,
                path: Some(path.clone()),
                sort: Sort::File,
                temporary: Some(temporary),
            }
        };
        drop(new());
        assert_eq!(names(), [""; 0]);
        let object = new().publish().unwrap();
        assert_eq!(names(), ["ring"]);
        let second = new().publish();
        assert!(matches!(second, Err(MemoryError::Exists)), "{second:?}");
        object.unlink().unwrap();
        assert_eq!(names(), [""; 0]);
        std::fs::remove_dir(&directory).unwrap();
    }
}
