//! Semaphore sets that belong to no ring.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::Path;

use super::super::under_key::{Under, under};
use super::{Orphan, PruneOutcome, What, is_ours};
use crate::error::RemoveError;
use crate::guard::semaphore::KEY_PREFIX;
use crate::guard::semaphore::abandoned::{SeizedSet, SetFacts, is_untouched};
use crate::guard::semaphore::set::NameLocation;
use crate::layout::possible_lanes;
use crate::layout::superblock::{SetIdentity, Superblock, SuperblockError};
use crate::memory::{self, Access, MemoryError, Object, POSIX_DIRECTORY, Place};
use crate::os::sysv::{Key, SemSet, sem};
use crate::os::{file, sandbox};

/// The place of the name of a ring at this place.
pub(in super::super) fn location(place: &Place) -> NameLocation {
    if memory::sysv_key(place).is_some() {
        return NameLocation::Key;
    }
    match place {
        Place::Posix(path) => path.parent().map_or(NameLocation::Unknown, directory),
        Place::Memfd(_) | Place::Anonymous => NameLocation::Users { count: 0 },
        Place::File(_) => NameLocation::File { has_name: false },
        Place::Sysv(_) | Place::Descriptor(_) => NameLocation::Unknown,
    }
}

/// The same for a ring that gets a new set.
pub(in super::super) fn location_of(object: &Object) -> NameLocation {
    if object.goes_with_its_users() {
        NameLocation::Users { count: 0 }
    } else {
        NameLocation::File { has_name: false }
    }
}

fn directory(path: &Path) -> NameLocation {
    file::tmpfs_directory(path).map_or(NameLocation::Unknown, |(device, inode)| {
        NameLocation::directory(device, inode)
    })
}

impl Orphan {
    /// Seizes the set; `None` if a process uses it by now.
    pub(super) fn seize_set(&self, id: i32) -> Result<Option<SeizedSet>, RemoveError> {
        // Seizing a set changes it: a set that a process has begun to use since it was found must stay
        // unchanged.
        let begun = |facts: SetFacts| facts.is_blank() && !is_untouched(id);
        let key = SemSet::from_id(id).stat().map(|stat| stat.key.raw() as u32);
        let random = key.is_ok_and(|raw| raw & 0xffff_0000 == KEY_PREFIX);
        if !random && SetFacts::of(id).is_some_and(begun) {
            return Ok(None);
        }
        SeizedSet::seize(id).map_err(|error| self.sysv(error))
    }

    /// Removes a set that is held. No creator gives it a name any more: its creator has finished, or is
    /// dead.
    pub(super) fn remove_set(
        &self,
        id: i32,
        held: &SeizedSet,
        references: &OnceCell<References>,
    ) -> Result<PruneOutcome, RemoveError> {
        let facts = held.facts().map_err(|error| self.sysv(error))?;
        let Ok(stat) = SemSet::from_id(id).stat() else {
            return Ok(PruneOutcome::Removed);
        };
        if !is_orphan(id, stat.key, &facts, references) {
            return Ok(PruneOutcome::InUse);
        }
        held.remove().map_err(|error| self.sysv(error))?;
        Ok(PruneOutcome::Removed)
    }
}

/// The semaphore sets named by the rings that can be found, and whether these are certainly all.
pub(super) struct References {
    sets: BTreeSet<(i32, i32)>,
    /// The directory of POSIX rings.
    directory: NameLocation,
    /// The possible numbers of lanes of files that may be rings, but can't be read.
    unreadable: BTreeSet<usize>,
    /// Every file was read and understood.
    complete: bool,
}

impl References {
    fn read() -> Self {
        let mut references = Self {
            sets: BTreeSet::new(),
            directory: directory(Path::new(POSIX_DIRECTORY)),
            unreadable: BTreeSet::new(),
            complete: std::fs::read_dir(POSIX_DIRECTORY).is_ok(),
        };
        for place in memory::posix_places() {
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
                Err(_) => references.record_hidden(&place),
            }
        }
        references
    }

    /// Records a file that can't be read: it may be a ring of its size.
    fn record_hidden(&mut self, place: &Place) {
        let Place::Posix(path) = place else {
            self.complete = false;
            return;
        };
        match std::fs::metadata(path) {
            Ok(metadata) => self.unreadable.extend(possible_lanes(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => self.complete = false,
        }
    }

    /// True if a set of a ring in /dev/shm is certainly not named by any of them.
    fn exclude(&self, id: i32, key: Key, lanes: usize) -> bool {
        self.complete && !self.sets.contains(&(key.raw(), id)) && !self.unreadable.contains(&lanes)
    }
}

/// True if certainly no ring in /dev/shm names this set.
pub(in super::super) fn no_ring_names(set: &SetIdentity, lanes: usize) -> bool {
    References::read().exclude(set.id, Key::new(set.key), lanes)
}

/// The first byte of every key that semring derives from a name or chooses at random.
const KEY_BYTE: u32 = KEY_PREFIX >> 24;

/// True if a set is semring's, idle, and its ring is gone or was never made.
fn is_orphan(id: i32, key: Key, facts: &SetFacts, references: &OnceCell<References>) -> bool {
    let Some(lanes) = facts.lanes().filter(|_| facts.is_idle()) else {
        return false;
    };
    let raw = key.raw() as u32;
    let random = raw & 0xffff_0000 == KEY_PREFIX;
    match facts.location() {
        Some(location @ NameLocation::Directory { .. }) if facts.is_identified() && random => {
            let references = references.get_or_init(References::read);
            location == references.directory && references.exclude(id, key, lanes)
        }
        // With a segment of another program under the key, the owner of the set is unknown by now.
        Some(NameLocation::Key) => matches!(under(key), Under::Nothing),
        // No process has the ring open; if its memory is being passed to a process, a new set will be
        // made there.
        Some(NameLocation::Users { count: 0 }) if facts.is_identified() && random => true,
        // Its creator or remover died. If the file has its name all the same, it gets a new set.
        Some(NameLocation::File { has_name: false }) if facts.is_identified() && random => true,
        // No ring has a set that was never marked. A random key proves that it is semring's; one derived
        // from a name may be another program's by chance, and then the proof is that no operation was ever
        // done on it.
        Some(NameLocation::Unknown) if facts.is_blank() && raw >> 24 == KEY_BYTE => {
            (random || is_untouched(id)) && matches!(under(key), Under::Nothing)
        }
        _ => false,
    }
}

/// Sets that belong to no ring, except those in `known`.
pub(super) fn sets_left_behind(known: &BTreeSet<i32>) -> Vec<Orphan> {
    let mut found = Vec::new();
    if !sandbox::may_ask() {
        return found;
    }
    let references = OnceCell::new();
    for entry in sem::list().unwrap_or_default() {
        let (id, key) = (entry.id, entry.stat.key);
        let mine = is_ours(entry.stat.uid) || is_ours(entry.stat.cuid);
        if !mine || known.contains(&id) {
            continue;
        }
        if SetFacts::of(id).is_some_and(|facts| is_orphan(id, key, &facts, &references)) {
            let name = format!("semaphores 0x{:08x}", key.raw());
            found.push(Orphan::of_name(name, What::Semaphores { id }));
        }
    }
    found
}
