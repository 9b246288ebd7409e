//! The consumer's half of a lane: find the next message, take it, release what was taken.
//!
//! One message, from the call to the load that finds it:
//!
//! ```text
//! load_header()     one load, and one comparison with the limit of the fast path
//! find()            or the slow path: padding, impossible bytes, the trusted end
//! take_one(found)   the position moves on, in private memory
//! release()         now and then: the store that gives the bytes back
//! ```
//! [`open_fast_path`](LaneConsumer::open_fast_path) is the only function that opens the fast path;
//! [`jump`](LaneConsumer::jump) closes it, and so does corruption.
//!
//! The read position is private to the consumer. Of the producer's words the consumer uses one
//! header word at a time, loaded once and checked.

use super::Damage;
use super::fast_path::FastPath;
use crate::layout::Position;
use crate::layout::record::{CUT, CUT_BYTES, LINE, MessageHeader, Record, decode};
use crate::layout::view::LaneView;
use crate::sync::Ordering;
use crate::sync::mutant::{self, Mutant};

/// A published message that was found but not yet taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// The position of the message's header.
    pub(crate) position: Position,
    pub(crate) header: MessageHeader,
}

/// The consumer's half of a lane.
pub(crate) struct LaneConsumer {
    lane: LaneView,
    /// Number of the lane in the ring.
    number: u32,
    /// Position of the next header.
    read: Position,
    /// This many messages before it were found but not taken: those of a batch.
    stepped_messages: u32,
    /// If there are any, everything before this position may be released; if there are none, everything
    /// before `read`.
    stepped_from: Position,
    /// A quarter of the capacity after the last stored value of `released`: when the taken bytes end here, they are
    /// released.
    release_at: Position,
    /// The trusted end: headers before this position are of this lap. When the control words were last
    /// read, no lane that obeys the protocol had published anything from here on.
    trusted_end: Position,
    fast_path: FastPath,
    /// Messages taken, including those of predecessors.
    taken_messages: u64,
    /// Position of impossible bytes: no header from there on is read.
    corrupt_at: Option<Position>,
}

// The merge finds a lane by its number: a shift.
#[cfg(not(semring_loom))]
const _: () = assert!(size_of::<LaneConsumer>() == 128);

impl LaneConsumer {
    /// Starts at the position that the predecessor released last.
    pub(crate) fn take_over(lane: LaneView, number: usize) -> Result<Self, Damage> {
        let capacity = lane.capacity();
        let start = Position::new(lane.consumer().released.load(Ordering::Acquire));
        let committed = Position::new(lane.producer().committed.load(Ordering::Acquire));
        // `committed` may lag by a batch whose producer was killed, or be far ahead by now.
        let ahead = committed.distance_from(start);
        let lag = start.distance_from(committed);
        if !start.is_aligned() || ahead.min(lag) > capacity.get() {
            return Err(Damage { position: start });
        }
        let messages = lane.consumer().received.load(Ordering::Relaxed);
        // No impossible bytes are known to this consumer.
        lane.consumer().corrupt_at.store(0, Ordering::Relaxed);
        let quarter = capacity.quarter();
        Ok(Self {
            lane,
            number: number as u32,
            read: start,
            stepped_messages: 0,
            stepped_from: start,
            release_at: start.advance(quarter),
            trusted_end: start,
            fast_path: FastPath::closed_at(start),
            taken_messages: messages,
            corrupt_at: None,
        })
    }

