//! The choice of a ring's guard, and finding it: a semaphore set, or pipes.
//!
//! The pipes of a ring are in a directory beside it (in `/dev/shm` where the ring is no file), named after
//! the ring's identity and its inode: a copied file does not find its original's.

use std::path::{Path, PathBuf};

use super::orphans;
use crate::guard::pipe::create::NewPipes;
use crate::guard::pipe::directory::{Failure, NoPipeFiles, Owner, PREFIX};
use crate::guard::pipe::{PipeGuard, abandoned};
use crate::guard::semaphore::set::{NewSet, SetFailure};
use crate::guard::semaphore::{KEY_PREFIX, SemaphoreGuard};
use crate::guard::{Guard, GuardError, Mismatch, Refusal};
use crate::layout::superblock::{GuardKind, SetIdentity, Superblock};
use crate::memory::{Address, NewObject, Object, Ownership, POSIX_DIRECTORY, Place};
use crate::os::errno::EACCES;
use crate::os::sysv::Key;
use crate::os::{errno, process, sandbox};

/// How a new ring detects dead processes and wakes sleeping ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum GuardChoice {
    /// Semaphores; pipes where semaphores can't work: no System V IPC, its limits exhausted or too low, a
    /// sandbox that forbids it or does not apply SEM_UNDO.
    ///
    /// [`Builder::default_guard`](crate::Builder::default_guard) changes what it means for new rings.
    #[default]
    Auto,
    /// A System V semaphore set, or an error.
    Semaphore,
    /// FIFOs and locks: handles can be polled, and no limit of `kernel.sem` counts.
    Pipe,
}

impl From<GuardKind> for GuardChoice {
    fn from(kind: GuardKind) -> Self {
        match kind {
            GuardKind::Semaphore => Self::Semaphore,
            GuardKind::Pipe => Self::Pipe,
        }
    }
}

impl GuardChoice {
    /// The guard that an existing ring must have; `None` if it may have either.
    pub(crate) const fn kind(self) -> Option<GuardKind> {
        match self {
            Self::Auto => None,
            Self::Semaphore => Some(GuardKind::Semaphore),
            Self::Pipe => Some(GuardKind::Pipe),
        }
    }
}

/// The directory of a ring's pipes.
fn directory(folder: &Path, uuid: &[u8; 16], mark: &str) -> PathBuf {
    let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{PREFIX}{uuid}-{mark}"))
}

