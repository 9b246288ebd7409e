//! Identity and state of processes, properties of the machine, and random bytes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// This process's id.
pub(crate) fn id() -> u32 {
    std::process::id()
}

/// True if the process has no other thread; false also where that can't be found out.
pub(crate) fn has_one_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Has a function called when this process, or one forked from it, ends by exit(3) or by returning from `main`.
pub(crate) fn at_exit(function: extern "C" fn()) {
    // SAFETY: a function that lives as long as the program. (Refused for want of memory, it is not called.)
    unsafe { libc::atexit(function) };
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

/// The state of a pid in the kernel's process table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Liveness {
    /// It runs (or is stopped), and no kill is on its way.
    Alive,
    /// It is gone, a zombie, exiting, or has a SIGKILL pending.
    Dying,
}

/// Identifies a process among all others since the machine was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Inode number of the pid namespace in which it has this pid; 0 if that is not known.
    pub(crate) namespace: u64,
    /// Clock ticks from the start of the machine to its own, never 0; the greatest number if that is not known.
    pub(crate) started: u64,
}

/// Our own.
pub(crate) fn identity() -> Identity {
    Identity {
        pid: id(),
        namespace: pid_namespace(),
        started: start_time("self").unwrap_or(u64::MAX),
    }
}

/// True if the process has surely ended, and was reaped.
pub(crate) fn is_gone(identity: Identity) -> bool {
    if identity.namespace == 0 || identity.namespace != pid_namespace() {
        return false;
    }
    let Ok(pid) = libc::pid_t::try_from(identity.pid) else {
        return true;
    };
    // SAFETY: signal 0 does nothing.
    let sent = unsafe { libc::kill(pid, 0) };
    if super::check(sent).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
        return true;
    }
    let now = start_time(&identity.pid.to_string());
    identity.started != u64::MAX && now.is_some_and(|now| now != identity.started)
}

fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// The 22nd field of /proc/PID/stat, counted from after the name, which may hold any characters.
fn start_time(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_the_name = stat.rsplit(')').next()?;
    let started: u64 = behind_the_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(started.max(1))
}

/// Looks up a pid. A diagnostic to choose between waiting and refusing; never proof of death: that is
/// the semaphore's undo.
pub(crate) fn fate(pid: u32) -> Liveness {
    const PF_EXITING: u64 = 0x4;
    const KILL_BIT: u64 = 1 << (libc::SIGKILL - 1);
    // The pending signals come first: a zombie has none any more. In the other order, a process that
    // is killed and dies between the two reads would seem alive to both.
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return fate_without_proc(pid);
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
        return Liveness::Dying;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return fate_without_proc(pid);
    };
    // The command may hold any characters, so fields count from after its last parenthesis: state
    // is the first, flags the seventh.
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
        Liveness::Dying
    } else {
        Liveness::Alive
    }
}

/// The same where /proc is missing or hides the process (`hidepid`): a kill that is on its way does not show.
fn fate_without_proc(pid: u32) -> Liveness {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return Liveness::Dying;
    };
    // SAFETY: takes numbers only.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(number) = super::check(number as libc::c_int) else {
        // Before Linux 5.3, or under a seccomp filter without this call: a process that can't be shown
        // to be dead counts as alive.
        let gone = io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
        return if gone {
            Liveness::Dying
        } else {
            Liveness::Alive
        };
    };
    // SAFETY: a new descriptor, owned here.
    let process = unsafe { OwnedFd::from_raw_fd(number) };
    let mut asked = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure of ours.
    let ended = unsafe { libc::poll(&raw mut asked, 1, 0) } == 1;
    if ended {
        Liveness::Dying
    } else {
        Liveness::Alive
    }
}

/// The number of CPUs that were online at the first call in this process, including those that the
/// process may not use. (glibc reads it from a file each time, which takes a hundred times as long
/// as attaching.)
pub(crate) fn online_cpus() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        // SAFETY: returns a number; touches no memory of this process.
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

/// Huge pages of 2 MiB that a new mapping can have: free in the pool and not reserved for another mapping, or
/// made on demand. `None` where the kernel has none.
pub(crate) fn free_huge_pages() -> Option<u64> {
    let number = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let free = number("free_hugepages")?.saturating_sub(number("resv_hugepages").unwrap_or(0));
    let overcommit = number("nr_overcommit_hugepages").unwrap_or(0);
    Some(free + overcommit.saturating_sub(number("surplus_hugepages").unwrap_or(0)))
}

/// The kernel's setting for transparent huge pages in shared memory: `never`, `advise`, …
pub(crate) fn shared_huge_pages() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").ok()?;
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// Bytes of memory and swap that can be allocated without a process being killed, as the kernel estimates it. Where
/// /proc can't be read there is no estimate, and this is all that the machine has.
pub(crate) fn available_memory() -> Option<u64> {
    available_in(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
        .or_else(memory_and_swap)
}

fn available_in(meminfo: &str) -> Option<u64> {
    Some(
        meminfo_field(meminfo, "MemAvailable:")? + meminfo_field(meminfo, "SwapFree:").unwrap_or(0),
    )
}

fn meminfo_field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes of unused swap; 0 where /proc can't be read.
pub(crate) fn free_swap() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo_field(&meminfo, "SwapFree:").unwrap_or(0)
}

fn memory_and_swap() -> Option<u64> {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: the buffer is ours.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: sysinfo succeeded and filled it.
    let info = unsafe { info.assume_init() };
    let units = info.totalram.saturating_add(info.totalswap);
    Some(units.saturating_mul(info.mem_unit.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_is_alive_and_a_reaped_one_is_not() {
        assert_eq!(fate(id()), Liveness::Alive);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(fate(child.id()), Liveness::Dying);
    }

    #[test]
    fn a_process_is_gone_when_it_was_reaped() {
        assert!(!is_gone(identity()));
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let started = start_time(&child.id().to_string()).unwrap();
        let childs = Identity {
            pid: child.id(),
            started,
            ..identity()
        };
        assert!(!is_gone(childs));
        assert!(
            is_gone(Identity {
                started: started + 1,
                ..childs
            }),
            "another process"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(childs));
        assert!(
            !is_gone(Identity {
                namespace: 0,
                ..childs
            }),
            "it can't be seen"
        );
        assert!(
            !is_gone(Identity {
                namespace: 1,
                ..childs
            }),
            "it can't be seen"
        );
    }

    #[test]
    fn a_killed_process_that_nobody_reaped_is_dying() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        assert_eq!(fate(child.id()), Liveness::Alive);
        child.kill().unwrap();
        assert_eq!(fate(child.id()), Liveness::Dying);
        child.wait().unwrap();
    }

    #[test]
    fn fate_is_known_without_proc() {
        assert_eq!(fate_without_proc(id()), Liveness::Alive);
        assert_eq!(fate_without_proc(1), Liveness::Alive);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        super::super::child::await_end(child.id()).unwrap();
        assert_eq!(
            fate_without_proc(child.id()),
            Liveness::Dying,
            "not reaped yet"
        );
        child.wait().unwrap();
        assert_eq!(fate_without_proc(child.id()), Liveness::Dying);
    }

    #[test]
    fn available_memory_is_no_more_than_the_machine_has() {
        let all = memory_and_swap().unwrap();
        assert!(available_memory().unwrap() <= all);
        let told = available_in("MemFree: 1 kB\nMemAvailable:  20 kB\nSwapFree: 3 kB\n");
        assert_eq!(told, Some(23 << 10));
        assert_eq!(available_in(""), None);
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
