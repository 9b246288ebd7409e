//! Opening a ring that exists. Changes nothing: whoever is killed here leaves no trace.

use std::sync::Arc;
use std::time::Duration;

use super::{RingCore, SharedRing};
use crate::error::OpenError;
use crate::guard::semaphore::{SemaphoreGuard, SetMismatch, creation_ended};
use crate::layout::superblock::{ABI_MAJOR, Superblock, SuperblockError};
use crate::layout::view::RingView;
use crate::layout::{CONSUMER_PAGE_OFFSET, Capacity, Geometry, MAX_LANES};
use crate::memory::{Access, Address, MemoryError, Object, Place, sysv_key};

/// How long to wait for a creator that is at work.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the ring at an address, for use (or for looking only).
pub(crate) fn open(address: &Address, access: Access) -> Result<SharedRing, OpenError> {
    let name = address.to_string();
    let place = match address.place() {
        Ok(place) => place,
        // The file of a PATH#ID is missing: so is the ring.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::NotFound { name });
        }
        Err(source) => {
            return Err(OpenError::Os {
                name,
                call: "ftok",
                source,
            });
        }
    };
    loop {
        let object = Object::open(&place, access).map_err(|error| memory_error(&name, error))?;
        let superblock = match read_superblock(&name, &object) {
            Ok(Some(superblock)) => superblock,
            // A POSIX ring has a name only when it is ready, so no creator will finish or replace this.
            Ok(None) if sysv_key(&place).is_none() => {
                return Err(OpenError::NotARing {
                    name,
                    what: "it was never finished; remove it yourself if it is not needed"
                        .to_owned(),
                });
            }
            // Being made. With the creator dead it is no ring; the next creator takes it over.
            Ok(None) => match wait_for_creator(&place) {
                Creator::Finished => continue,
                Creator::Gone => return Err(OpenError::NotFound { name }),
                Creator::Slow => return Err(OpenError::Busy { name }),
            },
            Err(error) => return Err(error),
        };
        if address.name_must_match() && superblock.name != address.name() {
            let other = &superblock.name;
            let what = if sysv_key(&place).is_some() {
                format!(
                    "its key belongs to the ring {other:?}: choose another name, or give a key (sysv:0x…)"
                )
            } else {
                // Used or removed, it would take the original's semaphores.
                format!(
                    "it is the ring {other:?}, copied or renamed: remove the file, or give it that name"
                )
            };
            return Err(OpenError::NotARing { name, what });
        }
        let guard = match SemaphoreGuard::open(&superblock.set, superblock.geometry.lanes()) {
            Ok(guard) => guard,
            // A remover takes the name first and the set last: look whether the name is still there.
            Err(SetMismatch::Missing | SetMismatch::Other) if !still_there(&place, &superblock) => {
                continue;
            }
            Err(mismatch) => return Err(guard_error(&name, mismatch)),
        };
        let segment = object
            .map(superblock.geometry.segment_bytes(), access)
            .map_err(|error| memory_error(&name, error))?;
        let view = RingView::new(Arc::new(segment), superblock.geometry).ok_or_else(|| {
            OpenError::NotARing {
                name: name.clone(),
                what: "it is shorter than it says".to_owned(),
            }
        })?;
        return Ok(Arc::new(RingCore {
            address: address.clone(),
            superblock,
            view,
            guard: Box::new(guard),
            object,
            created: false,
        }));
    }
}

