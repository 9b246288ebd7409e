//! Removing by force an object in the place of a ring that can't be opened as one: its superblock is damaged, it
//! was truncated, or never finished.
//!
//! Only under a ring's name, only a regular file or a segment that the caller owns, of at least a superblock's length,
//! which begins with the magic or has the size of a ring. (A `file:` can be any path: there only the magic counts.) A
//! ring of another format version does not count as damaged: its checksum is right.
//!
//! The guard is removed too if it can be identified: a set marked as belonging to the segment's key; a set with the
//! key, id, check value, owner and place that the damaged bytes still name, unless another ring names it, too (the
//! bytes may be a copy of that ring); a directory of pipes with the inode of the file or the id of the segment in
//! its name.
//!
//! Under a System V key the set and the segment of a creator at work look like those of a creator that was killed. The
//! creation lock shows which it is: for a second the removal takes only what it can lock. After that it goes on
//! regardless (see [`force`](super::force)), and a creator that is still at work begins again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::guards::{mark_of, uuid_of};
use super::identity::other_ring;
use super::open::plausible_length;
use super::orphans::{location, no_ring_names};
use super::remove::{sysv_error, unlink_error};
use super::under_key::{ClearError, Cleared, Under, under};
use crate::error::{OpenError, RemoveError};
use crate::guard::RemovalLock;
use crate::guard::pipe::abandoned::sweep;
use crate::guard::semaphore::abandoned::{SeizedSet, SetFacts};
use crate::guard::semaphore::set::NameLocation;
use crate::guard::semaphore::{KEY_PREFIX, SemaphoreGuard};
use crate::guard::timeouts::LOCK_CHECK_INTERVAL;
use crate::layout::SUPERBLOCK_BYTES;
use crate::layout::superblock::{MAGIC, SetIdentity, Superblock, SuperblockError};
use crate::memory::{self, Access, Address, MemoryError, Object, Place};
use crate::os::sysv::{Key, SemSet};
use crate::os::{clock, process, sandbox};

/// Removes the object, and returns what it was taken for; `None` if it is a ring by now, or gone. `why`, the reason why it could
/// not be opened, is the error if it must not be removed. Creators have time until `end`.
pub(super) fn remove(
    address: &Address,
    why: OpenError,
    end: Instant,
) -> Result<Option<String>, RemoveError> {
    let Ok(place) = address.place() else {
        return Err(why.into());
    };
    let mut is_locked = false;
    if let Some(key) = memory::sysv_key(&place) {
        match remove_unfinished(address, key, end)? {
            Unfinished::Removed(what) => return Ok(Some(what)),
            Unfinished::IsRing if matches!(why, OpenError::Busy { .. }) => return Ok(None),
            Unfinished::IsLocked => is_locked = true,
            Unfinished::Other | Unfinished::IsRing => {}
        }
    }
    match remove_damaged(address, &place, is_locked, why) {
        // What could not be opened because it was being made is gone or finished by now. (A ring that another user is
        // making stays.)
        Err(RemoveError::Open(OpenError::Busy { .. })) if !is_of_another_user(&place) => Ok(None),
        other => other.map(Some),
    }
}

/// True if another user is making a ring under a System V key, or was killed before it was ready, and for all other
/// memory.
fn is_of_another_user(place: &Place) -> bool {
    let us = Some(process::effective_uid());
    memory::sysv_key(place)
        .is_none_or(|key| matches!(under(key), Under::Unfinished(found) if found.owner() != us))
}

/// True if a creator of this user is making a ring under the System V key of this address, or was killed before it was
/// ready.
pub(super) fn is_unfinished(address: &Address) -> bool {
    let place = address.place().ok();
    let Some(key) = place.as_ref().and_then(memory::sysv_key) else {
        return false;
    };
    matches!(under(key), Under::Unfinished(found) if found.owner() == Some(process::effective_uid()))
}

/// The result of removing what a killed creator under a System V key left.
enum Unfinished {
    Removed(String),
    /// Its creator has finished it.
    IsRing,
    /// Its locks could not be had in time.
    IsLocked,
    /// Something else is there, or nothing.
    Other,
}

