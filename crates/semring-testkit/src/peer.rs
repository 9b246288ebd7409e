//! Second processes: started, controlled by lines of text, stopped, killed, and never left behind.
//!
//! A peer is sent SIGKILL by the kernel when the thread that started it ends (`PR_SET_PDEATHSIG`), so
//! no peer survives a test that dies, and a peer must be started by a thread that lives as long as
//! the peer. A [`Peer`] that is dropped is killed and reaped.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::process;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "{name}"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Exit {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        }
    }
}

/// A process that was started for a test.
#[derive(Debug)]
pub struct Peer {
    pid: Pid,
    /// Its name in messages.
    what: String,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    exit: Option<Exit>,
}

impl Peer {
    /// Starts a program with arguments, its stdin and stdout connected to this peer's handle, its
    /// stderr to that of the test.
    ///
    /// # Panics
    /// If it can't be started.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Peer {
        let mut command = Command::new(program.as_ref());
        command.args(args);
        match Peer::spawn(command) {
            Ok(peer) => peer,
            Err(error) => panic!("can't start {:?}: {error}", program.as_ref()),
        }
    }

    /// Starts a command with stdin and stdout connected to this peer's handle.
    ///
    /// # Errors
    /// What starting it gives.
    pub fn spawn(mut command: Command) -> io::Result<Peer> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Peer::spawn_as_it_is(command)
    }

    /// Starts a command whose stdin and stdout are already set. Piped ones can be used as usual.
    ///
    /// # Errors
    /// Those of starting it.
    pub fn spawn_as_it_is(mut command: Command) -> io::Result<Peer> {
        die_with_the_parent(&mut command);
        Ok(Peer::of(command.spawn()?, &command))
    }

    /// Takes charge of a child.
    pub(crate) fn of(mut child: Child, command: &Command) -> Peer {
        process::record_started(child.id());
        let program = command.get_program().to_string_lossy();
        let name = program.rsplit('/').next().unwrap_or_default();
        Peer {
            pid: Pid::from_raw(child.id().cast_signed()),
            what: format!("{name} (process {})", child.id()),
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(BufReader::new),
            exit: None,
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Writes a line to its stdin.
    ///
    /// # Panics
    /// If its stdin is closed or it does not read any more.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut();
        let stdin = stdin.unwrap_or_else(|| panic!("the stdin of {} is closed", self.what));
        if let Err(error) = stdin.write_all(format!("{line}\n").as_bytes()) {
            panic!("can't send {line:?} to {}: {error}", self.what);
        }
    }

    /// Reads a line from its stdout, without the newline; `None` at its end.
    ///
    /// # Panics
    /// If its stdout is not at hand or can't be read.
    #[track_caller]
    pub fn read_line(&mut self) -> Option<String> {
        let stdout = self.stdout.as_mut();
        let stdout = stdout.unwrap_or_else(|| panic!("the stdout of {} is elsewhere", self.what));
        let mut line = Vec::new();
        if let Err(error) = stdout.read_until(b'\n', &mut line) {
            panic!("can't read from {}: {error}", self.what);
        }
        if line.is_empty() {
            return None;
        }
        line.pop_if(|byte| *byte == b'\n');
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads the next line, which must be this one.
    ///
    /// # Panics
    /// If it is another one, or if the peer has ended, with how it ended.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        match self.read_line() {
            Some(said) => assert_eq!(said, line, "from {}", self.what),
            None => self.ended_while_expecting(line),
        }
    }

    /// Skips lines until one begins with `prefix`, and returns the rest of that line.
    ///
    /// # Panics
    /// If there is none before the peer closes its stdout, with how the peer ended.
    #[track_caller]
    pub fn wait_for(&mut self, prefix: &str) -> String {
        while let Some(line) = self.read_line() {
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
        self.ended_while_expecting(prefix)
    }

    #[track_caller]
    fn ended_while_expecting(&mut self, what: &str) -> ! {
        let exit = self.kill();
        panic!(
            "{} closed its stdout instead of saying {what:?} ({exit})",
            self.what
        );
    }

    /// Closes its stdin, so that it reads an end of file.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Gives its stdin away, for a thread that feeds it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Gives its stdout away, for a thread that drains it.
    pub fn take_stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.stdout.take()
    }

    /// Whether it still runs; one that has ended is reaped.
    pub fn is_alive(&mut self) -> bool {
        self.reap(WaitPidFlag::WNOHANG).is_none()
    }

    /// Closes its stdin and waits until it ends. Its stdout is not read: one that writes much is
    /// waited for with [`finish`](Peer::finish).
    pub fn wait(&mut self) -> Exit {
        self.stdin = None;
        self.reap_at_its_end()
    }

    /// Closes its stdin, reads its stdout to the end, and waits until it ends.
    ///
    /// # Panics
    /// If its stdout can't be read.
    #[track_caller]
    pub fn finish(&mut self) -> (Exit, Vec<u8>) {
        self.stdin = None;
        let mut output = Vec::new();
        if let Some(mut stdout) = self.stdout.take()
            && let Err(error) = stdout.read_to_end(&mut output)
        {
            panic!("can't read from {}: {error}", self.what);
        }
        (self.wait(), output)
    }

    /// Sends a signal, and does not wait for its effect.
    ///
    /// # Panics
    /// If it has been reaped or the signal can't be sent.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        if let Some(exit) = self.exit {
            panic!("{signal} comes too late for {}: {exit}", self.what);
        }
        if let Err(error) = kill(self.pid, signal) {
            panic!("can't send {signal} to {}: {error}", self.what);
        }
    }

    /// Kills it with SIGKILL, if it runs, and waits until it is gone: the kernel has then released
    /// everything that it held.
    pub fn kill(&mut self) -> Exit {
        if self.exit.is_none() {
            // It is not reaped, so the number is its own; a dead one does not mind.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        self.reap_at_its_end()
    }

    /// Stops it with SIGSTOP, and waits until all its threads have stopped.
    ///
    /// # Panics
    /// If it has ended.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.await_stop();
    }

    /// Waits until it has stopped.
    #[track_caller]
    pub(crate) fn await_stop(&mut self) {
        self.await_change(WaitPidFlag::WSTOPPED);
    }

    /// Lets it go on with SIGCONT, and waits until it does. It may have come to its end by then.
    ///
    /// # Panics
    /// If it has been reaped.
    #[track_caller]
    pub fn cont(&mut self) {
        self.signal(Signal::SIGCONT);
        self.await_change(WaitPidFlag::WCONTINUED);
    }

    /// Waits for a stop or continuation, according to `change`, and consumes its notification.
    #[track_caller]
    fn await_change(&mut self, change: WaitPidFlag) {
        loop {
            // Looking also for its end, or the wait for a dead one would never return.
            let flags = change | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(self.pid), flags) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
                    if change == WaitPidFlag::WCONTINUED =>
                {
                    return;
                }
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => {
                    let exit = self.reap_at_its_end();
                    panic!("{} has ended: {exit}", self.what);
                }
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => panic!("can't wait for {}: {error}", self.what),
            }
        }
        // Only looked so far: news that stays would answer the next wait at once.
        let _ = waitid(Id::Pid(self.pid), change | WaitPidFlag::WNOHANG);
    }

    /// Waits until some thread of it sleeps in one of these system calls (`libc::SYS_…`): then it has
    /// done all that comes before its sleep.
    ///
    /// # Panics
    /// If it ends instead.
    #[track_caller]
    pub fn wait_until_in(&mut self, system_calls: &[i64]) {
        loop {
            let sleeping = process::system_calls(self.pid()).is_ok_and(|calls| {
                let mut calls = calls.iter().flatten();
                calls.any(|call| system_calls.contains(call))
            });
            if sleeping {
                return;
            }
            if !self.is_alive() {
                let exit = self.exit.expect("it has ended");
                panic!("{} ended instead of going to sleep: {exit}", self.what);
            }
            // The kernel gives no sign of it, so look again and again.
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until some thread of it sleeps on a ring: on a semaphore, or on its pipes.
    ///
    /// # Panics
    /// If it ends instead.
    #[track_caller]
    pub fn wait_until_asleep_on_a_ring(&mut self) {
        self.wait_until_in(crate::process::SLEEPING_ON_A_RING);
    }

    fn reap_at_its_end(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.reap(WaitPidFlag::empty()) {
                return exit;
            }
        }
    }

    /// How it ended, if it has.
    fn reap(&mut self, flags: WaitPidFlag) -> Option<Exit> {
        if self.exit.is_none() {
            match waitpid(self.pid, Some(flags)) {
                Ok(status) => self.note(status),
                Err(Errno::EINTR) => {}
                Err(error) => panic!("can't wait for {}: {error}", self.what),
            }
        }
        self.exit
    }

    /// Records the result of waiting for it.
    pub(crate) fn note(&mut self, status: WaitStatus) {
        self.exit = match status {
            WaitStatus::Exited(_, code) => Some(Exit::Code(code)),
            WaitStatus::Signaled(_, signal, _) => Some(Exit::Signal(signal as i32)),
            _ => return,
        };
        process::record_reaped(self.pid());
    }

    /// How it ended, if this handle has waited for it.
    #[cfg(target_arch = "x86_64")] // only used by the stepper
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.exit.is_none() && !thread::panicking() {
            self.kill();
        } else if self.exit.is_none() {
            // No second panic in any case.
            let _ = kill(self.pid, Signal::SIGKILL);
            if let Ok(status) = waitpid(self.pid, None) {
                self.note(status);
            }
        }
    }
}