    /// A lane whose control words are impossible: it is always skipped, and its corrupt word makes its
    /// producer fail.
    pub(crate) fn corrupt(lane: LaneView, number: usize, damage: Damage) -> Self {
        record_corruption(&lane, damage.position);
        let (start, quarter) = (Position::new(0), lane.capacity().quarter());
        Self {
            lane,
            number: number as u32,
            read: start,
            stepped_messages: 0,
            stepped_from: start,
            release_at: start.advance(quarter),
            trusted_end: start,
            fast_path: FastPath::closed_at(start),
            taken_messages: 0,
            corrupt_at: Some(start),
        }
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    /// Number of the lane in the ring.
    pub(crate) fn number(&self) -> usize {
        self.number as usize
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt_at.is_some()
    }

    /// Messages before the impossible bytes are found again after a step back; messages after them are
    /// never found.
    #[inline(always)]
    fn is_at_corruption(&self) -> bool {
        self.corrupt_at.is_some_and(|at| self.read.has_reached(at))
    }

    /// Position of the next header.
    #[inline(always)]
    pub(crate) fn position(&self) -> Position {
        self.read
    }

    /// Messages taken on this lane, including those of predecessors.
    pub(crate) fn taken_messages(&self) -> u64 {
        self.taken_messages
    }

    /// Messages found but not taken.
    pub(crate) fn stepped_messages(&self) -> u64 {
        u64::from(self.stepped_messages)
    }

    /// The position up to which everything may be released.
    #[inline(always)]
    fn taken(&self) -> Position {
        if self.stepped_messages == 0 {
            self.read
        } else {
            self.stepped_from
        }
    }

    /// The next message, if it is there and lies before the limit of the fast path. `None`: there is no such
    /// message, or the pages of the ring are not mapped. [`find`](Self::find) then gives the reason.
    #[inline(always)]
    pub(crate) fn load_header(&self) -> Option<Found> {
        if !self.lane.is_intact() {
            return None;
        }
        // Both are read once: the compiler keeps no value across an acquire load.
        let (position, below) = (self.read, self.fast_path.passes_below(self.read));
        // E1: if the header is published, its payload is there.
        let order = mutant::order(Mutant::RelaxedFastLoad, Ordering::Acquire);
        let word = self.lane.header(position).load(order);
        let header = MessageHeader::decode_short(word, below)?;
        Some(Found { position, header })
    }

    /// Opens the fast path up to the trusted end, the end of the data area, or the corrupt position, whichever is
    /// nearest, and for at most this many bytes.
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

    /// Padding after a part moves the place where the line goes on.
    fn skip_padding(&mut self, bytes: u64) {
        let (at, to) = (self.read.get(), self.read.advance(bytes));
        let slots = &self.lane.consumer().continued;
        let holds = |position: u64| {
            let word = position.wrapping_add(1);
            slots
                .iter()
                .any(|slot| slot.load(Ordering::Relaxed) == word)
        };
        if holds(at) {
            self.record_continued(to);
        }
        self.jump(to);
    }

    /// Notes that the message at this position continues one that is released: before `released` is stored, which is a
    /// Release. Of the two words the one that does not hold now is overwritten, so after a kill in between the older one
    /// still holds.
    fn record_continued(&self, next: Position) {
        let slots = &self.lane.consumer().continued;
        let now = self.released().get().wrapping_add(1);
        let slot = usize::from(slots[0].load(Ordering::Relaxed) == now);
        slots[slot].store(next.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// Moves to a header other than the one after a message that was just found.
    fn jump(&mut self, to: Position) {
        self.read = to;
        self.fast_path.close(to);
    }

    /// Whether the records of this lane were longer than a cache line on average, since it was made.
    pub(crate) fn mean_record_is_longer_than_a_line(&self) -> bool {
        let messages = self
            .taken_messages
            .wrapping_add(u64::from(self.stepped_messages));
        self.read.get() > messages.saturating_mul(LINE)
    }

    /// Makes the CPU fetch the cache line after that of the next header, so that both are loaded at the same
    /// time. A hint: nothing is read.
    #[inline]
    pub(crate) fn prefetch_second_line(&self) {
        self.lane.prefetch(self.read.advance(LINE));
    }

    /// Looks for the next message. Padding is skipped. `Err` marks the lane corrupt: this is reported once,
    /// and the lane is empty from then on.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Found>, Damage> {
        self.find_in::<true>()
    }

    /// As [`find`](Self::find), but stops at a record that ends what the part before it began. With a look at that record
    /// first and `find` afterwards, a record published in between would be skipped unseen, and the consumer would wait for
    /// a part that never comes.
    pub(crate) fn find_before_cut(&mut self) -> Result<Option<Found>, Damage> {
        if mutant::is(Mutant::CutSkipped) {
            return self.find();
        }
        self.find_in::<false>()
    }

    #[inline]
    fn find_in<const SKIPS_CUTS: bool>(&mut self) -> Result<Option<Found>, Damage> {
        loop {
            // E1: if the header is published, its payload is there.
            let order = mutant::order(Mutant::RelaxedLoad, Ordering::Acquire);
            let word = self.lane.header(self.read).load(order);
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
                // No message holds the padding: if everything before it was taken, so is the
                // padding.
                Ok(Record::Pad { bytes }) => self.skip_padding(bytes),
                Ok(Record::Cut) if !SKIPS_CUTS => return Ok(None),
                Ok(Record::Cut) => self.jump(self.read.advance(CUT_BYTES)),
                Ok(Record::Unpublished) => return Ok(None),
                Err(_) => return Err(self.mark_corrupt()),
            }
        }
    }

    /// True if a message (or impossible bytes) would be found: a look that changes nothing.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_at_corruption() && self.lane.header(self.read).load(Ordering::Acquire) != 0
    }

