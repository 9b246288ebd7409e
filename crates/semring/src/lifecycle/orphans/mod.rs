//! What killed programs leave behind, found and removed without harm to the living.
//!
//! ```text
//! what                        proof that nobody needs it                         removed under
//! ring that was made because  no producer, no consumer, no creator, no remover,  its tombstone
//!   it was missing              by its semaphores; nothing unread
//! such a ring without its     its superblock names our IPC namespace, and the    a lock on the file;
//!   semaphores                  set is not there                                   a segment's id
//! unfinished System V ring    a set under its key, or a file that locks the key,    the same, then
//!                               proves that its creator is ours; its creation lock    the segment goes
//!                               is free, nobody has it mapped                          before its proof
//! set without a ring          lock and tombstone free, nobody attached, and no   lock and tombstone
//!                               ring names it where the set says that it would
//!                               be
//! directory of pipes          nobody holds any of its locks, and the ring that   its lock of creators
//!                               it names is not there
//! file that locked a key      nobody holds it                                    itself
//! ```
//! A look ([`orphans`]) changes nothing. A [removal](Orphan::remove) decides anew, with the kernel's
//! locks held: a creator between set and name holds the creation lock, an opener that attaches at the
//! same moment is either refused by the tombstone or makes us let go. Killed in between, the kernel gives
//! the locks back.
//!
//! A pair is one thing: it goes when both of its rings may go, and both removal flags are up.
//!
//! A ring that somebody asked for by `create` is never touched, and neither is what can't be read, what
//! another format version made, or a set whose ring may be somewhere else (a file, a memfd, the /dev/shm
//! of another mount namespace).

mod pair;
mod pipes;
mod ring;
mod set;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::key_lock::KeyLock;
use super::open::{memory_error, plausible_length};
use super::remove::{sysv_error, unlink_error};
use super::under_key::{ClearError, Cleared, Foreign, Under, under};
use crate::error::RemoveError;
use crate::guard::abandoned::SeizedSet;
use crate::layout::superblock::{GuardKind, Superblock, SuperblockError};
use crate::memory::{self, Access, Address, MemoryError, Object, Place};
use crate::os::process;
use crate::os::sysv::Key;
pub(super) use pipes::sweep_beside;
pub(super) use set::{home, home_of, no_ring_names};

/// Which kind of thing was left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OrphanKind {
    /// A ring that a program made because it was missing, and that nobody uses any more.
    Ring,
    /// Such a ring whose semaphores or pipes are gone, so that nobody can use it.
    GuardMissing,
    /// A ring whose creator died before it was ready.
    Unfinished,
    /// Semaphores whose ring is gone or never came.
    Semaphores,
    /// Pipes whose ring is gone or never came.
    Pipes,
    /// Something that resembles what a killed program leaves, and that no program of this library is known to
    /// have made. It is never removed; [`Orphan::why_it_stays`] says what it is.
    Foreign,
}

/// Something that killed programs left behind.
#[derive(Clone, Debug)]
pub struct Orphan {
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
    /// Both rings of a pair.
    Pair {
        up: Address,
        uuid: [u8; 16],
        down: Address,
    },
    GuardMissing {
        place: Place,
        uuid: [u8; 16],
        guard: GuardKind,
    },
    Unfinished {
        key: Key,
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
    Foreign {
        why: String,
    },
}

/// What becomes of a ring with messages that nobody has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unread {
    /// It stays.
    Keep,
    /// It is removed, and its messages are lost.
    Discard,
}

/// What came of a removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PruneOutcome {
    /// It is gone.
    Removed,
    /// It stays: so many messages are unread, and they were not to be discarded.
    Unread {
        /// How many can be read; 0 if there are none before damaged bytes.
        messages: u64,
    },
    /// It stays: somebody uses it by now.
    InUse,
    /// It stays: no program of this library is known to have made it.
    Foreign,
}

impl Orphan {
    /// The ring's address, or what else it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which kind of thing it is.
    #[must_use]
    pub fn kind(&self) -> OrphanKind {
        match self.what {
            What::Ring { .. } | What::Pair { .. } => OrphanKind::Ring,
            What::GuardMissing { .. } => OrphanKind::GuardMissing,
            What::Unfinished { .. } => OrphanKind::Unfinished,
            What::Semaphores { .. } => OrphanKind::Semaphores,
            What::Pipes { .. } => OrphanKind::Pipes,
            What::KeyFile { .. } => OrphanKind::Unfinished,
            What::Foreign { .. } => OrphanKind::Foreign,
        }
    }

    /// What something [`Foreign`](OrphanKind::Foreign) is, and what can be done about it.
    #[must_use]
    pub fn why_it_stays(&self) -> Option<&str> {
        match &self.what {
            What::Foreign { why } => Some(why),
            _ => None,
        }
    }

