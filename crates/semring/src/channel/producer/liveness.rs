//! When a producer checks its consumer.
//!
//! A check of the guard is a system call, so it is made only if nothing else shows that the consumer is alive.
//! `released` shows it: if the value has moved since the last check, it was stored by a consumer that is alive or died
//! a moment ago.
//!
//! | mode of the producer | next check after |
//! |---|---|
//! | fenced | 16 messages or 4 KiB |
//! | asymmetric, and the consumer releases in whole quarters: a busy stream | a quarter lap |
//! | asymmetric otherwise | 4 KiB |
//!
//! (A quarter lap, where that is less than 4 KiB.) The 16 messages are counted where fenced commits are, in
//! [`ConsumerWaker`](crate::guard::wakeup::ConsumerWaker). Even a consumer that makes progress is checked once in a
//! MiB: the ring may have been removed, which is not recorded in the segment.

use super::core::ProducerCore;
use crate::channel::BYTES_PER_CHECK;
use crate::channel::pending::Conditions;
use crate::error::SendError;
use crate::guard::GuardError;
use crate::layout::{Capacity, Position};
use crate::lifecycle::ConsumerFate;
use crate::os::errno::EACCES;

/// How far a producer goes on without progress of its consumer, unless that has shown to be at work on a stream.
const BYTES_WITHOUT_PROGRESS: u64 = 4 << 10;

/// The conclusion from the value of `released`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// It has moved.
    Alive,
    /// The guard must be checked. If the consumer is attached, the next check comes after this many
    /// bytes.
    CheckGuard { next_in: u64 },
}

/// A producer's record of its consumer's progress.
#[derive(Debug)]
pub(super) struct PeerProgress {
    /// The next check is made when the lane's tail is here.
    next_check: Position,
    /// The tail at the last successful check of the guard. `None`: a check is due.
    checked_at: Option<Position>,
    /// `released` when it was last looked at.
    released_at_last_check: Position,
}

impl PeerProgress {
    /// For a producer that has just attached, which included a check.
    pub(super) fn new(tail: Position, released: Position, capacity: Capacity) -> Self {
        Self {
            next_check: tail.advance(Self::interval(capacity)),
            checked_at: Some(tail),
            released_at_last_check: released,
        }
    }

    fn interval(capacity: Capacity) -> u64 {
        capacity.quarter().min(BYTES_WITHOUT_PROGRESS)
    }

    /// Whether a check is due for a producer whose tail is here.
    pub(super) fn due(&self, tail: Position) -> bool {
        tail.has_reached(self.next_check)
    }

    /// Bytes up to the next check.
    pub(super) fn until_due(&self, tail: Position) -> u64 {
        if self.due(tail) {
            0
        } else {
            self.next_check.distance_from(tail)
        }
    }

    /// Compares `released` with its last value. `released` can be forged; then the guard is still checked
    /// once in a MiB.
    fn look(
        &mut self,
        tail: Position,
        released: Position,
        capacity: Capacity,
        fenced: bool,
    ) -> Look {
        let step = released.distance_from(self.released_at_last_check);
        self.released_at_last_check = released;
        // A consumer that finds its ring empty releases less at a time.
        let next_in = if !fenced && step >= capacity.quarter() {
            capacity.quarter()
        } else {
            Self::interval(capacity)
        };
        let checked_lately = |at| tail.distance_from(at) + next_in <= BYTES_PER_CHECK;
        if step == 0 || !self.checked_at.is_some_and(checked_lately) {
            return Look::CheckGuard { next_in };
        }
        self.next_check = tail.advance(next_in);
        Look::Alive
    }

    /// Records a successful check of the guard.
    fn ok(&mut self, tail: Position, next_in: u64) {
        self.checked_at = Some(tail);
        self.next_check = tail.advance(next_in);
    }

    /// The next call checks the guard, even if `released` has moved: a consumer that is dead now
    /// may have stored it.
    fn force(&mut self, tail: Position) {
        self.checked_at = None;
        self.next_check = tail;
    }
}

/// The pending conditions of a producer.
#[derive(Debug)]
pub(super) struct ProducerConditions {
    progress: PeerProgress,
    /// Found after a commit: the next call reports it.
    error: Option<SendError>,
    /// The limit of the lane's fast path lies beyond the next check.
    limit_is_late: bool,
}

impl Conditions for ProducerConditions {
    fn any(&self) -> bool {
        self.error.is_some() || self.limit_is_late
    }
}

impl ProducerConditions {
    pub(super) fn new(progress: PeerProgress) -> Self {
        Self {
            progress,
            error: None,
            limit_is_late: false,
        }
    }

    pub(super) fn error(&self) -> Option<SendError> {
        self.error
    }

    /// Whether a check is due for a producer whose tail is here.
    pub(super) fn is_check_due(&self, tail: Position) -> bool {
        self.progress.due(tail)
    }

