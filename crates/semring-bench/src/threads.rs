//! The other side as threads of this process, for ways that do not leave it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::Result;
use crate::machine::pin;
use crate::task::Task;
use crate::ways::{End, Ends};

/// Threads that a run started. Dropped, they are stopped.
pub(crate) struct Threads {
    threads: Vec<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
}

impl Threads {
    /// Starts one thread for each end.
    pub(crate) fn start(
        ends: Ends,
        cpu: Option<usize>,
        task: impl Fn(u64) -> Task,
    ) -> Result<Self> {
        let mut all = Self {
            threads: Vec::new(),
            stop: ends.stop,
        };
        for (who, end) in (0..).zip(ends.ends) {
            let task = task(who);
            let start = thread::Builder::new().name(format!("sender {who}"));
            all.threads
                .push(start.spawn(move || work(end, &task, cpu))?);
        }
        Ok(all)
    }

    /// Waits until all have done what they had to do.
    pub(crate) fn end(mut self) -> Result<()> {
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "the other thread panicked")??;
        }
        Ok(())
    }
}

fn work(mut end: Box<dyn End + Send>, task: &Task, cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    end.give(task).map(drop)
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // It was stopped in the middle of something: what it says about that does not matter.
            let _ = thread.join();
        }
    }
}
