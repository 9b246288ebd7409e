//! The path of a message from the call to the store that publishes it.
//!
//! ```text
//! Producer::send
//!   ProducerCore::send         the fast path: Gate::fast_slot has a slot before the limit
//!     publish_single           K2 the payload · K1, K3, K4 LaneProducer::commit · K5 the consumer's wait word
//!   ProducerCore::send_slow    otherwise
//!     reserve_slow             ends a leaked batch; begin; a slot; opens the fast path
//!       begin                  what is pending: an error to report, a check of the consumer
//!       reserve_blocking       waits for room
//!     publish_single           as above
//! ```
//! Opening and closing the fast path are described in [`gate`](super::gate). The slow path opens it again whenever it
//! has found a slot.
//!
//! `reserve` and batches take the same two ways to a slot; a batch publishes when it ends.

use super::gate::Gate;
use super::liveness::ProducerConditions;
use super::room_wait::RoomWait;
use crate::channel::options::HandleOptions;
use crate::channel::parking::{Parking, Woken};
use crate::error::SendError;
use crate::guard::WakeTarget;
use crate::guard::deadline::{Deadline, Patience};
use crate::guard::wait::Outcome;
use crate::guard::wakeup::{ConsumerWaker, Due};
use crate::layout::Tag;
use crate::layout::features::{ARRAYS, WhenFull};
use crate::lifecycle::{ProducerRole, record_count};
use crate::os::barrier;
use crate::ring::produce::{ALIGNED_FROM, LaneProducer, Mode, Need, NoSlot, Slot};
use crate::sync::mutant::{self, Mutant};

pub(super) struct ProducerCore {
    pub(super) gate: Gate,
    pub(super) waker: ConsumerWaker,
    pub(super) role: ProducerRole,
    pub(super) parking: Parking,
    pub(super) options: HandleOptions,
    /// How often the consumer was woken. Statistics.
    pub(super) posts: u64,
    /// What becomes of a message for which there is no room.
    pub(super) when_full: WhenFull,
    /// Whether the ring was made for arrays.
    pub(super) has_arrays: bool,
}

impl ProducerCore {
    pub(super) fn new(role: ProducerRole, lane: LaneProducer, options: HandleOptions) -> Self {
        let target = WakeTarget::Producer { lane: role.lane() };
        Self {
            waker: ConsumerWaker::new(
                options.asymmetric_barrier && barrier::register(),
                lane.sent(),
            ),
            gate: Gate::new(lane),
            parking: Parking::new(options.wait, role.generation(), target),
            when_full: role.ring().superblock.when_full,
            has_arrays: role.ring().superblock.features & ARRAYS != 0,
            role,
            options,
            posts: 0,
        }
    }

