//! Making a new guard: the memory of a `file:` ring outlives its semaphores (a restart, a logout with
//! RemoveIPC, `ipcrm`), and so does a memfd on its way between processes.
//!
//! A process that takes a role holds the file's lock, shared, and only then checks whether its set is still
//! the one of the newest record. So while the lock is held exclusively no process has a role through any set
//! of the ring, in any IPC namespace, and no process gets one through an older set afterwards. A process that
//! may only read the file can hold the lock, shared, too: if there are shared locks, the records of the
//! [holders](super::holder) decide.
//!
//! ```text
//! 1 lock, alone, and that of
//!   makers beside readers       killed: the kernel gives both back
//! 2 is the set still missing?   (another opener may have made one)
//! 3 record word: odd            killed: no record counts, so the next opener begins at 1
//! 4 does any process hold a     yes: the next opener looks again
//!   role? (beside readers)
//! 5 set, creation lock held     killed: a set that no ring names, its lock free
//! 6 the next record             killed: a record that does not count
//! 7 record word: even           (from here on the record counts)
//! 8 give the locks back
//! ```
//! A reader that locks every byte can keep the makers' lock, too. Then makers go on without that lock, and may
//! overtake each other: steps 3 and 7 compare the word with its last value, so the record of a maker that was overtaken
//! never counts, and its set is removed again. A maker waits for [`OVERTAKE_AFTER`] before it overtakes another one; no
//! safety depends on that time.
//!
//! New pipes are made in a directory of the same name as the old one. Step 7 comes before they are made, for processes that
//! still have the old pipes open. A half-made directory does not count. Makers of pipes exclude each other by the makers'
//! lock only.
//!
//! Messages, positions and generations stay unchanged: the users of the old set count as killed.

use std::time::Instant;

use super::guards::{find_guard, renew_pipes};
use super::holder;
use super::open::{found_newest, guard_error, memory_error, read_superblock};
use crate::error::OpenError;
use crate::guard::pipe::directory::Failure;
use crate::guard::semaphore::count_for;
use crate::guard::semaphore::set::{NewSet, SetFailure};
use crate::guard::timeouts::{OVERTAKE_AFTER, RENEWAL_TIMEOUT};
use crate::guard::{Guard, Mismatch};
use crate::layout::set_record::{SetRecord, record_word};
use crate::layout::superblock::{GuardKind, SetIdentity, Superblock};
use crate::layout::view::RingView;
use crate::memory::{Object, Ownership};
use crate::os::clock;
use crate::sync::{Ordering, yield_now};

/// The result of making a new guard.
pub(super) enum Renewal {
    /// The ring has this guard, made by this process or in the meantime by another one.
    Done(Box<Superblock>, Box<dyn Guard>),
    /// The name leads to another object by now.
    Gone,
    /// A process has a role through a set that can't be found here.
    InUse,
}

/// Makes a new guard for a ring that was opened without one.
pub(super) fn renew(
    name: &str,
    object: &Object,
    view: &RingView,
    found: &Superblock,
) -> Result<Renewal, OpenError> {
    let end = clock::now() + RENEWAL_TIMEOUT;
    let mut unfinished = Unfinished::default();
    loop {
        let alone = object
            .take_over()
            .map_err(|error| memory_error(name, error))?;
        let held = alone.then(|| TakenOver(object));
        if !object
            .has_its_name()
            .map_err(|error| memory_error(name, error))?
        {
            return Ok(Renewal::Gone);
        }
        let Some(superblock) = read_superblock(name, object)? else {
            return Ok(Renewal::Gone);
        };
        if superblock.uuid != found.uuid {
            return Ok(Renewal::Gone);
        }
        match find_guard(object, &superblock) {
            Ok(guard) if found_newest(name, object, &superblock)? => {
                return Ok(Renewal::Done(Box::new(superblock), guard));
            }
            // A maker of pipes was killed before it made them.
            Ok(_) if record_word::is_announced(superblock.record_word) => {}
            // Another maker was at work between the two looks.
            Ok(_) if is_over(end) => return Ok(Renewal::InUse),
            Ok(_) => {
                drop(held);
                yield_now();
                continue;
            }
            Err(refused @ (Mismatch::Denied(_) | Mismatch::Failed(_))) => {
                return Err(guard_error(name, object, &superblock, refused));
            }
            Err(_) => {}
        }
        let is_shared = || {
            let shared = object.is_shared();
            shared.map_err(|error| memory_error(name, error))
        };
        if held.is_some() || is_shared()? {
            let maker = Maker {
                name,
                object,
                view,
                is_alone: held.is_some(),
            };
            if let Some(done) = maker.make_next(superblock, &mut unfinished)? {
                return Ok(done);
            }
        }
        if is_over(end) {
            return Ok(Renewal::InUse);
        }
        yield_now();
    }
}

