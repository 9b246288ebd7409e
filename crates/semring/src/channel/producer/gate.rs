//! The fast path of a producer: its lane, together with what is pending.
//!
//! *Opening*: the slow path calls [`open_fast_path`](Gate::open_fast_path) when it has found a slot. The fast path
//! reaches up to the position to which there is certainly room and no check of the consumer is due.
//!
//! *Closing*: the tail reaches that limit; or a condition arises, such as an error to be reported or an earlier check.
//! The conditions can be changed only through [`change`](Gate::change), which closes the fast path.

use super::liveness::{PeerProgress, ProducerConditions};
use crate::channel::pending::Pending;
use crate::ring::produce::{LaneProducer, Slot};

pub(super) struct Gate {
    pub(super) lane: LaneProducer,
    pending: Pending<ProducerConditions>,
}

impl Gate {
    pub(super) fn new(lane: LaneProducer) -> Self {
        let progress = PeerProgress::new(lane.tail(), lane.last_released(), lane.capacity());
        Self {
            lane,
            pending: Pending::new(ProducerConditions::new(progress)),
        }
    }

    /// A place for a single message, if there is nothing else to do.
    #[inline(always)]
    pub(super) fn fast_slot(&self, len: usize) -> Option<Slot> {
        if self.pending.is_batch_open() {
            return None;
        }
        self.fast_slot_in_batch(len)
    }

    /// A place for a message of the open batch, if there is nothing else to do: while something is pending the lane's
    /// fast path is closed.
    #[inline(always)]
    pub(super) fn fast_slot_in_batch(&self, len: usize) -> Option<Slot> {
        self.lane.fast_slot(len)
    }

    /// A place for an array, if there is nothing else to do.
    #[inline(always)]
    pub(super) fn fast_array_slot(&self, payload: usize) -> Option<Slot> {
        if self.pending.is_batch_open() {
            return None;
        }
        self.lane.fast_array_slot(payload)
    }

    pub(super) fn pending(&self) -> &Pending<ProducerConditions> {
        &self.pending
    }

    /// The one way to change the conditions.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut ProducerConditions) -> R) -> R {
        let result = self.pending.change(change);
        if self.pending.any() {
            self.lane.close_fast_path();
        }
        result
    }

    /// The one place where the fast path opens.
    pub(super) fn open_fast_path(&mut self) {
        self.pending.change(ProducerConditions::limit_is_right);
        if !self.pending.any() {
            let until_check = self.pending.until_check(self.lane.tail());
            self.lane.open_fast_path(until_check);
        }
    }

    pub(super) fn begin_batch(&mut self) {
        self.pending.begin_batch();
    }

    pub(super) fn end_batch(&mut self) {
        self.pending.end_batch();
    }
}