/// With the locks of its creator held: the set that lies alone under a key, or the segment with its proofs.
fn remove_unfinished(address: &Address, key: Key, end: Instant) -> Result<Unfinished, RemoveError> {
    let name = || address.to_string();
    let us = process::effective_uid();
    loop {
        match under(key) {
            Under::Unfinished(unfinished) if unfinished.owner() == Some(us) => {
                let pipes = pipes_of(unfinished.object());
                match unfinished.remove() {
                    Ok(Cleared::Removed) => {
                        let with_set = unfinished.set().is_some();
                        let what = removed("a ring that was never finished", with_set, &pipes);
                        return Ok(Unfinished::Removed(what));
                    }
                    Ok(Cleared::Busy | Cleared::Mapped) => {}
                    Err(ClearError::Set(error)) => return Err(sysv_error(&name(), error)),
                    Err(ClearError::Segment(error)) => return Err(unlink_error(&name(), error)),
                }
            }
            Under::Nothing => {
                let Some((_, id)) = set_under(key) else {
                    return Ok(Unfinished::Other);
                };
                let held = SeizedSet::seize(id).map_err(|error| sysv_error(&name(), error))?;
                // Seized, so no creator makes a segment by it.
                if let Some(held) = held.filter(|_| matches!(under(key), Under::Nothing)) {
                    held.remove().map_err(|error| sysv_error(&name(), error))?;
                    return Ok(Unfinished::Removed(SET_ALONE.to_owned()));
                }
            }
            Under::Ring => return Ok(Unfinished::IsRing),
            _ => return Ok(Unfinished::Other),
        }
        if clock::now() >= end {
            return Ok(Unfinished::IsLocked);
        }
        clock::nap(LOCK_CHECK_INTERVAL);
    }
}

/// A creator under a System V key that was killed early leaves nothing but a set.
const SET_ALONE: &str = "the semaphores of a ring that was never finished";

fn remove_damaged(
    address: &Address,
    place: &Place,
    is_locked: bool,
    why: OpenError,
) -> Result<String, RemoveError> {
    if !matches!(place, Place::Posix(_) | Place::File(_) | Place::Sysv(_)) {
        return Err(why.into());
    }
    let object = match Object::open(place, Access::ReadOnly) {
        Ok(object) => object,
        Err(MemoryError::NotFound) if is_locked => return remove_set_alone(place, why),
        Err(_) => return Err(why.into()),
    };
    // Without the locks, only what no creator makes now.
    if let Some(key) = memory::sysv_key(place)
        && !is_locked
        && matches!(under(key), Under::Unfinished(_) | Under::Nothing)
    {
        return Err(why.into());
    }
    let Some(what) = taken_for(address, place, &object) else {
        return Err(why.into());
    };
    let set = set_of(place, &object);
    let pipes = pipes_of(&object);
    object
        .unlink()
        .map_err(|error| unlink_error(&address.to_string(), error))?;
    // Checked now: the name of this ring must not count.
    let with_set = set.is_some_and(|(set, named)| {
        named.is_none_or(|(named, lanes)| no_ring_names(&named, lanes)) && set.destroy().is_ok()
    });
    Ok(removed(&what, with_set, &pipes))
}

/// The text about the removed object; removes its pipes.
fn removed(what: &str, with_set: bool, pipes: &[PathBuf]) -> String {
    let us = process::effective_uid();
    let with_pipes = !pipes.is_empty() && pipes.iter().all(|path| sweep(path, [us, us]).is_ok());
    if with_set {
        format!("{what}, with its semaphores")
    } else if with_pipes {
        format!("{what}, with its pipes")
    } else {
        format!("{what}; its semaphores or pipes could not be identified")
    }
}

