//! The machine: what it is, its CPUs, and how far they are from each other.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::quiet;

/// Where a run was made.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub processor: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// What decides the CPUs' clock (cpufreq). Absent where that is the host's affair.
    pub governor: Option<String>,
    /// The CPU of the process that measures, and that of the other one. Absent with one CPU.
    pub pinned: Option<[usize; 2]>,
    /// How many CPUs a control group lets this process use, if that is limited.
    pub cpu_limit: Option<f64>,
    /// Threads that wanted a CPU when the run began: the average over a minute.
    pub load: Option<f64>,
    /// Nanoseconds for one cache line to be written on one CPU, seen and answered on the other: median
    /// over the run. Absent with one CPU.
    pub line_round_trip_ns: Option<f64>,
}

impl Machine {
    /// Everything but the figures, in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}, {} CPU{}, {}Linux {}",
            self.processor,
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            if self.is_virtual { "virtual, " } else { "" },
            self.kernel,
        );
        if let Some(governor) = &self.governor {
            text.push_str(&format!(", governor {governor}"));
        }
        if let Some([mine, other]) = self.pinned {
            text.push_str(&format!(", pinned to CPUs {mine} and {other}"));
        }
        text
    }

    pub(crate) fn new() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            processor: model.unwrap_or("unknown processor").to_string(),
            cpus: allowed().map_or(1, |cpus| cpus.len()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            is_virtual: quiet::is_virtual(&cpuinfo),
            governor: quiet::governor(),
            pinned: None,
            cpu_limit: quiet::cpu_limit(),
            load: quiet::load().ok(),
            line_round_trip_ns: None,
        }
    }
}

/// Where this thread may run.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: CpuSet,
    pub(crate) mine: usize,
    pub(crate) peers: usize,
}

impl Places {
    /// The first two CPUs that this process may use; the same one twice, if there is only one.
    pub(crate) fn find() -> crate::Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus = allowed()?.into_iter();
        let mine = cpus.next().ok_or("no CPU to run on")?;
        let peers = cpus.next().unwrap_or(mine);
        Ok(Self { all, mine, peers })
    }

    pub(crate) fn two(&self) -> bool {
        self.mine != self.peers
    }

    /// Lets this thread run wherever the process might at the beginning.
    pub(crate) fn unpin(&self) -> crate::Result<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.all)?)
    }
}

/// The CPUs that this thread may use. (What the standard library counts is less in a control group that is
/// limited.)
fn allowed() -> crate::Result<Vec<usize>> {
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let cpus = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false));
    Ok(cpus.collect())
}

/// Keeps this thread on one CPU.
pub(crate) fn pin(cpu: usize) -> crate::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// Whether this thread runs until it sleeps (chrt -f): then more spinners than CPUs would spin for ever.
pub(crate) fn has_no_time_slice() -> bool {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: the policy is field 41, the state is field 3.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let policy = fields.split(' ').nth(41 - 3);
    policy == Some("1")
}

/// One cache line there and back, in nanoseconds: the best of many short stretches.
pub(crate) fn line_round_trip_ns(places: &Places) -> Option<f64> {
    const TRIPS: u64 = 1000;
    const STRETCHES: u64 = 20;
    #[repr(align(128))]
    struct Line(AtomicU64);
    if !places.two() {
        return None;
    }
    let line = Line(AtomicU64::new(0));
    let wait_for = |value| {
        while line.0.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    };
    let both_there = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let pinned = pin(places.peers);
            both_there.wait();
            for trip in 0..TRIPS * STRETCHES {
                wait_for(2 * trip + 1);
                line.0.store(2 * trip + 2, Ordering::Release);
            }
            pinned.is_ok()
        });
        let pinned = pin(places.mine);
        both_there.wait();
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
