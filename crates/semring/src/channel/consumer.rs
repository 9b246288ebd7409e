//! The consumer's role.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ASK_BYTES;
use super::batch::Batch;
use super::builder::Habits;
use super::chase::Chase;
use super::interrupt::Interrupter;
use super::kind::Kind;
use super::message::{Message, View};
use super::message_wait::{Bells, MessageWait, ended_attachments};
use super::pollable::{Pollable, pollable_error};
use crate::error::{RecvError, RemoveError};
use crate::guard::doorbell::Waker;
use crate::guard::interrupt::InterruptFlag;
use crate::guard::strategy::cpus;
use crate::guard::wait::{Deadline, Outcome, Waiter};
use crate::guard::{Bell, GuardError, Seat};
use crate::lifecycle::{ConsumerSeat, Removal, UnwindMark, note_count, remove_idle};
use crate::os::{barrier, clock};
use crate::ring::Damage;
use crate::ring::consume::{Found, LaneConsumer};
use crate::ring::merge::{LaneDamage, Merge};
use crate::sync::spin_hint;

/// How often a consumer that polls an empty ring asks the kernel whether the producers are gone.
const POLL_PROBE: Duration = Duration::from_micros(50);

/// How often a consumer that spins glances at its only lane before it looks at everything: for a microsecond
/// or less.
const GLANCES: u32 = 32;

/// The consumer: receives the messages of all lanes, each lane's in order.
///
/// A message is released when its [`Message`] is dropped; what was received and not released comes
/// again to the next consumer, with the same lane and position. The store that gives the bytes back to
/// the producer is made once in a quarter lap, before every sleep, on an empty ring, and by
/// [`flush_released`](Self::flush_released): until then a kill makes the messages come again.
///
/// ```
/// # let name = format!("doc-consumer-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// # let mut producer = ring.producer()?;
/// # producer.send(b"one")?; producer.send(b"two")?; drop(producer);
/// let mut consumer = ring.consumer()?;
/// loop {
///     match consumer.recv() {
///         Ok(message) => println!("{} bytes from lane {}", message.len(), message.lane()),
///         Err(semring::RecvError::EndOfStream) => break, // all producers are gone
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # consumer.remove_at_end()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Consumer<K> {
    core: ConsumerCore,
    kind: PhantomData<K>,
}

pub(super) struct ConsumerCore {
    pub(super) merge: Merge,
    rest: Rest,
    waiter: Waiter,
    interrupt: Arc<InterruptFlag>,
    /// Damage found and not yet reported.
    damaged: VecDeque<LaneDamage>,
    /// An end-of-stream is due although nobody attached since the last one: messages were found, or a
    /// removal at the last end did not succeed.
    saw_messages: bool,
    /// An end-of-stream was returned, for this number of attachments. It is noted in the ring with the next
    /// call, or when the consumer is dropped: the successor of a consumer that is killed, or dropped by a
    /// panic, before it acted on the end gets it again.
    end_returned: Option<(u64, UnwindMark)>,
    last_poll_probe: Option<Instant>,
    chase: Chase,
    /// A [`Batch`] is out, and may have stepped over messages.
    in_batch: bool,
    /// Somebody has our descriptor: it must be readable unless there was nothing at the last look.
    polled: bool,
}

/// What a message needs beside its lane, of which it has the only reference.
pub(super) struct Rest {
    bells: Bells,
    seat: ConsumerSeat,
    pub(super) habits: Habits,
    /// The lane of the last message.
    pub(super) lane: usize,
    removed: bool,
}

/// A message that is there.
#[cfg(feature = "tokio")]
pub(crate) struct FoundMessage(Found);

pub(super) fn recv_error(error: GuardError) -> RecvError {
    match error {
        GuardError::Removed => RecvError::Removed,
        GuardError::Os { errno, .. } => RecvError::Os { errno },
    }
}

