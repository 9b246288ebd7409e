//! Where the bytes live: one [`Segment`] whatever backs it, found and made through an [`Object`].
//!
//! # The contract of a backend
//! (held for each of them in `contract_tests`)
//! * A new segment is all zero, and every page of it is real: a full file system or memory answers at
//!   creation, with the size asked for, never with SIGBUS later. (A file on a disk has all its blocks.)
//! * What one mapping stores, every other sees.
//! * Mode and owner are exactly what was asked for, whatever the umask.
//! * A name that is taken answers [`MemoryError::Exists`], a missing one [`MemoryError::NotFound`].
//! * Removing takes the name away; mappings stay valid until they are dropped.
//! * A forked child does not have the pages (those of anonymous memory it has), and dropping its copy of
//!   the handle does nothing.
//!
//! # Who can take the memory away under its users
//! Nobody, where its size can't change: System V segments, sealed memfds, anonymous memory. The file of a
//! `posix:` or `file:` ring can be truncated by whoever may write it, and there is no seal against that. A
//! user who touches a missing page goes on with zeros in a segment that says that it is
//! [torn](Segment::is_torn). Those who only look read such a file with `pread`.
#![allow(unsafe_code)]

pub(crate) mod address;
mod anonymous;
#[cfg(all(test, not(semring_loom)))]
mod contract_tests;
mod file;
#[cfg(test)]
mod heap;
mod memfd;
mod posix;
mod span;
mod sysv;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

pub(crate) use address::{Address, Place};
pub(crate) use posix::DIRECTORY as POSIX_DIRECTORY;
pub(crate) use span::Span;

