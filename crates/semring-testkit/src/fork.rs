//! Children made by `fork` alone, in a tenth of a millisecond each, for tests that kill thousands of
//! them.
//!
//! They are made by a process of one thread only (a child of several would find locks that no
//! thread unlocks), so not by a test function: by a small program that the test starts.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::peer::Exit;

/// The exit code of a child that panicked.
pub const PANICKED: u8 = 101;

/// A forked child. Dropped, it is killed and reaped. The kernel kills it when its parent ends.
#[derive(Debug)]
pub struct Forked {
    pid: Pid,
    exit: Option<Exit>,
}

/// Whether this process has one thread.
pub fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Forks a child that runs `part` and exits with the code that it returns, without running
/// destructors of what it inherited; with [`PANICKED`] if it panics.
///
/// # Errors
/// Those of fork.
///
/// # Panics
/// If this process has several threads.
#[allow(unsafe_code)]
pub fn fork(part: impl FnOnce() -> u8) -> io::Result<Forked> {
    assert!(
        is_single_threaded(),
        "a process of several threads can't be forked safely"
    );
    let parent = Pid::this();
    // SAFETY: the only thread forks, so the child is a complete process.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Forked {
            pid: child,
            exit: None,
        }),
        ForkResult::Child => {
            let bound = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
            // The parent may have died before the kernel had this setting.
            let code = if bound && Pid::parent() == parent {
                catch_unwind(AssertUnwindSafe(part)).unwrap_or(PANICKED)
            } else {
                PANICKED
            };
            // SAFETY: ends the child at once; what it inherited belongs to the parent.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
}

/// Ends this process by SIGKILL.
pub fn kill_this() -> ! {
    let _ = kill(Pid::this(), Signal::SIGKILL);
    unreachable!("SIGKILL can't be refused")
}

/// From now on SIGINT and SIGTERM only set the flag read by [`has_end_signal`]; children forked
/// afterwards inherit that, and must be ended by SIGKILL.
///
/// # Errors
/// Those of sigaction.
#[allow(unsafe_code)]
pub fn catch_end_signals() -> io::Result<()> {
    extern "C" fn note(_: i32) {
        WISHED.store(true, Ordering::SeqCst);
    }
    for wish in [Signal::SIGINT, Signal::SIGTERM] {
        let action = SigAction::new(
            SigHandler::Handler(note),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler stores to an atomic, which is allowed at any moment.
        unsafe { sigaction(wish, &action) }?;
    }
    Ok(())
}

/// Whether SIGINT or SIGTERM came since [`catch_end_signals`].
pub fn has_end_signal() -> bool {
    WISHED.load(Ordering::SeqCst)
}

static WISHED: AtomicBool = AtomicBool::new(false);

impl Forked {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    fn signal(&self, signal: Signal) {
        if self.exit.is_none() {
            // Not reaped, so the number is its own; a dead one does not mind.
            let _ = kill(self.pid, signal);
        }
    }

    /// Sends SIGKILL, and does not wait for the end.
    pub fn strike(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends SIGSTOP.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT.
    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until it ends: the kernel has released all that it held.
    pub fn wait(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.look(WaitPidFlag::empty()) {
                return exit;
            }
        }
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<Exit> {
        self.look(WaitPidFlag::WNOHANG)
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Exit {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    fn look(&mut self, flags: WaitPidFlag) -> Option<Exit> {
        if self.exit.is_none() {
            self.exit = match waitpid(self.pid, Some(flags)) {
                Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => None,
                Err(error) => panic!("can't wait for child {}: {error}", self.pid),
            };
        }
        self.exit
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_several_threads_is_not_forked() {
        // The test harness has at least two.
        assert!(!is_single_threaded());
        let refused = catch_unwind(|| fork(|| 0).is_ok());
        assert!(refused.is_err());
    }
}
