//! Fresh keys, and tests that need a second process.
//!
//! A test that needs another process starts this test binary again, with only itself and with
//! numbers in the environment, and begins with [`child`], which runs the other process's part
//! there. (A `fork` would copy a process whose other threads hold locks.)

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use sysv_ipc::Key;

/// The user and group that own nothing.
pub const NOBODY: u32 = 65534;
/// The exit code of a child whose function has run to the end: a filter that matches no test would
/// exit with 0.
const DONE: i32 = 42;
const ARGUMENTS: &str = "SYSV_IPC_TEST_ARGUMENTS";

/// A key that no other test uses.
pub fn key() -> Key {
    watchdog();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Key::from_raw(0x7e << 24 | (std::process::id() & 0xffff) << 8 | (count & 0xff))
}

/// In a child, runs `part` with the numbers it was given and ends the process. Elsewhere, nothing.
pub fn child(part: impl FnOnce(&[i32])) {
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        watchdog();
        return;
    };
    watchdog();
    let arguments: Vec<i32> = arguments
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    part(&arguments);
    std::process::exit(DONE);
}

/// Ends the process with SIGALRM if it hangs: each test begins with it, by [`key`] or [`child`].
fn watchdog() {
    // SAFETY: the call takes a number only.
    unsafe { libc::alarm(120) };
}

/// How to run `test` of this binary as a child with these numbers.
fn command(test: &str, arguments: &[i32]) -> Command {
    let words: Vec<String> = arguments.iter().map(i32::to_string).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(ARGUMENTS, words.join(" "));
    command
}

/// Runs the child's part of `test` and expects it to succeed.
pub fn run(test: &str, arguments: &[i32]) {
    let status = start(test, arguments).wait();
    assert_eq!(status.code(), Some(DONE), "the child failed: {status}");
}

/// Starts the child's part of `test`.
pub fn start(test: &str, arguments: &[i32]) -> Peer {
    Peer(command(test, arguments).spawn().unwrap())
}

/// Replaces this process by the child's part of `test`.
pub fn exec(test: &str, arguments: &[i32]) -> ! {
    use std::os::unix::process::CommandExt;
    panic!("{}", command(test, arguments).exec());
}

/// A running child, killed when dropped.
pub struct Peer(std::process::Child);

impl Peer {
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    /// Waits for its end, which must be a success.
    pub fn finish(self) {
        let status = self.wait();
        assert_eq!(status.code(), Some(DONE), "the child failed: {status}");
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail once it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds.
pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// True if the test can become another user, make a namespace, and the like. Otherwise it is noted as left out.
pub fn is_root() -> bool {
    tests_left_out::is_root("to become another user or to set limits")
}

fn syscall(number: libc::c_long, a: u32, b: u32, c: u32) -> std::io::Result<()> {
    // SAFETY: only called with system calls that take numbers.
    let result = unsafe { libc::syscall(number, a, b, c) };
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the calling thread (of a child) the user nobody, without privileges.
pub fn become_nobody() {
    become_user(NOBODY);
}

/// As [`become_nobody`], but another user, for whom the kernel has counted nothing yet.
pub fn become_user(uid: u32) {
    syscall(libc::SYS_setgroups, 0, 0, 0).unwrap();
    syscall(libc::SYS_setresgid, uid, uid, uid).unwrap();
    syscall(libc::SYS_setresuid, uid, uid, uid).unwrap();
}

/// Moves the calling thread (of a child) to a new IPC namespace.
pub fn leave_namespace() -> std::io::Result<()> {
    syscall(libc::SYS_unshare, libc::CLONE_NEWIPC.cast_unsigned(), 0, 0)
}

/// As [`leave_namespace`]; where that is not permitted the calling test is noted as left out.
pub fn enter_new_namespace() -> bool {
    let left = leave_namespace();
    if let Err(error) = &left {
        tests_left_out::note(format_args!("needs an IPC namespace of its own: {error}"));
    }
    left.is_ok()
}

/// Sets a limit of this IPC namespace.
pub fn set_limit(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/kernel/{name}"), value).unwrap();
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Sets a resource limit of this process.
pub fn set_rlimit(resource: Resource, value: u64) {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: `limit` is valid, and the call reads it.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Runs `part` in a forked child, which then stops; runs `check`; and kills the child. For what
/// `exec` would not show.
///
/// `part` must do without locks and allocation.
pub fn fork(part: impl FnOnce(), check: impl FnOnce()) {
    // SAFETY: the child makes system calls only, then waits to be killed.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        part();
        loop {
            // SAFETY: the call takes a number only.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
    }
    assert!(pid > 0, "{}", std::io::Error::last_os_error());
    let forked = Forked(pid);
    assert!(libc::WIFSTOPPED(forked.wait(libc::WUNTRACED)));
    check();
}

/// A forked child, killed when dropped.
struct Forked(libc::pid_t);

impl Forked {
    fn wait(&self, options: libc::c_int) -> libc::c_int {
        let mut status = 0;
        // SAFETY: `status` is valid to write to.
        let pid = unsafe { libc::waitpid(self.0, &raw mut status, options) };
        assert_eq!(pid, self.0);
        status
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: the call takes numbers only; the child has not been waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        self.wait(0);
    }
}

/// Calls `wait`, which must sleep, in another thread, and sends that thread signals with a handler
/// until it returns. Returns its result.
pub fn interrupt<T: Send>(wait: impl FnOnce() -> T + Send) -> T {
    extern "C" fn handler(_: libc::c_int) {}
    // SAFETY: zero bytes are a valid `sigaction`.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // Even so, these calls are not restarted.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is valid, and its handler does nothing.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let tid = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            // SAFETY: the call takes nothing.
            let own = unsafe { libc::syscall(libc::SYS_gettid) };
            tid.store(u32::try_from(own).unwrap(), Ordering::Relaxed);
            wait()
        });
        // The first signal may come before the wait begins, so one is not enough. Scoped threads
        // are joined below: the thread id is not used again meanwhile.
        until(|| {
            let tid = tid.load(Ordering::Relaxed);
            if tid != 0 {
                // ESRCH once the thread is gone.
                let _ = syscall(
                    libc::SYS_tgkill,
                    std::process::id(),
                    tid,
                    libc::SIGUSR1.cast_unsigned(),
                );
            }
            waiter.is_finished()
        });
        waiter.join().unwrap()
    })
}
