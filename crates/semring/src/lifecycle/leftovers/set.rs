//! Semaphore sets and unfinished System V segments that no ring goes with.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::create;
use super::super::open::plausible_length;
use super::super::remove::unlink_error;
use super::{Leftover, Pruned, What, is_ours};
use crate::error::RemoveError;
use crate::guard::abandoned::{SetFacts, is_untouched};
use crate::guard::semaphore::KEY_PREFIX;
use crate::guard::set::Home;
use crate::layout::superblock::{MAGIC, Superblock, SuperblockError};
use crate::layout::{Capacity, Geometry};
use crate::memory::{self, Access, MemoryError, Object, POSIX_DIRECTORY, Place};
use crate::os::sysv::{Key, SemSet, sem};
use crate::os::{file, sandbox};

/// Where the name of a ring at this place would be found.
pub(in super::super) fn home(place: &Place) -> Home {
    if memory::sysv_key(place).is_some() {
        return Home::Key;
    }
    match place {
        Place::Posix(path) => path.parent().map_or(Home::Unknown, directory),
        Place::Memfd(_) | Place::Anonymous => Home::Users { count: 0 },
        _ => Home::Unknown,
    }
}

/// The same for a ring whose set is made anew.
pub(in super::super) fn home_of(object: &Object) -> Home {
    if object.goes_with_its_users() {
        Home::Users { count: 0 }
    } else {
        Home::Unknown
    }
}

fn directory(path: &Path) -> Home {
    file::tmpfs_directory(path).map_or(Home::Unknown, |(device, inode)| {
        Home::directory(device, inode)
    })
}

impl Leftover {
    pub(super) fn remove_unfinished(
        &self,
        key: Key,
        set: Option<i32>,
    ) -> Result<Pruned, RemoveError> {
        let held = match set {
            None => None,
            Some(id) => match self.seize(id)? {
                Some(held) => Some(held),
                None => return Ok(Pruned::InUse),
            },
        };
        // With the lock held nobody makes or finishes a ring under this key.
        let Some((object, now)) = unfinished(key) else {
            return Ok(Pruned::Removed);
        };
        if now != set || create::stays_attached(&object) {
            return Ok(Pruned::InUse);
        }
        object
            .unlink()
            .map_err(|error| unlink_error(&self.name, error))?;
        if let Some(held) = held {
            self.remove_seized(&held)?;
        }
        Ok(Pruned::Removed)
    }

    pub(super) fn remove_set(&self, id: i32) -> Result<Pruned, RemoveError> {
        // To seize it is to touch it: what somebody has begun to use since we found it stays as it is.
        let begun = |facts: SetFacts| facts.is_blank() && !is_untouched(id);
        let key = SemSet::from_id(id).stat().map(|stat| stat.key.raw() as u32);
        let random = key.is_ok_and(|raw| raw & 0xffff_0000 == KEY_PREFIX);
        if !random && SetFacts::of(id).is_some_and(begun) {
            return Ok(Pruned::InUse);
        }
        let Some(held) = self.seize(id)? else {
            return Ok(Pruned::InUse);
        };
        // With the lock held no creator gives it a name any more: who had it is through, or dead.
        let facts = held.facts().map_err(|error| self.sysv(error))?;
        let Ok(stat) = SemSet::from_id(id).stat() else {
            return Ok(Pruned::Removed);
        };
        if !is_orphan(id, stat.key, &facts, &References::read()) {
            return Ok(Pruned::InUse);
        }
        self.remove_seized(&held)?;
        Ok(Pruned::Removed)
    }
}

/// Which semaphore sets the rings that can be found name, and how sure it is that these are all.
struct References {
    sets: BTreeSet<(i32, i32)>,
    /// The directory of POSIX rings.
    directory: Home,
    /// Bytes of files in it that may be rings, but can't be read.
    unreadable: Vec<u64>,
    /// Everything that is there was seen and understood.
    complete: bool,
}

impl References {
    fn read() -> Self {
        let mut references = Self {
            sets: BTreeSet::new(),
            directory: directory(Path::new(POSIX_DIRECTORY)),
            unreadable: Vec::new(),
            complete: std::fs::read_dir(POSIX_DIRECTORY).is_ok(),
        };
        for place in memory::places() {
            let head = Object::open(&place, Access::ReadOnly).and_then(|object| object.head());
            match head.map(|head| Superblock::decode(&head)) {
                Ok(Ok(superblock)) => {
                    let set = superblock.set;
                    references.sets.insert((set.key, set.id));
                }
                Ok(Err(
                    SuperblockError::OtherVersion { .. } | SuperblockError::UnknownFeatures { .. },
                )) => references.complete = false,
                Ok(Err(_)) | Err(MemoryError::NotFound | MemoryError::WrongType(_)) => {}
                // Whose set goes with a segment is asked at its key.
                Err(_) if memory::sysv_key(&place).is_some() => {}
                Err(_) => references.note_hidden(&place),
            }
        }
        references
    }

