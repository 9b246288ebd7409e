//! A ring of a test in each kind of memory, its peers, and its removal.

#[path = "../support/talk.rs"]
mod talk;

pub use talk::{answer, ask, say_ok};

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use semring::{Address, any};
use semring_testkit::names::{self, RingGuard};
use semring_testkit::peer::Peer;
use semring_testkit::watchdog::Watchdog;
use sysv_ipc::Key;
use sysv_ipc::sem::{self, SemSet};

/// The program of tests/support/peer.rs.
pub const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Time after which a test must hang; many times what it needs.
const PATIENCE: Duration = Duration::from_secs(300);

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

/// The place of a test's ring. Dropped, it removes what is left, also when the test fails.
pub struct Site {
    pub kind: Kind,
    pub guard: RingGuard,
    path: PathBuf,
    /// The memfd ring, and the descriptor that peers inherit.
    passed: Option<(any::Ring, OwnedFd)>,
    _watchdog: Watchdog,
}

impl Site {
    pub fn new(kind: Kind, label: &str) -> Self {
        let guard = RingGuard::new(label);
        Self {
            kind,
            path: std::env::temp_dir().join(guard.name()),
            guard,
            passed: None,
            _watchdog: Watchdog::new(PATIENCE, &format!("{label} ({kind:?})")),
        }
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
        if self.kind == Kind::Memfd {
            any::Builder::memfd()
        } else {
            any::Builder::new(self.address())
        }
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

    /// The ring's semaphore set, by the newest record in the file.
    #[track_caller]
    pub fn set(&self) -> SemSet {
        let file = OpenOptions::new().read(true).open(self.path());
        let mut page = [0; 4096];
        file.expect("the ring is there")
            .read_exact_at(&mut page, 0)
            .expect("it has a first page");
        SemSet::from_id(newest_set(&page).1)
    }

    /// A peer that has nothing open.
    #[track_caller]
    pub fn idle_peer(&self) -> Peer {
        Peer::start(PEER, [""; 0])
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

    /// Removes the ring, which nobody may use any more, and holds that nothing of it is left.
    #[track_caller]
    pub fn finish(mut self) {
        let set = self.known_set();
        match self.passed.take() {
            Some((ring, _descriptor)) => ring.remove(),
            None => semring::remove(&self.parsed(), false),
        }
        .unwrap_or_else(|error| panic!("{error}"));
        self.assert_gone(set);
    }

    /// Holds that nothing of the ring is left, and neither is the set.
    #[track_caller]
    pub fn assert_gone(&self, set: Option<(Key, i32)>) {
        self.guard.assert_clean();
        assert!(!self.path.exists(), "{}", self.path.display());
        if let Some(set) = set {
            assert!(!exists(set), "the semaphores are left");
        }
    }

    /// Key and id of the set, where the bytes can be read.
    pub fn known_set(&self) -> Option<(Key, i32)> {
        let path = match self.kind {
            Kind::Posix | Kind::File => self.path(),
            Kind::Memfd => {
                let (_, descriptor) = self.passed.as_ref()?;
                PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
            }
            Kind::Sysv => return None,
        };
        let mut page = [0; 4096];
        let file = OpenOptions::new().read(true).open(path).ok()?;
        file.read_exact_at(&mut page, 0).ok()?;
        Some(newest_set(&page))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.path.exists() {
            let _ = semring::remove(
                &format!("file:{}", self.path.display()).parse().unwrap(),
                true,
            );
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Key and id of the set that a superblock's page names, as docs/layout.md has it.
pub fn newest_set(page: &[u8; 4096]) -> (Key, i32) {
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
    let sequence = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    let at = match (sequence(0xe00), sequence(0xe80)) {
        (0, 0) => 0x050,
        (odd, even) if odd > even => 0xe00,
        _ => 0xe80,
    };
    (Key::from_raw(word(at + 8)), word(at + 12).cast_signed())
}

/// Whether there is a set of this key and id.
pub fn exists((key, id): (Key, i32)) -> bool {
    let sets = sem::list().expect("/proc lists the sets");
    sets.iter().any(|set| set.id == id && set.stat.key == key)
}

/// A path among the temporary files that no other test uses.
pub fn fresh_path(label: &str) -> PathBuf {
    std::env::temp_dir().join(names::unique(label))
}

/// A peer that runs behind a command such as `unshare -i`. `None` if the kernel refuses that here.
pub fn peer_behind(command: &[&str]) -> Option<Peer> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: {} needs root", command.join(" "));
        return None;
    }
    let (program, arguments) = command.split_first().expect("a command");
    // Without input a peer ends at once.
    let mut probe = Command::new(program);
    probe.args(arguments).arg(PEER).stdin(Stdio::null());
    let probe = probe.output().expect("util-linux is installed");
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr);
        eprintln!("skipped: {}: {why}", command.join(" "));
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).arg(PEER);
    Some(Peer::spawn(command).expect("it has just run"))
}
