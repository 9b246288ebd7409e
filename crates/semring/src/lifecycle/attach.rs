//! Taking a role, and giving it up.
//!
//! ```text
//! producer                                consumer
//! 0 the file's lock, shared               0 likewise
//! 1 semop: seat, N, rattle                1 semop: seat C, all rattles
//! 2 walk to the end of the lane           2 generation, flags, pid
//! 3 page: start, flags, pid, generation   3 read `released` of each lane
//! ```
//! Killed before 1: nothing happened. Killed after it: the kernel gives the seat back and rings the
//! bells. A producer killed before the store of its generation never attached: no end-of-stream is due
//! for it. Nothing else of 2 and 3 needs undoing: the successor writes it all anew.
//!
//! Giving up is one `semop`, too: seat, count and bell change together.

use std::time::{Duration, Instant};

use super::{RingCore, SharedRing, UnwindMark, holder};
use crate::error::AttachError;
use crate::guard::{Claim, GuardError, Seat, WakeTarget};
use crate::layout::Position;
use crate::layout::control::{CONSUMER_CLOSED, CONSUMER_LEFT, ConsumerPage, ProducerPage};
use crate::layout::view::LaneView;
use crate::os::clock;
use crate::os::process::{self, Fate};
use crate::ring::Damage;
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::LaneProducer;
use crate::sync::{AtomicU64, Ordering, yield_now};

/// How long to wait for the kernel to certify the death of somebody who was just killed. A process of
/// 1 GiB takes about 50 ms to be torn down.
const CERTIFICATE: Duration = Duration::from_secs(1);

/// How long to wait for one lane before all are looked at again: its holder may be somebody alive who
/// has not come to say so, while the lane of another dead one comes free.
const GLANCE: Duration = Duration::from_millis(10);

fn attach_error(error: GuardError) -> AttachError {
    const EACCES: i32 = 13;
    match error {
        GuardError::Removed => AttachError::Removed,
        GuardError::Os { errno: EACCES, .. } => AttachError::Permission,
        GuardError::Os { call, errno } => AttachError::Os { call, errno },
    }
}

/// Who has or had a lane by its own word.
fn said_holder(ring: &SharedRing, lane: usize) -> u32 {
    ring.view.lane(lane).producer().pid.load(Ordering::Relaxed) as u32
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(clock::now())
}

/// Being among those who have a role in the ring, for as long as this is held: its guard stays the one
/// that we know. See [`renew`](super::renew).
pub(super) struct Membership<'a>(&'a RingCore);

impl<'a> Membership<'a> {
    /// Waits at most so long while somebody makes the guard anew, which means that ours is gone.
    pub(super) fn enter(ring: &'a RingCore, end: Instant) -> Result<Self, AttachError> {
        loop {
            match ring.object.enter() {
                Ok(true) => break,
                Ok(false) if !left(end).is_zero() => yield_now(),
                _ => return Err(AttachError::Removed),
            }
        }
        let member = Self(ring);
        if ring.object.outlives_its_guard() && !holder::has_newest_guard(ring) {
            return Err(AttachError::Removed);
        }
        Ok(member)
    }

    /// Leaves it to the seat to end it.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.0.object.leave();
    }
}

fn await_no_removal(ring: &SharedRing, end: Instant) -> Result<(), AttachError> {
    match ring.guard.await_no_removal(left(end)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(AttachError::Removed),
        Err(error) => Err(attach_error(error)),
    }
}

/// To be asked with the seat taken: from then on nobody begins a removal, and one that came as far as the name
/// is seen. Its remover was killed before it came to the semaphores, or they are about to go.
fn is_nameless(ring: &RingCore) -> bool {
    // Models have no memory outside of this process.
    !cfg!(semring_loom) && ring.object.is_unlinked()
}

/// A producer's role on one lane. Dropping it is a clean detach, unless a panic drops it.
pub(crate) struct ProducerSeat {
    ring: SharedRing,
    lane: usize,
    generation: u64,
    /// The consumer's generation when this producer attached.
    consumer_generation: u64,
    consumer_seen: bool,
    /// How it counts when it leaves.
    leaving: Leaving,
    mark: UnwindMark,
}