    /// Bytes up to the next check.
    pub(super) fn until_check(&self, tail: Position) -> u64 {
        self.progress.until_due(tail)
    }

    /// The error to be reported. A broken pipe may be mended by a new consumer; a removed ring stays removed.
    pub(super) fn take_error(&mut self) -> Option<SendError> {
        match self.error {
            Some(SendError::Removed) => self.error,
            _ => self.error.take(),
        }
    }

    pub(super) fn report(&mut self, error: SendError) {
        self.error = Some(error);
    }

    /// Forgets a kept error: for a call that checks everything again.
    pub(super) fn forget_error(&mut self) {
        self.error = None;
    }

    /// The fast path was opened up to the next check, at most.
    pub(super) fn limit_is_right(&mut self) {
        self.limit_is_late = false;
    }

    fn update<R>(&mut self, update: impl FnOnce(&mut PeerProgress) -> R) -> R {
        let before = self.progress.next_check;
        let result = update(&mut self.progress);
        self.limit_is_late |= !self.progress.next_check.has_reached(before);
        result
    }
}

/// Why there is nothing to wait for.
fn left_by(fate: ConsumerFate) -> SendError {
    match fate {
        ConsumerFate::Closed => SendError::Closed,
        ConsumerFate::Gone => SendError::ConsumerGone,
        ConsumerFate::NotMet | ConsumerFate::Present => SendError::Corrupt,
    }
}

impl ProducerCore {
    /// The check that is due: of `released`, and if that does not suffice of the guard.
    #[cold]
    pub(super) fn check_progress(&mut self) -> Result<(), SendError> {
        let (tail, released) = (self.gate.lane.tail(), self.gate.lane.load_released());
        let (capacity, fenced) = (self.gate.lane.capacity(), !self.waker.is_asymmetric());
        let look = |progress: &mut PeerProgress| progress.look(tail, released, capacity, fenced);
        match self.gate.change(|pending| pending.update(look)) {
            Look::Alive => Ok(()),
            Look::CheckGuard { next_in } => self.ask_when_due(next_in),
        }
    }

    /// A check that is due, not requested by the caller. Permission may be denied for a moment, while a process has
    /// another user id: that is reported from the second time on.
    fn ask_when_due(&mut self, next_in: u64) -> Result<(), SendError> {
        let asked = self.ask_guard(next_in);
        let refused = matches!(asked, Err(SendError::Os { errno: EACCES, .. }));
        if !self.waker.is_refused_again(refused) && refused {
            let tail = self.gate.lane.tail();
            let ok = |progress: &mut PeerProgress| progress.ok(tail, next_in);
            self.gate.change(|pending| pending.update(ok));
            return Ok(());
        }
        asked
    }

    /// The check of a producer that stops publishing with a fence.
    #[cold]
    pub(super) fn check_before_asymmetric(&mut self) -> Result<(), SendError> {
        self.ask_when_due(PeerProgress::interval(self.gate.lane.capacity()))
    }

    /// Checks with the guard whether the consumer is still attached.
    #[cold]
    pub(super) fn check_consumer(&mut self) -> Result<(), SendError> {
        self.ask_guard(PeerProgress::interval(self.gate.lane.capacity()))
    }

    fn ask_guard(&mut self, next_in: u64) -> Result<(), SendError> {
        let tail = self.gate.lane.tail();
        match self.find_consumer() {
            Ok(()) => {
                let ok = |progress: &mut PeerProgress| progress.ok(tail, next_in);
                self.gate.change(|pending| pending.update(ok));
                Ok(())
            }
            Err(error) => {
                self.force_check();
                Err(error)
            }
        }
    }

    fn find_consumer(&mut self) -> Result<(), SendError> {
        let fate = self.role.consumer().map_err(|error| self.failed(error))?;
        if !self.role.ring().is_intact() {
            self.check_memory()?;
        }
        match fate {
            ConsumerFate::Gone | ConsumerFate::Closed => Err(left_by(fate)),
            _ if self.gate.lane.is_corrupt() => Err(SendError::Corrupt),
            ConsumerFate::NotMet | ConsumerFate::Present => Ok(()),
        }
    }

    /// A pipe that is broken stays so: the next call checks again.
    fn force_check(&mut self) {
        let tail = self.gate.lane.tail();
        self.gate
            .change(|pending| pending.update(|progress| progress.force(tail)));
    }

    /// There is nothing to wait for.
    #[cold]
    pub(super) fn left(&mut self, fate: ConsumerFate) -> SendError {
        self.force_check();
        left_by(fate)
    }

    /// To be called before returning an answer that may be due to zeros in place of the ring's bytes.
    #[cold]
    pub(super) fn check_memory(&mut self) -> Result<(), SendError> {
        let check = self.role.ring().check();
        check.map_err(|error| self.failed(error))
    }

