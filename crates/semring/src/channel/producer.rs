//! The producer's role.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ASK_BYTES;
use super::builder::Habits;
use super::interrupt::Interrupter;
use super::kind::{Any, Kind, Mpsc};
use super::pollable::{Pollable, pollable_error};
use super::reservation::{Reservation, SendBatch};
use crate::error::{AttachError, SendError};
use crate::guard::doorbell::ConsumerWaker;
use crate::guard::interrupt::InterruptFlag;
use crate::guard::strategy::cpus;
use crate::guard::wait::{Company, Deadline, Outcome, Waiter, Waiting};
use crate::guard::{Bell, GuardError, Seat, Waited};
use crate::layout::{Meta, Position};
use crate::lifecycle::{ConsumerFate, ProducerSeat, note_count};
use crate::os::barrier;
use crate::ring::produce::{ALIGNED_FROM, LaneProducer, NoSlot, Slot};
use crate::sync::AtomicU64;

/// A producer: sends messages on a lane of its own. Dropping it detaches; what was committed stays.
///
/// A producer that is dropped by a panic has not finished its stream: it counts as died
/// ([`RingInfo::died_producers`](crate::RingInfo::died_producers)), unless it is [closed](Self::close).
///
/// Messages of one producer arrive in the order in which they were committed. One thread at a time
/// uses a producer (`&mut self`); a second producer of the same process has a lane of its own.
///
/// ```
/// # let name = format!("doc-producer-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut producer = ring.producer()?;
/// producer.send(b"copied in")?;
///
/// let mut reservation = producer.reserve(8)?;   // or written in place
/// reservation.write_at(0, b"in place");
/// reservation.commit();
///
/// let mut consumer = ring.consumer()?;
/// assert_eq!(consumer.recv()?.to_vec(), b"copied in");
/// assert_eq!(consumer.recv()?.to_vec(), b"in place");
/// # drop((producer, consumer)); ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer<K> {
    pub(super) core: ProducerCore,
    kind: PhantomData<K>,
}

/// Room that is there.
#[cfg(feature = "tokio")]
pub(crate) struct Free(Slot);

/// How long a call may wait.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Not at all.
    Try,
    Until(Deadline),
}

pub(super) struct ProducerCore {
    pub(super) lane: LaneProducer,
    pub(super) seat: ProducerSeat,
    waker: ConsumerWaker,
    waiter: Waiter,
    interrupt: Arc<InterruptFlag>,
    pub(super) habits: Habits,
    /// The next look at whether the consumer lives is made when the lane's tail is here.
    next_probe: Position,
    /// Where the tail was when the guard was asked last, if all was well then.
    asked_at: Option<Position>,
    /// What the consumer had given back when it was looked at last.
    sign_of_life: Position,
    /// What went wrong after a commit: the next call says it.
    trouble: Option<SendError>,
    posts: u64,
    /// Somebody has our descriptor: it must be readable unless there was no room at the last look.
    polled: bool,
}

pub(super) fn send_error(error: GuardError) -> SendError {
    match error {
        GuardError::Removed => SendError::Removed,
        GuardError::Os { errno, .. } => SendError::Os { errno },
    }
}

/// Why there is nothing to wait for.
fn left_by(fate: ConsumerFate) -> SendError {
    match fate {
        ConsumerFate::Closed => SendError::Closed,
        ConsumerFate::Gone => SendError::ConsumerGone,
        ConsumerFate::NotMet | ConsumerFate::Present => SendError::Poisoned,
    }
}

impl ProducerCore {
    /// What every call begins with.
    #[inline]
    fn begin(&mut self) -> Result<(), SendError> {
        if !self.lane.view().is_intact() {
            return Err(self.unfit());
        }
        if let Some(trouble) = self.trouble {
            // A broken pipe may be mended by a new consumer; a removed ring stays removed.
            if trouble != SendError::Removed {
                self.trouble = None;
            }
            return Err(trouble);
        }
        if self.lane.tail().has_reached(self.next_probe) {
            self.look_for_life()?;
        }
        Ok(())
    }