/// The identity of the ring whose pipes are in a directory of this name.
pub(super) fn uuid_of(directory: &Path) -> Option<[u8; 16]> {
    let name = directory.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let (hex, mark) = name.split_once('-')?;
    if hex.len() != 32 || mark.is_empty() {
        return None;
    }
    let mut uuid = [0; 16];
    for (at, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(uuid)
}

/// The mark of the memory whose pipes are in a directory of this name.
pub(super) fn mark_of(directory: &Path) -> Option<&str> {
    let name = directory.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    name.split_once('-').map(|(_, mark)| mark)
}

/// The inode of the file whose pipes are in a directory of this name.
pub(super) fn inode_of(directory: &Path) -> Option<u64> {
    u64::from_str_radix(mark_of(directory)?.strip_prefix('f')?, 16).ok()
}

/// The text in the pipes' directory: the place of its ring, in a second line its name (for people), in a third the process
/// that made it.
fn location_text(place: &Place, name: &str) -> String {
    let location = match place {
        Place::Posix(path) => format!("posix {}", path.display()),
        Place::Sysv(key) => {
            let namespace = process::ipc_namespace().unwrap_or(0);
            format!("sysv {} {namespace}", key.raw())
        }
        Place::Memfd(_) | Place::Anonymous => "users".to_owned(),
        Place::File(_) | Place::Descriptor(_) => "file".to_owned(),
    };
    let maker = process::id();
    format!("{location}\n{name}\n{maker}\n")
}

/// The place in such a text; `None` if the ring has no place that could be checked from here. Any process can
/// have written the text.
pub(super) fn place_of(location: &str) -> Option<Place> {
    match location.lines().next()?.split_once(' ')? {
        ("posix", path) => {
            let name = Path::new(path).strip_prefix(POSIX_DIRECTORY).ok()?;
            let address: Address = format!("posix:{}", name.to_str()?).parse().ok()?;
            address.place().ok()
        }
        ("sysv", rest) => {
            let (key, namespace) = rest.split_once(' ')?;
            let here = process::ipc_namespace()?;
            (namespace.parse() == Ok(here)).then_some(())?;
            Some(Place::Sysv(Key::new(key.parse().ok()?)))
        }
        _ => None,
    }
}

/// The guard of a ring that is being made, with its creation lock held. If it is dropped unfinished, it
/// is removed.
pub(super) enum NewGuard {
    Set(NewSet),
    Pipes(NewPipes),
}

impl NewGuard {
    /// Pipes for a ring that has its memory, but no name yet.
    pub(super) fn pipes(
        name: &str,
        place: &Place,
        object: &NewObject,
        owner: Ownership,
        mode: u32,
        lanes: usize,
        uuid: &[u8; 16],
    ) -> Result<Self, Failure> {
        let mark = object.mark().map_err(|_| Failure {
            call: "fstat",
            source: std::io::Error::last_os_error(),
        })?;
        let path = directory(&object.folder(), uuid, &mark);
        let path = (*place != Place::Anonymous).then_some(path.as_path());
        let owner = Owner {
            uid: owner.uid,
            gid: owner.gid,
            mode,
        };
        NewPipes::create(path, lanes, owner, &location_text(place, name)).map(Self::Pipes)
    }

    pub(super) const fn kind(&self) -> GuardKind {
        match self {
            Self::Set(_) => GuardKind::Semaphore,
            Self::Pipes(_) => GuardKind::Pipe,
        }
    }

    /// Gives it to the memory's owner, and returns the identity for the superblock.
    pub(super) fn identify(
        &self,
        place: &Place,
        owner: Ownership,
        mode: u32,
    ) -> Result<SetIdentity, SetFailure> {
        match self {
            Self::Set(set) => {
                set.give_to(owner.uid, owner.gid, mode)?;
                set.identify(orphans::location(place))
            }
            Self::Pipes(_) => Ok(SetIdentity::NONE),
        }
    }

    /// The ring has its name: gives the lock back. If the ring ends with its users, this process is
    /// the first.
    pub(super) fn finish(self, goes_with_its_users: bool) -> Result<Box<dyn Guard>, GuardError> {
        match self {
            Self::Set(set) if goes_with_its_users => Ok(Box::new(set.finish_held()?)),
            Self::Set(set) => Ok(Box::new(set.finish())),
            Self::Pipes(pipes) => Ok(Box::new(pipes.finish(goes_with_its_users)?)),
        }
    }
}

/// The guard named by the superblock, if it is this ring's.
pub(super) fn find_guard(
    object: &Object,
    superblock: &Superblock,
) -> Result<Box<dyn Guard>, Mismatch> {
    match superblock.guard {
        GuardKind::Semaphore => find_set(object, superblock).map(|guard| Box::new(guard) as _),
        GuardKind::Pipe => find_pipes(object, superblock).map(|guard| Box::new(guard) as _),
    }
}

/// The directory of the pipes of an existing ring.
pub(super) fn pipes_of(object: &Object, uuid: &[u8; 16]) -> Result<PathBuf, Mismatch> {
    let mark = object.mark().map_err(failed)?;
    Ok(directory(&object.folder().map_err(failed)?, uuid, &mark))
}

fn failed(error: crate::memory::MemoryError) -> Mismatch {
    // Removed since it was opened.
    if matches!(error, crate::memory::MemoryError::NotFound) {
        return Mismatch::Missing;
    }
    let (call, errno) = match error {
        crate::memory::MemoryError::Os { call, source } => {
            (call, source.raw_os_error().unwrap_or_default())
        }
        _ => ("fstat", 0),
    };
    Mismatch::Failed(Refusal { call, errno })
}

fn find_pipes(object: &Object, superblock: &Superblock) -> Result<PipeGuard, Mismatch> {
    let path = pipes_of(object, &superblock.uuid)?;
    let owner = object.ownership().map_err(failed)?.uid;
    PipeGuard::open(&path, superblock.geometry.lanes(), owner).map_err(|none| match none {
        NoPipeFiles::Missing => Mismatch::Missing,
        NoPipeFiles::Stranger => Mismatch::Stranger,
        NoPipeFiles::Failed(Failure { call, source }) => {
            let errno = source.raw_os_error().unwrap_or_default();
            let refusal = Refusal { call, errno };
            if errno == EACCES {
                Mismatch::Denied(refusal)
            } else {
                Mismatch::Failed(refusal)
            }
        }
    })
}

/// Makes new pipes for a ring whose memory has outlived them. The caller ensures that no other process
/// does so.
pub(super) fn renew_pipes(
    object: &Object,
    superblock: &Superblock,
    owner: Ownership,
    name: &str,
) -> Result<Box<dyn Guard>, Failure> {
    let io = |_| Failure {
        call: "fstat",
        source: std::io::Error::last_os_error(),
    };
    let path = pipes_of(object, &superblock.uuid).map_err(io)?;
    match abandoned::sweep(&path, [owner.uid, process::effective_uid()]) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure {
                call: "rmdir",
                source,
            });
        }
        _ => {}
    }
    let owner = Owner {
        uid: owner.uid,
        gid: owner.gid,
        mode: owner.mode & 0o777,
    };
    let kind = if object.goes_with_its_users() {
        "users"
    } else {
        "file"
    };
    let maker = process::id();
    let location = format!("{kind}\n{name}\n{maker}\n");
    let new = NewPipes::create(Some(&path), superblock.geometry.lanes(), owner, &location)?;
    // The file's lock excludes all others until its opener counts as a user.
    let guard = new.finish(false).map_err(|_| Failure {
        call: "openat",
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    Ok(Box::new(guard))
}

fn find_set(object: &Object, superblock: &Superblock) -> Result<SemaphoreGuard, Mismatch> {
    check_location(object, superblock)?;
    let guard = SemaphoreGuard::open(&superblock.set, superblock.geometry.lanes())?;
    check_owner(object, superblock, &guard)?;
    Ok(guard)
}

/// The set with the key and the id in the superblock, of the same owner, with any values: any process that may
/// write the ring can change those. For a removal by force only.
pub(super) fn find_changed_set(object: &Object, superblock: &Superblock) -> Option<SemaphoreGuard> {
    if superblock.guard != GuardKind::Semaphore {
        return None;
    }
    check_location(object, superblock).ok()?;
    let lanes = superblock.geometry.lanes();
    let guard = SemaphoreGuard::open_changed(&superblock.set, lanes)?;
    check_owner(object, superblock, &guard).ok()?;
    Some(guard)
}

/// Refuses a set that can't be the ring's, according to the superblock.
fn check_location(object: &Object, superblock: &Superblock) -> Result<(), Mismatch> {
    if !sandbox::may_ask() {
        let (call, errno) = ("semget", errno::EPERM);
        return Err(Mismatch::Denied(Refusal { call, errno }));
    }
    let there = superblock.ipc_namespace;
    let here = process::ipc_namespace().unwrap_or(0);
    if there != 0 && here != 0 && there != here {
        return Err(Mismatch::Elsewhere);
    }
    if let Some(record) = superblock.record {
        let boot = process::boot_id().unwrap_or_default();
        let restarted = record.boot != [0; 16] && boot != [0; 16] && record.boot != boot;
        // The set is the original's, not the copy's.
        let copied = object.inode().is_ok_and(|inode| inode != record.inode);
        if restarted || copied {
            return Err(Mismatch::Missing);
        }
    }
    // A superblock must not lead other processes to the set of another ring: under a key the set must be
    // that of the segment, elsewhere one with a random key of semring.
    let set = Key::new(superblock.set.key);
    let fits = match object.key() {
        Some(key) => set == key,
        None => !object.is_sysv() && set.bits() & 0xffff_0000 == KEY_PREFIX,
    };
    if !fits {
        return Err(Mismatch::Other);
    }
    Ok(())
}

/// Refuses a set of another owner than the ring's.
fn check_owner(
    object: &Object,
    superblock: &Superblock,
    guard: &SemaphoreGuard,
) -> Result<(), Mismatch> {
    let maker = superblock
        .record
        .map_or(superblock.creator_uid, |record| record.maker_uid);
    // A process that can read the superblock could make a set that looks like the ring's.
    if let Ok(owner) = object.ownership() {
        match guard.belongs_to(owner.uid, maker) {
            Ok(true) => {}
            Ok(false) => return Err(Mismatch::Stranger),
            Err(error) if error.is_removed() => return Err(Mismatch::Missing),
            Err(error) => return Err(Mismatch::Failed(error.into())),
        }
    }
    Ok(())
}
