//! A lock on a System V key, for creators that make no semaphore set under it: a file that exists while
//! one is at work.
//!
//! ```text
//! 1 unnamed file, locked, with its record,
//!   its time that of the last tick          killed: nothing is left
//! 2 its name in /dev/shm                    killed: the file, unlocked
//! 3 the segment under the key               killed: likewise, and a segment that the file proves to be ours
//! 4 the record is used up, the name goes    killed between: a file that proves nothing
//! ```
//! The kernel gives a segment the second of the last tick of its clock, but a file the exact time (since Linux 6.13).
//! So in the first tick of each second a segment would be older than the file that was made before it, and the file
//! would not prove it. The file therefore gets the time that the kernel would give a segment.
//!
//! Any process can make a file of this name. One counts only if it belongs to the creator of the segment,
//! no other user may write it, it has one name, and its record names this key. So a link to another file of
//! that user proves nothing, nor does a link to an old lock: its record is marked as used. Only the owner
//! (and root) can open the file, so no other user can hold its lock.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::guard::pipe::directory::Failure;
use crate::memory::POSIX_DIRECTORY;
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte, would_be_refused};
use crate::os::{clock, errno, file, process};

/// The prefix of these files.
pub(crate) const KEY_PREFIX: &str = ".semring-key-";

/// Permission bits: a user that can't open the file can't lock it.
const MODE: u32 = 0o600;

fn key_path(key: i32) -> PathBuf {
    Path::new(POSIX_DIRECTORY).join(format!("{KEY_PREFIX}{key:08x}"))
}

/// The contents of the file while a creator is at work, or was killed at work.
fn record(key: i32) -> String {
    let namespace = process::ipc_namespace().unwrap_or(0);
    format!("semring key {key:08x} ipc {namespace}\n")
}

/// Writes it, with the time that the kernel would give a segment that is made now.
fn write_record(lock: &File, key: i32) -> io::Result<()> {
    file::write_at(lock, record(key).as_bytes(), 0)?;
    lock.set_modified(UNIX_EPOCH + clock::last_tick())
}

/// The first byte of the record once its creator has finished: one byte, so it can't be
/// half-written.
const USED: u8 = b'-';

/// The contents of a file of this name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    /// The record of a creator for this key.
    Record,
    /// The record of a creator that has finished.
    Used,
    /// Empty: its creator was killed before it wrote, on a file system without unnamed files.
    Nothing,
    Other,
}

fn contents(lock: &File, key: i32) -> Contents {
    let expected = record(key);
    let mut bytes = vec![0; expected.len() + 1];
    let got = lock.read_at(&mut bytes, 0).unwrap_or(0);
    match &bytes[..got] {
        [] => Contents::Nothing,
        all if all == expected.as_bytes() => Contents::Record,
        [USED, rest @ ..] if *rest == expected.as_bytes()[1..] => Contents::Used,
        _ => Contents::Other,
    }
}

/// True if this process may remove the file when no process holds its lock. Root may do so for all users; a
/// file without a record only its owner.
fn is_ours(metadata: &Metadata, contents: Contents) -> bool {
    let us = process::effective_uid();
    match contents {
        Contents::Record | Contents::Used => metadata.uid() == us || us == 0,
        Contents::Nothing => metadata.uid() == us,
        Contents::Other => false,
    }
}

/// A lock on a key, held. When it is dropped, the file is removed.
#[derive(Debug)]
pub(crate) struct KeyLock {
    path: PathBuf,
    lock: Private,
    stays: bool,
    /// The file had its record when this process took the lock: it may prove a segment that is there already.
    is_taken_over: bool,
}

/// Why a file of this name is not a valid lock.
fn in_the_way(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!(
            "{path} is not the lock of a creator of this user: remove it, or choose another name or key"
        ),
    )
}