impl Rest {
    /// Gives back what was taken on the lane of this number.
    #[inline]
    fn release(&mut self, lane: &mut LaneConsumer, number: usize) -> Result<(), RecvError> {
        let released = self.bells.release(lane, &self.seat, number);
        released.map_err(|error| {
            lane.look_again();
            self.failed(error)
        })
    }

    /// The same for the last message's.
    #[cold]
    #[inline(never)]
    pub(super) fn release_quietly(&mut self, lane: &mut LaneConsumer) {
        // A failure is found again by the next call.
        let _ = self.release(lane, self.lane);
    }

    fn failed(&mut self, error: GuardError) -> RecvError {
        self.removed |= error == GuardError::Removed;
        recv_error(error)
    }
}

impl ConsumerCore {
    #[inline]
    fn begin(&mut self) -> Result<(), RecvError> {
        if !self.rest.seat.ring().is_intact() {
            return Err(self.unfit());
        }
        if self.rest.removed {
            return Err(RecvError::Removed);
        }
        if self.end_returned.is_some() {
            self.note_end();
        }
        self.put_leaked_batch_back();
        Ok(())
    }

    /// Why the ring's pages are not there.
    #[cold]
    fn unfit(&mut self) -> RecvError {
        if self.rest.seat.ring().is_forked() {
            return RecvError::Forked;
        }
        // Lets the others know.
        let _ = self.rest.seat.ring().check();
        self.failed(GuardError::Removed)
    }

    /// An answer other than a message may come of zeros in place of the ring's bytes.
    fn honest<T>(&mut self, answer: Result<T, RecvError>) -> Result<T, RecvError> {
        if answer.is_err() {
            let check = self.rest.seat.ring().check();
            check.map_err(|error| self.failed(error))?;
        }
        answer
    }

    /// A batch that is still out when the consumer is used was leaked (`mem::forget`). Its messages come
    /// again, as a leaked message does: stepped over for ever they would never be released, and the
    /// consumer could sleep while its producer waits for their room.
    #[inline]
    fn put_leaked_batch_back(&mut self) {
        if std::mem::take(&mut self.in_batch) {
            self.step_back();
        }
    }

    fn step_back(&mut self) {
        self.merge.step_back();
        // It may have gone on to another lane than that of the last message let go of.
        self.merge.look_again();
    }