fn is_over(end: Instant) -> bool {
    clock::now() >= end
}

/// The object's lock, held exclusively; released on drop.
struct TakenOver<'a>(&'a Object);

impl Drop for TakenOver<'_> {
    fn drop(&mut self) {
        self.0.end_take_over();
    }
}

/// The lock used by removers, and by makers of a guard if there are readers; released on drop.
struct Locked<'a>(&'a Object);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// Another maker's announcement, and when this process first saw it.
#[derive(Default)]
struct Unfinished {
    seen: Option<(u64, Instant)>,
}

impl Unfinished {
    /// True if this value of the record word is an announcement that may still be followed by a set.
    fn is_fresh(&mut self, word: u64) -> bool {
        if !record_word::is_announced(word) {
            return false;
        }
        let now = clock::now();
        let since = match self.seen {
            Some((seen, since)) if seen == word => since,
            _ => now,
        };
        self.seen = Some((word, since));
        now.saturating_duration_since(since) < OVERTAKE_AFTER
    }
}

/// A process that has found the guard of a ring missing.
struct Maker<'a> {
    name: &'a str,
    object: &'a Object,
    view: &'a RingView,
    /// It has the object's lock exclusively: no process holds a role. Otherwise other processes hold shared locks, and
    /// the [records](super::holder) in the ring tell whether any of them has a role.
    is_alone: bool,
}