impl ProducerSeat {
    /// Takes the lowest free lane and finds its end.
    pub(crate) fn take(ring: &SharedRing) -> Result<(Self, LaneProducer), AttachError> {
        let ring = &super::adopt(ring)?;
        let end = clock::now() + CERTIFICATE;
        let member = Membership::enter(ring, end)?;
        loop {
            let mut damaged = None;
            let mut removal = false;
            for lane in 0..ring.lanes() {
                match ring
                    .guard
                    .claim(Seat::Producer { lane })
                    .map_err(attach_error)?
                {
                    Claim::Taken => {}
                    Claim::BeingRemoved => {
                        removal = true;
                        break;
                    }
                    Claim::Granted if is_nameless(ring) => {
                        let _ = ring.guard.leave(Seat::Producer { lane });
                        return Err(AttachError::Removed);
                    }
                    Claim::Granted if !holder::register(ring, Seat::Producer { lane }) => {
                        let _ = ring.guard.leave(Seat::Producer { lane });
                        return Err(AttachError::Removed);
                    }
                    Claim::Granted => match Self::settle(ring, lane) {
                        Ok((seat, producer)) => {
                            member.keep();
                            // Dropped, the seat is given up.
                            ring.check().map_err(attach_error)?;
                            return Ok((seat, producer));
                        }
                        Err(Damage { position }) => {
                            holder::unregister(ring, Seat::Producer { lane });
                            let left = ring.guard.leave(Seat::Producer { lane });
                            ring.check().and(left).map_err(attach_error)?;
                            damaged.get_or_insert(AttachError::Corrupt { lane, position });
                        }
                    },
                }
            }
            if removal {
                await_no_removal(ring, end)?;
                continue;
            }
            if let Some(error) = damaged {
                return Err(error);
            }
            let in_time = !left(end).is_zero();
            let Some(holders) = Self::holders(ring)? else {
                // A lane was free, or went from one to another, while we looked at them one by one.
                if in_time {
                    continue;
                }
                return Err(Self::no_free_lane(ring));
            };
            // Somebody was just killed: its lane is free as soon as the kernel says so.
            let dying = holders
                .iter()
                .position(|&pid| process::fate(pid) == Fate::Dying);
            match dying {
                Some(lane) if in_time => {
                    ring.guard
                        .await_free(Seat::Producer { lane }, left(end).min(GLANCE))
                        .map_err(attach_error)?;
                }
                _ => return Err(Self::no_free_lane(ring)),
            }
        }
    }

    /// Who had the lanes at one moment, the same at which all were taken; `None` if there was none.
    fn holders(ring: &SharedRing) -> Result<Option<Vec<u32>>, AttachError> {
        let look = || -> Result<Vec<u32>, GuardError> {
            (0..ring.lanes())
                .map(|lane| {
                    let known = ring.guard.last_holder(Seat::Producer { lane })?;
                    Ok(known.unwrap_or_else(|| said_holder(ring, lane)))
                })
                .collect()
        };
        let before = look().map_err(attach_error)?;
        let full = ring.guard.producers().map_err(attach_error)? >= ring.lanes();
        let after = look().map_err(attach_error)?;
        Ok((full && before == after).then_some(after))
    }

    fn no_free_lane(ring: &SharedRing) -> AttachError {
        AttachError::NoFreeLane {
            lanes: ring.lanes(),
            pid: said_holder(ring, 0),
        }
    }

    fn settle(ring: &SharedRing, lane: usize) -> Result<(Self, LaneProducer), Damage> {
        let view = ring.view.lane(lane);
        let producer = LaneProducer::take_over(view.clone())?;
        let page = view.producer();
        let generation = page.generation.load(Ordering::Relaxed).wrapping_add(1);
        page.generation_start
            .store(producer.tail().get(), Ordering::Relaxed);
        page.flags.store(0, Ordering::Relaxed);
        page.wait_word.store(0, Ordering::Relaxed);
        page.pid.store(u64::from(process::id()), Ordering::Relaxed);
        // From here on this producer has attached, and an end-of-stream is due after it.
        page.generation.store(generation, Ordering::SeqCst);
        let mut seat = Self {
            ring: ring.clone(),
            lane,
            generation,
            consumer_generation: ring.view.consumer().generation.load(Ordering::SeqCst),
            consumer_seen: false,
            leaving: Leaving::AsDropped,
            mark: UnwindMark::now(),
        };
        // A consumer that is here now counts as met; whether it is removed shows at the first call.
        seat.consumer_seen = matches!(ring.guard.consumer_gone(), Ok(false));
        Ok((seat, producer))
    }

