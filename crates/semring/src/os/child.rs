//! Started programs: the descriptors that they inherit, and their end.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the program that this command starts inherit a descriptor. No other program that is started at the
/// same time inherits it: in this process it stays close-on-exec. Returns the number that it has in the
/// program, which is none of stdin, stdout, stderr. The descriptor is closed with the command.
pub(crate) fn pass_on(command: &mut Command, descriptor: OwnedFd) -> io::Result<RawFd> {
    // SAFETY: a descriptor that we hold, and a number.
    let number = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    let number = super::check(number)?;
    // SAFETY: a new descriptor, owned here.
    let passed = unsafe { OwnedFd::from_raw_fd(number) };
    let inherit = move || set_close_on_exec(passed.as_raw_fd(), false);
    // SAFETY: between fork and exec this makes a system call, and neither allocates nor locks.
    unsafe { command.pre_exec(inherit) };
    Ok(number)
}

/// Whether programs started from here do not inherit this descriptor.
pub(crate) fn set_close_on_exec(number: RawFd, close: bool) -> io::Result<()> {
    let flags = if close { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: changes a flag; a number that is no descriptor is refused.
    super::check(unsafe { libc::fcntl(number, libc::F_SETFD, flags) })?;
    Ok(())
}

/// Waits until a child of ours has ended; does not reap it, so the number stays its own.
pub(crate) fn await_end(pid: u32) -> io::Result<()> {
    super::retry(|| {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: the buffer is ours.
        let result = unsafe {
            libc::waitid(
                libc::P_PID,
                pid,
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOWAIT,
            )
        };
        super::check(result).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_passed_descriptor_is_there_and_stays_ours_alone() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut command = Command::new("ls");
        let number = pass_on(&mut command, file.into()).unwrap();
        command.arg("/proc/self/fd").stdout(Stdio::piped());
        let listed = |command: &mut Command| {
            let output = command.output().unwrap();
            let names = String::from_utf8(output.stdout).unwrap();
            names.lines().any(|name| name == number.to_string())
        };
        assert!(listed(&mut command));
        let mut other = Command::new("ls");
        other.arg("/proc/self/fd");
        // Its own descriptor of the folder may have any number: look for the target of the link.
        let output = other.arg("-l").output().unwrap();
        assert!(
            !String::from_utf8_lossy(&output.stdout).contains(&format!(" {number} -> /dev/null"))
        );
    }

    #[test]
    fn a_child_that_has_ended_can_still_be_reaped() {
        let mut child = Command::new("true").spawn().unwrap();
        await_end(child.id()).unwrap();
        await_end(child.id()).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(await_end(child.id()).is_err());
    }
}
