//! Numbers of the kernel: limits, their present use, and the needs of a ring.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use sysv_ipc::{limits, sem, shm};

use super::{Check, DEFAULT_LANES, DEFAULT_RING_BYTES, State};
use crate::units::human_bytes;

/// The oldest kernel that rings are tried on.
const OLDEST: (u32, u32) = (5, 10);

/// Lanes of the largest ring.
const MOST_LANES: u64 = 240;

pub(super) fn kernel() -> Check {
    const NAME: &str = "kernel";
    let system = nix::sys::utsname::uname();
    let release = system
        .as_ref()
        .map_or_else(|_| "".into(), |system| system.release().to_string_lossy());
    match version(&release) {
        None => Check::ok(NAME, "unknown"),
        Some(version) if version < OLDEST => Check::not_ok(
            NAME,
            State::Problem,
            format!("Linux {release}; rings need 5.10 or newer"),
            "boot a newer kernel",
        ),
        Some(_) => Check::ok(NAME, format!("Linux {release}")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// True if less than a tenth is left.
fn is_short(left: u64, all: u64) -> bool {
    left < all / 10
}

/// How to change a kernel number, for now and for later.
fn sysctl(name: &str, value: &str) -> String {
    let quote = if value.contains(' ') { "\"" } else { "" };
    format!(
        "sysctl -w {name}={quote}{value}{quote} (to keep it: a line in /etc/sysctl.d; in a container: \
         docker run --sysctl {name}={quote}{value}{quote})"
    )
}

pub(super) fn semaphores() -> Check {
    const NAME: &str = "semaphores";
    let (limits, sets) = match (limits::sem(), sem::list()) {
        (Ok(limits), Ok(sets)) => (limits, sets),
        (Err(error), _) | (_, Err(error)) => {
            return Check::not_ok(
                NAME,
                State::Warning,
                format!("no System V semaphores here ({error}): rings get pipes"),
                "use a kernel with CONFIG_SYSVIPC",
            );
        }
    };
    let used = sets.iter().map(|entry| entry.stat.count as u64).sum();
    judge_semaphores(NAME, limits, sets.len() as u64, used)
}

fn judge_semaphores(
    name: &'static str,
    limits: limits::Sem,
    used_sets: u64,
    used_semaphores: u64,
) -> Check {
    // A set has 8 semaphores and 2 for each lane; the consumer attaches with 3 operations and 2 for each.
    let lanes_by_set = limits.per_set.saturating_sub(8) / 2;
    let lanes_by_call = limits.ops_per_call.saturating_sub(3) / 2;
    let lanes = lanes_by_set.min(lanes_by_call).min(MOST_LANES);
    let left_sets = limits.sets.saturating_sub(used_sets);
    let left = limits.in_all.saturating_sub(used_semaphores);
    let needed = 8 + 2 * DEFAULT_LANES;
    let use_of = format!(
        "{used_sets} of {} sets and {used_semaphores} of {} semaphores in use",
        limits.sets, limits.in_all
    );
    // The kernel's own default since 3.19, if that is more.
    let raised = format!(
        "{} {} {} {}",
        limits.per_set.max(32_000),
        limits.in_all.max(1_024_000_000),
        limits.ops_per_call.max(500),
        limits.sets.max(32_000)
    );
    let fix = sysctl("kernel.sem", &raised);
    let full = if left_sets == 0 {
        Some("no set is left for another ring, which gets pipes")
    } else if left < needed {
        Some("too few semaphores are left for another ring, which gets pipes")
    } else {
        None
    };
    if let Some(full) = full {
        let fix = format!("semring prune removes unused ones; {fix}");
        return Check::not_ok(name, State::Warning, format!("{use_of}: {full}"), fix);
    }
    if lanes < MOST_LANES {
        let finding = format!(
            "{use_of}; a ring can have {lanes} producers at most (of {MOST_LANES}); one for more gets pipes"
        );
        return Check::not_ok(name, State::Warning, finding, fix);
    }
    if is_short(left_sets, limits.sets) || is_short(left, limits.in_all) {
        let fix = format!("semring prune removes unused ones; {fix}");
        return Check::not_ok(name, State::Warning, format!("{use_of}: few are left"), fix);
    }
    Check::ok(name, use_of)
}

pub(super) fn segments() -> Check {
    const NAME: &str = "sysv memory";
    let (limits, segments) = match (limits::shm(), shm::list()) {
        (Ok(limits), Ok(segments)) => (limits, segments),
        (Err(error), _) | (_, Err(error)) => {
            return Check::not_ok(
                NAME,
                State::Warning,
                format!("no System V shared memory here ({error})"),
                "use posix: rings, or a kernel with CONFIG_SYSVIPC",
            );
        }
    };
    let page = page_bytes();
    let pages = segments
        .iter()
        .map(|entry| (entry.stat.bytes as u64).div_ceil(page))
        .sum();
    judge_segments(NAME, limits, segments.len() as u64, pages, page)
}

fn page_bytes() -> u64 {
    use nix::unistd::{SysconfVar, sysconf};
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(4096)
        .max(1)
}

/// A size; the kernel's default is no limit, which it writes as nearly 2^64.
fn limit_bytes(bytes: u64) -> String {
    if bytes > 1 << 60 {
        "no limit".to_owned()
    } else {
        human_bytes(bytes)
    }
}

fn judge_segments(
    name: &'static str,
    limits: limits::Shm,
    used_segments: u64,
    used_pages: u64,
    page: u64,
) -> Check {
    let all_bytes = limits.pages_in_all.saturating_mul(page);
    let left_bytes = all_bytes.saturating_sub(used_pages.saturating_mul(page));
    let left_segments = limits.segments.saturating_sub(used_segments);
    let use_of = format!(
        "{used_segments} of {} segments, {} in use (of {})",
        limits.segments,
        human_bytes(used_pages.saturating_mul(page)),
        limit_bytes(all_bytes)
    );
    let small = (limits.max_bytes < DEFAULT_RING_BYTES).then(|| {
        (
            format!("one of {} is refused", human_bytes(DEFAULT_RING_BYTES)),
            sysctl("kernel.shmmax", "18446744073692774399"),
        )
    });
    let full = (left_segments == 0).then(|| {
        (
            "no segment is left for another ring".to_owned(),
            sysctl(
                "kernel.shmmni",
                &limits.segments.max(4096).saturating_mul(2).to_string(),
            ),
        )
    });
    let no_room = (left_bytes < DEFAULT_RING_BYTES).then(|| {
        (
            format!("no room for another {}", human_bytes(DEFAULT_RING_BYTES)),
            sysctl("kernel.shmall", "18446744073692774399"),
        )
    });
    if let Some((why, fix)) = small.or(full).or(no_room) {
        return Check::not_ok(name, State::Problem, format!("{use_of}: {why}"), fix);
    }
    if limits.removed_when_unattached {
        return Check::not_ok(
            name,
            State::Problem,
            format!(
                "{use_of}; segments are removed when no process has them mapped (kernel.shm_rmid_forced)"
            ),
            sysctl("kernel.shm_rmid_forced", "0"),
        );
    }
    if is_short(left_segments, limits.segments) || is_short(left_bytes, all_bytes) {
        return Check::not_ok(
            name,
            State::Warning,
            format!("{use_of}: little is left"),
            "semring prune removes unused rings; ipcs -m shows the owners of the others",
        );
    }
    Check::ok(name, use_of)
}

pub(super) fn locked_memory() -> Check {
    const NAME: &str = "locked memory";
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return Check::ok(NAME, "unknown; only for rings that are to be locked");
    };
    match soft {
        RLIM_INFINITY => Check::ok(NAME, "no limit"),
        bytes if bytes >= DEFAULT_RING_BYTES => Check::ok(
            NAME,
            format!(
                "{} (ulimit -l); only for rings that are to be locked",
                human_bytes(bytes)
            ),
        ),
        bytes => Check::not_ok(
            NAME,
            State::Warning,
            format!(
                "{}: too little to lock a ring of {} into memory",
                human_bytes(bytes),
                human_bytes(DEFAULT_RING_BYTES)
            ),
            "ulimit -l unlimited, LimitMEMLOCK= in a unit, docker run --ulimit memlock=-1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("6.18.3-arch1"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
        assert!(version("5.9.99") < Some(OLDEST) && version("5.10.0") >= Some(OLDEST));
    }
}
