//! A ring of a test in each kind of memory, its peers, and its removal.

#[path = "../support/talk.rs"]
mod talk;

pub use talk::{answer, ask, say_ok};

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::rings;
use semring::{Address, GuardChoice, GuardKind, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::left_out;
use semring_testkit::names::{self, RingGuard};
use semring_testkit::objects::POSIX_DIRECTORY;
use semring_testkit::peer::Peer;
use semring_testkit::watchdog::Watchdog;

/// The program of tests/support/peer.rs.
pub const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Time after which a test must be hanging; many times what it needs.
const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// A kind of memory that other programs find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Posix,
    Sysv,
    /// On a disk, or wherever temporary files are.
    File,
    /// Peers inherit its descriptor.
    Memfd,
}

/// Those that have a name.
pub const NAMED: [Kind; 3] = [Kind::Posix, Kind::Sysv, Kind::File];

/// The place of a test's ring. When it is dropped, it removes what is left, also when the test
/// fails.
pub struct Fixture {
    pub kind: Kind,
    pub guard: RingGuard,
    choice: GuardChoice,
    path: PathBuf,
    /// The memfd ring, and the descriptor that peers inherit.
    passed: Option<(any::Ring, OwnedFd)>,
    _watchdog: Watchdog,
}

impl Fixture {
    pub fn new(kind: Kind, label: &str) -> Self {
        let guard = RingGuard::new(label);
        Self {
            kind,
            path: std::env::temp_dir().join(guard.name()),
            guard,
            choice: GuardChoice::Auto,
            passed: None,
            _watchdog: Watchdog::new(HANG_TIMEOUT, &format!("{label} ({kind:?})")),
        }
    }

    /// The same with rings that have semaphores, independent of the environment: for tests of
    /// semaphores.
    #[must_use]
    pub fn with_semaphores(mut self) -> Self {
        self.choice = GuardKind::Semaphore.into();
        self
    }

    /// The same with pipes.
    #[must_use]
    pub fn with_pipes(mut self) -> Self {
        self.choice = GuardKind::Pipe.into();
        self
    }

    /// The address for peers. That of a memfd is known when the ring is made.
    pub fn address(&self) -> String {
        match self.kind {
            Kind::Posix => self.guard.posix(),
            Kind::Sysv => self.guard.sysv(),
            Kind::File => format!("file:{}", self.path.display()),
            Kind::Memfd => {
                let (_, descriptor) = self.passed.as_ref().expect("the ring was made");
                format!("fd:{}", descriptor.as_raw_fd())
            }
        }
    }

    pub fn parsed(&self) -> Address {
        self.address().parse().expect("an address")
    }

    /// The file of the ring.
    pub fn path(&self) -> PathBuf {
        match self.kind {
            Kind::Posix => Path::new("/dev/shm").join(self.guard.name()),
            Kind::File => self.path.clone(),
            other => panic!("{other:?} has no path"),
        }
    }

    pub fn builder(&self) -> any::Builder {
        let builder = if self.kind == Kind::Memfd {
            rings::any("memfd:")
        } else {
            rings::any(self.address())
        };
        builder.guard(self.choice)
    }

    /// Makes the ring.
    #[track_caller]
    pub fn ring(&mut self, lanes: usize, capacity: u64) -> any::Ring {
        let builder = self.builder().producers(lanes).capacity(capacity);
        let ring = builder.create().expect("the ring can be made");
        if self.kind == Kind::Memfd {
            let descriptor = ring.inheritable().expect("a memfd has a descriptor");
            self.passed = Some((ring.clone(), descriptor));
        }
        self.guard.objects();
        ring
    }

    /// The guard of the ring, according to the newest record in the file.
    #[track_caller]
    pub fn cleanup(&self) -> CleanupGuard {
        self.known_cleanup().expect("its bytes can be read")
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

    /// A peer that has the ring open.
    #[track_caller]
    pub fn peer(&self) -> Peer {
        let mut peer = self.idle_peer();
        let answer = ask(&mut peer, &format!("open {}", self.address()));
        assert!(answer.starts_with("ok "), "{answer}");
        peer
    }

    #[track_caller]
    pub fn producer(&self) -> Peer {
        let mut peer = self.peer();
        let answer = ask(&mut peer, "producer");
        assert!(answer.starts_with("ok "), "{answer}");
        peer
    }

    #[track_caller]
    pub fn consumer(&self) -> Peer {
        let mut peer = self.peer();
        say_ok(&mut peer, "consumer");
        peer
    }

    /// Removes the ring, which must be unused, and checks that nothing of it is left.
    #[track_caller]
    pub fn finish(mut self) {
        let cleanup = self.known_cleanup();
        match self.passed.take() {
            Some((ring, _descriptor)) => ring.remove(),
            None => semring::remove(self.parsed()),
        }
        .unwrap_or_else(|error| panic!("{error}"));
        self.assert_gone(cleanup);
    }

    /// Holds that nothing of the ring is left, and neither is its guard.
    #[track_caller]
    pub fn assert_gone(&self, cleanup: Option<CleanupGuard>) {
        self.guard.assert_clean();
        assert!(!self.path.exists(), "{}", self.path.display());
        if let Some(cleanup) = cleanup {
            assert!(!cleanup.exists(), "{cleanup:?} is left");
        }
    }

    /// The guard of the ring, if the bytes can be read.
    pub fn known_cleanup(&self) -> Option<CleanupGuard> {
        let memory = Path::new(POSIX_DIRECTORY);
        let (path, folder) = match self.kind {
            Kind::Posix => (self.path(), memory),
            Kind::File => (self.path(), self.path.parent().expect("a folder")),
            Kind::Memfd => {
                let (_, descriptor) = self.passed.as_ref()?;
                (link_to(descriptor), memory)
            }
            Kind::Sysv => return None,
        };
        path.exists().then(|| CleanupGuard::of_ring(&path, folder))
    }
}

/// Where a descriptor of ours is found.
pub fn link_to(descriptor: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if self.path.exists() {
            let _ = semring::force_remove(format!("file:{}", self.path.display()));
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A path among the temporary files that no other test uses.
pub fn fresh_path(label: &str) -> PathBuf {
    std::env::temp_dir().join(names::unique(label))
}

/// A peer that runs under a command such as `unshare -i`. `None` where that is not permitted: the
/// calling test is then recorded as left out.
pub fn peer_below(command: &[&str]) -> Option<Peer> {
    let (program, arguments) = command.split_first().expect("a command");
    // Without input a peer ends at once.
    let probe = [command, &[PEER]].concat();
    if !left_out::is_root(&format!("for {program}")) || !left_out::can_run(&probe) {
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).arg(PEER);
    Some(Peer::spawn(command).expect("it has just run"))
}