    /// Sends one message. The fast path is compiled into the caller, for messages whose payload lies right after
    /// the header.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        tag: Tag,
        patience: Patience,
    ) -> Result<(), SendError> {
        if bytes.len() < ALIGNED_FROM
            && let Some(slot) = self.gate.fast_slot(bytes.len())
        {
            self.publish_single(slot, bytes, tag);
            return Ok(());
        }
        self.send_slow(bytes, tag, patience)
    }

    #[inline(never)]
    fn send_slow(&mut self, bytes: &[u8], tag: Tag, patience: Patience) -> Result<(), SendError> {
        match self.reserve(bytes.len(), patience) {
            Ok(slot) => {
                self.publish_single(slot, bytes, tag);
                Ok(())
            }
            Err(SendError::Full) => self.drop_or_fail(1),
            Err(error) => Err(error),
        }
    }

    /// What the ring's policy makes of messages for which there is no room. Killed before they are counted, a producer has
    /// not come to send them: they are not lost by the policy.
    #[cold]
    pub(super) fn drop_or_fail(&mut self, messages: u64) -> Result<(), SendError> {
        if self.when_full != WhenFull::Drop {
            return Err(SendError::Full);
        }
        self.gate.lane.count_dropped(messages);
        Ok(())
    }

    /// K1 to K5 for one message whose slot was just found: so the pages are there.
    #[inline(always)]
    fn publish_single(&mut self, slot: Slot, bytes: &[u8], tag: Tag) {
        let view = self.gate.lane.view();
        view.write_unchecked(slot.position(), slot.lead(), bytes);
        self.gate.lane.commit(slot, tag, Mode::Single);
        if !mutant::is(Mutant::NoWakeAfterSend) {
            self.wake_consumer_unchecked(1);
        }
    }

    /// Publishes a slot that was reserved and filled. In its caller the tag is mostly a constant; in a function of
    /// its own, the bits of the header would be computed from it.
    #[inline(always)]
    pub(super) fn commit(&mut self, slot: Slot, tag: Tag) {
        // A reservation that was carried over a fork: the message is the parent's to commit.
        if !self.gate.lane.view().is_forked() {
            self.gate.lane.commit(slot, tag, Mode::Single);
            if !mutant::is(Mutant::NoWakeAfterCommit) {
                self.wake_consumer_unchecked(1);
            }
        }
    }

    /// Adds a message to the open batch.
    #[inline]
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        tag: Tag,
        patience: Patience,
    ) -> Result<(), SendError> {
        if let Some(slot) = self.gate.fast_slot_in_batch(bytes.len()) {
            self.append(slot, bytes, tag);
            return Ok(());
        }
        self.push_slow(bytes, tag, patience)
    }

    #[inline(never)]
    fn push_slow(&mut self, bytes: &[u8], tag: Tag, patience: Patience) -> Result<(), SendError> {
        match self.reserve_slow(Need::Message(bytes.len()), patience, Mode::Batch) {
            Ok(slot) => {
                self.append(slot, bytes, tag);
                Ok(())
            }
            Err(SendError::Full) => self.drop_or_fail(1),
            Err(error) => Err(error),
        }
    }

    /// K1 and K2; K3 to K5 come at the end of the batch.
    #[inline(always)]
    fn append(&mut self, slot: Slot, bytes: &[u8], tag: Tag) {
        let view = self.gate.lane.view();
        view.write_unchecked(slot.position(), slot.lead(), bytes);
        self.gate.lane.commit(slot, tag, Mode::Batch);
    }

    /// A place for a message that is written in place.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize, patience: Patience) -> Result<Slot, SendError> {
        let position = match self.gate.fast_slot(len) {
            Some(slot) => slot.position(),
            None => {
                let need = Need::Message(len);
                self.reserve_slow(need, patience, Mode::Single)?.position()
            }
        };
        // Made here, where the length may be a constant for the compiler.
        Ok(Slot::new(position, len))
    }

    /// Finds a slot with all steps that it may need: pending conditions, padding, a wait.
    #[inline(never)]
    pub(super) fn reserve_slow(
        &mut self,
        need: Need,
        patience: Patience,
        mode: Mode,
    ) -> Result<Slot, SendError> {
        if mode == Mode::Single {
            self.end_leaked_batch();
        }
        self.begin()?;
        let max = self.gate.lane.capacity().max_message() as usize;
        if need.bytes() > max {
            return Err(SendError::TooLong { max });
        }
        let slot = match self.gate.lane.try_reserve(need, mode) {
            Ok(slot) => slot,
            Err(no_slot) => self.reserve_blocking(need, patience, mode, no_slot)?,
        };
        self.gate.open_fast_path();
        Ok(slot)
    }

    /// Handles everything that is pending, except a batch.
    #[inline]
    fn begin(&mut self) -> Result<(), SendError> {
        if !self.gate.lane.view().is_intact() {
            return Err(self.why_not_intact());
        }
        if self.gate.pending().error().is_some()
            && let Some(error) = self.gate.change(ProducerConditions::take_error)
        {
            return Err(error);
        }
        if self.gate.pending().is_check_due(self.gate.lane.tail())
            && !mutant::is(Mutant::NoCheckAfterBytes)
        {
            self.check_progress()?;
        }
        Ok(())
    }

    #[cold]
    fn reserve_blocking(
        &mut self,
        need: Need,
        patience: Patience,
        mode: Mode,
        mut no_slot: NoSlot,
    ) -> Result<Slot, SendError> {
        loop {
            match no_slot {
                NoSlot::Damaged(_) => {
                    self.check_memory()?;
                    return Err(SendError::Corrupt);
                }
                NoSlot::Full { padded } => {
                    // Padding alone must wake a sleeping consumer, or both sleep.
                    if padded && !mutant::is(Mutant::NoWakeAfterPadding) {
                        self.wake_consumer(1);
                    }
                    if let Some(error) = self.gate.pending().error() {
                        return Err(error);
                    }
                }
            }
            let Patience::Until(deadline) = patience else {
                if !(self.parking.is_polled() && self.stand_by(need)?) {
                    self.check_consumer()?;
                    return Err(SendError::Full);
                }
                match self.gate.lane.try_reserve(need, mode) {
                    Ok(slot) => return Ok(slot),
                    Err(again) => no_slot = again,
                }
                continue;
            };
            // Nothing of a batch may be held back while the producer waits for room.
            if let Some(messages) = self.gate.lane.end_batch()
                && !mutant::is(Mutant::NoWakeBeforeRoomWait)
            {
                self.wake_consumer(messages);
            }
            if self.when_full != WhenFull::Wait {
                self.check_consumer()?;
                return Err(SendError::Full);
            }
            self.wait_for_room(need, deadline)?;
            match self.gate.lane.try_reserve(need, mode) {
                Ok(slot) => return Ok(slot),
                Err(again) => no_slot = again,
            }
        }
    }

    fn room_wait(&mut self, need: Need) -> (&mut Parking, RoomWait<'_>) {
        let interrupt = self.parking.interrupt_flag();
        let target = self.parking.target();
        let side = RoomWait::new(&mut self.gate.lane, &mut self.role, interrupt, target, need);
        (&mut self.parking, side)
    }

    /// Second part of a look that found nothing, for a polled producer. True if there is room by
    /// now.
    #[cold]
    fn stand_by(&mut self, need: Need) -> Result<bool, SendError> {
        let (parking, mut side) = self.room_wait(need);
        let outcome = parking.stand_by(&mut side);
        let fate = side.fate();
        if self.parking.take_interrupt() {
            return Err(SendError::Interrupted);
        }
        match outcome.map_err(|error| self.failed(error))? {
            Some(Outcome::Ready) => Ok(true),
            Some(Outcome::Over) => Err(self.left(fate)),
            Some(Outcome::TimedOut) | None => Ok(false),
        }
    }

    #[cold]
    fn wait_for_room(&mut self, need: Need, deadline: Deadline) -> Result<(), SendError> {
        let (parking, mut side) = self.room_wait(need);
        let woken = parking.wait(&mut side, deadline);
        let fate = side.fate();
        record_count(
            &self.gate.lane.view().producer().sleeps,
            self.parking.sleeps(),
        );
        match woken.map_err(|error| self.failed(error))? {
            Woken::Ready => Ok(()),
            Woken::Interrupted => Err(SendError::Interrupted),
            Woken::TimedOut => self.check_memory().and(Err(SendError::TimedOut)),
            Woken::Over => Err(self.left(fate)),
        }
    }

    /// From here on messages are held back, until the batch ends.
    pub(super) fn begin_batch(&mut self) {
        self.end_leaked_batch();
        // (In a forked child a leaked one stays open: nothing is sent there.)
        self.gate.begin_batch();
    }

    /// Ends a batch that was leaked (`mem::forget`): without this, later messages would be held back
    /// with it for ever.
    pub(super) fn end_leaked_batch(&mut self) {
        if self.gate.pending().is_batch_open() {
            self.end_batch();
        }
    }

    /// Publishes the messages of a batch, if this process holds the lane (a forked child does not).
    #[cold]
    pub(super) fn end_batch(&mut self) {
        if self.role.ring().is_forked() {
            return;
        }
        self.gate.end_batch();
        if let Some(messages) = self.gate.lane.end_batch()
            && !mutant::is(Mutant::NoWakeAfterBatch)
        {
            self.wake_consumer(messages);
        }
    }

    /// K5, after this many messages (or padding) were published: wakes the consumer if it has announced that
    /// it sleeps.
    #[cold]
    fn wake_consumer(&mut self, messages: u32) {
        if !self.gate.lane.view().is_forked() {
            self.wake_consumer_unchecked(messages);
        }
    }

    #[inline(always)]
    pub(super) fn wake_consumer_unchecked(&mut self, messages: u32) {
        match self
            .waker
            .due(self.gate.lane.view(), self.gate.lane.sent(), messages)
        {
            Due::Nothing => {}
            due => self.attend_to(due),
        }
    }

    /// Handles the result of the look at the consumer's wait word. The message is committed: an error is kept for
    /// the next call.
    #[cold]
    fn attend_to(&mut self, due: Due) {
        let result = match due {
            Due::Post => self.post(),
            Due::Check => self.check_progress(),
            Due::AskGuard => self.check_before_asymmetric(),
            Due::Nothing => Ok(()),
        };
        if let Err(error) = result {
            self.gate.change(|pending| pending.report(error));
        }
    }

    fn post(&mut self) -> Result<(), SendError> {
        self.posts += 1;
        record_count(&self.gate.lane.view().producer().posts, self.posts);
        if let Err(error) = self.role.ring().guard.post(WakeTarget::Consumer) {
            let is_worth_telling = self.waker.is_worth_telling(error);
            return if is_worth_telling {
                Err(error.into())
            } else {
                Ok(())
            };
        }
        self.waker.posted();
        // It slept, or was killed in its sleep: check which, the call is in the kernel anyway.
        self.check_consumer()
    }
}

impl Drop for ProducerCore {
    fn drop(&mut self) {
        self.end_leaked_batch();
        if !self.role.ring().is_forked() {
            self.waker.end_asymmetric(self.gate.lane.view());
        }
    }
}

impl std::fmt::Debug for ProducerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerCore")
            .field("lane", &self.role.lane())
            .finish_non_exhaustive()
    }
}
