//! Who we are, who somebody else is, and random bytes.

use std::io;
use std::sync::OnceLock;

/// This process's id.
pub(crate) fn id() -> u32 {
    std::process::id()
}

/// The effective user id.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: geteuid always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

/// The inode number of our IPC namespace: no two that exist have the same.
pub(crate) fn ipc_namespace() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata("/proc/self/ns/ipc").ok()?.ino();
    u32::try_from(inode).ok()
}

/// The effective group id.
pub(crate) fn effective_gid() -> u32 {
    // SAFETY: getegid always succeeds and touches no memory.
    unsafe { libc::getegid() }
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    super::retry(|| {
        // SAFETY: the buffer is ours and N bytes long.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
        match got {
            -1 => Err(io::Error::last_os_error()),
            got if got as usize == N => Ok(()),
            // Up to 256 bytes come whole or not at all.
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    })?;
    Ok(bytes)
}

/// What the kernel's process table says about a pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It runs (or is stopped), and no kill is on its way.
    Alive,
    /// It is gone, a zombie, exiting, or has a SIGKILL pending.
    Dying,
}

/// Looks up a pid. A diagnostic to choose between waiting and refusing; never proof of death: that is
/// the semaphore's undo.
pub(crate) fn fate(pid: u32) -> Fate {
    const PF_EXITING: u64 = 0x4;
    const KILL_BIT: u64 = 1 << (libc::SIGKILL - 1);
    // The pending signals first: a zombie has none any more, so who is killed and dies between the two
    // looks would seem alive to both, if they came the other way round.
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return Fate::Dying;
    };
    let pending = status
        .lines()
        .filter_map(|line| {
            line.strip_prefix("SigPnd:")
                .or_else(|| line.strip_prefix("ShdPnd:"))
        })
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .fold(0, |all, mask| all | mask);
    if pending & KILL_BIT != 0 {
        return Fate::Dying;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Fate::Dying;
    };
    // The command may hold anything, so fields count from behind its last parenthesis: state is the
    // first, flags the seventh.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let state = fields.first().copied().unwrap_or("X");
    let flags: u64 = fields
        .get(6)
        .and_then(|flags| flags.parse().ok())
        .unwrap_or(0);
    if matches!(state, "Z" | "X" | "x") || flags & PF_EXITING != 0 {
        Fate::Dying
    } else {
        Fate::Alive
    }
}

/// How many CPUs the machine ran when this process asked first, whichever of them it may use. (glibc
/// reads it out of a file each time, which is a hundred times an attach.)
pub(crate) fn online_cpus() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        // SAFETY: asks for a number; touches no memory of ours.
        let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        usize::try_from(count).unwrap_or(1).max(1)
    })
}

/// The random number that the kernel gave itself when it started.
pub(crate) fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.trim().chars().filter(|&digit| digit != '-').collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}

/// How many bytes this process may lock in memory; `None` without a limit.
pub(crate) fn memory_lock_limit() -> Option<u64> {
    let mut limit = std::mem::MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the buffer is ours.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, limit.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    // SAFETY: getrlimit succeeded and filled it.
    let limit = unsafe { limit.assume_init() };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Reserved huge pages of 2 MiB that nobody has; `None` where the kernel has none.
pub(crate) fn free_huge_pages() -> Option<u64> {
    std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What the kernel does about transparent huge pages in shared memory: `never`, `advise`, …
pub(crate) fn shared_huge_pages() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// The limits of semaphore sets in this IPC namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SemaphoreLimits {
    /// SEMMSL: semaphores in a set.
    pub(crate) per_set: u64,
    /// SEMMNS: semaphores in all sets.
    pub(crate) total: u64,
    /// SEMOPM: operations in one call.
    pub(crate) operations: u64,
    /// SEMMNI: sets.
    pub(crate) sets: u64,
}

/// Reads `kernel.sem`; `None` where /proc is not mounted.
pub(crate) fn semaphore_limits() -> Option<SemaphoreLimits> {
    let text = std::fs::read_to_string("/proc/sys/kernel/sem").ok()?;
    let values: Vec<u64> = text
        .split_whitespace()
        .filter_map(|value| value.parse().ok())
        .collect();
    let [per_set, total, operations, sets] = values[..] else {
        return None;
    };
    Some(SemaphoreLimits {
        per_set,
        total,
        operations,
        sets,
    })
}

/// Bytes of memory and swap that could be had without killing anybody, as the kernel estimates it;
/// `None` where /proc is not mounted.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    };
    Some(field("MemAvailable:")? + field("SwapFree:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_is_alive_and_a_reaped_one_is_not() {
        assert_eq!(fate(id()), Fate::Alive);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(fate(child.id()), Fate::Dying);
    }

    #[test]
    fn a_killed_process_that_nobody_reaped_is_dying() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        assert_eq!(fate(child.id()), Fate::Alive);
        child.kill().unwrap();
        assert_eq!(fate(child.id()), Fate::Dying);
        child.wait().unwrap();
    }

    #[test]
    fn the_boot_id_stays() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
