//! How long a wait polls before it sleeps.

use std::time::{Duration, Instant};

use crate::os::{clock, process};
use crate::sync::{spin_hint, yield_now};

/// How a blocking call waits: sleeps in the kernel, or polls.
///
/// Chosen for each handle; the two sides may differ.
///
/// A consumer of one lane that polls, and receives a stream of some ten million messages a second or more as fast
/// as it comes, lags up to 0.7 µs behind the producer: any closer it would slow the producer down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Polls without pause and never sleeps: lowest latency, one CPU in use. Wrong where there are
    /// more runnable threads than CPUs.
    Spin,
    /// Polls and yields the CPU in between, never sleeps.
    Yield,
    /// Polls for about as long as a sleep and a wake-up take, then sleeps in the kernel. With one CPU
    /// it sleeps at once.
    #[default]
    Adaptive,
    /// Sleeps in the kernel at once: uses no CPU.
    Block,
}

/// How long an adaptive wait polls before it sleeps: a little more than a sleep and a wake-up take. It
/// must also be longer than the other side's post and check of the guard (2 to 5 µs): otherwise a
/// consumer that is slightly faster than its producer sleeps again before the producer is back from
/// waking it, and every message costs both sides a system call.
const ADAPTIVE_SPIN: Duration = Duration::from_micros(25);
/// After this many spins in a row that found nothing, waits sleep at once: the other side is slow, or has to
/// run on this CPU.
const SPINS_IN_VAIN: u32 = 4;
/// A sleep of at most this length might have been a spin: the measured time includes the wake-up, which takes
/// tens of microseconds in a virtual machine. After longer sleeps no spin is tried.
const SHORT_SLEEP: Duration = Duration::from_micros(200);
/// After this many short sleeps, a spin is tried again; after each trial that finds nothing twice as many,
/// because sleeps are also short where the other side runs on this CPU.
const SLEEPS_PER_TRIAL: u32 = 16;
const MOST_SLEEPS_PER_TRIAL: u32 = 1024;
/// The clock is read after this many polls.
const LOOKS_PER_CLOCK: u32 = 32;
/// After this many polls even a wait that never sleeps checks the guard.
const LOOKS_PER_CHECK: u32 = 4096;

/// What to do after a poll that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Look again.
    Look,
    /// Check with the guard whether a peer is attached, then look again.
    CheckPeer,
    /// Sleep.
    Sleep,
}

/// Statistics of the waits of one handle.
#[derive(Debug)]
pub(crate) struct SpinHistory {
    /// There is one CPU: no other thread can run during a spin.
    alone: bool,
    /// Spins in a row that found nothing.
    in_vain: u32,
    /// Short sleeps since the last spin.
    short: u32,
    /// The number of short sleeps before a trial.
    sleeps_per_trial: u32,
}

impl SpinHistory {
    /// For a machine with this many CPUs. The CPUs of the machine count: if a process is pinned to one
    /// CPU its peer may well run on another one; if it does not, spins find nothing, and the statistics
    /// show that.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            alone: cpus == 1,
            in_vain: 0,
            short: 0,
            sleeps_per_trial: SLEEPS_PER_TRIAL,
        }
    }

    fn advises_spinning(&self) -> bool {
        !self.alone && (self.in_vain < SPINS_IN_VAIN || self.short >= self.sleeps_per_trial)
    }

    /// Whether a wait begins with polls that don't yield the CPU.
    pub(crate) fn spins(&self, strategy: WaitStrategy) -> bool {
        match strategy {
            WaitStrategy::Spin => true,
            WaitStrategy::Adaptive => self.advises_spinning(),
            WaitStrategy::Yield | WaitStrategy::Block => false,
        }
    }

    fn spun_in_vain(&mut self) {
        if self.in_vain < SPINS_IN_VAIN {
            self.in_vain += 1;
        } else {
            self.sleeps_per_trial = (2 * self.sleeps_per_trial).min(MOST_SLEEPS_PER_TRIAL);
        }
        self.short = 0;
    }

    pub(crate) fn spun_well(&mut self) {
        self.in_vain = 0;
        self.sleeps_per_trial = SLEEPS_PER_TRIAL;
    }

    /// A wait that did not spin was successful after this time.
    fn slept(&mut self, time: Duration) {
        if time <= SHORT_SLEEP {
            self.short = self.short.saturating_add(1);
        }
    }

    /// Whether the length of a sleep matters to this strategy.
    pub(crate) fn begin_sleep(&self, strategy: WaitStrategy) -> Option<Instant> {
        let is_measured =
            strategy == WaitStrategy::Adaptive && !self.alone && self.in_vain >= SPINS_IN_VAIN;
        is_measured.then(clock::now)
    }

    /// The sleep that began then was successful.
    pub(crate) fn end_sleep(&mut self, began: Option<Instant>) {
        if let Some(began) = began {
            self.slept(clock::now().duration_since(began));
        }
    }
}

/// One wait, counted.
#[derive(Debug)]
pub(crate) struct RateLimiter<'a> {
    strategy: WaitStrategy,
    history: &'a mut SpinHistory,
    looks: u32,
    /// The spin of an adaptive wait is not over yet.
    spinning: bool,
    /// When it began, set with the first reading of the clock.
    began: Option<Instant>,
}