    pub(crate) fn ring(&self) -> &SharedRing {
        &self.ring
    }

    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    /// Nothing more is to come, whatever the seat is dropped by.
    pub(crate) fn finish(&mut self) {
        self.leaving = Leaving::Finished;
    }

    /// The stream is incomplete: what is dropped now counts as died.
    pub(crate) fn abort(&mut self) {
        self.leaving = Leaving::Aborted;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The producer's page of our lane.
    pub(crate) fn with_page<R>(&self, use_page: impl FnOnce(&ProducerPage) -> R) -> R {
        use_page(self.ring.view.lane(self.lane).producer())
    }

    /// What the consumer is to us at this moment; one probe of the guard.
    pub(crate) fn consumer(&mut self) -> Result<ConsumerFate, GuardError> {
        let absent = self.ring.guard.consumer_gone()?;
        let page = self.ring.view.consumer();
        // Read after the probe: a consumer that came and went meanwhile has raised it.
        if !absent || page.generation.load(Ordering::Acquire) != self.consumer_generation {
            self.consumer_seen = true;
        }
        let closed = match page.flags.load(Ordering::Acquire) {
            CONSUMER_CLOSED => true,
            CONSUMER_LEFT => absent,
            _ => false,
        };
        Ok(if !self.consumer_seen {
            ConsumerFate::NotMet
        } else if closed {
            ConsumerFate::Closed
        } else if absent {
            ConsumerFate::Gone
        } else {
            ConsumerFate::Present
        })
    }

    /// Forgets the consumer that was met: the next one is waited for, as at the beginning.
    pub(crate) fn forget_consumer(&mut self) -> Result<(), GuardError> {
        let page = self.ring.view.consumer();
        self.consumer_generation = page.generation.load(Ordering::Acquire);
        self.consumer_seen = !self.ring.guard.consumer_gone()?;
        Ok(())
    }
}

/// How a producer that leaves counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    /// As finished, unless a panic drops it.
    AsDropped,
    /// The stream is complete: a panic takes nothing away from it any more.
    Finished,
    /// As died: something of the stream is missing.
    Aborted,
}

/// What a producer knows about the consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConsumerFate {
    /// None was here since this producer attached.
    NotMet,
    Present,
    /// One was here, and no other took its place.
    Gone,
    /// It said that it takes nothing more.
    Closed,
}

impl Drop for ProducerSeat {
    fn drop(&mut self) {
        if self.ring.is_forked() {
            return; // the seat is the parent's
        }
        let page_done = |page: &ProducerPage| {
            page.wait_word.store(0, Ordering::Relaxed);
            // A panic is no clean end: what was to come after it is missing. The word is the only difference between
            // those that finished and those that died, so whoever aborts leaves it alone: wherever that is killed, it
            // has died once.
            let has_finished = match self.leaving {
                Leaving::AsDropped => !self.mark.is_interrupted(),
                Leaving::Finished => true,
                Leaving::Aborted => false,
            };
            if has_finished {
                let finished = page.finished.load(Ordering::Relaxed).wrapping_add(1);
                page.finished.store(finished, Ordering::Relaxed);
            }
        };
        self.with_page(page_done);
        let _ = self.ring.check();
        holder::unregister(&self.ring, Seat::Producer { lane: self.lane });
        // A removed ring has no seat to give up, and nobody to tell.
        let _ = self.ring.guard.leave(Seat::Producer { lane: self.lane });
        self.ring.object.leave();
    }
}

/// The producers up to an end of the stream, since the ring was made: numbers modulo 2^32, because both are one word of
/// the consumer page. Stored with one store: killed before it, all of the end is due again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct StreamEnd {
    /// How many had attached.
    pub(crate) attachments: u32,
    /// How many of them did not finish.
    pub(crate) died: u32,
}

