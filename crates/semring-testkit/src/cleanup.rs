//! A ring's guard, seen from outside: a semaphore set or a directory of pipes. Tests remove it, fill
//! its wake-up semaphores, and check whether anything in it has changed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sysv_ipc::sem::{MAX_VALUE, Op, SemSet};

use crate::objects::{AT_UUID, Object, PIPES, POSIX_DIRECTORY};

/// The guard of one ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CleanupGuard {
    /// A semaphore set.
    Semaphores(SemSet),
    /// A directory of pipes.
    Pipes(PathBuf),
}

impl CleanupGuard {
    /// The one among the objects of a ring.
    pub fn among(objects: &[Object]) -> Option<Self> {
        objects.iter().find_map(|object| match object {
            Object::Semaphores { id, .. } => Some(Self::Semaphores(SemSet::from_id(*id))),
            Object::Posix { name } if name.starts_with(PIPES) => {
                Some(Self::Pipes(Path::new(POSIX_DIRECTORY).join(name)))
            }
            _ => None,
        })
    }

    /// That of the ring in a file or memfd, by the newest record in it; its pipes would be in this folder.
    ///
    /// # Panics
    /// If the file can't be read.
    #[track_caller]
    pub fn of_ring(path: &Path, folder: &Path) -> Self {
        let file = File::open(path).expect("the ring is there");
        let inode = file.metadata().expect("it is there").ino();
        let mut page = [0; 4096];
        file.read_exact_at(&mut page, 0)
            .expect("it has a first page");
        let uuid = page[AT_UUID..AT_UUID + 16].iter();
        let uuid = uuid.fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let sort = if file.metadata().expect("it is there").nlink() == 0 {
            'm'
        } else {
            'f'
        };
        let pipes = folder.join(format!("{PIPES}{uuid}-{sort}{inode:x}"));
        // Of both kinds, only a set has a key.
        match newest_set(&page) {
            (0, _) => Self::Pipes(pipes),
            (_, id) => Self::Semaphores(SemSet::from_id(id)),
        }
    }

    /// Takes it away as `ipcrm` and `rm -r` do.
    ///
    /// # Panics
    /// If that can't be done.
    #[track_caller]
    pub fn remove(&self) {
        match self {
            Self::Semaphores(set) => set.remove().expect("the set can be removed"),
            Self::Pipes(path) => fs::remove_dir_all(path).expect("the pipes can be removed"),
        }
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        match self {
            Self::Semaphores(set) => set.stat().is_ok(),
            Self::Pipes(path) => path.exists(),
        }
    }

    /// Everything that can be seen of it: the values of the semaphores; of pipes, what there is, whose, of
    /// which mode, the tokens, and what stands in the file to lock.
    ///
    /// # Panics
    /// If it is not there.
    pub fn everything(&self) -> Vec<String> {
        match self {
            Self::Semaphores(set) => {
                let values = set.values().expect("the set is there");
                values.iter().map(u16::to_string).collect()
            }
            Self::Pipes(path) => {
                let entries = fs::read_dir(path).expect("the directory is there");
                let mut all: Vec<String> = entries
                    .map(|entry| {
                        let path = entry.expect("it can be listed").path();
                        let about = fs::metadata(&path).expect("it is there");
                        let (mode, uid, gid) = (about.mode(), about.uid(), about.gid());
                        let bytes = if about.is_file() {
                            fs::read(&path).expect("it can be read")
                        } else {
                            Vec::new()
                        };
                        format!("{} {mode:o} {uid} {gid} {bytes:?}", path.display())
                    })
                    .collect();
                all.sort();
                all
            }
        }
    }

    /// Permission bits, owner and group: of the set, or of each file among the pipes, which are alike.
    ///
    /// # Panics
    /// If it is not there, or its files differ.
    #[track_caller]
    pub fn ownership(&self) -> (u32, u32, u32) {
        match self {
            Self::Semaphores(set) => {
                let stat = set.stat().expect("the set is there");
                (stat.mode, stat.uid, stat.gid)
            }
            Self::Pipes(path) => {
                let folder = fs::metadata(path).expect("the directory is there");
                let mut each = fs::read_dir(path)
                    .expect("the directory is there")
                    .map(|entry| entry.expect("it can be listed").metadata())
                    .map(|about| about.expect("it is there"))
                    .map(|about| (about.mode() & 0o7777, about.uid(), about.gid()));
                let first = each.next().expect("it has pipes");
                assert!(each.all(|other| other == first), "{}", path.display());
                assert_eq!((folder.uid(), folder.gid()), (first.1, first.2));
                first
            }
        }
    }

    /// The wake-up semaphores of the ring.
    ///
    /// # Panics
    /// If the pipes can't be opened.
    pub fn wakeups(&self) -> Wakeups {
        match self {
            Self::Semaphores(set) => Wakeups::Set(*set),
            Self::Pipes(path) => Wakeups::of_pipes(path),
        }
    }
}

/// Key and id of the set that a superblock's page names, as docs/layout.md has it.
fn newest_set(page: &[u8; 4096]) -> (u32, i32) {
    let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().expect("4 bytes"));
    let number = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes"));
    let at = match number(0xef8) {
        0 => 0x050,
        // While a new set is being made, no record counts.
        announced if announced % 2 == 1 => return (0, -1),
        published if published / 2 % 2 == 1 => 0xe00,
        _ => 0xe80,
    };
    (word(at + 8), word(at + 12).cast_signed())
}

