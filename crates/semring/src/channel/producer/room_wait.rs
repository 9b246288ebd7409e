//! How a producer waits for room.

use std::sync::Arc;
use std::time::Duration;

use crate::guard::interrupt::InterruptFlag;
use crate::guard::wait::{PeerCheck, Waiting, Wakeup};
use crate::guard::{GuardError, Waited, WakeTarget};
use crate::layout::view::LaneView;
use crate::lifecycle::{ConsumerFate, ProducerRole};
use crate::ring::produce::{LaneProducer, Need};
use crate::sync::AtomicU64;

/// A producer that waits for room.
pub(super) struct RoomWait<'a> {
    view: LaneView,
    lane: &'a mut LaneProducer,
    role: &'a mut ProducerRole,
    interrupt: Arc<InterruptFlag>,
    target: WakeTarget,
    need: Need,
    /// The result of the last check.
    fate: ConsumerFate,
}

impl<'a> RoomWait<'a> {
    pub(super) fn new(
        lane: &'a mut LaneProducer,
        role: &'a mut ProducerRole,
        interrupt: Arc<InterruptFlag>,
        target: WakeTarget,
        need: Need,
    ) -> Self {
        Self {
            view: lane.view().clone(),
            lane,
            role,
            interrupt,
            target,
            need,
            fate: ConsumerFate::NotMet,
        }
    }

    /// The consumer's state at the last check.
    pub(super) fn fate(&self) -> ConsumerFate {
        self.fate
    }
}

impl Waiting for RoomWait<'_> {
    /// A consumer may also be there and have closed, or skip this lane.
    const CHECKS_ASLEEP: bool = false;

    fn word(&self) -> &AtomicU64 {
        &self.view.producer().wait_word
    }

    fn wakeup(&self) -> Wakeup<'_> {
        Wakeup::new(&*self.role.ring().guard, self.target)
    }

    fn is_ready(&mut self) -> bool {
        // Damage counts as ready: the next try reports it.
        self.lane.has_room_for(self.need).unwrap_or(true) || self.interrupt.is_raised()
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        self.fate = self.role.consumer()?;
        self.role.ring().check()?;
        let left = matches!(self.fate, ConsumerFate::Gone | ConsumerFate::Closed);
        // A consumer that skips this lane will never make room in it.
        Ok(left || self.lane.is_corrupt())
    }

    fn issue_barrier(&mut self) -> bool {
        true // the consumer fences after each release
    }

    fn flush_before_sleep(&mut self) -> Result<(), GuardError> {
        Ok(())
    }

    fn sleep(&mut self, _: PeerCheck, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        // The last look may have found zeros, and no peer would wake this sleeper.
        self.role.ring().check()?;
        self.wakeup().wait(timeout)
    }
}
