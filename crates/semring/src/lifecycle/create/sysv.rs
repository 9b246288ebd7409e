//! A ring that others can see under its System V key from the beginning.

use std::time::Duration;

use super::super::guards::NewGuard;
use super::super::identity::other_ring;
use super::super::key_lock::KeyLock;
use super::super::open::plausible_length;
use super::{
    New, fill, finish, make_memory, memory_error, pipe_error, pipes, semaphores_work, set_error,
    stays_attached, uuid, why_pipes,
};
use crate::error::CreateError;
use crate::guard::set::{NewSet, creation_ended};
use crate::layout::superblock::{STATE_READY, Superblock, SuperblockError};
use crate::lifecycle::{GuardChoice, Plan, SharedRing};
use crate::memory::{Access, Address, MemoryError, NewObject, Object, Place, sysv_key};
use crate::sync::Ordering;

/// How long another creator or remover may take before we give up on it.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) fn create_in_place(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<SharedRing, CreateError> {
    let key = sysv_key(place).expect("a System V place has a key");
    let is_ring = || matches!(leftover(place), Leftover::Ring);
    // A look before anything is made: what is not ours stays as it is.
    match leftover(place) {
        Leftover::Ring => return Err(exists(address, name, place)),
        Leftover::Foreign(what) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what,
            });
        }
        Leftover::Failed(error) => return Err(memory_error(name, error)),
        Leftover::Nothing | Leftover::Unfinished(_) => {}
    }
    let taken = || exists(address, name, place);
    let busy = || CreateError::Busy {
        name: name.to_owned(),
    };
    // Whoever makes a ring with pipes under this key has to be through. Each locks first, and then looks at
    // the other's lock: of two who meet, this one steps back.
    let lock_set = || {
        loop {
            if !KeyLock::is_free(key.raw(), PATIENCE) {
                return Err(busy());
            }
            let set = NewSet::lock(key, plan.geometry.lanes(), plan.mode, PATIENCE, is_ring)
                .map_err(|trouble| set_error(name, plan, trouble))?
                .ok_or_else(taken)?;
            if KeyLock::is_free(key.raw(), Duration::ZERO) {
                return Ok(NewGuard::Set(set));
            }
        }
    };
    let locked = match plan.guard {
        GuardChoice::Pipe => Err(None),
        GuardChoice::Semaphore => Ok(lock_set()?),
        GuardChoice::Auto => match semaphores_work(name, plan).and_then(|()| lock_set()) {
            Ok(set) => Ok(set),
            Err(refused) => Err(Some(why_pipes(&refused).ok_or(refused)?)),
        },
    };
    match locked {
        Ok(guard) => make_in_place(address, name, place, plan, None, |_, uuid| {
            Ok(New {
                guard,
                uuid,
                fallback: None,
            })
        }),
        Err(fallback) => {
            let lock = KeyLock::take(key.raw(), plan.mode, PATIENCE)
                .map_err(|trouble| pipe_error(name, trouble))?
                .ok_or_else(busy)?;
            // The same for whoever makes one with semaphores.
            if !creation_ended(key, PATIENCE) {
                return Err(busy());
            }
            make_in_place(address, name, place, plan, Some(lock), |object, uuid| {
                Ok(New {
                    guard: pipes(name, place, plan, object, &uuid)?,
                    uuid,
                    fallback,
                })
            })
        }
    }
}

/// What to say about the ring that is there.
fn exists(address: &Address, name: &str, place: &Place) -> CreateError {
    let name = name.to_owned();
    let head = Object::open(place, Access::ReadOnly).and_then(|object| object.head());
    let found = head.ok().and_then(|head| Superblock::decode(&head).ok());
    match found.and_then(|found| other_ring(address, Some(place), &found)) {
        Some(other) => CreateError::NotARing {
            name,
            what: other.what,
        },
        None => CreateError::Exists { name },
    }
}

/// With the creation lock held, in one or the other form.
fn make_in_place(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
    lock: Option<KeyLock>,
    guard: impl FnOnce(&NewObject, [u8; 16]) -> Result<New, CreateError>,
) -> Result<SharedRing, CreateError> {
    // Under the lock: nobody else makes or unmakes what is under this key.
    match leftover(place) {
        Leftover::Ring => return Err(exists(address, name, place)),
        Leftover::Foreign(what) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what,
            });
        }
        Leftover::Failed(error) => return Err(memory_error(name, error)),
        // A creator of ours would hold the lock. Whoever keeps this mapped is somebody else.
        Leftover::Unfinished(object) if stays_attached(&object) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what: "the key belongs to a segment that another program uses".to_owned(),
            });
        }
        Leftover::Unfinished(object) => {
            object.unlink().map_err(|error| memory_error(name, error))?;
        }
        Leftover::Nothing => {}
    }
    let uuid = uuid(name)?;
    let (object, segment) = make_memory(name, place, plan)?;
    let new = guard(&object, uuid)?;
    let (superblock, view) = fill(address, place, plan, &new, segment, &object)?;
    view.state().store(STATE_READY, Ordering::Release);
    let object = object
        .publish()
        .map_err(|error| memory_error(name, error))?;
    drop(lock);
    finish(address, superblock, view, new, object)
}

/// What lies under a System V key.
enum Leftover {
    Nothing,
    /// A finished ring, or one whose name says that it is somebody's.
    Ring,
    /// What a creator of ours left when it died (or is making now: the lock tells).
    Unfinished(Object),
    Foreign(String),
    Failed(MemoryError),
}

fn leftover(place: &Place) -> Leftover {
    let object = match Object::open(place, Access::ReadOnly) {
        Ok(object) => object,
        Err(MemoryError::NotFound) => return Leftover::Nothing,
        Err(error) => return Leftover::Failed(error),
    };
    let (head, len) = match (object.head(), object.len()) {
        (Ok(head), Ok(len)) => (head, len),
        (Err(MemoryError::NotFound), _) | (_, Err(MemoryError::NotFound)) => {
            return Leftover::Nothing;
        }
        (Err(error), _) | (_, Err(error)) => return Leftover::Failed(error),
    };
    match Superblock::decode(&head) {
        Ok(_)
        | Err(SuperblockError::OtherVersion { .. } | SuperblockError::UnknownFeatures { .. }) => {
            Leftover::Ring
        }
        // Zeros alone are no proof that a segment is ours: its size must be a ring's, too.
        Err(SuperblockError::NotReady) if plausible_length(len) => Leftover::Unfinished(object),
        Err(SuperblockError::NotReady | SuperblockError::NotARing) => {
            Leftover::Foreign("the key belongs to a segment of another program".to_owned())
        }
        Err(SuperblockError::Removed) => {
            Leftover::Foreign("a ring whose superblock is damaged (state word)".to_owned())
        }
        Err(SuperblockError::Damaged { what }) => {
            Leftover::Foreign(format!("a ring whose superblock is damaged ({what})"))
        }
    }
}