impl KeyLock {
    /// Waits for other creators; `None` when the timeout has passed.
    pub(crate) fn take(key: i32, patience: Duration) -> Result<Option<Self>, Failure> {
        let path = key_path(key);
        let end = clock::now() + patience;
        loop {
            match Self::make(&path, key).and_then(|made| match made {
                Some(lock) => Ok(Some(lock)),
                None => Self::take_over(&path, key),
            }) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) if clock::now() >= end => return Ok(None),
                Ok(None) => clock::nap(Duration::from_micros(200)),
                Err(source) => {
                    let call = "open (lock)";
                    return Err(Failure { call, source });
                }
            }
        }
    }

    /// Takes the lock left by a killed creator; `None` if it is gone, in use, or not semring's.
    pub(crate) fn of_the_dead(key: i32) -> Option<Self> {
        Self::take_over(&key_path(key), key).ok().flatten()
    }

    /// Makes the file; `None` if there is one.
    fn make(path: &Path, key: i32) -> io::Result<Option<Self>> {
        let begin = |lock: &File| {
            hold_byte(lock, 0, Hold::Alone)?;
            write_record(lock, key)
        };
        let made = Private::open(|| {
            let unnamed = match file::create_unnamed(Path::new(POSIX_DIRECTORY), MODE) {
                Ok(lock) => file::is_linkable(&lock).then_some(lock),
                // A file system without unnamed files.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(errno::EOPNOTSUPP | errno::EISDIR | errno::EINVAL)
                    ) =>
                {
                    None
                }
                Err(error) => return Err(error),
            };
            if let Some(lock) = unnamed {
                begin(&lock)?;
                file::link(&lock, path)?;
                return Ok(lock);
            }
            let lock = file::create_named(path, MODE)?;
            begin(&lock)?;
            Ok(lock)
        });
        match made {
            Ok(lock) => Ok(Some(Self {
                path: path.to_owned(),
                lock,
                stays: false,
                is_taken_over: false,
            })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of an existing file; `None` if another process has it, or removed the file.
    fn take_over(path: &Path, key: i32) -> io::Result<Option<Self>> {
        let lock = match Private::open(|| file::open(path, true)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(in_the_way(path)),
        };
        let metadata = lock.file().metadata()?;
        // Its holder removed it in the meantime.
        if metadata.nlink() == 0 {
            return Ok(None);
        }
        if !is_alone(&metadata) {
            return Err(in_the_way(path));
        }
        if !hold_byte(lock.file(), 0, Hold::Alone)? {
            return Ok(None);
        }
        let identity = file::identity(lock.file())?;
        if !file::path_identity(path).is_ok_and(|there| there == identity) {
            return Ok(None);
        }
        let contents = contents(lock.file(), key);
        if !is_ours(&metadata, contents) {
            return Err(in_the_way(path));
        }
        if contents != Contents::Record {
            write_record(lock.file(), key)?;
        }
        Ok(Some(Self {
            path: path.to_owned(),
            lock,
            stays: false,
            is_taken_over: contents == Contents::Record,
        }))
    }

    /// True if the file was left by a killed creator. Changes nothing.
    pub(crate) fn is_dead(key: i32) -> bool {
        let Ok(lock) = file::open(&key_path(key), false) else {
            return false;
        };
        let ours = lock
            .metadata()
            .is_ok_and(|metadata| is_alone(&metadata) && is_ours(&metadata, contents(&lock, key)));
        ours && matches!(would_be_refused(&lock, 0, Hold::Shared), Ok(false))
    }

    /// True if the file proves that a creator of this user (`maker`) made a segment at that time (in
    /// seconds since 1970), or is making it.
    pub(crate) fn proves(key: i32, maker: u32, made: i64) -> bool {
        let path = key_path(key);
        match file::open(&path, false) {
            Ok(lock) => {
                let fits = |of: Metadata| of.uid() == maker && is_alone(&of) && of.mtime() <= made;
                lock.metadata().is_ok_and(fits) && contents(&lock, key) == Contents::Record
            }
            // Only its owner can read it. For other users, which may only wait or give up, this is
            // enough.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::fs::symlink_metadata(&path)
                    .is_ok_and(|of| of.uid() == maker && is_alone(&of) && of.mtime() <= made)
            }
            Err(_) => false,
        }
    }

    /// True if there is any object of this name.
    pub(crate) fn exists(key: i32) -> bool {
        std::fs::symlink_metadata(key_path(key)).is_ok()
    }

    /// True if a killed creator left the file: it may be the proof for an object under the key.
    pub(crate) const fn is_taken_over(&self) -> bool {
        self.is_taken_over
    }

    /// Releases the lock, and leaves the file.
    pub(crate) fn keep(mut self) {
        self.stays = true;
    }

    /// Waits until no creator of this user makes a ring with pipes under this key; false when the timeout
    /// has passed. Changes nothing.
    pub(crate) fn is_free(key: i32, maker: u32, patience: Duration) -> bool {
        let end = clock::now() + patience;
        let path = key_path(key);
        loop {
            let held = match file::open(&path, false) {
                Ok(lock) => {
                    lock.metadata()
                        .is_ok_and(|of| of.uid() == maker && is_alone(&of))
                        && would_be_refused(&lock, 0, Hold::Shared).unwrap_or(false)
                }
                // A user that can't open it can't see its lock: the file disappears when the
                // creator has finished.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    std::fs::symlink_metadata(&path)
                        .is_ok_and(|of| of.uid() == maker && is_alone(&of))
                }
                Err(_) => false,
            };
            match held {
                true if clock::now() < end => clock::nap(Duration::from_micros(200)),
                held => return !held,
            }
        }
    }
}

