//! Other users of the CPUs during a run, and causes that slowed the run down.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use procfs::{CpuTime, CurrentSI, KernelStats, ticks_per_second};

use super::description::Machine;

/// Parts of the machine's CPU time from which on a run gets a warning.
const OTHERS: f64 = 0.05;
const STOLEN: f64 = 0.01;
/// The longest distance between the CPUs divided by the shortest, from which on a run gets a warning.
const MOVED: f64 = 1.5;

/// CPU time since the machine was started, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Used {
    /// By programs and the kernel.
    busy: f64,
    /// By the host, for other machines.
    stolen: f64,
    /// Busy, idle or stolen.
    all: f64,
    /// By this process and its children.
    own: f64,
}

impl Used {
    fn now() -> Option<Self> {
        let mut own = 0.0;
        for group in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(group).ok()?;
            let micros =
                usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            own += micros as f64 / 1e6;
        }
        let stats = KernelStats::current().ok()?;
        Some(Self::of(&stats.total, ticks_per_second() as f64, own))
    }

    /// From the kernel's counts of ticks. (Guests are within user time.)
    fn of(ticks: &CpuTime, ticks_per_second: f64, own: f64) -> Self {
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second;
        let interrupts = ticks.irq.unwrap_or(0) + ticks.softirq.unwrap_or(0);
        let busy = seconds(ticks.user + ticks.nice + ticks.system + interrupts);
        let idle = seconds(ticks.idle + ticks.iowait.unwrap_or(0));
        let stolen = seconds(ticks.steal.unwrap_or(0));
        Self {
            busy,
            stolen,
            all: busy + idle + stolen,
            own,
        }
    }
}

/// Observes the machine from the beginning of a run to its end.
pub(crate) struct Disturbance(Option<Used>);

impl Disturbance {
    pub(crate) fn begin() -> Self {
        Self(Used::now())
    }

    /// Reasons not to trust the figures. `lines` are the distances between the CPUs during the run.
    pub(crate) fn warnings(&self, machine: &Machine, lines: &[f64]) -> Vec<String> {
        let mut warnings = Vec::new();
        let (shortest, longest) = lines
            .iter()
            .fold((f64::INFINITY, 0.0f64), |(low, high), line| {
                (low.min(*line), high.max(*line))
            });
        if let Some((then, now)) = self.0.zip(Used::now()) {
            warnings.extend(others(then, now));
        }
        if machine.pinned.is_none() {
            warnings.push(
                "one CPU only: both sides share it, and a side that spins keeps the other from running"
                    .into(),
            );
        }
        if longest > MOVED * shortest {
            warnings.push(format!(
                "the distance between the CPUs was {shortest:.0} to {longest:.0} ns during the run: \
                 compare rounds, not tables"
            ));
        }
        if let Some(limit) = machine.cpu_limit {
            warnings.push(format!(
                "this control group may use {limit:.2} CPUs: figures depend on when it was throttled"
            ));
        }
        warnings
    }
}

fn others(then: Used, now: Used) -> Vec<String> {
    let all = (now.all - then.all).max(1e-9);
    let others = (now.busy - then.busy - (now.own - then.own)) / all;
    let stolen = (now.stolen - then.stolen) / all;
    let mut warnings = Vec::new();
    if others > OTHERS {
        warnings.push(format!(
            "other programs used {:.0} % of the CPUs: too much to trust the figures",
            others * 100.0
        ));
    }
    if stolen > STOLEN {
        warnings.push(format!(
            "the host took {:.0} % of the CPUs for others: too much to trust the figures",
            stolen * 100.0
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use procfs::FromReadSI;

    use super::*;

    #[test]
    fn kernel_ticks_become_seconds() {
        let text = "cpu  1000 100 500 10000 200 300 400 600 700 800\ncpu0 1 1 1 1 1 1 1 1 1 1\n\
                    intr 1\nctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n";
        let stats = KernelStats::from_read(text.as_bytes(), procfs::current_system_info());
        let used = Used::of(&stats.expect("counts").total, 100.0, 7.0);
        let expected = Used {
            busy: 23.0,
            stolen: 6.0,
            all: 131.0,
            own: 7.0,
        };
        assert_eq!(used, expected);
    }

    #[test]
    fn load_of_other_programs_is_reported() {
        let used = |busy, stolen, all, own| Used {
            busy,
            stolen,
            all,
            own,
        };
        let then = used(100.0, 1.0, 1000.0, 50.0);
        assert!(others(then, used(110.0, 1.0, 1020.0, 60.0)).is_empty());
        assert_eq!(others(then, used(112.0, 1.0, 1020.0, 60.0)).len(), 1);
        assert_eq!(others(then, used(112.0, 2.0, 1020.0, 60.0)).len(), 2);
    }
}
