//! The CPU limit of the control groups of this process.

use procfs::process::Process;

/// How many CPUs the control groups let this process use, if that is limited.
pub(super) fn cpu_limit() -> Option<f64> {
    let groups = Process::myself()
        .and_then(|process| process.cgroups())
        .ok()?;
    let limits = groups.into_iter().filter_map(|group| {
        if group.controllers.is_empty() {
            // Version 2: one hierarchy for all resources.
            return least("/sys/fs/cgroup", &group.pathname, |folder| {
                let text = std::fs::read_to_string(format!("{folder}/cpu.max"));
                quota(&text.ok()?)
            });
        }
        // Version 1: a hierarchy for each set of resources.
        let controllers = &group.controllers;
        if !controllers.iter().any(|controller| controller == "cpu") {
            return None;
        }
        let root = format!("/sys/fs/cgroup/{}", controllers.join(","));
        least(&root, &group.pathname, |folder| {
            let read = |name| std::fs::read_to_string(format!("{folder}/{name}")).ok();
            let period = read("cpu.cfs_period_us")?;
            quota(&format!("{} {period}", read("cpu.cfs_quota_us")?.trim()))
        })
    });
    limits.reduce(f64::min)
}

/// The least of the limits of a group and of the groups that contain it.
fn least(root: &str, group: &str, limit: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let mut folder = format!("{root}{group}");
    let mut least: Option<f64> = None;
    while folder.len() > root.len() {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            other => panic!("{other} is not around /a/b"),
        };
        assert_eq!(least("/top", "/a/b", limits), Some(0.5));
        assert_eq!(least("/top", "/", |_| None), None);
    }
}
