//! Holding on to one lane, for messages that belong together: the parts of a long line.
//!
//! ```text
//! recv            a part, released as one (`Message::release_part`)
//! recv_from(lane) the next one, whatever other lanes have; waits for it
//!                 LaneEnded: its producer is gone, and all that it sent was received
//! recv            any lane again
//! ```
//! A producer that is gone inside a line can't end it. It is known to be gone if its role is free, or if a successor has
//! begun after the part. Of that the successor leaves two traces: where it began, and, before its first message (if
//! there is room when it attaches: at once), a record of 8 bytes, [`CUT`](crate::layout::record::CUT). So no message of a
//! successor is ever taken for the continuation of a predecessor's, however many have come and gone.
//!
//! A consumer that waits here sleeps as always, on the same word. What ends the wait: a message on the lane; the producer's
//! death or leaving, for which the guard posts; a successor that has begun after a part, which looks at the consumer's
//! wait word then and posts ([`ProducerRole`](crate::lifecycle::ProducerRole)), or is killed before, for which the guard
//! posts.

use std::time::Duration;

use super::core::ConsumerCore;
use super::message::Message;
use super::message_wait::MessageWait;
use crate::channel::parking::Woken;
use crate::error::RecvError;
use crate::guard::deadline::Deadline;
use crate::guard::wait::{Outcome, PeerCheck, Waiting, Wakeup};
use crate::guard::{GuardError, Role, Waited};
use crate::ring::consume::{Found, LaneConsumer};
use crate::sync::AtomicU64;

/// A consumer that waits for messages of one lane.
struct LaneWait<'a> {
    all: MessageWait<'a>,
    number: usize,
}

impl LaneWait<'_> {
    fn lane(&self) -> &LaneConsumer {
        &self.all.merge().lanes()[self.number]
    }
}

impl Waiting for LaneWait<'_> {
    /// The guard can check there only whether any producer is left.
    const CHECKS_ASLEEP: bool = false;

    fn word(&self) -> &AtomicU64 {
        self.all.word()
    }

    fn wakeup(&self) -> Wakeup<'_> {
        self.all.wakeup()
    }

    fn is_ready(&mut self) -> bool {
        self.lane().is_ready() || self.all.is_interrupted()
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        let role = Role::Producer { lane: self.number };
        let ring = self.all.role().ring();
        let is_taken = ring.guard.is_taken(role)?;
        ring.check()?;
        let lane = self.lane();
        Ok(!is_taken || lane.is_corrupt() || lane.is_at_cut())
    }

    fn issue_barrier(&mut self) -> bool {
        self.all.issue_barrier()
    }

    fn flush_before_sleep(&mut self) -> Result<(), GuardError> {
        self.all.flush_before_sleep()
    }

    fn sleep(&mut self, _: PeerCheck, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        self.all.sleep_for_lane(timeout)
    }
}

impl ConsumerCore {
    /// The next message of this lane, unless its producer is gone inside what it had begun. Without a deadline it does not
    /// wait.
    pub(super) fn next_from(
        &mut self,
        lane: usize,
        deadline: Option<Deadline>,
    ) -> Result<Message<'_>, RecvError> {
        let found = self.find_from(lane, deadline);
        let found = self.recheck_truncation(found)?;
        Ok(self.message(found))
    }

    fn find_from(&mut self, lane: usize, deadline: Option<Deadline>) -> Result<Found, RecvError> {
        assert!(lane < self.merge.lanes().len(), "the ring has no such lane");
        self.begin()?;
        self.continued.retain(|&continued| continued != lane);
        loop {
            if let Some(found) = self.find_part(lane)? {
                return Ok(found);
            }
            let is_over = match deadline {
                Some(deadline) => self.wait_for_lane(lane, deadline)?,
                None => self.try_lane(lane)?,
            };
            // A producer that is gone by now published before: look once more.
            if is_over {
                return self.find_part(lane)?.ok_or(RecvError::LaneEnded);
            }
        }
    }

    fn find_part(&mut self, lane: usize) -> Result<Option<Found>, RecvError> {
        if self.merge.lane_mut(lane).take_cut() {
            return Err(RecvError::LaneEnded);
        }
        self.find_on(lane)
    }

    fn wait_for_lane(&mut self, number: usize, deadline: Deadline) -> Result<bool, RecvError> {
        let (parking, all) = self.message_wait();
        let mut side = LaneWait { all, number };
        let woken = parking.wait(&mut side, deadline);
        self.record_sleeps();
        match woken.map_err(|error| self.failed(error))? {
            Woken::Ready => Ok(false),
            Woken::Over => Ok(true),
            Woken::Interrupted => Err(RecvError::Interrupted),
            Woken::TimedOut => Err(RecvError::TimedOut),
        }
    }

    /// The same without waiting.
    fn try_lane(&mut self, number: usize) -> Result<bool, RecvError> {
        self.release_all()?;
        if self.parking.take_interrupt() {
            return Err(RecvError::Interrupted);
        }
        let is_polled = self.parking.is_polled();
        let (parking, all) = self.message_wait();
        let mut side = LaneWait { all, number };
        let outcome = if is_polled {
            parking.stand_by(&mut side)
        } else {
            let over = side.is_over();
            let is_ready = side.lane().is_ready();
            over.map(|over| match (is_ready, over) {
                (true, _) => Some(Outcome::Ready),
                (false, true) => Some(Outcome::Over),
                (false, false) => None,
            })
        };
        match outcome.map_err(|error| self.failed(error))? {
            Some(Outcome::Ready) if self.parking.take_interrupt() => Err(RecvError::Interrupted),
            Some(Outcome::Ready) => Ok(false),
            Some(Outcome::Over) => Ok(true),
            Some(Outcome::TimedOut) | None => Err(RecvError::Empty),
        }
    }
}
