//! Orphans: objects that killed programs leave behind, found and removed without harm to running
//! programs.
//!
//! ```text
//! what                        proof that it is not needed                       removed under
//! ring that was made because  no producer, no consumer, no creator, no remover, its removal flag
//!   it was missing              by its semaphores; nothing unread
//! such a ring without its     its superblock names our IPC namespace, and the   a lock on the file;
//!   semaphores                  set is not there                                  a segment's id
//! unfinished System V ring    a set under its key, or a file that locks the     the same; the segment
//!                               key, proves that its creator was semring; its     is removed before
//!                               creation lock is free, it is not mapped           its proof
//! set without a ring          lock and flag are free, no process is attached,   lock and flag
//!                               no ring names it in the place that it records
//! directory of pipes          none of its locks is held, and the ring that it   its lock of creators
//!                               names is not there
//! file that locked a key      not locked                                        itself
//! ```
//! A look ([`orphans`]) changes nothing. A [removal](Orphan::remove) decides again, with the kernel's
//! locks held: a creator between set and name holds the creation lock, an opener that attaches at the
//! same moment is either refused by the removal flag or makes the removal give up. If the remover is
//! killed in between, the kernel releases the locks.
//!
//! A pair is a unit: it is removed when both of its rings may be removed, and both removal flags
//! are up.
//!
//! A ring that was made by `create` is never touched, nor is an object that can't be read, one of
//! another format version, or a set whose ring may be somewhere else (a file, a memfd, the /dev/shm of
//! another mount namespace).

mod pair;
mod pipes;
mod ring;
mod set;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::open::{memory_error, plausible_length};
use super::remove::{sysv_error, unlink_error};
use super::under_key::{ClearError, Cleared, Foreign, Under, under};
use crate::error::RemoveError;
use crate::guard::semaphore::abandoned::SeizedSet;
use crate::layout::superblock::{GuardKind, Superblock, SuperblockError};
use crate::memory::{self, Access, Address, MemoryError, Object, Place};
use crate::os::process;
use crate::os::sysv::Key;
pub(super) use pipes::sweep_beside;
pub(super) use set::{location, location_of, no_ring_names};

/// The kind of an orphan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OrphanKind {
    /// A ring made with [`auto_remove`](crate::Builder::auto_remove) that no process uses any more.
    Ring,
    /// Such a ring whose semaphores or pipes are gone, so that no process can use it.
    GuardMissing,
    /// A ring whose creator died before it was ready.
    Unfinished,
    /// Semaphores whose ring is gone or was never made.
    Semaphores,
    /// Pipes whose ring is gone or was never made.
    Pipes,
    /// An object that resembles an orphan, without proof that a program of this library made it. It is never
    /// removed; [`Orphan::why_it_stays`] returns the reason.
    Foreign,
}

/// An object that killed programs left behind.
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

/// What to do with a ring that has unread messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unread {
    /// Keep the ring.
    Keep,
    /// Remove it; its messages are lost.
    Discard,
}

/// What became of an [`Orphan`] that was to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PruneOutcome {
    /// It was removed.
    Removed,
    /// It stays: messages are unread, and were not to be discarded.
    Unread {
        /// The number that can be read; 0 if there are none before damaged bytes.
        messages: u64,
    },
    /// It stays: a process uses it by now.
    InUse,
    /// It stays: there is no proof that a program of this library made it.
    Foreign,
}

impl Orphan {
    /// The ring's address, or another name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of the orphan.
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

    /// For a [`Foreign`](OrphanKind::Foreign) object: its description, and what can be done about
    /// it.
    #[must_use]
    pub fn why_it_stays(&self) -> Option<&str> {
        match &self.what {
            What::Foreign { why } => Some(why),
            _ => None,
        }
    }

    /// Whether a [`GuardMissing`](OrphanKind::GuardMissing) ring had semaphores or pipes.
    #[must_use]
    pub fn lost_guard(&self) -> Option<GuardKind> {
        match self.what {
            What::GuardMissing { guard, .. } => Some(guard),
            _ => None,
        }
    }

    /// The number of unread messages.
    #[must_use]
    pub fn unread_messages(&self) -> u64 {
        self.unread_messages
    }

    /// True if it holds unread messages, or damaged bytes that may hide some.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Removes it, if it is still in the state in which it was found. With [`Unread::Keep`] a ring with
    /// unread messages stays.
    ///
    /// For several at once, [`remove_all`](Self::remove_all) is faster.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] and the others. It is no error if the object is gone already.
    pub fn remove(&self, policy: Unread) -> Result<PruneOutcome, RemoveError> {
        let [outcome] = Self::remove_all(std::slice::from_ref(self), policy)
            .try_into()
            .expect("one outcome for one leftover");
        outcome
    }

    /// Removes all of them as [`remove`](Self::remove) does, and returns the results in the same order. A
    /// failure does not stop the others. The rings in /dev/shm are read once.
    ///
    /// ```no_run
    /// let found = semring::orphans();
    /// for (leftover, outcome) in found.iter().zip(semring::Orphan::remove_all(&found, semring::Unread::Keep)) {
    ///     println!("{}: {outcome:?}", leftover.name());
    /// }
    /// ```
    #[must_use]
    pub fn remove_all(found: &[Self], policy: Unread) -> Vec<Result<PruneOutcome, RemoveError>> {
        // All sets are held before the rings are read: from then on no creator gives a name to one of
        // them.
        let held: Vec<Option<Result<Option<SeizedSet>, RemoveError>>> = found
            .iter()
            .map(|orphan| match orphan.what {
                What::Semaphores { id } => Some(orphan.seize_set(id)),
                _ => None,
            })
            .collect();
        let references = OnceCell::new();
        let each = found.iter().zip(held);
        each.map(|(orphan, held)| match &orphan.what {
            What::Ring { address, uuid } => ring::remove_ring(address, uuid, policy),
            What::Pair { up, uuid, down } => pair::remove(up, uuid, down, policy),
            What::GuardMissing { place, uuid, .. } => {
                orphan.remove_without_guard(place, uuid, policy)
            }
            What::Unfinished { key } => orphan.remove_unfinished(*key),
            What::Semaphores { id } => match held {
                Some(Ok(Some(held))) => orphan.remove_set(*id, &held, &references),
                Some(Err(error)) => Err(error),
                Some(Ok(None)) | None => Ok(PruneOutcome::InUse),
            },
            What::Pipes { directory } => orphan.remove_pipes(directory),
            What::KeyFile { key } => orphan.remove_key_file(*key),
            What::Foreign { .. } => Ok(PruneOutcome::Foreign),
        })
        .collect()
    }

    fn remove_unfinished(&self, key: Key) -> Result<PruneOutcome, RemoveError> {
        let Under::Unfinished(unfinished) = under(key) else {
            return Ok(PruneOutcome::Removed);
        };
        match unfinished.remove() {
            Ok(Cleared::Removed) => Ok(PruneOutcome::Removed),
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

    /// The key of a segment whose proof is removed with it.
    fn unfinished_key(&self) -> Option<i32> {
        match self.what {
            What::Unfinished { key } => Some(key.raw()),
            _ => None,
        }
    }

    /// An object without messages.
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
/// /dev/shm, rings first. Changes nothing.
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

/// The name of an object under a System V key that has no other name.
fn name_of(key: Key) -> String {
    format!("sysv:0x{:08x}", key.raw())
}

/// Whether this user may remove objects of that user.
fn is_ours(uid: u32) -> bool {
    let us = process::effective_uid();
    us == 0 || us == uid
}
