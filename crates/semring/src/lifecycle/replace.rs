//! Replacing a ring that no producer has ever used, by a program that names other settings.
//!
//! ```text
//! 1 no producer attached, removal flag T up   killed: T falls, and the consumer is woken for nothing
//! 2 is it unused, auto-removed, the caller's?
//! 3 state REPLACED                            killed: likewise; the ring goes on, READY to all that open it
//! 4 the name goes                             killed: the consumer is woken, finds REPLACED and no name, and leaves
//! 5 the guard goes: all users get `Removed`
//! ```
//! The consumer may be attached: it gets `Replaced`, and opens the name again. No message is lost, because
//! none can be there: with T raised no process attaches, and no producer had attached before.
//!
//! `replace_model_tests` visits every interleaving of two newcomers and a consumer, with a kill at each step.

use super::remove::take_away_or_leave;
use super::{RingCore, attach};
use crate::error::RemoveError;
use crate::guard::GuardError;
use crate::layout::superblock::{STATE_READY, STATE_REPLACED};
use crate::os::process;
use crate::sync::Ordering;

/// What came of the attempt to replace a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replacement {
    /// It is gone: another one can be made.
    Gone,
    /// A producer is attaching, the consumer is in the way, or another process removes it: look again.
    Busy,
    /// It has been used, or is not to be replaced by this process.
    Kept,
}

/// Takes away a ring that was never used; with `also_waited_for` also if a consumer is attached.
pub(crate) fn replace_unused(
    ring: &RingCore,
    also_waited_for: bool,
) -> Result<Replacement, RemoveError> {
    if !may_be_replaced(ring) {
        return Ok(Replacement::Kept);
    }
    let (begun, abort): (_, fn(&RingCore) -> _) = if also_waited_for {
        let abort = |ring: &RingCore| ring.guard.abort_replacing();
        (ring.guard.begin_replacing(), abort)
    } else {
        let abort = |ring: &RingCore| ring.guard.abort_removal();
        (ring.guard.begin_removal(false), abort)
    };
    match begun {
        Ok(true) => {}
        Ok(false) => return Ok(Replacement::Busy),
        // Another process was faster.
        Err(GuardError::Removed) if ring.object.is_unlinked() => return Ok(Replacement::Gone),
        Err(GuardError::Removed) => return Ok(Replacement::Busy),
        Err(error) => return Err(super::remove::guard_error(ring, error)),
    }
    // A producer may have come and gone since the first look.
    let may_go = may_be_replaced(ring) && !ring.object.is_unlinked();
    if !may_go {
        abort(ring).map_err(|error| super::remove::guard_error(ring, error))?;
        return Ok(Replacement::Busy);
    }
    ring.view.state().store(STATE_REPLACED, Ordering::SeqCst);
    let result = take_away_or_leave(ring);
    if result.is_err() {
        ring.view.state().store(STATE_READY, Ordering::SeqCst);
    }
    result.map(|()| Replacement::Gone)
}

/// Whether the ring was never used, and this process may take it away without asking.
fn may_be_replaced(ring: &RingCore) -> bool {
    ring.superblock.auto_remove
        && !ring.object.goes_with_its_users()
        && attach::attachments(ring) == 0
        && !ring.view.segment().is_truncated()
        && ring
            .object
            .ownership()
            .is_ok_and(|owner| owner.uid == process::effective_uid())
}

/// True if another process has replaced the ring, or was killed while it did and the name is gone.
pub(crate) fn is_replaced(ring: &RingCore) -> bool {
    // Models have no superblock.
    !cfg!(semring_loom)
        && !ring.is_forked()
        && ring.view.state().load(Ordering::Acquire) == STATE_REPLACED
        && ring.object.is_unlinked()
}
