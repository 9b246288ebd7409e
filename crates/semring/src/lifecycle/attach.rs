//! Attaching and detaching.
//!
//! ```text
//! producer                                consumer
//! 0 the file's lock, shared               0 likewise
//! 1 semop: slot, N, undo token            1 semop: slot C, all undo tokens
//! 2 walk to the end of the lane           2 generation, flags, pid
//! 3 page: start, flags, pid, generation   3 read `released` of each lane
//! ```
//! Killed before 1: nothing happened. Killed after 1: the kernel frees the slot and posts the undo
//! tokens. A producer killed before the store of its generation never attached: no end of stream is
//! due for it. Nothing else of 2 and 3 needs undoing: the successor writes all of it again.
//!
//! Detaching is one `semop`, too: slot, count and wake-up semaphore change together.

use std::time::{Duration, Instant};

use super::{RingCore, SharedRing, UnwindMark, holder};
use crate::error::AttachError;
use crate::guard::timeouts::{LANE_TIMEOUT, TEARDOWN_TIMEOUT};
use crate::guard::{Claim, GuardError, Role, WakeTarget};
use crate::layout::Position;
use crate::layout::control::{CONSUMER_CLOSED, CONSUMER_LEFT, ConsumerPage, ProducerPage};
use crate::layout::view::LaneView;
use crate::os::clock;
use crate::os::errno::EACCES;
use crate::os::process::{self, Liveness};
use crate::ring::Damage;
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::LaneProducer;
use crate::sync::mutant::{self, Mutant};
use crate::sync::{Ordering, Statistic, fence, yield_now};

fn attach_error(error: GuardError) -> AttachError {
    match error {
        GuardError::Removed => AttachError::Removed,
        GuardError::Os { errno: EACCES, .. } => AttachError::Permission,
        GuardError::Os { call, errno } => AttachError::Os { call, errno },
    }
}

/// The pid stored by the present or last holder of a lane.
fn recorded_holder(ring: &SharedRing, lane: usize) -> u32 {
    ring.view.lane(lane).producer().pid.load(Ordering::Relaxed) as u32
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(clock::now())
}

/// Membership among the holders of roles in the ring, as long as this is held: the guard can't be
/// replaced. See [`renew`](super::renew).
pub(super) struct Membership<'a>(&'a RingCore);

impl<'a> Membership<'a> {
    /// Waits at most until `end` while another process makes a new guard, which means that this one
    /// is gone.
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

