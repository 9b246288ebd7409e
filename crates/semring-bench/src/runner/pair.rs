//! Both sides of a way at work: this thread, and the processes or threads at the other end.

use super::processes::Children;
use super::threads::Threads;
use crate::error::Result;
use crate::machine::{Cpus, pin};
use crate::ways::{End, Spec};
use crate::work::{Measured, Task, Work};

/// A way whose other end is at work.
pub(super) struct Pair {
    size: usize,
    // Dropped before the end of this side: otherwise the other side would report that the way broke.
    others: Others,
    end: Box<dyn End>,
}

enum Others {
    Processes(Children),
    Threads(Threads),
}

impl Pair {
    /// Pins each side to a CPU of its own.
    pub(super) fn pinned(spec: Spec, cpus: &Cpus, work: impl Fn(u64) -> Work) -> Result<Self> {
        let pair = Self::start(spec, cpus, Some(cpus.peer), work)?;
        pin(cpus.own)?;
        Ok(pair)
    }

    /// Leaves the CPUs to the scheduler.
    pub(super) fn unpinned(spec: Spec, cpus: &Cpus, work: impl Fn(u64) -> Work) -> Result<Self> {
        Self::start(spec, cpus, None, work)
    }

    fn start(
        spec: Spec,
        cpus: &Cpus,
        cpu: Option<usize>,
        work: impl Fn(u64) -> Work,
    ) -> Result<Self> {
        let size = spec.size;
        let setup = spec.make()?;
        // A child inherits the CPUs of this thread: pinned, it would start on the CPU that this side uses.
        cpus.unpin()?;
        let task = |sender| Task {
            size,
            work: work(sender),
        };
        let others = match setup.others {
            None => Others::Processes(Children::start(&setup.spec, setup.stdio, cpu, task)?),
            Some(ends) => Others::Threads(Threads::start(ends, cpu, task)?),
        };
        Ok(Self {
            size,
            others,
            end: setup.end,
        })
    }

    /// Runs this side's work, and waits until the other side has finished its own.
    pub(super) fn measure(mut self, work: Work) -> Result<Measured> {
        let measured = self.run(work)?;
        match self.others {
            Others::Processes(children) => children.end()?,
            Others::Threads(threads) => threads.end()?,
        }
        Ok(measured)
    }

    /// Runs this side's work, and stops the other side.
    pub(super) fn measure_and_stop(mut self, work: Work) -> Result<Measured> {
        self.run(work)
    }

    fn run(&mut self, work: Work) -> Result<Measured> {
        let task = Task {
            size: self.size,
            work,
        };
        Ok(self.end.run(&task)?.0)
    }
}
