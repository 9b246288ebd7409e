//! Several messages received and released together.

use std::ops::RangeInclusive;

use super::core::ConsumerCore;
use super::message::MessageRef;
use crate::layout::Position;
use crate::lifecycle::UnwindMark;
use crate::ring::merge::Next;

/// Several messages that are received together and released together.
///
/// Until the batch is dropped, a killed consumer's successor gets all of them again. Dropping the batch gives the
/// room of its messages back to their producers (on the lane where it ended, that of less than a quarter of the
/// capacity may follow later, as with single messages).
///
/// A batch that is dropped by a panic is not released: its messages are delivered again.
/// [`release`](Self::release) releases them in any case. A batch that was received while the thread was
/// already unwinding (in a destructor) is released by dropping it, as usual.
#[derive(Debug)]
#[must_use = "a batch that is dropped at once releases nothing"]
pub struct RecvBatch<'a> {
    core: &'a mut ConsumerCore,
    /// The lanes between which the messages came.
    first: usize,
    last: usize,
    mark: UnwindMark,
}

impl<'a> RecvBatch<'a> {
    pub(super) fn new(core: &'a mut ConsumerCore) -> Self {
        core.begin_batch();
        let here = core.current();
        Self {
            core,
            first: here,
            last: here,
            mark: UnwindMark::now(),
        }
    }

    fn lanes(&self) -> RangeInclusive<usize> {
        self.first..=self.last
    }

    /// The next message that is available now, or `None`.
    ///
    /// A corrupt lane found here is reported by the consumer's next call.
    #[inline(always)]
    pub fn next_message(&mut self) -> Option<MessageRef<'_>> {
        // Read before the header: nothing is known any more after a load that acquires.
        let lane = self.core.current();
        if let Some(found) = self.core.load_header_for_batch() {
            return Some(self.core.step_over_record(lane, found));
        }
        self.find_and_step()
    }

    /// The same with all steps that it may need.
    #[inline(never)]
    fn find_and_step(&mut self) -> Option<MessageRef<'_>> {
        let Next { lane, found, .. } = self.find()?;
        Some(self.core.step_over(lane, found))
    }

    /// The next message, perhaps of another lane.
    fn find(&mut self) -> Option<Next> {
        let next = self.core.find_for_batch()?;
        self.first = self.first.min(next.lane);
        self.last = self.last.max(next.lane);
        Some(next)
    }

    /// The number of messages taken out so far.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.core.stepped(self.lanes())
    }

    /// Releases all messages that were handed out, as dropping does; also while a panic unwinds the thread.
    pub fn release(mut self) {
        self.end();
        // Ended already.
        std::mem::forget(self);
    }

    fn end(&mut self) {
        // Nothing was taken out, except possibly padding.
        if self.messages() == 0 {
            self.core.abandon_batch(self.lanes());
        } else {
            self.core.end_batch(self.lanes());
        }
    }

    /// Puts back the message at this position of this lane, and all later ones of the lane.
    ///
    /// The consumer's next calls deliver them again. Does nothing if the batch took none from the lane.
    ///
    /// For a transfer that failed half-way: the messages that were passed on are released with the
    /// batch, the rest is delivered again.
    pub fn put_back_from(&mut self, lane: usize, position: Position) {
        // In a forked child the pages are not there.
        let is_forked = self
            .core
            .merge
            .lanes()
            .first()
            .is_some_and(|lane| lane.view().is_forked());
        if !is_forked && self.lanes().contains(&lane) {
            let stepped_back = self.core.merge.step_back_to(lane, position);
            if let Err(damage) = stepped_back {
                self.core.record_damage(damage);
            }
        }
    }

    /// Puts back all messages taken out: the consumer's next calls deliver them again.
    pub fn put_back(self) {
        self.core.abandon_batch(self.lanes());
        // Ended already.
        std::mem::forget(self);
    }
}

impl Drop for RecvBatch<'_> {
    fn drop(&mut self) {
        if self.mark.is_interrupted() {
            self.core.abandon_batch(self.lanes());
        } else {
            self.end();
        }
    }
}