use crate::os::fault::Watch;
use crate::os::mapping::{self, Mapping};
use crate::os::sentinel::Sentinel;
use crate::os::sysv::{Attachment, Key};
use crate::os::{errno, process};
use crate::sync::signals::SignalWord;
use file::Sort;

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
    fn of(call: &'static str, source: io::Error) -> Self {
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

type Result<T> = std::result::Result<T, MemoryError>;

/// Whether a segment is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

enum Backing {
    Mapping(Mapping),
    /// Of a file that whoever may write it may truncate.
    Truncatable(Mapping),
    Attached(Attachment),
    /// Shared with the handles of the process that this one was forked from, too.
    Anonymous(Arc<Mapping>),
    /// A copy of our own, for looking.
    Private(Mapping),
    #[cfg(test)]
    Heap(heap::HeapPages),
}

/// Memory that a ring lies in, mapped into this process.
pub(crate) struct Segment {
    backing: ManuallyDrop<Backing>,
    base: NonNull<u8>,
    len: usize,
    /// The process outlives the loss of the pages.
    watch: Option<Watch>,
    sentinel: Sentinel,
}

// SAFETY: the bytes are shared between processes anyway; all that is done with them goes through the
// views of `layout`, which use atomics and copies.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    fn new(backing: Backing) -> Result<Self> {
        let (base, len) = match &backing {
            Backing::Mapping(mapping) | Backing::Truncatable(mapping) => {
                (mapping.base(), mapping.len())
            }
            Backing::Attached(attachment) => (attachment.as_ptr(), attachment.len()),
            Backing::Anonymous(mapping) => (mapping.base(), mapping.len()),
            Backing::Private(mapping) => (mapping.base(), mapping.len()),
            #[cfg(test)]
            Backing::Heap(pages) => (pages.base(), pages.len()),
        };
        let sentinel = Sentinel::new().map_err(|source| MemoryError::Os {
            call: "madvise(MADV_WIPEONFORK)",
            source,
        })?;
        if matches!(
            backing,
            Backing::Mapping(_) | Backing::Truncatable(_) | Backing::Attached(_)
        ) {
            mapping::dont_fork(base, len).map_err(|source| MemoryError::Os {
                call: "madvise(MADV_DONTFORK)",
                source,
            })?;
        }
        Ok(Self {
            backing: ManuallyDrop::new(backing),
            base,
            len,
            watch: None,
            sentinel,
        })
    }

    /// A mapping of a file, which nobody can truncate if it is `sealed`. That of another one becomes
    /// [torn](Self::is_torn) then.
    fn of_file(mapping: Mapping, sealed: bool) -> Result<Self> {
        if sealed {
            return Self::new(Backing::Mapping(mapping));
        }
        let mut segment = Self::new(Backing::Truncatable(mapping))?;
        // SAFETY: `drop` ends the watch before it unmaps the pages; the sentinel goes after them.
        let watch = unsafe { Watch::new(segment.base, segment.len, &segment.sentinel) };
        // Where the program or the system wants no handler, the ring works all the same.
        segment.watch = watch.ok();
        Ok(segment)
    }

    /// Private zeroed memory of this process, for models and tests of the upper layers.
    #[cfg(test)]
    pub(crate) fn heap(len: usize) -> Self {
        Self::new(Backing::Heap(heap::HeapPages::new(len))).expect("a page for the sentinel")
    }

    /// Zeroed memory of this process alone; real where it is touched.
    pub(crate) fn private(len: usize) -> Result<Self> {
        let mapping = Mapping::private(len).map_err(|error| MemoryError::of("mmap", error))?;
        Self::new(Backing::Private(mapping))
    }

    fn is_private(&self) -> bool {
        matches!(*self.backing, Backing::Private(_))
    }

    /// In a forked child, which still has the pages of anonymous memory: a handle of its own to them.
    /// `None` for other memory.
    pub(crate) fn adopt(&self) -> Result<Option<Self>> {
        match &*self.backing {
            Backing::Anonymous(mapping) => Self::new(Backing::Anonymous(mapping.clone())).map(Some),
            _ => Ok(None),
        }
    }

    /// Keeps every page in memory for as long as it is mapped here.
    pub(crate) fn lock(&self) -> Result<()> {
        mapping::lock(self.base, self.len).map_err(|source| match source.raw_os_error() {
            Some(errno::EPERM | errno::ENOMEM | errno::EAGAIN) => MemoryError::Limit(format!(
                "{} bytes can't be locked in memory: RLIMIT_MEMLOCK is {} (for all that a process locks); raise it \
                 (ulimit -l, LimitMEMLOCK= of a service, --ulimit memlock= of a container), or don't lock",
                self.len,
                process::memory_lock_limit()
                    .map_or_else(|| "unlimited".to_owned(), |bytes| format!("{bytes} bytes")),
            )),
            _ => MemoryError::of("mlock", source),
        })
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What says whether the pages are there, for those who ask with each message.
    pub(crate) fn fate(&self) -> &SignalWord {
        self.sentinel.word()
    }

    /// True while the pages are those of the ring: not in a forked child, and not once they are torn.
    #[inline(always)]
    pub(crate) fn is_intact(&self) -> bool {
        self.sentinel.is_intact()
    }

    /// True if what this thread read of the segment last may have been zeros in place of the ring's bytes,
    /// because they were taken away.
    #[inline(always)]
    pub(crate) fn is_torn(&self) -> bool {
        self.sentinel.is_torn()
    }

    /// The kernel found no page there.
    fn note_fault(&self) {
        if matches!(*self.backing, Backing::Truncatable(_)) {
            self.sentinel.tear();
        }
    }

    /// True in a process forked since the segment was mapped: it does not have the pages.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.sentinel.is_child()
    }

    /// Makes every page real now.
    fn populate(&self) -> io::Result<()> {
        match mapping::populate(self.base, self.len) {
            // Before Linux 5.14 there is no such advice: touch the pages.
            Err(error) if error.raw_os_error() == Some(errno::EINVAL) => {
                for page in (0..self.len).step_by(4096) {
                    // SAFETY: page < len, so inside the mapping.
                    let at = unsafe { self.base.byte_add(page) };
                    // SAFETY: a fresh segment that only its creator knows; the byte is 0 and stays.
                    unsafe { at.as_ptr().write_volatile(0) };
                }
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Before the pages go, and in a forked child, too.
        drop(self.watch.take());
        if self.is_forked() {
            // The child never had these pages; the addresses may belong to something else by now. (Those of
            // anonymous memory it has; they go with it.)
            return;
        }
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.backing) };
    }
}

/// Refuses what would wake the out-of-memory killer when it is populated.
fn check_available(asked: u64) -> Result<()> {
    match process::available_memory() {
        Some(free) if asked > free => Err(MemoryError::NoSpace {
            asked,
            free: Some(free),
            hint: "that is more than this machine has left: choose a smaller capacity or fewer producers",
        }),
        _ => Ok(()),
    }
}

/// What pages a new ring gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pages {
    #[default]
    Ordinary,
    /// Transparent huge pages.
    Transparent,
    /// Huge pages out of the machine's pool.
    Reserved,
}

