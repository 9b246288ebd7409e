//! How long to look before sleeping.

use crate::os::process;
use crate::sync::{spin_hint, yield_now};

/// What a blocking call does while there is nothing to do. Chosen per handle; the two sides need not
/// agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Looks without pause and never sleeps: lowest latency, one CPU spent. Wrong where there are
    /// more runnable threads than CPUs.
    Spin,
    /// Looks and gives the CPU to others in between, never sleeps.
    Yield,
    /// Looks for about as long as a sleep and a wake-up cost, then sleeps in the kernel. With one CPU
    /// it sleeps at once.
    #[default]
    Adaptive,
    /// Sleeps in the kernel at once: no CPU spent.
    Block,
}

/// Looks (with the spin hint in between) that take about the 10 to 20 µs of a sleep and a wake-up.
const ADAPTIVE_LOOKS: u32 = 400;
/// How many looks in a row before even a spinner asks the kernel who is still there.
const LOOKS_PER_PROBE: u32 = 4096;

/// What to do after a look that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Look again.
    Look,
    /// Ask the guard whether there is anybody left to wait for, then look again.
    Probe,
    /// Sleep.
    Sleep,
}

/// One wait, counted.
#[derive(Debug)]
pub(crate) struct Pace {
    strategy: WaitStrategy,
    looks: u32,
    limit: u32,
}

impl Pace {
    pub(crate) fn new(strategy: WaitStrategy, cpus: usize) -> Self {
        let limit = match strategy {
            WaitStrategy::Adaptive if cpus > 1 => ADAPTIVE_LOOKS,
            _ => 0,
        };
        Self { strategy, looks: 0, limit }
    }

    /// After a look that found nothing; pauses as the strategy wants.
    pub(crate) fn step(&mut self) -> Step {
        self.looks = self.looks.wrapping_add(1);
        match self.strategy {
            WaitStrategy::Block => Step::Sleep,
            WaitStrategy::Adaptive if self.looks > self.limit => Step::Sleep,
            WaitStrategy::Adaptive => {
                spin_hint();
                Step::Look
            }
            WaitStrategy::Spin => {
                spin_hint();
                if self.looks.is_multiple_of(LOOKS_PER_PROBE) { Step::Probe } else { Step::Look }
            }
            WaitStrategy::Yield => {
                yield_now();
                if self.looks.is_multiple_of(LOOKS_PER_PROBE / 64) { Step::Probe } else { Step::Look }
            }
        }
    }
}

/// CPUs that this process may use, for [`Pace::new`].
pub(crate) fn cpus() -> usize {
    process::allowed_cpus()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_never_looks_twice_and_spin_never_sleeps() {
        assert_eq!(Pace::new(WaitStrategy::Block, 2).step(), Step::Sleep);
        let mut spin = Pace::new(WaitStrategy::Spin, 2);
        assert!((0..10_000).all(|_| spin.step() != Step::Sleep));
    }

    #[test]
    fn adaptive_sleeps_after_a_while_and_at_once_with_one_cpu() {
        let mut pace = Pace::new(WaitStrategy::Adaptive, 2);
        assert_eq!(pace.step(), Step::Look);
        assert!((0..=ADAPTIVE_LOOKS).any(|_| pace.step() == Step::Sleep));
        assert_eq!(Pace::new(WaitStrategy::Adaptive, 1).step(), Step::Sleep);
    }
}
