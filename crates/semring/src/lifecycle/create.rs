//! Making a ring.
//!
//! # POSIX, file, memfd, anonymous: published when ready
//! ```text
//! 1 unnamed file, allocated      killed: nothing is left
//! 2 semaphore set, lock I held   killed: a set that no ring names; its lock is free, so it is known
//! 3 superblock, READY              to be an orphan
//! 4 link the name, or seal       killed: a complete ring with the lock free: usable
//! 5 give the lock back
//! ```
//! A file has everything on its disk before it gets its name. Memory without a name is complete when it is
//! sealed; who is killed then leaves nothing but the set.
//!
//! # System V: visible from the start
//! ```text
//! 1 set under the same key, I    killed: a set with all seats empty: the next one adopts it
//! 2 segment under the key        killed: zeros, nobody attached, lock free: the next one removes it
//! 3 superblock, state INIT       killed: likewise, known by its magic
//! 4 check value; READY; lock     killed: a complete ring
//! ```
//! The lock is a semaphore with undo, so "the creator is dead" is the kernel's word, not a guess.

use std::sync::Arc;
use std::time::Duration;

use super::guards::NewGuard;
use super::{GuardChoice, Plan, RingCore, SharedRing};
use crate::error::CreateError;
use crate::guard::GuardError;
use crate::guard::semaphore::{count_for, operations_for};
use crate::guard::set::{NewSet, SetTrouble, creation_ended};
use crate::guard::site::{KeyLock, Trouble};
use crate::layout::set_record::SetRecord;
use crate::layout::superblock::{
    MAGIC, STATE_INIT, STATE_READY, SetIdentity, Superblock, SuperblockError,
};
use crate::layout::view::RingView;
use crate::memory::{
    Access, Address, MemoryError, NewObject, Object, Place, Request, Segment, sysv_key,
};
use crate::os::{clock, process, sysv};
use crate::sync::{Ordering, fence, yield_now};

/// How long another creator or remover may take before we give up on it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long somebody who only looks may have a segment mapped, on a machine that is very busy.
const GLANCE: Duration = Duration::from_secs(1);

/// Makes a ring; fails if there is one.
pub(crate) fn create(address: &Address, plan: &Plan) -> Result<SharedRing, CreateError> {
    let name = address.to_string();
    let guard = plan
        .guard
        .resolve()
        .map_err(|value| CreateError::BadOption {
            what: "SEMRING_GUARD",
            value,
            allowed: "auto, semaphore or pipe",
        })?;
    let plan = &Plan {
        guard,
        ..plan.clone()
    };
    let place = address.place().map_err(|source| CreateError::Os {
        name: name.clone(),
        call: "ftok",
        source,
    })?;
    if plan.guard == GuardChoice::Semaphore {
        semaphores_work(&name, plan)?;
    }
    match &place {
        Place::Sysv(_) => create_in_place(address, &name, &place, plan),
        Place::Descriptor(_) => Err(CreateError::BadOption {
            what: "the address of a new ring",
            value: name,
            allowed: "a descriptor can be opened if a ring is behind it; make one with memfd:",
        }),
        _ => create_unnamed(address, &name, &place, plan),
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

fn create_unnamed(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<SharedRing, CreateError> {
    // A look first, so that no gigabyte is allocated only to find the name taken. The link decides.
    match Object::open(place, Access::ReadOnly) {
        Err(MemoryError::NotFound) => {}
        // (What may not be looked at falls to the last arm: whether it is a ring is not ours to know.)
        Ok(_) | Err(MemoryError::WrongType(_)) => {
            return Err(CreateError::Exists {
                name: name.to_owned(),
            });
        }
        Err(error) => return Err(memory_error(name, error)),
    }
    let (object, segment) = make_memory(name, place, plan)?;
    let new = New::beside(name, place, plan, &object, &uuid(name)?)?;
    let (mut superblock, view) = fill(address, place, plan, &new, segment, &object)?;
    if object.outlives_its_guard() && superblock.set != SetIdentity::NONE {
        let inode = object.inode().map_err(|error| memory_error(name, error))?;
        let record = SetRecord::of(1, superblock.set, inode);
        view.write_record(&record);
        superblock.record = Some(record);
    }
    view.state().store(STATE_READY, Ordering::Release);
    // Dropping `new` on the way out removes the guard; the unnamed file goes by itself.
    let object = object
        .publish()
        .map_err(|error| memory_error(name, error))?;
    finish(address, superblock, view, new, object)
}

/// The guard of a ring that is being made.
struct New {
    guard: NewGuard,
    uuid: [u8; 16],
    /// Why it is not what would have been better.
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
    /// For memory that has no name yet.
    fn beside(
        name: &str,
        place: &Place,
        plan: &Plan,
        object: &NewObject,
        uuid: &[u8; 16],
    ) -> Result<Self, CreateError> {
        let lanes = plan.geometry.lanes();
        let set = || {
            NewSet::create(lanes, plan.mode)
                .map(NewGuard::Set)
                .map_err(|trouble| set_error(name, plan, trouble))
        };
        let pipes = || pipes(name, place, plan, object, uuid);
        Self::choose(name, plan, *uuid, set, pipes)
    }

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
                    // What can be done about the semaphores is the better advice.
                    _ => Err(refused),
                },
            },
        }
    }
}

