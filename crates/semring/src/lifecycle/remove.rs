//! Removing a ring: at the end of its stream, when no process uses it, or by force.
//!
//! ```text
//! 1 semop: none attached, removal flag T up   killed: the kernel lowers T, the ring is as before
//! 2 a complete look for unread messages
//! 3 the name goes                            killed: a set without a name; lock free, no slot taken:
//! 4 the set goes: all users get EIDRM           the next creator under a System V key, or a prune,
//!                                              removes it
//! ```
//! A removal by force is in [`force`](super::force).
//!
//! Without the look in 2, messages that a late producer sent between the consumer's end of stream
//! and T would be lost with the ring.

use std::time::Instant;

use super::RingCore;
use super::attach::Membership;
use crate::error::OpenError;
use crate::error::RemoveError;
use crate::guard::timeouts::REMOVER_TIMEOUT;
use crate::guard::{GuardError, Role};
use crate::layout::superblock::STATE_REMOVED;
use crate::lifecycle::open::{memory_error, open};
use crate::lifecycle::orphans::sweep_beside;
use crate::lifecycle::{RemoveOutcome, attach, inspect, truncated};
use crate::memory::{Access, Address, MemoryError, Place};
use crate::os::clock;
use crate::os::errno::{EACCES, EPERM};
use crate::sync::Ordering;

/// Removes the ring if no process is attached (except the caller, if it is the consumer) and
/// `may_go` is true once no process can attach any more.
pub(crate) fn remove_idle(
    ring: &RingCore,
    as_consumer: bool,
    may_go: impl FnOnce() -> bool,
) -> Result<RemoveOutcome, RemoveError> {
    match ring.guard.begin_removal(as_consumer) {
        Ok(true) => {}
        Ok(false) => return Ok(RemoveOutcome::InUse),
        // A removal removes the name first: if it is still there, only the semaphores were removed.
        Err(GuardError::Removed) if ring.object.is_still_there() => return Err(lost(ring)),
        // Another process removed it.
        Err(GuardError::Removed) => return Ok(RemoveOutcome::Removed),
        Err(error) => return Err(guard_error(ring, error)),
    }
    let may_go = may_go();
    let truncated = ring.view.segment().is_truncated();
    if truncated || !may_go {
        ring.guard
            .abort_removal()
            .map_err(|error| guard_error(ring, error))?;
        // No unread message was found because the memory is gone.
        return if truncated {
            Err(RemoveError::Open(truncated::error(
                &ring.address.to_string(),
            )))
        } else {
            Ok(RemoveOutcome::Unread)
        };
    }
    take_away_or_leave(ring).map(|()| RemoveOutcome::Removed)
}

pub(super) fn take_away_or_leave(ring: &RingCore) -> Result<(), RemoveError> {
    // A removal flag in semaphores that are not the ring's any more would have no effect.
    let member = Membership::enter(ring, clock::now()).map_err(|_| lost(ring));
    let result = member.and_then(|_member| take_away(ring));
    if result.is_err() {
        // Not permitted: leave the ring as it was.
        let _ = ring.guard.abort_removal();
        if ring.object.is_still_there() {
            ring.guard.record_name(true);
        }
    }
    result
}

/// After the beginning of the removal: the name, then the guard.
pub(super) fn take_away(ring: &RingCore) -> Result<(), RemoveError> {
    // Before the name is removed: a ring without a name is useless to other processes, and its set
    // would stay.
    ring.guard
        .may_destroy()
        .map_err(|error| guard_error(ring, error))?;
    ring.guard.record_name(false);
    ring.object
        .unlink()
        .map_err(|error| unlink_error(&ring.address.to_string(), error))?;
    if ring.object.goes_with_its_users() {
        // There is no name to remove: processes that still have a descriptor must see that the ring
        // is removed.
        ring.view.state().store(STATE_REMOVED, Ordering::Release);
    }
    ring.guard
        .destroy()
        .map_err(|error| guard_error(ring, error))
}

/// The error for a ring that is there while its semaphores are not, or are others by now.
pub(super) fn lost(ring: &RingCore) -> RemoveError {
    RemoveError::Open(OpenError::GuardMissing {
        name: ring.address.to_string(),
        why: "its semaphores were removed since it was opened here: open it again, or remove it by its name"
            .to_owned(),
    })
}

