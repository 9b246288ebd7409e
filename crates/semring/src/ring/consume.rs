//! The consumer's half of a lane: find the next message, take it, release what was taken.
//!
//! The consumer's position is its own and lives in its own memory; of what the producer wrote it
//! believes nothing but one header word at a time, read once and checked.

use super::Damage;
use crate::layout::record::{MessageHeader, Record, decode, shorter_fit};
use crate::layout::view::LaneView;
use crate::layout::{Capacity, Position};
use crate::sync::{Ordering, Twin, weakened};

/// A published message that was found but not yet taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Of the message's header.
    pub(crate) position: Position,
    pub(crate) header: MessageHeader,
}

/// The consumer's half of a lane.
pub(crate) struct LaneConsumer {
    lane: LaneView,
    capacity: Capacity,
    /// The next header to look at.
    read: Position,
    /// Everything before it may be released.
    taken: Position,
    /// `released` as last stored.
    released: Position,
    /// No sound lane has a message behind this position, as far as was known when it was last asked.
    horizon: Position,
    /// A message shorter than this many bytes is one that needs no other question: see
    /// [`glance`](Self::glance).
    quick: u64,
    /// Messages between `read` and the beginning, between `taken` and the beginning.
    read_messages: u64,
    taken_messages: u64,
    /// Where impossible bytes were found: nothing from there on is looked at.
    poisoned: Option<Position>,
}

impl LaneConsumer {
    /// Begins where the predecessor released last.
    pub(crate) fn take_over(lane: LaneView) -> Result<Self, Damage> {
        let capacity = lane.capacity();
        let start = Position::new(lane.consumer().released.load(Ordering::Acquire));
        let committed = Position::new(lane.producer().committed.load(Ordering::Acquire));
        // `committed` may be behind by a batch whose producer was killed, or far ahead by now.
        let ahead = committed.distance_from(start);
        let behind = start.distance_from(committed);
        if !start.is_aligned() || ahead.min(behind) > capacity.get() {
            return Err(Damage { position: start });
        }
        let messages = lane.consumer().received.load(Ordering::Relaxed);
        // Sound as far as this consumer knows.
        lane.consumer().poisoned.store(0, Ordering::Relaxed);
        Ok(Self {
            lane,
            capacity,
            read: start,
            taken: start,
            released: start,
            horizon: start,
            quick: 0,
            read_messages: messages,
            taken_messages: messages,
            poisoned: None,
        })
    }

    /// A lane whose control words are impossible: it is skipped for good, and says so to its producer.
    pub(crate) fn poisoned(lane: LaneView, damage: Damage) -> Self {
        let capacity = lane.capacity();
        note_poison(&lane, damage.position);
        let start = Position::new(0);
        Self {
            lane,
            capacity,
            read: start,
            taken: start,
            released: start,
            horizon: start,
            quick: 0,
            read_messages: 0,
            taken_messages: 0,
            poisoned: Some(start),
        }
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Messages before the impossible bytes come again after a step back; what is behind them never comes.
    #[inline(always)]
    fn is_at_poison(&self) -> bool {
        self.poisoned.is_some_and(|at| self.read.has_reached(at))
    }

    /// Position of the next header.
    #[cfg(test)]
    pub(crate) fn position(&self) -> Position {
        self.read
    }

    /// Messages taken on this lane, those of predecessors included.
    pub(crate) fn taken_messages(&self) -> u64 {
        self.taken_messages
    }

    /// The next message, if it is there and in the stretch that was [looked over](Self::look_ahead). What a
    /// consumer that is kept busy nearly always asks; `None` says to ask [`find`](Self::find).
    #[inline(always)]
    pub(crate) fn glance(&self) -> Option<Found> {
        // E1: if it is published, its payload is there.
        let word = self.lane.header(self.read).load(Ordering::Acquire);
        let header = MessageHeader::check_short(word, self.quick)?;
        Some(Found {
            position: self.read,
            header,
        })
    }

    /// Looks over the bytes up to the horizon, the end of the data area and whatever was damaged, and at most
    /// this many, so that one comparison lets a message through. At most a quarter of the capacity: nothing
    /// longer is a message.
    pub(crate) fn look_ahead(&mut self, at_most: u64) {
        let until = |end: Position| {
            if self.read.has_reached(end) {
                0
            } else {
                end.distance_from(self.read)
            }
        };
        let free = until(self.horizon)
            .min(self.poisoned.map_or(u64::MAX, until))
            .min(at_most);
        self.quick = shorter_fit(self.read, self.capacity, free);
    }

    /// Whether the records of this lane were longer than so many bytes on the average, since it was made.
    pub(crate) fn mean_record_is_longer_than(&self, bytes: u64) -> bool {
        self.read.get() > self.read_messages.saturating_mul(bytes)
    }

    /// Has the CPU fetch the cache line so many bytes behind the next header. A hint: nothing is read.
    #[inline]
    pub(crate) fn prefetch(&self, behind: u64) {
        self.lane.prefetch(self.read.advance(behind));
    }

    /// The next message is asked about.
    pub(crate) fn look_again(&mut self) {
        self.quick = 0;
    }

    /// Looks for the next message. A pad is stepped over. `Err` poisons the lane: it is reported once
    /// and is empty from then on.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Found>, Damage> {
        loop {
            // E1: if it is published, its payload is there.
            let word = self.lane.header(self.read).load(Ordering::Acquire);
            if word == 0 || self.is_at_poison() {
                return Ok(None);
            }
            match decode(word, self.read, self.capacity) {
                Ok(Record::Message { .. }) => {
                    if self.read.has_reached(self.horizon) {
                        self.look_further()?;
                    }
                    let header = MessageHeader::check(word, self.read, self.capacity);
                    return Ok(header.map(|header| Found {
                        position: self.read,
                        header,
                    }));
                }
                Ok(Record::Pad { bytes }) => {
                    // Nobody holds a pad: what was taken before it, it joins.
                    if self.taken == self.read {
                        self.taken = self.read.advance(bytes);
                    }
                    self.read = self.read.advance(bytes);
                    // What was looked over ended where it began.
                    self.look_again();
                }
                Ok(Record::Unpublished) => return Ok(None),
                Err(_) => return Err(self.poison()),
            }
        }
    }

