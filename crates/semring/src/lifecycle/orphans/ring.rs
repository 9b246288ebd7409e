//! Rings that no process uses any more, and rings whose guard is gone.

use super::super::guards::find_guard;
use super::super::inspect::{look, unread};
use super::super::open::{memory_error, open};
use super::super::remove::{self, take_away_or_leave, unlink_error};
use super::super::under_key::stays_attached;
use super::super::{RingCore, SharedRing};
use super::{Orphan, PruneOutcome, Unread, What, set};
use crate::error::{OpenError, RemoveError};
use crate::guard::semaphore::SemaphoreGuard;
use crate::guard::semaphore::abandoned::SetFacts;
use crate::guard::{GuardError, Mismatch};
use crate::layout::Geometry;
use crate::layout::superblock::{GuardKind, Superblock};
use crate::layout::view::RingView;
use crate::memory::{self, Access, Address, MemoryError, Object, Place};
use crate::os::process;
use crate::os::sysv::SemSet;

impl Orphan {
    pub(super) fn remove_without_guard(
        &self,
        place: &Place,
        uuid: &[u8; 16],
        policy: Unread,
    ) -> Result<PruneOutcome, RemoveError> {
        let object = match Object::open(place, Access::ReadWrite) {
            Ok(object) => object,
            Err(MemoryError::NotFound) => return Ok(PruneOutcome::Removed),
            Err(error) => return Err(memory_error(&self.name, error).into()),
        };
        // Another process is just removing it; a later object of that name must stay.
        if !object.try_lock().map_err(|error| self.memory(error))? {
            return Ok(PruneOutcome::InUse);
        }
        let head = object.head().map_err(|error| self.memory(error))?;
        match Superblock::decode(&head) {
            Ok(superblock) if superblock.uuid == *uuid => {
                if !lacks_its_guard(place, &object, &superblock) || stays_attached(&object) {
                    return Ok(PruneOutcome::InUse);
                }
                let (messages, unread) = unread_of(&object, &superblock);
                if unread && policy == Unread::Keep {
                    return Ok(PruneOutcome::Unread { messages });
                }
            }
            _ => return Ok(PruneOutcome::Removed),
        }
        object
            .unlink()
            .map_err(|error| unlink_error(&self.name, error))?;
        Ok(PruneOutcome::Removed)
    }

    fn of_ring(ring: &RingCore, name: String, address: Address) -> Self {
        let (unread_messages, unread) =
            unread_in(&ring.object, &ring.view, ring.superblock.geometry);
        Self {
            name,
            unread_messages,
            unread,
            what: What::Ring {
                address,
                uuid: ring.superblock.uuid,
            },
        }
    }
}

pub(super) fn remove_ring(
    address: &Address,
    uuid: &[u8; 16],
    policy: Unread,
) -> Result<PruneOutcome, RemoveError> {
    match begin(address, uuid, policy)? {
        Begun::Yes(ring) => take_away_or_leave(&ring).map(|()| PruneOutcome::Removed),
        Begun::No(outcome) => Ok(outcome),
    }
}

/// Whether a removal has begun.
pub(super) enum Begun {
    /// No process can attach any more, and there is nothing that must be kept.
    Yes(SharedRing),
    No(PruneOutcome),
}

/// Begins to remove the ring with this uuid.
pub(super) fn begin(
    address: &Address,
    uuid: &[u8; 16],
    policy: Unread,
) -> Result<Begun, RemoveError> {
    let no = |outcome| Ok(Begun::No(outcome));
    let ring = match open(address, Access::ReadWrite) {
        Ok(ring) if ring.superblock.uuid == *uuid => ring,
        // Another ring by now: not the one that was found.
        Ok(_) | Err(OpenError::NotFound { .. }) => return no(PruneOutcome::Removed),
        Err(error) => return Err(error.into()),
    };
    let place = address.place().map_err(|source| RemoveError::Os {
        name: address.to_string(),
        call: "ftok",
        source,
    })?;
    if !owns_its_set(&place, &ring.object, &ring.superblock) {
        return no(PruneOutcome::InUse);
    }
    match ring.guard.begin_pruning() {
        Ok(true) => {}
        Ok(false) => return no(PruneOutcome::InUse),
        Err(GuardError::Removed) => return no(PruneOutcome::Removed),
        Err(error) => return Err(remove::guard_error(&ring, error)),
    }
    // No process can attach and send any more.
    let (messages, unread) = unread_in(&ring.object, &ring.view, ring.superblock.geometry);
    if unread && policy == Unread::Keep {
        end(&ring)?;
        return no(PruneOutcome::Unread { messages });
    }
    Ok(Begun::Yes(ring))
}