/// A file that only its owner may write, under one name.
fn is_alone(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o022 == 0
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Still locked: no other process takes it over.
        if !self.stays {
            // First its record: a link to the file that another process made proves nothing from
            // now on.
            let _ = file::write_at(self.lock.file(), &[USED], 0);
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::testing::{Ended, in_child};

    /// A key that no concurrent test has, and whose file is removed at the end.
    struct Fixture {
        key: i32,
        us: u32,
    }

    impl Fixture {
        fn new() -> Self {
            let random = i32::from_le_bytes(process::random().unwrap());
            Self {
                key: random & 0x00ff_ffff | 0x7e00_0000,
                us: process::effective_uid(),
            }
        }

        fn path(&self) -> PathBuf {
            key_path(self.key)
        }

        fn plant(&self, bytes: &[u8]) {
            let file = file::create_named(&self.path(), MODE).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        }

        fn proves(&self) -> bool {
            KeyLock::proves(self.key, self.us, i64::MAX)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(self.path());
            let _ = std::fs::remove_dir(self.path());
        }
    }

    const NOT_AT_ALL: Duration = Duration::ZERO;

    #[test]
    fn a_held_lock_keeps_others_out_and_goes_with_its_file() {
        let of = Fixture::new();
        let lock = KeyLock::take(of.key, NOT_AT_ALL).unwrap().unwrap();
        assert!(!lock.is_taken_over());
        assert!(KeyLock::take(of.key, NOT_AT_ALL).unwrap().is_none());
        assert!(KeyLock::of_the_dead(of.key).is_none());
        assert!(!KeyLock::is_dead(of.key));
        assert!(!KeyLock::is_free(of.key, of.us, NOT_AT_ALL));
        assert!(
            KeyLock::is_free(of.key, of.us + 1, NOT_AT_ALL),
            "another user's"
        );
        assert!(of.proves());
        assert!(!KeyLock::proves(of.key, of.us + 1, i64::MAX));
        assert!(
            !KeyLock::proves(of.key, of.us, 0),
            "the segment was there first"
        );
        drop(lock);
        assert!(!KeyLock::exists(of.key));
    }

    #[test]
    fn the_time_of_a_lock_is_that_of_the_last_tick() {
        let of = Fixture::new();
        let lock = KeyLock::take(of.key, NOT_AT_ALL).unwrap().unwrap();
        let time = |file: &File| file.metadata().unwrap().modified().unwrap();
        // The clock's ticks come at times that the exact clock gives to no file.
        let ticks = || UNIX_EPOCH + clock::last_tick();
        let before = ticks();
        assert!(time(lock.lock.file()) <= before);
        write_record(lock.lock.file(), of.key).unwrap();
        assert!((before..=ticks()).contains(&time(lock.lock.file())));
    }

    #[test]
    fn killed_creators_file_proves_its_segment() {
        let of = Fixture::new();
        let ended = in_child(|| {
            std::mem::forget(KeyLock::take(of.key, NOT_AT_ALL).unwrap().unwrap());
            0
        });
        assert_eq!(ended, Ended::Code(0));
        assert!(of.proves() && KeyLock::is_dead(of.key));
        assert!(KeyLock::is_free(of.key, of.us, NOT_AT_ALL));
        let found = KeyLock::of_the_dead(of.key).unwrap();
        assert!(found.is_taken_over());
        found.keep();
        assert!(of.proves(), "left as it was");
        drop(KeyLock::of_the_dead(of.key).unwrap());
        assert!(!KeyLock::exists(of.key));
    }

    #[test]
    fn other_files_prove_nothing_and_stay() {
        let other = record(0x1234);
        for bytes in [&b"nonsense"[..], other.as_bytes()] {
            let of = Fixture::new();
            of.plant(bytes);
            assert!(!of.proves() && !KeyLock::is_dead(of.key));
            assert!(KeyLock::of_the_dead(of.key).is_none());
            let refused = KeyLock::take(of.key, NOT_AT_ALL).unwrap_err();
            let said = refused.source.to_string();
            assert!(said.contains(&of.path().display().to_string()), "{said}");
            assert_eq!(std::fs::read(of.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn other_things_than_files_are_refused_at_once() {
        let of = Fixture::new();
        std::fs::create_dir(of.path()).unwrap();
        assert!(KeyLock::take(of.key, NOT_AT_ALL).is_err() && !of.proves());
        std::fs::remove_dir(of.path()).unwrap();
        let directory = file::open_directory(Path::new(POSIX_DIRECTORY)).unwrap();
        let name = of.path().file_name().unwrap().to_str().unwrap().to_owned();
        crate::os::fifo::make(&directory, &crate::os::fifo::name(&name), 0o666).unwrap();
        assert!(KeyLock::take(of.key, NOT_AT_ALL).is_err() && !of.proves());
        assert!(KeyLock::is_free(of.key, of.us, NOT_AT_ALL));
        std::fs::remove_file(of.path()).unwrap();
        std::os::unix::fs::symlink("/dev/zero", of.path()).unwrap();
        assert!(KeyLock::take(of.key, NOT_AT_ALL).is_err() && !of.proves());
    }

    #[test]
    fn a_second_name_of_a_lock_proves_nothing() {
        let (of, other) = (Fixture::new(), Fixture::new());
        let lock = KeyLock::take(of.key, NOT_AT_ALL).unwrap().unwrap();
        std::fs::hard_link(of.path(), other.path()).unwrap();
        assert!(!of.proves() && !other.proves());
        drop(lock);
        // The name that is left is put back in the place of the lock.
        std::fs::rename(other.path(), of.path()).unwrap();
        assert!(!of.proves(), "its record is used up");
        assert!(KeyLock::is_dead(of.key), "so it may go");
    }

    #[test]
    fn a_file_that_others_may_write_proves_nothing() {
        let of = Fixture::new();
        of.plant(record(of.key).as_bytes());
        assert!(of.proves());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
        std::fs::set_permissions(of.path(), mode).unwrap();
        assert!(!of.proves());
    }
}
