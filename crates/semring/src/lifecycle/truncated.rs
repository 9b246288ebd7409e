//! A ring whose file was truncated while it was in use.
//!
//! A process that touches a missing page goes on with zeros in the place of the whole ring, in private
//! memory, and with a marked mapping state ([`Segment::is_truncated`](crate::memory::Segment::is_truncated)). From then on
//! each call returns `Removed`:
//! * The data path checks the mapping state anyway, for forked children.
//! * A header of 0 is not published, so zeros can't be received as a message. Three results can come
//!   from zeros: that there is no message, that no process is attached, or impossible bytes. They are
//!   returned only after [`RingCore::check`], and no process sleeps unless it has called that after the
//!   last look.
//! * For a message that was found, the check comes after its bytes were copied.
//!
//! A sleeping process touches no page. So the first process that notices the truncation removes the guard, as
//! a forced removal does: all sleepers wake.

use std::time::Duration;

use super::RingCore;
use crate::error::OpenError;
use crate::guard::WakeTarget;

/// The error of inspecting or removing such a ring.
pub(super) fn error(name: &str) -> OpenError {
    OpenError::NotARing {
        name: name.to_owned(),
        what: "it was truncated".to_owned(),
    }
}

/// Makes the truncation known to the other users.
pub(super) fn tell(ring: &RingCore) {
    let needed = ring.superblock.geometry.segment_bytes() as u64;
    // A page can be missing for other reasons: a disk that fails. Then only this process is
    // affected.
    let is_short = ring.object.len().is_ok_and(|len| len < needed);
    if !is_short {
        return;
    }
    // A remover that is at work wakes all users as well.
    if matches!(ring.guard.begin_forced_removal(Duration::ZERO), Ok(true)) {
        if ring.guard.destroy().is_ok() {
            return;
        }
        let _ = ring.guard.abort_removal();
    }
    // The semaphores are another user's. A sleeper that is woken looks, and finds the truncation.
    let _ = ring.guard.post(WakeTarget::Consumer);
    for lane in 0..ring.lanes() {
        let _ = ring.guard.post(WakeTarget::Producer { lane });
    }
}
