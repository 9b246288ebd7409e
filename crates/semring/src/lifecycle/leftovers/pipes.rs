//! Directories of pipes, and files that locked a System V key, that no ring goes with.

use std::path::Path;

use super::super::create;
use super::super::guards::{place_of, uuid_of};
use super::super::key_lock::{self, KeyLock};
use super::super::remove::unlink_error;
use super::set::{Under, under};
use super::{Leftover, Pruned, What, is_ours};
use crate::error::RemoveError;
use crate::guard::abandoned_pipes::{self, Found, Seized};
use crate::layout::superblock::{Superblock, SuperblockError};
use crate::memory::{self, Access, MemoryError, Object, POSIX_DIRECTORY};
use crate::os::sandbox;
use crate::os::sysv::{Key, SemSet};

impl Leftover {
    pub(super) fn remove_pipes(&self, directory: &Path) -> Result<Pruned, RemoveError> {
        let Some(held) = Seized::seize(directory) else {
            return Ok(if directory.exists() {
                Pruned::InUse
            } else {
                Pruned::Removed
            });
        };
        match held.look() {
            None => return Ok(Pruned::Removed),
            Some(found) if !are_orphans(directory, &found) => return Ok(Pruned::InUse),
            Some(_) => {}
        }
        match held.remove() {
            Ok(true) => Ok(Pruned::Removed),
            Ok(false) => Ok(Pruned::InUse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Pruned::Removed),
            Err(source) => Err(RemoveError::Os {
                name: self.name.clone(),
                call: "rmdir",
                source,
            }),
        }
    }

    pub(super) fn remove_key_file(&self, key: Key) -> Result<Pruned, RemoveError> {
        // Held until the end: nobody makes a ring under this key.
        let Some(held) = KeyLock::of_the_dead(key.raw()) else {
            return Ok(Pruned::InUse);
        };
        if let Under::Unfinished(object, _) = under(key)
            && (!sandbox::may_ask() || SemSet::open(key).is_err())
        {
            if create::stays_attached(&object) {
                held.keep();
                return Ok(Pruned::InUse);
            }
            object
                .unlink()
                .map_err(|error| unlink_error(&self.name, error))?;
        }
        Ok(Pruned::Removed)
    }
}

/// What rings with pipes left in /dev/shm, themselves aside.
pub(super) fn pipes_left_behind() -> Vec<Leftover> {
    let entries = std::fs::read_dir(POSIX_DIRECTORY).into_iter().flatten();
    let leftover = |name, what| Leftover {
        name,
        unread_messages: 0,
        unread: false,
        what,
    };
    let mut found: Vec<Leftover> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let uid = std::os::unix::fs::MetadataExt::uid(&entry.metadata().ok()?);
            if !is_ours(uid) {
                return None;
            }
            let name = entry.file_name().into_string().ok()?;
            if let Some(key) = name.strip_prefix(key_lock::KEY_PREFIX) {
                let key = Key::from_raw(u32::from_str_radix(key, 16).ok()?);
                // Somebody may be at work; whoever removes it will see.
                return KeyLock::is_dead(key.raw())
                    .then(|| leftover(format!("sysv:0x{:08x}", key.raw()), What::KeyFile { key }));
            }
            uuid_of(&path)?;
            let orphans = are_orphans(&path, &abandoned_pipes::look(&path)?);
            orphans.then(|| {
                leftover(
                    format!("pipes {}", path.display()),
                    What::Pipes { directory: path },
                )
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// True if no ring goes with what was found in a directory of pipes.
fn are_orphans(directory: &Path, found: &Found) -> bool {
    match found {
        Found::Used => false,
        Found::Unfinished => true,
        // Nobody has the ring open; if its memory is on its way to somebody, the pipes are made anew there.
        Found::Idle { home, .. } if home.starts_with("users\n") => true,
        Found::Idle { home, uid } => {
            let (Some(place), Some(uuid)) = (place_of(home), uuid_of(directory)) else {
                return false;
            };
            // Whoever made the directory chose what it says: nothing is opened that is not theirs.
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
