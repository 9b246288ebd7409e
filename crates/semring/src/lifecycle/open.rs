//! Opening an existing ring. A process that is killed here leaves no trace, unless a [new
//! guard](super::renew) has to be made.

use std::sync::Arc;

use super::guards::{find_guard, pipes_of};
use super::identity::{OtherRing, other_ring};
use super::renew::{self, Renewal};
use super::under_key::{Under, under};
use super::{RingCore, SharedRing, inspect};
use crate::error::OpenError;
use crate::guard::timeouts::CREATOR_TIMEOUT;
use crate::guard::{GuardError, Mismatch};
use crate::layout::possible_lanes;
use crate::layout::set_record::record_word;
use crate::layout::superblock::{ABI_MAJOR, GuardKind, Superblock, SuperblockError};
use crate::layout::view::RingView;
use crate::memory::{self, Access, Address, MemoryError, Object, Place, sysv_key};
use crate::os::process;
use crate::os::sysv::Key;

/// Opens the ring at an address, for use or for inspection only.
pub(crate) fn open(address: &Address, access: Access) -> Result<SharedRing, OpenError> {
    open_with(address, access, false)
}

/// Whether the guard that was found is the one that the superblock names, which was read before. Pipes that were made
/// later have the same name as the old ones: only the record word shows the difference.
pub(super) fn found_newest(
    name: &str,
    object: &Object,
    superblock: &Superblock,
) -> Result<bool, OpenError> {
    if superblock.guard != GuardKind::Pipe || !object.outlives_its_guard() {
        return Ok(true);
    }
    let now = read_superblock(name, object)?;
    Ok(!record_word::is_announced(superblock.record_word)
        && now.is_some_and(|now| now.record_word == superblock.record_word))
}

/// Opens the ring at an address; with `locked` every page stays in memory while it is open.
pub(crate) fn open_with(
    address: &Address,
    access: Access,
    locked: bool,
) -> Result<SharedRing, OpenError> {
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
        if let Some(ring) = open_object(address, Some(&place), object, access)? {
            if locked {
                let segment = ring.view.segment();
                segment.lock().map_err(|error| memory_error(&name, error))?;
            }
            return Ok(ring);
        }
    }
}

/// Opens the ring of a descriptor that was received.
pub(crate) fn open_received(file: std::fs::File) -> Result<SharedRing, OpenError> {
    let unnamed = "memfd:";
    loop {
        let object = memory::received(&file).map_err(|error| memory_error(unnamed, error))?;
        let label = read_superblock(unnamed, &object)?.map(|superblock| superblock.name);
        let address = object.address(label.as_deref().unwrap_or_default());
        if let Some(ring) = open_object(&address, None, object, Access::ReadWrite)? {
            return Ok(ring);
        }
    }
}