impl Maker<'_> {
    /// Makes the guard; `None` if another process is or was at work, or has a role.
    fn make_next(
        &self,
        mut superblock: Superblock,
        unfinished: &mut Unfinished,
    ) -> Result<Option<Renewal>, OpenError> {
        let of_memory = |error| memory_error(self.name, error);
        if self.is_in_use(&superblock) || !self.object.try_lock().map_err(of_memory)? {
            return Ok(None);
        }
        let _lock = Locked(self.object);
        if self.object.is_lock_shared().map_err(of_memory)?
            && unfinished.is_fresh(superblock.record_word)
        {
            return Ok(None);
        }
        // Another maker may have had the lock until now.
        let announced = record_word::announced_after(superblock.record_word);
        if !is_still_missing(self.name, self.object, &superblock)? {
            return Ok(None);
        }
        let change = (superblock.record_word, announced);
        let look = || self.is_in_use(&superblock);
        let Some(is_in_use) = holder::announce_then_look(self.view.record_word(), change, look)
        else {
            return Ok(None);
        };
        superblock.record_word = announced;
        if superblock.guard == GuardKind::Pipe {
            // Also if a role is held: its pipes may be where the file has another name, and stay the ring's.
            let is_published = self.publish(&mut superblock, SetIdentity::NONE)?;
            if !is_published || is_in_use {
                return Ok(None);
            }
            return self.make_pipes(superblock);
        }
        if is_in_use {
            return Ok(None);
        }
        self.make_set(superblock)
    }

    fn is_in_use(&self, superblock: &Superblock) -> bool {
        !self.is_alone && holder::is_any_alive(self.view, superblock.geometry.lanes())
    }

    /// Changes the record word; false if another maker has changed it since it was read.
    fn change_word(&self, superblock: &mut Superblock, to: u64) -> bool {
        let changed = self.view.record_word().compare_exchange(
            superblock.record_word,
            to,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        superblock.record_word = to;
        changed.is_ok()
    }

    /// Writes the record of the set and lets it count; false if another maker has overtaken this one.
    fn publish(&self, superblock: &mut Superblock, set: SetIdentity) -> Result<bool, OpenError> {
        let inode = self.object.inode();
        let inode = inode.map_err(|error| memory_error(self.name, error))?;
        let sequence = record_word::sequence_after(superblock.record_word);
        let record = SetRecord::of(sequence, set, inode);
        self.view.write_record(&record);
        superblock.set = set;
        superblock.ipc_namespace = record.ipc_namespace;
        superblock.record = Some(record);
        Ok(self.change_word(superblock, record_word::published(sequence)))
    }

    fn make_pipes(&self, superblock: Superblock) -> Result<Option<Renewal>, OpenError> {
        let owner = self.owner()?;
        match renew_pipes(self.object, &superblock, owner, self.name) {
            Ok(guard) => Ok(Some(Renewal::Done(Box::new(superblock), guard))),
            // Of another maker.
            Err(failure) if failure.source.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
            Err(Failure { call, source }) => Err(pipe_error(self.name, call, source)),
        }
    }

    fn make_set(&self, mut superblock: Superblock) -> Result<Option<Renewal>, OpenError> {
        let lanes = superblock.geometry.lanes();
        let of_set = |failure| set_error(self.name, lanes, failure);
        let owner = self.owner()?;
        let mode = owner.mode & 0o777;
        let set = NewSet::create(lanes, mode).map_err(of_set)?;
        set.give_to(owner.uid, owner.gid, mode).map_err(of_set)?;
        let location = super::orphans::location_of(self.object);
        let identity = set.identify(location).map_err(of_set)?;
        // If it was overtaken, dropping the set removes it.
        let is_published = self.publish(&mut superblock, identity)?;
        Ok(is_published.then(|| Renewal::Done(Box::new(superblock), Box::new(set.finish()))))
    }

    fn owner(&self) -> Result<Ownership, OpenError> {
        let owner = self.object.ownership();
        owner.map_err(|error| memory_error(self.name, error))
    }
}

/// Whether the guard is still missing, now that the makers' lock is held. The record alone does not show it: that of new
/// pipes counts before they are made, so another maker may have finished with the record that was read here.
fn is_still_missing(
    name: &str,
    object: &Object,
    superblock: &Superblock,
) -> Result<bool, OpenError> {
    let now = read_superblock(name, object)?;
    Ok(now.is_some_and(|now| {
        now.record_word == superblock.record_word
            && (record_word::is_announced(now.record_word) || find_guard(object, &now).is_err())
    }))
}

fn pipe_error(name: &str, call: &'static str, source: std::io::Error) -> OpenError {
    let name = name.to_owned();
    // Only the ring's owner can make them: another user can't give them away.
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        return OpenError::Permission { name, source };
    }
    OpenError::Os { name, call, source }
}

fn set_error(name: &str, lanes: usize, failure: SetFailure) -> OpenError {
    let name = name.to_owned();
    match failure {
        SetFailure::Failed(error) if error.no_space() => OpenError::MemoryLimit {
            name,
            limit: super::limits::no_room_for(count_for(lanes) as u64),
        },
        SetFailure::Failed(error) if error.permission_denied() => OpenError::Permission {
            name,
            source: error.into(),
        },
        SetFailure::Failed(error) => OpenError::Os {
            name,
            call: error.call(),
            source: error.into(),
        },
        SetFailure::NoKey => OpenError::MemoryLimit {
            name,
            limit: super::limits::NO_KEY.to_owned(),
        },
        SetFailure::Foreign | SetFailure::Busy => OpenError::Busy { name },
    }
}
