//! The one loop in which both sides wait: look, perhaps spin, announce, check, look again, sleep.

use std::time::Duration;

use super::deadline::Deadline;
use super::strategy::{RateLimiter, SpinHistory, Step, WaitStrategy};
use super::wakeup::{Epochs, arm, disarm};
use super::{GuardError, Waited, WakeTarget, Wakeups};
use crate::guard::timeouts::UNCERTAIN_SLEEP;
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering, fence};

/// The part of a wait that differs between the two sides.
pub(crate) trait Waiting {
    /// The wait word of this side.
    fn word(&self) -> &AtomicU64;
    /// Whether the wait can end: data or room is there, or an interruption. A look that changes
    /// nothing.
    fn is_ready(&mut self) -> bool;
    /// A cheaper look, at the most likely place; `false` may be wrong.
    fn is_likely_ready(&mut self) -> bool {
        self.is_ready()
    }
    /// Checks whether a peer is left that could end the wait.
    fn is_over(&mut self) -> Result<bool, GuardError>;
    /// Whether a [sleep](Self::sleep) can check all that [`is_over`](Self::is_over) does.
    const CHECKS_ASLEEP: bool;
    /// After the announcement: ensures that a peer which publishes without a fence has either made its
    /// publication visible or will see the announcement. False if that is impossible: then the sleeper must
    /// look again at intervals.
    fn issue_barrier(&mut self) -> bool;
    /// Stores what the other side may be waiting for; before a sleep.
    fn flush_before_sleep(&mut self) -> Result<(), GuardError>;
    /// The wake-up semaphore of this side.
    fn wakeup(&self) -> Wakeup<'_>;
    /// Sleeps until a token comes, or, if the check is to be made [while asleep](PeerCheck::WhileAsleep), until no
    /// peer is left.
    fn sleep(&mut self, check: PeerCheck, timeout: Option<Duration>) -> Result<Waited, GuardError>;
}

/// The wake-up semaphore of one sleeper.
#[derive(Clone, Copy)]
pub(crate) struct Wakeup<'a> {
    guard: &'a dyn Wakeups,
    target: WakeTarget,
}

impl<'a> Wakeup<'a> {
    pub(crate) fn new(guard: &'a dyn Wakeups, target: WakeTarget) -> Self {
        Self { guard, target }
    }

    /// Posts a token.
    pub(crate) fn post(self) -> Result<(), GuardError> {
        self.guard.post(self.target)
    }

    /// Takes all tokens.
    pub(crate) fn drain(self) -> Result<(), GuardError> {
        self.guard.drain(self.target)
    }

    /// Takes a token, or waits for one.
    pub(crate) fn wait(self, timeout: Option<Duration>) -> Result<Waited, GuardError> {
        self.guard.wait(self.target, timeout)
    }
}

/// When a sleeper checks whether a peer is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerCheck {
    /// In the call that puts it to sleep: [`Waited::Alone`] if none is.
    WhileAsleep,
    /// Before: a peer is left, or the sleeper waits for one to come.
    Done,
}

/// While spinning, one complete look comes after this many cheap ones.
const LOOKS_PER_SWEEP: u32 = 16;

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Data or room may be there: look.
    Ready,
    /// No peer is left, and nothing was there at the last look.
    Over,
    /// The deadline passed.
    TimedOut,
}

/// The wait state of one handle: its strategy, and the epochs of its sleeps.
#[derive(Debug)]
pub(crate) struct Waiter {
    strategy: WaitStrategy,
    history: SpinHistory,
    epochs: Epochs,
    sleeps: u64,
    /// The last attempt to sleep returned at once, because no peer was attached.
    alone: bool,
}

impl Waiter {
    pub(crate) fn new(strategy: WaitStrategy, cpus: usize, generation: u64) -> Self {
        Self {
            strategy,
            history: SpinHistory::new(cpus),
            epochs: Epochs::new(generation),
            sleeps: 0,
            alone: false,
        }
    }

    /// How often this handle went to sleep in the kernel, or the kernel refused because no peer was
    /// attached.
    pub(crate) fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// Whether the next wait begins with polls that don't yield the CPU.
    pub(crate) fn spins(&self) -> bool {
        self.history.spins(self.strategy)
    }

    /// Such polls found something.
    pub(crate) fn spun_well(&mut self) {
        self.history.spun_well();
    }