/// What a new object is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Bytes; with reserved huge pages rounded up to whole ones.
    pub(crate) len: usize,
    /// Permission bits, whatever the umask.
    pub(crate) mode: u32,
    /// The owner, if not the caller.
    pub(crate) uid: Option<u32>,
    /// The group, if not the usual one.
    pub(crate) gid: Option<u32>,
    pub(crate) pages: Pages,
}

/// Makes the pages of a new segment real, of the kind asked for.
fn prepare(segment: &Segment, request: &Request, hint: &'static str) -> Result<()> {
    if request.pages == Pages::Transparent {
        let setting = process::shared_huge_pages();
        if !matches!(
            setting.as_deref(),
            Some("advise" | "always" | "within_size" | "force")
        ) {
            return Err(MemoryError::Limit(format!(
                "transparent huge pages are off for shared memory: /sys/kernel/mm/transparent_hugepage/shmem_enabled is \
                 {}; set it to \"advise\", or leave the option out",
                setting.as_deref().unwrap_or("missing")
            )));
        }
        mapping::advise_huge(segment.base(), segment.len())
            .map_err(|error| MemoryError::of("madvise(MADV_HUGEPAGE)", error))?;
    }
    segment.populate().map_err(|_| MemoryError::NoSpace {
        asked: segment.len() as u64,
        free: process::available_memory(),
        hint,
    })
}

/// Who owns an object and who may use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ownership {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// A memory object that exists: opened, and not yet mapped.
pub(crate) enum Object {
    File(file::FileObject),
    Sysv(sysv::SysvObject),
    Anonymous(anonymous::AnonymousObject),
}

impl Object {
    /// No object at all, for models: they never ask for its name, size or owner.
    #[cfg(all(test, semring_loom))]
    pub(crate) fn nowhere() -> Self {
        Self::Sysv(sysv::SysvObject::nowhere())
    }

    /// Opens the object at a place. What has no name is not found by one.
    pub(crate) fn open(place: &Place, access: Access) -> Result<Self> {
        match place {
            Place::Posix(path) => file::FileObject::open(path, access, Sort::Posix).map(Self::File),
            Place::File(path) => file::FileObject::open(path, access, Sort::File).map(Self::File),
            Place::Descriptor(link) => {
                file::FileObject::of_descriptor(link, access).map(Self::File)
            }
            Place::Sysv(key) => sysv::SysvObject::open(*key).map(Self::Sysv),
            Place::Memfd(_) | Place::Anonymous => Err(MemoryError::NotFound),
        }
    }

