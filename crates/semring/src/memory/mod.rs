//! Where the bytes live: one [`Segment`] whatever backs it, found and made through an [`Object`].
//!
//! # The contract of a backend
//! (held for each of them in `contract_tests`)
//! * A new segment is all zero, and every page of it is real: a full file system or memory answers at
//!   creation, with the size asked for, never with SIGBUS later.
//! * What one mapping stores, every other sees.
//! * Mode and owner are exactly what was asked for, whatever the umask.
//! * A name that is taken answers [`MemoryError::Exists`], a missing one [`MemoryError::NotFound`].
//! * Removing takes the name away; mappings stay valid until they are dropped.
//! * A forked child does not have the pages, and dropping its copy of the handle does nothing.
#![allow(unsafe_code)]

pub(crate) mod address;
#[cfg(all(test, not(semring_loom)))]
mod contract_tests;
#[cfg(test)]
mod heap;
mod posix;
mod span;
mod sysv;

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub(crate) use address::{Address, Place};
pub(crate) use posix::DIRECTORY as POSIX_DIRECTORY;
pub(crate) use span::Span;

use crate::os::errno;
use crate::os::mapping::Mapping;
use crate::os::process;
use crate::os::sentinel::ForkSentinel;
use crate::os::sysv::{Attachment, Key};

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
    Attached(Attachment),
    #[cfg(test)]
    Heap(heap::HeapPages),
}

/// Memory that a ring lies in, mapped into this process.
pub(crate) struct Segment {
    backing: ManuallyDrop<Backing>,
    base: NonNull<u8>,
    len: usize,
    sentinel: ForkSentinel,
}

// SAFETY: the bytes are shared between processes anyway; all that is done with them goes through the
// views of `layout`, which use atomics and copies.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    fn new(backing: Backing) -> Result<Self> {
        let (base, len) = match &backing {
            Backing::Mapping(mapping) => (mapping.base(), mapping.len()),
            Backing::Attached(attachment) => (attachment.as_ptr(), attachment.len()),
            #[cfg(test)]
            Backing::Heap(pages) => (pages.base(), pages.len()),
        };
        let sentinel = ForkSentinel::new().map_err(|source| MemoryError::Os {
            call: "madvise(MADV_WIPEONFORK)",
            source,
        })?;
        #[cfg(test)]
        let shared = !matches!(backing, Backing::Heap(_));
        #[cfg(not(test))]
        let shared = true;
        if shared {
            crate::os::mapping::dont_fork(base, len).map_err(|source| MemoryError::Os {
                call: "madvise(MADV_DONTFORK)",
                source,
            })?;
        }
        Ok(Self {
            backing: ManuallyDrop::new(backing),
            base,
            len,
            sentinel,
        })
    }

    /// Private zeroed memory of this process, for models and tests of the upper layers.
    #[cfg(test)]
    pub(crate) fn heap(len: usize) -> Self {
        Self::new(Backing::Heap(heap::HeapPages::new(len))).expect("a page for the sentinel")
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True in a process forked since the segment was mapped: it does not have the pages.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.sentinel.is_child()
    }

    /// Makes every page real now.
    fn populate(&self) -> io::Result<()> {
        match crate::os::mapping::populate(self.base, self.len) {
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
        if self.is_forked() {
            // The child never had these pages; the addresses may belong to something else by now.
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
    Posix(posix::PosixObject),
    Sysv(sysv::SysvObject),
}

impl Object {
    /// No object at all, for models: they never ask for its name, size or owner.
    #[cfg(all(test, semring_loom))]
    pub(crate) fn nowhere() -> Self {
        Self::Sysv(sysv::SysvObject::nowhere())
    }

    /// Opens the object at a place.
    pub(crate) fn open(place: &Place, access: Access) -> Result<Self> {
        match place {
            Place::Posix(path) => posix::PosixObject::open(path, access).map(Self::Posix),
            Place::Sysv(key) => sysv::SysvObject::open(*key).map(Self::Sysv),
        }
    }

    /// Bytes of the object.
    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Self::Posix(object) => object.len(),
            Self::Sysv(object) => object.len(),
        }
    }

    /// True if some process has the object mapped, as far as the kernel tells (System V only).
    pub(crate) fn is_attached(&self) -> bool {
        match self {
            Self::Posix(_) => false,
            Self::Sysv(object) => object.is_attached(),
        }
    }

    /// The first 4096 bytes, zero-filled where the object is shorter. Never faults.
    pub(crate) fn head(&self) -> Result<Box<[u8; 4096]>> {
        match self {
            Self::Posix(object) => object.head(),
            Self::Sysv(object) => object.head(),
        }
    }

    /// Maps the first `len` bytes, which the object must have.
    pub(crate) fn map(&self, len: usize, access: Access) -> Result<Segment> {
        match self {
            Self::Posix(object) => object.map(len, access),
            Self::Sysv(object) => object.map(len, access),
        }
    }

    /// Keeps others who ask for it from removing an object whose guard is gone, until this is dropped;
    /// false if somebody does so to us. A System V segment is removed by its id, which needs no lock.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        match self {
            Self::Posix(object) => object.try_lock(),
            _ => Ok(true),
        }
    }

    pub(crate) fn ownership(&self) -> Result<Ownership> {
        match self {
            Self::Posix(object) => object.ownership(),
            Self::Sysv(object) => object.ownership(),
        }
    }

    /// Takes the name away if it still means this object; gone already is fine.
    pub(crate) fn unlink(&self) -> Result<()> {
        match self {
            Self::Posix(object) => object.unlink(),
            Self::Sysv(object) => object.unlink(),
        }
    }
}

/// A new object: mapped and real, all zero. Dropped before it is published, it leaves nothing.
pub(crate) enum NewObject {
    Posix(posix::NewPosix),
    Sysv(sysv::NewSysv),
}

impl NewObject {
    /// Makes an object of `len` bytes. A System V segment is visible under its key from this moment;
    /// a POSIX one only when it is [published](Self::publish).
    pub(crate) fn create(place: &Place, len: usize, mode: u32) -> Result<(Self, Segment)> {
        check_available(len as u64)?;
        match place {
            Place::Posix(path) => {
                let (new, segment) = posix::NewPosix::create(path, len, mode)?;
                Ok((Self::Posix(new), segment))
            }
            Place::Sysv(key) => {
                let (new, segment) = sysv::NewSysv::create(*key, len, mode)?;
                Ok((Self::Sysv(new), segment))
            }
        }
    }

    /// Gives the object its name. [`MemoryError::Exists`] if somebody else was first.
    pub(crate) fn publish(self) -> Result<Object> {
        match self {
            Self::Posix(new) => new.publish().map(Object::Posix),
            Self::Sysv(new) => Ok(Object::Sysv(new.keep())),
        }
    }
}

/// A place found by looking around, for listings.
pub(crate) fn places() -> Vec<Place> {
    let mut places = posix::places();
    places.extend(sysv::places());
    places
}

/// The key of a System V place.
pub(crate) fn sysv_key(place: &Place) -> Option<Key> {
    match place {
        Place::Sysv(key) => Some(*key),
        Place::Posix(_) => None,
    }
}