/// Makes the child of this command die when the thread that starts it ends, and begin with the signals
/// that a shell would give it: under `nohup` the tests themselves ignore SIGHUP.
#[allow(unsafe_code)]
fn die_with_the_parent(command: &mut Command) {
    let parent = Pid::this();
    let in_the_child = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        for ended_by in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the default action has no code that could be unfit for a signal.
            unsafe { nix::sys::signal::signal(ended_by, nix::sys::signal::SigHandler::SigDfl) }?;
        }
        // The parent may have died before the kernel had this setting.
        if Pid::parent() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the closure makes a few plain system calls and touches no memory of the parent.
    unsafe { command.pre_exec(in_the_child) };
}

/// Prepares a command as [`Peer::spawn`] does, with one more thing for the child to do before it
/// becomes the program.
#[cfg(target_arch = "x86_64")] // only the stepper does
#[allow(unsafe_code)]
pub(crate) fn spawn_with(
    mut command: Command,
    in_the_child: fn() -> io::Result<()>,
) -> io::Result<Peer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    die_with_the_parent(&mut command);
    // SAFETY: the callers of this crate give functions that make plain system calls only.
    unsafe { command.pre_exec(in_the_child) };
    Ok(Peer::of(command.spawn()?, &command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::Watchdog;

    fn watchdog() -> Watchdog {
        Watchdog::new(Duration::from_secs(600), "a test of the peers")
    }

    fn shell(script: &str) -> Peer {
        Peer::start("sh", ["-c", script])
    }

    #[test]
    fn lines_go_to_and_fro() {
        let _watchdog = watchdog();
        let mut peer = shell("echo ready; read line; echo got $line; echo; printf end; exit 3");
        peer.expect("ready");
        peer.say("something");
        assert_eq!(peer.wait_for("got "), "something");
        peer.expect("");
        peer.expect("end");
        assert_eq!(peer.read_line(), None);
        assert_eq!(peer.wait(), Exit::Code(3));
        assert!(!peer.is_alive());
    }

    #[test]
    #[should_panic(expected = "instead of saying \"ready\" (exit code 7)")]
    fn peer_that_ends_too_early_is_reported() {
        let _watchdog = watchdog();
        shell("exec >&-; exit 7").wait_for_end_then_expect_ready();
    }

    impl Peer {
        fn wait_for_end_then_expect_ready(&mut self) {
            self.wait();
            self.expect("ready");
        }
    }

    #[test]
    fn the_end_is_a_code_or_a_signal() {
        let _watchdog = watchdog();
        assert_eq!(shell("exit 141").wait(), Exit::Code(141));
        assert_eq!(shell("kill -TERM $$").wait(), Exit::Signal(libc::SIGTERM));
        assert_eq!(Exit::Signal(9).to_string(), "SIGKILL");
        let (exit, output) = shell("cat; echo more").finish();
        assert_eq!((exit, output.as_slice()), (Exit::Code(0), &b"more\n"[..]));
    }

    #[test]
    fn a_killed_peer_is_gone_when_kill_returns() {
        let _watchdog = watchdog();
        let mut peer = shell("echo ready; read line");
        peer.expect("ready");
        assert!(peer.is_alive());
        assert_eq!(peer.kill(), Exit::Signal(libc::SIGKILL));
        assert!(process::state(peer.pid()).is_err());
        assert!(!process::living().contains(&peer.pid()));
        assert!(process::ours().contains(&peer.pid()));
        assert_eq!(peer.kill(), Exit::Signal(libc::SIGKILL));
    }

    #[test]
    fn stop_and_cont_hold_when_they_return() {
        let _watchdog = watchdog();
        let mut peer = shell("while :; do :; done");
        for _ in 0..100 {
            peer.stop();
            assert_eq!(process::state(peer.pid()).unwrap(), 'T');
            peer.cont();
            assert_ne!(process::state(peer.pid()).unwrap(), 'T');
        }
        peer.stop();
        assert_eq!(peer.kill(), Exit::Signal(libc::SIGKILL));
    }

    #[test]
    fn one_that_has_gone_on_to_its_end_has_gone_on() {
        let _watchdog = watchdog();
        let mut peer = shell("kill -STOP $$");
        peer.await_stop();
        // As if it were so fast that it has ended when it is waited for.
        peer.signal(Signal::SIGCONT);
        while process::state(peer.pid()).unwrap() != 'Z' {
            thread::yield_now();
        }
        peer.cont();
        assert_eq!(peer.wait(), Exit::Code(0));
    }

    #[test]
    #[should_panic(expected = "has ended: exit code 5")]
    fn stopping_a_dead_peer_is_an_error() {
        let _watchdog = watchdog();
        let mut peer = shell("exit 5");
        // Dead, but not reaped, so that the signal can still be sent.
        while process::state(peer.pid()).unwrap() != 'Z' {
            thread::yield_now();
        }
        peer.stop();
    }

    #[test]
    fn sleep_in_a_system_call_is_seen() {
        let _watchdog = watchdog();
        let mut peer = Peer::start("cat", [""; 0]);
        peer.wait_until_in(&[libc::SYS_read]);
        let used = process::cpu_time(peer.pid()).unwrap();
        assert_eq!(
            process::system_calls(peer.pid()).unwrap(),
            [Some(libc::SYS_read)]
        );
        assert_eq!(process::cpu_time(peer.pid()).unwrap(), used);
        peer.say("awake");
        peer.expect("awake");
        assert_eq!(peer.wait(), Exit::Code(0));
    }

    #[test]
    #[should_panic(expected = "ended instead of going to sleep: exit code 0")]
    fn peer_that_ends_instead_of_sleeping_is_reported() {
        let _watchdog = watchdog();
        shell("exit 0").wait_until_asleep_on_a_ring();
    }

    #[test]
    fn a_dropped_peer_is_killed_and_reaped() {
        let _watchdog = watchdog();
        let mut peer = shell("echo ready; read line");
        peer.expect("ready");
        let pid = peer.pid();
        drop(peer);
        assert!(process::state(pid).is_err());
    }

    #[test]
    fn a_peer_dies_with_the_thread_that_started_it() {
        let _watchdog = watchdog();
        let starter = thread::spawn(|| shell("echo ready; read line"));
        let mut peer = starter.join().unwrap();
        assert_eq!(peer.reap_at_its_end(), Exit::Signal(libc::SIGKILL));
    }
}
