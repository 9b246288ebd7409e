//! One test over one backend: its address, its peers, its watchdog, and nothing left when it ends.

use std::path::PathBuf;
use std::time::Duration;

use crate::rings;
use semring::{GuardChoice, GuardKind, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::names::{self, RingGuard};
use semring_testkit::objects::{Object, POSIX_DIRECTORY};
use semring_testkit::peer::Peer;
use semring_testkit::step::Stepper;
use semring_testkit::watchdog::Watchdog;

#[path = "talk.rs"]
mod talk;

#[allow(unused_imports)] // each of the test programs uses a part
pub use semring_testkit::cleanup::{MESSAGES, ROOM};
#[allow(unused_imports)] // likewise
pub use talk::{answer, ask, say_ok};

/// The program of tests/support/peer.rs.
pub const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// The smallest capacity that a lane can have, in bytes: the most waiting for the fewest messages.
pub const SMALL: u64 = 4096;

/// Time after which a test must be hanging; many times what it needs.
const HANG_TIMEOUT: Duration = Duration::from_secs(900);

/// The same with `SEMRING_FULL=1`: the k-th kill point costs k steps, and there are thousands.
const FULL_HANG_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Where the rings of a test live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// `posix:`
    Posix,
    /// `sysv:`
    Sysv,
}

/// The fixture of a test. When it is dropped, it removes what is left, also when the test fails.
pub struct Fixture {
    /// The backend, for the few tests in which it makes a difference.
    pub backend: Backend,
    /// Finds the objects of the test's ring.
    pub guard: RingGuard,
    choice: GuardChoice,
    label: &'static str,
    files: Vec<PathBuf>,
    _watchdog: Watchdog,
}

impl Fixture {
    /// A fixture with a name of its own, for the test of this name.
    pub fn new(backend: Backend, label: &'static str) -> Fixture {
        let full = setting("SEMRING_FULL", 0) != 0;
        Fixture::with_hang_timeout(
            backend,
            label,
            if full {
                FULL_HANG_TIMEOUT
            } else {
                HANG_TIMEOUT
            },
        )
    }

    /// A fixture for a test that may take longer.
    pub fn with_hang_timeout(backend: Backend, label: &'static str, timeout: Duration) -> Fixture {
        let short = &label[..label.len().min(names::MAX_LABEL_BYTES)];
        Fixture {
            backend,
            guard: RingGuard::new(short),
            choice: GuardChoice::Auto,
            label,
            files: Vec::new(),
            _watchdog: Watchdog::new(timeout, &format!("{label} ({backend:?})")),
        }
    }

    /// The same with rings that have semaphores, independent of the environment: for tests of
    /// semaphores.
    #[must_use]
    pub fn with_semaphores(mut self) -> Fixture {
        self.choice = GuardKind::Semaphore.into();
        self
    }

    /// The same with pipes.
    #[must_use]
    pub fn with_pipes(mut self) -> Fixture {
        self.choice = GuardKind::Pipe.into();
        self
    }

    /// Whether its rings have pipes, by its own choice or the environment's.
    pub fn has_pipes(&self) -> bool {
        match self.choice {
            GuardChoice::Pipe => true,
            GuardChoice::Semaphore => false,
            _ => std::env::var("SEMRING_GUARD").is_ok_and(|kind| kind == "pipe"),
        }
    }

    /// The command that runs the test alone.
    pub fn test(&self) -> String {
        let backend = match self.backend {
            Backend::Posix => "posix",
            Backend::Sysv => "sysv",
        };
        format!("{backend}::{}", self.label)
    }

    /// The address of the test's ring.
    pub fn address(&self) -> String {
        match self.backend {
            Backend::Posix => self.guard.posix(),
            Backend::Sysv => self.guard.sysv(),
        }
    }

    /// Makes the test's ring, with lanes of [`SMALL`] bytes.
    #[track_caller]
    pub fn ring(&self, lanes: usize) -> any::Ring {
        self.ring_of(lanes, SMALL)
    }

    /// Makes the test's ring.
    #[track_caller]
    pub fn ring_of(&self, lanes: usize, capacity: u64) -> any::Ring {
        let builder = rings::any(self.address())
            .producers(lanes)
            .capacity(capacity)
            .guard(self.choice);
        let ring = builder.create().expect("the ring can be made");
        // So that the guard has seen the set, also when the segment goes before it.
        self.guard.objects();
        ring
    }

    /// Makes a ring as a program does that found none: nobody has used it.
    #[track_caller]
    pub fn unused_ring(&self) -> any::Ring {
        let builder = rings::any(self.address())
            .auto_remove(true)
            .producers(1)
            .capacity(SMALL)
            .guard(self.choice);
        let ring = builder.create().expect("the ring can be made");
        self.guard.objects();
        ring
    }

    /// A peer that has nothing open.
    #[track_caller]
    pub fn idle_peer(&self) -> Peer {
        let mut peer = Peer::start(PEER, [""; 0]);
        match self.choice {
            GuardChoice::Semaphore => say_ok(&mut peer, "guard semaphore"),
            GuardChoice::Pipe => say_ok(&mut peer, "guard pipe"),
            _ => {}
        }
        peer
    }

