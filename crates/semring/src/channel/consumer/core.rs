//! The path of a message from the call to the load that finds it.
//!
//! ```text
//! Consumer::recv
//!   ConsumerCore::next_message the fast path: nothing pending, and a header before the lane's limit
//!   ConsumerCore::next_slow    otherwise
//!     begin                    what is pending: an end to record, a batch that was leaked, a removal
//!     find                     corrupt lanes to report; Merge::find over the lanes, which opens the fast path
//!     spin, wait               until there is something
//! Consumer::try_recv
//!   ConsumerCore::try_next     the same fast path
//!   ConsumerCore::try_next_slow
//! Message::drop                the position moves on; a quarter lap at a time is released
//! ```
//! [`Merge`] opens the fast path whenever it finds a message: up to the position where the verified headers or the
//! lane's turn ends. It is closed when the lane's position reaches that limit, and while anything is
//! [pending](crate::channel::pending) or a batch is open.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::end_of_stream::Linger;
use super::message::{Message, MessageRef};
use super::message_wait::{MessageWait, RoomWakers};
use super::release::{ConsumerConditions, Releaser};
use super::spin::spin;
use crate::channel::BYTES_PER_CHECK;
use crate::channel::options::HandleOptions;
use crate::channel::parking::{Parking, Woken};
use crate::channel::pending::Pending;
use crate::error::{RecvError, RemoveError};
use crate::guard::deadline::Deadline;
use crate::guard::wait::Outcome;
use crate::guard::{GuardError, WakeTarget};
use crate::lifecycle::{ConsumerRole, RemoveOutcome, StreamEnd, record_count, remove_idle};
use crate::os::{barrier, clock};
use crate::ring::Damage;
use crate::ring::consume::{Found, LaneConsumer};
use crate::ring::merge::{LaneDamage, Merge, Next};
use crate::sync::mutant::{self, Mutant};

/// A consumer that polls an empty ring checks with the kernel at this interval whether producers
/// are attached.
const POLL_CHECK: Duration = Duration::from_micros(50);

pub(super) struct ConsumerCore {
    pub(super) merge: Merge,
    pub(super) rest: Releaser,
    pub(super) parking: Parking,
    backoff: Backoff,
    /// The time of the last check of the guard by `try_recv`.
    last_poll_check: Option<Instant>,
    linger: Linger,
    /// The lanes whose next message continues what the predecessor had released, in order.
    pub(super) continued: Vec<usize>,
}

impl ConsumerCore {
    pub(super) fn new(
        role: ConsumerRole,
        lanes: Vec<LaneConsumer>,
        damaged: Vec<(usize, Damage)>,
        options: HandleOptions,
    ) -> Self {
        let capacity = role.ring().superblock.geometry.capacity();
        if options.asymmetric_barrier && barrier::is_available() {
            role.can_barrier();
        }
        let bytes_per_check = capacity.quarter().max(BYTES_PER_CHECK);
        let mut core = Self {
            parking: Parking::new(options.wait, role.generation(), WakeTarget::Consumer),
            rest: Releaser {
                room_wakers: RoomWakers::new(lanes.len(), bytes_per_check),
                pending: Pending::new(ConsumerConditions::default()),
                role,
                options,
            },
            backoff: Backoff::default(),
            last_poll_check: None,
            linger: Linger::new(options.linger),
            continued: (0..lanes.len())
                .filter(|&lane| lanes[lane].is_continued())
                .collect(),
            merge: Merge::new(lanes, capacity),
        };
        for (lane, Damage { position }) in damaged {
            core.record_damage(LaneDamage { lane, position });
        }
        core
    }

