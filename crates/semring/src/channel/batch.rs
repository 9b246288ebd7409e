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
    messages: usize,
    /// The lanes between which the messages came, and the one that the last came from.
    lanes: Option<(RangeInclusive<usize>, usize)>,
    put_back: bool,
}

impl<'a> Batch<'a> {
    pub(super) fn new(core: &'a mut ConsumerCore) -> Self {
        Self {
            core,
            messages: 0,
            lanes: None,
            put_back: false,
        }
    }

    /// The next message that is there now. `None` when there is none left; damage met on the way is
    /// reported by the consumer's next call.
    #[inline]
    pub fn next_message(&mut self) -> Option<BatchMessage<'_>> {
        let next = self.core.step()?;
        self.messages += 1;
        match &mut self.lanes {
            Some((_, last)) if *last == next.lane => {}
            Some((lanes, last)) => {
                *lanes = next.lane.min(*lanes.start())..=next.lane.max(*lanes.end());
                *last = next.lane;
            }
            none => *none = Some((next.lane..=next.lane, next.lane)),
        }
        Some(BatchMessage {
            view: View::new(self.core.view(next.lane), next, self.core.habits),
        })
    }

    /// Messages taken out so far.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Releases everything taken out, as dropping does.
    pub fn release(self) {}

    /// Puts everything taken out back: the consumer's next calls deliver it again.
    pub fn put_back(mut self) {
        self.put_back = true;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.put_back || std::thread::panicking() {
            self.core.put_batch_back();
        } else if let Some((lanes, last)) = self.lanes.take() {
            self.core.end_batch(lanes, last);
        } else {
            // Nothing was taken out; pads at most.
            self.core.put_batch_back();
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
