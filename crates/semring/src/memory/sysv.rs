//! System V shared memory: a key, bounded by shmmax and shmall, not by /dev/shm.
//!
//! A segment can be found under its key from the moment it exists, so its state word and the
//! guard's creation lock show whether it is a ring yet.

use std::ptr::NonNull;

use super::new_object::check_available;
use super::{
    Access, Backing, MemoryError, Ownership, Pages, Place, Request, Result, Segment, prepare,
};
use crate::os::peek::Peek;
use crate::os::sysv::{self, Attachment, Key, Shm, limits};
use crate::os::{errno, mapping};

const NO_SPACE: &str = "the machine, or the limit of this container, has no more memory: choose a smaller capacity, or \
                        remove unused segments (ipcs -m, semring ls)";

/// Which limit of System V segments is in the way of one more, if it is one of them.
fn limit_in_the_way(requested: u64) -> Option<String> {
    const PAGE: u64 = 4096;
    let limits = limits::shm().ok()?;
    if requested > limits.max_bytes {
        return Some(format!(
            "{requested} bytes are more than a segment may have: kernel.shmmax is {}; raise it (sysctl -w kernel.shmmax=…) \
             or choose a smaller capacity",
            limits.max_bytes
        ));
    }
    let segments = sysv::shm::list().ok()?;
    if segments.len() as u64 >= limits.segments {
        return Some(format!(
            "there are {} shared memory segments, and kernel.shmmni is {}: raise it (sysctl -w kernel.shmmni=…), or \
             remove unused ones (ipcs -m, semring ls)",
            segments.len(),
            limits.segments
        ));
    }
    let pages = |bytes: u64| bytes.div_ceil(PAGE);
    let used: u64 = segments
        .iter()
        .map(|segment| pages(segment.stat.bytes as u64))
        .sum();
    (used.saturating_add(pages(requested)) > limits.pages_in_all).then(|| {
        format!(
            "shared memory segments have {used} pages, {} more are needed, and kernel.shmall is {}: raise it \
             (sysctl -w kernel.shmall=…), remove unused segments (ipcs -m), or choose a smaller capacity",
            pages(requested),
            limits.pages_in_all
        )
    })
}

fn create_error(error: sysv::Error, requested: u64) -> MemoryError {
    if matches!(error.errno(), errno::ENOSPC | errno::EINVAL)
        && let Some(limit) = limit_in_the_way(requested)
    {
        return MemoryError::Limit(limit);
    }
    error_of(error, requested)
}

pub(super) fn error_of(error: sysv::Error, requested: u64) -> MemoryError {
    match error.errno() {
        errno::ENOMEM | errno::EAGAIN if error.call() == "shmat" => {
            let source = std::io::Error::from_raw_os_error(error.errno());
            MemoryError::of_mapping("shmat", requested, source)
        }
        errno::ENOSPC | errno::ENOMEM => MemoryError::NoSpace {
            requested,
            free: None,
            hint: NO_SPACE,
        },
        errno::EINVAL if error.call() == "shmget" && requested > 0 => MemoryError::NoSpace {
            requested,
            free: None,
            hint: NO_SPACE,
        },
        errno::ENOENT => MemoryError::NotFound,
        errno::EEXIST => MemoryError::Exists,
        errno::EACCES | errno::EPERM => MemoryError::Denied(error.into()),
        // The id was removed between the look-up and its use.
        errno::EIDRM | errno::EINVAL => MemoryError::NotFound,
        _ => MemoryError::Os {
            call: error.call(),
            source: error.into(),
        },
    }
}

pub(crate) struct SysvObject {
    shm: Shm,
}

impl SysvObject {
    pub(super) fn open(key: Key) -> Result<Self> {
        Ok(Self {
            shm: Shm::open(key).map_err(|error| error_of(error, 0))?,
        })
    }

    pub(super) const fn shm(&self) -> Shm {
        self.shm
    }

    /// Under which key it is found; nothing once it is removed.
    pub(super) fn key(&self) -> Option<Key> {
        let stat = self.shm.stat().ok()?;
        (!stat.key.is_private()).then_some(stat.key)
    }

    /// Ids come again, but not with the same identity of a ring.
    pub(super) fn mark(&self) -> String {
        format!("s{:x}", self.shm.id())
    }

    pub(super) fn len(&self) -> Result<u64> {
        let stat = self.shm.stat().map_err(|error| error_of(error, 0))?;
        Ok(stat.bytes as u64)
    }

    pub(super) fn is_attached(&self) -> bool {
        self.shm.stat().is_ok_and(|stat| stat.attached > 0)
    }

    /// The first page as it was at one moment: the segment can be found while its creator still writes,
    /// so it is read until two reads in a row are equal. (If that never happens, a process keeps
    /// writing to it: then any read will do.)
    pub(super) fn head(&self) -> Result<Box<[u8; 4096]>> {
        const LOOKS: usize = 1000;
        let mut window = Window::open(&self.shm)?;
        let mut bytes = window.head()?;
        for _ in 1..LOOKS {
            let again = window.head()?;
            if again == bytes {
                break;
            }
            bytes = again;
        }
        Ok(bytes)
    }