/// A description of the object, if it may be removed.
fn taken_for(address: &Address, place: &Place, object: &Object) -> Option<String> {
    let (head, len) = (object.head().ok()?, object.len().ok()?);
    let is_ours = object.ownership().ok()?.uid == process::effective_uid();
    if !is_ours || len < SUPERBLOCK_BYTES as u64 {
        return None;
    }
    let has_magic = head.starts_with(&MAGIC);
    let has_size = plausible_length(len) && !matches!(place, Place::File(_));
    if !has_magic && !has_size {
        return None;
    }
    let damaged = |what: &str| Some(format!("a ring with a damaged superblock ({what})"));
    match Superblock::decode(&head) {
        // Under a key there can be the ring of another name, which is not damaged.
        Ok(found) if other_ring(address, Some(place), &found).is_some() => {
            let is_file = memory::sysv_key(place).is_none();
            is_file.then(|| format!("a copy of the ring {:?}, or that ring renamed", found.name))
        }
        Ok(found) if len < found.geometry.segment_bytes() as u64 => {
            Some("a ring that was truncated".to_owned())
        }
        Ok(_) => None,
        Err(SuperblockError::OtherVersion { .. } | SuperblockError::UnknownFeatures { .. })
            if Superblock::has_valid_checksum(&head) =>
        {
            None
        }
        Err(SuperblockError::OtherVersion { .. }) => damaged("version"),
        Err(SuperblockError::UnknownFeatures { .. }) => damaged("features"),
        Err(SuperblockError::NotReady) => Some("a ring that was never finished".to_owned()),
        Err(SuperblockError::NotARing) => damaged("magic; it has the size of a ring"),
        Err(SuperblockError::Removed) => damaged("state word"),
        Err(SuperblockError::Damaged { what }) => damaged(what),
    }
}

/// For a POSIX ring also which set that is and for how many lanes: the ring may be a copy, and the set may be the
/// original's.
fn set_of(
    place: &Place,
    object: &Object,
) -> Option<(SemaphoreGuard, Option<(SetIdentity, usize)>)> {
    if let Some(key) = memory::sysv_key(place) {
        return Some((set_under(key)?.0, None));
    }
    if !sandbox::may_ask() {
        return None;
    }
    let inode = object.inode().ok()?;
    let named = SetIdentity::in_bytes_of(&*object.head().ok()?, inode)?;
    let key = Key::new(named.key);
    let set = SemSet::open(key).ok().filter(|set| set.id() == named.id)?;
    let facts = SetFacts::of(set.id())?;
    let location = location(place);
    let is_at_location = location != NameLocation::Unknown && facts.location() == Some(location);
    let fits = key.bits() & 0xffff_0000 == KEY_PREFIX
        && facts.check() == named.check
        && facts.is_identified()
        && (is_at_location || matches!(place, Place::File(_)));
    let lanes = facts.lanes().filter(|_| fits)?;
    let named = matches!(place, Place::Posix(_)).then_some((named, lanes));
    Some((owned(set, lanes)?, named))
}

/// The set under a System V key, if it is marked as belonging to a ring there, and this user owns it; with its id.
fn set_under(key: Key) -> Option<(SemaphoreGuard, i32)> {
    if !sandbox::may_ask() {
        return None;
    }
    let set = SemSet::open(key).ok()?;
    let facts = SetFacts::of(set.id())?;
    let guard =
        owned(set, facts.lanes()?).filter(|_| facts.location() == Some(NameLocation::Key))?;
    Some((guard, set.id()))
}

fn owned(set: SemSet, lanes: usize) -> Option<SemaphoreGuard> {
    let us = process::effective_uid();
    let guard = SemaphoreGuard::new(set, lanes);
    guard
        .belongs_to(us, us)
        .is_ok_and(|ours| ours)
        .then_some(guard)
}

/// The directories of pipes that bear the object's mark and belong to this user. (The identity in their names may
/// be what was damaged in the superblock.)
fn pipes_of(object: &Object) -> Vec<PathBuf> {
    let (Ok(folder), Ok(mark)) = (object.folder(), object.mark()) else {
        return Vec::new();
    };
    let us = process::effective_uid();
    let is_ours = |path: &Path| {
        std::fs::symlink_metadata(path)
            .is_ok_and(|found| found.is_dir() && std::os::unix::fs::MetadataExt::uid(&found) == us)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| uuid_of(path).is_some() && mark_of(path) == Some(&mark) && is_ours(path))
        .collect()
}

/// Removes the set regardless of the process that holds its lock.
fn remove_set_alone(place: &Place, why: OpenError) -> Result<String, RemoveError> {
    match memory::sysv_key(place).and_then(set_under) {
        Some((set, _)) if set.destroy().is_ok() => Ok(SET_ALONE.to_owned()),
        _ => Err(why.into()),
    }
}
