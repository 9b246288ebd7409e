//! A memory object that is being made.

use std::path::PathBuf;

use super::file::Sort;
use super::{
    MemoryError, Object, Ownership, POSIX_DIRECTORY, Place, Result, Segment, anonymous, file,
    memfd, sysv,
};
use crate::os::cgroup::{self, Room};
use crate::os::memfd::HUGE_PAGE_BYTES;
use crate::os::{mapping, process};

/// Refuses ordinary memory that would trigger the out-of-memory killer when it is populated. Other processes may
/// take the memory between this check and populating: then the killer is triggered all the same.
pub(super) fn check_available(requested: u64) -> Result<()> {
    if let Some(Room { free, limit, file }) = cgroup::room()
        && requested > free
    {
        return Err(MemoryError::Limit(format!(
            "no room for {requested} bytes: the memory control group of this process has {free} of {limit} bytes left ({}); \
             raise its limit (MemoryMax= of a service, --memory of a container), or choose a smaller capacity or fewer \
             producers",
            file.display()
        )));
    }
    match process::available_memory() {
        Some(free) if requested > free => Err(MemoryError::NoSpace {
            requested,
            free: Some(free),
            hint: "that is more than this machine has left: choose a smaller capacity or fewer producers",
        }),
        _ => Ok(()),
    }
}

/// Refuses more huge pages of the pool than there are. (They are no part of the memory that is available.)
pub(super) fn check_huge_pages(len: usize) -> Result<()> {
    let needed = len.div_ceil(HUGE_PAGE_BYTES) as u64;
    let Some(free) = process::free_huge_pages() else {
        return Err(MemoryError::Limit(
            "this kernel has no reserved huge pages of 2 MiB, or /sys is not mounted: leave the option out".to_owned(),
        ));
    };
    if free < needed {
        return Err(MemoryError::Limit(format!(
            "the ring needs {needed} reserved huge pages of 2 MiB, and {free} are free: reserve more \
             (sysctl -w vm.nr_hugepages=…) or leave the option out"
        )));
    }
    Ok(())
}

/// The kind of pages of a new ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Pages {
    #[default]
    Ordinary,
    /// Transparent huge pages.
    Transparent,
    /// Huge pages out of the machine's pool.
    Reserved,
}

/// The properties of a new object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Bytes; with reserved huge pages rounded up to whole ones.
    pub(crate) len: usize,
    /// Permission bits, independent of the umask.
    pub(crate) mode: u32,
    /// The owner, if not the caller.
    pub(crate) uid: Option<u32>,
    /// The group, if not the usual one.
    pub(crate) gid: Option<u32>,
    pub(crate) pages: Pages,
}

/// Allocates the pages of a new segment, of the requested kind.
pub(super) fn prepare(segment: &Segment, request: &Request, hint: &'static str) -> Result<()> {
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
    if request.pages == Pages::Reserved {
        return segment.populate().map_err(|_| {
            MemoryError::Limit(format!(
                "{} bytes of reserved huge pages can't be had: others have taken them, or the hugetlb control group of this \
                 process has no more (hugetlb.2MB.*); reserve more (sysctl -w vm.nr_hugepages=…) or leave the option out",
                segment.len()
            ))
        });
    }
    segment.populate().map_err(|_| MemoryError::NoSpace {
        requested: segment.len() as u64,
        free: process::available_memory(),
        hint,
    })
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
                "a descriptor: it can be opened if it leads to a ring, and not made",
            )),
        }
    }

    /// As [`Object::outlives_its_guard`].
    pub(crate) fn outlives_its_guard(&self) -> bool {
        matches!(self, Self::File(new) if new.sort() != Sort::Posix)
    }

    /// Owner and permissions, before it is published.
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

    /// Gives the object its name, or seals it. [`MemoryError::Exists`] if another process was
    /// faster.
    pub(crate) fn publish(self) -> Result<Object> {
        match self {
            Self::File(new) => new.publish().map(Object::File),
            Self::Sysv(new) => Ok(Object::Sysv(new.keep())),
            Self::Anonymous(object) => Ok(Object::Anonymous(object)),
        }
    }
}
