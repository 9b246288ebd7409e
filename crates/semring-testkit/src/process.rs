//! Data about processes from `/proc`, and a list of the processes started by this one.

use std::fs;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The system calls in which a process sleeps that waits for a ring: on a semaphore, or on its pipes.
pub const SLEEPING_ON_A_RING: &[i64] = &[
    libc::SYS_semop,
    libc::SYS_semtimedop,
    // Newer machines have epoll_pwait only.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
];

/// Those, and the ones in which it lets time pass before it looks again.
pub const SLEEPING: &[i64] = &[
    libc::SYS_semop,
    libc::SYS_semtimedop,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// The system calls in which a process waits for descriptors.
pub const POLLING: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
];

/// The state of a process, from the third field of `/proc/PID/stat`: `R` running, `S` asleep, `D`
/// asleep and not to be disturbed, `T` stopped, `t` stopped by its tracer, `Z` dead and not yet
/// reaped.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn state(pid: u32) -> io::Result<char> {
    state_of(&format!("/proc/{pid}"))
}

fn state_of(directory: &str) -> io::Result<char> {
    let stat = fs::read_to_string(format!("{directory}/stat"))?;
    // The second field is the name in parentheses, which may contain spaces and parentheses.
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The numbers of the system calls in which the threads of a process sleep, one for each thread;
/// `None` for one that runs or sleeps elsewhere (in a page fault, or because it is stopped).
///
/// # Errors
/// `NotFound` if there is no such process, `PermissionDenied` if it is not ours to look into.
pub fn system_calls(pid: u32) -> io::Result<Vec<Option<i64>>> {
    let mut calls = Vec::new();
    for text in of_threads(pid, "syscall")? {
        let number = text.split_whitespace().next().and_then(|n| n.parse().ok());
        calls.push(number.filter(|number| *number >= 0));
    }
    Ok(calls)
}

/// The time that the threads of a process have run so far, in nanoseconds' precision. The time of
/// threads that have ended is not included.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for text in of_threads(pid, "schedstat")? {
        let first = text.split_whitespace().next();
        nanoseconds += first
            .and_then(|n| n.parse::<u64>().ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The state of every thread of a process, a few lines for each, for a person to read. Data that
/// can't be read are left out.
pub fn describe(pid: u32) -> String {
    let mut text = String::new();
    for directory in threads(pid).unwrap_or_default() {
        let read = |file: &str| {
            fs::read_to_string(format!("{directory}/{file}"))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let thread = directory.rsplit('/').next().unwrap_or_default();
        let state = state_of(&directory).unwrap_or('?');
        text += &format!("  thread {thread} ({}): state {state}", read("comm"));
        for file in ["wchan", "syscall"] {
            let content = read(file);
            if !content.is_empty() && content != "0" {
                text += &format!(", {file} {content}");
            }
        }
        text += "\n";
        for frame in read("stack").lines() {
            text += &format!("    {frame}\n");
        }
    }
    text
}

fn threads(pid: u32) -> io::Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks
        .map(|task| Ok(task?.path().to_string_lossy().into_owned()))
        .collect()
}

/// The contents of a file of each thread. One that ends meanwhile is left out.
fn of_threads(pid: u32, file: &str) -> io::Result<Vec<String>> {
    let mut texts = Vec::new();
    for directory in threads(pid)? {
        match fs::read_to_string(format!("{directory}/{file}")) {
            Ok(text) => texts.push(text),
            // Before the open, or between it and the read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(texts)
}

/// A process that was started through this crate.
struct Started {
    pid: u32,
    /// When it was, if it was: from then on the number may be another's.
    reaped: Option<SystemTime>,
}

static STARTED: Mutex<Vec<Started>> = Mutex::new(Vec::new());

/// Records a child, so that objects that it leaves behind can be attributed to this process.
pub(crate) fn record_started(pid: u32) {
    let mut started = STARTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    started.push(Started { pid, reaped: None });
}

/// Notes that the number may belong to another process from now on.
pub(crate) fn record_reaped(pid: u32) {
    let mut started = STARTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let last = started.iter_mut().rev().find(|child| child.pid == pid);
    if let Some(child) = last {
        child.reaped = Some(SystemTime::now());
    }
}

/// A process that was started through this crate, even if another process gets its pid later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(usize);

impl Entry {
    /// The last one with this number.
    pub(crate) fn of(pid: u32) -> Option<Entry> {
        let started = STARTED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        started
            .iter()
            .rposition(|child| child.pid == pid)
            .map(Entry)
    }

    /// When it was reaped.
    pub(crate) fn end(self) -> Option<SystemTime> {
        let started = STARTED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        started[self.0].reaped
    }
}

/// The numbers of this process and of all that it started through this crate, dead ones included.
pub fn ours() -> Vec<u32> {
    let started = STARTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut pids = vec![std::process::id()];
    pids.extend(started.iter().map(|child| child.pid));
    pids
}

/// The numbers of the processes started through this crate that have not been reaped.
pub fn living() -> Vec<u32> {
    let started = STARTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let living = started.iter().filter(|child| child.reaped.is_none());
    living.map(|child| child.pid).collect()
}

/// Sends SIGKILL to every process started through this crate that has not been reaped.
pub(crate) fn kill_the_living() {
    for pid in living() {
        // Not reaped, so the number still is this child's; a dead one does not mind.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_uses_time() {
        let me = std::process::id();
        assert!(cpu_time(me).unwrap() > Duration::ZERO);
        assert!(describe(me).contains(&format!("thread {me} ")));
        assert!(ours().contains(&me));
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        // Above the highest number that Linux allows.
        let nobody = 1 << 23;
        assert_eq!(state(nobody).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            cpu_time(nobody).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert_eq!(describe(nobody), "");
    }
}