    /// A file that can't be read: it may be a ring of its size.
    fn note_hidden(&mut self, place: &Place) {
        let Place::Posix(path) = place else {
            self.complete = false;
            return;
        };
        match std::fs::metadata(path) {
            Ok(metadata) => self.unreadable.push(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => self.complete = false,
        }
    }

    /// True if a set of a ring in /dev/shm is surely not named by any of them.
    fn exclude(&self, id: i32, key: Key, lanes: usize) -> bool {
        self.complete
            && !self.sets.contains(&(key.raw(), id))
            && !self.unreadable.iter().any(|&bytes| has_lanes(bytes, lanes))
    }
}

/// True if a ring of so many lanes can have so many bytes.
fn has_lanes(bytes: u64, lanes: usize) -> bool {
    (12..=32).any(|bits| {
        Capacity::exact(1 << bits)
            .and_then(|capacity| Geometry::new(lanes, capacity))
            .is_some_and(|geometry| geometry.segment_bytes() as u64 == bytes)
    })
}

/// The first byte of every key that we derive from a name or choose at random.
const KEY_BYTE: u32 = KEY_PREFIX >> 24;

/// True if a set is one of ours, idle, and its ring is gone or never came.
fn is_orphan(id: i32, key: Key, facts: &SetFacts, references: &References) -> bool {
    let Some(lanes) = facts.lanes().filter(|_| facts.is_idle()) else {
        return false;
    };
    let raw = key.raw() as u32;
    let random = raw & 0xffff_0000 == KEY_PREFIX;
    match facts.home() {
        Some(home @ Home::Directory { .. }) if facts.is_identified() && random => {
            home == references.directory && references.exclude(id, key, lanes)
        }
        Some(Home::Key) => matches!(under(key), Under::Nothing | Under::Foreign),
        // Nobody has the ring open; if its memory is on its way to somebody, the set is made anew there.
        Some(Home::Users { count: 0 }) if facts.is_identified() && random => true,
        // No ring goes with a set that was never marked. A random key tells that it is ours; one of a name
        // may be that of another program by chance, and then that it was never used has to tell.
        Some(Home::Unknown) if facts.is_blank() && raw >> 24 == KEY_BYTE => {
            (random || is_untouched(id)) && matches!(under(key), Under::Nothing)
        }
        _ => false,
    }
}

/// What lies under a System V key.
pub(super) enum Under {
    Nothing,
    Foreign,
    Ring,
    /// Bytes of a creator that has not finished; true if they begin as ours do.
    Unfinished(Object, bool),
    /// That can't be seen.
    Hidden,
}

pub(super) fn under(key: Key) -> Under {
    let looked = Object::open(&Place::Sysv(key), Access::ReadOnly).and_then(|object| {
        let (head, len) = (object.head()?, object.len()?);
        Ok((object, head, len))
    });
    match looked {
        Ok((object, head, len)) => match Superblock::decode(&head) {
            Err(SuperblockError::NotReady) if plausible_length(len) => {
                Under::Unfinished(object, head.starts_with(&MAGIC))
            }
            Err(SuperblockError::NotReady | SuperblockError::NotARing) => Under::Foreign,
            _ => Under::Ring,
        },
        Err(MemoryError::NotFound) => Under::Nothing,
        Err(_) => Under::Hidden,
    }
}

/// The segment under this key, and the set that goes with it, if a creator of ours died before it was
/// ready.
pub(super) fn unfinished(key: Key) -> Option<(Object, Option<i32>)> {
    let Under::Unfinished(object, magic) = under(key) else {
        return None;
    };
    if !sandbox::may_ask() {
        return None;
    }
    let set = match SemSet::open(key) {
        Ok(set) => set.id(),
        // Creators make the set first: this one was taken away. Zeros alone are no proof.
        Err(error) if error.not_found() => return magic.then_some((object, None)),
        Err(_) => return None,
    };
    let facts = SetFacts::of(set)?;
    let fits = object.len().ok().zip(facts.lanes());
    // A creator marks the set before it makes the segment.
    let ours =
        facts.home() == Some(Home::Key) && fits.is_some_and(|(len, lanes)| has_lanes(len, lanes));
    ours.then_some((object, Some(set)))
}

/// Sets that no ring goes with, but for those that are known already.
pub(super) fn sets_left_behind(known: &BTreeSet<i32>) -> Vec<Leftover> {
    let mut found = Vec::new();
    if !sandbox::may_ask() {
        return found;
    }
    let references = References::read();
    for entry in sem::list().unwrap_or_default() {
        let (id, key) = (entry.id, entry.stat.key);
        let mine = is_ours(entry.stat.uid) || is_ours(entry.stat.cuid);
        if !mine || known.contains(&id) {
            continue;
        }
        if SetFacts::of(id).is_some_and(|facts| is_orphan(id, key, &facts, &references)) {
            found.push(Leftover {
                name: format!("semaphores 0x{:08x}", key.raw()),
                unread_messages: 0,
                unread: false,
                what: What::Semaphores { id },
            });
        }
    }
    found
}
