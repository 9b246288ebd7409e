//! The consumer's half of a lane: find the next message, take it, release what was taken.
//!
//! One message, from the call to the load that finds it:
//!
//! ```text
//! load_header()     one load, and one comparison with the limit of the fast path
//! find()            or the slow way: pads, impossible bytes, the end of what may be trusted
//! take_one(found)   the position moves on, in private memory
//! release()         now and then: the store that gives the bytes back
//! ```
//! [`open_fast_path`](LaneConsumer::open_fast_path) is the only function that opens the fast path;
//! [`jump`](LaneConsumer::jump) closes it, and so does corruption.
//!
//! The consumer's position is its own and lives in its own memory; of what the producer wrote it
//! believes nothing but one header word at a time, read once and checked.

use super::Damage;
use super::fast_path::FastPath;
use crate::layout::Position;
use crate::layout::record::{LINE, MessageHeader, Record, decode};
use crate::layout::view::LaneView;
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
    /// Which lane of the ring it is.
    number: u32,
    /// The next header to look at.
    read: Position,
    /// So many messages before it were stepped over and not let go of: a batch's.
    stepped_messages: u32,
    /// If there are any, everything before this may be released; if there are none, everything before `read`.
    stepped_from: Position,
    /// `released` as last stored.
    released: Position,
    /// Headers before this position may be trusted to be of this lap: no sound lane had published anything
    /// from here on when its control words were last read.
    trusted_end: Position,
    fast_path: FastPath,
    /// Messages let go of, those of predecessors included.
    taken_messages: u64,
    /// Where impossible bytes were found: nothing from there on is looked at.
    corrupt_at: Option<Position>,
}

// The merge finds a lane by its number: a shift.
#[cfg(not(semring_loom))]
const _: () = assert!(size_of::<LaneConsumer>() == 128);

impl LaneConsumer {
    /// Begins where the predecessor released last.
    pub(crate) fn take_over(lane: LaneView, number: usize) -> Result<Self, Damage> {
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
        lane.consumer().corrupt_at.store(0, Ordering::Relaxed);
        Ok(Self {
            lane,
            number: number as u32,
            read: start,
            stepped_messages: 0,
            stepped_from: start,
            released: start,
            trusted_end: start,
            fast_path: FastPath::closed_at(start),
            taken_messages: messages,
            corrupt_at: None,
        })
    }

    /// A lane whose control words are impossible: it is skipped for good, and says so to its producer.
    pub(crate) fn corrupt(lane: LaneView, number: usize, damage: Damage) -> Self {
        record_corruption(&lane, damage.position);
        let start = Position::new(0);
        Self {
            lane,
            number: number as u32,
            read: start,
            stepped_messages: 0,
            stepped_from: start,
            released: start,
            trusted_end: start,
            fast_path: FastPath::closed_at(start),
            taken_messages: 0,
            corrupt_at: Some(start),
        }
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    /// Which lane of the ring it is.
    pub(crate) fn number(&self) -> usize {
        self.number as usize
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt_at.is_some()
    }

    /// Messages before the impossible bytes come again after a step back; what is behind them never comes.
    #[inline(always)]
    fn is_at_corruption(&self) -> bool {
        self.corrupt_at.is_some_and(|at| self.read.has_reached(at))
    }

    /// Position of the next header.
    #[inline(always)]
    pub(crate) fn position(&self) -> Position {
        self.read
    }

    /// Messages taken on this lane, those of predecessors included.
    pub(crate) fn taken_messages(&self) -> u64 {
        self.taken_messages
    }

    /// Messages stepped over and not let go of.
    pub(crate) fn stepped_messages(&self) -> u64 {
        u64::from(self.stepped_messages)
    }

    /// Everything before it may be released.
    #[inline(always)]
    fn taken(&self) -> Position {
        if self.stepped_messages == 0 {
            self.read
        } else {
            self.stepped_from
        }
    }

    /// The next message, if it is there and lies before the limit of the fast path. `None`: there is none such, or
    /// the pages of the ring are not there. [`find`](Self::find) finds out.
    #[inline(always)]
    pub(crate) fn load_header(&self) -> Option<Found> {
        if !self.lane.is_intact() {
            return None;
        }
        // Both read once: nothing is known any more after a load that acquires.
        let (position, below) = (self.read, self.fast_path.passes_below(self.read));
        // E1: if it is published, its payload is there.
        let word = self.lane.header(position).load(Ordering::Acquire);
        let header = MessageHeader::decode_short(word, below)?;
        Some(Found { position, header })
    }

    /// Opens the fast path over the bytes before the end of what may be trusted, of the data area, and of what is
    /// sound, and at most this many.
    pub(crate) fn open_fast_path(&mut self, at_most: u64) {
        let until = |end: Position| {
            if self.read.has_reached(end) {
                0
            } else {
                end.distance_from(self.read)
            }
        };
        let free = until(self.trusted_end)
            .min(self.corrupt_at.map_or(u64::MAX, until))
            .min(at_most);
        self.fast_path.open(self.read, self.lane.capacity(), free);
    }

    /// The next header is here, without a message that was taken or stepped over in between.
    fn jump(&mut self, to: Position) {
        self.read = to;
        self.fast_path.close(to);
    }

    /// Whether the records of this lane were longer than a cache line on the average, since it was made.
    pub(crate) fn mean_record_is_longer_than_a_line(&self) -> bool {
        let messages = self
            .taken_messages
            .wrapping_add(u64::from(self.stepped_messages));
        self.read.get() > messages.saturating_mul(LINE)
    }

    /// Has the CPU fetch the cache line behind that of the next header, so that both are on their way at the same
    /// time. A hint: nothing is read.
    #[inline]
    pub(crate) fn prefetch_second_line(&self) {
        self.lane.prefetch(self.read.advance(LINE));
    }

    /// Looks for the next message. A pad is stepped over. `Err` marks the lane corrupt: it is reported once
    /// and is empty from then on.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Found>, Damage> {
        loop {
            // E1: if it is published, its payload is there.
            let word = self.lane.header(self.read).load(Ordering::Acquire);
            if word == 0 || self.is_at_corruption() {
                return Ok(None);
            }
            match decode(word, self.read, self.lane.capacity()) {
                Ok(Record::Message(header)) => {
                    if self.read.has_reached(self.trusted_end) {
                        self.extend_trusted_end()?;
                    }
                    return Ok(Some(Found {
                        position: self.read,
                        header,
                    }));
                }
                // No message holds a pad: if everything before it was taken, the pad is, too.
                Ok(Record::Pad { bytes }) => self.jump(self.read.advance(bytes)),
                Ok(Record::Unpublished) => return Ok(None),
                Err(_) => return Err(self.mark_corrupt()),
            }
        }
    }