    /// Once in a quarter lap: a consumer that has given something back since the last time lives, or died
    /// just now; of any other the guard is asked. Of one that lives, too, now and then: the ring may have
    /// been removed from under both.
    #[cold]
    fn look_for_life(&mut self) -> Result<(), SendError> {
        let tail = self.lane.tail();
        let quarter = self.lane.capacity().quarter();
        let sign = self.lane.given_back();
        let lives = sign != self.sign_of_life;
        self.sign_of_life = sign;
        let asked_lately = |at| tail.distance_from(at) + quarter <= ASK_BYTES;
        if lives && self.asked_at.is_some_and(asked_lately) {
            self.next_probe = tail.advance(quarter);
            return Ok(());
        }
        self.probe()
    }

    /// Why the ring's pages are not there.
    #[cold]
    fn unfit(&mut self) -> SendError {
        if self.seat.ring().is_forked() {
            return SendError::Forked;
        }
        self.check().err().unwrap_or(SendError::Removed)
    }

    /// To be asked before an answer is believed that may come of zeros in place of the ring's bytes.
    #[cold]
    fn check(&mut self) -> Result<(), SendError> {
        let check = self.seat.ring().check();
        check.map_err(|error| self.failed(error))
    }

    /// A pipe that is broken stays so: the next call asks the guard, whatever the dead gave back before.
    #[cold]
    fn ask_again(&mut self) {
        self.next_probe = self.lane.tail();
        self.asked_at = None;
        self.lane.look_again();
    }

    /// There is nothing to wait for.
    #[cold]
    fn left(&mut self, fate: ConsumerFate) -> SendError {
        self.ask_again();
        left_by(fate)
    }

    /// Asks the guard what became of the consumer.
    #[cold]
    pub(super) fn probe(&mut self) -> Result<(), SendError> {
        // Unless all is well.
        self.ask_again();
        let fate = self.seat.consumer().map_err(|error| self.failed(error))?;
        self.check()?;
        match fate {
            ConsumerFate::Gone => return Err(SendError::ConsumerGone),
            ConsumerFate::Closed => return Err(SendError::Closed),
            ConsumerFate::NotMet | ConsumerFate::Present => {}
        }
        if self.lane.is_poisoned() {
            return Err(SendError::Poisoned);
        }
        let tail = self.lane.tail();
        self.asked_at = Some(tail);
        self.next_probe = tail.advance(self.lane.capacity().quarter());
        Ok(())
    }

    /// A removed ring stays removed: what is sent into it from here on nobody would receive.
    #[cold]
    fn failed(&mut self, error: GuardError) -> SendError {
        let error = send_error(error);
        if error == SendError::Removed {
            self.note_trouble(error);
        }
        error
    }

    /// What the next call says.
    fn note_trouble(&mut self, trouble: SendError) {
        self.trouble = Some(trouble);
        self.lane.look_again();
    }

    /// Ends a batch that was leaked (`mem::forget`): what comes now would be held back with it for ever.
    #[inline]
    pub(super) fn end_leaked_batch(&mut self) {
        if self.lane.is_in_batch() {
            self.end_batch();
        }
    }

    /// Publishes what a batch holds back, if this process is the one that has the lane.
    #[cold]
    pub(super) fn end_batch(&mut self) {
        if !self.seat.ring().is_forked() && self.lane.end_batch() {
            self.ring_bell();
        }
    }

    /// A place for a message of `len` bytes.
    #[inline(always)]
    pub(super) fn reserve(&mut self, len: usize, patience: Patience) -> Result<Slot, SendError> {
        if self.lane.view().is_intact()
            && let Some(slot) = self.lane.quick_slot(len)
        {
            return Ok(slot);
        }
        // Made here, where the compiler may know the length.
        let position = self.reserve_thoroughly(len, patience)?;
        Ok(Slot::new(position, len))
    }

    /// The same with everything that it may need: a look at the guard, a pad, a wait.
    #[inline(never)]
    fn reserve_thoroughly(
        &mut self,
        len: usize,
        patience: Patience,
    ) -> Result<Position, SendError> {
        self.begin()?;
        let max = self.lane.capacity().max_message() as usize;
        if len > max {
            return Err(SendError::TooLong { max });
        }
        let slot = match self.lane.try_reserve(len) {
            Ok(slot) => slot,
            Err(no_slot) => self.reserve_slowly(len, patience, no_slot)?,
        };
        // From here on whatever gets into the way has the next message asked about.
        if self.trouble.is_none() && !slot.position().has_reached(self.next_probe) {
            let until_probe = self.next_probe.distance_from(slot.position());
            self.lane.look_ahead(until_probe);
        }
        Ok(slot.position())
    }

