//! The other side as threads of this process, for ways that connect threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::error::Result;
use crate::machine::pin;
use crate::ways::{End, ThreadEnds};
use crate::work::Task;

/// The threads of one round. Dropping stops them.
pub(super) struct Threads {
    threads: Vec<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
}

impl Threads {
    /// Starts one thread for each end.
    pub(super) fn start(
        ends: ThreadEnds,
        cpu: Option<usize>,
        task: impl Fn(u64) -> Task,
    ) -> Result<Self> {
        let mut all = Self {
            threads: Vec::new(),
            stop: ends.stop,
        };
        for (sender, end) in (0..).zip(ends.ends) {
            let task = task(sender);
            let start = thread::Builder::new().name(format!("sender {sender}"));
            all.threads
                .push(start.spawn(move || work(end, &task, cpu))?);
        }
        Ok(all)
    }

    /// Waits until all have finished.
    pub(super) fn end(mut self) -> Result<()> {
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
    end.run(task).map(drop)
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // It was stopped in the middle of its work: its error only reports that.
            let _ = thread.join();
        }
    }
}
