//! The consumer's view over all lanes: which message comes next, and when to release.
//!
//! Fairness: the merge stays on a lane until the lane is empty or a quarter of its capacity was taken
//! from it, then goes on to the next in order. So a lane with a message waits for at most a quarter lap,
//! and the record that completes it, of each other lane. When the merge leaves a lane, the messages
//! taken from it are released.
//!
//! With more than [`FEW`] lanes most are idle most of the time, and a look at an idle lane is expensive: the
//! lanes' headers often share one set of the cache. So the merge polls the lanes that had a message recently,
//! and all of them once in [`TURNS_PER_SWEEP`] turns or [`BYTES_PER_SWEEP`], whichever comes first, and
//! before it reports that there is nothing. A lane that becomes active then waits for at most that many turns
//! or bytes more, and the current turn. None of this is in shared memory: a hint written by producers would
//! cost each of them a contended cache line.

use super::Damage;
use super::consume::{Found, LaneConsumer};
use crate::layout::{Capacity, MAX_LANES, Position};

/// Up to this many lanes, every look covers all of them.
const FEW: usize = 16;
/// With more lanes, this many changes of lane pass between two sweeps over all of them.
const TURNS_PER_SWEEP: u32 = 32;
/// And at most this many bytes, or the end of the turn in which they are reached: with large lanes a turn
/// is long. Compared with copying this many bytes a sweep costs nothing.
const BYTES_PER_SWEEP: u64 = 64 << 10;

/// A message found on a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    pub(crate) lane: usize,
    pub(crate) found: Found,
    /// The lane that the merge left: its messages are to be released.
    pub(crate) left: Option<usize>,
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
    /// Bytes taken of the current lane in this turn are this number plus the bytes read from `since` on (see
    /// [`taken_from_current`](Self::taken_from_current)).
    taken_before: u64,
    since: Position,
    quarter: u64,
    /// The lanes that had a message recently; not used for few lanes.
    recent: Recent,
}

/// Lanes to be polled.
#[derive(Default)]
struct Recent {
    worth: LaneSet,
    /// Lanes that had a message since the last sweep.
    found: LaneSet,
    turns: u32,
    bytes: u64,
}

/// A set of lanes, in order.
#[derive(Clone, Copy, Default)]
struct LaneSet([u64; MAX_LANES.div_ceil(64)]);

impl LaneSet {
    fn insert(&mut self, lane: usize) {
        self.0[lane / 64] |= 1 << (lane % 64);
    }

    /// The first one of `from..end`.
    fn first_in(&self, from: usize, end: usize) -> Option<usize> {
        let mut lane = from;
        while lane < end {
            let rest = self.0[lane / 64] >> (lane % 64);
            if rest != 0 {
                let first = lane + rest.trailing_zeros() as usize;
                return (first < end).then_some(first);
            }
            lane = (lane / 64 + 1) * 64;
        }
        None
    }
}

impl Merge {
    pub(crate) fn new(lanes: Vec<LaneConsumer>, capacity: Capacity) -> Self {
        let since = lanes[0].position();
        Self {
            lanes,
            current: 0,
            taken_before: 0,
            since,
            quarter: capacity.quarter(),
            recent: Recent::default(),
        }
    }

    pub(crate) fn lanes(&self) -> &[LaneConsumer] {
        &self.lanes
    }

    #[inline(always)]
    pub(crate) fn lane_mut(&mut self, lane: usize) -> &mut LaneConsumer {
        &mut self.lanes[lane]
    }

    /// The lane of the message that was found last.
    #[inline(always)]
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The current lane, to be looked at.
    #[inline(always)]
    pub(crate) fn current_lane(&self) -> &LaneConsumer {
        &self.lanes[self.current]
    }

    /// The current lane: that of the message that was found last.
    #[inline(always)]
    pub(crate) fn current_mut(&mut self) -> &mut LaneConsumer {
        &mut self.lanes[self.current]
    }

    /// The fast path: the next message of the current lane, if its turn lasts that long. After `None` the
    /// caller calls [`find`](Self::find), which opens the fast path again.
    #[inline(always)]
    pub(crate) fn load_header(&self) -> Option<Found> {
        self.lanes[self.current].load_header()
    }

    /// Bytes taken of the current lane in this turn, including padding and messages that were
    /// stepped back over.
    fn taken_from_current(&self) -> u64 {
        let read = self.lanes[self.current].position();
        self.taken_before + read.distance_from(self.since)
    }

    /// Returns a message of the current lane, and opens the lane's fast path until the end of its turn: if the message is
    /// one of an array, behind that.
    fn found(&mut self, found: Found, left: Option<usize>) -> Next {
        let at_most = if self.lanes.len() == 1 {
            u64::MAX
        } else {
            self.quarter.saturating_sub(self.taken_from_current())
        };
        let lane = self.current;
        self.lanes[lane].open_fast_path(at_most);
        Next { lane, found, left }
    }

