//! Giving back the bytes of a received message: everything that this needs beside the lane, to which the message
//! has the only reference.

use std::collections::VecDeque;

use super::end_of_stream::EndOfStream;
use super::message_wait::RoomWakers;
use crate::channel::options::HandleOptions;
use crate::channel::pending::{Conditions, Pending};
use crate::error::RecvError;
use crate::guard::GuardError;
use crate::lifecycle::{ConsumerRole, is_replaced};
use crate::ring::consume::LaneConsumer;
use crate::ring::merge::LaneDamage;

/// The pending conditions of a consumer.
#[derive(Debug, Default)]
pub(super) struct ConsumerConditions {
    /// An end to record; and without a message since the last end, the next one goes the slow path, too.
    pub(super) end: EndOfStream,
    /// Corrupt lanes that are not reported yet.
    pub(super) corrupt: VecDeque<LaneDamage>,
    /// The ring was removed.
    pub(super) removed: bool,
}

impl Conditions for ConsumerConditions {
    fn any(&self) -> bool {
        !self.end.is_quiet() || !self.corrupt.is_empty() || self.removed
    }
}

/// Everything of a consumer but its lanes, and how it waits for messages.
pub(super) struct Releaser {
    pub(super) room_wakers: RoomWakers,
    pub(super) role: ConsumerRole,
    pub(super) options: HandleOptions,
    pub(super) pending: Pending<ConsumerConditions>,
}

impl Releaser {
    /// Stores `released` for a lane.
    #[inline]
    pub(super) fn release(&mut self, lane: &mut LaneConsumer) -> Result<(), RecvError> {
        let released = self.room_wakers.release(lane, &self.role);
        released.map_err(|error| self.failed(error))
    }

    /// Completes the taking of a message that is dropped, and releases it if a quarter lap is due.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&mut self, lane: &mut LaneConsumer) {
        if lane.settle() {
            self.release_quietly(lane);
        }
    }

    /// The same for the messages of an array.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_array(&mut self, lane: &mut LaneConsumer) {
        if lane.settle_array() {
            self.release_quietly(lane);
        }
    }

    /// As [`release`](Self::release), for a message that is dropped.
    #[cold]
    #[inline(never)]
    pub(super) fn release_quietly(&mut self, lane: &mut LaneConsumer) {
        // That the ring was removed is reported by the next call.
        let _ = self.release(lane);
    }

    pub(super) fn failed(&mut self, error: GuardError) -> RecvError {
        if error == GuardError::Removed {
            self.pending.change(|pending| pending.removed = true);
            return self.removed();
        }
        RecvError::from(error)
    }

    /// What became of a ring that is gone.
    pub(super) fn removed(&self) -> RecvError {
        if is_replaced(self.role.ring()) {
            RecvError::Replaced
        } else {
            RecvError::Removed
        }
    }
}
