//! Making a ring.
//!
//! # POSIX, file, memfd, anonymous: published when ready
//! ```text
//! 1 unnamed file, allocated      killed: nothing is left
//! 2 semaphore set, lock I held   killed: a set that no ring names, with a free lock: an orphan
//! 3 superblock, READY            killed: likewise
//! 4 link the name, or seal       killed: a complete ring with the lock free: usable
//! 5 give the lock back
//! ```
//! A file has all its blocks on its disk before it gets its name. Memory without a name is complete when
//! it is sealed; a creator that is killed leaves only the set.
//!
//! # System V: visible from the start
//! ```text
//! 1 set under the same key, I    killed: a set with all slots free: the next one adopts it
//! 2 segment under the key        killed: zeros, not attached, lock free: the set proves that it is
//!                                  ours, and the next one removes it
//! 3 superblock, state INIT       killed: likewise
//! 4 check value; READY; lock     killed: a complete ring
//! ```
//! The lock is a semaphore with undo, so the kernel proves that the creator is dead. With pipes a file that
//! locks the key takes the place of the set in 1 and 2: see [`super::key_lock`]. A segment without such a
//! proof is another program's, and stays: see [`super::under_key`].

mod sysv;
mod unnamed;

use std::sync::Arc;

use super::guards::NewGuard;
use super::limits::{NO_KEY, check_limits, no_room_for};
use super::{GuardChoice, Plan, RingCore, SharedRing};
use crate::error::CreateError;
use crate::guard::GuardError;
use crate::guard::pipe::directory::Failure;
use crate::guard::semaphore::count_for;
use crate::guard::semaphore::set::SetFailure;
use crate::layout::features::KNOWN;
use crate::layout::set_record::SetRecord;
use crate::layout::superblock::{MAGIC, STATE_INIT, SetIdentity, Superblock};
use crate::layout::view::RingView;
use crate::memory::{Address, MemoryError, NewObject, Object, Place, Request, Segment};
use crate::os::errno::ENOSYS;
use crate::os::{clock, process};
use crate::sync::{Ordering, fence};

/// Makes a ring; fails if there is one.
pub(crate) fn create(address: &Address, plan: &Plan) -> Result<SharedRing, CreateError> {
    let name = address.to_string();
    let place = address.place().map_err(|source| CreateError::Os {
        name: name.clone(),
        call: "ftok",
        source,
    })?;
    if plan.guard == GuardChoice::Semaphore {
        semaphores_work(&name, plan)?;
    }
    match &place {
        Place::Sysv(_) => sysv::create_in_place(address, &name, &place, plan),
        Place::Descriptor(_) => Err(CreateError::BadOption {
            what: "the address of a new ring",
            value: name,
            allowed: "a descriptor can be opened if it leads to a ring; make one with memfd:",
        }),
        _ => unnamed::create_unnamed(address, &name, &place, plan),
    }
}

impl Plan {
    fn request(&self) -> Request {
        Request {
            len: self.geometry.segment_bytes(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            pages: self.pages,
        }
    }
}

/// The guard of a ring that is being made.
struct New {
    guard: NewGuard,
    uuid: [u8; 16],
    /// Why it is not the preferred guard.
    fallback: Option<String>,
}

fn uuid(name: &str) -> Result<[u8; 16], CreateError> {
    process::random().map_err(|source| CreateError::Os {
        name: name.to_owned(),
        call: "getrandom",
        source,
    })
}

impl New {
    fn choose(
        name: &str,
        plan: &Plan,
        uuid: [u8; 16],
        set: impl FnOnce() -> Result<NewGuard, CreateError>,
        pipes: impl FnOnce() -> Result<NewGuard, CreateError>,
    ) -> Result<Self, CreateError> {
        let new = |guard, fallback| Self {
            guard,
            uuid,
            fallback,
        };
        match plan.guard {
            GuardChoice::Semaphore => set().map(|guard| new(guard, None)),
            GuardChoice::Pipe => pipes().map(|guard| new(guard, None)),
            GuardChoice::Auto => match semaphores_work(name, plan).and_then(|()| set()) {
                Ok(guard) => Ok(new(guard, None)),
                Err(refused) => match (why_pipes(&refused), pipes()) {
                    (Some(why), Ok(guard)) => Ok(new(guard, Some(why))),
                    // Advice about the semaphores is more useful.
                    _ => Err(refused),
                },
            },
        }
    }
}

/// The reason for pipes, if semaphores were refused for a reason that does not apply to pipes.
fn why_pipes(refused: &CreateError) -> Option<String> {
    match refused {
        CreateError::SemaphoreLimit { limit, .. } => Some(limit.clone()),
        CreateError::Permission { source, .. } => {
            Some(format!("semaphores are forbidden here (semget: {source})"))
        }
        _ => None,
    }
}

/// Refuses where a semaphore set could be made, but would not work.
fn semaphores_work(name: &str, plan: &Plan) -> Result<(), CreateError> {
    check_limits(name, plan)?;
    match crate::os::sandbox::semaphores() {
        Ok(()) => Ok(()),
        Err(reason) => Err(CreateError::SemaphoreLimit {
            name: name.to_owned(),
            limit: reason.why().to_owned(),
        }),
    }
}

fn pipes(
    name: &str,
    place: &Place,
    plan: &Plan,
    object: &NewObject,
    uuid: &[u8; 16],
) -> Result<NewGuard, CreateError> {
    let owner = object
        .ownership()
        .map_err(|error| memory_error(name, error))?;
    NewGuard::pipes(
        name,
        place,
        object,
        owner,
        plan.mode,
        plan.geometry.lanes(),
        uuid,
    )
    .map_err(|failure| pipe_error(name, failure))
}

fn pipe_error(name: &str, Failure { call, source }: Failure) -> CreateError {
    let name = name.to_owned();
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        return CreateError::Permission { name, source };
    }
    CreateError::Os { name, call, source }
}

