//! The one loop in which both sides wait: look, perhaps spin, announce, ask, look again, sleep.

use std::time::{Duration, Instant};

use super::doorbell::{Epochs, arm, disarm};
use super::strategy::{Experience, Pace, Step, WaitStrategy};
use super::{GuardError, Waited};
use crate::sync::{AtomicU64, Twin, weakened};

/// What is particular to one side's wait.
pub(crate) trait Waiting {
    /// The wait word that this side announces itself on.
    fn word(&self) -> &AtomicU64;
    /// Something to go on with is there (or an interruption). A look that changes nothing.
    fn is_ready(&mut self) -> bool;
    /// A cheaper look, where most things are likely to come; `false` may be wrong.
    fn is_likely_ready(&mut self) -> bool {
        self.is_ready()
    }
    /// Asks whether there is anything left to wait for.
    fn is_over(&mut self) -> Result<bool, GuardError>;
    /// Whether a [sleep](Self::sleep) in company asks all that [`is_over`](Self::is_over) does.
    const ASKS_ASLEEP: bool;
    /// After the announcement: makes sure that a peer which publishes without a fence has either made its
    /// publication visible or will see the announcement. False if that can't be done: then looks must go on.
    fn summon(&mut self) -> bool;
    /// Hands over whatever the other side may be waiting for; before a sleep.
    fn settle(&mut self) -> Result<(), GuardError>;
    /// Takes every token that is there.
    fn hush(&mut self) -> Result<(), GuardError>;
    /// Puts a token there for ourselves.
    fn ring(&mut self) -> Result<(), GuardError>;
    /// Sleeps until a token comes; in company: not if nobody is left who could bring something.
    fn sleep(&mut self, company: Company, timeout: Option<Duration>) -> Result<Waited, GuardError>;
}

/// Whether a sleeper has asked what there is to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Company {
    /// It has not: [`Waited::Alone`] if nobody is.
    Needed,
    /// It has: somebody is, or it waits for somebody to come.
    AskedFor,
}

/// While spinning, so many looks include a complete one.
const LOOKS_PER_SWEEP: u32 = 16;

/// How long a sleeper sleeps that has no means to be sure that it will be woken.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// There is something: look.
    Ready,
    /// Nobody is left who could bring something, and there was nothing at the last look.
    Over,
    /// The deadline passed.
    TimedOut,
}

/// When a wait must end, on CLOCK_MONOTONIC. What is left of it is computed anew before each sleep, so
/// signals, stops and tokens that mean nothing neither shorten a wait nor prolong it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);

    pub(crate) fn after(timeout: Duration) -> Self {
        // A time-out beyond the end of time is none.
        Self(crate::os::clock::now().checked_add(timeout))
    }

    pub(crate) fn at(end: Instant) -> Self {
        Self(Some(end))
    }

    /// `Err` if it has passed; `Ok(None)` if there is none.
    fn left(self) -> Result<Option<Duration>, ()> {
        let Some(end) = self.0 else { return Ok(None) };
        match end.checked_duration_since(crate::os::clock::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(()),
        }
    }
}

/// How one handle waits: its strategy, and the epochs of its sleeps.
#[derive(Debug)]
pub(crate) struct Waiter {
    strategy: WaitStrategy,
    experience: Experience,
    epochs: Epochs,
    sleeps: u64,
    /// The last sleep was none, as nobody was there.
    alone: bool,
}

impl Waiter {
    pub(crate) fn new(strategy: WaitStrategy, cpus: usize, generation: u64) -> Self {
        Self {
            strategy,
            experience: Experience::new(cpus),
            epochs: Epochs::new(generation),
            sleeps: 0,
            alone: false,
        }
    }

    /// How often this handle went to sleep in the kernel, or was told there that it is alone.
    pub(crate) fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// Whether the next wait begins with looks that leave the CPU to nobody.
    pub(crate) fn spins(&self) -> bool {
        self.experience.spins(self.strategy)
    }

    /// Such looks found something.
    pub(crate) fn spun_well(&mut self) {
        self.experience.spun_well();
    }

