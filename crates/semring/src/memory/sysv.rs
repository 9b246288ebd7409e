//! System V shared memory: a key, bounded by shmmax and shmall, not by /dev/shm.
//!
//! A segment is visible under its key from the moment it exists, so its state word and the creation
//! lock of the guard decide whether it is a ring yet.

use super::new_object::check_available;
use super::{
    Access, Backing, MemoryError, Ownership, Pages, Place, Request, Result, Segment, prepare,
};
use crate::os::errno;
use crate::os::sysv::{self, Key, Shm, limits};

const NO_SPACE: &str = "the machine, or the limit of this container, has no more memory: choose a smaller capacity, or \
                        remove unused segments (ipcs -m, semring ls)";

/// Which limit of System V segments is in the way of one more, if it is one of them.
fn limit_in_the_way(asked: u64) -> Option<String> {
    const PAGE: u64 = 4096;
    let limits = limits::shm().ok()?;
    if asked > limits.max_bytes {
        return Some(format!(
            "{asked} bytes are more than a segment may have: kernel.shmmax is {}; raise it (sysctl -w kernel.shmmax=…) \
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
    (used.saturating_add(pages(asked)) > limits.pages_in_all).then(|| {
        format!(
            "shared memory segments have {used} pages, {} more are needed, and kernel.shmall is {}: raise it \
             (sysctl -w kernel.shmall=…), remove unused segments (ipcs -m), or choose a smaller capacity",
            pages(asked),
            limits.pages_in_all
        )
    })
}

fn create_error(error: sysv::Error, asked: u64) -> MemoryError {
    if matches!(error.errno(), errno::ENOSPC | errno::EINVAL)
        && let Some(limit) = limit_in_the_way(asked)
    {
        return MemoryError::Limit(limit);
    }
    error_of(error, asked)
}

fn error_of(error: sysv::Error, asked: u64) -> MemoryError {
    match error.errno() {
        errno::ENOMEM | errno::EAGAIN if error.call() == "shmat" => {
            let source = std::io::Error::from_raw_os_error(error.errno());
            MemoryError::of_mapping("shmat", asked, source)
        }
        errno::ENOSPC | errno::ENOMEM => MemoryError::NoSpace {
            asked,
            free: None,
            hint: NO_SPACE,
        },
        errno::EINVAL if error.call() == "shmget" && asked > 0 => MemoryError::NoSpace {
            asked,
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
    #[cfg(all(test, semring_loom))]
    pub(super) fn nowhere() -> Self {
        Self {
            shm: Shm::from_id(-1),
        }
    }

    pub(super) fn open(key: Key) -> Result<Self> {
        Ok(Self {
            shm: Shm::open(key).map_err(|error| error_of(error, 0))?,
        })
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

    /// The first page as it was at one moment: the segment has its name while its creator still writes,
    /// so it is read until two looks in a row agree. (One that never does is somebody's own doing: then
    /// any look will do.)
    pub(super) fn head(&self) -> Result<Box<[u8; 4096]>> {
        const LOOKS: usize = 1000;
        let mut bytes = self.look()?;
        for _ in 1..LOOKS {
            let again = self.look()?;
            if again == bytes {
                break;
            }
            bytes = again;
        }
        Ok(bytes)
    }

    fn look(&self) -> Result<Box<[u8; 4096]>> {
        let attachment = self
            .shm
            .attach_read_only()
            .map_err(|error| error_of(error, 0))?;
        let mut bytes = Box::new([0; 4096]);
        let len = attachment.len().min(bytes.len());
        // SAFETY: the attachment is at least `len` bytes long; System V segments can't shrink; the
        // target is ours. A writer at the other side makes the bytes garbage, and they are input.
        unsafe {
            attachment
                .as_ptr()
                .as_ptr()
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), len)
        };
        Ok(bytes)
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
                "reserved huge pages are for memfd: and anonymous rings; a sysv: ring can have transparent ones: ask for \
                 those, or leave the option out"
                    .to_owned(),
            ));
        }
        let asked = request.len as u64;
        check_available(asked)?;
        let shm = Shm::create(key, request.len, request.mode)
            .map_err(|error| create_error(error, asked))?;
        let new = Self { shm: Some(shm) };
        if request.uid.is_some() || request.gid.is_some() {
            let stat = shm.stat().map_err(|error| error_of(error, asked))?;
            let (uid, gid) = (
                request.uid.unwrap_or(stat.uid),
                request.gid.unwrap_or(stat.gid),
            );
            shm.set_permissions(uid, gid, request.mode)
                .map_err(|error| error_of(error, asked))?;
        }
        let attachment = shm.attach().map_err(|error| error_of(error, asked))?;
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