fn make_memory(
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<(NewObject, Segment), CreateError> {
    let (object, segment) =
        NewObject::create(place, &plan.request()).map_err(|error| memory_error(name, error))?;
    if plan.locked {
        segment.lock().map_err(|error| memory_error(name, error))?;
    }
    Ok((object, segment))
}

/// Makes set and memory one ring, except for READY.
fn fill(
    address: &Address,
    place: &Place,
    plan: &Plan,
    new: &New,
    segment: Segment,
    object: &NewObject,
) -> Result<(Superblock, RingView), CreateError> {
    let name = address.to_string();
    let failure = |failure| set_error(&name, plan, failure);
    // The memory may have a group that was not requested: that of its folder.
    let owner = object
        .ownership()
        .map_err(|error| memory_error(&name, error))?;
    let set = new
        .guard
        .identify(place, owner, plan.mode)
        .map_err(failure)?;
    let superblock = Superblock {
        kind: plan.kind,
        geometry: plan.geometry,
        guard: new.guard.kind(),
        uuid: new.uuid,
        set,
        auto_remove: plan.auto_remove,
        when_full: plan.when_full,
        features: KNOWN,
        schema: plan.schema,
        created_ns: clock::realtime_ns(),
        creator_pid: process::id(),
        creator_uid: process::effective_uid(),
        ipc_namespace: process::ipc_namespace().unwrap_or(0),
        name: stored_name(address),
        key_file: address.key_file().ok().flatten(),
        record: None,
        record_word: 0,
    };
    let view = RingView::new(Arc::new(segment), plan.geometry)
        .expect("a new segment has the requested length");
    view.state().store(STATE_INIT, Ordering::Release);
    // The magic first, in one store: if the creator is killed later, the segment can be recognised as
    // semring's. The copy that follows writes its bytes in any order, so a fence keeps the two apart.
    view.magic()
        .store(u64::from_le_bytes(MAGIC), Ordering::Relaxed);
    fence(Ordering::SeqCst);
    view.write_superblock(&superblock.encode());
    Ok((superblock, view))
}

fn stored_name(address: &Address) -> String {
    let mut name = address.name();
    while name.len() > crate::layout::superblock::MAX_NAME_BYTES {
        name.pop();
    }
    name
}

impl SetRecord {
    /// The record, in a ring whose memory outlives its set, of a set that was made here and now.
    pub(super) fn of(sequence: u64, set: SetIdentity, inode: u64) -> Self {
        Self {
            sequence,
            set,
            maker_uid: process::effective_uid(),
            inode,
            ipc_namespace: process::ipc_namespace().unwrap_or(0),
            boot: process::boot_id().unwrap_or_default(),
        }
    }
}

fn finish(
    address: &Address,
    superblock: Superblock,
    view: RingView,
    new: New,
    object: Object,
) -> Result<SharedRing, CreateError> {
    let guard = new.guard.finish(object.goes_with_its_users());
    let guard = guard.map_err(|error| match error {
        GuardError::Removed => CreateError::Busy {
            name: address.to_string(),
        },
        GuardError::Os { call, errno } => CreateError::Os {
            name: address.to_string(),
            call,
            source: std::io::Error::from_raw_os_error(errno),
        },
    })?;
    Ok(Arc::new(RingCore {
        address: address.clone(),
        superblock,
        view,
        guard,
        object,
        created: true,
        fallback: new.fallback,
    }))
}

fn set_error(name: &str, plan: &Plan, failure: SetFailure) -> CreateError {
    let name = name.to_owned();
    match failure {
        SetFailure::Foreign => CreateError::NotARing {
            name,
            what: "the key belongs to a semaphore set of another program".to_owned(),
        },
        SetFailure::Busy => CreateError::Busy { name },
        // Removed from its creator: see `sysv`, which begins again.
        SetFailure::Failed(error) if error.is_removed() => CreateError::Busy { name },
        SetFailure::NoKey => CreateError::SemaphoreLimit {
            name,
            limit: NO_KEY.to_owned(),
        },
        SetFailure::Failed(error) if error.no_space() => CreateError::SemaphoreLimit {
            name,
            limit: no_room_for(count_for(plan.geometry.lanes()) as u64),
        },
        SetFailure::Failed(error) if error.permission_denied() => CreateError::Permission {
            name,
            source: error.into(),
        },
        SetFailure::Failed(error) if error.errno() == ENOSYS => CreateError::SemaphoreLimit {
            name,
            limit: "this kernel or sandbox has no System V semaphores (semget: not implemented)"
                .to_owned(),
        },
        SetFailure::Failed(error) => CreateError::Os {
            name,
            call: error.call(),
            source: error.into(),
        },
    }
}

fn memory_error(name: &str, error: MemoryError) -> CreateError {
    let name = name.to_owned();
    match error {
        MemoryError::Exists => CreateError::Exists { name },
        MemoryError::WrongType(what) => CreateError::NotARing {
            name,
            what: what.to_owned(),
        },
        MemoryError::Denied(source) => CreateError::Permission { name, source },
        MemoryError::NoSpace {
            requested,
            free,
            hint,
        } => CreateError::NoSpace {
            name,
            requested,
            free,
            hint,
        },
        MemoryError::Limit(limit) => CreateError::MemoryLimit { name, limit },
        MemoryError::NotFound => CreateError::Busy { name },
        MemoryError::Os { call, source } => CreateError::Os { name, call, source },
    }
}