    fn batch(&mut self) -> Batch<'_> {
        self.in_batch = true;
        Batch::new(self)
    }

    /// The message that was found last.
    #[inline(always)]
    fn message(&mut self, found: Found) -> Message<'_> {
        let lane = self.merge.current();
        debug_assert_eq!(lane, self.rest.lane);
        Message::new(self.merge.lane_mut(lane), &mut self.rest, found)
    }

    #[cold]
    fn note_end(&mut self) {
        if let Some((attachments, _)) = self.end_returned.take() {
            self.rest.seat.note_end(attachments);
        }
    }

    /// The next message, if there is one.
    #[inline]
    fn find(&mut self) -> Result<Option<Found>, RecvError> {
        if !self.damaged.is_empty() {
            return Err(self.next_damage());
        }
        match self.merge.find() {
            Ok(Some(next)) => {
                if next.lane != self.rest.lane {
                    self.change_lane(next.lane)?;
                }
                self.saw_messages = true;
                Ok(Some(next.found))
            }
            Ok(None) => Ok(None),
            Err(damage) => {
                self.note_damage(damage);
                Err(self.next_damage())
            }
        }
    }

    /// The lane is skipped from now on; its producer, if it sleeps for room that will never come, is woken to
    /// find that out.
    #[cold]
    pub(super) fn note_damage(&mut self, damage: LaneDamage) {
        self.damaged.push_back(damage);
        self.merge.look_again();
        let bell = Bell::Room { lane: damage.lane };
        // A failure is found again by the next call.
        let _ = self.rest.seat.ring().guard.post(bell);
    }

    #[cold]
    fn next_damage(&mut self) -> RecvError {
        let LaneDamage { lane, position } = self
            .damaged
            .pop_front()
            .expect("asked only if there is some");
        RecvError::Poisoned { lane, position }
    }

    #[cold]
    fn change_lane(&mut self, lane: usize) -> Result<(), RecvError> {
        let left = std::mem::replace(&mut self.rest.lane, lane);
        self.release(left)
    }

    #[inline]
    fn release(&mut self, lane: usize) -> Result<(), RecvError> {
        let released = self.rest.release(self.merge.lane_mut(lane), lane);
        released.inspect_err(|_| self.merge.look_again())
    }

    fn release_all(&mut self) -> Result<(), RecvError> {
        let result = self
            .rest
            .bells
            .release_all(&mut self.merge, &self.rest.seat);
        result.map_err(|error| self.failed(error))
    }

    #[cold]
    fn failed(&mut self, error: GuardError) -> RecvError {
        self.merge.look_again();
        self.rest.failed(error)
    }

    fn try_next(&mut self) -> Result<Found, RecvError> {
        self.begin()?;
        let answer = self.look_around();
        self.honest(answer)
    }

    #[inline]
    fn look_around(&mut self) -> Result<Found, RecvError> {
        if let Some(next) = self.find()? {
            return Ok(next);
        }
        self.release_all()?;
        if self.interrupt.take() {
            return Err(RecvError::Interrupted);
        }
        if self.polled {
            return self.stand_by();
        }
        let now = clock::now();
        if self
            .last_poll_probe
            .is_some_and(|last| now.duration_since(last) < POLL_PROBE)
        {
            return Err(RecvError::Empty);
        }
        self.last_poll_probe = Some(now);
        let ended = ended_attachments(&self.rest.seat, self.saw_messages);
        let ended = ended.map_err(|error| self.failed(error))?;
        // Who is gone by now published before: look again, then believe the end.
        match (self.find()?, ended) {
            (Some(next), _) => Ok(next),
            (None, Some(attachments)) => Err(self.end(attachments)),
            (None, None) => Err(RecvError::Empty),
        }
    }

    /// Has the waiter do something for this side. Gives also how many attachments have ended, if it asked.
    fn as_waiting<R>(
        &mut self,
        act: impl FnOnce(&mut Waiter, &mut MessageWait<'_>) -> R,
    ) -> (R, Option<u64>) {
        let mut side = MessageWait {
            merge: &mut self.merge,
            bells: &mut self.rest.bells,
            seat: &self.rest.seat,
            interrupt: &self.interrupt,
            saw_messages: self.saw_messages,
            ended: None,
            woken: false,
        };
        let result = act(&mut self.waiter, &mut side);
        (result, side.ended)
    }

    /// The rest of a look in vain by a consumer that is polled.
    #[cold]
    fn stand_by(&mut self) -> Result<Found, RecvError> {
        let (outcome, ended) = self.as_waiting(|waiter, side| waiter.stand_by(side));
        match outcome.map_err(|error| self.failed(error))? {
            Some(Outcome::Ready) => match self.find()? {
                Some(next) => Ok(next),
                None if self.interrupt.take() => Err(RecvError::Interrupted),
                None => Err(RecvError::Empty),
            },
            Some(Outcome::Over) => Err(self.end(ended.expect("over means ended"))),
            Some(Outcome::TimedOut) | None => Err(RecvError::Empty),
        }
    }

    /// After a wait, which takes tokens and ends the announcement.
    fn stay_readable(&mut self) -> Result<(), RecvError> {
        if self.polled {
            let posted = self.rest.seat.ring().guard.post(Bell::Messages);
            posted.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn end(&mut self, attachments: u64) -> RecvError {
        self.end_returned = Some((attachments, UnwindMark::now()));
        self.merge.look_again();
        self.saw_messages = false;
        RecvError::EndOfStream
    }

    #[inline(always)]
    fn next(&mut self, deadline: Deadline) -> Result<Found, RecvError> {
        match self.glance() {
            Some(found) => Ok(found),
            None => self.next_slowly(deadline),
        }
    }

    #[inline(always)]
    fn next_message(&mut self, deadline: Deadline) -> Result<Message<'_>, RecvError> {
        let found = self.next(deadline)?;
        Ok(self.message(found))
    }

    /// The next message, if no more than that is to be done.
    #[inline(always)]
    fn glance(&self) -> Option<Found> {
        // Whatever else has to be done has the merge look again, which comes after `find` only.
        if self.in_batch {
            return None;
        }
        let found = self.merge.glance()?;
        debug_assert!(
            self.merge.current() == self.rest.lane
                && self.saw_messages
                && !self.rest.removed
                && self.end_returned.is_none()
                && self.damaged.is_empty()
        );
        Some(found)
    }

    #[inline(never)]
    fn next_slowly(&mut self, deadline: Deadline) -> Result<Found, RecvError> {
        self.begin()?;
        loop {
            let found = self.find();
            if let Some(next) = self.honest(found)? {
                return Ok(next);
            }
            if let Some(next) = self.glance_for_a_while() {
                return Ok(next);
            }
            self.wait(deadline)?;
        }
    }

    /// Before all that a wait takes: what is about to come is found with no more than a glance.
    fn glance_for_a_while(&mut self) -> Option<Found> {
        if self.merge.lanes().len() > 1 || !self.waiter.spins() {
            return None;
        }
        let lane = &self.merge.lanes()[0];
        let records_are_long = lane.mean_record_is_longer_than_a_line();
        for _ in 0..self.chase.pauses(lane.taken_messages()) {
            spin_hint();
        }
        for glances in 0..GLANCES {
            if let Some(next) = self.glance() {
                self.waiter.spun_well();
                self.chase.found(glances);
                return Some(next);
            }
            if records_are_long {
                lane.prefetch_second_line();
            }
            spin_hint();
        }
        self.chase.found(GLANCES);
        None
    }

    #[cold]
    fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        let (outcome, ended) = self.as_waiting(|waiter, side| waiter.wait(side, deadline));
        note_count(&self.rest.seat.page().sleeps, self.waiter.sleeps());
        self.stay_readable()?;
        if self.interrupt.take() {
            return Err(RecvError::Interrupted);
        }
        match outcome.map_err(|error| self.failed(error))? {
            Outcome::Ready => Ok(()),
            Outcome::TimedOut => self.honest(Err(RecvError::TimedOut)),
            Outcome::Over => Err(self.end(ended.expect("over means ended"))),
        }
    }

    /// The next message of the lane that the last one came from, for a batch, if no more than a look is to be
    /// done.
    #[inline(always)]
    pub(super) fn glance_for_batch(&self) -> Option<Found> {
        self.merge.glance()
    }

    /// The message that was found last, stepped over but not let go of: for a batch.
    #[inline(always)]
    pub(super) fn step(&mut self, number: usize, found: Found) -> View<'_> {
        debug_assert_eq!(number, self.merge.current());
        let lane = self.merge.lane_mut(number);
        lane.step_over(&found);
        View::new(lane.view(), number, found, &self.rest.habits)
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

    #[inline(never)]
    pub(super) fn find_for_batch(&mut self) -> Option<Found> {
        if self.rest.seat.ring().is_forked() {
            return None;
        }
        match self.merge.find() {
            Ok(next) => {
                self.saw_messages |= next.is_some();
                next.map(|next| next.found)
            }
            Err(damage) => {
                self.note_damage(damage);
                None
            }
        }
    }

    /// Lets go of what a batch stepped over on these lanes, and releases each once; but the lane that it
    /// ended on only if a quarter lap waits there: more will follow.
    pub(super) fn end_batch(&mut self, lanes: RangeInclusive<usize>) {
        self.in_batch = false;
        if !self.damaged.is_empty() {
            // It is told first, also if more was taken after it.
            self.merge.look_again();
        }
        let last = self.merge.current();
        let before = std::mem::replace(&mut self.rest.lane, last);
        for number in lanes.clone() {
            let lane = self.merge.lane_mut(number);
            lane.take();
            if lane.is_due() || number != last {
                // A failure is found again by the next call.
                let _ = self.release(number);
            }
        }
        if before != last && !lanes.contains(&before) {
            let _ = self.release(before);
        }
    }

    /// Forgets what a batch stepped over: it is found again.
    pub(super) fn put_batch_back(&mut self) {
        self.in_batch = false;
        self.step_back();
    }
}

