//! How a consumer waits for messages, and how it wakes producers that wait for room.

use std::sync::Arc;
use std::time::Duration;

use super::end_of_stream::{EndOfStream, Linger};
use crate::guard::interrupt::InterruptFlag;
use crate::guard::wait::{PeerCheck, Waiting, Wakeup};
use crate::guard::wakeup::{Waker, is_asymmetric};
use crate::guard::{GuardError, Role, Waited, WakeTarget};
use crate::lifecycle::{ConsumerRole, StreamEnd, record_count};
use crate::os::barrier;
use crate::ring::consume::LaneConsumer;
use crate::ring::merge::Merge;
use crate::sync::AtomicU64;
use crate::sync::mutant::{self, Mutant};

/// The wait words of the producers, as the consumer looks at them after each release.
pub(super) struct RoomWakers {
    /// One for each lane.
    wakers: Vec<Waker>,
    /// How often a producer was woken. Statistics.
    posts: u64,
    /// Bytes released since the last check of the guard.
    since_check: u64,
    /// The guard is checked after this many bytes.
    bytes_per_check: u64,
}

impl RoomWakers {
    pub(super) fn new(lanes: usize, bytes_per_check: u64) -> Self {
        Self {
            wakers: (0..lanes).map(|_| Waker::new()).collect(),
            posts: 0,
            since_check: 0,
            bytes_per_check,
        }
    }

    pub(super) fn posts(&self) -> u64 {
        self.posts
    }

    /// Stores `released` for a lane, and wakes its producer if that waits for room.
    #[inline]
    pub(super) fn release(
        &mut self,
        lane: &mut LaneConsumer,
        role: &ConsumerRole,
    ) -> Result<(), GuardError> {
        // A message that is dropped in a forked child: its pages are not there.
        if role.ring().is_forked() {
            return Ok(());
        }
        let bytes = lane.unreleased();
        if !lane.release() {
            return Ok(());
        }
        self.since_check += bytes;
        let number = lane.number();
        let word = &lane.view().producer().wait_word;
        if !mutant::is(Mutant::NoWakeAfterRelease) && self.wakers[number].is_due(word) {
            self.posts += 1;
            record_count(&role.page().posts, self.posts);
            let posted = role
                .ring()
                .guard
                .post(WakeTarget::Producer { lane: number });
            posted.inspect_err(|_| self.wakers[number].not_posted())?;
        }
        // How a busy consumer notices that the ring was removed.
        if self.since_check >= self.bytes_per_check {
            self.since_check = 0;
            role.ring().guard.producers_gone()?;
        }
        Ok(())
    }

    pub(super) fn release_all(
        &mut self,
        merge: &mut Merge,
        role: &ConsumerRole,
    ) -> Result<(), GuardError> {
        (0..self.wakers.len()).try_for_each(|number| self.release(merge.lane_mut(number), role))
    }
}

/// A consumer that waits for messages.
pub(super) struct MessageWait<'a> {
    merge: &'a mut Merge,
    room_wakers: &'a mut RoomWakers,
    role: &'a ConsumerRole,
    end: &'a EndOfStream,
    linger: &'a mut Linger,
    interrupt: Arc<InterruptFlag>,
    /// The attachments whose stream has ended, if the last check found that out.
    ended: Option<StreamEnd>,
    /// The last sleep was ended by a token.
    woken: bool,
}

impl<'a> MessageWait<'a> {
    pub(super) fn new(
        merge: &'a mut Merge,
        room_wakers: &'a mut RoomWakers,
        role: &'a ConsumerRole,
        end: &'a EndOfStream,
        linger: &'a mut Linger,
        interrupt: Arc<InterruptFlag>,
    ) -> Self {
        Self {
            merge,
            room_wakers,
            role,
            end,
            linger,
            interrupt,
            ended: None,
            woken: false,
        }
    }

    /// The attachments whose stream has ended, if the last check found that out.
    pub(super) fn ended(&self) -> Option<StreamEnd> {
        self.ended
    }
}

/// For a consumer that waits for messages of one lane only.
impl MessageWait<'_> {
    pub(super) fn merge(&self) -> &Merge {
        self.merge
    }

    pub(super) fn role(&self) -> &ConsumerRole {
        self.role
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    /// A sleep of a consumer that does not linger.
    pub(super) fn sleep_for_lane(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Waited, GuardError> {
        self.role.ring().check()?;
        let waited = self.wakeup().wait(timeout)?;
        self.woken = waited == Waited::Token;
        Ok(waited)
    }
}

impl Waiting for MessageWait<'_> {
    const CHECKS_ASLEEP: bool = true;

    fn word(&self) -> &AtomicU64 {
        &self.role.page().wait_word
    }

    fn wakeup(&self) -> Wakeup<'_> {
        Wakeup::new(&*self.role.ring().guard, WakeTarget::Consumer)
    }

    fn is_ready(&mut self) -> bool {
        self.merge.is_ready() || self.interrupt.is_raised()
    }

    fn is_likely_ready(&mut self) -> bool {
        self.merge.is_ready_lately() || self.interrupt.is_raised()
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        self.ended = self.end.ended_attachments(self.role, self.linger)?;
        self.role.ring().check()?;
        self.role.check_replaced()?;
        Ok(self.ended.is_some())
    }

    fn issue_barrier(&mut self) -> bool {
        let lanes = self.merge.lanes().iter();
        let mut asymmetric_lanes = lanes
            .enumerate()
            .filter(|(_, lane)| is_asymmetric(lane.view()));
        let Some((first, _)) = asymmetric_lanes.next() else {
            return true;
        };
        if mutant::is(Mutant::NoBarrier) || barrier::everywhere().is_ok() {
            return true;
        }
        // Refused, now or (by a filter of calls) since this consumer attached. No lane enters asymmetric
        // mode any more; lanes in it leave with their next commit, which sees the announcement sooner or
        // later.
        if !mutant::is(Mutant::BarrierStaysPromised) {
            self.role.cannot_barrier();
        }
        let alive = |lane| self.role.ring().guard.is_taken(Role::Producer { lane });
        // A dead producer's flag stays until the next producer attaches; its messages are visible.
        std::iter::once(first)
            .chain(asymmetric_lanes.map(|(lane, _)| lane))
            .all(|lane| matches!(alive(lane), Ok(false)))
    }

    fn flush_before_sleep(&mut self) -> Result<(), GuardError> {
        // Woken for nothing: there may be thousands of old tokens, one for each producer that left.
        // Before the announcement, so that none posted for it is lost.
        if std::mem::take(&mut self.woken) {
            self.wakeup().drain()?;
        }
        self.room_wakers.release_all(self.merge, self.role)
    }

    fn sleep(&mut self, check: PeerCheck, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        // The last look may have found zeros, and no peer would wake this sleeper.
        self.role.ring().check()?;
        let waited = match check {
            PeerCheck::WhileAsleep => self.role.ring().guard.wait_for_producers(timeout)?,
            // No process would wake it at the end of the time that it lingers.
            PeerCheck::Done => self.wakeup().wait(self.linger.nap(timeout))?,
        };
        self.woken = waited == Waited::Token;
        Ok(waited)
    }
}