impl StreamEnd {
    /// When all of this many attachments have ended.
    pub(crate) fn new(attachments: u64, finished: u64) -> Self {
        Self {
            attachments: attachments as u32,
            died: attachments.wrapping_sub(finished) as u32,
        }
    }

    fn of_word(word: u64) -> Self {
        Self {
            attachments: word as u32,
            died: (word >> 32) as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.died) << 32 | u64::from(self.attachments)
    }

    /// How many finished and how many died since an earlier end.
    pub(crate) fn since(self, earlier: Self) -> (u32, u32) {
        let attached = self.attachments.wrapping_sub(earlier.attachments);
        // No more than attached: the words are input.
        let died = self.died.wrapping_sub(earlier.died).min(attached);
        (attached - died, died)
    }
}

/// The consumer's role. Dropping it is a detach without a word; producers see a broken pipe.
pub(crate) struct ConsumerSeat {
    ring: SharedRing,
    generation: u64,
}

impl ConsumerSeat {
    /// Takes the role and finds where each lane was released last. Lanes whose control words are
    /// impossible are reported and skipped.
    #[allow(clippy::type_complexity)] // three things that belong to this moment only
    pub(crate) fn take(
        ring: &SharedRing,
    ) -> Result<(Self, Vec<LaneConsumer>, Vec<(usize, Damage)>), AttachError> {
        let ring = &super::adopt(ring)?;
        let end = clock::now() + CERTIFICATE;
        let member = Membership::enter(ring, end)?;
        loop {
            match ring.guard.claim(Seat::Consumer).map_err(attach_error)? {
                Claim::Granted if is_nameless(ring) => {
                    let _ = ring.guard.leave(Seat::Consumer);
                    return Err(AttachError::Removed);
                }
                Claim::Granted if !holder::register(ring, Seat::Consumer) => {
                    let _ = ring.guard.leave(Seat::Consumer);
                    return Err(AttachError::Removed);
                }
                Claim::Granted => break,
                Claim::BeingRemoved => await_no_removal(ring, end)?,
                Claim::Taken => {
                    let Some(pid) = Self::holder(ring)? else {
                        continue;
                    };
                    if process::fate(pid) == Fate::Alive || left(end).is_zero() {
                        return Err(AttachError::ConsumerPresent { pid });
                    }
                    ring.guard
                        .await_free(Seat::Consumer, left(end))
                        .map_err(attach_error)?;
                }
            }
        }
        let page = ring.view.consumer();
        let generation = page.generation.load(Ordering::Relaxed).wrapping_add(1);
        page.flags.store(0, Ordering::Relaxed);
        page.wait_word.store(0, Ordering::Relaxed);
        page.pid.store(u64::from(process::id()), Ordering::Relaxed);
        page.generation.store(generation, Ordering::SeqCst);
        let seat = Self {
            ring: ring.clone(),
            generation,
        };
        member.keep();

        let mut lanes = Vec::with_capacity(ring.lanes());
        let mut damaged = Vec::new();
        for lane in 0..ring.lanes() {
            let view = ring.view.lane(lane);
            match LaneConsumer::take_over(view.clone(), lane) {
                Ok(consumer) => lanes.push(consumer),
                Err(damage) => {
                    damaged.push((lane, damage));
                    lanes.push(LaneConsumer::corrupt(view, lane, damage));
                }
            }
        }
        ring.check().map_err(attach_error)?;
        // Tokens for predecessors; nobody has posted for us yet, we have not announced a sleep.
        ring.guard
            .drain(WakeTarget::Consumer)
            .map_err(attach_error)?;
        Ok((seat, lanes, damaged))
    }

    /// Who has the seat; `None` if it came free or changed hands while we asked. (Whoever finds it free is
    /// the last one who asked for it, and would be taken for its holder.)
    fn holder(ring: &SharedRing) -> Result<Option<u32>, AttachError> {
        let look = || -> Result<u32, GuardError> {
            let known = ring.guard.last_holder(Seat::Consumer)?;
            Ok(known.unwrap_or_else(|| ring.view.consumer().pid.load(Ordering::Relaxed) as u32))
        };
        let before = look().map_err(attach_error)?;
        let taken = ring.guard.is_taken(Seat::Consumer).map_err(attach_error)?;
        let after = look().map_err(attach_error)?;
        Ok((taken && before == after).then_some(after))
    }