/// Opens the ring in an object; `None` if the place holds another object by now.
fn open_object(
    address: &Address,
    place: Option<&Place>,
    object: Object,
    access: Access,
) -> Result<Option<SharedRing>, OpenError> {
    let name = address.to_string();
    let key = place.and_then(sysv_key);
    let mut superblock = match (read_superblock(&name, &object)?, key) {
        (Some(superblock), _) => superblock,
        // A ring that is not a segment has a name only when it is ready, so no creator will finish
        // this.
        (None, None) => {
            return Err(OpenError::NotARing {
                name,
                what: "it was never finished; remove it yourself if it is not needed".to_owned(),
            });
        }
        // Being made. With the creator dead it is no ring; the next creator takes it over.
        (None, Some(key)) => {
            return match wait_for_creator(key) {
                Creator::Finished => Ok(None),
                Creator::Gone => Err(OpenError::NotFound { name }),
                Creator::Slow => Err(OpenError::Busy { name }),
                Creator::Foreign(what) => Err(OpenError::NotARing { name, what }),
                Creator::Hidden(error) => Err(memory_error(&name, error)),
            };
        }
    };
    if let Some(OtherRing { what, instead }) = other_ring(address, place, &superblock) {
        let what = format!("{what}: {instead}");
        return Err(OpenError::NotARing { name, what });
    }
    let found = find_guard(&object, &superblock);
    if found.is_ok() && !found_newest(&name, &object, &superblock)? {
        return Ok(None);
    }
    if let (Err(Mismatch::Missing | Mismatch::Other), Some(place)) = (&found, place) {
        // A remover removes the name first and the set last: check whether the name is still there.
        if !still_there(place, &superblock) {
            return Ok(None);
        }
    }
    let renewable = object.outlives_its_guard() && access == Access::ReadWrite;
    if let Err(mismatch) = &found
        && !(renewable && mismatch.is_lost())
    {
        return Err(guard_error(&name, &object, &superblock, *mismatch));
    }
    let view = map(&name, &object, &superblock, access)?;
    let mut guard = match found {
        Ok(guard) => guard,
        Err(mismatch) => match renew::renew(&name, &object, &view, &superblock)? {
            Renewal::Done(newer, guard) => {
                superblock = *newer;
                guard
            }
            Renewal::Gone => return Ok(None),
            Renewal::InUse => return Err(in_use_error(&name, &superblock, mismatch)),
        },
    };
    if renewable && object.is_still_there() {
        guard.record_name(true);
        // A remover may have removed the name, and have been killed, since the check.
        if !object.is_still_there() {
            guard.record_name(false);
        }
    }
    if object.goes_with_its_users() && access == Access::ReadWrite {
        match guard.hold() {
            Ok(()) => {}
            // The last user detached a moment ago, and removed the guard.
            Err(GuardError::Removed) => return Ok(None),
            Err(GuardError::Os { call, errno }) => {
                return Err(OpenError::Os {
                    name,
                    call,
                    source: std::io::Error::from_raw_os_error(errno),
                });
            }
        }
    }
    Ok(Some(Arc::new(RingCore {
        address: address.clone(),
        superblock,
        view,
        guard,
        object,
        created: false,
        fallback: None,
    })))
}

