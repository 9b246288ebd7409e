//! The consumer's view over all lanes: which message comes next, and when to release.
//!
//! Fairness: the merge stays on a lane until the lane is empty or a quarter of its capacity was
//! taken from it, then goes on to the next in order. So a lane with something in it waits for at most
//! a quarter lap, and the record that completes it, of each other lane. Leaving a lane releases what was taken from it.

use super::Damage;
use super::consume::{Found, LaneConsumer};
use crate::layout::{Capacity, Position};

/// A message found on a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) lane: usize,
    pub(crate) found: Found,
}

/// A lane with impossible bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LaneDamage {
    pub(crate) lane: usize,
    pub(crate) position: Position,
}

/// All lanes of a ring, read by one consumer.
pub(crate) struct Merge {
    lanes: Vec<LaneConsumer>,
    current: usize,
    /// Bytes taken since the merge came to the current lane.
    taken_here: u64,
    quarter: u64,
}

impl Merge {
    pub(crate) fn new(lanes: Vec<LaneConsumer>, capacity: Capacity) -> Self {
        assert!(!lanes.is_empty());
        Self {
            lanes,
            current: 0,
            taken_here: 0,
            quarter: capacity.quarter(),
        }
    }

    pub(crate) fn lanes(&self) -> &[LaneConsumer] {
        &self.lanes
    }

    pub(crate) fn lane(&self, lane: usize) -> &LaneConsumer {
        &self.lanes[lane]
    }

    /// The next message of the current lane, if that lane's turn is not over and nothing but a message
    /// is next; `None` says to ask [`find`](Self::find).
    #[inline(always)]
    pub(crate) fn glance(&self) -> Option<Next> {
        let lane = self.current;
        if self.taken_here >= self.quarter && self.lanes.len() != 1 {
            return None;
        }
        self.lanes[lane].glance().map(|found| Next { lane, found })
    }

    /// The next message; looks at every lane before it says that there is none.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Next>, LaneDamage> {
        let lane = self.current;
        if self.taken_here < self.quarter || self.lanes.len() == 1 {
            match self.lanes[lane].find() {
                Ok(Some(found)) => return Ok(Some(Next { lane, found })),
                Ok(None) => {}
                Err(Damage { position }) => return Err(LaneDamage { lane, position }),
            }
            if self.lanes.len() == 1 {
                return Ok(None);
            }
        }
        self.find_elsewhere()
    }

    fn find_elsewhere(&mut self) -> Result<Option<Next>, LaneDamage> {
        for step in 1..=self.lanes.len() {
            let lane = (self.current + step) % self.lanes.len();
            match self.lanes[lane].find() {
                Ok(Some(found)) => {
                    self.current = lane;
                    self.taken_here = 0;
                    return Ok(Some(Next { lane, found }));
                }
                Ok(None) => {}
                Err(Damage { position }) => return Err(LaneDamage { lane, position }),
            }
        }
        Ok(None)
    }

    /// True if any lane has something: a complete look that changes nothing.
    pub(crate) fn is_ready(&self) -> bool {
        self.lanes.iter().any(LaneConsumer::is_ready)
    }

    /// Steps over the message without letting go of its bytes.
    #[inline]
    pub(crate) fn step_over(&mut self, next: &Next) {
        let lane = &mut self.lanes[next.lane];
        let before = lane.position();
        lane.step_over(&next.found);
        self.taken_here += lane.position().distance_from(before);
    }

    /// Steps over a message and lets go of it; true as for [`take`](Self::take).
    #[inline(always)]
    pub(crate) fn take_one(&mut self, next: &Next) -> bool {
        let lane = &mut self.lanes[next.lane];
        lane.step_over(&next.found);
        self.taken_here += next.found.header.bytes();
        lane.take();
        lane.unreleased() >= self.quarter
    }

    /// Lets go of what was stepped over on one lane. True when a quarter of the capacity waits there
    /// to be released, or the lane's turn is over: the caller then releases it.
    #[inline]
    pub(crate) fn take(&mut self, lane: usize) -> bool {
        let lane = &mut self.lanes[lane];
        lane.take();
        lane.unreleased() >= self.quarter
    }

    /// Forgets what was stepped over on every lane since it was last let go of.
    pub(crate) fn step_back(&mut self) {
        for lane in &mut self.lanes {
            lane.step_back();
        }
    }

    /// Releases one lane; true if its producer's wait word must be looked at.
    #[inline]
    pub(crate) fn release(&mut self, lane: usize) -> bool {
        self.lanes[lane].release()
    }
}