    #[cold]
    fn reserve_slowly(
        &mut self,
        len: usize,
        patience: Patience,
        mut no_slot: NoSlot,
    ) -> Result<Slot, SendError> {
        loop {
            match no_slot {
                NoSlot::Damaged(_) => {
                    self.check()?;
                    return Err(SendError::Poisoned);
                }
                NoSlot::Full { padded } => {
                    // A pad alone must wake a sleeping consumer, or both sleep.
                    if padded {
                        self.wake_consumer();
                    }
                    if let Some(trouble) = self.trouble {
                        return Err(trouble);
                    }
                }
            }
            let Patience::Until(deadline) = patience else {
                if self.polled && self.stand_by(len)? {
                    match self.lane.try_reserve(len) {
                        Ok(slot) => return Ok(slot),
                        Err(again) => no_slot = again,
                    }
                    continue;
                }
                self.probe()?;
                return Err(SendError::Full);
            };
            // Nothing of a batch may be held back while we wait for room.
            // (An empty batch goes on: ended, it would never ring the bell for what follows.)
            if !self.lane.batch_is_empty() && self.lane.end_batch() {
                self.wake_consumer();
                self.lane.begin_batch();
            }
            self.wait_for_room(len, deadline)?;
            match self.lane.try_reserve(len) {
                Ok(slot) => return Ok(slot),
                Err(again) => no_slot = again,
            }
        }
    }