impl<K: Kind> Consumer<K> {
    pub(super) fn new(
        seat: ConsumerSeat,
        lanes: Vec<LaneConsumer>,
        damaged: Vec<(usize, Damage)>,
        habits: Habits,
    ) -> Self {
        let capacity = seat.ring().superblock.geometry.capacity();
        let wakers = lanes.iter().map(|_| Waker::new()).collect();
        let damaged: VecDeque<_> = damaged
            .into_iter()
            .map(|(lane, Damage { position })| LaneDamage { lane, position })
            .collect();
        for &LaneDamage { lane, .. } in &damaged {
            // As in `note_damage`.
            let _ = seat.ring().guard.post(Bell::Room { lane });
        }
        let waiter = Waiter::new(habits.wait, cpus(), seat.generation());
        if habits.asymmetric_barrier && barrier::is_available() {
            seat.can_barrier();
        }
        let core = ConsumerCore {
            merge: Merge::new(lanes, capacity),
            rest: Rest {
                bells: Bells {
                    wakers,
                    posts: 0,
                    since_probe: 0,
                    until_probe: capacity.quarter().max(ASK_BYTES),
                },
                seat,
                habits,
                lane: 0,
                removed: false,
            },
            waiter,
            interrupt: InterruptFlag::new(),
            damaged,
            saw_messages: false,
            end_returned: None,
            last_poll_probe: None,
            chase: Chase::default(),
            in_batch: false,
            polled: false,
        };
        Self {
            core,
            kind: PhantomData,
        }
    }

