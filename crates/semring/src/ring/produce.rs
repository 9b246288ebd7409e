//! The producer's half of a lane: reserve, commit, batch, and taking over from a predecessor.
//!
//! One message, from the call to the store that publishes it:
//!
//! ```text
//! fast_slot(len)      a place before the limit of the fast path: one comparison
//! try_reserve(len)    or the slow path: padding at the end of the data area, a load of `released`
//! K2                  the caller copies the payload into the slot
//! commit(slot)        K1, K3, K4, in `publish`
//! ```
//! [`open_fast_path`](LaneProducer::open_fast_path) is the only function that opens the fast path.
//!
//! The steps of publishing are numbered K1–K4 in all files (K5, the load of the consumer's wait word, is
//! in `guard::wakeup`).

use super::Damage;
use super::fast_path::FastPath;
use crate::layout::array::{ARRAY_HEADER_BYTES, array_header, array_lead_to_line, array_word};
use crate::layout::control::LANE_FINISHED;
use crate::layout::record::{
    CUT, CUT_BYTES, HEADER_BYTES, Record, Tag, UNPUBLISHED, decode, is_pad, lead_to_line,
    message_header, pad_header, record_bytes,
};
use crate::layout::view::LaneView;
use crate::layout::{Capacity, Position};
use crate::sync::Ordering;
use crate::sync::mutant::{self, Mutant};

/// A payload of this many bytes or more begins at a cache line. For shorter ones the bytes that this costs,
/// 28 on average, are not worth it.
pub(crate) const ALIGNED_FROM: usize = 1024;

/// Bytes that belong to the producer until it commits: the place of one message in the lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    position: Position,
    payload: u32,
    lead: u32,
}

impl Slot {
    /// For a message of this many bytes; called where the length may be a constant for the
    /// compiler.
    #[inline(always)]
    pub(crate) fn new(position: Position, payload: usize) -> Self {
        let lead = if payload >= ALIGNED_FROM {
            lead_to_line(position)
        } else {
            HEADER_BYTES
        };
        Self {
            position,
            payload: payload as u32,
            lead: lead as u32,
        }
    }

    #[inline(always)]
    pub(crate) fn position(self) -> Position {
        self.position
    }

    /// Bytes from the position to the payload.
    #[inline(always)]
    pub(crate) fn lead(self) -> u64 {
        u64::from(self.lead)
    }

    /// Bytes that its record takes.
    #[inline(always)]
    fn bytes(self) -> u64 {
        record_bytes(self.lead(), u64::from(self.payload))
    }

    #[inline(always)]
    fn header(self, tag: Tag) -> u64 {
        message_header(self.lead(), self.payload, tag)
    }

    pub(crate) fn len(self) -> usize {
        self.payload as usize
    }

    /// For an array whose messages have this many bytes together.
    #[inline(always)]
    pub(crate) fn new_array(position: Position, payload: usize) -> Self {
        let lead = if payload >= ALIGNED_FROM {
            array_lead_to_line(position)
        } else {
            ARRAY_HEADER_BYTES
        };
        Self {
            position,
            payload: payload as u32,
            lead: lead as u32,
        }
    }

    /// The same place for a shorter message.
    pub(crate) fn shortened(self, len: usize) -> Self {
        assert!(len <= self.len(), "a reservation can only become shorter");
        Self {
            payload: len as u32,
            ..self
        }
    }
}

/// What room is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A message of this many bytes.
    Message(usize),
    /// An array whose messages have this many bytes together.
    Array(usize),
}

impl Need {
    /// Bytes of payload.
    #[inline(always)]
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Message(bytes) | Self::Array(bytes) => bytes,
        }
    }

    #[inline(always)]
    fn slot(self, position: Position) -> Slot {
        match self {
            Self::Message(payload) => Slot::new(position, payload),
            Self::Array(payload) => Slot::new_array(position, payload),
        }
    }
}

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSlot {
    /// Not enough room now. If `padded`, a pad (or a cut) was published on the way, and a sleeping consumer
    /// must be woken all the same: it may be what it has to take before there is room.
    Full { padded: bool },
    /// `released` is impossible: a process wrote it against the protocol.
    Damaged(Damage),
}

