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
//! The messages of an array are found one by one, too; [`arrays`](super::arrays) has what differs.
//!
//! [`open_fast_path`](LaneConsumer::open_fast_path) computes the limit of the fast path. [`jump`](LaneConsumer::jump),
//! corruption and going inside an array close it; behind the array it is as it was left in `after_array`.
//!
//! The read position is private to the consumer. Of the producer's words the consumer uses one
//! header word at a time, loaded once and checked.

use super::Damage;
use super::arrays::SlowState;
use super::fast_path::FastPath;
use crate::layout::Position;
use crate::layout::record::{CUT, CUT_BYTES, HEADER_BYTES, LINE, MessageHeader, Record, decode};
use crate::layout::view::LaneView;
use crate::sync::Ordering;
use crate::sync::mutant::{self, Mutant};

/// A published message that was found but not yet taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// The position of the message's header. (A message of an array has none, and this is where it would be.)
    pub(crate) position: Position,
    pub(crate) header: MessageHeader,
}

/// The consumer's half of a lane.
pub(crate) struct LaneConsumer {
    pub(super) lane: LaneView,
    /// Number of the lane in the ring.
    number: u32,
    /// This many messages before it were found but not taken: those of a batch.
    pub(super) stepped_messages: u32,
    /// Position of the next header; inside an array, of the array's.
    pub(super) read: Position,
    /// If messages were stepped over, everything before this position may be released; if none were, everything
    /// before `read`.
    pub(super) stepped_from: Position,
    /// A quarter of the capacity after the last stored value of `released`: when the taken bytes end here, they are
    /// released. Inside an array the position of that: each message has to be settled.
    pub(super) release_at: Position,
    /// The last stored value of `released`.
    pub(super) released: Position,
    pub(super) fast_path: FastPath,
    /// Messages taken, including those of predecessors.
    pub(super) taken_messages: u64,
    /// Position of impossible bytes, or [`SOUND`]: no header from there on is read.
    corrupt_at: Position,
    /// What only the slow path uses.
    pub(super) slow: Box<SlowState>,
}

