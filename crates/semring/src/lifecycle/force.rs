//! Removing a ring by force: while processes are attached, without its guard, and in spite of flags and
//! locks of other processes.
//!
//! The same steps as in [`remove`](super::remove), with users attached: removal flag, name, guard. If the
//! remover is killed between name and guard, the users go on in a ring without a name until they detach. The
//! other order would be worse: the flag is removed with the guard, and without it the unlink could hit a new
//! ring of the same name.
//!
//! # Obstacles delay a removal by a second
//! A process that may write the ring can raise the removal flag, or any other semaphore, without SEM_UNDO, or
//! hold any of the locks as long as it lives. The kernel does not undo that, and it can't be distinguished from
//! a stopped remover. So after [`REMOVER_TIMEOUT`] the removal goes on regardless: only the owner of a ring and root
//! have the right to remove it ([`RemovalLock::may_destroy`](crate::guard::RemovalLock::may_destroy) is checked first). One
//! thing can go wrong then: if another remover was stopped for a second between its look at the name and its
//! unlink, and a new ring of the same name was made in between, the new ring loses its name, too.
//!
//! A process that may only read the ring can't delay a removal: only locks that need write permission
//! count.

use std::time::Instant;

use super::attach::Membership;
use super::guards::{find_changed_set, find_guard};
use super::holder::has_newest_guard;
use super::open::{memory_error, open, read_superblock};
use super::remove::{guard_error, lost, sweep_if_gone, take_away, unlink_error};
use super::{RingCore, damaged};
use crate::error::{OpenError, RemoveError};
use crate::guard::timeouts::REMOVER_TIMEOUT;
use crate::guard::{GuardError, RemovalLock};
use crate::memory::{Access, Address, Object};
use crate::os::clock;
use crate::sync::yield_now;

/// Removes the ring at an address, even if processes are attached.
pub(crate) fn force_remove(address: &Address) -> Result<RemoveOutcome, RemoveError> {
    let removed = remove_what_is_there(address);
    sweep_if_gone(address, &removed);
    removed
}

fn remove_what_is_there(address: &Address) -> Result<RemoveOutcome, RemoveError> {
    let name = address.to_string();
    let end = clock::now() + REMOVER_TIMEOUT;
    let mut overtaken = false;
    loop {
        // To open it is to wait for its creator, for longer than a removal by force does.
        let opened = if damaged::is_unfinished(address) {
            Err(OpenError::Busy { name: name.clone() })
        } else {
            open(address, Access::ReadWrite)
        };
        let removed = match opened {
            // The ring to be removed is gone; a new one must stay.
            Ok(_) | Err(OpenError::NotFound { .. } | OpenError::Busy { .. }) if overtaken => {
                return Ok(RemoveOutcome::Removed);
            }
            Ok(ring) => remove_open(&ring, end)?,
            // Only the name is left, or a new guard can't be made here: no reason to keep it.
            Err(OpenError::GuardMissing { .. } | OpenError::MemoryLimit { .. }) => {
                remove_without_guard(address, &name, end)?
            }
            Err(
                why @ (OpenError::NotFound { .. }
                | OpenError::NotARing { .. }
                | OpenError::OtherVersion { .. }
                | OpenError::UnknownFeatures { .. }
                | OpenError::Busy { .. }),
            ) => match damaged::remove(address, why, end)? {
                Some(what) => return Ok(RemoveOutcome::RemovedDamaged { what }),
                None => Forced::Changed,
            },
            Err(error) => return Err(error.into()),
        };
        match removed {
            Forced::Removed => return Ok(RemoveOutcome::Removed),
            Forced::Overtaken => overtaken = true,
            Forced::Changed => {}
        }
    }
}

/// What became of a ring that was to be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RemoveOutcome {
    /// The ring was removed, with its semaphores or pipes.
    Removed,
    /// The ring stays: a process is attached, or is attaching. Not returned by a removal by force.
    InUse,
    /// The ring stays: a message is unread. Not returned by a removal by force.
    Unread,
    /// An object that can't be opened as a ring any more was removed.
    RemovedDamaged {
        /// A description of the object, and whether semaphores or pipes were removed with it.
        what: String,
    },
}

impl RemoveOutcome {
    /// True if the object is gone.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self, Self::Removed | Self::RemovedDamaged { .. })
    }
}

/// The result of one attempt.
enum Forced {
    Removed,
    /// Another process removed the guard: together with the name, or without it (ipcrm).
    Overtaken,
    /// The ring has a new guard by now.
    Changed,
}

fn remove_open(ring: &RingCore, end: Instant) -> Result<Forced, RemoveError> {
    let refused = |error| guard_error(ring, error);
    // Checked first: a process that may not remove the ring must not prevent attaching, either.
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
    // A removal flag in semaphores that are not the ring's any more would have no effect.
    let member = Membership::enter(ring, end);
    let removed = if member.is_err() && !has_newest_guard(ring) {
        let over = clock::now() >= end;
        if over {
            Err(lost(ring))
        } else {
            Ok(Forced::Changed)
        }
    } else {
        // A process that holds the file's lock for longer than a second is ignored.
        take_away(ring).map(|()| Forced::Removed)
    };
    if !matches!(removed, Ok(Forced::Removed)) {
        let _ = ring.guard.abort_removal();
        if ring.object.is_still_there() {
            ring.guard.record_name(true);
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
    // Without a removal flag: two removers at once could each remove what a creator has made after the
    // other one.
    while !object
        .try_lock()
        .map_err(|error| memory_error(name, error))?
        && clock::now() < end
    {
        yield_now();
    }
    // Another remover and a creator may have been here since the last check.
    let here = superblock
        .as_ref()
        .map(|superblock| find_guard(&object, superblock));
    if matches!(here, Some(Ok(_))) {
        return Ok(Forced::Changed);
    }
    let changed = superblock.and_then(|superblock| find_changed_set(&object, &superblock));
    object.unlink().map_err(|error| unlink_error(name, error))?;
    // A process that may write the ring has changed its semaphores so that they look like another
    // ring's.
    if let Some(guard) = changed {
        let _ = guard.destroy();
    }
    Ok(Forced::Removed)
}
