//! Both sides of a way at work: this thread, and the process or thread at the other end.

use crate::Result;
use crate::child::Children;
use crate::machine::{Places, pin};
use crate::task::{Found, Task, Work};
use crate::threads::Threads;
use crate::ways::{End, Spec, make};

/// A way with somebody at its other end.
pub(crate) struct Pair {
    size: usize,
    others: Others,
    // Behind the others: they would say that the way broke.
    end: Box<dyn End>,
}

enum Others {
    Processes(Children),
    Threads(Threads),
}

impl Pair {
    /// Each side on a CPU of its own.
    pub(crate) fn pinned(spec: Spec, places: &Places, work: impl Fn(u64) -> Work) -> Result<Self> {
        let pair = Self::start(spec, places, Some(places.peers), work)?;
        pin(places.mine)?;
        Ok(pair)
    }

    /// Everybody where the scheduler puts them.
    pub(crate) fn free(spec: Spec, places: &Places, work: impl Fn(u64) -> Work) -> Result<Self> {
        Self::start(spec, places, None, work)
    }

    fn start(
        spec: Spec,
        places: &Places,
        cpu: Option<usize>,
        work: impl Fn(u64) -> Work,
    ) -> Result<Self> {
        let size = spec.size;
        let made = make(spec)?;
        // Not begun on our CPU, where they would have to wait for us.
        places.unpin()?;
        let task = |who| Task {
            size,
            work: work(who),
        };
        let others = match made.others {
            None => Others::Processes(Children::start(&made.spec, made.stdio, cpu, task)?),
            Some(ends) => Others::Threads(Threads::start(ends, cpu, task)?),
        };
        Ok(Self {
            size,
            others,
            end: made.end,
        })
    }

    /// Does this side's work, and waits until the other side has done its own.
    pub(crate) fn measure(mut self, work: Work) -> Result<Found> {
        let found = self.work(work)?;
        match self.others {
            Others::Processes(children) => children.end()?,
            Others::Threads(threads) => threads.end()?,
        }
        Ok(found)
    }

    /// Does this side's work, and stops the others.
    pub(crate) fn measure_and_stop(mut self, work: Work) -> Result<Found> {
        self.work(work)
    }

    fn work(&mut self, work: Work) -> Result<Found> {
        let task = Task {
            size: self.size,
            work,
        };
        Ok(self.end.give(&task)?.0)
    }
}