    /// A peer that makes or removes rings: objects that it leaves without a name belong to this
    /// fixture.
    #[track_caller]
    pub fn maker(&self) -> Peer {
        let peer = self.idle_peer();
        self.guard.adopt(peer.pid());
        peer
    }

    /// A peer that has the ring open.
    #[track_caller]
    pub fn peer(&self) -> Peer {
        let mut peer = self.idle_peer();
        assert!(ask(&mut peer, &format!("open {}", self.address())).starts_with("ok "));
        peer
    }

    /// A peer that is a producer.
    #[track_caller]
    pub fn producer(&self) -> Peer {
        let mut peer = self.peer();
        assert!(ask(&mut peer, "producer").starts_with("ok "));
        peer
    }

    /// A peer that is the consumer.
    #[track_caller]
    pub fn consumer(&self) -> Peer {
        let mut peer = self.peer();
        say_ok(&mut peer, "consumer");
        peer
    }

    /// The guard of the ring.
    #[track_caller]
    pub fn cleanup(&self) -> CleanupGuard {
        CleanupGuard::among(&self.guard.objects()).expect("the ring has semaphores or pipes")
    }

    /// Removes the directories of pipes that killed makers and removers left, each of which must be
    /// listed as an orphan. (With semaphores the next maker under a System V key finds what is left.)
    #[track_caller]
    pub fn prune_pipes(&self) {
        let left: Vec<String> = self
            .guard
            .objects()
            .iter()
            .filter_map(|object| match object {
                Object::Posix { name } if name.starts_with(".semring-") => {
                    Some(format!("pipes {POSIX_DIRECTORY}/{name}"))
                }
                _ => None,
            })
            .collect();
        // A directory that was not even begun does not show its maker. (A live maker begins again.)
        let is_empty = |name: &str| {
            let path = name.strip_prefix("pipes ").unwrap_or_default();
            std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
        };
        for leftover in semring::orphans() {
            if is_empty(leftover.name()) {
                let _ = leftover.remove(semring::Unread::Keep);
            } else if left.iter().any(|left| left == leftover.name()) {
                let pruned = leftover
                    .remove(semring::Unread::Keep)
                    .expect("it can be pruned");
                assert_eq!(pruned, semring::PruneOutcome::Removed);
            }
        }
    }

    /// The path of a file that is removed with the fixture.
    pub fn file(&mut self, label: &str) -> PathBuf {
        let path = std::env::temp_dir().join(names::unique(label));
        self.files.push(path.clone());
        path
    }

    /// Removes the ring, which must be unused, and checks that nothing of it is left.
    #[track_caller]
    pub fn finish(self) {
        let address = self
            .address()
            .parse::<semring::Address>()
            .expect("an address");
        if let Err(error) = semring::remove(&address) {
            panic!("{}: {error}", self.label);
        }
        self.guard.assert_clean();
    }

    /// Holds that nothing of the ring is left.
    #[track_caller]
    pub fn finish_removed(self) {
        self.guard.assert_clean();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Lets a stepped peer run to its next marker. If it ends before, its output shows why.
#[track_caller]
pub fn run_to_marker(stepper: &mut Stepper) {
    if let Err(error) = stepper.run_to_marker().map(|_| ()) {
        let said: Vec<String> = std::iter::from_fn(|| stepper.peer().read_line()).collect();
        panic!("no marker: {error}; the peer printed {said:?}");
    }
}

/// A number from the environment, for longer runs, or else this one.
pub fn setting(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => otherwise,
    }
}

/// A generator of arbitrary numbers. The seed is printed, and `SEMRING_SEED` repeats a run.
pub struct Random(u64);

impl Random {
    /// Begins with the seed of the environment, or with the time.
    pub fn new(what: &str) -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanoseconds = now.map_or(1, |now| now.as_nanos() as u64);
        let seed = setting("SEMRING_SEED", nanoseconds) | 1;
        println!("{what}: SEMRING_SEED={seed}");
        Random(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // Xorshift, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Lets a random time pass, at most so much: it makes moments random, it synchronises nothing.
    pub fn pass(&mut self, at_most: Duration) {
        std::thread::sleep(Duration::from_nanos(self.below(at_most.as_nanos() as u64)));
    }
}

/// Runs each behaviour over each backend.
#[allow(unused_macros)] // tests/faults has one of its own
macro_rules! over_both_backends {
    ($($behaviour:ident)*) => {
        mod posix {
            $(#[test] fn $behaviour() {
                super::$behaviour($crate::fixture::Fixture::new(
                    $crate::fixture::Backend::Posix,
                    stringify!($behaviour),
                ));
            })*
        }
        mod sysv {
            $(#[test] fn $behaviour() {
                super::$behaviour($crate::fixture::Fixture::new(
                    $crate::fixture::Backend::Sysv,
                    stringify!($behaviour),
                ));
            })*
        }
    };
}

/// Removes guards without a ring that killed makers and users left: no test can identify them as its own. (A
/// live maker whose objects are removed begins again.)
#[allow(dead_code)] // each of the test programs uses a part
pub fn prune_guards() {
    use semring::OrphanKind::{Pipes, Semaphores, Unfinished};
    for leftover in semring::orphans() {
        if matches!(leftover.kind(), Pipes | Semaphores | Unfinished) {
            let _ = leftover.remove(semring::Unread::Keep);
        }
    }
}
