//! Whether the machine left the run alone: what else it did meanwhile, and what held the run back.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

use crate::Result;
use crate::machine::Machine;

/// Parts of the machine's CPU time above which figures are not to be believed.
const OTHERS: f64 = 0.05;
const STOLEN: f64 = 0.01;
/// The longest distance between the CPUs against the shortest.
const MOVED: f64 = 1.5;

/// What the CPUs did since the machine was started, in seconds, and what of that was us.
#[derive(Clone, Copy)]
struct Used {
    busy: f64,
    stolen: f64,
    all: f64,
    ours: f64,
}

/// From the first line of /proc/stat, in ticks: everything, and of it what was not idle, and what the host
/// took. (Guests are within user time.)
fn parse(stat: &str) -> Option<[f64; 3]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .map_while(|ticks| ticks.parse().ok())
        .collect();
    let [
        user,
        nice,
        system,
        idle,
        waiting,
        interrupts,
        soft,
        stolen,
        ..,
    ] = ticks[..]
    else {
        return None;
    };
    let busy = user + nice + system + interrupts + soft;
    Some([busy + idle + waiting + stolen, busy, stolen])
}

impl Used {
    fn now() -> Option<Self> {
        let [all, busy, stolen] = parse(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let tick = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
        let mut ours = 0.0;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who).ok()?;
            let micros =
                usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            ours += micros as f64 / 1e6;
        }
        Some(Self {
            busy: busy / tick,
            stolen: stolen / tick,
            all: all / tick,
            ours,
        })
    }
}

/// Looks at the machine from the beginning of a run to its end.
pub(crate) struct Watch(Option<Used>);

impl Watch {
    pub(crate) fn begin() -> Self {
        Self(Used::now())
    }

    /// What speaks against the figures.
    pub(crate) fn warnings(&self, machine: &Machine, lines: &[f64]) -> Vec<String> {
        let mut warnings = Vec::new();
        let (shortest, longest) = lines
            .iter()
            .fold((f64::INFINITY, 0.0f64), |(low, high), line| {
                (low.min(*line), high.max(*line))
            });
        if let Some(warning) = self.0.zip(Used::now()).map(|(then, now)| others(then, now)) {
            warnings.extend(warning);
        }
        if machine.pinned.is_none() {
            warnings.push(
                "one CPU only: both sides share it, and whoever spins keeps the other from working"
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
                "this control group may use {limit:.2} CPUs: figures depend on when it was held back"
            ));
        }
        warnings
    }
}

fn others(then: Used, now: Used) -> Vec<String> {
    let all = (now.all - then.all).max(1e-9);
    let others = (now.busy - then.busy - (now.ours - then.ours)) / all;
    let stolen = (now.stolen - then.stolen) / all;
    let mut warnings = Vec::new();
    if others > OTHERS {
        warnings.push(format!(
            "other programs used {:.0} % of the CPUs: too much to believe the figures",
            others * 100.0
        ));
    }
    if stolen > STOLEN {
        warnings.push(format!(
            "the host took {:.0} % of the CPUs for others: too much to believe the figures",
            stolen * 100.0
        ));
    }
    warnings
}

/// How many CPUs the control groups of this process let it use together, if that is limited.
pub(crate) fn cpu_limit() -> Option<f64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        match rest.split_once(':')? {
            ("", own) => least("/sys/fs/cgroup", own, |folder| {
                let text = std::fs::read_to_string(format!("{folder}/cpu.max"));
                quota(&text.ok()?)
            }),
            // The older kind of groups: a hierarchy for each resource.
            (names, own) if names.split(',').any(|name| name == "cpu") => {
                least(&format!("/sys/fs/cgroup/{names}"), own, |folder| {
                    let read = |name| std::fs::read_to_string(format!("{folder}/{name}")).ok();
                    let period = read("cpu.cfs_period_us")?;
                    quota(&format!("{} {period}", read("cpu.cfs_quota_us")?.trim()))
                })
            }
            _ => None,
        }
    });
    limits.reduce(f64::min)
}

/// The least of the limits of a group and of those around it.
fn least(top: &str, own: &str, limit: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let mut folder = format!("{top}{own}");
    let mut least: Option<f64> = None;
    while folder.len() > top.len() {
        if let Some(limit) = limit(&folder) {
            least = Some(least.map_or(limit, |least| least.min(limit)));
        }
        folder.truncate(folder.rfind('/')?);
    }
    least
}

/// `50000 100000` is half a CPU; `max 100000` and `-1 100000` are no limit.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let limit = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    (limit > 0.0).then_some(limit)
}

/// How fast the CPUs may be clocked, and whether they are a host's.
pub(crate) fn governor() -> Option<String> {
    let path = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

/// Whether this kernel runs on another one's hardware, by the CPU's word.
pub(crate) fn is_virtual(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// How many threads want a CPU on average over the last minute.
pub(crate) fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split_whitespace().next().ok_or("no load")?;
    Ok(first.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_stat_is_understood() {
        let text = "cpu  10 1 5 100 2 3 4 6 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse(text), Some([131.0, 23.0, 6.0]));
        assert_eq!(parse("cpu 1 2\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_machine_that_works_for_others_is_noticed() {
        let used = |busy, stolen, all, ours| Used {
            busy,
            stolen,
            all,
            ours,
        };
        let then = used(100.0, 1.0, 1000.0, 50.0);
        assert!(others(then, used(110.0, 1.0, 1020.0, 60.0)).is_empty());
        assert_eq!(others(then, used(112.0, 1.0, 1020.0, 60.0)).len(), 1);
        assert_eq!(others(then, used(112.0, 2.0, 1020.0, 60.0)).len(), 2);
    }

    #[test]
    fn a_quota_is_a_number_of_cpus() {
        assert_eq!(quota("50000 100000\n"), Some(0.5));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("-1 100000\n"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let limits = |folder: &str| match folder {
            "/top/a" => Some(0.5),
            "/top/a/b" => Some(2.0),
            other => panic!("nobody asks for {other}"),
        };
        assert_eq!(least("/top", "/a/b", limits), Some(0.5));
        assert_eq!(least("/top", "/", |_| None), None);
    }

    #[test]
    fn a_hypervisor_is_among_the_flags() {
        assert!(is_virtual("flags\t\t: fpu hypervisor lm\n"));
        assert!(!is_virtual("flags\t\t: fpu lm\nbugs: hypervisor\n"));
    }
}