    /// Waits until something is there, no peer is left, or the timeout has passed.
    pub(crate) fn wait(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Outcome, GuardError> {
        if let Some(outcome) = self.poll(side, deadline)? {
            return Ok(outcome);
        }
        let began = self.history.begin_sleep(self.strategy);
        loop {
            if side.is_ready() {
                self.history.end_sleep(began);
                return Ok(Outcome::Ready);
            }
            if let Some(outcome) = self.sleep_once(side, deadline)? {
                return Ok(outcome);
            }
        }
    }

    /// Polls without sleeping, as long as the strategy demands. `None`: sleep.
    fn poll(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Option<Outcome>, GuardError> {
        let mut limiter = RateLimiter::new(self.strategy, &mut self.history);
        let mut looks = 0u32;
        loop {
            let ready = if looks.is_multiple_of(LOOKS_PER_SWEEP) {
                side.is_ready()
            } else {
                side.is_likely_ready()
            };
            if ready {
                limiter.found();
                return Ok(Some(Outcome::Ready));
            }
            looks = looks.wrapping_add(1);
            match limiter.step() {
                // What this side holds back is released soon, even if it never sleeps.
                Step::Look if looks == 64 => side.flush_before_sleep()?,
                Step::Look => {}
                Step::CheckPeer => {
                    side.flush_before_sleep()?;
                    let over = side.is_over()?;
                    if side.is_ready() {
                        return Ok(Some(Outcome::Ready));
                    }
                    if over {
                        return Ok(Some(Outcome::Over));
                    }
                    if deadline.left().is_err() {
                        return Ok(Some(Outcome::TimedOut));
                    }
                }
                Step::Sleep => return Ok(None),
            }
        }
    }

    /// For a handle that is polled: announces a sleep that takes place elsewhere, in `poll(2)` or the like.
    /// `None`: nothing is there, and the announcement stays: a peer that publishes posts a token, which makes
    /// the handle's descriptor readable. With any other result a token is there, so the descriptor is readable
    /// at once; it stays so until a call finds nothing again.
    ///
    /// Tokens are taken before the announcement, as in [`sleep_once`](Self::sleep_once): tokens that
    /// follow the announcement stay.
    pub(crate) fn stand_by(
        &mut self,
        side: &mut impl Waiting,
    ) -> Result<Option<Outcome>, GuardError> {
        side.flush_before_sleep()?;
        if !mutant::is(Mutant::PolledDrainAfterLastLook) {
            side.wakeup().drain()?;
        }
        arm(side.word(), self.epochs.next());
        let certain = side.issue_barrier();
        let over = side.is_over()?;
        let outcome = if !mutant::is(Mutant::PolledNoLastLook) && side.is_ready() {
            Some(Outcome::Ready)
        } else {
            over.then_some(Outcome::Over)
        };
        if mutant::is(Mutant::PolledDrainAfterLastLook) {
            side.wakeup().drain()?;
        }
        // Without certainty of a wake-up the caller has to look again and again.
        let uncertain = !certain && !mutant::is(Mutant::PolledCertain);
        if (outcome.is_some() || uncertain) && !mutant::is(Mutant::PolledNoPostWhenFound) {
            side.wakeup().post()?;
        }
        Ok(outcome)
    }

    /// One announced sleep. `None`: look again.
    pub(crate) fn sleep_once(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Option<Outcome>, GuardError> {
        if !mutant::is(Mutant::NoFlush) && !mutant::is(Mutant::FlushAfterLastLook) {
            side.flush_before_sleep()?;
        }
        // If the process is killed from here on, the word stays set; each waker posts once for it,
        // and the successor's epochs differ.
        arm(side.word(), self.epochs.next());
        let result = self.announced(side, deadline);
        disarm(side.word());
        result
    }

    fn announced<S: Waiting>(
        &mut self,
        side: &mut S,
        deadline: Deadline,
    ) -> Result<Option<Outcome>, GuardError> {
        let certain = side.issue_barrier();
        if mutant::is(Mutant::FlagsBeforeSleeperFence) {
            fence(Ordering::SeqCst);
        }
        let left = deadline.left();
        // A guard can check while it puts the process to sleep, which saves a call. A sleeper that gets the
        // answer "alone" this way looks again, and checks here.
        let check = if S::CHECKS_ASLEEP && !self.alone && left.is_ok() {
            PeerCheck::WhileAsleep
        } else {
            PeerCheck::Done
        };
        // Checked before the last look: a peer that is gone by now has published everything (see the
        // parent module).
        let over = check == PeerCheck::Done && side.is_over()?;
        if !mutant::is(Mutant::NoLastLook) && side.is_ready() {
            return Ok(Some(Outcome::Ready));
        }
        if over {
            return Ok(Some(Outcome::Over));
        }
        let Ok(left) = left else {
            return Ok(Some(Outcome::TimedOut));
        };
        self.sleeps += 1;
        if mutant::is(Mutant::FlushAfterLastLook) {
            side.flush_before_sleep()?;
        }
        // Without certainty of a wake-up the sleep is short.
        let nap = if certain || mutant::is(Mutant::UncertainSleepsLong) {
            left
        } else {
            Some(left.map_or(UNCERTAIN_SLEEP, |left| left.min(UNCERTAIN_SLEEP)))
        };
        let waited = side.sleep(check, nap)?;
        self.alone = waited == Waited::Alone;
        if !certain {
            return Ok(None);
        }
        if self.alone && mutant::is(Mutant::EndBeforeLastLook) {
            return Ok(side.is_over()?.then_some(Outcome::Over));
        }
        match waited {
            Waited::Token | Waited::Signal | Waited::Alone => Ok(None),
            // One more look: a message may have come together with the timeout.
            Waited::TimedOut if side.is_ready() => Ok(Some(Outcome::Ready)),
            Waited::TimedOut => Ok(deadline.left().is_err().then_some(Outcome::TimedOut)),
        }
    }
}