    /// Bytes of the object.
    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Self::File(object) => object.len(),
            Self::Sysv(object) => object.len(),
            Self::Anonymous(object) => Ok(object.len()),
        }
    }

    /// True if some process has the object mapped, as far as the kernel tells (System V only).
    pub(crate) fn is_attached(&self) -> bool {
        match self {
            Self::Sysv(object) => object.is_attached(),
            Self::File(_) | Self::Anonymous(_) => false,
        }
    }

    /// The first 4096 bytes, zero-filled where the object is shorter. Never faults. (Nobody opens
    /// anonymous memory, so nobody asks for the head of it.)
    pub(crate) fn head(&self) -> Result<Box<[u8; 4096]>> {
        match self {
            Self::File(object) => object.head(),
            Self::Sysv(object) => object.head(),
            Self::Anonymous(_) => Err(MemoryError::NotFound),
        }
    }

    /// Maps the first `len` bytes, which the object must have.
    pub(crate) fn map(&self, len: usize, access: Access) -> Result<Segment> {
        match self {
            Self::File(object) => object.map(len, access),
            Self::Sysv(object) => object.map(len, access),
            Self::Anonymous(_) => Err(MemoryError::NotFound),
        }
    }

    /// A segment for looking at the first `len` bytes. Of what can be truncated it is a private copy,
    /// into which each part has to be [read](Self::look_at) before it is looked at.
    pub(crate) fn map_to_look(&self, len: usize) -> Result<Segment> {
        match self {
            Self::File(object) if object.sort() != Sort::Memfd => Segment::private(len),
            _ => self.map(len, Access::ReadOnly),
        }
    }

    /// Brings a part of a segment [for looking](Self::map_to_look) up to date, if it is a copy; beyond the
    /// end of the object it stays as it is.
    pub(crate) fn look_at(&self, segment: &Segment, offset: usize, len: usize) -> Result<()> {
        match self {
            Self::File(object) if segment.is_private() => object.copy_into(segment, offset, len),
            _ => Ok(()),
        }
    }

    /// Keeps others who ask for it from removing an object whose guard is gone, until this is dropped;
    /// false if somebody does so to us. A System V segment is removed by its id, which needs no lock.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.try_lock(),
            _ => Ok(true),
        }
    }

    pub(crate) fn ownership(&self) -> Result<Ownership> {
        match self {
            Self::File(object) => object.ownership(),
            Self::Sysv(object) => object.ownership(),
            Self::Anonymous(object) => Ok(object.ownership()),
        }
    }

    /// The inode of a file, which its copy does not have; 0 for other memory.
    pub(crate) fn inode(&self) -> Result<u64> {
        match self {
            Self::File(object) => object.inode(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(0),
        }
    }

    /// What tells this object from others, copies among them, in a file's name.
    pub(crate) fn mark(&self) -> Result<String> {
        match self {
            Self::File(object) => Ok(object.sort().mark(object.inode()?)),
            Self::Sysv(object) => Ok(object.mark()),
            Self::Anonymous(_) => Ok("a".to_owned()),
        }
    }

    /// Takes the name away if it still means this object; gone already is fine.
    pub(crate) fn unlink(&self) -> Result<()> {
        match self {
            Self::File(object) => object.unlink(),
            Self::Sysv(object) => object.unlink(),
            Self::Anonymous(_) => Ok(()),
        }
    }

    /// True if the name, where there is one, still means this object.
    pub(crate) fn has_its_name(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.has_its_name(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(true),
        }
    }

    /// The directory that other files of the ring are to be in: the ring's own, where it is a file.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        match self {
            Self::File(object) if object.sort() == Sort::File => object.folder(),
            _ => Ok(PathBuf::from(POSIX_DIRECTORY)),
        }
    }

    /// True if the object had a name and has none any more: nobody else will find it.
    pub(crate) fn is_unlinked(&self) -> bool {
        match self {
            Self::File(object) => object.is_unlinked(),
            Self::Sysv(object) => object.key().is_none(),
            Self::Anonymous(_) => false,
        }
    }

    /// The key of a System V segment; nothing for other memory.
    pub(crate) fn key(&self) -> Option<Key> {
        match self {
            Self::Sysv(object) => object.key(),
            Self::File(_) | Self::Anonymous(_) => None,
        }
    }

    /// True for a System V segment.
    pub(crate) fn is_sysv(&self) -> bool {
        matches!(self, Self::Sysv(_))
    }

    /// True if the object was opened by the name of a file, and that name still means it.
    pub(crate) fn is_still_there(&self) -> bool {
        matches!(self, Self::File(object) if !object.is_nameless() && matches!(object.has_its_name(), Ok(true)))
    }

    /// True if the memory outlives its guard: then the guard is made anew when it is missing.
    pub(crate) fn outlives_its_guard(&self) -> bool {
        matches!(self, Self::File(object) if object.sort() != Sort::Posix)
    }

    /// True if the memory goes with the last process that has it.
    pub(crate) fn goes_with_its_users(&self) -> bool {
        match self {
            Self::File(object) => object.sort() == Sort::Memfd,
            Self::Sysv(_) => false,
            Self::Anonymous(_) => true,
        }
    }

    /// Notes one more role of this process; false while somebody makes the guard anew.
    pub(crate) fn enter(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.enter(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(true),
        }
    }

    /// Notes one role less.
    pub(crate) fn leave(&self) {
        if let Self::File(object) = self {
            object.leave();
        }
    }

    /// Keeps everybody from taking a role; false if somebody has one. Only for memory that
    /// [outlives its guard](Self::outlives_its_guard).
    pub(crate) fn take_over(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.take_over(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(false),
        }
    }

    /// Ends what [`take_over`](Self::take_over) began.
    pub(crate) fn end_take_over(&self) {
        if let Self::File(object) = self {
            object.end_take_over();
        }
    }

    /// What to call an object that came without an address; the label is what its ring says.
    pub(crate) fn address(&self, label: &str) -> Address {
        match self {
            Self::File(object) if object.sort() != Sort::Memfd => {
                Address::of_descriptor(object.number())
            }
            _ => Address::of_label(label),
        }
    }

    /// A descriptor to pass on, of a description of its own; `None` for memory that has none.
    pub(crate) fn descriptor(&self) -> Result<Option<OwnedFd>> {
        match self {
            Self::File(object) => object.passable().map(Some),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(None),
        }
    }

    /// In a forked child: the same memory as its own. `None` for named memory, which a child opens by
    /// its name.
    pub(crate) fn adopt(&self, parents: &Segment) -> Result<Option<(Self, Segment)>> {
        match self {
            Self::File(object) if object.is_nameless() => {
                let object = object.reopen()?;
                let segment = object.map(parents.len(), Access::ReadWrite)?;
                Ok(Some((Self::File(object), segment)))
            }
            Self::Anonymous(object) => {
                let adopted = parents.adopt()?;
                Ok(adopted.map(|segment| (Self::Anonymous(object.clone()), segment)))
            }
            Self::File(_) | Self::Sysv(_) => Ok(None),
        }
    }
}

