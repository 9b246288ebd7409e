//! A process run one instruction at a time, so that it can be killed between any two.
//!
//! The child calls [`marker`] where the interesting part begins and again where it ends. The
//! [`Stepper`] starts it, lets it run at full speed to the first marker, and from there
//! instruction by instruction:
//!
//! ```text
//! child    … prepare …  marker()  i₁ i₂ i₃ … iₙ  marker()  …
//! stepper  run_to_marker ───────▶ step(k) ▲ kill
//! ```
//! A test counts the instructions once ([`Stepper::step_to_marker`]) and then starts a new child for
//! each kill point. Their number may differ between two runs (addresses, random keys), so a loop over
//! the kill points ends when a run reaches its second marker: [`Stepped::at_end`].
//!
//! # What a step is
//! One instruction; a system call is one step, seen when it has returned (a call that waits keeps the
//! stepper waiting); a repeated string instruction (`rep movs`) is one step a round.
//!
//! # Rules
//! The markers are called by the child's **main thread**; others run freely and are not stepped, and
//! markers have no effect in them. (So a child can't be a function under libtest, which runs every
//! test in a thread of its own: it is a program.)
//!
//! `ptrace` ties a traced process to the thread that started it: a [`Stepper`] stays on its thread.
//! The two take turns, so while a stepper lives, its thread and the child keep to one processor: that
//! makes it twice as fast. Threads that the child starts meanwhile stay there.
//!
//! x86-64 only: elsewhere [`marker`] does nothing and [`Stepper::spawn`] answers `Unsupported`.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::process::Command;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::peer::{Exit, Peer};

/// Set in the environment of a child that is to be stepped.
const MARKERS: &str = "SEMRING_TESTKIT_MARKERS";

/// Stops this process for its [`Stepper`]; does nothing in a process that was not started by one. It
/// stays harmless when the stepper has let the process go.
#[inline(always)]
pub fn marker() {
    static WANTED: OnceLock<bool> = OnceLock::new();
    // Nothing but a load and a jump stands between the last interesting instruction and the stop.
    if *WANTED.get_or_init(prepare_markers) {
        arch::breakpoint();
    }
}

#[cold]
fn prepare_markers() -> bool {
    let wanted = std::env::var_os(MARKERS).is_some();
    if wanted {
        arch::survive_breakpoints();
    }
    wanted
}

/// True if this process may trace a child; otherwise the calling test is noted as left out: containers may forbid ptrace.
#[must_use]
#[track_caller]
pub fn can_trace() -> bool {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let refused = REFUSED.get_or_init(|| {
        let traced = Stepper::spawn(Command::new("true"));
        traced.err().map(|error| error.to_string())
    });
    if let Some(why) = refused {
        crate::left_out::note(format_args!("needs ptrace: {why}"));
    }
    refused.is_none()
}

/// Where a child stands after some steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stepped {
    /// The number of steps made, at most the number requested. The stop at a marker is not counted.
    pub steps: u64,
    /// It stands at the next marker.
    pub at_end: bool,
    /// The address of the instruction that comes next.
    pub instruction_pointer: u64,
    /// The last step was a system call.
    pub in_syscall: bool,
}

/// The position of a child that ran to its next system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallStop {
    /// In front of this system call (`libc::SYS_…`). Killed here, it has not made it.
    Before {
        /// Which one.
        number: i64,
    },
    /// After it. A child that is killed here has made the call and has not used the result.
    Returned {
        /// Which one.
        number: i64,
        /// The call's result; -4095 to -1 are the negated errors.
        result: i64,
    },
    /// At the next marker.
    Marker,
}

/// A process that runs on request only; see the [module](self). Dropped, it kills the process.
pub struct Stepper {
    peer: Peer,
    /// A signal that has stopped the process and is to be delivered with the next step.
    pending: Option<nix::sys::signal::Signal>,
    /// The child is before a system call, so the next such stop is after it.
    before_call: bool,
    steps: u64,
    together: Together,
    /// ptrace answers the thread that started the process only.
    _this_thread_only: PhantomData<*const ()>,
}

