//! The producer's half of a lane: reserve, commit, batch, and taking over from a predecessor.
//!
//! The steps of publishing are numbered K1–K4 here and wherever they are spoken of (K5, the look at
//! the consumer's wait word, is the doorbell's).

use super::Damage;
use crate::layout::control::LANE_NO_MORE;
use crate::layout::record::{
    HEADER_BYTES, Meta, Record, UNPUBLISHED, decode, lead_to_line, message_header, pad_header,
    record_bytes, shorter_fit,
};
use crate::layout::view::LaneView;
use crate::layout::{Capacity, Position};
use crate::sync::{Ordering, Twin, weakened};

/// A payload of so many bytes begins at a cache line. Shorter ones are not worth the bytes that this costs:
/// 28 on the average.
pub(crate) const ALIGNED_FROM: usize = 1024;

/// Bytes that belong to the producer until it commits: a place in the lane for one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    position: Position,
    payload: u32,
    lead: u32,
}

impl Slot {
    /// For a message of so many bytes, by its length alone: to be made where that is known.
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
    fn header(self, meta: Meta) -> u64 {
        message_header(self.lead(), self.payload, meta)
    }

    pub(crate) fn len(self) -> usize {
        self.payload as usize
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

/// Why there is no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSlot {
    /// Not enough room now. If `padded`, a pad was published on the way, and a sleeping consumer
    /// must be woken all the same: it may be what it has to take before there is room.
    Full { padded: bool },
    /// `released` is impossible: somebody wrote where it must not.
    Damaged(Damage),
}

/// What a batch holds back, so that all of it appears at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HeldBack {
    /// No batch is open.
    NoBatch,
    Nothing,
    /// The header of its first record.
    First {
        position: Position,
        header: u64,
    },
}

/// The producer's half of a lane. One at a time exists per lane: the guard sees to that.
pub(crate) struct LaneProducer {
    lane: LaneView,
    capacity: Capacity,
    /// Where the next record goes.
    tail: Position,
    /// `released` as last seen.
    released: Position,
    /// A message that has fewer bytes than the tail is away from here needs no question at all: see
    /// [`quick_slot`](Self::quick_slot). Behind the tail when none is such.
    quick: Position,
    sent: u64,
    held_back: HeldBack,
}