/// A new object: mapped and real, all zero. Dropped before it is published, it leaves nothing.
pub(crate) enum NewObject {
    File(file::NewFile),
    Sysv(sysv::NewSysv),
    Anonymous(anonymous::AnonymousObject),
}

impl NewObject {
    /// Makes an object. A System V segment is visible under its key from this moment; others only when
    /// they are [published](Self::publish).
    pub(crate) fn create(place: &Place, request: &Request) -> Result<(Self, Segment)> {
        if !matches!(place, Place::File(_)) {
            check_available(request.len as u64)?;
        }
        let of_file = |(new, segment)| (Self::File(new), segment);
        match place {
            Place::Posix(path) => file::NewFile::create(path, request, Sort::Posix).map(of_file),
            Place::File(path) => file::NewFile::create(path, request, Sort::File).map(of_file),
            Place::Memfd(name) => memfd::create(name, request).map(of_file),
            Place::Sysv(key) => {
                let (new, segment) = sysv::NewSysv::create(*key, request)?;
                Ok((Self::Sysv(new), segment))
            }
            Place::Anonymous => {
                let (new, segment) = anonymous::AnonymousObject::create(request)?;
                Ok((Self::Anonymous(new), segment))
            }
            Place::Descriptor(_) => Err(MemoryError::WrongType(
                "a descriptor: it can be opened if a ring is behind it, and not made",
            )),
        }
    }

    /// As [`Object::outlives_its_guard`].
    pub(crate) fn outlives_its_guard(&self) -> bool {
        matches!(self, Self::File(new) if new.sort() != Sort::Posix)
    }

    /// Who owns it and who may use it, before it is published.
    pub(crate) fn ownership(&self) -> Result<Ownership> {
        match self {
            Self::File(new) => new.ownership(),
            Self::Sysv(new) => new.ownership(),
            Self::Anonymous(object) => Ok(object.ownership()),
        }
    }

    /// As [`Object::folder`].
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::File(new) => new.folder(),
            Self::Sysv(_) | Self::Anonymous(_) => PathBuf::from(POSIX_DIRECTORY),
        }
    }

    /// As [`Object::mark`].
    pub(crate) fn mark(&self) -> Result<String> {
        match self {
            Self::File(new) => Ok(new.sort().mark(new.inode()?)),
            Self::Sysv(new) => Ok(new.mark()),
            Self::Anonymous(_) => Ok("a".to_owned()),
        }
    }

    /// The inode that it will have; 0 for memory that is no file.
    pub(crate) fn inode(&self) -> Result<u64> {
        match self {
            Self::File(new) => new.inode(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(0),
        }
    }

    /// Gives the object its name, or seals it. [`MemoryError::Exists`] if somebody else was first.
    pub(crate) fn publish(self) -> Result<Object> {
        match self {
            Self::File(new) => new.publish().map(Object::File),
            Self::Sysv(new) => Ok(Object::Sysv(new.keep())),
            Self::Anonymous(object) => Ok(Object::Anonymous(object)),
        }
    }
}

/// The object behind a descriptor that was received.
pub(crate) fn received(file: &std::fs::File) -> Result<Object> {
    file::FileObject::of_received(file).map(Object::File)
}

/// A place found by looking around, for listings.
pub(crate) fn places() -> Vec<Place> {
    let mut places = posix::places();
    places.extend(sysv::places());
    places
}

/// Who owns what is at a place of POSIX or System V memory. Opens and attaches nothing.
pub(crate) fn owner_of(place: &Place) -> Result<u32> {
    match place {
        Place::Posix(path) => posix::owner_of(path),
        Place::Sysv(key) => {
            let owner = sysv::SysvObject::open(*key)?.ownership()?;
            Ok(owner.uid)
        }
        _ => Err(MemoryError::WrongType(
            "neither a POSIX nor a System V name",
        )),
    }
}

/// The key of a System V place.
pub(crate) fn sysv_key(place: &Place) -> Option<Key> {
    match place {
        Place::Sysv(key) => Some(*key),
        _ => None,
    }
}