    /// Leaves it to the role to end the membership.
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

/// To be checked with the slot taken: from then on no removal can begin, and one that has removed the name is
/// seen. Its remover was killed before it removed the semaphores, or will remove them soon.
fn is_nameless(ring: &RingCore) -> bool {
    // Models have no memory outside of this process.
    !cfg!(semring_loom) && ring.object.is_unlinked()
}

/// A producer's role on one lane. Dropping it detaches regularly, unless a panic drops it.
pub(crate) struct ProducerRole {
    ring: SharedRing,
    lane: usize,
    generation: u64,
    /// The consumer's generation when this producer attached.
    consumer_generation: u64,
    consumer_seen: bool,
    /// How the producer is counted when it detaches.
    leaving: Leaving,
    mark: UnwindMark,
}

impl ProducerRole {
    /// Takes the lowest free lane and finds its end.
    pub(crate) fn take(ring: &SharedRing) -> Result<(Self, LaneProducer), AttachError> {
        let ring = &super::adopt(ring)?;
        let end = clock::now() + TEARDOWN_TIMEOUT;
        let member = Membership::enter(ring, end)?;
        loop {
            let mut damaged = None;
            let mut removal = false;
            for lane in 0..ring.lanes() {
                match ring
                    .guard
                    .claim(Role::Producer { lane })
                    .map_err(attach_error)?
                {
                    Claim::Taken => {}
                    Claim::BeingRemoved => {
                        removal = true;
                        break;
                    }
                    Claim::Granted if is_nameless(ring) => {
                        let _ = ring.guard.leave(Role::Producer { lane });
                        return Err(AttachError::Removed);
                    }
                    Claim::Granted if !holder::register(ring, Role::Producer { lane }) => {
                        let _ = ring.guard.leave(Role::Producer { lane });
                        return Err(AttachError::Removed);
                    }
                    Claim::Granted => match Self::take_over(ring, lane) {
                        Ok((role, producer)) => {
                            member.keep();
                            // On an error, dropping `role` gives the slot up.
                            ring.check().map_err(attach_error)?;
                            return Ok((role, producer));
                        }
                        Err(Damage { position }) => {
                            holder::unregister(ring, Role::Producer { lane });
                            let left = ring.guard.leave(Role::Producer { lane });
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
                // A lane was free, or changed its holder, while they were checked one by one.
                if in_time {
                    continue;
                }
                return Err(Self::no_free_lane(ring));
            };
            // A holder was just killed: its lane becomes free when the kernel has ended the
            // process.
            let dying = holders
                .iter()
                .position(|&pid| process::fate(pid) == Liveness::Dying);
            match dying {
                Some(lane) if in_time => {
                    ring.guard
                        .await_free(Role::Producer { lane }, left(end).min(LANE_TIMEOUT))
                        .map_err(attach_error)?;
                }
                _ => return Err(Self::no_free_lane(ring)),
            }
        }
    }

    /// The holders of the lanes at one moment at which all were taken; `None` if there was none.
    fn holders(ring: &SharedRing) -> Result<Option<Vec<u32>>, AttachError> {
        let look = || -> Result<Vec<u32>, GuardError> {
            (0..ring.lanes())
                .map(|lane| {
                    let known = ring.guard.last_holder(Role::Producer { lane })?;
                    Ok(known.unwrap_or_else(|| recorded_holder(ring, lane)))
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
            pid: recorded_holder(ring, 0),
        }
    }

    fn take_over(ring: &SharedRing, lane: usize) -> Result<(Self, LaneProducer), Damage> {
        let view = ring.view.lane(lane);
        let mut producer = LaneProducer::take_over(view.clone())?;
        let start = producer.tail();
        // Before anything else of ours is published: what the predecessor began ends here.
        let has_cut = producer.is_cut_due();
        producer.publish_cut()?;
        let page = view.producer();
        let generation = page.generation.load(Ordering::Relaxed).wrapping_add(1);
        if mutant::is(Mutant::GenerationBeforeStart) {
            page.generation.store(generation, Ordering::SeqCst);
        }
        page.generation_start.store(start.get(), Ordering::Relaxed);
        page.flags.store(0, Ordering::Relaxed);
        page.wait_word.store(0, Ordering::Relaxed);
        page.pid.store(u64::from(process::id()), Ordering::Relaxed);
        // From here on this producer has attached, and an end-of-stream is due after it.
        page.generation.store(generation, Ordering::SeqCst);
        let mut role = Self {
            ring: ring.clone(),
            lane,
            generation,
            consumer_generation: ring.view.consumer().generation.load(Ordering::SeqCst),
            consumer_seen: false,
            leaving: Leaving::AsDropped,
            mark: UnwindMark::now(),
        };
        // A consumer that waits for the rest of what was cut finds out now (`consumer::parts`). Killed before the post: the
        // kernel posts.
        if has_cut && !mutant::is(Mutant::NoPostAfterCut) {
            if !mutant::is(Mutant::NoFenceAfterCut) {
                fence(Ordering::SeqCst);
            }
            if ring.view.consumer().wait_word.load(Ordering::Relaxed) != 0 {
                let _ = ring.guard.post(WakeTarget::Consumer);
            }
        }
        // A consumer that is attached now is this producer's known consumer; if the ring was
        // removed, the first call reports that.
        role.consumer_seen = matches!(ring.guard.consumer_gone(), Ok(false));
        Ok((role, producer))
    }

    pub(crate) fn ring(&self) -> &SharedRing {
        &self.ring
    }

    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    /// The stream is complete, however the role is dropped.
    pub(crate) fn finish(&mut self) {
        self.leaving = Leaving::Finished;
    }

    /// The stream is incomplete: the producer will count as died.
    pub(crate) fn abort(&mut self) {
        self.leaving = Leaving::Aborted;
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Calls a function with the producer's page of this lane.
    pub(crate) fn with_page<R>(&self, use_page: impl FnOnce(&ProducerPage) -> R) -> R {
        use_page(self.ring.view.lane(self.lane).producer())
    }

    /// The state of the consumer at this moment; one check of the guard.
    pub(crate) fn consumer(&mut self) -> Result<ConsumerFate, GuardError> {
        let absent = self.ring.guard.consumer_gone()?;
        let page = self.ring.view.consumer();
        // Loaded after the check: a consumer that attached and detached in between has raised it.
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

    /// Forgets the known consumer: the next one is waited for, as at the beginning.
    pub(crate) fn forget_consumer(&mut self) -> Result<(), GuardError> {
        let page = self.ring.view.consumer();
        self.consumer_generation = page.generation.load(Ordering::Acquire);
        self.consumer_seen = !self.ring.guard.consumer_gone()?;
        Ok(())
    }
}

/// How a producer is counted when it detaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    /// As finished, unless a panic drops it.
    AsDropped,
    /// As finished, even if a panic drops it.
    Finished,
    /// As died: part of the stream is missing.
    Aborted,
}

/// The state of the consumer, for a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConsumerFate {
    /// None was attached since this producer attached.
    NotMet,
    Present,
    /// One was attached, and no other has followed.
    Gone,
    /// It has closed the ring.
    Closed,
}

impl Drop for ProducerRole {
    fn drop(&mut self) {
        if self.ring.is_forked() {
            return; // the slot is the parent's
        }
        let page_done = |page: &ProducerPage| {
            page.wait_word.store(0, Ordering::Relaxed);
            // A panic is not a regular end: the rest of the stream is missing. The `finished` word is the only
            // difference between producers that finished and those that died, so an aborting producer does not write
            // it: wherever it is killed, it counts as died once.
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
        if !mutant::is(Mutant::FinishedAfterLeave) {
            self.with_page(page_done);
        }
        let _ = self.ring.check();
        holder::unregister(&self.ring, Role::Producer { lane: self.lane });
        // In a removed ring there is no slot to give up, and no peer to wake.
        let _ = self.ring.guard.leave(Role::Producer { lane: self.lane });
        if mutant::is(Mutant::FinishedAfterLeave) {
            self.with_page(page_done);
        }
        self.ring.object.leave();
    }
}

/// The producers up to an end of the stream, since the ring was made: numbers modulo 2^32, because both are in one word
/// of the consumer page. Written with one store: if the consumer is killed before it, the whole end is due again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct StreamEnd {
    /// The number that had attached.
    pub(crate) attachments: u32,
    /// The number that did not finish.
    pub(crate) died: u32,
}

impl StreamEnd {
    /// The end at which this many attachments have ended.
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

    /// The numbers that finished and that died since an earlier end.
    pub(crate) fn since(self, earlier: Self) -> (u32, u32) {
        let attached = self.attachments.wrapping_sub(earlier.attachments);
        // Not more than attached: the words are input.
        let died = self.died.wrapping_sub(earlier.died).min(attached);
        (attached - died, died)
    }
}

/// The consumer's role. Dropping it detaches without closing the ring; producers get a broken pipe.
pub(crate) struct ConsumerRole {
    ring: SharedRing,
    generation: u64,
}

impl ConsumerRole {
    /// Takes the role and loads the released position of each lane. Lanes whose control words are
    /// impossible are reported and skipped.
    #[allow(clippy::type_complexity)] // three things that belong to this moment only
    pub(crate) fn take(
        ring: &SharedRing,
    ) -> Result<(Self, Vec<LaneConsumer>, Vec<(usize, Damage)>), AttachError> {
        let ring = &super::adopt(ring)?;
        let end = clock::now() + TEARDOWN_TIMEOUT;
        let member = Membership::enter(ring, end)?;
        loop {
            match ring.guard.claim(Role::Consumer).map_err(attach_error)? {
                Claim::Granted if is_nameless(ring) => {
                    let _ = ring.guard.leave(Role::Consumer);
                    return Err(AttachError::Removed);
                }
                Claim::Granted if !holder::register(ring, Role::Consumer) => {
                    let _ = ring.guard.leave(Role::Consumer);
                    return Err(AttachError::Removed);
                }
                Claim::Granted => break,
                Claim::BeingRemoved => await_no_removal(ring, end)?,
                Claim::Taken => {
                    let Some(pid) = Self::holder(ring)? else {
                        continue;
                    };
                    if process::fate(pid) == Liveness::Alive || left(end).is_zero() {
                        return Err(AttachError::ConsumerPresent { pid });
                    }
                    ring.guard
                        .await_free(Role::Consumer, left(end))
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
        let role = Self {
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
        // Tokens for predecessors; no token is for this consumer yet, because it has not announced
        // a sleep.
        ring.guard
            .drain(WakeTarget::Consumer)
            .map_err(attach_error)?;
        Ok((role, lanes, damaged))
    }

    /// The holder of the slot; `None` if it became free or changed hands during the check. (A process that
    /// finds the slot free would itself be the last process that used the semaphore, and be taken for the
    /// holder.)
    fn holder(ring: &SharedRing) -> Result<Option<u32>, AttachError> {
        let look = || -> Result<u32, GuardError> {
            let known = ring.guard.last_holder(Role::Consumer)?;
            Ok(known.unwrap_or_else(|| ring.view.consumer().pid.load(Ordering::Relaxed) as u32))
        };
        let before = look().map_err(attach_error)?;
        let taken = ring.guard.is_taken(Role::Consumer).map_err(attach_error)?;
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

    /// Stores for the producers that this consumer makes every CPU execute a barrier before it
    /// sleeps.
    pub(crate) fn can_barrier(&self) {
        let generation = self.generation;
        self.page().barrier.store(generation, Ordering::Release);
    }

    /// Stores for the producers that this consumer makes no more barriers.
    pub(crate) fn cannot_barrier(&self) {
        self.page().barrier.store(0, Ordering::Release);
    }

    /// To be checked before a sleep: a process that replaces the ring and is killed on the way wakes its consumer, and removes
    /// nothing more.
    pub(crate) fn check_replaced(&self) -> Result<(), GuardError> {
        if super::is_replaced(&self.ring) {
            return Err(GuardError::Removed);
        }
        Ok(())
    }

    /// Sum of the lanes' generations: the number of producers that ever attached. Grows with each
    /// of them.
    pub(crate) fn attachments(&self) -> u64 {
        attachments(&self.ring)
    }

    /// The number of producers that finished. Exact while none is attached.
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

    /// Records that this end of the stream was delivered.
    pub(crate) fn record_end(&self, end: StreamEnd) {
        self.page()
            .end_of_stream
            .store(end.word(), Ordering::Relaxed);
    }

    /// Closes the ring, and wakes every producer that waits for room.
    pub(crate) fn close(&self) -> Result<(), GuardError> {
        let close = || self.page().flags.store(CONSUMER_CLOSED, Ordering::SeqCst);
        if mutant::is(Mutant::ClosedBeforeRefused) {
            close();
        }
        // A producer that attaches later is not refused: its messages wait for the next consumer. Before `flags`: a
        // process that finds the ring closed compares this number.
        self.page()
            .refused
            .store(self.attachments(), Ordering::Relaxed);
        close();
        if mutant::is(Mutant::NoWakeAtClose) {
            return Ok(());
        }
        (0..self.ring.lanes())
            .try_for_each(|lane| self.ring.guard.post(WakeTarget::Producer { lane }))
    }
}

impl Drop for ConsumerRole {
    fn drop(&mut self) {
        if self.ring.is_forked() {
            return; // the slot is the parent's
        }
        self.page().wait_word.store(0, Ordering::Relaxed);
        if self.page().flags.load(Ordering::Relaxed) == CONSUMER_CLOSED {
            self.page().flags.store(CONSUMER_LEFT, Ordering::Release);
        }
        // Before the slot is given up: if the ring is gone, the producers must see that, not a
        // broken pipe.
        let _ = self.ring.check();
        holder::unregister(&self.ring, Role::Consumer);
        let _ = self.ring.guard.leave(Role::Consumer);
        self.ring.object.leave();
    }
}

/// Sum of the lanes' generations: the number of producers that ever attached.
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

/// The generation of a lane's present (or last) holder, if its records include this position, at which a
/// message was found.
pub(crate) fn generation_at(lane: &LaneView, position: Position) -> Option<u64> {
    if lane.is_forked() {
        return None;
    }
    let page = lane.producer();
    // `take_over` stores a holder's start position, then its generation, before the holder publishes:
    // so a message that was found has its generation, or a later one, here; and a later generation
    // starts after the message.
    for _ in 0..4 {
        let generation = page.generation.load(Ordering::Acquire);
        let start = Position::new(page.generation_start.load(Ordering::Acquire));
        if page.generation.load(Ordering::Relaxed) == generation {
            let is_known = position.has_reached(start) && !lane.is_truncated();
            return is_known.then_some(generation);
        }
    }
    None // it changes as often as we look
}

/// Stores a statistic of the current holder, in a word that only it writes.
pub(crate) fn record_count(word: &Statistic, count: u64) {
    word.store(count, Ordering::Relaxed);
}