impl fmt::Debug for Stepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper")
            .field("peer", &self.peer)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Stepper {
    /// Starts a command as [`Peer::spawn`] does, stopped before its first instruction.
    ///
    /// # Errors
    /// What starting or tracing it gives: `EPERM` where tracing is forbidden, `Unsupported` on a
    /// processor other than x86-64.
    pub fn spawn(mut command: Command) -> io::Result<Stepper> {
        command.env(MARKERS, "1");
        // Before the child is there, which inherits it.
        let together = Together::new();
        let peer = arch::spawn(command)?;
        Ok(Stepper {
            peer,
            pending: None,
            before_call: false,
            steps: 0,
            together,
            _this_thread_only: PhantomData,
        })
    }

    /// Lets the child run at full speed to its next [`marker`].
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before, with how it ended.
    pub fn run_to_marker(&mut self) -> io::Result<&mut Stepper> {
        arch::run_to_marker(self)?;
        Ok(self)
    }

    /// Makes up to `n` steps. At a marker it stops before that.
    ///
    /// # Errors
    /// `UnexpectedEof` if the child ends, with how it ended.
    pub fn step(&mut self, n: u64) -> io::Result<Stepped> {
        arch::step(self, n)
    }

    /// Lets the child run at full speed until it reaches the instruction at this address for this many
    /// times: that takes one stop each, where a step takes one for each instruction. False if it came to
    /// the next marker before.
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before, with how it ended; the kernel's error where the processor's
    /// breakpoints can't be used: then nothing has happened.
    pub fn run_to_address(&mut self, address: u64, times: u64) -> io::Result<bool> {
        arch::run_to_address(self, address, times)
    }

    /// Makes steps to the next marker, and returns their number.
    ///
    /// # Errors
    /// As [`step`](Stepper::step).
    pub fn step_to_marker(&mut self) -> io::Result<u64> {
        Ok(self.step(u64::MAX)?.steps)
    }

    /// Lets the child run at full speed to the beginning or end of its next system call, or to its next
    /// marker.
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before, with how it ended.
    pub fn run_to_call(&mut self) -> io::Result<CallStop> {
        arch::run_to_call(self)
    }

    /// The steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The process: to read what it has written so far, and its pid. While it is stopped, it writes
    /// nothing.
    pub fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// Kills the child at its present instruction, and waits until it is gone.
    pub fn kill(mut self) -> Exit {
        self.peer.kill()
    }

    /// Detaches from the child and leaves it stopped at its present instruction, as by SIGSTOP:
    /// [`Peer::cont`] continues it.
    ///
    /// # Errors
    /// `UnexpectedEof` if it has ended.
    pub fn stop(self) -> io::Result<Peer> {
        arch::stop(self)
    }

    /// Detaches from the child: it continues by itself.
    ///
    /// # Errors
    /// `UnexpectedEof` if it has ended.
    pub fn resume(self) -> io::Result<Peer> {
        arch::resume(self)
    }
}

thread_local! {
    /// How many steppers this thread has, and on which processors it ran before the first.
    static PINNED: RefCell<(usize, Option<CpuSet>)> = const { RefCell::new((0, None)) };
}

/// Keeps this thread to the processor on which it runs, as long as one of these lives. Where that is
/// forbidden it does without: it is for speed only.
struct Together;

impl Together {
    fn new() -> Together {
        PINNED.with_borrow_mut(|(count, before)| {
            if *count == 0 {
                *before = pin().ok();
            }
            *count += 1;
        });
        Together
    }

    /// Lets another process run wherever this thread could.
    fn release(&self, pid: Pid) {
        PINNED.with_borrow(|(_, before)| {
            if let Some(before) = before {
                let _ = sched_setaffinity(pid, before);
            }
        });
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        PINNED.with_borrow_mut(|(count, before)| {
            *count -= 1;
            if *count == 0
                && let Some(before) = before.take()
            {
                let _ = sched_setaffinity(Pid::from_raw(0), &before);
            }
        });
    }
}