    pub(crate) fn ring(&self) -> &SharedRing {
        &self.ring
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn page(&self) -> &ConsumerPage {
        self.ring.view.consumer()
    }

    /// Tells the producers that this consumer has every CPU go through a barrier before it sleeps.
    pub(crate) fn can_barrier(&self) {
        let generation = self.generation;
        self.page().barrier.store(generation, Ordering::Release);
    }

    /// Tells the producers that no barrier comes from this consumer any more.
    pub(crate) fn cannot_barrier(&self) {
        self.page().barrier.store(0, Ordering::Release);
    }

    /// Sum of the lanes' generations: how many producers ever attached. Grows with each of them.
    pub(crate) fn attachments(&self) -> u64 {
        attachments(&self.ring)
    }

    /// How many of them left on purpose. Exact while none is attached.
    pub(crate) fn finished(&self) -> u64 {
        (0..self.ring.lanes())
            .map(|lane| {
                self.ring
                    .view
                    .lane(lane)
                    .producer()
                    .finished
                    .load(Ordering::SeqCst)
            })
            .fold(0, u64::wrapping_add)
    }

    /// The end of the stream that was delivered last.
    pub(crate) fn delivered_end(&self) -> StreamEnd {
        StreamEnd::of_word(self.page().end_of_stream.load(Ordering::Relaxed))
    }

    /// Notes that this end of the stream was delivered.
    pub(crate) fn note_end(&self, end: StreamEnd) {
        self.page()
            .end_of_stream
            .store(end.word(), Ordering::Relaxed);
    }

    /// Says that nothing more is taken, and wakes every producer that waits for room.
    pub(crate) fn close(&self) -> Result<(), GuardError> {
        // Who attaches later is not refused: what it sends waits for the next consumer.
        self.page()
            .refused
            .store(self.attachments(), Ordering::Relaxed);
        self.page().flags.store(CONSUMER_CLOSED, Ordering::SeqCst);
        (0..self.ring.lanes())
            .try_for_each(|lane| self.ring.guard.post(WakeTarget::Producer { lane }))
    }
}

impl Drop for ConsumerSeat {
    fn drop(&mut self) {
        if self.ring.is_forked() {
            return; // the seat is the parent's
        }
        self.page().wait_word.store(0, Ordering::Relaxed);
        if self.page().flags.load(Ordering::Relaxed) == CONSUMER_CLOSED {
            self.page().flags.store(CONSUMER_LEFT, Ordering::Release);
        }
        // Before the seat is given up: the producers are to learn that it is the ring that is gone.
        let _ = self.ring.check();
        holder::unregister(&self.ring, Seat::Consumer);
        let _ = self.ring.guard.leave(Seat::Consumer);
        self.ring.object.leave();
    }
}

/// Sum of the lanes' generations: how many producers ever attached.
pub(super) fn attachments(ring: &RingCore) -> u64 {
    (0..ring.lanes())
        .map(|lane| {
            ring.view
                .lane(lane)
                .producer()
                .generation
                .load(Ordering::SeqCst)
        })
        .fold(0, u64::wrapping_add)
}

/// The generation of a lane's present (or last) holder, if what it sent includes this position, at which
/// a message was found.
pub(crate) fn generation_at(lane: &LaneView, position: Position) -> Option<u64> {
    if lane.is_forked() {
        return None;
    }
    let page = lane.producer();
    // `settle` stores where a holder begins, then its generation, before it publishes: what we saw
    // published has its generation, or a later one, here; and a later one begins ahead of it.
    for _ in 0..4 {
        let generation = page.generation.load(Ordering::Acquire);
        let start = Position::new(page.generation_start.load(Ordering::Acquire));
        if page.generation.load(Ordering::Relaxed) == generation {
            let is_known = position.has_reached(start) && !lane.is_torn();
            return is_known.then_some(generation);
        }
    }
    None // it changes as often as we look
}

/// Stores a statistic of the current holder, in a word that only it writes.
pub(crate) fn note_count(word: &AtomicU64, count: u64) {
    word.store(count, Ordering::Relaxed);
}
