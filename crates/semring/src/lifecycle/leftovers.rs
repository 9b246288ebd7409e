//! What killed programs leave behind, found and removed without harm to the living.
//!
//! ```text
//! what                        proof that nobody needs it                         removed under
//! ring that was made because  no producer, no consumer, no creator, no remover,  its tombstone
//!   it was missing              by its semaphores; nothing unread
//! such a ring without its     its superblock names our IPC namespace, and the    a lock on the file;
//!   semaphores                  set is not there                                   a segment's id
//! unfinished System V ring    its creation lock is free, nobody has it mapped    lock and tombstone
//! set without a ring          lock and tombstone free, nobody attached, and no   lock and tombstone
//!                               ring names it where the set says that it would
//!                               be
//! directory of pipes          nobody holds any of its locks, and the ring that   its lock of creators
//!                               it names is not there
//! file that locked a key      nobody holds it                                    itself
//! ```
//! A look ([`leftovers`]) changes nothing. A [removal](Leftover::remove) decides anew, with the kernel's
//! locks held: a creator between set and name holds the creation lock, an opener that attaches at the
//! same moment is either refused by the tombstone or makes us let go. Killed in between, the kernel gives
//! the locks back.
//!
//! A ring that somebody asked for by `create` is never touched, and neither is what can't be read, what
//! another format version made, or a set whose ring may be somewhere else (a file, a memfd, the /dev/shm
//! of another mount namespace).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::guards::{find_guard, place_of, uuid_of};
use super::inspect::{look, unread};
use super::open::{memory_error, open, plausible_length};
use super::remove::{sysv_error, take_away_or_leave, unlink_error};
use super::{RingCore, create};
use crate::error::{OpenError, RemoveError};
use crate::guard::Mismatch;
use crate::guard::abandoned::{SeizedSet, SetFacts, is_untouched};
use crate::guard::semaphore::{KEY_PREFIX, SemaphoreGuard};
use crate::guard::set::Home;
use crate::guard::site::{self, Found, KeyLock, Seized};
use crate::layout::superblock::{GuardKind, MAGIC, Superblock, SuperblockError};
use crate::layout::view::RingView;
use crate::layout::{Capacity, Geometry};
use crate::memory::{self, Access, Address, MemoryError, Object, POSIX_DIRECTORY, Place};
use crate::os::sysv::{Key, SemSet, sem};
use crate::os::{file, process, sandbox};

/// Where the name of a ring at this place would be found.
pub(super) fn home(place: &Place) -> Home {
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
pub(super) fn home_of(object: &Object) -> Home {
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

/// Which kind of thing was left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LeftoverKind {
    /// A ring that a program made because it was missing, and that nobody uses any more.
    Ring,
    /// Such a ring whose semaphores or pipes are gone, so that nobody can use it.
    Unguarded,
    /// A ring whose creator died before it was ready.
    Unfinished,
    /// Semaphores whose ring is gone or never came.
    Semaphores,
    /// Pipes whose ring is gone or never came.
    Pipes,
}

/// Something that killed programs left behind.
#[derive(Clone, Debug)]
pub struct Leftover {
    name: String,
    unread_messages: u64,
    unread: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Ring {
        address: Address,
        uuid: [u8; 16],
    },
    Unguarded {
        place: Place,
        uuid: [u8; 16],
        guard: GuardKind,
    },
    Unfinished {
        key: Key,
        set: Option<i32>,
    },
    Semaphores {
        id: i32,
    },
    Pipes {
        directory: PathBuf,
    },
    KeyFile {
        key: Key,
    },
}

/// What came of a removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Pruned {
    /// It is gone.
    Removed,
    /// It stays: so many messages are unread, and they were not to be discarded.
    Unread {
        /// How many can be read; 0 if there are none before damaged bytes.
        messages: u64,
    },
    /// It stays: somebody uses it by now.
    InUse,
}