/// Gives the processors on which this thread could run before.
fn pin() -> nix::Result<CpuSet> {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut one = CpuSet::new();
    one.set(sched_getcpu()?)?;
    sched_setaffinity(this_thread, &one)?;
    Ok(before)
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{CallStop, Stepper};
    use crate::peer::{self, Exit, Peer};
    use nix::errno::Errno;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::io;
    use std::mem::offset_of;
    use std::process::Command;

    /// The instruction that is a marker.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) fn breakpoint() {
        // SAFETY: int3 changes no register and no memory; a tracer sees it as a stop, and without one
        // the handler of `survive_breakpoints` returns after it.
        unsafe { std::arch::asm!("int3") };
    }

    extern "C" fn go_on(_: i32) {}

    /// Makes a breakpoint without a tracer harmless: by default it is the end of the process.
    #[allow(unsafe_code)]
    pub(super) fn survive_breakpoints() {
        let action = SigAction::new(
            SigHandler::Handler(go_on),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it is safe at any point of the program.
        unsafe { sigaction(Signal::SIGTRAP, &action) }.expect("SIGTRAP can be handled");
    }

    pub(super) fn run_to_call(stepper: &mut Stepper) -> io::Result<CallStop> {
        let pid = pid(stepper)?;
        loop {
            ptrace::syscall(pid, stepper.pending.take())?;
            match next_stop(stepper)? {
                Stop::Call => break,
                Stop::Marker => {
                    stepper.before_call = false;
                    return Ok(CallStop::Marker);
                }
                Stop::Step | Stop::Signal | Stop::Breakpoint => {}
            }
        }
        stepper.before_call = !stepper.before_call;
        let registers = ptrace::getregs(pid)?;
        let number = registers.orig_rax.cast_signed();
        Ok(if stepper.before_call {
            CallStop::Before { number }
        } else {
            CallStop::Returned {
                number,
                result: registers.rax.cast_signed(),
            }
        })
    }

    /// The processor's first breakpoint, and the register that enables the four of them.
    fn set_breakpoint(pid: Pid, address: u64, used: bool) -> io::Result<()> {
        let register = |number: usize| {
            let offset = offset_of!(libc::user, u_debugreg) + number * size_of::<u64>();
            std::ptr::without_provenance_mut(offset)
        };
        ptrace::write_user(pid, register(0), address.cast_signed())?;
        // Bit 0: breakpoint 0 is in use; bits 16 to 19, 0: when the instruction there comes next.
        ptrace::write_user(pid, register(7), i64::from(used))?;
        Ok(())
    }

    pub(super) fn run_to_address(
        stepper: &mut Stepper,
        address: u64,
        times: u64,
    ) -> io::Result<bool> {
        let pid = pid(stepper)?;
        set_breakpoint(pid, address, true)?;
        let mut reached = 0;
        while reached < times {
            stepper.before_call = false;
            ptrace::cont(pid, stepper.pending.take())?;
            match next_stop(stepper)? {
                Stop::Breakpoint => reached += 1,
                Stop::Marker => break,
                Stop::Step | Stop::Call | Stop::Signal => {}
            }
        }
        set_breakpoint(pid, 0, false)?;
        Ok(reached == times)
    }

    /// Why a traced process stands.
    #[derive(PartialEq)]
    enum Stop {
        /// It is in front of the instruction that `run_to_address` waits for.
        Breakpoint,
        /// The step is done.
        Step,
        /// It makes a system call, or has made it.
        Call,
        /// It executed a marker.
        Marker,
        /// A signal came before the step.
        Signal,
    }

    pub(super) fn spawn(command: Command) -> io::Result<Peer> {
        let mut peer = peer::spawn_with(command, || Ok(ptrace::traceme()?))?;
        // The kernel stops a traced process when it has become the new program.
        match wait(&mut peer)? {
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                ptrace::setoptions(pid, Options::PTRACE_O_EXITKILL)?;
                Ok(peer)
            }
            other => Err(io::Error::other(format!("not a stop at exec: {other:?}"))),
        }
    }

    pub(super) fn run_to_marker(stepper: &mut Stepper) -> io::Result<()> {
        stepper.before_call = false;
        loop {
            ptrace::cont(pid(stepper)?, stepper.pending.take())?;
            if next_stop(stepper)? == Stop::Marker {
                return Ok(());
            }
        }
    }

    pub(super) fn step(stepper: &mut Stepper, n: u64) -> io::Result<super::Stepped> {
        let pid = pid(stepper)?;
        let (mut steps, mut at_end) = (0, false);
        while steps < n && !at_end {
            stepper.before_call = false;
            ptrace::step(pid, stepper.pending.take())?;
            match next_stop(stepper)? {
                Stop::Step => steps += 1,
                Stop::Marker => at_end = true,
                Stop::Call | Stop::Signal | Stop::Breakpoint => {}
            }
        }
        stepper.steps += steps;
        let registers = ptrace::getregs(pid)?;
        Ok(super::Stepped {
            steps,
            at_end,
            instruction_pointer: registers.rip,
            // After a system call its number is still there, else -1.
            in_syscall: registers.orig_rax.cast_signed() >= 0,
        })
    }

    pub(super) fn stop(mut stepper: Stepper) -> io::Result<Peer> {
        let pid = pid(&stepper)?;
        stepper.together.release(pid);
        ptrace::detach(pid, Signal::SIGSTOP)?;
        stepper.peer.await_stop();
        Ok(stepper.peer)
    }

    pub(super) fn resume(mut stepper: Stepper) -> io::Result<Peer> {
        let pid = pid(&stepper)?;
        stepper.together.release(pid);
        ptrace::detach(pid, stepper.pending.take())?;
        Ok(stepper.peer)
    }

    fn pid(stepper: &Stepper) -> io::Result<Pid> {
        match stepper.peer.exit() {
            Some(exit) => Err(ended(exit)),
            None => Ok(Pid::from_raw(stepper.peer.pid().cast_signed())),
        }
    }

    fn ended(exit: Exit) -> io::Error {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the stepped process ended without a marker in its main thread: {exit}"),
        )
    }

    fn next_stop(stepper: &mut Stepper) -> io::Result<Stop> {
        match wait(&mut stepper.peer)? {
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                // The kernel's own signal for a breakpoint, a trace trap for a step; a signal sent by
                // a process is neither.
                match ptrace::getsiginfo(pid)?.si_code {
                    libc::SI_KERNEL => Ok(Stop::Marker),
                    libc::TRAP_HWBKPT => Ok(Stop::Breakpoint),
                    libc::TRAP_TRACE | libc::TRAP_BRKPT => Ok(Stop::Step),
                    libc::SIGTRAP => Ok(Stop::Call),
                    _ => {
                        stepper.pending = Some(Signal::SIGTRAP);
                        Ok(Stop::Signal)
                    }
                }
            }
            WaitStatus::Stopped(_, signal) => {
                stepper.pending = Some(signal);
                Ok(Stop::Signal)
            }
            other => Err(io::Error::other(format!("not a stop: {other:?}"))),
        }
    }

    fn wait(peer: &mut Peer) -> io::Result<WaitStatus> {
        let pid = Pid::from_raw(peer.pid().cast_signed());
        let status = loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        peer.note(status);
        match peer.exit() {
            Some(exit) => Err(ended(exit)),
            None => Ok(status),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use super::{CallStop, Stepped, Stepper};
    use crate::peer::Peer;
    use std::io;
    use std::process::Command;

    pub(super) fn breakpoint() {}
    pub(super) fn survive_breakpoints() {}

    fn unsupported<T>() -> io::Result<T> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub(super) fn spawn(_: Command) -> io::Result<Peer> {
        unsupported()
    }

    pub(super) fn run_to_marker(_: &mut Stepper) -> io::Result<()> {
        unsupported()
    }

    pub(super) fn step(_: &mut Stepper, _: u64) -> io::Result<Stepped> {
        unsupported()
    }

    pub(super) fn run_to_call(_: &mut Stepper) -> io::Result<CallStop> {
        unsupported()
    }

    pub(super) fn run_to_address(_: &mut Stepper, _: u64, _: u64) -> io::Result<bool> {
        unsupported()
    }

    pub(super) fn stop(_: Stepper) -> io::Result<Peer> {
        unsupported()
    }

    pub(super) fn resume(_: Stepper) -> io::Result<Peer> {
        unsupported()
    }
}
