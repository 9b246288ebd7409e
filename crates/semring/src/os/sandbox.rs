//! Whether System V semaphores work here as the guard needs them.
//!
//! A filter of system calls (seccomp) may kill a process for a call, and a sandbox that implements the
//! kernel's calls itself may not apply undo. Under a filter, a child process tries first. It shares the
//! parent's memory until it ends (as with `vfork`), so nothing is copied, and it sends no SIGCHLD.

use std::io;
use std::sync::OnceLock;

use super::sysv::{Key, Op, SemSet};

/// Room for the child's few calls.
const STACK_BYTES: usize = 64 << 10;

/// Why System V semaphores do not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SemaphoresUnusable {
    /// The calls are refused, or the caller is killed.
    Forbidden,
    /// Nothing is undone for the dead.
    NoUndo,
}

impl SemaphoresUnusable {
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Forbidden => {
                "a filter of system calls (seccomp) forbids System V semaphores here"
            }
            Self::NoUndo => {
                "this sandbox has System V semaphores, and does not undo them for the dead (SEM_UNDO)"
            }
        }
    }
}

/// Whether semaphores work; tried once.
pub(crate) fn semaphores() -> Result<(), SemaphoresUnusable> {
    static ANSWER: OnceLock<Result<(), SemaphoresUnusable>> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        if is_filtered() {
            try_semaphores(&mut Report::default())
        } else {
            Ok(())
        }
    })
}

/// Whether a call that only reads limits returns.
pub(crate) fn may_ask() -> bool {
    semaphores() != Err(SemaphoresUnusable::Forbidden)
}

/// True if system calls of this process go through a filter.
fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .map(str::trim);
    mode != Some("0")
}

/// The children write into the report.
fn try_semaphores(report: &mut Report) -> Result<(), SemaphoresUnusable> {
    let _no_core = NoCore::new();
    // First the operation with undo, by a process that ends; then a check of the value that is left.
    if !in_child(take, report) {
        // Killed for the operation, it has left its set.
        if report.set.is_some() {
            in_child(remove, report);
        }
        return Err(SemaphoresUnusable::Forbidden);
    }
    match report.errno {
        0 => {}
        libc::EPERM | libc::EACCES | libc::ENOSYS => return Err(SemaphoresUnusable::Forbidden),
        // For example a limit: the caller that makes a set will get the error.
        _ => return Ok(()),
    }
    if !in_child(look, report) || !report.looked {
        return Err(SemaphoresUnusable::Forbidden);
    }
    if report.value == 0 {
        Ok(())
    } else {
        Err(SemaphoresUnusable::NoUndo)
    }
}

/// While it exists, a process that is killed leaves no core file: kernels before 5.16 kill all processes that
/// share the memory for one, and the child shares it.
struct NoCore {
    before: libc::c_int,
}

impl NoCore {
    fn new() -> Self {
        // SAFETY: takes numbers only.
        let before = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        Self { before }
    }
}

impl Drop for NoCore {
    fn drop(&mut self) {
        // A value other than 0 and 1 can't be set again; it had the same effect as 0.
        if self.before == 1 {
            // SAFETY: takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
    }
}

/// The children's results.
#[derive(Default)]
struct Report {
    errno: i32,
    looked: bool,
    set: Option<SemSet>,
    value: u16,
}

fn take(report: &mut Report) {
    let made = SemSet::create(Key::PRIVATE, 1, 0o600).and_then(|set| {
        report.set = Some(set);
        set.op(&[Op::new(0, 1).undo()]).inspect_err(|_| {
            let _ = set.remove();
        })
    });
    report.errno = made.map_or_else(|error| error.errno(), |()| 0);
}

fn look(report: &mut Report) {
    if let Some(Ok(value)) = report.set.map(|set| set.value(0)) {
        report.value = value;
        report.looked = true;
    }
    remove(report);
}

fn remove(report: &mut Report) {
    if let Some(set) = report.set {
        let _ = set.remove();
    }
}

/// The work of a child.
struct Task<'a> {
    action: fn(&mut Report),
    report: &'a mut Report,
}

extern "C" fn child(task: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent made it, and waits for us before it uses it again.
    let task = unsafe { &mut *task.cast::<Task<'_>>() };
    (task.action)(task.report);
    0
}

/// Runs a function in a process of its own, and waits for its end; false if it was killed.
fn in_child(action: fn(&mut Report), report: &mut Report) -> bool {
    let mut stack = vec![0u8; STACK_BYTES];
    let mut task = Task { action, report };
    // SAFETY: one past the end of the stack, which grows down.
    let top = unsafe { stack.as_mut_ptr().add(STACK_BYTES) };
    let top = top.map_addr(|address| address & !15);
    // No signal at its end, so that only this `wait` can return it.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    // SAFETY: the child has a stack of its own, and the parent is suspended until it has ended.
    let pid = unsafe { libc::clone(child, top.cast(), flags, (&raw mut task).cast()) };
    if pid == -1 {
        return false;
    }
    let mut status = 0;
    loop {
        // SAFETY: our own child; status is ours.
        let waited = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        if waited == pid {
            return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return false;
        }
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use std::process::Command;

    use semring_testkit::sandbox;

    use super::*;

    fn is_gone(set: SemSet) -> bool {
        set.stat().is_err_and(|error| error.is_removed())
    }

    #[test]
    fn semaphores_trial_succeeds_and_leaves_nothing() {
        let mut report = Report::default();
        assert_eq!(try_semaphores(&mut report), Ok(()));
        assert!(report.looked);
        assert!(is_gone(report.set.expect("the probe makes a set")));
    }

    #[test]
    fn a_child_that_is_killed_is_reported() {
        // By the kernel's number, not by abort(): that of musl signals the thread whose memory it shares.
        let die = |_: &mut Report| {
            let me = std::process::id().cast_signed();
            // SAFETY: takes numbers only.
            unsafe { libc::kill(me, libc::SIGKILL) };
        };
        assert!(!in_child(die, &mut Report::default()));
    }

    /// This test starts itself under a filter that allows to make a set and kills for operations on it.
    #[test]
    fn killed_trial_leaves_nothing() {
        const INSIDE: &str = "SEMRING_TEST_FILTERED";
        const SET: &str = "the set was ";
        if std::env::var_os(INSIDE).is_some() {
            let mut report = Report::default();
            assert_eq!(
                try_semaphores(&mut report),
                Err(SemaphoresUnusable::Forbidden)
            );
            println!("{SET}{}", report.set.expect("the probe makes a set").id());
            return;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = concat!(module_path!(), "::killed_trial_leaves_nothing");
        let (_crate, test) = test.split_once("::").unwrap();
        command.args(["--exact", test, "--nocapture"]);
        sandbox::kill_for(&mut command, &[libc::SYS_semop, libc::SYS_semtimedop]);
        let output = command.env(INSIDE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        // With one test thread the harness writes the test's name on the same line.
        let (_, after) = text.split_once(SET).expect("the test ran inside");
        let id = after.lines().next().and_then(|id| id.parse().ok());
        assert!(is_gone(SemSet::from_id(id.expect("a number"))));
    }
}
