//! A ring that other processes can see under its System V key from the beginning.

use std::time::{Duration, Instant};

use super::super::guards::NewGuard;
use super::super::identity::other_ring;
use super::super::key_lock::KeyLock;
use super::super::under_key::{ClearError, Cleared, Under, under};
use super::{
    New, fill, finish, make_memory, memory_error, pipe_error, pipes, semaphores_work, set_error,
    uuid, why_pipes,
};
use crate::error::CreateError;
use crate::guard::semaphore::set::{NewSet, SetFailure, creation_ended};
use crate::guard::timeouts::{CREATOR_TIMEOUT, LOCK_CHECK_INTERVAL};
use crate::layout::superblock::{STATE_READY, Superblock};
use crate::lifecycle::{GuardChoice, Plan, SharedRing};
use crate::memory::{Access, Address, Object, Place, sysv_key};
use crate::os::sysv::Key;
use crate::os::{clock, process};
use crate::sync::Ordering;

/// How often a creator begins again whose set or segment was removed.
const MOST_ATTEMPTS: u32 = 10;

/// The lock of a creator, and its effect on the ring to be made.
enum Lock {
    Set(NewSet),
    File(KeyLock),
}

pub(super) fn create_in_place(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
) -> Result<SharedRing, CreateError> {
    for _ in 0..MOST_ATTEMPTS {
        let attempt = Attempt {
            address,
            place,
            name,
            key: sysv_key(place).expect("a System V place has a key"),
            plan,
            end: clock::now() + CREATOR_TIMEOUT,
        };
        let (lock, fallback) = attempt.lock()?;
        // With its locks held this creator waits for no other process. So the ring is "busy" only if its set or
        // segment is gone: by a removal by force that did not get the lock in time, or by ipcrm.
        match make(address, name, place, plan, lock, fallback) {
            Err(CreateError::Busy { .. }) => {}
            other => return other,
        }
    }
    Err(CreateError::Busy {
        name: name.to_owned(),
    })
}

/// A creation under a key.
struct Attempt<'a> {
    address: &'a Address,
    place: &'a Place,
    name: &'a str,
    key: Key,
    plan: &'a Plan,
    end: Instant,
}