/// The consumer's wake-up semaphore.
pub const MESSAGES: usize = 0;
/// That of the producer on lane 0; the next lane's is the next number.
pub const ROOM: usize = 1;

/// The wake-up semaphores of one ring, to be filled on purpose: semaphores hold 32 767 tokens, pipes as
/// many as their buffer has bytes.
#[derive(Debug)]
pub enum Wakeups {
    /// Semaphores, numbered as docs/layout.md has it.
    Set(SemSet),
    /// Pipes, which keep their tokens while a process has them open: as long as this exists.
    Pipes(Vec<File>),
}

impl Wakeups {
    fn of_pipes(directory: &Path) -> Self {
        let names = std::iter::once("messages".to_owned())
            .chain((0..).map(|lane| format!("room.{lane}")))
            .map(|name| directory.join(name));
        let open = |path| {
            let pipe = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)
                .expect("a pipe can be opened");
            // A page is full sooner than the usual sixteen.
            fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).expect("a pipe can be shrunk");
            pipe
        };
        let pipes = names.take_while(|path| path.exists()).map(open);
        Self::Pipes(pipes.collect())
    }

    fn index(wakeup: usize) -> u16 {
        const OF_PRODUCERS: usize = 9;
        let index = match wakeup.checked_sub(ROOM) {
            None => 0,
            Some(lane) => OF_PRODUCERS + 2 * lane,
        };
        u16::try_from(index).expect("a set is not so large")
    }

    /// Posts one token if there is room for it.
    pub fn post(&self, wakeup: usize) {
        match self {
            Self::Set(set) => drop(set.op(&[Op::new(Self::index(wakeup), 1)])),
            Self::Pipes(pipes) => drop((&pipes[wakeup]).write(&[1])),
        }
    }

    /// Posts as many tokens as there is room for, while a sleeper may be taking them.
    ///
    /// # Panics
    /// If the set is gone.
    pub fn post_to(&self, wakeup: usize) {
        match self {
            Self::Set(set) => {
                let index = Self::index(wakeup);
                let missing = MAX_VALUE - set.value(index).unwrap();
                if missing > 0 {
                    set.op(&[Op::new(index, missing.cast_signed())]).unwrap();
                }
            }
            Self::Pipes(pipes) => {
                let mut pipe = &pipes[wakeup];
                // Bounded: a sleeper may be taking them as fast as they are posted.
                for _ in 0..8192 {
                    if pipe.write(&[1]).is_err() {
                        break;
                    }
                }
            }
        }
    }

    /// The same while no process takes any.
    ///
    /// # Panics
    /// If it is not full then.
    #[track_caller]
    pub fn fill(&self, wakeup: usize) {
        self.post_to(wakeup);
        assert!(self.is_full(wakeup));
    }

    /// True if there is no room for one more token.
    ///
    /// # Panics
    /// If the set is gone.
    pub fn is_full(&self, wakeup: usize) -> bool {
        match self {
            Self::Set(set) => set.value(Self::index(wakeup)).unwrap() == MAX_VALUE,
            Self::Pipes(pipes) => {
                let written = (&pipes[wakeup]).write(&[1]);
                written.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            }
        }
    }

    /// True if none holds more than it can.
    ///
    /// # Panics
    /// If the set is gone.
    pub fn are_sound(&self) -> bool {
        match self {
            Self::Set(set) => set
                .values()
                .unwrap()
                .iter()
                .all(|value| *value <= MAX_VALUE),
            Self::Pipes(_) => true,
        }
    }

    /// True if there is no token.
    ///
    /// # Panics
    /// If the set is gone.
    pub fn is_empty(&self, wakeup: usize) -> bool {
        match self {
            Self::Set(set) => set.value(Self::index(wakeup)).unwrap() == 0,
            Self::Pipes(pipes) => {
                let mut set = [PollFd::new(pipes[wakeup].as_fd(), PollFlags::POLLIN)];
                poll(&mut set, PollTimeout::ZERO).unwrap() == 0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{self, RingGuard};
    use sysv_ipc::Key;

    fn checked(wakeups: &Wakeups) {
        for wakeup in [MESSAGES, ROOM] {
            assert!(wakeups.is_empty(wakeup) && !wakeups.is_full(wakeup));
            wakeups.fill(wakeup);
            assert!(wakeups.is_full(wakeup) && !wakeups.is_empty(wakeup));
            wakeups.post(wakeup);
        }
        assert!(wakeups.are_sound());
    }

    #[test]
    fn wakeups_of_either_kind_are_filled_and_the_cleanup_goes() {
        let set = CleanupGuard::Semaphores(SemSet::create(Key::PRIVATE, 10, 0o600).unwrap());
        checked(&set.wakeups());
        let guard = RingGuard::new("cleanup");
        let name = format!("{PIPES}{}", guard.name());
        let path = Path::new(POSIX_DIRECTORY).join(&name);
        fs::create_dir(&path).unwrap();
        for pipe in ["messages", "room.0"] {
            let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
            nix::unistd::mkfifo(&path.join(pipe), mode).unwrap();
        }
        assert!(name.len() > names::prefix().len());
        let pipes = CleanupGuard::among(&guard.objects()).unwrap();
        assert_eq!(pipes, CleanupGuard::Pipes(path));
        checked(&pipes.wakeups());
        assert_eq!(pipes.ownership().0, 0o600);
        for cleanup in [set, pipes] {
            assert!(cleanup.exists() && !cleanup.everything().is_empty());
            cleanup.remove();
            assert!(!cleanup.exists());
        }
    }
}