/// Why a ring gets pipes, if that is a way out of a refusal of semaphores.
fn why_pipes(refused: &CreateError) -> Option<String> {
    match refused {
        CreateError::SemaphoreLimit { limit, .. } => Some(limit.clone()),
        CreateError::Permission { source, .. } => {
            Some(format!("semaphores are forbidden here (semget: {source})"))
        }
        _ => None,
    }
}

/// Refuses where a semaphore set could be made, and would not do.
fn semaphores_work(name: &str, plan: &Plan) -> Result<(), CreateError> {
    check_limits(name, plan)?;
    match crate::os::sandbox::semaphores() {
        Ok(()) => Ok(()),
        Err(unfit) => Err(CreateError::SemaphoreLimit {
            name: name.to_owned(),
            limit: unfit.why().to_owned(),
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
    .map_err(|trouble| pipe_error(name, trouble))
}

fn pipe_error(name: &str, Trouble { call, source }: Trouble) -> CreateError {
    let name = name.to_owned();
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        return CreateError::Permission { name, source };
    }
    CreateError::Os { name, call, source }
}

fn create_in_place(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<SharedRing, CreateError> {
    let key = sysv_key(place).expect("a System V place has a key");
    let is_ring = || matches!(leftover(place), Leftover::Ring);
    // A look before anything is made: what is not ours stays as it is.
    match leftover(place) {
        Leftover::Ring => {
            return Err(CreateError::Exists {
                name: name.to_owned(),
            });
        }
        Leftover::Foreign(what) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what,
            });
        }
        Leftover::Failed(error) => return Err(memory_error(name, error)),
        Leftover::Nothing | Leftover::Unfinished(_) => {}
    }
    let taken = || CreateError::Exists {
        name: name.to_owned(),
    };
    let busy = || CreateError::Busy {
        name: name.to_owned(),
    };
    // Whoever makes a ring with pipes under this key has to be through. Each locks first, and then looks at
    // the other's lock: of two who meet, this one steps back.
    let lock_set = || {
        loop {
            if !KeyLock::is_free(key.raw(), PATIENCE) {
                return Err(busy());
            }
            let set = NewSet::lock(key, plan.geometry.lanes(), plan.mode, PATIENCE, is_ring)
                .map_err(|trouble| set_error(name, plan, trouble))?
                .ok_or_else(taken)?;
            if KeyLock::is_free(key.raw(), Duration::ZERO) {
                return Ok(NewGuard::Set(set));
            }
        }
    };
    let locked = match plan.guard {
        GuardChoice::Pipe => Err(None),
        GuardChoice::Semaphore => Ok(lock_set()?),
        GuardChoice::Auto => match semaphores_work(name, plan).and_then(|()| lock_set()) {
            Ok(set) => Ok(set),
            Err(refused) => Err(Some(why_pipes(&refused).ok_or(refused)?)),
        },
    };
    match locked {
        Ok(guard) => make_in_place(address, name, place, plan, None, |_, uuid| {
            Ok(New {
                guard,
                uuid,
                fallback: None,
            })
        }),
        Err(fallback) => {
            let lock = KeyLock::take(key.raw(), plan.mode, PATIENCE)
                .map_err(|trouble| pipe_error(name, trouble))?
                .ok_or_else(busy)?;
            // The same for whoever makes one with semaphores.
            if !creation_ended(key, PATIENCE) {
                return Err(busy());
            }
            make_in_place(address, name, place, plan, Some(lock), |object, uuid| {
                Ok(New {
                    guard: pipes(name, place, plan, object, &uuid)?,
                    uuid,
                    fallback,
                })
            })
        }
    }
}

