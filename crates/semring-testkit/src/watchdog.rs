//! Turns a hang into a failure with a report of what hung.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{names, process};

/// Ends the process unless it is dropped in time.
///
/// When the time is over it prints on stderr what hung and the state of every thread of this process
/// and of its peers; then it kills the peers, removes the objects of the existing
/// [guards](crate::names::RingGuard), and aborts. To run a test under a debugger, set
/// `SEMRING_TEST_NO_WATCHDOG` to any value.
///
/// It does not measure speed: give it many times what the test needs on a busy machine.
///
/// ```
/// use std::time::Duration;
/// use semring_testkit::watchdog::Watchdog;
///
/// let _watchdog = Watchdog::new(Duration::from_secs(60), "the hand-over");
/// // … what might hang …
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it watches nothing"]
pub struct Watchdog {
    done: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching. `what` is the subject of the sentence that is printed in case.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn new(timeout: Duration, what: &str) -> Watchdog {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let watch = Arc::clone(&done);
        let what = what.to_owned();
        let wanted = std::env::var_os("SEMRING_TEST_NO_WATCHDOG").is_none();
        let thread = wanted.then(|| {
            let named = thread::Builder::new().name("watchdog".to_owned());
            named
                .spawn(move || watch_over(&watch, timeout, &what))
                .expect("a thread for the watchdog")
        });
        Watchdog { done, thread }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let (done, changed) = &*self.done;
        *done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only waits or aborts.
            let _ = thread.join();
        }
    }
}

fn watch_over(watch: &(Mutex<bool>, Condvar), timeout: Duration, what: &str) {
    let (done, changed) = watch;
    let end = Instant::now() + timeout;
    let mut is_done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    while !*is_done {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            report_hang(timeout, what);
        }
        let waited = changed.wait_timeout(is_done, left);
        (is_done, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}

fn report_hang(timeout: Duration, what: &str) -> ! {
    static BARKING: Mutex<()> = Mutex::new(());
    // Another one is at it, and ends the process when it has cleaned up: its abort must not be overtaken.
    let _alone = BARKING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let me = std::process::id();
    let mut text = format!("\nwatchdog: {what} did not end within {timeout:?}\nprocess {me}:\n");
    text += &process::describe(me);
    for pid in process::living() {
        let _ = writeln!(text, "peer {pid}:\n{}", process::describe(pid).trim_end());
    }
    // Not eprintln!, which a test's output capture may swallow with the process.
    let _ = std::io::stderr().write_all(text.as_bytes());
    process::kill_the_living();
    names::clean_all();
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RingGuard;
    use crate::peer::{Exit, Peer};
    use std::process::{Command, Stdio};

    const CHILD: &str = "SEMRING_TESTKIT_HANG";

    /// Runs in a process of its own, started by the test below.
    #[test]
    fn child_that_hangs() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let guard = RingGuard::new("hang");
        std::fs::write(format!("/dev/shm/{}", guard.name()), "x").unwrap();
        let mut peer = Peer::start("sleep", ["1000"]);
        // So that this is the state in the report, even if the watchdog's time is short.
        peer.wait_until_in(&[libc::SYS_clock_nanosleep, libc::SYS_nanosleep]);
        println!("\n{} {}", guard.name(), peer.pid());
        let _watchdog = Watchdog::new(Duration::from_millis(200), "the child");
        loop {
            thread::park();
        }
    }

    #[test]
    fn hang_is_reported_cleaned_up_and_ended() {
        let _watchdog = Watchdog::new(Duration::from_secs(600), "the test of the watchdog");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "--nocapture",
                "watchdog::tests::child_that_hangs",
            ])
            .env(CHILD, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(Exit::from(output.status), Exit::Signal(libc::SIGABRT));
        assert!(stderr.contains("watchdog: the child did not end within 200ms"));
        assert!(stderr.contains("(watchdog): state R"), "{stderr}");
        assert!(stderr.contains("(sleep): state S"), "{stderr}");
        let line = stdout.lines().find(|line| line.starts_with("st-")).unwrap();
        let (name, pid) = line.split_once(' ').unwrap();
        assert!(!std::path::Path::new("/dev/shm").join(name).exists());
        // The grandchild is killed; until its new parent has reaped it, it is a zombie. It may not have come
        // to that yet: its end of the pipe, for which we waited, is closed a little before.
        let pid = pid.parse().unwrap();
        while process::state(pid).is_ok_and(|state| state != 'Z') {
            thread::yield_now();
        }
    }

    #[test]
    fn one_that_is_dropped_in_time_does_nothing() {
        drop(Watchdog::new(Duration::from_secs(3600), "nothing"));
    }
}