fn map(
    name: &str,
    object: &Object,
    superblock: &Superblock,
    access: Access,
) -> Result<RingView, OpenError> {
    let geometry = superblock.geometry;
    if access == Access::ReadOnly {
        return inspect::look(object, geometry).map_err(|error| memory_error(name, error));
    }
    let segment = object
        .map(geometry.segment_bytes(), access)
        .map_err(|error| memory_error(name, error))?;
    RingView::new(Arc::new(segment), geometry).ok_or_else(|| OpenError::NotARing {
        name: name.to_owned(),
        what: "it is shorter than its superblock requires".to_owned(),
    })
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
        Err(SuperblockError::Removed) if object.goes_with_its_users() => {
            return Err(OpenError::NotFound { name });
        }
        // An object that has a name is removed with it.
        Err(SuperblockError::Removed) => {
            return Err(not_a_ring("its superblock is damaged (state word)"));
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
    possible_lanes(len).next().is_some()
}

enum Creator {
    Finished,
    Gone,
    Slow,
    /// None: the segment is not semring's.
    Foreign(String),
    Hidden(MemoryError),
}

/// Waits until no process holds the creation lock, then returns whether a ring was made.
fn wait_for_creator(key: Key) -> Creator {
    let Under::Unfinished(unfinished) = under(key) else {
        return came_of_it(key);
    };
    if !unfinished.creation_ended(CREATOR_TIMEOUT) {
        return Creator::Slow;
    }
    came_of_it(key)
}

fn came_of_it(key: Key) -> Creator {
    match under(key) {
        Under::Nothing | Under::Unfinished(_) => Creator::Gone,
        Under::Ring | Under::Damaged(_) => Creator::Finished,
        Under::Foreign(foreign) => Creator::Foreign(foreign.what),
        Under::Hidden(error) => Creator::Hidden(error),
    }
}

/// True if the place still holds the ring with this superblock.
fn still_there(place: &Place, superblock: &Superblock) -> bool {
    let head = Object::open(place, Access::ReadOnly).and_then(|object| object.head());
    head.is_ok_and(|head| {
        Superblock::decode(&head).is_ok_and(|there| there.uuid == superblock.uuid)
    })
}

pub(super) fn guard_error(
    name: &str,
    object: &Object,
    superblock: &Superblock,
    mismatch: Mismatch,
) -> OpenError {
    let why = match mismatch {
        Mismatch::Elsewhere => elsewhere(superblock),
        Mismatch::Missing | Mismatch::Other | Mismatch::Stranger
            if superblock.guard == GuardKind::Pipe =>
        {
            pipes_lost(object, superblock, mismatch)
        }
        Mismatch::Stranger => {
            "the semaphores in the place of its own belong to another user; chown and chmod leave them behind: remove \
             the ring by force"
                .to_owned()
        }
        Mismatch::Missing | Mismatch::Other if object.outlives_its_guard() => {
            "its semaphores are gone (a restart, ipcrm, or a logout with systemd's RemoveIPC); opened for use, \
             it gets new ones"
                .to_owned()
        }
        Mismatch::Missing | Mismatch::Other if superblock.ipc_namespace != 0 => {
            "its semaphores were removed from this IPC namespace (ipcrm, or a logout with systemd's RemoveIPC): it can't be \
             used any more; remove it by force"
                .to_owned()
        }
        Mismatch::Missing | Mismatch::Other => {
            "its semaphores are not in this IPC namespace: the ring belongs to another one (of a container: share that), \
             or they were removed (ipcrm, or a logout with systemd's RemoveIPC); in that case remove it by force"
                .to_owned()
        }
        Mismatch::Denied(error) => {
            return OpenError::Permission {
                name: name.to_owned(),
                source: error.into(),
            };
        }
        Mismatch::Failed(error) => {
            return OpenError::Os {
                name: name.to_owned(),
                call: error.call,
                source: error.into(),
            };
        }
    };
    OpenError::GuardMissing {
        name: name.to_owned(),
        why,
    }
}

fn pipes_lost(object: &Object, superblock: &Superblock, mismatch: Mismatch) -> String {
    let path = pipes_of(object, &superblock.uuid).unwrap_or_default();
    let path = path.display();
    if mismatch == Mismatch::Stranger {
        return format!(
            "the directory of its pipes, {path}, belongs to another user than the ring; chown leaves it behind: \
             remove the ring by force"
        );
    }
    if object.outlives_its_guard() {
        return format!(
            "its pipes, in {path}, are gone or elsewhere (another /dev/shm); opened for use, it gets new ones"
        );
    }
    format!(
        "its pipes are not in {path}: they were removed (by hand, or at a logout with systemd's RemoveIPC), or are in \
         the /dev/shm of another container (share it); if they were removed, remove the ring by force"
    )
}

fn elsewhere(superblock: &Superblock) -> String {
    let ours = process::ipc_namespace().unwrap_or(0);
    format!(
        "it belongs to another IPC namespace ({}, ours is {ours}), where its semaphores are: both sides must share one \
         (docker run --ipc=host or --ipc=container:…, one pod, nsenter --ipc)",
        superblock.ipc_namespace
    )
}

/// The error for a ring whose set is not here while a process holds a role through it.
fn in_use_error(name: &str, superblock: &Superblock, mismatch: Mismatch) -> OpenError {
    let why = match mismatch {
        Mismatch::Elsewhere => elsewhere(superblock),
        _ => "its semaphores were removed under its users (ipcrm, or a logout with systemd's RemoveIPC), and one of \
              them still has its role: when they have all ended or detached, the ring can be opened again"
            .to_owned(),
    };
    OpenError::GuardMissing {
        name: name.to_owned(),
        why,
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
        MemoryError::Limit(limit) => OpenError::MemoryLimit { name, limit },
        MemoryError::NoSpace { .. } => OpenError::Os {
            name,
            call: "mmap",
            source: std::io::ErrorKind::OutOfMemory.into(),
        },
        MemoryError::Os { call, source } => OpenError::Os { name, call, source },
    }
}