/// The superblock of an object; `None` while it is not ready.
pub(super) fn read_superblock(
    name: &str,
    object: &Object,
) -> Result<Option<Superblock>, OpenError> {
    let name = name.to_owned();
    let head = object.head().map_err(|error| memory_error(&name, error))?;
    let len = object.len().map_err(|error| memory_error(&name, error))?;
    let not_a_ring = |what: &str| OpenError::NotARing {
        name: name.clone(),
        what: what.to_owned(),
    };
    let superblock = match Superblock::decode(&head) {
        Ok(superblock) => superblock,
        Err(SuperblockError::NotReady) if plausible_length(len) => return Ok(None),
        Err(SuperblockError::NotReady | SuperblockError::NotARing) => {
            return Err(not_a_ring("it does not begin like one"));
        }
        Err(SuperblockError::OtherVersion { major }) => {
            return Err(OpenError::OtherVersion {
                name,
                found: major,
                expected: ABI_MAJOR,
            });
        }
        Err(SuperblockError::UnknownFeatures { bits }) => {
            return Err(OpenError::UnknownFeatures { name, bits });
        }
        Err(SuperblockError::Damaged { what }) => {
            return Err(not_a_ring(&format!("its superblock is damaged ({what})")));
        }
    };
    if len < superblock.geometry.segment_bytes() as u64 {
        return Err(not_a_ring("it was truncated"));
    }
    Ok(Some(superblock))
}

/// True if a ring of this many bytes is possible.
pub(super) fn plausible_length(len: u64) -> bool {
    let Ok(len) = usize::try_from(len) else {
        return false;
    };
    len > CONSUMER_PAGE_OFFSET
        && (1..=MAX_LANES).any(|lanes| {
            (12..=32).any(|bits| {
                Capacity::exact(1 << bits)
                    .and_then(|capacity| Geometry::new(lanes, capacity))
                    .is_some_and(|geometry| geometry.segment_bytes() == len)
            })
        })
}

enum Creator {
    Finished,
    Gone,
    Slow,
}

/// Waits until nobody holds the creation lock, then says whether a ring came of it.
fn wait_for_creator(place: &Place) -> Creator {
    let Some(key) = sysv_key(place) else {
        return Creator::Gone;
    };
    if !creation_ended(key, PATIENCE) {
        return Creator::Slow;
    }
    match Object::open(place, Access::ReadOnly).and_then(|object| object.head()) {
        Ok(head) if matches!(Superblock::decode(&head), Err(SuperblockError::NotReady)) => {
            Creator::Gone
        }
        Err(MemoryError::NotFound) => Creator::Gone,
        _ => Creator::Finished,
    }
}

/// True if the place still holds the ring with this superblock.
fn still_there(place: &Place, superblock: &Superblock) -> bool {
    let head = Object::open(place, Access::ReadOnly).and_then(|object| object.head());
    head.is_ok_and(|head| {
        Superblock::decode(&head).is_ok_and(|there| there.uuid == superblock.uuid)
    })
}

fn guard_error(name: &str, mismatch: SetMismatch) -> OpenError {
    let name = name.to_owned();
    match mismatch {
        SetMismatch::Missing | SetMismatch::Other => OpenError::GuardLost {
            why: format!(
                "its semaphores are not in this IPC namespace: the ring belongs to another one (a container: \
                 share it with --ipc), or they were removed (ipcrm, or a logout with systemd's RemoveIPC); \
                 in that case remove it with: semring rm --force {name}"
            ),
            name,
        },
        SetMismatch::Denied(error) => OpenError::Permission {
            name,
            source: error.into(),
        },
        SetMismatch::Failed(error) => OpenError::Os {
            name,
            call: error.call(),
            source: error.into(),
        },
    }
}

pub(crate) fn memory_error(name: &str, error: MemoryError) -> OpenError {
    let name = name.to_owned();
    match error {
        MemoryError::NotFound => OpenError::NotFound { name },
        MemoryError::Denied(source) => OpenError::Permission { name, source },
        MemoryError::WrongType(what) => OpenError::NotARing {
            name,
            what: what.to_owned(),
        },
        MemoryError::Exists => OpenError::Busy { name },
        MemoryError::NoSpace { .. } => OpenError::Os {
            name,
            call: "mmap",
            source: std::io::ErrorKind::OutOfMemory.into(),
        },
        MemoryError::Os { call, source } => OpenError::Os { name, call, source },
    }
}
