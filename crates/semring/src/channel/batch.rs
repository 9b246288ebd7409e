//! Several messages received and released together.

use std::ops::RangeInclusive;

use super::consumer::ConsumerCore;
use super::message::View;

/// Messages that are released together, each lane with one store. Dropping it releases all that was taken
/// out (but on the lane that it ended on, less than a quarter lap may wait for what follows, as after
/// single messages), except while panicking: then they are delivered again.
#[derive(Debug)]
pub struct Batch<'a> {
    core: &'a mut ConsumerCore,
    /// The lanes between which the messages came.
    first: usize,
    last: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(core: &'a mut ConsumerCore) -> Self {
        let here = core.current();
        Self {
            core,
            first: here,
            last: here,
        }
    }

    fn lanes(&self) -> RangeInclusive<usize> {
        self.first..=self.last
    }

    /// The next message that is there now. `None` when there is none left; damage met on the way is
    /// reported by the consumer's next call.
    #[inline]
    pub fn next_message(&mut self) -> Option<BatchMessage<'_>> {
        // Twice, so that the compiler knows in the first case which lane it is.
        let core = &mut *self.core;
        let lane = core.current();
        if let Some(found) = core.glance_for_batch() {
            let view = core.step(lane, found);
            return Some(BatchMessage { view });
        }
        let found = core.find_for_batch()?;
        // Perhaps of another lane.
        let lane = core.current();
        self.first = self.first.min(lane);
        self.last = self.last.max(lane);
        let view = core.step(lane, found);
        Some(BatchMessage { view })
    }

    /// Messages taken out so far.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.core.stepped(self.lanes())
    }

    /// Releases everything taken out, as dropping does.
    pub fn release(self) {}

    /// Puts everything taken out back: the consumer's next calls deliver it again.
    pub fn put_back(self) {
        self.core.put_batch_back();
        // Ended already.
        std::mem::forget(self);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // Nothing was taken out: pads at most.
        if std::thread::panicking() || self.messages() == 0 {
            self.core.put_batch_back();
        } else {
            self.core.end_batch(self.lanes());
        }
    }
}

/// One message of a [`Batch`].
#[derive(Debug)]
pub struct BatchMessage<'a> {
    view: View<'a>,
}

impl<'a> std::ops::Deref for BatchMessage<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}