    /// Waits until there is something, nobody is left, or the time is over.
    pub(crate) fn wait(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Outcome, GuardError> {
        if let Some(outcome) = self.look_out(side, deadline)? {
            return Ok(outcome);
        }
        let began = self.experience.begin_sleep(self.strategy);
        loop {
            if side.is_ready() {
                self.experience.end_sleep(began);
                return Ok(Outcome::Ready);
            }
            if let Some(outcome) = self.sleep_once(side, deadline)? {
                return Ok(outcome);
            }
        }
    }

    /// Looks without sleeping, for as long as the strategy wants. `None`: sleep.
    fn look_out(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Option<Outcome>, GuardError> {
        let mut pace = Pace::new(self.strategy, &mut self.experience);
        let mut looks = 0u32;
        loop {
            let ready = if looks.is_multiple_of(LOOKS_PER_SWEEP) {
                side.is_ready()
            } else {
                side.is_likely_ready()
            };
            if ready {
                pace.found();
                return Ok(Some(Outcome::Ready));
            }
            looks = looks.wrapping_add(1);
            match pace.step() {
                // What this side holds back is handed over soon, also when it never sleeps.
                Step::Look if looks == 64 => side.settle()?,
                Step::Look => {}
                Step::Probe => {
                    side.settle()?;
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

    /// For a handle that somebody polls: announces a sleep that takes place elsewhere, in `poll(2)` or the
    /// like. `None`: there is nothing, and the announcement stands: whoever publishes something rings the
    /// bell, which makes the handle's descriptor readable. Whatever else is answered, a token is there, so that
    /// it is readable already: it stays so until the next time that there is nothing.
    ///
    /// Tokens go before the announcement, as in [`sleep_once`](Self::sleep_once): what comes for it stays.
    pub(crate) fn stand_by(
        &mut self,
        side: &mut impl Waiting,
    ) -> Result<Option<Outcome>, GuardError> {
        side.settle()?;
        side.hush()?;
        arm(side.word(), self.epochs.next());
        let summoned = side.summon();
        let over = side.is_over()?;
        let outcome = if side.is_ready() {
            Some(Outcome::Ready)
        } else {
            over.then_some(Outcome::Over)
        };
        // Who can't be sure to be woken has to look again and again.
        if outcome.is_some() || !summoned {
            side.ring()?;
        }
        Ok(outcome)
    }

    /// One announced sleep. `None`: look again.
    pub(crate) fn sleep_once(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Option<Outcome>, GuardError> {
        side.settle()?;
        // Killed from here on: the word stays set, each waker posts once for it, and the successor's
        // epochs differ.
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
        let summoned = side.summon();
        let left = deadline.left();
        // A guard can ask as it puts us to sleep, which saves a call: then nobody is asked here. Whoever learns
        // so that it is alone looks again, and asks now.
        let company = if S::ASKS_ASLEEP && !self.alone && left.is_ok() {
            Company::Needed
        } else {
            Company::AskedFor
        };
        // Asked before the last look: who is gone by now has published everything (see the argument).
        let over = company == Company::AskedFor && side.is_over()?;
        if side.is_ready() {
            return Ok(Some(Outcome::Ready));
        }
        if over {
            return Ok(Some(Outcome::Over));
        }
        let Ok(left) = left else {
            return Ok(Some(Outcome::TimedOut));
        };
        self.sleeps += 1;
        // Who can't be sure to be woken looks again soon.
        let nap = if summoned {
            left
        } else {
            Some(left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN)))
        };
        let waited = side.sleep(company, nap)?;
        self.alone = waited == Waited::Alone;
        if !summoned {
            return Ok(None);
        }
        if self.alone && weakened(Twin::ProbeAfterScan) {
            return Ok(side.is_over()?.then_some(Outcome::Over));
        }
        match waited {
            Waited::Token | Waited::Signal | Waited::Alone => Ok(None),
            // One more look: a message may have come together with the end of the time.
            Waited::TimedOut if side.is_ready() => Ok(Some(Outcome::Ready)),
            Waited::TimedOut => Ok(deadline.left().is_err().then_some(Outcome::TimedOut)),
        }
    }
}