    /// About once in a lap. Without a trusted end, a lane full of headers that lead from one to the next would have
    /// messages for ever.
    #[cold]
    fn extend_trusted_end(&mut self) -> Result<(), Damage> {
        let capacity = self.lane.capacity().get();
        // I3: published records end within a capacity after `committed`, also if a batch was
        // published and its producer has not reached K4. `committed` was stored before the header
        // that was just loaded (E1).
        let committed = Position::new(self.lane.producer().committed.load(Ordering::Acquire));
        let lag = self.released().distance_from(committed);
        let ahead = committed.distance_from(self.released());
        let from_committed = match capacity.checked_sub(lag) {
            Some(rest) => rest,
            None if ahead <= capacity => capacity,
            None => 0,
        };
        // I2: and within a capacity after `released`.
        let reach = from_committed.min(capacity - 8);
        if self.read.distance_from(self.released()) >= reach {
            return Err(self.mark_corrupt());
        }
        self.trusted_end = self.released().advance(reach);
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

    /// Moves past a message that was found, without taking it.
    #[inline(always)]
    pub(crate) fn step_over(&mut self, found: &Found) {
        debug_assert_eq!(found.position, self.read);
        if self.stepped_messages == 0 {
            self.stepped_from = found.position;
        }
        self.stepped_messages += 1;
        self.read = found.position.advance(found.header.bytes());
    }

    /// Takes all messages found; the store of `released` may come later.
    #[inline]
    pub(crate) fn take(&mut self) {
        // Wrapping: it began with a word of the segment.
        let messages = std::mem::take(&mut self.stepped_messages);
        self.taken_messages = self.taken_messages.wrapping_add(u64::from(messages));
    }

    /// Both steps for a single message, on a lane on which no other message is found but not taken.
    #[inline(always)]
    pub(crate) fn take_one(&mut self, found: &Found) {
        debug_assert_eq!(found.position, self.read);
        debug_assert_eq!(self.stepped_messages, 0);
        self.read = found.position.advance(found.header.bytes());
        self.taken_messages = self.taken_messages.wrapping_add(1);
    }

    /// Goes back to the end of the last message taken: the messages found since are found again.
    pub(crate) fn step_back(&mut self) {
        self.jump(self.taken());
        self.stepped_messages = 0;
    }

    /// Goes back to the message at this position, which was found but not taken: it is found again, and so
    /// are those after it. The messages before it are walked again; if none of them ends there, nothing
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

    /// The last stored value of `released`.
    #[inline]
    fn released(&self) -> Position {
        let quarter = self.lane.capacity().quarter();
        Position::new(self.release_at.get().wrapping_sub(quarter))
    }

    /// Bytes taken and not yet released.
    #[inline]
    pub(crate) fn unreleased(&self) -> u64 {
        self.taken().distance_from(self.released())
    }

    /// True when a quarter of the capacity is taken and not released: the caller then releases it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.unreleased() >= self.lane.capacity().quarter()
    }