    /// Copies bytes into a private segment at the same offset, up to the end of the shorter one.
    pub(super) fn copy_into(&self, segment: &Segment, offset: usize, len: usize) -> Result<()> {
        let len = len.min(segment.len().saturating_sub(offset));
        // SAFETY: the offset is not beyond the end of the segment.
        let to = unsafe { segment.base().byte_add(offset.min(segment.len())) };
        let mut window = Window::open(&self.shm)?;
        // SAFETY: `len` bytes from there are in the segment, which is private to this process.
        unsafe { window.copy(offset, to, len) }
    }

    pub(super) fn map(&self, len: usize, access: Access) -> Result<Segment> {
        let attachment = match access {
            Access::ReadWrite => self.shm.attach(),
            Access::ReadOnly => self.shm.attach_read_only(),
        }
        .map_err(|error| error_of(error, len as u64))?;
        if attachment.len() < len {
            return Err(MemoryError::WrongType("a segment that is too short"));
        }
        Segment::new(Backing::Attached(attachment))
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        ownership(&self.shm)
    }

    pub(super) fn unlink(&self) -> Result<()> {
        match self.shm.remove() {
            Err(error) if error.is_removed() => Ok(()),
            Err(error) => Err(error_of(error, 0)),
            Ok(()) => Ok(()),
        }
    }
}

/// A segment that is inspected. Its pages may be missing, and the owner can remove them at any time
/// (MADV_REMOVE), so the kernel copies. Reading allocates ordinary pages that were never written; huge pages
/// are not read, because no ring consists of them.
struct Window {
    attachment: Attachment,
    peek: Peek,
}

impl Window {
    fn open(shm: &Shm) -> Result<Self> {
        let attachment = shm.attach_read_only().map_err(|error| error_of(error, 0))?;
        if mapping::has_huge_pages(attachment.as_ptr()) {
            return Err(MemoryError::WrongType(
                "a System V segment of huge pages, which no ring is made of",
            ));
        }
        let peek = Peek::new().map_err(|error| MemoryError::of("pipe2", error))?;
        Ok(Self { attachment, peek })
    }

    fn head(&mut self) -> Result<Box<[u8; 4096]>> {
        let mut bytes = Box::new([0; 4096]);
        let to = NonNull::from(&mut *bytes).cast();
        // SAFETY: an array of this length that is ours.
        unsafe { self.copy(0, to, 4096) }?;
        Ok(bytes)
    }

    /// Copies bytes up to the end of the segment.
    ///
    /// # Safety
    /// `to` must be valid for writes of `len` bytes, and not used by any other code.
    unsafe fn copy(&mut self, offset: usize, to: NonNull<u8>, len: usize) -> Result<()> {
        let offset = offset.min(self.attachment.len());
        let len = len.min(self.attachment.len() - offset);
        // SAFETY: not beyond the end of the attachment.
        let from = unsafe { self.attachment.as_ptr().byte_add(offset) };
        // SAFETY: `len` bytes from there are attached; the caller vouches for the target.
        let copied = unsafe { self.peek.copy(from, to, len) };
        copied.map_err(|error| MemoryError::of("write (pipe)", error))
    }
}

fn ownership(shm: &Shm) -> Result<Ownership> {
    let stat = shm.stat().map_err(|error| error_of(error, 0))?;
    Ok(Ownership {
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode & 0o777,
    })
}

/// A new segment, removed on drop unless it is kept.
pub(crate) struct NewSysv {
    shm: Option<Shm>,
}

impl NewSysv {
    pub(super) fn create(key: Key, request: &Request) -> Result<(Self, Segment)> {
        if request.pages == Pages::Reserved {
            return Err(MemoryError::Limit(
                "reserved huge pages are for memfd: and anonymous rings; a sysv: ring can have transparent ones: request \
                 those, or leave the option out"
                    .to_owned(),
            ));
        }
        let requested = request.len as u64;
        check_available(requested)?;
        let shm = Shm::create(key, request.len, request.mode)
            .map_err(|error| create_error(error, requested))?;
        let new = Self { shm: Some(shm) };
        if request.uid.is_some() || request.gid.is_some() {
            let stat = shm.stat().map_err(|error| error_of(error, requested))?;
            let (uid, gid) = (
                request.uid.unwrap_or(stat.uid),
                request.gid.unwrap_or(stat.gid),
            );
            shm.set_permissions(uid, gid, request.mode)
                .map_err(|error| error_of(error, requested))?;
        }
        let attachment = shm.attach().map_err(|error| error_of(error, requested))?;
        let segment = Segment::new(Backing::Attached(attachment))?;
        prepare(&segment, request, NO_SPACE)?;
        Ok((new, segment))
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        ownership(self.shm.as_ref().expect("not kept yet"))
    }

    pub(super) fn mark(&self) -> String {
        let id = self.shm.as_ref().map_or(-1, |shm| shm.id());
        format!("s{id:x}")
    }

    pub(super) fn keep(mut self) -> SysvObject {
        SysvObject {
            shm: self.shm.take().expect("kept once"),
        }
    }
}

impl Drop for NewSysv {
    fn drop(&mut self) {
        if let Some(shm) = self.shm {
            let _ = shm.remove();
        }
    }
}

/// Every System V segment that could be a ring by its size.
pub(super) fn places() -> Vec<Place> {
    let Ok(entries) = sysv::shm::list() else {
        return Vec::new();
    };
    entries
        .into_iter()
        .filter(|entry| entry.stat.bytes >= 4096 && entry.stat.key != Key::PRIVATE)
        .map(|entry| Place::Sysv(entry.stat.key))
        .collect()
}