    /// The next message; waits until there is one.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when all producers are gone and everything was received (a ring to
    /// which nobody attached since the last end-of-stream has not ended: the call waits),
    /// [`Poisoned`](RecvError::Poisoned) once for each damaged lane, [`Removed`](RecvError::Removed).
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.core.next_message(Deadline::NEVER)
    }

    /// The next message if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv`](Self::recv); end-of-stream may be seen up to 50 µs
    /// late, because the kernel is not asked more often.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        let found = self.core.try_next()?;
        Ok(self.core.message(found))
    }

    /// What [`try_recv`](Self::try_recv) would give; [`found`](Self::found) makes a message of it. In two
    /// steps, so that nothing is borrowed while a task waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_find(&mut self) -> Result<FoundMessage, RecvError> {
        self.core.try_next().map(FoundMessage)
    }

    /// The message that was found; nothing must have been called in between.
    #[cfg(feature = "tokio")]
    pub(crate) fn found(&mut self, found: FoundMessage) -> Message<'_> {
        self.core.message(found.0)
    }

    /// As [`recv`](Self::recv), but waits no longer than this.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        self.core.next_message(Deadline::after(timeout))
    }

    /// As [`recv`](Self::recv), but waits no longer than until this moment: for several calls that share
    /// one time. A message that is there is received also when the moment has passed.
    ///
    /// An [`Instant`] is a moment of CLOCK_MONOTONIC: setting the clock does not move it, and it stands
    /// still while the machine is suspended. Signals don't prolong the wait; a process that is stopped
    /// (SIGSTOP) beyond the deadline finds out when it goes on.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// # let name = format!("doc-deadline-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// # let mut producer = ring.producer()?;
    /// # let mut consumer = ring.consumer()?;
    /// # producer.send(b"one")?; producer.send(b"two")?;
    /// let deadline = Instant::now() + Duration::from_millis(20);
    /// let mut messages = Vec::new();
    /// while let Ok(message) = consumer.recv_deadline(deadline) {
    ///     messages.push(message.to_vec()); // whatever comes in 20 ms
    /// }
    /// assert_eq!(messages, [b"one", b"two"]);
    /// # drop((producer, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_>, RecvError> {
        self.core.next_message(Deadline::at(deadline))
    }

    /// Waits until there is at least one message, then gives all that can be had as a batch that is
    /// released as one. Dropped by a panic, or [put back](Batch::put_back), all come again.
    ///
    /// ```
    /// # let name = format!("doc-recv-batch-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// # let mut producer = ring.producer()?;
    /// # for _ in 0..3 { producer.send(b"x")?; }
    /// let mut consumer = ring.consumer()?;
    /// let mut batch = consumer.recv_batch()?;
    /// let mut bytes = Vec::new();
    /// while let Some(message) = batch.next_message() {
    ///     message.append_to(&mut bytes);
    /// }
    /// batch.release();
    /// assert_eq!(bytes, b"xxx");
    /// # drop((producer, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_batch(&mut self) -> Result<Batch<'_>, RecvError> {
        self.core.next(Deadline::NEVER)?;
        Ok(self.core.batch())
    }

    /// As [`recv_batch`](Self::recv_batch), but waits no longer than this.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_batch_timeout(&mut self, timeout: Duration) -> Result<Batch<'_>, RecvError> {
        self.core.next(Deadline::after(timeout))?;
        Ok(self.core.batch())
    }

    /// As [`recv_batch`](Self::recv_batch), but waits no longer than until this moment; see
    /// [`recv_deadline`](Self::recv_deadline).
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_batch_deadline(&mut self, deadline: Instant) -> Result<Batch<'_>, RecvError> {
        self.core.next(Deadline::at(deadline))?;
        Ok(self.core.batch())
    }

    /// As [`recv_batch`](Self::recv_batch), but never waits.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_batch(&mut self) -> Result<Batch<'_>, RecvError> {
        self.core.try_next()?;
        Ok(self.core.batch())
    }

    /// Gives the bytes of every released message back to the producers now: a consumer killed after
    /// this gets none of them again.
    ///
    /// # Errors
    /// [`RecvError::Removed`], [`RecvError::Forked`].
    pub fn flush_released(&mut self) -> Result<(), RecvError> {
        self.core.begin()?;
        let released = self.core.release_all();
        let check = self.core.rest.seat.ring().check();
        released.and_then(|()| check.map_err(|error| self.core.failed(error)))
    }

    /// Takes nothing more, on purpose: producers see [`SendError::Closed`](crate::SendError::Closed),
    /// at once if they wait for room. Detaches. What is unread stays in the ring.
    pub fn close(mut self) {
        if self.core.rest.seat.ring().is_forked() {
            return;
        }
        let _ = self.flush_released();
        let _ = self.core.rest.seat.close();
    }

    /// Removes the ring if its stream has ended: no producer is attached and nothing is unread. True if
    /// it is gone; false if a producer is there or something came meanwhile: go on receiving.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] if the ring is another user's, and the others.
    pub fn remove_at_end(&mut self) -> Result<bool, RemoveError> {
        let core = &mut self.core;
        if core.rest.seat.ring().is_forked() {
            return Ok(false);
        }
        core.put_leaked_batch_back();
        let _ = core.release_all();
        let ring = core.rest.seat.ring().clone();
        let removal = remove_idle(&ring, true, || !core.merge.is_ready())?;
        core.rest.removed |= removal == Removal::Removed;
        core.merge.look_again();
        // Not gone: the stream has not ended after all. Its end is due again, also if whoever was in the
        // way is killed before it becomes a producer, and so never had a stream of its own.
        core.saw_messages |= removal != Removal::Removed;
        Ok(removal == Removal::Removed)
    }

    /// How many producers ever attached to the ring. The difference between two moments tells whether
    /// a stream had several writers. 0 in a forked child, which does not have the ring's pages.
    #[must_use]
    pub fn attached_producers(&self) -> u64 {
        if self.core.rest.seat.ring().is_forked() {
            return 0;
        }
        self.core.rest.seat.attachments()
    }

    /// Messages released since the ring was made, those of predecessors included.
    #[must_use]
    pub fn received_messages(&self) -> u64 {
        self.core
            .merge
            .lanes()
            .iter()
            .map(LaneConsumer::taken_messages)
            .fold(0, u64::wrapping_add)
    }

    /// Lanes that are skipped because of impossible bytes.
    #[must_use]
    pub fn poisoned_lanes(&self) -> usize {
        self.core
            .merge
            .lanes()
            .iter()
            .filter(|lane| lane.is_poisoned())
            .count()
    }

    /// A descriptor for `poll(2)`, `epoll(7)` and event loops: see [`Pollable`]. It is readable when
    /// [`try_recv`](Self::try_recv) may have something to say: a message, the end of the stream, an
    /// error. To be asked for once; from then on a `try_recv` that gives
    /// [`Empty`](RecvError::Empty) costs a few system calls, and one that finds a message none, as before.
    ///
    /// ```
    /// use semring::{GuardChoice, RecvError, spsc};
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
    /// let mut consumer = ring.consumer()?;
    /// let mut producer = ring.producer()?;
    /// let descriptor = consumer.as_fd()?;
    /// producer.send(b"one")?;
    /// producer.send(b"two")?;
    /// drop(producer);
    /// let mut received = Vec::new();
    /// loop {
    ///     match consumer.try_recv() {
    ///         Ok(message) => received.push(message.to_vec()),
    ///         // Sockets and timers can be in the same call.
    ///         Err(RecvError::Empty) => {
    ///             let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    ///             poll(&mut set, PollTimeout::NONE)?;
    ///         }
    ///         Err(RecvError::EndOfStream) => break,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// assert_eq!(received, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](std::io::ErrorKind::Unsupported) if the ring is guarded by semaphores, which can't
    /// be polled (make it with [`GuardChoice::Pipe`](crate::GuardChoice::Pipe)), or in a forked child.
    pub fn as_fd(&mut self) -> std::io::Result<Pollable> {
        let core = &mut self.core;
        let pollable = Pollable::of(core.rest.seat.ring(), Seat::Consumer)?;
        core.polled = true;
        let posted = core.rest.seat.ring().guard.post(Bell::Messages);
        posted.map_err(pollable_error)?;
        Ok(pollable)
    }

    /// For ending a blocking call of this consumer from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        let core = &self.core;
        Interrupter::new(
            core.rest.seat.ring().clone(),
            core.interrupt.clone(),
            Bell::Messages,
        )
    }

    /// How often this consumer slept, and how often it woke a producer, in the kernel.
    #[must_use]
    pub fn kernel_calls(&self) -> (u64, u64) {
        (self.core.waiter.sleeps(), self.core.rest.bells.posts)
    }
}

impl<K> Drop for Consumer<K> {
    fn drop(&mut self) {
        let core = &mut self.core;
        if core.rest.seat.ring().is_forked() || core.rest.removed {
            return;
        }
        if core
            .end_returned
            .is_some_and(|(_, mark)| !mark.is_interrupted())
        {
            core.note_end();
        }
        let _ = core.release_all();
    }
}

impl<K> std::fmt::Debug for Consumer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("address", &self.core.rest.seat.ring().address)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ConsumerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerCore")
            .field("lane", &self.rest.lane)
            .finish_non_exhaustive()
    }
}