/// Ends a removal that has begun, without removing.
pub(super) fn end(ring: &RingCore) -> Result<(), RemoveError> {
    ring.guard
        .abort_removal()
        .map_err(|error| remove::guard_error(ring, error))
}

/// The number of unread messages, and whether anything is unread: impossible bytes may hide more.
fn unread_in(object: &Object, view: &RingView, geometry: Geometry) -> (u64, bool) {
    let each = (0..geometry.lanes()).map(|lane| unread(object, view, geometry, lane));
    each.fold((0, false), |(messages, any), lane| {
        (
            messages + lane.messages,
            any || lane.messages > 0 || lane.damaged,
        )
    })
}

/// The same for an object that is not mapped; one that can't be mapped counts as unread.
fn unread_of(object: &Object, superblock: &Superblock) -> (u64, bool) {
    let geometry = superblock.geometry;
    look(object, geometry).map_or((0, true), |view| unread_in(object, &view, geometry))
}

/// True if the ring's semaphores would have to be in this IPC namespace, and are not.
fn lacks_its_guard(place: &Place, object: &Object, superblock: &Superblock) -> bool {
    if superblock.guard == GuardKind::Pipe {
        // The semaphores of a ring in /dev/shm are in this namespace, too.
        return matches!(place, Place::Posix(_))
            && matches!(find_guard(object, superblock), Err(Mismatch::Missing));
    }
    let here = memory::sysv_key(place).is_some()
        || (superblock.ipc_namespace != 0
            && process::ipc_namespace() == Some(superblock.ipc_namespace));
    here && matches!(
        SemaphoreGuard::open(&superblock.set, superblock.geometry.lanes()),
        Err(Mismatch::Missing | Mismatch::Other)
    )
}

/// True if a superblock's set is certainly its ring's: made by the same user, for a ring of this place.
/// A ring's bytes are written by its owner, and must not lead root, which prunes for all users, to the
/// semaphores of another ring.
fn owns_its_set(place: &Place, object: &Object, superblock: &Superblock) -> bool {
    if superblock.guard == GuardKind::Pipe {
        // Pipes are found by the ring's identity only if the ring's owner owns them.
        return find_guard(object, superblock).is_ok();
    }
    let id = superblock.set.id;
    let same_location =
        SetFacts::of(id).is_some_and(|set| set.location() == Some(set::location(place)));
    let owners = object.ownership().ok().zip(SemSet::from_id(id).stat().ok());
    let same_owner = owners.is_some_and(|(object, set)| object.uid == set.uid);
    same_location && same_owner
}

pub(super) fn abandoned_ring(
    place: &Place,
    object: &Object,
    superblock: &Superblock,
) -> Option<Orphan> {
    let address = Address::of_place(place, &superblock.name);
    if !address.is_valid() {
        return None; // not made by semring
    }
    let name = address.to_string();
    let uuid = superblock.uuid;
    match open(&address, Access::ReadOnly) {
        Ok(ring) => {
            let same = ring.superblock.uuid == uuid && owns_its_set(place, object, superblock);
            let idle = matches!(ring.guard.is_idle(), Ok(true));
            (same && idle).then(|| Orphan::of_ring(&ring, name, address))
        }
        Err(OpenError::GuardMissing { .. })
            if lacks_its_guard(place, object, superblock) && !object.is_attached() =>
        {
            let (unread_messages, unread) = unread_of(object, superblock);
            Some(Orphan {
                name,
                unread_messages,
                unread,
                what: What::GuardMissing {
                    place: place.clone(),
                    uuid,
                    guard: superblock.guard,
                },
            })
        }
        Err(_) => None,
    }
}
