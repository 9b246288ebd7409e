//! A ring whose memory was taken away: somebody truncated the file under its users.
//!
//! Who touches a page that is missing goes on with zeros in the place of the whole ring, of its own and seen
//! by nobody else, and with a sentinel that says so ([`Segment::is_torn`](crate::memory::Segment::is_torn)).
//! From then on each call ends with `Removed`:
//! * The data path looks at the sentinel anyway, for the forked child.
//! * Zeros are no message: a header of 0 is not published. So zeros can't be received; what may come of
//!   them is only that there is nothing, that nobody is there, or damage. All three are believed after
//!   [`RingCore::check`] only, and nobody sleeps without having asked it after the last look.
//! * Bytes of a message that was found are asked for after they were copied.
//!
//! Those who sleep touch nothing. So the first one who notices takes the semaphores away, as a forced removal
//! does; who sleeps in them is awake at once.

use std::time::Duration;

use super::RingCore;
use crate::error::OpenError;
use crate::guard::WakeTarget;

/// What is left of the ring for who wants to look at it or to remove it.
pub(super) fn error(name: &str) -> OpenError {
    OpenError::NotARing {
        name: name.to_owned(),
        what: "it was truncated".to_owned(),
    }
}

/// Lets the others know.
pub(super) fn tell(ring: &RingCore) {
    let needed = ring.superblock.geometry.segment_bytes() as u64;
    // A page can be missing for other reasons: a disk that fails. Then it is our trouble alone.
    let is_short = ring.object.len().is_ok_and(|len| len < needed);
    if !is_short {
        return;
    }
    // A remover that is at work ends everybody as well.
    if matches!(ring.guard.begin_forced_removal(Duration::ZERO), Ok(true)) {
        if ring.guard.destroy().is_ok() {
            return;
        }
        let _ = ring.guard.abort_removal();
    }
    // The semaphores are another user's. Whoever sleeps looks, and finds out.
    let _ = ring.guard.post(WakeTarget::Consumer);
    for lane in 0..ring.lanes() {
        let _ = ring.guard.post(WakeTarget::Producer { lane });
    }
}