/// With the creation lock held, in one or the other form.
fn make_in_place(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
    lock: Option<KeyLock>,
    guard: impl FnOnce(&NewObject, [u8; 16]) -> Result<New, CreateError>,
) -> Result<SharedRing, CreateError> {
    // Under the lock: nobody else makes or unmakes what is under this key.
    match leftover(place) {
        Leftover::Ring => {
            return Err(CreateError::Exists {
                name: name.to_owned(),
            });
        }
        Leftover::Foreign(what) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what,
            });
        }
        Leftover::Failed(error) => return Err(memory_error(name, error)),
        // A creator of ours would hold the lock. Whoever keeps this mapped is somebody else.
        Leftover::Unfinished(object) if stays_attached(&object) => {
            return Err(CreateError::NotARing {
                name: name.to_owned(),
                what: "the key belongs to a segment that another program uses".to_owned(),
            });
        }
        Leftover::Unfinished(object) => {
            object.unlink().map_err(|error| memory_error(name, error))?;
        }
        Leftover::Nothing => {}
    }
    let uuid = uuid(name)?;
    let (object, segment) = make_memory(name, place, plan)?;
    let new = guard(&object, uuid)?;
    let (superblock, view) = fill(address, place, plan, &new, segment, &object)?;
    view.state().store(STATE_READY, Ordering::Release);
    let object = object
        .publish()
        .map_err(|error| memory_error(name, error))?;
    drop(lock);
    finish(address, superblock, view, new, object)
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

/// True if somebody has the segment mapped and keeps it. Others who open or make the ring just now have
/// it mapped for the moment in which they read its first page.
pub(super) fn stays_attached(object: &Object) -> bool {
    let end = clock::now() + GLANCE;
    while object.is_attached() {
        if clock::now() >= end {
            return true;
        }
        yield_now();
    }
    false
}

/// What lies under a System V key.
enum Leftover {
    Nothing,
    /// A finished ring, or one whose name says that it is somebody's.
    Ring,
    /// What a creator of ours left when it died (or is making now: the lock tells).
    Unfinished(Object),
    Foreign(String),
    Failed(MemoryError),
}

fn leftover(place: &Place) -> Leftover {
    let object = match Object::open(place, Access::ReadOnly) {
        Ok(object) => object,
        Err(MemoryError::NotFound) => return Leftover::Nothing,
        Err(error) => return Leftover::Failed(error),
    };
    let (head, len) = match (object.head(), object.len()) {
        (Ok(head), Ok(len)) => (head, len),
        (Err(MemoryError::NotFound), _) | (_, Err(MemoryError::NotFound)) => {
            return Leftover::Nothing;
        }
        (Err(error), _) | (_, Err(error)) => return Leftover::Failed(error),
    };
    match Superblock::decode(&head) {
        Ok(_)
        | Err(SuperblockError::OtherVersion { .. } | SuperblockError::UnknownFeatures { .. }) => {
            Leftover::Ring
        }
        // Zeros alone are no proof that a segment is ours: its size must be a ring's, too.
        Err(SuperblockError::NotReady) if super::open::plausible_length(len) => {
            Leftover::Unfinished(object)
        }
        Err(SuperblockError::NotReady | SuperblockError::NotARing) => {
            Leftover::Foreign("the key belongs to a segment of another program".to_owned())
        }
        Err(SuperblockError::Removed) => {
            Leftover::Foreign("a ring whose superblock is damaged (state word)".to_owned())
        }
        Err(SuperblockError::Damaged { what }) => {
            Leftover::Foreign(format!("a ring whose superblock is damaged ({what})"))
        }
    }
}