/// When a record becomes visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// At once.
    Single,
    /// At [`end_batch`](LaneProducer::end_batch), together with all others of its batch.
    Batch,
}

/// The first record of a batch, whose header is stored last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct First {
    position: Position,
    header: u64,
    /// Messages committed before the batch.
    sent_before: u64,
}

/// A word of `open part` for another position is of a part that was never published. Cleared before anything else is: a
/// message of that length would end there, too.
fn clear_stale_parts(lane: &LaneView, end: Position) {
    let now = end.get().wrapping_add(1);
    for word in &lane.producer().open_part {
        // Relaxed: each header is stored later, with Release.
        if word.load(Ordering::Relaxed) != now && !mutant::is(Mutant::StalePartKept) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether a lane that ends here ends with a part that its producer did not go on with.
fn ends_with_a_part(lane: &LaneView, end: Position) -> bool {
    let now = end.get().wrapping_add(1);
    let words = &lane.producer().open_part;
    words.iter().any(|word| word.load(Ordering::Relaxed) == now)
}

/// The producer's half of a lane. There is at most one for each lane: the guard ensures that.
pub(crate) struct LaneProducer {
    lane: LaneView,
    capacity: Capacity,
    /// Position of the next record.
    tail: Position,
    /// The last loaded value of `released`.
    released: Position,
    fast_path: FastPath,
    /// Messages committed, including those of predecessors.
    sent: u64,
    /// The first record of the open batch, if it has one.
    first: Option<First>,
    /// The lane ends with a part of something that the predecessor did not end: [`CUT`] is to be published first.
    cut_due: bool,
}

impl LaneProducer {
    /// Takes the lane over from its predecessor, which may have detached or died: starts at
    /// `committed`, walks over records published beyond it (one record, or a batch, if the
    /// predecessor was killed between K3 and K4), and checks `released` against the end.
    pub(crate) fn take_over(lane: LaneView) -> Result<Self, Damage> {
        let capacity = lane.capacity();
        // E3, E1: every record that is found published is complete.
        let committed = Position::new(lane.producer().committed.load(Ordering::Acquire));
        let mut tail = committed;
        let mut recovered = 0;
        if !committed.is_aligned() {
            return Err(Damage {
                position: committed,
            });
        }
        while !mutant::is(Mutant::NoWalkBeyondCommitted) {
            let word = lane.header(tail).load(Ordering::Acquire);
            match decode(word, tail, capacity).map_err(|_| Damage { position: tail })? {
                Record::Unpublished => break,
                Record::Message(header) => {
                    tail = tail.advance(header.bytes());
                    recovered += 1;
                }
                Record::Array(header) => {
                    let word = lane.header(tail.advance(HEADER_BYTES));
                    let array = header.with_word(word.load(Ordering::Relaxed));
                    let array = array.map_err(|_| Damage { position: tail })?;
                    tail = tail.advance(array.bytes());
                    recovered += u64::from(array.count());
                }
                Record::Pad { bytes } => tail = tail.advance(bytes),
                Record::Cut => tail = tail.advance(CUT_BYTES),
            }
            if tail.distance_from(committed) > capacity.get() {
                return Err(Damage { position: tail });
            }
        }
        let released = Position::new(lane.consumer().released.load(Ordering::Acquire));
        // I2; also refuses a `released` beyond the end, which yields a huge distance.
        if !released.is_aligned() || tail.distance_from(released) > capacity.get() - 8 {
            return Err(Damage { position: released });
        }
        let sent = lane
            .producer()
            .sent
            .load(Ordering::Relaxed)
            .wrapping_add(recovered);
        lane.producer().sent.store(sent, Ordering::Relaxed);
        // E3. Killed before this line: the next successor walks over the same records again.
        lane.producer()
            .committed
            .store(tail.get(), Ordering::Release);
        clear_stale_parts(&lane, tail);
        let cut_due = ends_with_a_part(&lane, tail);
        Ok(Self {
            lane,
            capacity,
            tail,
            released,
            fast_path: FastPath::closed_at(tail),
            sent,
            first: None,
            cut_due,
        })
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    /// Position of the next record.
    #[inline]
    pub(crate) fn tail(&self) -> Position {
        self.tail
    }

    /// Messages committed on this lane, including those of predecessors.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// The slot of a message before the limit of the fast path. `None`: there is no such slot, or the pages of the
    /// ring are not mapped; the slow path finds out.
    #[inline(always)]
    pub(crate) fn fast_slot(&self, payload: usize) -> Option<Slot> {
        let below = self.fast_path.passes_below(self.tail);
        // No slice is longer than i64::MAX.
        (self.lane.is_intact() && (payload as i64) < below).then(|| Slot::new(self.tail, payload))
    }

    /// The slot of an array before the limit of the fast path.
    #[inline(always)]
    pub(crate) fn fast_array_slot(&self, payload: usize) -> Option<Slot> {
        let below = self.fast_path.passes_below(self.tail);
        // An array has one word more in front of its bytes.
        let passes = (payload as i64).saturating_add(HEADER_BYTES as i64) < below;
        (self.lane.is_intact() && passes).then(|| Slot::new_array(self.tail, payload))
    }

    /// Opens the fast path over the bytes that are free according to the last loaded `released`, and at most this
    /// many. Messages that are too long for the lane do not pass.
    pub(crate) fn open_fast_path(&mut self, at_most: u64) {
        let slack = if mutant::is(Mutant::NoSlackWord) {
            0
        } else {
            8
        };
        let taken = self.tail.distance_from(self.released) + slack;
        let room = self.capacity.get().saturating_sub(taken);
        self.fast_path
            .open(self.tail, self.capacity, room.min(at_most));
    }

    /// No message passes until the fast path is opened again.
    pub(crate) fn close_fast_path(&mut self) {
        self.fast_path.close(self.tail);
    }

    /// A slot for a message (or an array) whose bytes must not exceed a quarter of the capacity.
    /// Nothing becomes visible except, possibly, padding: in this mode.
    #[inline]
    pub(crate) fn try_reserve(&mut self, need: Need, mode: Mode) -> Result<Slot, NoSlot> {
        debug_assert!(need.bytes() as u64 <= self.capacity.max_message());
        let mut padded = false;
        if self.cut_due {
            self.publish_cut().map_err(NoSlot::Damaged)?;
            if self.cut_due {
                return Err(NoSlot::Full { padded });
            }
            padded = true;
        }
        let mut slot = need.slot(self.tail);
        let rest = self.capacity.bytes_to_end(self.tail);
        if slot.bytes() > rest {
            if !self.has_room(rest).map_err(NoSlot::Damaged)? {
                return Err(NoSlot::Full { padded });
            }
            if ends_with_a_part(&self.lane, self.tail) && !mutant::is(Mutant::PaddingEndsPart) {
                // Killed after the padding, before the next part: the lane still ends inside the line.
                self.record_open_part(self.tail.advance(rest));
            }
            self.publish(self.tail, pad_header(rest), rest, mode);
            padded |= mode == Mode::Single;
            slot = need.slot(self.tail);
        }
        if !self.has_room(slot.bytes()).map_err(NoSlot::Damaged)? {
            return Err(NoSlot::Full { padded });
        }
        Ok(slot)
    }

    /// Whether there is room for this now, padding included. Loads `released` again; publishes nothing.
    pub(crate) fn has_room_for(&mut self, need: Need) -> Result<bool, Damage> {
        let need = need.slot(self.tail).bytes();
        let rest = self.capacity.bytes_to_end(self.tail);
        // With padding before it, it is enough that the padding fits: the rest is checked after it.
        self.has_room(if need > rest { rest } else { need })
    }

    /// I2: `need` bytes and the slack word after them are free.
    #[inline]
    fn has_room(&mut self, need: u64) -> Result<bool, Damage> {
        let slack = if mutant::is(Mutant::NoSlackWord) {
            0
        } else {
            8
        };
        let fits = |released: Position| {
            self.tail.distance_from(released) + need + slack <= self.capacity.get()
        };
        if fits(self.released) {
            return Ok(true);
        }
        // E2: the consumer has finished with everything before `released`.
        let order = mutant::order(Mutant::RelaxedReleasedLoad, Ordering::Acquire);
        let released = Position::new(self.lane.consumer().released.load(order));
        let lag = self.tail.distance_from(released);
        if lag > self.tail.distance_from(self.released) || !released.is_aligned() {
            return Err(Damage { position: released }); // it shrank, or passed the tail (I4)
        }
        let fits = fits(released);
        self.released = released;
        Ok(fits)
    }

    /// `released` as it was last loaded.
    pub(crate) fn last_released(&self) -> Position {
        self.released
    }

    /// The present value of `released`, unchecked: only for comparison with an earlier value.
    pub(crate) fn load_released(&self) -> Position {
        Position::new(self.lane.consumer().released.load(Ordering::Relaxed))
    }

    /// Publishes a slot that was filled (K2), or adds it to the batch. The only way to publish a
    /// message.
    #[inline(always)]
    pub(crate) fn commit(&mut self, slot: Slot, tag: Tag, mode: Mode) {
        // Wrapping: it began with a word of the segment.
        self.sent = self.sent.wrapping_add(1);
        let end = slot.position.advance(slot.bytes());
        if tag.framing.continues() && !mutant::is(Mutant::OpenPartLate) {
            self.record_open_part(end);
        }
        self.publish(slot.position, slot.header(tag), slot.bytes(), mode);
        if tag.framing.continues() && mutant::is(Mutant::OpenPartLate) {
            self.record_open_part(end);
        }
    }

    /// Publishes the slot of an array that was filled (K2).
    #[inline(always)]
    pub(crate) fn commit_array(&mut self, slot: Slot, stride: u32, count: u32, tag: Tag) {
        debug_assert_eq!(u64::from(stride) * u64::from(count), slot.len() as u64);
        debug_assert!(count > 0 && stride > 0 && !tag.framing.continues());
        self.sent = self.sent.wrapping_add(u64::from(count));
        // Part of K2. Killed behind it: nothing is visible, as after the copy of the payload.
        let store_word = |lane: &LaneView| {
            let word = lane.header(slot.position.advance(HEADER_BYTES));
            word.store(array_word(stride, count), Ordering::Relaxed);
        };
        if !mutant::is(Mutant::ArrayWordLate) {
            store_word(&self.lane);
        }
        let header = array_header(slot.lead(), slot.payload, tag);
        self.publish(slot.position, header, slot.bytes(), Mode::Single);
        if mutant::is(Mutant::ArrayWordLate) {
            store_word(&self.lane);
        }
    }

    /// Counts messages that were not sent because the lane is full.
    pub(crate) fn count_dropped(&self, messages: u64) {
        let dropped = &self.lane.producer().dropped;
        // Only the lane's producer writes it.
        let count = dropped.load(Ordering::Relaxed).wrapping_add(messages);
        dropped.store(count, Ordering::Relaxed);
    }

    /// Messages that were so counted on this lane.
    pub(crate) fn dropped(&self) -> u64 {
        self.lane.producer().dropped.load(Ordering::Relaxed)
    }

    /// Notes, before a part (or padding after one) is published that ends here, that the next message continues the
    /// line. The word that holds for the end of the lane as it is now stays: killed before the part is published, the
    /// producer leaves it to its successor.
    fn record_open_part(&mut self, end: Position) {
        let words = &self.lane.producer().open_part;
        // Within a batch the lane still ends where that begins.
        let now = self.first.map_or(self.tail, |first| first.position);
        let now = now.get().wrapping_add(1);
        let holds = words[0].load(Ordering::Relaxed) == now;
        let word = usize::from(holds != mutant::is(Mutant::OpenPartOverwritten));
        words[word].store(end.get().wrapping_add(1), Ordering::Relaxed);
        // The header's store after it is a Release; in a batch that of the first one, and until then the lane ends
        // before all of it.
    }

    /// Whether a record is to be published first that ends what the predecessor began.
    pub(crate) fn is_cut_due(&self) -> bool {
        self.cut_due
    }

    /// Publishes that record, if it is due and has room. A batch has nothing in it before.
    pub(crate) fn publish_cut(&mut self) -> Result<(), Damage> {
        if self.cut_due && self.has_room(CUT_BYTES)? {
            self.cut_due = false;
            self.publish(self.tail, CUT, CUT_BYTES, Mode::Single);
        }
        Ok(())
    }

    /// Whether the batch holds no record.
    pub(crate) fn batch_is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Publishes the batch with one store, and returns the number of its messages (0 if it was padding). `None`: the
    /// batch was empty.
    pub(crate) fn end_batch(&mut self) -> Option<u32> {
        let first = self.first.take()?;
        if mutant::is(Mutant::CommittedBeforeBatch) {
            self.store_committed();
        }
        self.store_header(first.position, first.header);
        self.store_committed();
        Some(self.sent.wrapping_sub(first.sent_before) as u32)
    }

    /// A record of this many bytes at the tail: a message or padding.
    #[inline(always)]
    fn publish(&mut self, position: Position, header: u64, bytes: u64, mode: Mode) {
        debug_assert_eq!(position, self.tail);
        let next = position.advance(bytes);
        // K1: the next header is 0 before the record that precedes it is visible (I1). Killed here:
        // nothing is visible, the successor starts at `position` again.
        if !mutant::is(Mutant::NextHeaderClearedLate) {
            self.lane.header(next).store(UNPUBLISHED, Ordering::Relaxed);
        }
        self.tail = next;
        match mode {
            Mode::Single => self.publish_single(position, header),
            // Its own header word stays 0 (I1), so a kill anywhere before the end of the batch leaves
            // nothing of the batch.
            Mode::Batch if self.first.is_none() => {
                if mutant::is(Mutant::BatchShownEarly) {
                    self.store_header(position, header);
                }
                let itself = u64::from(!is_pad(header));
                self.first = Some(First {
                    position,
                    header,
                    sent_before: self.sent.wrapping_sub(itself),
                });
            }
            // The consumer can't get past the first record before `end_batch` publishes it.
            Mode::Batch => self.lane.header(position).store(header, Ordering::Relaxed),
        }
    }

    #[inline(always)]
    fn publish_single(&mut self, position: Position, header: u64) {
        debug_assert!(self.batch_is_empty(), "it would overtake a batch");
        if mutant::is(Mutant::CommittedBeforeHeader) {
            self.store_committed();
        }
        // K3: the commit. Killed after it: the message is sent, the successor walks over it.
        self.store_header(position, header);
        if mutant::is(Mutant::NextHeaderClearedLate) {
            let next = self.lane.header(self.tail);
            next.store(UNPUBLISHED, Ordering::Relaxed);
        }
        // K4: the start position of a successor.
        if !mutant::is(Mutant::CommittedBeforeHeader) {
            self.store_committed();
        }
    }

    #[inline]
    fn store_header(&self, position: Position, header: u64) {
        if mutant::is(Mutant::LookBeforeHeader) {
            let wait_word = &self.lane.ring_consumer().wait_word;
            mutant::keep_early_look(wait_word.load(Ordering::Relaxed));
        }
        // E1: the payload, and the cleared header after it, are visible to a consumer that loads
        // this word.
        let order = mutant::order(Mutant::RelaxedCommit, Ordering::Release);
        self.lane.header(position).store(header, order);
    }

    #[inline]
    fn store_committed(&self) {
        let page = self.lane.producer();
        if !mutant::is(Mutant::SentAfterCommitted) {
            page.sent.store(self.sent, Ordering::Relaxed);
        }
        // E3: Release keeps it after the store of the header; if it came before, a kill between the
        // two would make the successor start after a header that was never written.
        page.committed.store(self.tail.get(), Ordering::Release);
        if mutant::is(Mutant::SentAfterCommitted) {
            page.sent.store(self.sent, Ordering::Relaxed);
        }
    }

    /// True if the consumer found impossible bytes on this lane, and skips it.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.lane.consumer().corrupt_at.load(Ordering::Relaxed) != 0
    }

    /// Records in the lane that this producer's stream is finished.
    pub(crate) fn mark_finished(&self) {
        self.lane
            .producer()
            .flags
            .store(LANE_FINISHED, Ordering::Release);
    }
}