    /// The same right after [`take_one`](Self::take_one).
    #[inline(always)]
    pub(crate) fn is_due_after_one(&self) -> bool {
        debug_assert_eq!(self.stepped_messages, 0);
        self.read.has_reached(self.release_at)
    }

    /// Gives the bytes of all messages taken back to the producer. False if there are none. After
    /// true, the caller must look at the producer's wait word.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        let taken = self.taken();
        if taken == self.released() {
            return false;
        }
        let page = self.lane.consumer();
        page.received.store(self.taken_messages, Ordering::Relaxed);
        self.record_used(taken.distance_from(self.released()));
        // E2: all reads of these bytes are done. Killed before this line: the messages are
        // delivered again.
        let order = mutant::order(Mutant::RelaxedRelease, Ordering::Release);
        page.released.store(taken.get(), order);
        self.release_at = taken.advance(self.lane.capacity().quarter());
        true
    }
}

impl LaneConsumer {
    /// Keeps the high-water mark: how full the lane was before this many bytes of it are released. What the producer has
    /// published beyond them is looked up only where a stream is at work, once in a quarter lap: the load costs a cache
    /// line of the producer's.
    #[inline]
    fn record_used(&self, releasing: u64) {
        let mut used = releasing;
        if releasing >= self.lane.capacity().quarter() {
            let committed = self.lane.producer().committed.load(Ordering::Relaxed);
            let published = Position::new(committed).distance_from(self.released());
            // Behind what is released, or forged: what is released counts.
            if published <= self.lane.capacity().get() {
                used = used.max(published);
            }
        }
        let mark = &self.lane.consumer().high_water;
        if used > mark.load(Ordering::Relaxed) {
            mark.store(used, Ordering::Relaxed);
        }
    }

    /// Takes a message of which the next one of this lane is the continuation, and releases it so that a successor finds that:
    /// see [`is_continued`](Self::is_continued). Of the two words that which does not hold now is overwritten, so killed
    /// before the release, the older one still does.
    pub(crate) fn take_part(&mut self, found: &Found) {
        self.take_one(found);
        self.record_continued(self.read);
    }

    /// True if the next message continues one that this consumer's predecessor had released. To be called before anything is
    /// released.
    pub(crate) fn is_continued(&self) -> bool {
        let now = self.released().get().wrapping_add(1);
        let slots = &self.lane.consumer().continued;
        self.corrupt_at.is_none() && slots.iter().any(|slot| slot.load(Ordering::Relaxed) == now)
    }

    /// Steps over the record that ends what the part before it began. False if something else is next, or nothing.
    pub(crate) fn take_cut(&mut self) -> bool {
        let is_cut = self.lane.header(self.read).load(Ordering::Acquire) == CUT;
        if is_cut && !self.is_at_corruption() {
            self.jump(self.read.advance(CUT_BYTES));
        }
        is_cut
    }

    /// With nothing more on the lane: true if its present producer began right here, after a part of its predecessor's. Its
    /// cut follows with its next message, or as soon as there is room.
    pub(crate) fn is_at_cut(&self) -> bool {
        let page = self.lane.producer();
        let now = self.read.get().wrapping_add(1);
        // Stored before the generation: a consumer that has seen the successor at work, or was posted by it, sees it.
        page.generation_start.load(Ordering::Acquire) == self.read.get()
            && page
                .open_part
                .iter()
                .any(|word| word.load(Ordering::Relaxed) == now)
    }

    /// Messages that producers of this lane dropped because it was full.
    pub(crate) fn dropped_messages(&self) -> u64 {
        self.lane.producer().dropped.load(Ordering::Relaxed)
    }
}

fn record_corruption(lane: &LaneView, position: Position) {
    // Plus one, so that position 0 is not stored as 0.
    let word = position.get().saturating_add(1);
    lane.consumer().corrupt_at.store(word, Ordering::Relaxed);
}
