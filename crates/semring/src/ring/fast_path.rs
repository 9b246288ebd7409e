//! The fast path of one half of a lane: the stretch of positions in which a message needs one comparison.
//!
//! ```text
//!   tail (or read)                     limit
//!  ──────┼──── messages pass ───────────┼──── the slow path decides ────→ positions
//! ```
//! Whoever [opens](FastPath::open) it has answered every question for all messages that end before the limit: a
//! producer, whether there is room before the end of the data area; a consumer, whether a header may be trusted. So
//! the fast path asks only whether the message is shorter than the distance to the limit. It needs no closing: the
//! half's own position reaches the limit. [`close`](FastPath::close) is for a half whose position jumps.
//!
//! What else a handle may have to do first (report an error, check its peer) does not belong to a lane. That is in
//! `channel::pending`, which the callers of the fast path look at.

use crate::layout::record::shorter_fit;
use crate::layout::{Capacity, Position};

/// Where the fast path ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct FastPath {
    limit: Position,
}

impl FastPath {
    /// Closed for a half that stands here.
    pub(super) fn closed_at(position: Position) -> Self {
        Self { limit: position }
    }

    /// Opens it from here on for messages whose records take no more than `free` bytes altogether, up to the end of
    /// the data area.
    pub(super) fn open(&mut self, from: Position, capacity: Capacity, free: u64) {
        self.limit = from.advance(shorter_fit(from, capacity, free));
    }

    /// A message at `position` passes if its payload has fewer bytes than this. Not above 0: none passes.
    #[inline(always)]
    pub(super) fn passes_below(self, position: Position) -> i64 {
        self.limit.ahead_of(position)
    }

    /// Closes it for a half that stands here now.
    pub(super) fn close(&mut self, position: Position) {
        self.limit = position;
    }
}
