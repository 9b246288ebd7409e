//! A ring that gets its name, if it has one, when it is complete.

use super::super::guards::NewGuard;
use super::super::orphans::sweep_beside;
use super::{New, fill, finish, make_memory, memory_error, pipes, set_error, uuid};
use crate::error::CreateError;
use crate::guard::semaphore::set::NewSet;
use crate::layout::set_record::{SetRecord, record_word};
use crate::layout::superblock::{STATE_READY, SetIdentity};
use crate::lifecycle::{Plan, SharedRing};
use crate::memory::{Access, Address, MemoryError, NewObject, Object, Place};
use crate::sync::Ordering;

pub(super) fn create_unnamed(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<SharedRing, CreateError> {
    // Checked first, so that no gigabyte is allocated only to find that the name is taken. The link
    // decides.
    match Object::open(place, Access::ReadOnly) {
        Err(MemoryError::NotFound) => {}
        // (An object that may not be read falls to the last arm: whether it is a ring can't be found
        // out.)
        Ok(_) | Err(MemoryError::WrongType(_)) => {
            return Err(CreateError::Exists {
                name: name.to_owned(),
            });
        }
        Err(error) => return Err(memory_error(name, error)),
    }
    if let Place::File(path) = place {
        sweep_beside(path);
    }
    let (object, segment) = make_memory(name, place, plan)?;
    let new = New::beside(name, place, plan, &object, &uuid(name)?)?;
    let (mut superblock, view) = fill(address, place, plan, &new, segment, &object)?;
    if object.outlives_its_guard() && superblock.set != SetIdentity::NONE {
        let inode = object.inode().map_err(|error| memory_error(name, error))?;
        let record = SetRecord::of(1, superblock.set, inode);
        view.write_record(&record);
        superblock.record = Some(record);
        superblock.record_word = record_word::published(record.sequence);
        // Made visible by READY.
        view.record_word()
            .store(superblock.record_word, Ordering::Relaxed);
    }
    view.state().store(STATE_READY, Ordering::Release);
    // If this returns early, dropping `new` removes the guard; the kernel removes the unnamed file.
    let object = object
        .publish()
        .map_err(|error| memory_error(name, error))?;
    finish(address, superblock, view, new, object)
}

impl New {
    /// For memory that has no name yet.
    fn beside(
        name: &str,
        place: &Place,
        plan: &Plan,
        object: &NewObject,
        uuid: &[u8; 16],
    ) -> Result<Self, CreateError> {
        let lanes = plan.geometry.lanes();
        let set = || {
            NewSet::create(lanes, plan.mode)
                .map(NewGuard::Set)
                .map_err(|failure| set_error(name, plan, failure))
        };
        let pipes = || pipes(name, place, plan, object, uuid);
        Self::choose(name, plan, *uuid, set, pipes)
    }
}