    /// Has the waiter do something for this side. Gives also what it learned about the consumer.
    fn as_waiting<R>(
        &mut self,
        len: usize,
        act: impl FnOnce(&mut Waiter, &mut RoomWait<'_>) -> R,
    ) -> (R, ConsumerFate) {
        let word_of = self.lane.view().clone();
        let mut side = RoomWait {
            word: &word_of.producer().wait_word,
            lane: &mut self.lane,
            seat: &mut self.seat,
            interrupt: &self.interrupt,
            len,
            fate: ConsumerFate::NotMet,
        };
        let result = act(&mut self.waiter, &mut side);
        (result, side.fate)
    }

    /// The rest of a look in vain by a producer that is polled. True if there is room by now.
    #[cold]
    fn stand_by(&mut self, len: usize) -> Result<bool, SendError> {
        let (outcome, fate) = self.as_waiting(len, |waiter, side| waiter.stand_by(side));
        if self.interrupt.take() {
            return Err(SendError::Interrupted);
        }
        match outcome.map_err(|error| self.failed(error))? {
            Some(Outcome::Ready) => Ok(true),
            Some(Outcome::Over) => Err(self.left(fate)),
            Some(Outcome::TimedOut) | None => Ok(false),
        }
    }

    /// After a wait, which takes tokens and ends the announcement.
    fn stay_readable(&mut self) -> Result<(), SendError> {
        if self.polled {
            let lane = self.seat.lane();
            let posted = self.seat.ring().guard.post(Bell::Room { lane });
            posted.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    #[cold]
    fn wait_for_room(&mut self, len: usize, deadline: Deadline) -> Result<(), SendError> {
        let (outcome, fate) = self.as_waiting(len, |waiter, side| waiter.wait(side, deadline));
        note_count(&self.lane.view().producer().sleeps, self.waiter.sleeps());
        self.stay_readable()?;
        if self.interrupt.take() {
            return Err(SendError::Interrupted);
        }
        match outcome.map_err(|error| self.failed(error))? {
            Outcome::Ready => Ok(()),
            Outcome::TimedOut => self.check().and(Err(SendError::TimedOut)),
            Outcome::Over => Err(self.left(fate)),
        }
    }

    /// Publishes a filled slot, or adds it to the batch that is held back.
    #[inline]
    pub(super) fn commit(&mut self, slot: Slot, meta: Meta) {
        // A reservation that was carried over a fork: the message is the parent's to commit.
        if !self.lane.view().is_forked() {
            self.lane.commit(slot, meta);
        }
    }

    /// K5, after something was published: wakes the consumer if it says that it sleeps.
    #[inline]
    pub(super) fn ring_bell(&mut self) {
        if !self.lane.view().is_forked() {
            self.ring_bell_here();
        }
    }

    #[inline(always)]
    fn ring_bell_here(&mut self) {
        if self.waker.is_due(self.lane.view()) {
            self.post();
        }
    }

    #[cold]
    fn wake_consumer(&mut self) {
        self.ring_bell();
    }

    #[cold]
    fn post(&mut self) {
        self.posts += 1;
        note_count(&self.lane.view().producer().posts, self.posts);
        if let Err(error) = self.seat.ring().guard.post(Bell::Messages) {
            if self.waker.is_worth_telling(error) {
                self.note_trouble(send_error(error));
            }
            return;
        }
        self.waker.posted();
        // It slept, or was killed in its sleep: ask which, the call is in the kernel anyway.
        if let Err(error) = self.probe() {
            self.note_trouble(error);
        }
    }

    #[inline(always)]
    fn send(&mut self, bytes: &[u8], meta: Meta, patience: Patience) -> Result<(), SendError> {
        self.end_leaked_batch();
        // What follows is compiled into the caller, for messages whose payload comes right behind the header.
        if bytes.len() < ALIGNED_FROM
            && self.lane.view().is_intact()
            && let Some(slot) = self.lane.quick_slot(bytes.len())
        {
            self.send_here(slot, bytes, meta);
            return Ok(());
        }
        self.send_thoroughly(bytes, meta, patience)
    }

    #[inline(never)]
    fn send_thoroughly(
        &mut self,
        bytes: &[u8],
        meta: Meta,
        patience: Patience,
    ) -> Result<(), SendError> {
        let slot = self.reserve(bytes.len(), patience)?;
        self.send_here(slot, bytes, meta);
        Ok(())
    }

    /// For those who have just seen that this is no forked child, and that no batch is open.
    #[inline(always)]
    fn send_here(&mut self, slot: Slot, bytes: &[u8], meta: Meta) {
        self.lane
            .view()
            .write_here(slot.position(), slot.lead(), bytes);
        self.lane.commit_single(slot, meta);
        self.ring_bell_here();
    }
}

impl Drop for ProducerCore {
    fn drop(&mut self) {
        self.end_leaked_batch();
        if !self.seat.ring().is_forked() {
            self.waker.end_burst(self.lane.view());
        }
    }
}

/// A producer that waits for room.
struct RoomWait<'a> {
    word: &'a AtomicU64,
    lane: &'a mut LaneProducer,
    seat: &'a mut ProducerSeat,
    interrupt: &'a InterruptFlag,
    len: usize,
    fate: ConsumerFate,
}

impl Waiting for RoomWait<'_> {
    /// A consumer may also be there and have closed, or given this lane up.
    const ASKS_ASLEEP: bool = false;

    fn word(&self) -> &AtomicU64 {
        self.word
    }

    fn is_ready(&mut self) -> bool {
        // Damage counts as ready: the next try reports it.
        self.lane.has_room_for(self.len).unwrap_or(true) || self.interrupt.is_raised()
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        self.fate = self.seat.consumer()?;
        self.seat.ring().check()?;
        let left = matches!(self.fate, ConsumerFate::Gone | ConsumerFate::Closed);
        // A consumer that skips this lane will never make room in it.
        Ok(left || self.lane.is_poisoned())
    }

    fn summon(&mut self) -> bool {
        true // the consumer fences after each release
    }

    fn settle(&mut self) -> Result<(), GuardError> {
        Ok(())
    }

    fn hush(&mut self) -> Result<(), GuardError> {
        let lane = self.seat.lane();
        self.seat.ring().guard.drain(Bell::Room { lane })
    }

    fn ring(&mut self) -> Result<(), GuardError> {
        let lane = self.seat.lane();
        self.seat.ring().guard.post(Bell::Room { lane })
    }

    fn sleep(&mut self, _: Company, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        // The last look may have found zeros, and nobody would wake us.
        self.seat.ring().check()?;
        let lane = self.seat.lane();
        self.seat.ring().guard.wait(Bell::Room { lane }, timeout)
    }
}

impl<K: Kind> Producer<K> {
    pub(super) fn new(seat: ProducerSeat, lane: LaneProducer, habits: Habits) -> Self {
        let waiter = Waiter::new(habits.wait, cpus(), seat.generation());
        let tail = lane.tail();
        let core = ProducerCore {
            next_probe: tail.advance(lane.capacity().quarter()),
            asked_at: Some(tail),
            sign_of_life: lane.last_given_back(),
            lane,
            seat,
            waker: ConsumerWaker::new(habits.asymmetric_barrier && barrier::register()),
            waiter,
            interrupt: InterruptFlag::new(),
            habits,
            trouble: None,
            posts: 0,
            polled: false,
        };
        Self {
            core,
            kind: PhantomData,
        }
    }

