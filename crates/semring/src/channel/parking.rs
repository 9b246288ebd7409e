//! How a handle waits, and how its wait is ended from outside: the same for producers and consumers.

use std::io;
use std::sync::Arc;

use super::interrupt::Interrupter;
use super::pollable::{Pollable, pollable_error};
use crate::guard::deadline::Deadline;
use crate::guard::interrupt::InterruptFlag;
use crate::guard::strategy::{WaitStrategy, cpus};
use crate::guard::wait::{Outcome, Waiter, Waiting};
use crate::guard::{GuardError, Role, WakeTarget};
use crate::lifecycle::SharedRing;
use crate::sync::mutant::{self, Mutant};

/// How often a producer or consumer has slept in the kernel, and how often it has woken the other side there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct WaitStats {
    /// Number of times the handle slept.
    pub sleeps: u64,
    /// Number of times it woke a process of the other side that slept.
    pub wakeups: u64,
}

/// Where a handle waits.
pub(super) struct Parking {
    waiter: Waiter,
    /// Raised by the handle's [`Interrupter`].
    interrupt: Arc<InterruptFlag>,
    /// [`Pollable`] was requested: the descriptor must be readable unless the last look found
    /// nothing.
    polled: bool,
    /// The semaphore, or pipe, on which the handle sleeps.
    target: WakeTarget,
}

/// How a wait of a handle ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Woken {
    /// There is something: look.
    Ready,
    /// No peer is left.
    Over,
    TimedOut,
    Interrupted,
}

impl Parking {
    pub(super) fn new(strategy: WaitStrategy, generation: u64, target: WakeTarget) -> Self {
        Self {
            waiter: Waiter::new(strategy, cpus(), generation),
            interrupt: InterruptFlag::new(),
            polled: false,
            target,
        }
    }

    pub(super) fn target(&self) -> WakeTarget {
        self.target
    }

    /// For the side of the wait, which looks at it each time.
    pub(super) fn interrupt_flag(&self) -> Arc<InterruptFlag> {
        self.interrupt.clone()
    }

    /// True once for each interruption.
    pub(super) fn take_interrupt(&self) -> bool {
        self.interrupt.take()
    }

    pub(super) fn is_polled(&self) -> bool {
        self.polled
    }

    /// Waits until there is something, no peer is left, the time is over, or another thread interrupts.
    pub(super) fn wait(
        &mut self,
        side: &mut impl Waiting,
        deadline: Deadline,
    ) -> Result<Woken, GuardError> {
        let outcome = self.waiter.wait(side, deadline);
        if self.polled && !mutant::is(Mutant::NoPostAfterPolledWait) {
            // The wait took tokens and ended the announcement: the descriptor stays readable.
            side.wakeup().post()?;
        }
        if self.take_interrupt() {
            return Ok(Woken::Interrupted);
        }
        Ok(match outcome? {
            Outcome::Ready => Woken::Ready,
            Outcome::Over => Woken::Over,
            Outcome::TimedOut => Woken::TimedOut,
        })
    }

    /// For a polled handle whose look found nothing; see [`Waiter::stand_by`].
    pub(super) fn stand_by(
        &mut self,
        side: &mut impl Waiting,
    ) -> Result<Option<Outcome>, GuardError> {
        self.waiter.stand_by(side)
    }

    /// How often the handle slept.
    pub(super) fn sleeps(&self) -> u64 {
        self.waiter.sleeps()
    }

    /// Whether the next wait begins with a spin.
    pub(super) fn spins(&self) -> bool {
        self.waiter.spins()
    }

    /// A spin before the wait found something.
    pub(super) fn spun_well(&mut self) {
        self.waiter.spun_well();
    }

    /// The descriptor of the handle in this role. From now on the handle is polled.
    pub(super) fn pollable(&mut self, ring: &SharedRing, role: Role) -> io::Result<Pollable> {
        let pollable = Pollable::of(ring, role)?;
        self.polled = true;
        if !mutant::is(Mutant::NoPostAtPollable) {
            ring.guard.post(self.target).map_err(pollable_error)?;
        }
        Ok(pollable)
    }

    pub(super) fn interrupter(&self, ring: &SharedRing) -> Interrupter {
        Interrupter::new(ring.clone(), self.interrupt.clone(), self.target)
    }
}
