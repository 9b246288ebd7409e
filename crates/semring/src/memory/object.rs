//! An existing memory object, found by its place.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::file::Sort;
use super::{
    Address, MemoryError, POSIX_DIRECTORY, Place, Result, Segment, anonymous, file, posix, sysv,
};
use crate::os::sysv::{Key, Shm};

/// Whether a segment is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
}

/// Owner and permissions of an object.
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
    /// An object without any memory, for models and tests of rings: they never need its name, size or owner.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        Self::Anonymous(anonymous::AnonymousObject::nowhere())
    }

    /// Opens the object at a place. An object without a name can't be found by one.
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

    /// True if a process has the object mapped, according to the kernel (System V only).
    pub(crate) fn is_attached(&self) -> bool {
        match self {
            Self::Sysv(object) => object.is_attached(),
            Self::File(_) | Self::Anonymous(_) => false,
        }
    }

    /// The first 4096 bytes, zero-filled where the object is shorter. Never faults. (Not for
    /// anonymous memory, which can't be opened.)
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

    /// A segment for looking at the first `len` bytes: a private copy, into which each part has to be
    /// [read](Self::copy_range) before it is looked at. The pages of the object itself may be missing.
    pub(crate) fn map_for_inspection(&self, len: usize) -> Result<Segment> {
        match self {
            Self::File(_) | Self::Sysv(_) => Segment::private(len),
            Self::Anonymous(_) => Err(MemoryError::NotFound),
        }
    }

    /// Brings a part of a segment [for looking](Self::map_for_inspection) up to date; beyond the end of the object
    /// it stays as it is. A mapped segment is up to date.
    pub(crate) fn copy_range(&self, segment: &Segment, offset: usize, len: usize) -> Result<()> {
        match self {
            _ if !segment.is_private() => Ok(()),
            Self::File(object) => object.copy_into(segment, offset, len),
            Self::Sysv(object) => object.copy_into(segment, offset, len),
            Self::Anonymous(_) => Ok(()),
        }
    }

    /// Excludes other removers that also call this from removing an object whose guard is gone, until
    /// it is dropped; false if another process has it. A System V segment is removed by its id, which
    /// needs no lock.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.try_lock(),
            _ => Ok(true),
        }
    }

    /// True if another process holds the lock of [`try_lock`](Self::try_lock), shared: it may read the memory, and
    /// excludes nobody.
    pub(crate) fn is_lock_shared(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.is_lock_shared(),
            _ => Ok(false),
        }
    }

    /// Gives up what [`try_lock`](Self::try_lock) took.
    pub(crate) fn unlock(&self) {
        if let Self::File(object) = self {
            object.unlock();
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

    /// Identifies this object among others, copies included, for use in a file's name.
    pub(crate) fn mark(&self) -> Result<String> {
        match self {
            Self::File(object) => Ok(object.sort().mark(object.inode()?)),
            Self::Sysv(object) => Ok(object.mark()),
            Self::Anonymous(_) => Ok("a".to_owned()),
        }
    }

    /// Removes the name if it still leads to this object; a missing name is no error.
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

    /// True if the object had a name and has none any more: no other process will find it.
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

    /// The System V segment, if it is one.
    pub(crate) fn segment(&self) -> Option<Shm> {
        match self {
            Self::Sysv(object) => Some(object.shm()),
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

    /// True if the memory outlives its guard: then a missing guard is made again.
    pub(crate) fn outlives_its_guard(&self) -> bool {
        matches!(self, Self::File(object) if object.sort() != Sort::Posix)
    }

    /// True if the memory ends with the last process that has it open.
    pub(crate) fn goes_with_its_users(&self) -> bool {
        match self {
            Self::File(object) => object.sort() == Sort::Memfd,
            Self::Sysv(_) => false,
            Self::Anonymous(_) => true,
        }
    }

    /// Records one more role of this process; false while another process makes a new guard.
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

    /// Prevents all processes from taking a role; false if a process has one. Only for memory that
    /// [outlives its guard](Self::outlives_its_guard).
    pub(crate) fn take_over(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.take_over(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(false),
        }
    }

    /// True if only shared locks are in the way of [`take_over`](Self::take_over): those of roles, or of processes that
    /// may only read the memory.
    pub(crate) fn is_shared(&self) -> Result<bool> {
        match self {
            Self::File(object) => object.is_shared(),
            Self::Sysv(_) | Self::Anonymous(_) => Ok(false),
        }
    }

    /// Ends what [`take_over`](Self::take_over) began.
    pub(crate) fn end_take_over(&self) {
        if let Self::File(object) = self {
            object.end_take_over();
        }
    }

    /// A name for an object that was opened without an address; the label is the name in its
    /// superblock.
    pub(crate) fn address(&self, label: &str) -> Address {
        match self {
            Self::File(object) if object.sort() != Sort::Memfd => {
                Address::of_descriptor(object.number())
            }
            _ => Address::of_label(label),
        }
    }

    /// A descriptor to be passed on, with a description of its own; `None` for memory without
    /// descriptors.
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

/// The object of a descriptor that was received.
pub(crate) fn received(file: &std::fs::File) -> Result<Object> {
    file::FileObject::of_received(file).map(Object::File)
}

/// A place found by looking around, for listings.
pub(crate) fn places() -> Vec<Place> {
    let mut places = posix::places();
    places.extend(sysv::places());
    places
}

/// The same in /dev/shm alone.
pub(crate) fn posix_places() -> Vec<Place> {
    posix::places()
}

/// The owner of the object at a place of POSIX or System V memory. Opens and attaches nothing.
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
