//! How a consumer waits: what it asks, what it rings for producers, and on what it sleeps.

use std::time::Duration;

use crate::guard::doorbell::{Waker, is_in_burst};
use crate::guard::interrupt::InterruptFlag;
use crate::guard::wait::{Company, Waiting};
use crate::guard::{Bell, GuardError, Seat, Waited};
use crate::lifecycle::{ConsumerSeat, note_count};
use crate::os::barrier;
use crate::ring::consume::LaneConsumer;
use crate::ring::merge::Merge;
use crate::sync::AtomicU64;

/// The producers' bells, as the consumer rings them.
pub(super) struct Bells {
    pub(super) wakers: Vec<Waker>,
    pub(super) posts: u64,
    /// Bytes released since the guard was asked last.
    pub(super) since_probe: u64,
    /// It is asked again after so many.
    pub(super) until_probe: u64,
}

impl Bells {
    /// Releases what was taken on the lane of this number, and wakes its producer if it waits for room.
    #[inline]
    pub(super) fn release(
        &mut self,
        lane: &mut LaneConsumer,
        seat: &ConsumerSeat,
        number: usize,
    ) -> Result<(), GuardError> {
        // A message that is dropped in a forked child: its pages are not there.
        if seat.ring().is_forked() {
            return Ok(());
        }
        let bytes = lane.unreleased();
        if !lane.release() {
            return Ok(());
        }
        self.since_probe += bytes;
        let word = &lane.view().producer().wait_word;
        if self.wakers[number].is_due(word) {
            self.posts += 1;
            note_count(&seat.page().posts, self.posts);
            let posted = seat.ring().guard.post(Bell::Room { lane: number });
            posted.inspect_err(|_| self.wakers[number].not_posted())?;
        }
        // How a busy consumer notices that the ring was removed.
        if self.since_probe >= self.until_probe {
            self.since_probe = 0;
            seat.ring().guard.producers_gone()?;
        }
        Ok(())
    }

    pub(super) fn release_all(
        &mut self,
        merge: &mut Merge,
        seat: &ConsumerSeat,
    ) -> Result<(), GuardError> {
        (0..self.wakers.len())
            .try_for_each(|number| self.release(merge.lane_mut(number), seat, number))
    }
}

/// How many attachments have come to their end, if all have and no end-of-stream was delivered for
/// them.
pub(super) fn ended_attachments(
    seat: &ConsumerSeat,
    saw_messages: bool,
) -> Result<Option<u64>, GuardError> {
    // Whoever attaches all the time is not gone: then there is no end yet.
    for _ in 0..64 {
        // The sum before and after the probe: if nobody attached in between, it is the sum of exactly
        // those who are gone now.
        let before = seat.attachments();
        if !seat.ring().guard.producers_gone()? {
            return Ok(None);
        }
        if seat.attachments() == before {
            let due = saw_messages || before != seat.delivered_end();
            return Ok(due.then_some(before));
        }
    }
    Ok(None)
}

/// A consumer that waits for messages.
pub(super) struct MessageWait<'a> {
    pub(super) merge: &'a mut Merge,
    pub(super) bells: &'a mut Bells,
    pub(super) seat: &'a ConsumerSeat,
    pub(super) interrupt: &'a InterruptFlag,
    pub(super) saw_messages: bool,
    pub(super) ended: Option<u64>,
    pub(super) woken: bool,
}

impl Waiting for MessageWait<'_> {
    const ASKS_ASLEEP: bool = true;

    fn word(&self) -> &AtomicU64 {
        &self.seat.page().wait_word
    }

    fn is_ready(&mut self) -> bool {
        self.merge.is_ready() || self.interrupt.is_raised()
    }

    fn is_likely_ready(&mut self) -> bool {
        self.merge.is_ready_lately() || self.interrupt.is_raised()
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        self.ended = ended_attachments(self.seat, self.saw_messages)?;
        self.seat.ring().check()?;
        Ok(self.ended.is_some())
    }

    fn summon(&mut self) -> bool {
        let lanes = self.merge.lanes().iter();
        let mut in_burst = lanes
            .enumerate()
            .filter(|(_, lane)| is_in_burst(lane.view()));
        let Some((first, _)) = in_burst.next() else {
            return true;
        };
        if barrier::everywhere().is_ok() {
            return true;
        }
        // Refused, here or (a filter of calls) since we attached. No lane goes into burst any more; those
        // that are in it leave with their next commit, which sees our announcement sooner or later.
        self.seat.cannot_barrier();
        let alive = |lane| self.seat.ring().guard.is_taken(Seat::Producer { lane });
        // A dead producer's flag stays until the next one comes; what it published can be seen.
        std::iter::once(first)
            .chain(in_burst.map(|(lane, _)| lane))
            .all(|lane| matches!(alive(lane), Ok(false)))
    }

    fn settle(&mut self) -> Result<(), GuardError> {
        // Woken for nothing: there may be thousands of old tokens, one for each producer that left.
        // Before the announcement, so that none posted for it is lost.
        if std::mem::take(&mut self.woken) {
            self.seat.ring().guard.drain(Bell::Messages)?;
        }
        self.bells.release_all(self.merge, self.seat)
    }

    fn hush(&mut self) -> Result<(), GuardError> {
        self.seat.ring().guard.drain(Bell::Messages)
    }

    fn ring(&mut self) -> Result<(), GuardError> {
        self.seat.ring().guard.post(Bell::Messages)
    }

    fn sleep(&mut self, company: Company, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        // The last look may have found zeros, and nobody would wake us.
        self.seat.ring().check()?;
        let guard = &self.seat.ring().guard;
        let waited = match company {
            Company::Needed => guard.wait_for_producers(timeout)?,
            Company::AskedFor => guard.wait(Bell::Messages, timeout)?,
        };
        self.woken = waited == Waited::Token;
        Ok(waited)
    }
}