/// Nothing corrupt: no record is there.
const SOUND: Position = Position::new(u64::MAX);

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
        let slow = SlowState::take_over(&lane, start);
        Ok(Self::new(lane, number, start, messages, SOUND, slow))
    }

    fn new(
        lane: LaneView,
        number: usize,
        start: Position,
        messages: u64,
        corrupt_at: Position,
        slow: SlowState,
    ) -> Self {
        Self {
            number: number as u32,
            stepped_messages: 0,
            read: start,
            stepped_from: start,
            release_at: start.advance(lane.capacity().quarter()),
            released: start,
            fast_path: FastPath::closed_at(start),
            taken_messages: messages,
            corrupt_at,
            lane,
            slow: Box::new(slow),
        }
    }

    /// A lane whose control words are impossible: it is always skipped, and its corrupt word makes its
    /// producer fail.
    pub(crate) fn corrupt(lane: LaneView, number: usize, damage: Damage) -> Self {
        record_corruption(&lane, damage.position);
        let start = Position::new(0);
        Self::new(lane, number, start, 0, start, SlowState::new(start))
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    /// Number of the lane in the ring.
    pub(crate) fn number(&self) -> usize {
        self.number as usize
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.corrupt_at != SOUND
    }

    /// Messages before the impossible bytes are found again after a step back; messages after them are
    /// never found.
    #[inline(always)]
    fn is_at_corruption(&self) -> bool {
        self.is_corrupt() && self.read.has_reached(self.corrupt_at)
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
    fn taken_end(&self) -> Position {
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
        let sound = if self.is_corrupt() {
            until(self.corrupt_at)
        } else {
            u64::MAX
        };
        let free = until(self.slow.trusted_end).min(sound).min(at_most);
        let capacity = self.lane.capacity();
        if self.is_in_array() {
            self.slow.after_array.open(self.read, capacity, free);
        } else {
            self.fast_path.open(self.read, capacity, free);
        }
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
        if holds(at) && !mutant::is(Mutant::PaddingEndsContinued) {
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
        let holds = slots[0].load(Ordering::Relaxed) == now;
        let slot = usize::from(holds != mutant::is(Mutant::ContinuedOverwritten));
        slots[slot].store(next.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// Moves to a header other than the one after a message that was just found.
    pub(super) fn jump(&mut self, to: Position) {
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
            if let Some(found) = self.next_of_array() {
                return Ok(Some(found));
            }
            // E1: if the header is published, its payload is there.
            let order = mutant::order(Mutant::RelaxedLoad, Ordering::Acquire);
            let word = self.lane.header(self.read).load(order);
            if word == 0 || self.is_at_corruption() {
                return Ok(None);
            }
            let record = decode(word, self.read, self.lane.capacity());
            if !matches!(record, Ok(Record::Array(_))) {
                self.ignore_elements();
            }
            match record {
                Ok(Record::Message(header)) => {
                    self.reach_trusted_end()?;
                    return Ok(Some(Found {
                        position: self.read,
                        header,
                    }));
                }
                // No message holds the padding: if everything before it was taken, so is the
                // padding.
                Ok(Record::Pad { bytes }) => self.skip_padding(bytes),
                Ok(Record::Cut) if !SKIPS_CUTS => return Ok(None),
                Ok(Record::Cut) => {
                    // A hostile producer can fill its lane with them.
                    self.reach_trusted_end()?;
                    self.jump(self.read.advance(CUT_BYTES));
                }
                Ok(Record::Array(header)) => {
                    self.reach_trusted_end()?;
                    // Once: a hostile producer may change it later. It is stored before the header, which is a Release.
                    let word = self.lane.header(self.read.advance(HEADER_BYTES));
                    match header.with_word(word.load(Ordering::Relaxed)) {
                        Ok(array) => self.open_array(array),
                        Err(_) => return Err(self.mark_corrupt()),
                    }
                }
                Ok(Record::Unpublished) => return Ok(None),
                Err(_) => return Err(self.mark_corrupt()),
            }
        }
    }

    #[inline]
    fn reach_trusted_end(&mut self) -> Result<(), Damage> {
        if self.read.has_reached(self.slow.trusted_end) {
            self.extend_trusted_end()?;
        }
        Ok(())
    }

    /// True if a message (or impossible bytes) would be found: a look that changes nothing.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_at_corruption()
            && (self.is_in_array() || self.lane.header(self.read).load(Ordering::Acquire) != 0)
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
        self.slow.trusted_end = self.released.advance(reach);
        Ok(())
    }

    #[cold]
    fn mark_corrupt(&mut self) -> Damage {
        self.corrupt_at = self.read;
        self.fast_path.close(self.read);
        record_corruption(&self.lane, self.read);
        Damage {
            position: self.read,
        }
    }

    /// Moves past a message that was found by the fast path, without taking it.
    #[inline(always)]
    pub(crate) fn step_over_record(&mut self, found: &Found) {
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
        self.slow.stepped_from_element = 0;
    }

    /// Both steps for a single message, on a lane on which no other message is found but not taken. True if the caller
    /// has to [settle](Self::settle) it: a quarter of the capacity is taken and not released, or the message is one of an
    /// array. One comparison for both.
    #[inline(always)]
    #[must_use = "a message of an array is not taken before it is settled"]
    pub(crate) fn take_one(&mut self, found: &Found) -> bool {
        debug_assert!(self.is_in_array() || found.position == self.read);
        debug_assert_eq!(self.stepped_messages, 0);
        self.read = found.position.advance(found.header.bytes());
        self.taken_messages = self.taken_messages.wrapping_add(1);
        self.read.has_reached(self.release_at)
    }

    /// Completes [`take_one`](Self::take_one). True when a quarter of the capacity is taken and not released: the caller
    /// then releases it.
    pub(crate) fn settle(&mut self) -> bool {
        if self.is_in_array() {
            self.settle_element();
        }
        self.is_due()
    }

    /// Goes back to the end of the last message taken: the messages found since are found again.
    pub(crate) fn step_back(&mut self) {
        if self.stepped_messages != 0 {
            self.return_to_element();
        }
        self.jump(self.taken_end());
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
        self.released
    }

    /// Bytes taken and not yet released.
    #[inline]
    pub(crate) fn unreleased(&self) -> u64 {
        self.taken_end().distance_from(self.released())
    }

    /// True when a quarter of the capacity is taken and not released: the caller then releases it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.unreleased() >= self.lane.capacity().quarter()
    }

    /// Gives the bytes of all messages taken back to the producer, and stores how many messages of an array are taken of
    /// which the rest is not. False if there are no such bytes. After true, the caller must look at the producer's wait
    /// word.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        let (taken, element) = (self.taken_end(), self.taken_elements());
        if taken == self.released {
            self.release_elements(element);
            return false;
        }
        if !mutant::is(Mutant::ReceivedAfterReleased) {
            self.store_received();
        }
        self.record_used(taken.distance_from(self.released));
        if mutant::is(Mutant::PartialClearedEarly) {
            self.clear_partial();
        }
        // E2: all reads of these bytes are done. Killed before this line: the messages are
        // delivered again.
        let order = mutant::order(Mutant::RelaxedRelease, Ordering::Release);
        let released = &self.lane.consumer().released;
        released.store(taken.get(), order);
        if mutant::is(Mutant::ReceivedAfterReleased) {
            self.store_received();
        }
        self.released = taken;
        if !self.is_in_array() {
            self.release_at = taken.advance(self.lane.capacity().quarter());
        }
        self.clear_partial();
        self.release_elements(element);
        true
    }
}

