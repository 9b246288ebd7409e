//! The fixture of every test here: a name of its own, a backend, a watchdog.

use std::thread;
use std::time::Duration;

use crate::rings;
use semring::{mpsc, spsc};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

/// The smallest lane: the most waiting for the fewest messages.
pub const CAPACITY: u64 = 4096;
/// The longest message of such a lane.
pub const MAX: usize = 1024;
/// For waits that must end with the time.
pub const SOON: Duration = Duration::from_millis(2);
/// For waits that must not.
pub const LONG: Duration = Duration::from_secs(60);
/// Time after which a test must be hanging: many times what it needs, also where two spinning threads share
/// a processor.
pub const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// A ring's address, its clean-up, its watchdog.
pub struct Fixture {
    pub guard: RingGuard,
    pub address: String,
    _watchdog: Watchdog,
}

impl Fixture {
    pub fn new(backend: &str, label: &str) -> Self {
        let guard = RingGuard::new(label);
        let address = format!("{backend}:{}", guard.name());
        Self {
            guard,
            address,
            _watchdog: Watchdog::new(HANG_TIMEOUT, label),
        }
    }

    /// The guard of the ring.
    pub fn cleanup(&self) -> CleanupGuard {
        CleanupGuard::among(&self.guard.objects()).expect("the ring has semaphores or pipes")
    }

    pub fn spsc(&self) -> spsc::Ring {
        let ring = rings::spsc(&self.address)
            .capacity(CAPACITY)
            .create()
            .unwrap();
        self.guard.objects();
        ring
    }

    pub fn mpsc(&self, producers: usize) -> mpsc::Ring {
        let builder = rings::mpsc(&self.address)
            .capacity(CAPACITY)
            .producers(producers);
        let ring = builder.create().unwrap();
        self.guard.objects();
        ring
    }
}

/// Writes a test once and runs it over each backend.
macro_rules! over_each_backend {
    ($($(#[$about:meta])* fn $test:ident($fixture:ident) $body:block)*) => {
        $($(#[$about])* mod $test {
            #[allow(unused_imports)]
            use super::*;

            fn run($fixture: $crate::fixture::Fixture) $body

            #[test]
            fn posix() {
                run($crate::fixture::Fixture::new("posix", stringify!($test)));
            }

            #[test]
            fn sysv() {
                run($crate::fixture::Fixture::new("sysv", stringify!($test)));
            }
        })*
    };
}

/// Waits until a thread of this process sleeps in one of these system calls.
pub fn await_asleep(thread: i32, calls: &[i64]) {
    let path = format!("/proc/self/task/{thread}/syscall");
    loop {
        let call = std::fs::read_to_string(&path).unwrap();
        let number = call
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        if number.is_some_and(|number: i64| calls.contains(&number)) {
            return;
        }
        thread::yield_now();
    }
}

/// The calling thread's id in the system.
pub fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Runs `wait` in a thread, `meanwhile` once it sleeps in the kernel, and returns the result of the
/// wait.
pub fn while_asleep<R: Send>(wait: impl FnOnce() -> R + Send, meanwhile: impl FnOnce()) -> R {
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = scope.spawn(move || {
            tell.send(thread_id()).unwrap();
            wait()
        });
        await_asleep(
            told.recv().unwrap(),
            semring_testkit::process::SLEEPING_ON_A_RING,
        );
        meanwhile();
        waiting.join().unwrap()
    })
}