impl<'a> RateLimiter<'a> {
    pub(crate) fn new(strategy: WaitStrategy, history: &'a mut SpinHistory) -> Self {
        let spinning = strategy == WaitStrategy::Adaptive && history.advises_spinning();
        Self {
            strategy,
            history,
            looks: 0,
            spinning,
            began: None,
        }
    }

    /// After a poll that found nothing; pauses as the strategy demands.
    pub(crate) fn step(&mut self) -> Step {
        self.looks = self.looks.wrapping_add(1);
        match self.strategy {
            WaitStrategy::Block => Step::Sleep,
            WaitStrategy::Adaptive => {
                if !self.spinning || self.spun_enough() {
                    return Step::Sleep;
                }
                spin_hint();
                Step::Look
            }
            WaitStrategy::Spin => {
                spin_hint();
                if self.looks.is_multiple_of(LOOKS_PER_CHECK) {
                    Step::CheckPeer
                } else {
                    Step::Look
                }
            }
            WaitStrategy::Yield => {
                yield_now();
                if self.looks.is_multiple_of(LOOKS_PER_CHECK / 64) {
                    Step::CheckPeer
                } else {
                    Step::Look
                }
            }
        }
    }

    /// The last poll found something.
    pub(crate) fn found(&mut self) {
        if self.spinning && self.looks > 0 {
            self.history.spun_well();
        }
    }

    fn spun_enough(&mut self) -> bool {
        if !self.looks.is_multiple_of(LOOKS_PER_CLOCK) {
            return false;
        }
        let now = clock::now();
        let over = now.duration_since(*self.began.get_or_insert(now)) >= ADAPTIVE_SPIN;
        if over {
            self.spinning = false;
            self.history.spun_in_vain();
        }
        over
    }
}

/// CPUs of the machine, for [`SpinHistory::new`].
pub(crate) fn cpus() -> usize {
    // Models make hundreds of thousands of handles, and none of them spins.
    if cfg!(semring_loom) {
        2
    } else {
        process::online_cpus()
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn block_never_looks_twice_and_spin_never_sleeps() {
        let mut history = SpinHistory::new(2);
        assert_eq!(
            RateLimiter::new(WaitStrategy::Block, &mut history).step(),
            Step::Sleep
        );
        let mut spin = RateLimiter::new(WaitStrategy::Spin, &mut history);
        assert!((0..10_000).all(|_| spin.step() != Step::Sleep));
    }

    #[test]
    fn adaptive_sleeps_after_a_while_and_at_once_with_one_cpu() {
        let mut history = SpinHistory::new(2);
        let mut limiter = RateLimiter::new(WaitStrategy::Adaptive, &mut history);
        assert_eq!(limiter.step(), Step::Look);
        assert!(std::iter::repeat_with(|| limiter.step()).any(|step| step == Step::Sleep));
        let mut alone = SpinHistory::new(1);
        assert_eq!(
            RateLimiter::new(WaitStrategy::Adaptive, &mut alone).step(),
            Step::Sleep
        );
    }

    /// A wait in which no poll finds anything; true if it polled more than once.
    fn waits_in_vain(history: &mut SpinHistory) -> bool {
        let mut limiter = RateLimiter::new(WaitStrategy::Adaptive, history);
        let spun = limiter.step() == Step::Look;
        while spun && limiter.step() != Step::Sleep {}
        spun
    }

    #[test]
    fn after_vain_spins_waits_sleep_at_once() {
        let mut history = SpinHistory::new(2);
        assert!((0..SPINS_IN_VAIN).all(|_| waits_in_vain(&mut history)));
        for _ in 0..10 * MOST_SLEEPS_PER_TRIAL {
            assert!(!waits_in_vain(&mut history));
            history.slept(2 * SHORT_SLEEP);
        }
    }

    #[test]
    fn short_sleeps_lead_to_rarer_trials() {
        let mut history = SpinHistory::new(2);
        while waits_in_vain(&mut history) {}
        let mut sleeps_until_a_trial = || {
            let sleeps = std::iter::from_fn(|| {
                history.slept(SHORT_SLEEP);
                (!waits_in_vain(&mut history)).then_some(())
            });
            sleeps.count() as u32 + 1
        };
        for doubled in 0..10 {
            let expected = SLEEPS_PER_TRIAL << doubled;
            assert_eq!(sleeps_until_a_trial(), expected.min(MOST_SLEEPS_PER_TRIAL));
        }
    }

    #[test]
    fn one_spin_that_finds_something_brings_spins_back() {
        let mut history = SpinHistory::new(2);
        while waits_in_vain(&mut history) {}
        for _ in 0..SLEEPS_PER_TRIAL {
            history.slept(SHORT_SLEEP);
        }
        let mut limiter = RateLimiter::new(WaitStrategy::Adaptive, &mut history);
        assert_eq!(limiter.step(), Step::Look);
        limiter.found();
        assert!((0..SPINS_IN_VAIN).all(|_| waits_in_vain(&mut history)));
    }
}
