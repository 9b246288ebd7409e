//! Directories of pipes that no process uses any more: how they are recognised, and how they are held
//! during the decision. Their contents are described in [`directory`](super::directory).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::directory::{
    CREATION, FORCED, LOCATION_AT, LOCK, REMOVAL, REMOVED_AT, USERS, is_complete, is_marked,
    mark_removed, open_lock, unless_gone,
};
use crate::os::fifo;
use crate::os::file;
use crate::os::fork::Private;
use crate::os::lock::{Hold, any_would_be_refused, hold_byte};

/// The state of a directory with such a name.
#[derive(Debug)]
pub(crate) enum Found {
    /// A process has a role, or makes, removes or holds it.
    Used,
    /// It was never finished, or a removal was not.
    Unfinished,
    /// Complete and idle; this text is where its ring would be.
    Idle {
        location: String,
        /// The owner of the directory.
        uid: u32,
    },
    /// It holds an object that no ring puts there: its description.
    Foreign(String),
}

/// Inspects a directory; `None` if its name is not that of a ring's directory.
pub(crate) fn look(path: &Path) -> Option<Found> {
    let directory = file::open_directory(path).ok()?;
    let lock = match open_lock(&directory, false) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => return Some(Found::Foreign(format!("{LOCK}, which is not a ring's"))),
    };
    inspect(path, &directory, lock.as_ref())
}

/// Inspects a directory by its lock, and reads where its ring would be.
fn inspect(path: &Path, directory: &File, lock: Option<&File>) -> Option<Found> {
    if let Some(lock) = lock
        && any_would_be_refused(lock, 0, BYTES, Hold::Alone).ok()?
    {
        return Some(Found::Used);
    }
    if let Some(foreign) = foreign_name(path).ok()? {
        return Some(Found::Foreign(foreign));
    }
    let Some(lock) = lock else {
        return Some(Found::Unfinished);
    };
    let complete = is_complete(lock).ok()? && !is_marked(lock, REMOVED_AT);
    let mut location = vec![0; 4096 + 512];
    let got = lock.read_at(&mut location, LOCATION_AT).ok()?;
    location.truncate(got);
    let location = String::from_utf8(location).ok()?;
    let uid = directory.metadata().ok()?.uid();
    Some(if complete && !location.is_empty() {
        Found::Idle { location, uid }
    } else {
        Found::Unfinished
    })
}

/// The bytes of the lock file that any process locks.
const BYTES: u64 = 512;

/// An object in a directory that no ring puts there.
fn foreign_name(path: &Path) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        let ours = is_pipe_name(&name) && kind.is_fifo() || name == LOCK && kind.is_file();
        if !ours {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

fn is_pipe_name(name: &str) -> bool {
    matches!(name, "messages" | "consumer" | "remover")
        || name.starts_with("producer.")
        || name.starts_with("room.")
}

/// A directory without users, kept so until this is dropped.
pub(crate) struct Seized {
    path: PathBuf,
    directory: File,
    lock: Option<Private>,
}

impl Seized {
    /// Excludes all other processes: creators, holders, processes that attach, and removers. `None` if there
    /// is one, or was a moment ago.
    pub(crate) fn seize(path: &Path) -> Option<Self> {
        let directory = file::open_directory(path).ok()?;
        let lock = match Private::open(|| open_lock(&directory, true)) {
            Ok(lock) => {
                let alone = |byte| matches!(hold_byte(lock.file(), byte, Hold::Alone), Ok(true));
                if ![CREATION, USERS, REMOVAL, FORCED].into_iter().all(alone) {
                    return None;
                }
                // Another process removed it in the meantime.
                if file::links(lock.file()).ok()? == 0 {
                    return None;
                }
                Some(lock)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        Some(Self {
            path: path.to_owned(),
            directory,
            lock,
        })
    }

    /// Its state, which no other process changes any more.
    pub(crate) fn look(&self) -> Option<Found> {
        let lock = self.lock.as_ref().map(Private::file);
        inspect(&self.path, &self.directory, lock)
    }

    /// Removes it; false if a process has begun to use it.
    pub(crate) fn remove(self) -> io::Result<bool> {
        // Names first, then the lock is checked again: creators link it before they make any pipe, so
        // pipes without it are the rest of a removal, and an empty directory is removed only as an empty
        // one.
        let names = pipes_in(&self.path)?;
        if self.lock.is_none() && !names.is_empty() {
            match file::open_in(&self.directory, &fifo::name(LOCK), false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => return Ok(false),
            }
        }
        if let Some(lock) = &self.lock {
            mark_removed(lock.file())?;
        }
        for name in names {
            file::unlink_in(&self.directory, &name)?;
        }
        if self.lock.is_some() {
            file::unlink_in(&self.directory, &fifo::name(LOCK))?;
        }
        match unless_gone(std::fs::remove_dir(&self.path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// The names in a directory that a ring's pipes can have.
fn pipes_in(path: &Path) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if is_pipe_name(&name) {
            names.push(fifo::name(&name));
        }
    }
    Ok(names)
}

/// Removes the directory of a ring's former pipes, while no other process does so. A directory of
/// another user than these stays, and is an error.
pub(crate) fn sweep(path: &Path, owners: [u32; 2]) -> io::Result<()> {
    let directory = file::open_directory(path)?;
    if !owners.contains(&directory.metadata()?.uid()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    file::unlink_in(&directory, &fifo::name(LOCK))?;
    for name in pipes_in(path)? {
        file::unlink_in(&directory, &name)?;
    }
    unless_gone(std::fs::remove_dir(path))
}