impl LaneConsumer {
    #[inline(always)]
    pub(super) fn store_received(&self) {
        let received = &self.lane.consumer().received;
        received.store(self.taken_messages, Ordering::Relaxed);
    }

    /// Keeps the high-water mark: how full the lane was before this many bytes of it are released. What the producer has
    /// published beyond them is looked up only where a stream is at work, once in a quarter lap: the load costs a cache
    /// line of the producer's.
    #[inline]
    fn record_used(&self, releasing: u64) {
        // A statistic, but with a load of a word that is modelled.
        if cfg!(semring_loom) {
            return;
        }
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
        let is_element = self.is_in_array();
        if self.take_one(found) {
            self.settle();
        }
        if mutant::is(Mutant::ContinuedLate) {
            self.release();
        }
        if !is_element {
            self.record_continued(self.read);
        }
    }

    /// True if the next message continues one that this consumer's predecessor had released. To be called before anything is
    /// released.
    pub(crate) fn is_continued(&self) -> bool {
        let now = self.released().get().wrapping_add(1);
        let slots = &self.lane.consumer().continued;
        // Where messages of an array are released, the first of them was the continuation.
        !self.is_corrupt()
            && self.slow.is_at_first()
            && slots.iter().any(|slot| slot.load(Ordering::Relaxed) == now)
    }

    /// Steps over the record that ends what the part before it began. False if something else is next, or nothing.
    pub(crate) fn take_cut(&mut self) -> bool {
        let is_cut =
            !self.is_in_array() && self.lane.header(self.read).load(Ordering::Acquire) == CUT;
        if is_cut && !self.is_at_corruption() {
            self.ignore_elements();
            self.jump(self.read.advance(CUT_BYTES));
        }
        is_cut
    }

    /// With nothing more on the lane: true if its present producer began right here, after a part of its predecessor's. Its
    /// cut, for which there was no room when it attached, comes before its first message.
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