impl Leftover {
    /// The ring's address, or what else it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which kind of thing it is.
    #[must_use]
    pub fn kind(&self) -> LeftoverKind {
        match self.what {
            What::Ring { .. } => LeftoverKind::Ring,
            What::Unguarded { .. } => LeftoverKind::Unguarded,
            What::Unfinished { .. } => LeftoverKind::Unfinished,
            What::Semaphores { .. } => LeftoverKind::Semaphores,
            What::Pipes { .. } => LeftoverKind::Pipes,
            What::KeyFile { .. } => LeftoverKind::Unfinished,
        }
    }

    /// What a ring that is [`Unguarded`](LeftoverKind::Unguarded) had.
    #[must_use]
    pub fn lost_guard(&self) -> Option<GuardKind> {
        match self.what {
            What::Unguarded { guard, .. } => Some(guard),
            _ => None,
        }
    }

    /// Messages that nobody has read.
    #[must_use]
    pub fn unread_messages(&self) -> u64 {
        self.unread_messages
    }

    /// True if it holds messages that nobody has read, or bytes that nobody can read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Removes it, if it is still what it was when it was found. Without `discard_unread` a ring with
    /// unread messages stays.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] and the others. Something that is gone already is no error.
    pub fn remove(&self, discard_unread: bool) -> Result<Pruned, RemoveError> {
        match &self.what {
            What::Ring { address, uuid } => remove_ring(address, uuid, discard_unread),
            What::Unguarded { place, uuid, .. } => {
                self.remove_unguarded(place, uuid, discard_unread)
            }
            What::Unfinished { key, set } => self.remove_unfinished(*key, *set),
            What::Semaphores { id } => self.remove_set(*id),
            What::Pipes { directory } => self.remove_pipes(directory),
            What::KeyFile { key } => self.remove_key_file(*key),
        }
    }

    fn remove_unguarded(
        &self,
        place: &Place,
        uuid: &[u8; 16],
        discard_unread: bool,
    ) -> Result<Pruned, RemoveError> {
        let object = match Object::open(place, Access::ReadWrite) {
            Ok(object) => object,
            Err(MemoryError::NotFound) => return Ok(Pruned::Removed),
            Err(error) => return Err(memory_error(&self.name, error).into()),
        };
        // Somebody else is just removing it; what comes under the name afterwards is not meant.
        if !object.try_lock().map_err(|error| self.memory(error))? {
            return Ok(Pruned::InUse);
        }
        let head = object.head().map_err(|error| self.memory(error))?;
        match Superblock::decode(&head) {
            Ok(superblock) if superblock.uuid == *uuid => {
                if !is_unguarded(place, &object, &superblock) || create::stays_attached(&object) {
                    return Ok(Pruned::InUse);
                }
                let (messages, unread) = unread_of(&object, &superblock);
                if unread && !discard_unread {
                    return Ok(Pruned::Unread { messages });
                }
            }
            _ => return Ok(Pruned::Removed),
        }
        object
            .unlink()
            .map_err(|error| unlink_error(&self.name, error))?;
        Ok(Pruned::Removed)
    }

