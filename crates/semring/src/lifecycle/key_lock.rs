//! A lock on a System V key for creators that make no semaphore set under it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::guard::site::{Trouble, writers_only};
use crate::memory::POSIX_DIRECTORY;
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte, would_be_refused};
use crate::os::{clock, file};

/// Keeps others from making a ring with pipes under a System V key: a file that is there for as long as one is
/// made. Whoever is killed leaves it, unlocked.
#[derive(Debug)]
pub(crate) struct KeyLock {
    path: PathBuf,
    _lock: Private,
    stays: bool,
}

/// What the names of these files begin with.
pub(crate) const KEY_PREFIX: &str = ".semring-key-";

fn key_path(key: i32) -> PathBuf {
    Path::new(POSIX_DIRECTORY).join(format!("{KEY_PREFIX}{key:08x}"))
}

impl KeyLock {
    /// Waits for others; `None` when the time is over. The file can be opened by those who may write a ring of
    /// this mode, and by nobody else: a shared lock would keep creators away.
    pub(crate) fn take(key: i32, mode: u32, patience: Duration) -> Result<Option<Self>, Trouble> {
        let path = key_path(key);
        let end = clock::now() + patience;
        loop {
            match Self::try_take(&path, Some(writers_only(mode))) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) if clock::now() >= end => return Ok(None),
                Ok(None) => clock::nap(Duration::from_micros(200)),
                Err(source) => {
                    let call = "open (/dev/shm)";
                    return Err(Trouble { call, source });
                }
            }
        }
    }

    /// Takes the lock that a creator left who was killed; `None` if it is there no more, or in use.
    pub(crate) fn of_the_dead(key: i32) -> Option<Self> {
        Self::try_take(&key_path(key), None).ok().flatten()
    }

    fn try_take(path: &Path, make: Option<u32>) -> io::Result<Option<Self>> {
        let lock = Private::open(|| match file::open(path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match make {
                Some(mode) => match file::create_named(path, mode) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        file::open(path, true)
                    }
                    other => other,
                },
                None => Err(error),
            },
            other => other,
        });
        let lock = match lock {
            // Its holder took it away in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if !hold_byte(lock.file(), 0, Hold::Alone)? {
            return Ok(None);
        }
        // Whoever had it before took its name away.
        let ours = file::identity(lock.file())?;
        if file::path_identity(path).is_ok_and(|there| there == ours) {
            let path = path.to_owned();
            Ok(Some(Self {
                path,
                _lock: lock,
                stays: false,
            }))
        } else {
            Ok(None)
        }
    }

    /// True if a creator left the file who was killed. Changes nothing.
    pub(crate) fn is_dead(key: i32) -> bool {
        matches!(Self::is_held(key), Ok(false))
    }

    /// Whether a creator holds the lock: it takes the permission to write, so the shared lock of a reader is
    /// none.
    fn is_held(key: i32) -> io::Result<bool> {
        let lock = file::open(&key_path(key), false)?;
        would_be_refused(&lock, 0, Hold::Shared)
    }

    /// Lets go of the lock, and leaves the file.
    pub(crate) fn keep(mut self) {
        self.stays = true;
    }

    /// Waits until nobody makes a ring with pipes under this key; false when the time is over. Changes
    /// nothing.
    pub(crate) fn is_free(key: i32, patience: Duration) -> bool {
        let end = clock::now() + patience;
        loop {
            match Self::is_held(key) {
                Ok(true) if clock::now() < end => clock::nap(Duration::from_micros(200)),
                Ok(true) => return false,
                _ => return true,
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Still locked: nobody else takes it for theirs.
        if !self.stays {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
