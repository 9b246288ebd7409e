//! The CPUs that a run uses, and the distance between them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Result;

/// The CPUs of a run.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    /// Those that the process might use at the beginning.
    all: CpuSet,
    /// The CPU of the thread that measures.
    pub(crate) own: usize,
    /// The CPU of the other process or thread.
    pub(crate) peer: usize,
}

impl Cpus {
    /// The first two CPUs that this process may use; the same one twice, if there is only one.
    pub(crate) fn find() -> Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus = allowed()?.into_iter();
        let own = cpus.next().ok_or("no CPU to run on")?;
        let peer = cpus.next().unwrap_or(own);
        Ok(Self { all, own, peer })
    }

    pub(crate) fn are_two(&self) -> bool {
        self.own != self.peer
    }

    /// Lets this thread run on every CPU that the process might use at the beginning.
    pub(crate) fn unpin(&self) -> Result<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.all)?)
    }
}

/// The CPUs that this thread may use. (`available_parallelism` reports fewer in a control group with a limit.)
pub(super) fn allowed() -> Result<Vec<usize>> {
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false));
    Ok(cpus.collect())
}

/// Keeps this thread on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// Whether this thread runs until it sleeps (SCHED_FIFO, `chrt -f`): then a sender that spins would keep the CPU
/// for ever.
#[allow(unsafe_code)]
pub(crate) fn has_no_time_slice() -> bool {
    // SAFETY: takes no memory; 0 is the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    policy == libc::SCHED_FIFO
}

/// One cache line there and back, in nanoseconds: the best of many short stretches.
pub(crate) fn line_round_trip_ns(cpus: &Cpus) -> Option<f64> {
    const TRIPS: u64 = 1000;
    const STRETCHES: u64 = 20;
    #[repr(align(128))]
    struct Line(AtomicU64);
    if !cpus.are_two() {
        return None;
    }
    let line = Line(AtomicU64::new(0));
    let wait_for = |value| {
        while line.0.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    };
    let both_ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let pinned = pin(cpus.peer);
            both_ready.wait();
            for trip in 0..TRIPS * STRETCHES {
                wait_for(2 * trip + 1);
                line.0.store(2 * trip + 2, Ordering::Release);
            }
            pinned.is_ok()
        });
        let pinned = pin(cpus.own);
        both_ready.wait();
        let mut best = f64::INFINITY;
        for stretch in 0..STRETCHES {
            let start = Instant::now();
            for trip in stretch * TRIPS..(stretch + 1) * TRIPS {
                line.0.store(2 * trip + 1, Ordering::Release);
                wait_for(2 * trip + 2);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / TRIPS as f64);
        }
        (other.join().is_ok_and(|pinned| pinned) && pinned.is_ok()).then_some(best)
    })
}