    fn remove_unfinished(&self, key: Key, set: Option<i32>) -> Result<Pruned, RemoveError> {
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

    fn remove_set(&self, id: i32) -> Result<Pruned, RemoveError> {
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

    fn remove_pipes(&self, directory: &Path) -> Result<Pruned, RemoveError> {
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

    fn remove_key_file(&self, key: Key) -> Result<Pruned, RemoveError> {
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

    fn seize(&self, id: i32) -> Result<Option<SeizedSet>, RemoveError> {
        SeizedSet::seize(id).map_err(|error| self.sysv(error))
    }

    fn remove_seized(&self, held: &SeizedSet) -> Result<(), RemoveError> {
        held.remove().map_err(|error| self.sysv(error))
    }

    fn sysv(&self, error: crate::os::sysv::Error) -> RemoveError {
        sysv_error(&self.name, error)
    }

    fn memory(&self, error: MemoryError) -> RemoveError {
        memory_error(&self.name, error).into()
    }
}

fn remove_ring(
    address: &Address,
    uuid: &[u8; 16],
    discard_unread: bool,
) -> Result<Pruned, RemoveError> {
    let ring = match open(address, Access::ReadWrite) {
        Ok(ring) if ring.superblock.uuid == *uuid => ring,
        // Another one by now: not the one that was found.
        Ok(_) | Err(OpenError::NotFound { .. }) => return Ok(Pruned::Removed),
        Err(error) => return Err(error.into()),
    };
    let place = address.place().map_err(|source| RemoveError::Os {
        name: address.to_string(),
        call: "ftok",
        source,
    })?;
    if !owns_its_set(&place, &ring.object, &ring.superblock) {
        return Ok(Pruned::InUse);
    }
    match ring.guard.begin_pruning() {
        Ok(true) => {}
        Ok(false) => return Ok(Pruned::InUse),
        Err(crate::guard::GuardError::Removed) => return Ok(Pruned::Removed),
        Err(error) => return Err(super::remove::guard_error(&ring, error)),
    }
    // Nobody can attach and send any more.
    let (messages, unread) = unread_in(&ring.object, &ring.view, ring.superblock.geometry);
    if unread && !discard_unread {
        ring.guard
            .abort_removal()
            .map_err(|error| super::remove::guard_error(&ring, error))?;
        return Ok(Pruned::Unread { messages });
    }
    take_away_or_leave(&ring).map(|()| Pruned::Removed)
}

/// How many messages are unread, and whether anything is: impossible bytes may hide more.
fn unread_in(object: &Object, view: &RingView, geometry: Geometry) -> (u64, bool) {
    let each = (0..geometry.lanes()).map(|lane| unread(object, view, geometry, lane));
    each.fold((0, false), |(messages, any), lane| {
        (
            messages + lane.messages,
            any || lane.messages > 0 || lane.damaged,
        )
    })
}

/// The same for an object that is not mapped; one that can't be mapped is as good as unread.
fn unread_of(object: &Object, superblock: &Superblock) -> (u64, bool) {
    let geometry = superblock.geometry;
    look(object, geometry).map_or((0, true), |view| unread_in(object, &view, geometry))
}

/// True if the ring's semaphores would have to be in our IPC namespace, and are not.
fn is_unguarded(place: &Place, object: &Object, superblock: &Superblock) -> bool {
    if superblock.guard == GuardKind::Pipe {
        // Those of a ring in /dev/shm are there, too.
        return matches!(place, Place::Posix(_))
            && matches!(find_guard(object, superblock), Err(Mismatch::Missing));
    }
    let here = memory::sysv_key(place).is_some()
        || (superblock.ipc_namespace != 0
            && process::ipc_namespace() == Some(superblock.ipc_namespace));
    here && matches!(
        SemaphoreGuard::open(&superblock.set, superblock.geometry.lanes()),
        Err(Mismatch::Missing | Mismatch::Other)
    )
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
enum Under {
    Nothing,
    Foreign,
    Ring,
    /// Bytes of a creator that has not finished; true if they begin as ours do.
    Unfinished(Object, bool),
    /// That can't be seen.
    Hidden,
}

fn under(key: Key) -> Under {
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
fn unfinished(key: Key) -> Option<(Object, Option<i32>)> {
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

/// Everything of this user (of all users for root) that killed programs left in this IPC namespace and in
/// /dev/shm, rings first. Looks only.
///
/// ```
/// for leftover in semring::leftovers() {
///     println!("{} could be removed", leftover.name());
/// }
/// ```
#[must_use]
pub fn leftovers() -> Vec<Leftover> {
    let mut found = Vec::new();
    let mut sets = BTreeSet::new();
    for place in memory::places() {
        let Ok(object) = Object::open(&place, Access::ReadOnly) else {
            continue;
        };
        let mine = object.ownership().is_ok_and(|owner| is_ours(owner.uid));
        let plausible = object.len().is_ok_and(plausible_length);
        if !mine || !plausible {
            continue;
        }
        let Ok(head) = object.head() else { continue };
        match Superblock::decode(&head) {
            Ok(superblock) if superblock.implicit => {
                found.extend(abandoned_ring(&place, &object, &superblock));
            }
            Err(SuperblockError::NotReady) => {
                let Some(key) = memory::sysv_key(&place) else {
                    continue;
                };
                let Some((object, set)) = unfinished(key) else {
                    continue;
                };
                let idle = set.is_none_or(|id| SetFacts::of(id).is_some_and(|set| set.is_idle()));
                if idle && !object.is_attached() {
                    sets.extend(set);
                    found.push(Leftover {
                        name: format!("sysv:0x{:08x}", key.raw()),
                        unread_messages: 0,
                        unread: false,
                        what: What::Unfinished { key, set },
                    });
                }
            }
            _ => {}
        }
    }
    found.extend(sets_left_behind(&sets));
    found.extend(pipes_left_behind());
    found
}

/// Sets that no ring goes with, but for those that are known already.
fn sets_left_behind(known: &BTreeSet<i32>) -> Vec<Leftover> {
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

/// What rings with pipes left in /dev/shm, themselves aside.
fn pipes_left_behind() -> Vec<Leftover> {
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
            if let Some(key) = name.strip_prefix(site::KEY_PREFIX) {
                let key = Key::from_raw(u32::from_str_radix(key, 16).ok()?);
                // Somebody may be at work; whoever removes it will see.
                return KeyLock::is_dead(key.raw())
                    .then(|| leftover(format!("sysv:0x{:08x}", key.raw()), What::KeyFile { key }));
            }
            uuid_of(&path)?;
            let orphans = are_orphans(&path, &site::look(&path)?);
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

/// Whether this user may remove what that one owns.
fn is_ours(uid: u32) -> bool {
    let us = process::effective_uid();
    us == 0 || us == uid
}

/// True if a superblock's set is surely its ring's: made by the same user, for a ring of this place. A
/// ring is what its owner wrote, and root, who clears away for all, must not be led to the semaphores of
/// another one.
fn owns_its_set(place: &Place, object: &Object, superblock: &Superblock) -> bool {
    if superblock.guard == GuardKind::Pipe {
        // Found by the ring's identity only if the ring's owner has them.
        return find_guard(object, superblock).is_ok();
    }
    let id = superblock.set.id;
    let same_home = SetFacts::of(id).is_some_and(|set| set.home() == Some(home(place)));
    let owners = object.ownership().ok().zip(SemSet::from_id(id).stat().ok());
    let same_owner = owners.is_some_and(|(object, set)| object.uid == set.uid);
    same_home && same_owner
}

fn abandoned_ring(place: &Place, object: &Object, superblock: &Superblock) -> Option<Leftover> {
    let address = Address::of_place(place, &superblock.name);
    if !address.is_valid() {
        return None; // made by nobody of ours
    }
    let name = address.to_string();
    let uuid = superblock.uuid;
    match open(&address, Access::ReadOnly) {
        Ok(ring) => {
            let same = ring.superblock.uuid == uuid && owns_its_set(place, object, superblock);
            let idle = matches!(ring.guard.is_idle(), Ok(true));
            (same && idle).then(|| Leftover::of_ring(&ring, name, address))
        }
        Err(OpenError::GuardLost { .. })
            if is_unguarded(place, object, superblock) && !object.is_attached() =>
        {
            let (unread_messages, unread) = unread_of(object, superblock);
            Some(Leftover {
                name,
                unread_messages,
                unread,
                what: What::Unguarded {
                    place: place.clone(),
                    uuid,
                    guard: superblock.guard,
                },
            })
        }
        Err(_) => None,
    }
}

impl Leftover {
    fn of_ring(ring: &RingCore, name: String, address: Address) -> Self {
        let (unread_messages, unread) =
            unread_in(&ring.object, &ring.view, ring.superblock.geometry);
        Self {
            name,
            unread_messages,
            unread,
            what: What::Ring {
                address,
                uuid: ring.superblock.uuid,
            },
        }
    }
}