/// Removes a ring that this process has open, unless a process is attached.
pub(crate) fn remove_open(ring: &RingCore) -> Result<(), RemoveError> {
    let end = clock::now() + REMOVER_TIMEOUT;
    loop {
        if remove_idle(ring, false, || true)? != RemoveOutcome::InUse {
            return Ok(());
        }
        if let Some(error) = users(ring, end) {
            return Err(error);
        }
    }
}

/// The users of a ring that could not be removed; `None` if another remover was in the way, and has
/// ended by now.
fn users(ring: &RingCore, end: Instant) -> Option<RemoveError> {
    let left = end.saturating_duration_since(clock::now());
    let taken = |role| matches!(ring.guard.is_taken(role), Ok(true));
    let producers: Vec<u32> = (0..ring.lanes())
        .filter(|&lane| taken(Role::Producer { lane }))
        .map(|lane| inspect::pid_of(ring, Role::Producer { lane }))
        .collect();
    let consumer = taken(Role::Consumer).then(|| inspect::pid_of(ring, Role::Consumer));
    if !producers.is_empty() || consumer.is_some() || left.is_zero() {
        return Some(RemoveError::InUse {
            name: ring.address.to_string(),
            producers,
            consumer,
        });
    }
    // No process is attached (any more). If another remover is in the way, wait for its result.
    let _ = ring.guard.await_no_removal(left);
    None
}

/// Removes the ring at an address. Refuses while a process is attached.
pub(crate) fn remove_unless_used(address: &Address) -> Result<(), RemoveError> {
    let removed = remove_unused(address);
    sweep_if_gone(address, &removed);
    removed
}

/// A remover that was killed after it removed the name of a file may have left the pipes.
pub(super) fn sweep_if_gone<T>(address: &Address, removed: &Result<T, RemoveError>) {
    if let Err(RemoveError::Open(OpenError::NotFound { .. })) = removed
        && let Ok(Place::File(path)) = address.place()
    {
        sweep_beside(&path);
    }
}

fn remove_unused(address: &Address) -> Result<(), RemoveError> {
    let end = clock::now() + REMOVER_TIMEOUT;
    loop {
        let ring = open(address, Access::ReadWrite)?;
        if remove_idle(&ring, false, || true)? != RemoveOutcome::InUse {
            return Ok(());
        }
        if let Some(error) = users(&ring, end) {
            return Err(error);
        }
    }
}

/// True if a message was published and not released, on any lane.
pub(crate) fn has_unread(ring: &RingCore) -> bool {
    let geometry = ring.superblock.geometry;
    (0..ring.lanes())
        .any(|lane| inspect::unread(&ring.object, &ring.view, geometry, lane).messages > 0)
}

/// True if the last consumer closed the ring, no other has followed, and no producer has attached
/// since: the unread messages were refused.
pub(crate) fn consumer_left_on_purpose(ring: &RingCore) -> bool {
    let page = ring.view.consumer();
    page.flags.load(Ordering::Acquire) != 0
        && page.refused.load(Ordering::Relaxed) == attach::attachments(ring)
}

pub(super) fn unlink_error(name: &str, error: MemoryError) -> RemoveError {
    match error {
        MemoryError::Denied(source) => RemoveError::Permission {
            name: name.to_owned(),
            source,
        },
        other => RemoveError::Open(memory_error(name, other)),
    }
}

/// A refusal of a call on a semaphore set.
pub(super) fn sysv_error(name: &str, error: crate::os::sysv::Error) -> RemoveError {
    let name = name.to_owned();
    if error.permission_denied() {
        RemoveError::Permission {
            name,
            source: error.into(),
        }
    } else {
        RemoveError::Os {
            name,
            call: error.call(),
            source: error.into(),
        }
    }
}

pub(super) fn guard_error(ring: &RingCore, error: GuardError) -> RemoveError {
    let name = ring.address.to_string();
    match error {
        GuardError::Removed => RemoveError::Open(OpenError::NotFound { name }),
        GuardError::Os {
            errno: errno @ (EPERM | EACCES),
            ..
        } => RemoveError::Permission {
            name,
            source: std::io::Error::from_raw_os_error(errno),
        },
        GuardError::Os { call, errno } => RemoveError::Os {
            name,
            call,
            source: std::io::Error::from_raw_os_error(errno),
        },
    }
}