    /// True if a message (or damage) is to be found: a look that changes nothing.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_at_corruption() && self.lane.header(self.read).load(Ordering::Acquire) != 0
    }

    /// About once in a lap. Without an end of what may be trusted, a lane full of headers that lead from one to the
    /// next would have messages for ever.
    #[cold]
    fn extend_trusted_end(&mut self) -> Result<(), Damage> {
        let capacity = self.lane.capacity().get();
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
            return Err(self.mark_corrupt());
        }
        self.trusted_end = self.released.advance(reach);
        Ok(())
    }

    #[cold]
    fn mark_corrupt(&mut self) -> Damage {
        self.corrupt_at = Some(self.read);
        self.fast_path.close(self.read);
        record_corruption(&self.lane, self.read);
        Damage {
            position: self.read,
        }
    }

    /// Steps over a message that was found, without letting go of its bytes.
    #[inline(always)]
    pub(crate) fn step_over(&mut self, found: &Found) {
        debug_assert_eq!(found.position, self.read);
        if self.stepped_messages == 0 {
            self.stepped_from = found.position;
        }
        self.stepped_messages += 1;
        self.read = found.position.advance(found.header.bytes());
    }

    /// Lets go of everything stepped over; the store to the producer may come later.
    #[inline]
    pub(crate) fn take(&mut self) {
        // Wrapping: it began with a word of the segment.
        let messages = std::mem::take(&mut self.stepped_messages);
        self.taken_messages = self.taken_messages.wrapping_add(u64::from(messages));
    }

    /// Both for a single message, on a lane of which nothing else is stepped over.
    #[inline(always)]
    pub(crate) fn take_one(&mut self, found: &Found) {
        debug_assert_eq!(found.position, self.read);
        debug_assert_eq!(self.stepped_messages, 0);
        self.read = found.position.advance(found.header.bytes());
        self.taken_messages = self.taken_messages.wrapping_add(1);
    }

    /// Goes back to what was let go of last: the messages stepped over since are found again.
    pub(crate) fn step_back(&mut self) {
        self.jump(self.taken());
        self.stepped_messages = 0;
    }

    /// Goes back to the message at this position, which was stepped over: it is found again, and so are those
    /// after it. The messages before it are walked through once more; if none of them ends there, nothing
    /// changes. `Err` marks the lane corrupt, as in [`find`](Self::find).
    pub(crate) fn step_back_to(&mut self, position: Position) -> Result<(), Damage> {
        let stepped = self.stepped_messages;
        self.step_back();
        while self.stepped_messages < stepped {
            match self.find()? {
                Some(found) if found.position != position => self.step_over(&found),
                _ => break,
            }
        }
        Ok(())
    }

    /// Bytes taken and not yet released.
    #[inline]
    pub(crate) fn unreleased(&self) -> u64 {
        self.taken().distance_from(self.released)
    }

    /// True when a quarter of the capacity waits to be released: the caller then releases it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.unreleased() >= self.lane.capacity().quarter()
    }

    /// The same right behind [`take_one`](Self::take_one).
    #[inline(always)]
    pub(crate) fn is_due_after_one(&self) -> bool {
        debug_assert_eq!(self.stepped_messages, 0);
        self.read.distance_from(self.released) >= self.lane.capacity().quarter()
    }

    /// Gives the bytes of everything taken back to the producer. False if there is nothing to give.
    /// After true, the producer's wait word must be looked at.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        let taken = self.taken();
        if taken == self.released {
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
        page.released.store(taken.get(), order);
        self.released = taken;
        true
    }
}

fn record_corruption(lane: &LaneView, position: Position) {
    // Plus one, so that position 0 shows; never 0.
    let word = position.get().saturating_add(1);
    lane.consumer().corrupt_at.store(word, Ordering::Relaxed);
}
