//! Directories of pipes, and files that locked a System V key, that belong to no ring.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::guards::{inode_of, place_of, uuid_of};
use super::super::key_lock::{self, KeyLock};
use super::super::under_key::{Under, under};
use super::{Orphan, PruneOutcome, What, is_ours, name_of};
use crate::error::RemoveError;
use crate::guard::pipe::abandoned::{self, Found, Seized};
use crate::layout::superblock::{Superblock, SuperblockError};
use crate::memory::{self, Access, MemoryError, Object, POSIX_DIRECTORY};
use crate::os::sysv::Key;

impl Orphan {
    pub(super) fn remove_pipes(&self, directory: &Path) -> Result<PruneOutcome, RemoveError> {
        let Some(held) = Seized::seize(directory) else {
            return Ok(if directory.exists() {
                PruneOutcome::InUse
            } else {
                PruneOutcome::Removed
            });
        };
        match held.look() {
            None => return Ok(PruneOutcome::Removed),
            Some(Found::Foreign(_)) => return Ok(PruneOutcome::Foreign),
            Some(found) if !are_orphans(directory, &found) => return Ok(PruneOutcome::InUse),
            Some(_) => {}
        }
        match held.remove() {
            Ok(true) => Ok(PruneOutcome::Removed),
            Ok(false) => Ok(PruneOutcome::InUse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(PruneOutcome::Removed),
            Err(source) => Err(RemoveError::Os {
                name: self.name.clone(),
                call: "rmdir",
                source,
            }),
        }
    }

    pub(super) fn remove_key_file(&self, key: Key) -> Result<PruneOutcome, RemoveError> {
        // It may be the proof for a segment, which must be removed first.
        if matches!(under(key), Under::Unfinished(_)) {
            return self.remove_unfinished(key);
        }
        Ok(match KeyLock::of_the_dead(key.raw()) {
            // Since the look above a creator began and was killed: the file proves its segment.
            Some(held) if matches!(under(key), Under::Unfinished(_)) => {
                held.keep();
                PruneOutcome::InUse
            }
            // Dropping it removes the file.
            Some(_held) => PruneOutcome::Removed,
            None => PruneOutcome::InUse,
        })
    }
}

/// The objects that rings with pipes left in /dev/shm, except the rings themselves, and except key files
/// that belong to a segment.
pub(super) fn pipes_left_behind(known: &BTreeSet<i32>) -> Vec<Orphan> {
    let entries = std::fs::read_dir(POSIX_DIRECTORY).into_iter().flatten();
    let mut found: Vec<Orphan> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            if !is_ours(entry.metadata().ok()?.uid()) {
                return None;
            }
            let name = entry.file_name().into_string().ok()?;
            if let Some(key) = name.strip_prefix(key_lock::KEY_PREFIX) {
                let key = Key::from_raw(u32::from_str_radix(key, 16).ok()?);
                // A process may be at work; the removal will check that.
                let dead = !known.contains(&key.raw()) && KeyLock::is_dead(key.raw());
                return dead.then(|| Orphan::of_name(name_of(key), What::KeyFile { key }));
            }
            uuid_of(&path)?;
            let what = match abandoned::look(&path)? {
                Found::Foreign(what) => What::Foreign {
                    why: format!("it holds {what}, and no ring puts that there"),
                },
                found if are_orphans(&path, &found) => What::Pipes {
                    directory: path.clone(),
                },
                _ => return None,
            };
            let name = format!("pipes {}", path.display());
            Some(Orphan::of_name(name, what))
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Removes the pipes beside a `file:` ring whose creator or remover was killed: no other function searches that
/// folder. This is done in passing, so an object that can't be removed stays, without an error.
pub(in super::super) fn sweep_beside(ring: &Path) {
    let Some(folder) = ring.parent() else {
        return;
    };
    // An empty parent is the working directory.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let directories: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| inode_of(path).is_some() && uuid_of(path).is_some())
        .collect();
    if directories.is_empty() {
        return;
    }
    let there = inodes(folder);
    for directory in directories {
        let ring = inode_of(&directory).unwrap_or_default();
        let owner = std::fs::symlink_metadata(&directory).map(|metadata| metadata.uid());
        if there.contains(&ring) || !owner.is_ok_and(is_ours) {
            continue;
        }
        let Some(held) = Seized::seize(&directory) else {
            continue;
        };
        // With the lock held no process makes its ring any more: a creator that has finished has
        // given the file its name.
        let dead = matches!(held.look(), Some(Found::Unfinished | Found::Idle { .. }));
        if dead && !inodes(folder).contains(&ring) {
            let _ = held.remove();
        }
    }
}

/// The inodes in a folder, from `stat`: an overlay may list others.
fn inodes(folder: &Path) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let metadata = entries.filter_map(|entry| entry.metadata().ok());
    metadata.map(|metadata| metadata.ino()).collect()
}

/// True if a directory of pipes belongs to no ring.
fn are_orphans(directory: &Path, found: &Found) -> bool {
    match found {
        Found::Used | Found::Foreign(_) => false,
        Found::Unfinished => true,
        // No process has the ring open; if its memory is being passed to a process, new pipes will be made
        // there.
        Found::Idle { location, .. } if location.starts_with("users\n") => true,
        Found::Idle { location, uid } => {
            let (Some(place), Some(uuid)) = (place_of(location), uuid_of(directory)) else {
                return false;
            };
            // The maker of the directory chose its text: only objects of the same user are opened.
            match memory::owner_of(&place) {
                Ok(owner) if owner != *uid => return memory::sysv_key(&place).is_some(),
                Ok(_) => {}
                Err(error) => return matches!(error, MemoryError::NotFound),
            }
            match Object::open(&place, Access::ReadOnly).and_then(|object| object.head()) {
                Ok(head) => match Superblock::decode(&head) {
                    Ok(superblock) => superblock.uuid != uuid,
                    Err(SuperblockError::NotReady | SuperblockError::NotARing) => true,
                    Err(_) => false,
                },
                Err(error) => matches!(error, MemoryError::NotFound),
            }
        }
    }
}