impl LaneProducer {
    /// Takes the lane over from whoever had it, alive or dead before: begins at `committed`, walks
    /// over what was published beyond it (one record, or a batch, if the predecessor was killed
    /// between K3 and K4), and checks `released` against the end.
    pub(crate) fn take_over(lane: LaneView) -> Result<Self, Damage> {
        let capacity = lane.capacity();
        // E3, E1: whatever is found published is completely there.
        let committed = Position::new(lane.producer().committed.load(Ordering::Acquire));
        let mut tail = committed;
        let mut recovered = 0;
        if !committed.is_aligned() {
            return Err(Damage {
                position: committed,
            });
        }
        loop {
            let word = lane.header(tail).load(Ordering::Acquire);
            match decode(word, tail, capacity).map_err(|_| Damage { position: tail })? {
                Record::Unpublished => break,
                Record::Message { bytes, .. } => {
                    tail = tail.advance(bytes);
                    recovered += 1;
                }
                Record::Pad { bytes } => tail = tail.advance(bytes),
            }
            if tail.distance_from(committed) > capacity.get() {
                return Err(Damage { position: tail });
            }
        }
        let released = Position::new(lane.consumer().released.load(Ordering::Acquire));
        // I2; also refuses a `released` ahead of the end, which shows as a huge distance.
        if !released.is_aligned() || tail.distance_from(released) > capacity.get() - 8 {
            return Err(Damage { position: released });
        }
        let sent = lane
            .producer()
            .sent
            .load(Ordering::Relaxed)
            .wrapping_add(recovered);
        lane.producer().sent.store(sent, Ordering::Relaxed);
        // E3. Killed before this line: the next successor walks the same way again.
        lane.producer()
            .committed
            .store(tail.get(), Ordering::Release);
        Ok(Self {
            lane,
            capacity,
            tail,
            released,
            quick: tail,
            sent,
            held_back: HeldBack::NoBatch,
        })
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(crate) fn view(&self) -> &LaneView {
        &self.lane
    }

    /// Where the next record goes.
    #[inline]
    pub(crate) fn tail(&self) -> Position {
        self.tail
    }

    /// Messages committed on this lane, those of predecessors included.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// A place for a message if it is in the stretch that was [looked over](Self::look_ahead); `None` says to
    /// ask [`try_reserve`](Self::try_reserve).
    #[inline(always)]
    pub(crate) fn quick_slot(&self, payload: usize) -> Option<Slot> {
        let below = self.quick.ahead_of(self.tail);
        (below > 0 && (payload as u64) < below.cast_unsigned())
            .then(|| Slot::new(self.tail, payload))
    }

    /// Looks over the bytes that are free by what is known already, up to the end of the data area and at most
    /// this many, so that one comparison lets a message through. Longer messages than may be are refused
    /// elsewhere.
    pub(crate) fn look_ahead(&mut self, at_most: u64) {
        let slack = if weakened(Twin::NoSlackWord) { 0 } else { 8 };
        let taken = self.tail.distance_from(self.released) + slack;
        let room = self.capacity.get().saturating_sub(taken);
        let below = shorter_fit(self.tail, self.capacity, room.min(at_most));
        self.quick = self.tail.advance(below);
    }

    /// The next message is asked about.
    pub(crate) fn look_again(&mut self) {
        self.quick = self.tail;
    }

    /// A place for a message of `payload` bytes, which must not exceed a quarter of the capacity.
    /// Nothing becomes visible but, perhaps, a pad.
    #[inline]
    pub(crate) fn try_reserve(&mut self, payload: usize) -> Result<Slot, NoSlot> {
        debug_assert!(payload as u64 <= self.capacity.max_message());
        let mut slot = Slot::new(self.tail, payload);
        let rest = self.capacity.bytes_to_end(self.tail);
        let mut padded = false;
        if slot.bytes() > rest {
            if !self.has_room(rest).map_err(NoSlot::Damaged)? {
                return Err(NoSlot::Full { padded });
            }
            self.publish(pad_header(rest), rest, 0);
            padded = !self.is_in_batch();
            slot = Slot::new(self.tail, payload);
        }
        if !self.has_room(slot.bytes()).map_err(NoSlot::Damaged)? {
            return Err(NoSlot::Full { padded });
        }
        Ok(slot)
    }

    /// Whether a message of this many bytes has room now, pad included. Looks at `released` afresh;
    /// publishes nothing.
    pub(crate) fn has_room_for(&mut self, payload: usize) -> Result<bool, Damage> {
        let need = Slot::new(self.tail, payload).bytes();
        let rest = self.capacity.bytes_to_end(self.tail);
        // With a pad in front it is enough that the pad fits: the rest is decided after it.
        self.has_room(if need > rest { rest } else { need })
    }

    /// I2: `need` bytes and the slack word behind them are free.
    #[inline]
    fn has_room(&mut self, need: u64) -> Result<bool, Damage> {
        let slack = if weakened(Twin::NoSlackWord) { 0 } else { 8 };
        let fits = |released: Position| {
            self.tail.distance_from(released) + need + slack <= self.capacity.get()
        };
        if fits(self.released) {
            return Ok(true);
        }
        // E2: the consumer has finished with everything before `released`.
        let released = Position::new(self.lane.consumer().released.load(Ordering::Acquire));
        let behind = self.tail.distance_from(released);
        if behind > self.tail.distance_from(self.released) || !released.is_aligned() {
            return Err(Damage { position: released }); // it shrank, or passed the tail (I4)
        }
        let fits = fits(released);
        self.released = released;
        Ok(fits)
    }

    /// The same as it was when room was last looked for: no look of its own.
    pub(crate) fn last_given_back(&self) -> Position {
        self.released
    }

    /// Up to where the consumer gave the lane back, by its own word: to be compared with an earlier one only.
    pub(crate) fn given_back(&self) -> Position {
        Position::new(self.lane.consumer().released.load(Ordering::Relaxed))
    }

    /// Publishes a slot that was filled.
    #[inline]
    pub(crate) fn commit(&mut self, slot: Slot, meta: Meta) {
        debug_assert_eq!(slot.position, self.tail);
        self.publish(slot.header(meta), slot.bytes(), 1);
    }

    /// Begins to hold back: what is committed from here on appears all at once, at
    /// [`end_batch`](Self::end_batch).
    pub(crate) fn begin_batch(&mut self) {
        debug_assert!(!self.is_in_batch());
        self.held_back = HeldBack::Nothing;
    }

    /// True between the begin and the end of a batch.
    #[inline]
    pub(crate) fn is_in_batch(&self) -> bool {
        self.held_back != HeldBack::NoBatch
    }

    /// Whether nothing is held back.
    pub(crate) fn batch_is_empty(&self) -> bool {
        !matches!(self.held_back, HeldBack::First { .. })
    }

    /// Publishes the batch with one store; false if there was nothing in it.
    pub(crate) fn end_batch(&mut self) -> bool {
        match std::mem::replace(&mut self.held_back, HeldBack::NoBatch) {
            HeldBack::First { position, header } => {
                self.store_header(position, header);
                self.store_committed();
                true
            }
            HeldBack::NoBatch | HeldBack::Nothing => false,
        }
    }

    /// The same where a batch is open: most often it holds something back already.
    #[inline(always)]
    pub(crate) fn commit_to_batch(&mut self, slot: Slot, meta: Meta) {
        debug_assert_eq!(slot.position, self.tail);
        if self.batch_is_empty() {
            self.commit(slot, meta);
        } else {
            self.append(slot.position, slot.bytes(), 1);
            self.store_unseen(slot.position, slot.header(meta));
        }
    }

    /// Publishes a slot that was filled, for those who have just seen that no batch is
    /// [open](Self::is_in_batch).
    #[inline(always)]
    pub(crate) fn commit_single(&mut self, slot: Slot, meta: Meta) {
        debug_assert_eq!(slot.position, self.tail);
        debug_assert!(!self.is_in_batch());
        self.append(slot.position, slot.bytes(), 1);
        self.publish_single(slot.position, slot.header(meta));
    }

    #[inline]
    fn publish(&mut self, header: u64, bytes: u64, messages: u64) {
        let position = self.tail;
        self.append(position, bytes, messages);
        match self.held_back {
            // The first of a batch. Its own header word stays 0 (I1), so a kill anywhere before
            // the end of the batch leaves nothing of it.
            HeldBack::Nothing => self.held_back = HeldBack::First { position, header },
            HeldBack::First { .. } => self.store_unseen(position, header),
            HeldBack::NoBatch => self.publish_single(position, header),
        }
    }

    /// Behind the one that is held back nobody looks yet; end_batch publishes.
    #[inline(always)]
    fn store_unseen(&self, position: Position, header: u64) {
        self.lane.header(position).store(header, Ordering::Relaxed);
    }

    /// The tail moves on from where it is.
    #[inline(always)]
    fn append(&mut self, position: Position, bytes: u64, messages: u64) {
        debug_assert_eq!(position, self.tail);
        let next = position.advance(bytes);
        // K1: the next header is 0 before anything in front of it can be seen (I1). Killed here:
        // nothing is visible, the successor starts at `position` again.
        if !weakened(Twin::NextHeaderClearedLate) {
            self.lane.header(next).store(UNPUBLISHED, Ordering::Relaxed);
        }
        self.tail = next;
        // Wrapping: it began with a word of the segment.
        self.sent = self.sent.wrapping_add(messages);
    }

    #[inline(always)]
    fn publish_single(&mut self, position: Position, header: u64) {
        if weakened(Twin::CommittedBeforeHeader) {
            self.store_committed();
        }
        // K2 (the payload) has been done by the caller.
        // K3: the commit. Killed right behind it: the message counts, the successor walks over it.
        self.store_header(position, header);
        if weakened(Twin::NextHeaderClearedLate) {
            let next = self.lane.header(self.tail);
            next.store(UNPUBLISHED, Ordering::Relaxed);
        }
        // K4: a hint for the successor.
        if !weakened(Twin::CommittedBeforeHeader) {
            self.store_committed();
        }
    }

    #[inline]
    fn store_header(&self, position: Position, header: u64) {
        // E1: the payload, and the cleared header behind it, are visible to whoever sees this.
        let order = if weakened(Twin::RelaxedCommit) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.lane.header(position).store(header, order);
    }

    #[inline]
    fn store_committed(&self) {
        let page = self.lane.producer();
        page.sent.store(self.sent, Ordering::Relaxed);
        // E3: Release keeps it behind the header's store; hoisted over it, a kill in between would
        // make the successor start behind a header that was never written.
        page.committed.store(self.tail.get(), Ordering::Release);
    }

    /// True if the consumer found impossible bytes on this lane, and skips it.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.lane.consumer().poisoned.load(Ordering::Relaxed) != 0
    }

    /// Says that this producer sends nothing more.
    pub(crate) fn say_no_more(&self) {
        self.lane
            .producer()
            .flags
            .store(LANE_NO_MORE, Ordering::Release);
    }
}