    /// The next message; looks at every lane before it reports that there is none.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Next>, LaneDamage> {
        let lane = self.current;
        if self.lanes.len() == 1 || self.taken_from_current() < self.quarter {
            match self.lanes[lane].find() {
                Ok(Some(found)) => {
                    return Ok(Some(self.found(found, None)));
                }
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
        if self.lanes.len() > FEW {
            return self.find_among_many();
        }
        for step in 1..=self.lanes.len() {
            let lane = (self.current + step) % self.lanes.len();
            if let Some(next) = self.turn_to(lane)? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    fn find_among_many(&mut self) -> Result<Option<Next>, LaneDamage> {
        self.recent.turns += 1;
        self.recent.bytes = self.recent.bytes.saturating_add(self.taken_from_current());
        if self.recent.turns < TURNS_PER_SWEEP
            && self.recent.bytes < BYTES_PER_SWEEP
            && let Some(next) = self.find_among_recent()?
        {
            return Ok(Some(next));
        }
        self.recent.turns = 0;
        self.recent.bytes = 0;
        self.recent.worth = std::mem::take(&mut self.recent.found);
        // A message on the current lane is not counted anywhere else.
        self.recent.worth.insert(self.current);
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.is_ready() {
                self.recent.worth.insert(index);
            }
        }
        self.find_among_recent()
    }

    fn find_among_recent(&mut self) -> Result<Option<Next>, LaneDamage> {
        let worth = self.recent.worth;
        let here = self.current;
        for (from, end) in [(here + 1, self.lanes.len()), (0, here + 1)] {
            let mut from = from;
            while let Some(lane) = worth.first_in(from, end) {
                if let Some(next) = self.turn_to(lane)? {
                    self.recent.found.insert(lane);
                    return Ok(Some(next));
                }
                from = lane + 1;
            }
        }
        Ok(None)
    }

    /// The next message of this lane; if there is one, the lane's turn begins.
    fn turn_to(&mut self, lane: usize) -> Result<Option<Next>, LaneDamage> {
        let found = self.lanes[lane].find();
        self.turn_with(lane, found)
    }

    fn turn_with(
        &mut self,
        lane: usize,
        found: Result<Option<Found>, Damage>,
    ) -> Result<Option<Next>, LaneDamage> {
        match found {
            Ok(Some(found)) => {
                let left = (self.current != lane).then_some(self.current);
                self.current = lane;
                self.taken_before = 0;
                // Of a message of an array: where the array begins.
                self.since = self.lanes[lane].position();
                Ok(Some(self.found(found, left)))
            }
            Ok(None) => Ok(None),
            Err(Damage { position }) => Err(LaneDamage { lane, position }),
        }
    }

    /// The next message of this lane, whichever lane has its turn; none where the producer of the last one can't go on
    /// with it.
    pub(crate) fn find_on(&mut self, lane: usize) -> Result<Option<Next>, LaneDamage> {
        let found = self.lanes[lane].find_before_cut();
        if lane != self.current {
            return self.turn_with(lane, found);
        }
        match found {
            Ok(found) => Ok(found.map(|found| self.found(found, None))),
            Err(Damage { position }) => Err(LaneDamage { lane, position }),
        }
    }

    /// True if any lane has a message: a complete look that changes nothing.
    pub(crate) fn is_ready(&self) -> bool {
        self.lanes.iter().any(LaneConsumer::is_ready)
    }

    /// The same, but of many lanes only those that had a message recently.
    pub(crate) fn is_ready_lately(&self) -> bool {
        if self.lanes.len() <= FEW {
            return self.is_ready();
        }
        let mut from = 0;
        while let Some(lane) = self.recent.worth.first_in(from, self.lanes.len()) {
            if self.lanes[lane].is_ready() {
                return true;
            }
            from = lane + 1;
        }
        false
    }

    /// Goes back on one lane to a message that was found but not taken: see
    /// [`LaneConsumer::step_back_to`].
    pub(crate) fn step_back_to(
        &mut self,
        lane: usize,
        position: Position,
    ) -> Result<(), LaneDamage> {
        // As in `step_back`.
        self.taken_before = self.taken_from_current();
        let result = self.lanes[lane].step_back_to(position);
        self.since = self.lanes[self.current].position();
        result.map_err(|Damage { position }| LaneDamage { lane, position })
    }

    /// Steps back on every lane over the messages that were found but not taken.
    pub(crate) fn step_back(&mut self) {
        // A lane whose messages are put back again and again must not keep the others waiting.
        self.taken_before = self.taken_from_current();
        for lane in &mut self.lanes {
            lane.step_back();
        }
        self.since = self.lanes[self.current].position();
    }
}
