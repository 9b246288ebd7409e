//! Programs that are killed for certain system calls, or refused them, as in a sandbox (seccomp).
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the kernel kill the program, and its child processes, when they make one of these calls.
pub fn kill_for(command: &mut Command, calls: &[i64]) {
    filter(command, calls, libc::SECCOMP_RET_KILL_PROCESS);
}

/// Makes these calls fail with an error number in the program and its child processes.
pub fn refuse(command: &mut Command, calls: &[i64], errno: i32) {
    filter(
        command,
        calls,
        libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(),
    );
}

fn filter(command: &mut Command, calls: &[i64], verdict: u32) {
    let statement = |code: u32, yes: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: 0,
        k,
    };
    // The number of the call is the first word of the filter's input.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        let to_the_end = u8::try_from(calls.len() - at).expect("fewer calls");
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let number = u32::try_from(*call).expect("the number of a system call");
        program.push(statement(equal, to_the_end, number));
    }
    let answer = libc::BPF_RET | libc::BPF_K;
    program.push(statement(answer, 0, libc::SECCOMP_RET_ALLOW));
    program.push(statement(answer, 0, verdict));
    let install = move || {
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: takes numbers only.
        let asked = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the filter lives through the call, which copies it.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0) };
        match (asked, set) {
            (0, 0) => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: two system calls and nothing else happen between fork and exec.
    unsafe { command.pre_exec(install) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Exit;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn forbidden_call_kills_only_its_caller() {
        let run = |calls: &[i64]| {
            let mut command = Command::new("uname");
            kill_for(&mut command, calls);
            command.output().expect("it runs").status
        };
        let forbidden = [libc::SYS_semget, libc::SYS_uname];
        let died = run(&forbidden).signal().map(Exit::Signal);
        assert_eq!(died, Some(Exit::Signal(libc::SIGSYS)));
        assert!(run(&[libc::SYS_semget]).success());
    }

    #[test]
    fn a_refused_call_gives_its_error_number() {
        let mut command = Command::new("uname");
        refuse(&mut command, &[libc::SYS_uname], libc::EXDEV);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let error = io::Error::from_raw_os_error(libc::EXDEV).to_string();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(error.starts_with("Invalid cross-device link"), "{error}");
        assert!(stderr.contains("Invalid cross-device link"), "{stderr}");
    }
}