/// Makes set and memory one ring, all but READY.
fn fill(
    address: &Address,
    place: &Place,
    plan: &Plan,
    new: &New,
    segment: Segment,
    object: &NewObject,
) -> Result<(Superblock, RingView), CreateError> {
    let name = address.to_string();
    let trouble = |trouble| set_error(&name, plan, trouble);
    // The memory may have a group that nobody asked for: that of its folder.
    let owner = object
        .ownership()
        .map_err(|error| memory_error(&name, error))?;
    let set = new
        .guard
        .identify(place, owner, plan.mode)
        .map_err(trouble)?;
    let superblock = Superblock {
        kind: plan.kind,
        geometry: plan.geometry,
        guard: new.guard.kind(),
        uuid: new.uuid,
        set,
        implicit: plan.implicit,
        created_ns: clock::realtime_ns(),
        creator_pid: process::id(),
        creator_uid: process::effective_uid(),
        ipc_namespace: process::ipc_namespace().unwrap_or(0),
        name: stored_name(address),
        record: None,
    };
    let view = RingView::new(Arc::new(segment), plan.geometry)
        .expect("a new segment is as long as it was asked to be");
    view.state().store(STATE_INIT, Ordering::Release);
    // The magic first, in one store: killed anywhere from here on, what is there is known to be ours. A
    // copy goes in any order (and, byte by byte, may end behind the first), so the fence keeps the two
    // apart.
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
    /// What a ring whose memory outlives its set notes about a set that was made here and now.
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

/// Refuses a ring that no consumer could attach to, with the limit that is in the way.
fn check_limits(name: &str, plan: &Plan) -> Result<(), CreateError> {
    let Some(limits) = process::semaphore_limits() else {
        return Ok(());
    };
    let lanes = plan.geometry.lanes();
    let needed = count_for(lanes) as u64;
    let operations = operations_for(lanes) as u64;
    let limit = if needed > limits.per_set {
        format!(
            "{lanes} lanes need a set of {needed} semaphores, and the first value of kernel.sem (SEMMSL) is {}: \
             raise it (sysctl -w kernel.sem=…) or use fewer producers",
            limits.per_set
        )
    } else if operations > limits.operations {
        format!(
            "{lanes} lanes need {operations} semaphore operations in one call, and the third value of kernel.sem \
             (SEMOPM) is {}: raise it (sysctl -w kernel.sem=…) or use fewer producers",
            limits.operations
        )
    } else {
        return Ok(());
    };
    Err(CreateError::SemaphoreLimit {
        name: name.to_owned(),
        limit,
    })
}

fn set_error(name: &str, plan: &Plan, trouble: SetTrouble) -> CreateError {
    let name = name.to_owned();
    match trouble {
        SetTrouble::Foreign => CreateError::NotARing {
            name,
            what: "the key belongs to a semaphore set of another program".to_owned(),
        },
        SetTrouble::Busy => CreateError::Busy { name },
        SetTrouble::Failed(error) if error.no_space() => CreateError::SemaphoreLimit {
            name,
            limit: no_room_for(count_for(plan.geometry.lanes()) as u64),
        },
        SetTrouble::Failed(error) if error.permission_denied() => CreateError::Permission {
            name,
            source: error.into(),
        },
        SetTrouble::Failed(error) if error.errno() == ENOSYS => CreateError::SemaphoreLimit {
            name,
            limit: "this kernel or sandbox has no System V semaphores (semget: not implemented)"
                .to_owned(),
        },
        SetTrouble::Failed(error) => CreateError::Os {
            name,
            call: error.call(),
            source: error.into(),
        },
    }
}

const ENOSYS: i32 = 38;

/// Which limit is in the way of one more set of so many semaphores.
pub(super) fn no_room_for(count: u64) -> String {
    const RAISE: &str =
        "raise it (sysctl -w kernel.sem=…), or remove unused sets (ipcs -s, semring prune)";
    let used = sysv::sem::list().unwrap_or_default();
    let Some(limits) = process::semaphore_limits() else {
        return format!("no room for a set of {count} semaphores in kernel.sem: {RAISE}");
    };
    if used.len() as u64 >= limits.sets {
        return format!(
            "there are {} semaphore sets, and the fourth value of kernel.sem (SEMMNI) is {}: {RAISE}",
            used.len(),
            limits.sets
        );
    }
    let semaphores: usize = used.iter().map(|set| set.stat.count).sum();
    format!(
        "all sets have {semaphores} semaphores, {count} more are needed, and the second value of kernel.sem (SEMMNS) is \
         {}: {RAISE}",
        limits.total
    )
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
        MemoryError::NoSpace { asked, free, hint } => CreateError::NoSpace {
            name,
            asked,
            free,
            hint,
        },
        MemoryError::Limit(limit) => CreateError::MemoryLimit { name, limit },
        MemoryError::NotFound => CreateError::Busy { name },
        MemoryError::Os { call, source } => CreateError::Os { name, call, source },
    }
}