    /// True if a message (or damage) is to be found: a look that changes nothing.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_at_poison() && self.lane.header(self.read).load(Ordering::Acquire) != 0
    }

    /// About once in a lap: moves the horizon. Without it a lane full of headers that lead from one to
    /// the next would have messages for ever.
    #[cold]
    fn look_further(&mut self) -> Result<(), Damage> {
        let capacity = self.capacity.get();
        // I3: what is published ends within a capacity of `committed`, also if a batch was published
        // and its producer has not come to K4. It was stored before the header that we just saw (E1).
        let committed = Position::new(self.lane.producer().committed.load(Ordering::Acquire));
        let behind = self.released.distance_from(committed);
        let ahead = committed.distance_from(self.released);
        let from_committed = match capacity.checked_sub(behind) {
            Some(rest) => rest,
            None if ahead <= capacity => capacity,
            None => 0,
        };
        // I2: and within a capacity of `released`.
        let reach = from_committed.min(capacity - 8);
        if self.read.distance_from(self.released) >= reach {
            return Err(self.poison());
        }
        self.horizon = self.released.advance(reach);
        Ok(())
    }

    #[cold]
    fn poison(&mut self) -> Damage {
        self.poisoned = Some(self.read);
        self.look_again();
        note_poison(&self.lane, self.read);
        Damage {
            position: self.read,
        }
    }

    /// Steps over a message that was found, without letting go of its bytes.
    #[inline]
    pub(crate) fn step_over(&mut self, found: &Found) {
        debug_assert_eq!(found.position, self.read);
        let bytes = found.header.bytes();
        self.read = self.read.advance(bytes);
        self.quick = self.quick.saturating_sub(bytes);
        // Wrapping: it began with a word of the segment.
        self.read_messages = self.read_messages.wrapping_add(1);
    }

    /// Lets go of everything stepped over; the store to the producer may come later.
    #[inline]
    pub(crate) fn take(&mut self) {
        self.taken = self.read;
        self.taken_messages = self.read_messages;
    }

    /// Goes back to what was let go of last: the messages stepped over since are found again.
    pub(crate) fn step_back(&mut self) {
        self.read = self.taken;
        self.read_messages = self.taken_messages;
        self.look_again();
    }

    /// Bytes taken and not yet released.
    #[inline]
    pub(crate) fn unreleased(&self) -> u64 {
        self.taken.distance_from(self.released)
    }

    /// Gives the bytes of everything taken back to the producer. False if there is nothing to give.
    /// After true, the producer's wait word must be looked at.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        if self.taken == self.released {
            return false;
        }
        let page = self.lane.consumer();
        page.received.store(self.taken_messages, Ordering::Relaxed);
        // E2: our reads of these bytes are done. Killed before: they are delivered again.
        let order = if weakened(Twin::RelaxedRelease) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        page.released.store(self.taken.get(), order);
        self.released = self.taken;
        true
    }
}

fn note_poison(lane: &LaneView, position: Position) {
    // Plus one, so that position 0 shows; never 0.
    let word = position.get().saturating_add(1);
    lane.consumer().poisoned.store(word, Ordering::Relaxed);
}
