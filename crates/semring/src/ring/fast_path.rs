//! The fast path of one half of a lane: a range of positions in which a message needs one comparison.
//!
//! ```text
//!   tail (or read)                     limit
//!  ──────┼──── messages pass ───────────┼──── the slow path decides ────→ positions
//! ```
//! When the fast path is [opened](FastPath::open), every condition was checked for all messages that end before the
//! limit: for a producer, that there is room before the end of the data area; for a consumer, that the headers may
//! be trusted. So the fast path only compares the length of the message with the distance to the limit. It needs no
//! closing: the half's own position reaches the limit. [`close`](FastPath::close) is for a half whose position
//! jumps.
//!
//! Other things that a handle may have to do first (report an error, check its peer) do not belong to a lane. They
//! are in `channel::pending`, which the callers of the fast path check.

use crate::layout::record::shorter_fit;
use crate::layout::{Capacity, Position};

/// The end of the fast path.
#[derive(Clone, Copy, Debug)]
pub(super) struct FastPath {
    limit: Position,
}

impl FastPath {
    /// Closed, for a half at this position.
    pub(super) fn closed_at(position: Position) -> Self {
        Self { limit: position }
    }

    /// Opens it from this position on for messages whose records take no more than `free` bytes together, up to the
    /// end of the data area.
    pub(super) fn open(&mut self, from: Position, capacity: Capacity, free: u64) {
        self.limit = from.advance(shorter_fit(from, capacity, free));
    }

    /// A message at `position` passes if its payload has fewer bytes than this. If this is not above 0,
    /// none passes.
    #[inline(always)]
    pub(super) fn passes_below(self, position: Position) -> i64 {
        self.limit.ahead_of(position)
    }

    /// Closes it, for a half at this position.
    pub(super) fn close(&mut self, position: Position) {
        self.limit = position;
    }
}
