//! System V shared memory: a key, bounded by shmmax and shmall, not by /dev/shm.
//!
//! A segment is visible under its key from the moment it exists, so its state word and the creation
//! lock of the guard decide whether it is a ring yet.

use super::{Access, Backing, MemoryError, Ownership, Place, Result, Segment};
use crate::os::errno;
use crate::os::sysv::{self, Key, Shm};

const NO_SPACE: &str = "a System V limit or the machine's memory is exhausted: see kernel.shmmax, kernel.shmall and \
                        kernel.shmni (sysctl -w …), remove unused segments (ipcs -m), or choose a smaller capacity";

fn error_of(error: sysv::Error, asked: u64) -> MemoryError {
    match error.errno() {
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
        .map_err(|error| error_of(error, 0))?;
        if attachment.len() < len {
            return Err(MemoryError::WrongType("a segment that is too short"));
        }
        Segment::new(Backing::Attached(attachment))
    }

    pub(super) fn ownership(&self) -> Result<Ownership> {
        let stat = self.shm.stat().map_err(|error| error_of(error, 0))?;
        Ok(Ownership {
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.mode & 0o777,
        })
    }

    pub(super) fn unlink(&self) -> Result<()> {
        match self.shm.remove() {
            Err(error) if error.is_removed() => Ok(()),
            Err(error) => Err(error_of(error, 0)),
            Ok(()) => Ok(()),
        }
    }
}

/// A new segment, removed on drop unless it is kept.
pub(crate) struct NewSysv {
    shm: Option<Shm>,
}

impl NewSysv {
    pub(super) fn create(key: Key, len: usize, mode: u32) -> Result<(Self, Segment)> {
        let shm = Shm::create(key, len, mode).map_err(|error| error_of(error, len as u64))?;
        let new = Self { shm: Some(shm) };
        let attachment = shm.attach().map_err(|error| error_of(error, len as u64))?;
        let segment = Segment::new(Backing::Attached(attachment))?;
        segment.populate().map_err(|_| MemoryError::NoSpace {
            asked: len as u64,
            free: None,
            hint: NO_SPACE,
        })?;
        Ok((new, segment))
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