    /// Sends a copy of these bytes; waits while the lane is full.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`ConsumerGone`](SendError::ConsumerGone) or
    /// [`Closed`](SendError::Closed) once the consumer that was met has left,
    /// [`Removed`](SendError::Removed), and the others; the message was then not sent. Trouble found
    /// after a commit is reported by the next call.
    #[inline(always)]
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core
            .send(bytes, Meta::default(), Patience::Until(Deadline::NEVER))
    }

    /// As [`send`](Self::send), with a kind and flags for the consumer.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Panics
    /// If a flag outside [`Meta::FLAGS_MASK`] is set.
    #[inline]
    pub fn send_with(&mut self, bytes: &[u8], meta: Meta) -> Result<(), SendError> {
        assert!(meta.is_valid(), "the flags 0xf0 are reserved");
        self.core
            .send(bytes, meta, Patience::Until(Deadline::NEVER))
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    /// [`SendError::Full`] while there is no room, and those of [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core.send(bytes, Meta::default(), Patience::Try)
    }

    /// As [`send`](Self::send), but waits no longer than this.
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send`](Self::send).
    pub fn send_timeout(&mut self, bytes: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.core.send(
            bytes,
            Meta::default(),
            Patience::Until(Deadline::after(timeout)),
        )
    }

    /// As [`send`](Self::send), but waits no longer than until this moment of CLOCK_MONOTONIC. If there is
    /// room the message is sent also when the moment has passed.
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send`](Self::send).
    pub fn send_deadline(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), SendError> {
        let patience = Patience::Until(Deadline::at(deadline));
        self.core.send(bytes, Meta::default(), patience)
    }

    /// Reserves room for a message of `len` bytes, to be written in place; waits while the lane is
    /// full. Nothing is visible before [`Reservation::commit`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.core.end_leaked_batch();
        let slot = self.core.reserve(len, Patience::Until(Deadline::NEVER))?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// As [`reserve`](Self::reserve), but never waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.core.end_leaked_batch();
        let slot = self.core.reserve(len, Patience::Try)?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// What [`try_reserve`](Self::try_reserve) would give; [`free`](Self::free) makes a reservation of it.
    /// In two steps, so that nothing is borrowed while a task waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_find_room(&mut self, len: usize) -> Result<Free, SendError> {
        self.core.end_leaked_batch();
        self.core.reserve(len, Patience::Try).map(Free)
    }

    /// The reservation of the room that was found; nothing must have been called in between.
    #[cfg(feature = "tokio")]
    pub(crate) fn free(&mut self, free: Free) -> Reservation<'_> {
        Reservation::new(&mut self.core, free.0)
    }

    /// As [`reserve`](Self::reserve), but waits no longer than this.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn reserve_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_>, SendError> {
        self.core.end_leaked_batch();
        let slot = self
            .core
            .reserve(len, Patience::Until(Deadline::after(timeout)))?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// As [`reserve`](Self::reserve), but waits no longer than until this moment of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline).
    pub fn reserve_deadline(
        &mut self,
        len: usize,
        deadline: Instant,
    ) -> Result<Reservation<'_>, SendError> {
        self.core.end_leaked_batch();
        let patience = Patience::Until(Deadline::at(deadline));
        let slot = self.core.reserve(len, patience)?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// Begins a batch: messages pushed into it become visible together, with one publishing store,
    /// when it is committed.
    ///
    /// ```
    /// # let name = format!("doc-batch-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// let mut producer = ring.producer()?;
    /// let mut batch = producer.batch();
    /// for number in 0..100u32 {
    ///     batch.push(&number.to_le_bytes())?;
    /// }
    /// batch.commit();
    /// assert_eq!(ring.info()?.unread_messages(), 100);
    /// # drop(producer); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&mut self) -> SendBatch<'_> {
        SendBatch::new(&mut self.core)
    }

    /// Asks the kernel whether the consumer is still there: one call, about 0.2 µs. `send` does so by
    /// itself whenever it sleeps or wakes the consumer, and when half a lap went by without a sign of its life.
    ///
    /// # Errors
    /// [`SendError::ConsumerGone`] or [`SendError::Closed`] if one was met and is gone,
    /// [`SendError::Removed`].
    pub fn probe(&mut self) -> Result<(), SendError> {
        if self.core.seat.ring().is_forked() {
            return Err(SendError::Forked);
        }
        self.core.trouble = None;
        self.core.probe()
    }

    /// Goes on after [`SendError::ConsumerGone`]: the next consumer is awaited as the first one was.
    /// Nothing that was committed is lost by the change.
    ///
    /// # Errors
    /// [`SendError::Removed`].
    pub fn await_next_consumer(&mut self) -> Result<(), SendError> {
        if self.core.seat.ring().is_forked() {
            return Err(SendError::Forked);
        }
        self.core.trouble = None;
        let forgotten = self.core.seat.forget_consumer();
        forgotten.map_err(|error| self.core.failed(error))?;
        self.core.check()
    }

    /// Says that this producer sends nothing more, and detaches. Dropping it does the same without
    /// the word. A producer that is closed has finished, also while a panic unwinds the thread.
    pub fn close(mut self) {
        if !self.core.seat.ring().is_forked() {
            let core = &mut self.core;
            core.end_leaked_batch();
            // Before the word, which stands where the flag does.
            core.waker.end_burst(core.lane.view());
            core.lane.say_no_more();
            core.seat.finish();
        }
    }

    /// The longest message in bytes: a quarter of the lane's capacity.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.core.lane.capacity().max_message() as usize
    }

    /// Which lane of the ring this producer has, from 0.
    #[must_use]
    pub fn lane(&self) -> usize {
        self.core.seat.lane()
    }

    /// Where the next record begins on this lane.
    #[must_use]
    pub fn position(&self) -> Position {
        self.core.lane.tail()
    }

    /// Messages committed on this lane since the ring was made, those of predecessors included.
    #[must_use]
    pub fn sent_messages(&self) -> u64 {
        self.core.lane.sent()
    }

    /// A descriptor for `poll(2)`, `epoll(7)` and event loops: see [`Pollable`]. It is *readable* when
    /// [`try_send`](Self::try_send) may succeed, or has an error to tell: ask for POLLIN. To be asked for
    /// once; from then on a `try_send` that gives [`Full`](SendError::Full) costs a few system calls.
    ///
    /// ```
    /// use semring::{GuardChoice, SendError, spsc};
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
    /// let mut producer = ring.producer()?;
    /// let descriptor = producer.as_fd()?;
    /// while producer.try_send(&[0; 1000]).is_ok() {}
    /// assert_eq!(producer.try_send(&[0; 1000]), Err(SendError::Full));
    /// let now = PollTimeout::ZERO;
    /// let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    /// assert_eq!(poll(&mut set, now)?, 0);
    /// let mut consumer = ring.consumer()?;
    /// while consumer.try_recv().is_ok() {}
    /// assert_eq!(poll(&mut set, now)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Consumer::as_fd`](crate::Consumer::as_fd).
    pub fn as_fd(&mut self) -> std::io::Result<Pollable> {
        let core = &mut self.core;
        let lane = core.seat.lane();
        let pollable = Pollable::of(core.seat.ring(), Seat::Producer { lane })?;
        core.polled = true;
        let posted = core.seat.ring().guard.post(Bell::Room { lane });
        posted.map_err(pollable_error)?;
        Ok(pollable)
    }

    /// For ending a blocking call of this producer from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        let lane = self.core.seat.lane();
        Interrupter::new(
            self.core.seat.ring().clone(),
            self.core.interrupt.clone(),
            Bell::Room { lane },
        )
    }

    /// How often this producer slept, and how often it woke the consumer, in the kernel.
    #[must_use]
    pub fn kernel_calls(&self) -> (u64, u64) {
        (self.core.waiter.sleeps(), self.core.posts)
    }

    fn another(&self) -> Result<Self, AttachError> {
        let (seat, lane) = ProducerSeat::take(self.core.seat.ring())?;
        Ok(Self::new(seat, lane, self.core.habits))
    }
}

impl Producer<Mpsc> {
    /// Another producer, with a lane of its own.
    ///
    /// # Errors
    /// As [`Ring::producer`](crate::Ring::producer).
    pub fn try_clone(&self) -> Result<Self, AttachError> {
        self.another()
    }
}

impl Producer<Any> {
    /// Another producer, with a lane of its own.
    ///
    /// # Errors
    /// As [`Ring::producer`](crate::Ring::producer).
    pub fn try_clone(&self) -> Result<Self, AttachError> {
        self.another()
    }
}

impl<K> std::fmt::Debug for Producer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("address", &self.core.seat.ring().address)
            .field("lane", &self.core.seat.lane())
            .finish_non_exhaustive()
    }
}
