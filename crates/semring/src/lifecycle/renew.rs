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
//! 3 set, creation lock held     killed: a set that no ring names, its lock free
//! 4 the next record             killed: half a record, which is none; the one before still counts, and
//! 5 give the locks back           its set is missing, so the next opener begins at 1
//! ```
//! A maker beside readers can be at work when the last reader goes, so a maker that then has the file's lock alone
//! needs the makers' lock, too: otherwise the first maker could replace the record of the second one while
//! processes use its set.
//! New pipes are made likewise, in a directory of the same name. A record without a set is written first,
//! for processes that still have the old pipes open. A half-made directory does not count.
//!
//! Messages, positions and generations stay unchanged: the users of the old set count as killed.

use std::time::Instant;

use super::guards::{find_guard, renew_pipes};
use super::holder;
use super::open::{found_newest, memory_error, read_superblock};
use crate::error::OpenError;
use crate::guard::pipe::directory::Failure;
use crate::guard::semaphore::count_for;
use crate::guard::semaphore::set::{NewSet, SetFailure};
use crate::guard::timeouts::RENEWAL_TIMEOUT;
use crate::guard::{Guard, Mismatch};
use crate::layout::set_record::SetRecord;
use crate::layout::superblock::{GuardKind, SetIdentity, Superblock};
use crate::layout::view::RingView;
use crate::memory::Object;
use crate::os::clock;
use crate::sync::{Ordering, fence, yield_now};

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
            // Another maker was at work between the two looks.
            Ok(_) if is_over(end) => return Ok(Renewal::InUse),
            Ok(_) => {
                drop(held);
                yield_now();
                continue;
            }
            Err(Mismatch::Denied(error)) => {
                return Err(OpenError::Permission {
                    name: name.to_owned(),
                    source: error.into(),
                });
            }
            Err(Mismatch::Failed(error)) => {
                return Err(OpenError::Os {
                    name: name.to_owned(),
                    call: error.call,
                    source: error.into(),
                });
            }
            Err(_) => {}
        }
        if held.is_some() {
            if object
                .try_lock()
                .map_err(|error| memory_error(name, error))?
            {
                let _lock = Locked(object);
                // A maker beside readers may have had it until now.
                if is_still_missing(name, object, &superblock)? {
                    return make(name, object, view, superblock);
                }
            }
        } else if object
            .is_shared()
            .map_err(|error| memory_error(name, error))?
            && let Some(done) = make_beside_readers(name, object, view, superblock)?
        {
            return Ok(done);
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

/// Makes the guard although other processes hold shared locks, if none of them has a role according to
/// the [records](super::holder) in the ring.
fn make_beside_readers(
    name: &str,
    object: &Object,
    view: &RingView,
    mut superblock: Superblock,
) -> Result<Option<Renewal>, OpenError> {
    let lanes = superblock.geometry.lanes();
    let is_free = !holder::is_any_alive(view, lanes);
    let alone = is_free
        && object
            .try_lock()
            .map_err(|error| memory_error(name, error))?;
    if !alone {
        return Ok(None);
    }
    let _lock = Locked(object);
    // Another process may have held it until now.
    if !is_still_missing(name, object, &superblock)? {
        return Ok(None);
    }
    announce(name, object, view, &mut superblock)?;
    fence(Ordering::SeqCst);
    if holder::is_any_alive(view, lanes) {
        return Ok(None);
    }
    let Renewal::Done(mut superblock, guard) = make(name, object, view, superblock)? else {
        return Ok(None);
    };
    fence(Ordering::SeqCst);
    if holder::is_any_alive(view, lanes) {
        announce(name, object, view, &mut superblock)?;
        let _ = guard.destroy();
        return Ok(None);
    }
    Ok(Some(Renewal::Done(superblock, guard)))
}

/// Whether the guard is still missing, now that the makers' lock is held. The record alone does not tell: that of new
/// pipes is written before they are made, so another maker may have finished with the record that was read here.
fn is_still_missing(
    name: &str,
    object: &Object,
    superblock: &Superblock,
) -> Result<bool, OpenError> {
    let now = read_superblock(name, object)?;
    Ok(now.is_some_and(|now| now.record == superblock.record && find_guard(object, &now).is_err()))
}

/// Writes a record that names no set: from now on no process takes a role through an older one.
fn announce(
    name: &str,
    object: &Object,
    view: &RingView,
    superblock: &mut Superblock,
) -> Result<(), OpenError> {
    let inode = object.inode().map_err(|error| memory_error(name, error))?;
    let before = superblock.record.map_or(0, |record| record.sequence);
    let record = SetRecord::of(before.wrapping_add(1).max(1), SetIdentity::NONE, inode);
    view.write_record(&record);
    superblock.record = Some(record);
    Ok(())
}

fn make(
    name: &str,
    object: &Object,
    view: &RingView,
    mut superblock: Superblock,
) -> Result<Renewal, OpenError> {
    let lanes = superblock.geometry.lanes();
    let of_set = |failure| set_error(name, lanes, failure);
    let owner = object
        .ownership()
        .map_err(|error| memory_error(name, error))?;
    if superblock.guard == GuardKind::Pipe {
        // A process that opened the ring with other pipes (if the file was moved away from them) sees in
        // the record that there are new ones.
        announce(name, object, view, &mut superblock)?;
        let guard = renew_pipes(object, &superblock, owner, name)
            .map_err(|Failure { call, source }| pipe_error(name, call, source))?;
        return Ok(Renewal::Done(Box::new(superblock), guard));
    }
    let inode = object.inode().map_err(|error| memory_error(name, error))?;
    let mode = owner.mode & 0o777;
    let set = NewSet::create(lanes, mode).map_err(of_set)?;
    set.give_to(owner.uid, owner.gid, mode).map_err(of_set)?;
    let identity = set
        .identify(super::orphans::location_of(object))
        .map_err(of_set)?;
    let before = superblock.record.map_or(0, |record| record.sequence);
    let record = SetRecord::of(before.wrapping_add(1).max(1), identity, inode);
    view.write_record(&record);
    superblock.set = identity;
    superblock.ipc_namespace = record.ipc_namespace;
    superblock.record = Some(record);
    Ok(Renewal::Done(Box::new(superblock), Box::new(set.finish())))
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