    /// Why the ring's pages are not there.
    #[cold]
    pub(super) fn why_not_intact(&mut self) -> SendError {
        if self.role.ring().is_forked() {
            return SendError::Forked;
        }
        self.check_memory().err().unwrap_or(SendError::Removed)
    }

    /// A removed ring stays removed: no consumer would receive what is sent into it from now on.
    #[cold]
    pub(super) fn failed(&mut self, error: GuardError) -> SendError {
        let error = SendError::from(error);
        if error == SendError::Removed {
            self.gate.change(|pending| pending.report(error));
        }
        error
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity::exact(256 << 10).unwrap();
    const QUARTER: u64 = 64 << 10;
    const CHECK_GUARD: Look = Look::CheckGuard {
        next_in: BYTES_WITHOUT_PROGRESS,
    };

    fn at(bytes: u64) -> Position {
        Position::new(bytes)
    }

    fn new() -> PeerProgress {
        PeerProgress::new(at(0), at(0), CAPACITY)
    }

    /// A check of a producer in fenced mode.
    fn look(progress: &mut PeerProgress, tail: u64, released: u64) -> Look {
        progress.look(at(tail), at(released), CAPACITY, true)
    }

    /// The same in asymmetric mode.
    fn check_asymmetric(progress: &mut PeerProgress, tail: u64, released: u64) -> Look {
        progress.look(at(tail), at(released), CAPACITY, false)
    }

    #[test]
    fn without_progress_a_check_is_due_after_4_kib() {
        let mut progress = new();
        assert!(!progress.due(at(4088)));
        assert_eq!(progress.until_due(at(4088)), 8);
        assert!(progress.due(at(4096)));
        assert_eq!(progress.until_due(at(5000)), 0);
        assert_eq!(look(&mut progress, 4096, 0), CHECK_GUARD);
        assert_eq!(check_asymmetric(&mut progress, 4096, 0), CHECK_GUARD);
        assert!(progress.due(at(4096)), "until the guard has answered");
        progress.ok(at(4096), 4096);
        assert!(!progress.due(at(8184)) && progress.due(at(8192)));
    }

    #[test]
    fn a_small_lane_is_checked_each_quarter() {
        let small = Capacity::exact(4096).unwrap();
        let progress = PeerProgress::new(at(0), at(0), small);
        assert!(!progress.due(at(1016)) && progress.due(at(1024)));
    }

    #[test]
    fn progress_defers_the_check_to_once_in_a_mib() {
        let mut progress = new();
        for tail in (4096..BYTES_PER_CHECK).step_by(4096) {
            assert_eq!(look(&mut progress, tail, tail - 8), Look::Alive, "{tail}");
            assert_eq!(progress.until_due(at(tail)), 4096);
        }
        assert_eq!(
            look(&mut progress, BYTES_PER_CHECK, BYTES_PER_CHECK),
            CHECK_GUARD
        );
    }

    #[test]
    fn a_stream_in_asymmetric_mode_is_checked_each_quarter() {
        let mut progress = new();
        let tail = QUARTER + 512;
        assert_eq!(check_asymmetric(&mut progress, tail, QUARTER), Look::Alive);
        assert_eq!(progress.until_due(at(tail)), QUARTER);
        // Slower again: the consumer finds nothing, and therefore releases what it has.
        let tail = 2 * tail;
        assert_eq!(
            check_asymmetric(&mut progress, tail, QUARTER + 64),
            Look::Alive
        );
        assert_eq!(progress.until_due(at(tail)), 4096);
    }

    #[test]
    fn forced_check_ignores_progress() {
        let mut progress = new();
        progress.force(at(64));
        assert!(progress.due(at(64)));
        assert_eq!(look(&mut progress, 64, 64), CHECK_GUARD);
        assert!(progress.due(at(64)));
        progress.ok(at(64), 4096);
        assert!(!progress.due(at(64)));
    }

    #[test]
    fn an_earlier_check_is_pending_until_the_limit_is_right() {
        let mut conditions = ProducerConditions::new(new());
        conditions.update(|progress| progress.ok(at(64), 4096));
        assert!(!conditions.any(), "a later one leaves the limit right");
        conditions.update(|progress| progress.force(at(128)));
        assert!(conditions.any());
        conditions.limit_is_right();
        assert!(!conditions.any());
    }

    #[test]
    fn an_error_is_reported_once_but_a_removal_always() {
        let mut conditions = ProducerConditions::new(new());
        for (error, stays) in [(SendError::ConsumerGone, false), (SendError::Removed, true)] {
            conditions.report(error);
            assert!(conditions.any());
            assert_eq!(conditions.take_error(), Some(error));
            assert_eq!(
                (conditions.take_error().is_some(), conditions.any()),
                (stays, stays)
            );
        }
    }
}
