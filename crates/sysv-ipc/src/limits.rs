//! The limits of this IPC namespace, from `/proc/sys/kernel`, or from the kernel by `IPC_INFO` where that
//! can't be read.
//!
//! Each new IPC namespace begins with the kernel's defaults, and root may change them there. They
//! apply to creation; existing objects stay.
//!
//! ```
//! let limits = sysv_ipc::limits::sem()?;
//! println!("{} operations in one call at most", limits.ops_per_call);
//! # assert!(limits.ops_per_call > 0);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io;
use std::str::FromStr;

use crate::sys;

/// The limits of semaphores, from `/proc/sys/kernel/sem`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Sem {
    /// Semaphores in one set (`SEMMSL`).
    pub per_set: u64,
    /// Semaphores in all sets together (`SEMMNS`).
    pub in_all: u64,
    /// Operations in one `semop` (`SEMOPM`).
    pub ops_per_call: u64,
    /// Sets (`SEMMNI`).
    pub sets: u64,
}

/// The limits of shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Shm {
    /// The size of one segment in bytes, from `/proc/sys/kernel/shmmax`.
    pub max_bytes: u64,
    /// The pages of all segments together, from `/proc/sys/kernel/shmall`.
    pub pages_in_all: u64,
    /// Segments, from `/proc/sys/kernel/shmmni`.
    pub segments: u64,
    /// Whether segments without attachments are removed at the exit of their creator, from
    /// `/proc/sys/kernel/shm_rmid_forced`; false where that can't be read.
    pub removed_when_unattached: bool,
}

/// The limits of message queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Msg {
    /// The size of one message in bytes, from `/proc/sys/kernel/msgmax`.
    pub message_bytes: u64,
    /// How many bytes a new queue may hold, from `/proc/sys/kernel/msgmnb`.
    pub queue_bytes: u64,
    /// Queues, from `/proc/sys/kernel/msgmni`.
    pub queues: u64,
}

/// Reads the limits of semaphores.
///
/// # Errors
/// What reading gives, if the kernel has no System V IPC.
pub fn sem() -> io::Result<Sem> {
    sem_from_proc().or_else(|error| sem_from_kernel().ok_or(error))
}

fn sem_from_proc() -> io::Result<Sem> {
    let [per_set, in_all, ops_per_call, sets] = numbers("/proc/sys/kernel/sem")?;
    Ok(Sem {
        per_set,
        in_all,
        ops_per_call,
        sets,
    })
}

/// Reads the limits of shared memory.
///
/// # Errors
/// As [`sem`].
pub fn shm() -> io::Result<Shm> {
    shm_from_proc().or_else(|error| shm_from_kernel().ok_or(error))
}

fn shm_from_proc() -> io::Result<Shm> {
    let [max_bytes] = numbers("/proc/sys/kernel/shmmax")?;
    let [pages_in_all] = numbers("/proc/sys/kernel/shmall")?;
    let [segments] = numbers("/proc/sys/kernel/shmmni")?;
    let [forced] = numbers("/proc/sys/kernel/shm_rmid_forced")?;
    Ok(Shm {
        max_bytes,
        pages_in_all,
        segments,
        removed_when_unattached: forced != 0,
    })
}

/// Reads the limits of message queues.
///
/// # Errors
/// As [`sem`].
pub fn msg() -> io::Result<Msg> {
    msg_from_proc().or_else(|error| msg_from_kernel().ok_or(error))
}

fn msg_from_proc() -> io::Result<Msg> {
    let [message_bytes] = numbers("/proc/sys/kernel/msgmax")?;
    let [queue_bytes] = numbers("/proc/sys/kernel/msgmnb")?;
    let [queues] = numbers("/proc/sys/kernel/msgmni")?;
    Ok(Msg {
        message_bytes,
        queue_bytes,
        queues,
    })
}

fn sem_from_kernel() -> Option<Sem> {
    let (info, _) = sys::sem_info().ok()?;
    Some(Sem {
        per_set: number(info.semmsl)?,
        in_all: number(info.semmns)?,
        ops_per_call: number(info.semopm)?,
        sets: number(info.semmni)?,
    })
}

fn shm_from_kernel() -> Option<Shm> {
    let (info, _) = sys::shm_info().ok()?;
    Some(Shm {
        max_bytes: info.shmmax,
        pages_in_all: info.shmall,
        segments: info.shmmni,
        removed_when_unattached: false,
    })
}

fn msg_from_kernel() -> Option<Msg> {
    let (info, _) = sys::msg_info().ok()?;
    Some(Msg {
        message_bytes: number(info.msgmax)?,
        queue_bytes: number(info.msgmnb)?,
        queues: number(info.msgmni)?,
    })
}

fn number(value: i32) -> Option<u64> {
    u64::try_from(value).ok()
}

/// The `N` numbers in a file.
fn numbers<const N: usize>(path: &str) -> io::Result<[u64; N]> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    parse(&text).ok_or_else(|| {
        let text = text.trim_end();
        let message = format!("{path}: expected {N} numbers, found \"{text}\"");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn parse<const N: usize>(text: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text
        .split_whitespace()
        .map(|word| u64::from_str(word).ok())
        .collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_the_same_as_proc() {
        assert_eq!(sem_from_kernel(), sem_from_proc().ok());
        assert_eq!(msg_from_kernel(), msg_from_proc().ok());
        let of_proc = shm_from_proc().unwrap();
        let of_kernel = Shm {
            removed_when_unattached: of_proc.removed_when_unattached,
            ..shm_from_kernel().unwrap()
        };
        assert_eq!(of_kernel, of_proc);
    }

    #[test]
    fn as_many_numbers_as_expected_are_read() {
        assert_eq!(
            parse("32000\t1024000000\t500\t32000\n"),
            Some([32000, 1_024_000_000, 500, 32000])
        );
        assert_eq!(
            parse("18446744073692774399\n"),
            Some([18_446_744_073_692_774_399])
        );
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse::<2>("1\n"), None);
        assert_eq!(parse::<1>("1 2\n"), None);
        assert_eq!(parse::<1>("many\n"), None);
        assert_eq!(parse::<1>("-1\n"), None);
    }
}