    /// The next message, to be given to the caller; waits until there is one.
    #[inline(always)]
    pub(super) fn next_message(&mut self, deadline: Deadline) -> Result<Message<'_>, RecvError> {
        // Read before the header: nothing is known any more after a load that acquires.
        let lane = self.merge.current();
        if let Some(found) = self.load_header() {
            return Ok(Message::new(
                self.merge.lane_mut(lane),
                &mut self.rest,
                found,
            ));
        }
        let found = self.next_slow(deadline)?;
        Ok(self.message(found))
    }

    /// The same if there is one now.
    #[inline(always)]
    pub(super) fn try_next_message(&mut self) -> Result<Message<'_>, RecvError> {
        let lane = self.merge.current();
        if let Some(found) = self.load_header() {
            return Ok(Message::new(
                self.merge.lane_mut(lane),
                &mut self.rest,
                found,
            ));
        }
        let found = self.try_next_slow()?;
        Ok(self.message(found))
    }

    /// Waits until there is a message.
    #[inline(always)]
    pub(super) fn next(&mut self, deadline: Deadline) -> Result<Found, RecvError> {
        match self.load_header() {
            Some(found) => Ok(found),
            None => self.next_slow(deadline),
        }
    }

    /// The next message if there is one now.
    #[inline(always)]
    pub(super) fn try_next(&mut self) -> Result<Found, RecvError> {
        match self.load_header() {
            Some(found) => Ok(found),
            None => self.try_next_slow(),
        }
    }

    /// The fast path: two comparisons, a look at the memory, and the load of the header.
    #[inline(always)]
    fn load_header(&self) -> Option<Found> {
        if !self.rest.pending.is_empty() {
            return None;
        }
        self.merge.load_header()
    }

    /// The message that was found last.
    #[inline(always)]
    pub(super) fn message(&mut self, found: Found) -> Message<'_> {
        Message::new(self.merge.current_mut(), &mut self.rest, found)
    }

    #[inline(never)]
    fn next_slow(&mut self, deadline: Deadline) -> Result<Found, RecvError> {
        if let Some(found) = self.rest_of_array() {
            return Ok(found);
        }
        self.begin_to_receive()?;
        loop {
            let found = self.find();
            if let Some(next) = self.recheck_truncation(found)? {
                return Ok(next);
            }
            // Only the fast path looks while it spins: nothing may be pending.
            if self.rest.pending.is_empty()
                && let Some(next) = spin(&self.merge, &mut self.parking, &mut self.backoff)
            {
                return Ok(next);
            }
            self.wait(deadline)?;
        }
    }

    #[inline(never)]
    fn try_next_slow(&mut self) -> Result<Found, RecvError> {
        if let Some(found) = self.rest_of_array() {
            return Ok(found);
        }
        self.begin_to_receive()?;
        let answer = self.receive_or_explain();
        self.recheck_truncation(answer)
    }

    /// As [`begin`](Self::begin). After the end of the stream nothing is received until the program resumes.
    #[inline]
    fn begin_to_receive(&mut self) -> Result<(), RecvError> {
        let begun = self.begin();
        match self.rest.pending.end.sticky() {
            Some(end) if begun != Err(RecvError::Forked) => Err(end),
            _ => begun,
        }
    }

    /// Goes on after the end of the stream.
    pub(super) fn resume(&mut self) {
        if self.rest.role.ring().is_forked() {
            return;
        }
        self.record_end();
        self.rest.pending.change(|pending| pending.end.resume());
    }

    /// Handles everything that is pending, except corrupt lanes.
    #[inline]
    pub(super) fn begin(&mut self) -> Result<(), RecvError> {
        if !self.rest.role.ring().is_intact() {
            return Err(self.why_not_intact());
        }
        if self.rest.pending.removed {
            return Err(self.rest.removed());
        }
        self.record_end();
        self.put_leaked_batch_back()
    }

    /// Why the ring's pages are not there.
    #[cold]
    fn why_not_intact(&mut self) -> RecvError {
        if self.rest.role.ring().is_forked() {
            return RecvError::Forked;
        }
        // Takes the guard away if the ring is truncated: this wakes the other users.
        let _ = self.rest.role.ring().check();
        self.failed(GuardError::Removed)
    }

    /// Called for every answer other than a message: it may be due to zeros in place of the ring's
    /// bytes.
    pub(super) fn recheck_truncation<T>(
        &mut self,
        answer: Result<T, RecvError>,
    ) -> Result<T, RecvError> {
        if answer.is_err() {
            let check = self.rest.role.ring().check();
            check.map_err(|error| self.failed(error))?;
        }
        answer
    }

    /// The next message, if there is one.
    #[inline]
    fn find(&mut self) -> Result<Option<Found>, RecvError> {
        if let Some(error) = self.next_corrupt_lane() {
            return Err(error);
        }
        let next = self.merge.find();
        self.sort(next)
    }

    /// The next message of one lane, if it has one.
    pub(super) fn find_on(&mut self, lane: usize) -> Result<Option<Found>, RecvError> {
        if let Some(error) = self.next_corrupt_lane() {
            return Err(error);
        }
        let next = self.merge.find_on(lane);
        self.sort(next)
    }

    #[inline]
    fn sort(&mut self, next: Result<Option<Next>, LaneDamage>) -> Result<Option<Found>, RecvError> {
        match next {
            Ok(Some(next)) => {
                if let Some(left) = next.left {
                    self.release(left)?;
                }
                self.open_stream();
                Ok(Some(next.found))
            }
            Ok(None) => Ok(None),
            Err(damage) => {
                self.record_damage(damage);
                Err(self.next_corrupt_lane().expect("just noted"))
            }
        }
    }

    /// A message was found: an end of the stream will be due.
    #[inline]
    fn open_stream(&mut self) {
        if !self.rest.pending.end.is_open() {
            self.rest.pending.change(|pending| pending.end.open());
        }
    }

    /// The lane is skipped from now on; its producer, if it sleeps for room that will never come, is woken to
    /// find that out.
    #[cold]
    pub(super) fn record_damage(&mut self, damage: LaneDamage) {
        self.rest
            .pending
            .change(|pending| pending.corrupt.push_back(damage));
        let wakeup = WakeTarget::Producer { lane: damage.lane };
        if !mutant::is(Mutant::NoWakeAtCorruption) {
            // A failure is found again by the next call.
            let _ = self.rest.role.ring().guard.post(wakeup);
        }
    }

    /// The report of a corrupt lane that is due.
    fn next_corrupt_lane(&mut self) -> Option<RecvError> {
        if self.rest.pending.corrupt.is_empty() {
            return None;
        }
        let next = |pending: &mut ConsumerConditions| pending.corrupt.pop_front();
        let LaneDamage { lane, position } = self.rest.pending.change(next)?;
        Some(RecvError::Corrupt { lane, position })
    }

    fn release(&mut self, lane: usize) -> Result<(), RecvError> {
        self.rest.release(self.merge.lane_mut(lane))
    }

    pub(super) fn release_all(&mut self) -> Result<(), RecvError> {
        let Releaser {
            room_wakers, role, ..
        } = &mut self.rest;
        let result = room_wakers.release_all(&mut self.merge, role);
        result.map_err(|error| self.failed(error))
    }

    #[cold]
    pub(super) fn failed(&mut self, error: GuardError) -> RecvError {
        self.rest.failed(error)
    }

    /// The next message, or why there is none: for a consumer that does not wait.
    fn receive_or_explain(&mut self) -> Result<Found, RecvError> {
        if let Some(next) = self.find()? {
            return Ok(next);
        }
        self.release_all()?;
        if self.parking.take_interrupt() {
            return Err(RecvError::Interrupted);
        }
        if self.parking.is_polled() {
            return self.stand_by();
        }
        let now = clock::now();
        let last = self.last_poll_check;
        if last.is_some_and(|last| now.duration_since(last) < POLL_CHECK) {
            return Err(RecvError::Empty);
        }
        self.last_poll_check = Some(now);
        let (role, linger) = (&self.rest.role, &mut self.linger);
        let ended = self.rest.pending.end.ended_attachments(role, linger);
        let replaced = self.rest.role.check_replaced();
        let ended = replaced.and(ended).map_err(|error| self.failed(error))?;
        // Producers that are gone by now published before they went: look again, and only then
        // report the end.
        match (self.find()?, ended) {
            (Some(next), _) => Ok(next),
            (None, Some(ended)) => Err(self.end(ended)),
            (None, None) => Err(RecvError::Empty),
        }
    }

    pub(super) fn message_wait(&mut self) -> (&mut Parking, MessageWait<'_>) {
        let Releaser {
            room_wakers,
            role,
            pending,
            ..
        } = &mut self.rest;
        let interrupt = self.parking.interrupt_flag();
        let side = MessageWait::new(
            &mut self.merge,
            room_wakers,
            role,
            &pending.end,
            &mut self.linger,
            interrupt,
        );
        (&mut self.parking, side)
    }

    /// Second part of a look that found nothing, for a polled consumer.
    #[cold]
    fn stand_by(&mut self) -> Result<Found, RecvError> {
        let (parking, mut side) = self.message_wait();
        let outcome = parking.stand_by(&mut side);
        let ended = side.ended();
        match outcome.map_err(|error| self.failed(error))? {
            Some(Outcome::Ready) => match self.find()? {
                Some(next) => Ok(next),
                None if self.parking.take_interrupt() => Err(RecvError::Interrupted),
                None => Err(RecvError::Empty),
            },
            Some(Outcome::Over) => Err(self.end(ended.expect("over means ended"))),
            Some(Outcome::TimedOut) | None => Err(RecvError::Empty),
        }
    }

    #[cold]
    fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        let (parking, mut side) = self.message_wait();
        let woken = parking.wait(&mut side, deadline);
        let ended = side.ended();
        self.record_sleeps();
        match woken.map_err(|error| self.failed(error))? {
            Woken::Ready => Ok(()),
            Woken::Interrupted => Err(RecvError::Interrupted),
            Woken::TimedOut => self.recheck_truncation(Err(RecvError::TimedOut)),
            Woken::Over => Err(self.end(ended.expect("over means ended"))),
        }
    }

    pub(super) fn record_sleeps(&self) {
        record_count(&self.rest.role.page().sleeps, self.parking.sleeps());
    }

    fn end(&mut self, ended: StreamEnd) -> RecvError {
        let recorded = self.rest.role.delivered_end();
        self.rest
            .pending
            .change(|pending| pending.end.returned(ended, recorded));
        self.rest.pending.end.sticky().expect("just returned")
    }

    /// Records the end that was returned last, if that has not been done.
    pub(super) fn record_end(&mut self) {
        if self.rest.pending.end.has_to_record()
            && let Some(end) = self
                .rest
                .pending
                .change(|pending| pending.end.take_to_record())
        {
            self.rest.role.record_end(end);
        }
    }

    /// Removes the ring if its stream has ended.
    pub(super) fn remove_at_end(&mut self) -> Result<RemoveOutcome, RemoveError> {
        let _ = self.put_leaked_batch_back();
        let _ = self.release_all();
        let ring = self.rest.role.ring().clone();
        let outcome = remove_idle(&ring, true, || !self.merge.is_ready())?;
        let is_removed = outcome.is_removed();
        self.rest.pending.change(|pending| {
            pending.removed |= is_removed;
            // Not removed: the stream has not ended after all. Its end is due again, also if the process
            // that prevented the removal is killed before it becomes a producer, and so never had a stream
            // of its own.
            if !is_removed {
                pending.end.open();
                pending.end.resume();
            }
        });
        Ok(outcome)
    }

    /// From here on a batch is out: messages of it are stepped over, and released when it ends.
    pub(super) fn begin_batch(&mut self) {
        self.rest.pending.begin_batch();
    }

    /// A batch that is still out when the consumer is used was leaked (`mem::forget`). Its messages come
    /// again, as a leaked message does: stepped over for ever they would never be released, and the
    /// consumer could sleep while its producer waits for their room.
    #[inline]
    fn put_leaked_batch_back(&mut self) -> Result<(), RecvError> {
        if !self.rest.pending.is_batch_open() {
            return Ok(());
        }
        self.put_batch_back();
        // Which lanes it came from is not known any more.
        self.release_all()
    }

    /// Forgets the messages that a batch took: they are found again.
    fn put_batch_back(&mut self) {
        self.rest.pending.end_batch();
        self.merge.step_back();
    }

    /// Puts back a batch that came from these lanes. Messages taken before it, on lanes that the merge left in the
    /// course of it, are released.
    pub(super) fn abandon_batch(&mut self, lanes: RangeInclusive<usize>) {
        self.put_batch_back();
        self.release_but_current(lanes);
    }

    fn release_but_current(&mut self, lanes: RangeInclusive<usize>) {
        for number in lanes {
            if number != self.merge.current() {
                // That the ring was removed is reported by the next call.
                let _ = self.release(number);
            }
        }
    }

    /// The next message of the lane that the last one came from, for a batch, if no more than a look is to be
    /// done.
    #[inline(always)]
    pub(super) fn load_header_for_batch(&self) -> Option<Found> {
        self.merge.load_header()
    }

    /// The next message for a batch. Lanes that the merge leaves are released when the batch ends.
    pub(super) fn find_for_batch(&mut self) -> Option<Next> {
        if self.rest.role.ring().is_forked() {
            return None;
        }
        let lane = self.merge.current();
        if let Some(found) = self.merge.current_mut().next_of_array() {
            let left = None;
            return Some(Next { lane, found, left });
        }
        match self.merge.find() {
            Ok(next) => next.inspect(|_| self.open_stream()),
            Err(damage) => {
                self.record_damage(damage);
                None
            }
        }
    }

    /// The message that was found last, on this lane: the read position passes it, but it is not
    /// released. For a batch, and a message that the fast path has found.
    #[inline(always)]
    pub(super) fn step_over_record(&mut self, number: usize, found: Found) -> MessageRef<'_> {
        debug_assert_eq!(number, self.current());
        let lane = self.merge.lane_mut(number);
        lane.step_over_record(&found);
        MessageRef::new(lane.view(), number, found, &self.rest.options)
    }

    /// The same for any message.
    #[inline]
    pub(super) fn step_over(&mut self, number: usize, found: Found) -> MessageRef<'_> {
        debug_assert_eq!(number, self.current());
        let lane = self.merge.lane_mut(number);
        lane.step_over(&found);
        MessageRef::new(lane.view(), number, found, &self.rest.options)
    }

    /// The lane of the last message.
    #[inline(always)]
    pub(super) fn current(&self) -> usize {
        self.merge.current()
    }

    /// Messages that a batch stepped over on these lanes.
    pub(super) fn stepped(&self, lanes: RangeInclusive<usize>) -> usize {
        let lanes = &self.merge.lanes()[lanes];
        let messages = lanes.iter().map(LaneConsumer::stepped_messages);
        messages.sum::<u64>() as usize
    }

    /// Takes the messages of a batch on these lanes, and releases each lane once; the lane on which the
    /// batch ended only if a quarter lap is due there, because more messages will follow.
    pub(super) fn end_batch(&mut self, lanes: RangeInclusive<usize>) {
        self.rest.pending.end_batch();
        for number in lanes.clone() {
            self.merge.lane_mut(number).take();
        }
        if self.merge.current_mut().is_due() {
            let _ = self.release(self.merge.current());
        }
        self.release_but_current(lanes);
    }
}

impl std::fmt::Debug for ConsumerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerCore")
            .field("lane", &self.merge.current())
            .finish_non_exhaustive()
    }
}
