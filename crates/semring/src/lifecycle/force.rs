//! Removing a ring by force: with its users attached, without its guard, and whatever others have set in the
//! guard or locked.
//!
//! The same steps as in [`remove`](super::remove), with users attached: removal flag, name, guard. Killed
//! between name and guard, the users go on in a ring without a name until they leave. The other order would be
//! worse: the flag goes with the guard, and without it the unlink could hit a new ring of the same name.
//!
//! # What stands in the way does so for a second
//! A process that may write the ring can raise the removal flag, or any other semaphore, without SEM_UNDO, or
//! hold any of the locks for as long as it lives. The kernel does not undo that, and nothing tells it from a
//! remover that is stopped. So after [`PATIENCE`] the removal goes on regardless: to remove a ring is the right
//! of its owner and of root, and theirs only ([`Guard::may_destroy`](crate::guard::Guard::may_destroy) is asked
//! first). What can go wrong then: two removers, of which one was stopped for a second between its look at the
//! name and its unlink, and between the two a new ring of the same name: that one goes, too.
//!
//! A process that may only read the ring is in nobody's way: what is asked is whether there is a lock that
//! takes the permission to write.

use std::time::Instant;

use super::attach::Membership;
use super::guards::{find_changed_set, find_guard};
use super::holder::has_newest_guard;
use super::open::{memory_error, open, read_superblock};
use super::remove::{PATIENCE, guard_error, lost, sweep_if_gone, take_away, unlink_error};
use super::{RingCore, damaged};
use crate::error::{OpenError, RemoveError};
use crate::guard::{GuardError, RemovalLock};
use crate::memory::{Access, Address, Object};
use crate::os::clock;
use crate::sync::yield_now;

/// Removes the ring at an address, whoever is attached.
pub(crate) fn force_remove(address: &Address) -> Result<RemoveOutcome, RemoveError> {
    let removed = remove_what_is_there(address);
    sweep_if_gone(address, &removed);
    removed
}

fn remove_what_is_there(address: &Address) -> Result<RemoveOutcome, RemoveError> {
    let name = address.to_string();
    let end = clock::now() + PATIENCE;
    let mut overtaken = false;
    loop {
        let removed = match open(address, Access::ReadWrite) {
            // The one that was to go is gone; a new one is not meant.
            Ok(_) | Err(OpenError::NotFound { .. }) if overtaken => {
                return Ok(RemoveOutcome::Removed);
            }
            Ok(ring) => remove_open(&ring, end)?,
            // Nothing but the name is left, or its guard can't be made anew here: no reason to keep it.
            Err(OpenError::GuardMissing { .. } | OpenError::MemoryLimit { .. }) => {
                remove_without_guard(address, &name, end)?
            }
            Err(
                why @ (OpenError::NotFound { .. }
                | OpenError::NotARing { .. }
                | OpenError::OtherVersion { .. }
                | OpenError::UnknownFeatures { .. }
                | OpenError::Busy { .. }),
            ) => {
                let what = damaged::remove(address, why)?;
                return Ok(RemoveOutcome::RemovedDamaged { what });
            }
            Err(error) => return Err(error.into()),
        };
        match removed {
            Forced::Removed => return Ok(RemoveOutcome::Removed),
            Forced::Overtaken => overtaken = true,
            Forced::Changed => {}
        }
    }
}

/// What came of a removal that depends on what is found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RemoveOutcome {
    /// The ring is gone, with its guard.
    Removed,
    /// The ring stays: a process is attached, or is attaching. A removal by force never ends so.
    InUse,
    /// The ring stays: a message is unread. A removal by force never ends so.
    Unread,
    /// Something that can't be opened as a ring any more.
    RemovedDamaged {
        /// What it was taken for, and whether semaphores or pipes went with it.
        what: String,
    },
}

impl RemoveOutcome {
    /// True if nothing is there any more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self, Self::Removed | Self::RemovedDamaged { .. })
    }
}

/// What came of one attempt.
enum Forced {
    Removed,
    /// Somebody else took the guard: together with the name, or without it (ipcrm).
    Overtaken,
    /// The ring has another guard by now.
    Changed,
}

fn remove_open(ring: &RingCore, end: Instant) -> Result<Forced, RemoveError> {
    let refused = |error| guard_error(ring, error);
    // Asked first: who may not remove the ring must not keep others from attaching, either.
    ring.guard.may_destroy().map_err(refused)?;
    let left = end.saturating_duration_since(clock::now());
    let begun = match ring.guard.begin_forced_removal(left) {
        Ok(false) => ring.guard.override_removal(),
        other => other.map(drop),
    };
    match begun {
        Ok(()) => {}
        Err(GuardError::Removed) => return Ok(Forced::Overtaken),
        Err(error) => return Err(refused(error)),
    }
    // A removal flag in semaphores that are not the ring's any more would keep nobody away.
    let member = Membership::enter(ring, end);
    let removed = if member.is_err() && !has_newest_guard(ring) {
        let over = clock::now() >= end;
        if over {
            Err(lost(ring))
        } else {
            Ok(Forced::Changed)
        }
    } else {
        // Somebody who may write the file and holds its lock for longer than a second does not count.
        take_away(ring).map(|()| Forced::Removed)
    };
    if !matches!(removed, Ok(Forced::Removed)) {
        let _ = ring.guard.abort_removal();
        if ring.object.is_still_there() {
            ring.guard.note_name(true);
        }
    }
    removed
}

fn remove_without_guard(
    address: &Address,
    name: &str,
    end: Instant,
) -> Result<Forced, RemoveError> {
    let place = address.place().map_err(|source| RemoveError::Os {
        name: name.to_owned(),
        call: "ftok",
        source,
    })?;
    let object =
        Object::open(&place, Access::ReadWrite).map_err(|error| memory_error(name, error))?;
    let superblock = read_superblock(name, &object)?;
    // Without a removal flag: two who remove the ring at once could each take away what a creator after the
    // other one has just put there.
    while !object
        .try_lock()
        .map_err(|error| memory_error(name, error))?
        && clock::now() < end
    {
        yield_now();
    }
    // Another remover and a creator may have been here since we looked.
    let here = superblock
        .as_ref()
        .map(|superblock| find_guard(&object, superblock));
    if matches!(here, Some(Ok(_))) {
        return Ok(Forced::Changed);
    }
    let changed = superblock.and_then(|superblock| find_changed_set(&object, &superblock));
    object.unlink().map_err(|error| unlink_error(name, error))?;
    // Somebody who could write the ring has made its semaphores look like another's.
    if let Some(guard) = changed {
        let _ = guard.destroy();
    }
    Ok(Forced::Removed)
}