    /// What a ring that is [`GuardMissing`](OrphanKind::GuardMissing) had.
    #[must_use]
    pub fn lost_guard(&self) -> Option<GuardKind> {
        match self.what {
            What::GuardMissing { guard, .. } => Some(guard),
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

    /// Removes it, if it is still what it was when it was found. With [`Unread::Keep`] a ring with unread
    /// messages stays.
    ///
    /// For several at once, [`remove_all`](Self::remove_all) is faster.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] and the others. Something that is gone already is no error.
    pub fn remove(&self, policy: Unread) -> Result<PruneOutcome, RemoveError> {
        let [outcome] = Self::remove_all(std::slice::from_ref(self), policy)
            .try_into()
            .expect("one outcome for one leftover");
        outcome
    }

    /// Removes all of them as [`remove`](Self::remove) does, and gives what came of each, in their order. One
    /// that can't be removed is no obstacle for the others. What the rings in /dev/shm refer to is read once.
    ///
    /// ```no_run
    /// let found = semring::orphans();
    /// for (leftover, outcome) in found.iter().zip(semring::Orphan::remove_all(&found, semring::Unread::Keep)) {
    ///     println!("{}: {outcome:?}", leftover.name());
    /// }
    /// ```
    #[must_use]
    pub fn remove_all(found: &[Self], policy: Unread) -> Vec<Result<PruneOutcome, RemoveError>> {
        // All sets are held before the rings are read: no creator gives a name to one of them any more.
        let held: Vec<Option<Result<Option<SeizedSet>, RemoveError>>> = found
            .iter()
            .map(|leftover| match leftover.what {
                What::Semaphores { id } => Some(leftover.seize_set(id)),
                _ => None,
            })
            .collect();
        let references = OnceCell::new();
        let each = found.iter().zip(held);
        each.map(|(leftover, held)| match &leftover.what {
            What::Ring { address, uuid } => ring::remove_ring(address, uuid, policy),
            What::Pair { up, uuid, down } => pair::remove(up, uuid, down, policy),
            What::GuardMissing { place, uuid, .. } => {
                leftover.remove_without_guard(place, uuid, policy)
            }
            What::Unfinished { key } => leftover.remove_unfinished(*key),
            What::Semaphores { id } => match held {
                Some(Ok(Some(held))) => leftover.remove_set(*id, &held, &references),
                Some(Err(error)) => Err(error),
                Some(Ok(None)) | None => Ok(PruneOutcome::InUse),
            },
            What::Pipes { directory } => leftover.remove_pipes(directory),
            What::KeyFile { key } => leftover.remove_key_file(*key),
            What::Foreign { .. } => Ok(PruneOutcome::Foreign),
        })
        .collect()
    }

    fn remove_unfinished(&self, key: Key) -> Result<PruneOutcome, RemoveError> {
        let Under::Unfinished(unfinished) = under(key) else {
            return Ok(PruneOutcome::Removed);
        };
        match unfinished.remove() {
            Ok(Cleared::Removed) => {
                // A second proof, if there is one: dropped, it goes.
                drop(KeyLock::of_the_dead(key.raw()));
                Ok(PruneOutcome::Removed)
            }
            Ok(Cleared::Busy | Cleared::Mapped) => Ok(PruneOutcome::InUse),
            Err(ClearError::Set(error)) => Err(self.sysv(error)),
            Err(ClearError::Segment(error)) => Err(unlink_error(&self.name, error)),
        }
    }

    fn sysv(&self, error: crate::os::sysv::Error) -> RemoveError {
        sysv_error(&self.name, error)
    }

    fn memory(&self, error: MemoryError) -> RemoveError {
        memory_error(&self.name, error).into()
    }

    /// The key of a segment whose proof goes with it.
    fn unfinished_key(&self) -> Option<i32> {
        match self.what {
            What::Unfinished { key } => Some(key.raw()),
            _ => None,
        }
    }

    /// Something without messages.
    fn of_name(name: String, what: What) -> Self {
        Self {
            name,
            unread_messages: 0,
            unread: false,
            what,
        }
    }
}

/// Everything of this user (of all users for root) that killed programs left in this IPC namespace and in
/// /dev/shm, rings first. Looks only.
///
/// ```
/// for leftover in semring::orphans() {
///     println!("{} could be removed", leftover.name());
/// }
/// ```
#[must_use]
pub fn orphans() -> Vec<Orphan> {
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
            Ok(superblock) if superblock.auto_remove => {
                found.extend(ring::abandoned_ring(&place, &object, &superblock));
            }
            Err(SuperblockError::NotReady) => {
                let Some(key) = memory::sysv_key(&place) else {
                    continue;
                };
                let what = match under(key) {
                    Under::Unfinished(unfinished) if unfinished.is_abandoned() => {
                        sets.extend(unfinished.set());
                        What::Unfinished { key }
                    }
                    Under::Foreign(Foreign {
                        what: why,
                        resembles_a_ring: true,
                    }) => What::Foreign { why },
                    _ => continue,
                };
                found.push(Orphan::of_name(name_of(key), what));
            }
            _ => {}
        }
    }
    let keys: BTreeSet<i32> = found.iter().filter_map(Orphan::unfinished_key).collect();
    let mut found = pair::together(found);
    found.extend(set::sets_left_behind(&sets));
    found.extend(pipes::pipes_left_behind(&keys));
    found
}

/// What an object under a System V key is called that has no other name.
fn name_of(key: Key) -> String {
    format!("sysv:0x{:08x}", key.raw())
}

/// Whether this user may remove what that one owns.
fn is_ours(uid: u32) -> bool {
    let us = process::effective_uid();
    us == 0 || us == uid
}