impl Attempt<'_> {
    /// Takes the creation lock, in either form, with nothing under the key; also returns the reason if it is not
    /// the preferred form.
    fn lock(&self) -> Result<(Lock, Option<String>), CreateError> {
        let (name, plan) = (self.name, self.plan);
        // Checked before anything is made: an object of another program must stay unchanged.
        self.make_room()?;
        let locked = match plan.guard {
            GuardChoice::Pipe => Err(None),
            GuardChoice::Semaphore => Ok(self.lock_set()?),
            GuardChoice::Auto => match semaphores_work(name, plan).and_then(|()| self.lock_set()) {
                Ok(set) => Ok(set),
                Err(refused) => Err(Some(why_pipes(&refused).ok_or(refused)?)),
            },
        };
        Ok(match locked {
            Ok(set) => (Lock::Set(set), None),
            Err(fallback) => (Lock::File(self.lock_key()?), fallback),
        })
    }

    fn is_over(&self) -> bool {
        clock::now() >= self.end
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(clock::now())
    }

    fn busy(&self) -> CreateError {
        CreateError::Busy {
            name: self.name.to_owned(),
        }
    }

    fn not_a_ring(&self, what: String) -> CreateError {
        CreateError::NotARing {
            name: self.name.to_owned(),
            what,
        }
    }

    /// The error for an existing ring.
    fn exists(&self) -> CreateError {
        let head = Object::open(self.place, Access::ReadOnly).and_then(|object| object.head());
        let found = head.ok().and_then(|head| Superblock::decode(&head).ok());
        match found.and_then(|found| other_ring(self.address, Some(self.place), &found)) {
            Some(other) => self.not_a_ring(other.what),
            None => CreateError::Exists {
                name: self.name.to_owned(),
            },
        }
    }

    fn is_vacant(&self) -> bool {
        matches!(under(self.key), Under::Nothing)
    }

    /// Ensures that nothing is under the key, or removes the objects of a killed creator.
    fn make_room(&self) -> Result<(), CreateError> {
        loop {
            let unfinished = match under(self.key) {
                Under::Nothing => return Ok(()),
                Under::Ring => return Err(self.exists()),
                Under::Damaged(what) => {
                    let what = format!("a ring whose superblock is damaged ({what})");
                    return Err(self.not_a_ring(what));
                }
                Under::Foreign(foreign) => return Err(self.not_a_ring(foreign.what)),
                Under::Hidden(error) => return Err(memory_error(self.name, error)),
                Under::Unfinished(unfinished) => unfinished,
            };
            match unfinished.remove() {
                Ok(Cleared::Removed) => {}
                Ok(Cleared::Mapped) => {
                    let what = "the key belongs to a segment that another program uses";
                    return Err(self.not_a_ring(what.to_owned()));
                }
                // Its creator is at work, or another process removes it.
                Ok(Cleared::Busy) if self.is_over() => return Err(self.busy()),
                Ok(Cleared::Busy) => clock::nap(LOCK_CHECK_INTERVAL),
                Err(ClearError::Set(error)) => {
                    return Err(set_error(self.name, self.plan, SetFailure::Failed(error)));
                }
                Err(ClearError::Segment(error)) => return Err(memory_error(self.name, error)),
            }
        }
    }

    /// Takes the creation lock of the set under the key, with nothing else there. A creator of a ring with
    /// pipes under this key must have finished: each kind of creator locks first, and then checks the other
    /// kind's lock. If two find each other, this one steps back.
    fn lock_set(&self) -> Result<NewSet, CreateError> {
        let failure = |failure| set_error(self.name, self.plan, failure);
        let (raw, us) = (self.key.raw(), process::effective_uid());
        loop {
            self.make_room()?;
            if !KeyLock::is_free(raw, us, self.left()) {
                return Err(self.busy());
            }
            let (lanes, mode) = (self.plan.geometry.lanes(), self.plan.mode);
            let is_vacant = || self.is_vacant();
            let locked = NewSet::lock(self.key, lanes, mode, self.left(), is_vacant);
            // Without a set, another process was faster: check its result.
            let Some(set) = locked.map_err(failure)? else {
                continue;
            };
            if KeyLock::is_free(raw, us, Duration::ZERO) {
                let given = match self.plan.gid {
                    Some(gid) => set.give_to_group(gid, mode),
                    None => Ok(()),
                };
                match given {
                    // A removal by force took it.
                    Err(SetFailure::Failed(error)) if error.is_removed() && !self.is_over() => {
                        continue;
                    }
                    other => return other.map(|()| set).map_err(failure),
                }
            }
        }
    }

    /// Takes the lock of creators that make no set, with nothing under the key.
    fn lock_key(&self) -> Result<KeyLock, CreateError> {
        loop {
            self.make_room()?;
            let lock = KeyLock::take(self.key.raw(), self.left())
                .map_err(|failure| pipe_error(self.name, failure))?
                .ok_or_else(|| self.busy())?;
            // The same check for creators with semaphores.
            let ended = creation_ended(self.key, self.left());
            match under(self.key) {
                Under::Nothing if ended => return Ok(lock),
                // Since `make_room` a creator began here and was killed. The file that it left, which this process has
                // locked now, is the proof of its segment.
                Under::Unfinished(_) if lock.is_taken_over() => lock.keep(),
                _ => {}
            }
            if !ended {
                return Err(self.busy());
            }
        }
    }
}

/// With the creation lock held, in either form, and nothing under the key.
fn make(
    address: &Address,
    name: &str,
    place: &Place,
    plan: &Plan,
    lock: Lock,
    fallback: Option<String>,
) -> Result<SharedRing, CreateError> {
    let uuid = uuid(name)?;
    // Locals are dropped in reverse order. Where a creation fails, the segment goes first and its proof, in `proof`
    // or `unfinished`, last: a segment without proof, left by a kill between the two, would stay for ever.
    let (proof, set) = match lock {
        Lock::Set(set) => (None, Some(set)),
        Lock::File(lock) => (Some(lock), None),
    };
    let mut unfinished = None;
    let (object, segment) = make_memory(name, place, plan)?;
    let guard = match set {
        Some(set) => NewGuard::Set(set),
        None => pipes(name, place, plan, &object, &uuid)?,
    };
    let new = unfinished.insert(New {
        guard,
        uuid,
        fallback,
    });
    let (superblock, view) = fill(address, place, plan, new, segment, &object)?;
    view.state().store(STATE_READY, Ordering::Release);
    let object = object
        .publish()
        .map_err(|error| memory_error(name, error))?;
    drop(proof);
    let new = unfinished.expect("it was inserted above");
    finish(address, superblock, view, new, object)
}
