//! The object under a System V key, and the proof that a segment was left by a creator of semring.
//!
//! A segment can be seen before it is a ring, and zeros in a possible size are no proof: another
//! program's segment can look the same. A creator of a ring makes one of two things before the segment:
//!
//! ```text
//! a semaphore set under the same key   with the mark of ours; creator and owner are the segment's; made
//!                                        no later
//! a file that locks the key            see key_lock: of the segment's creator, made no later
//! ```
//! A user can't make either in another user's name, so no process is led to the segment of another
//! program. A segment without proof always stays.
//!
//! Creators and removers remove a segment before its proof, and a creator removes its file only when the segment is a
//! ring. So a proof that is missing *while the segment stays and is unfinished* will never come back: [`under`] looks
//! at the segment, then for the proof, then at the same segment again. If the last look finds it finished or removed,
//! the three looks are repeated: a creator finished between the first two, or a remover and the next creator came
//! between them.
//!
//! A segment can have both proofs, one of them left by a creator that was killed. Nothing shows which creator made
//! the segment, so each proof that is there is held while the segment is removed.

use std::time::Duration;

use super::key_lock::KeyLock;
use super::open::plausible_length;
use crate::guard::semaphore::abandoned::{SeizedSet, SetFacts};
use crate::guard::semaphore::set::{NameLocation, creation_ended};
use crate::guard::timeouts::INSPECTION_TIMEOUT;
use crate::layout::possible_lanes;
use crate::layout::superblock::{MAGIC, Superblock, SuperblockError};
use crate::memory::{Access, MemoryError, Object, Place};
use crate::os::sysv::{self, Key, SemSet, shm};
use crate::os::{clock, sandbox};
use crate::sync::yield_now;

/// The object under a System V key.
pub(super) enum Under {
    Nothing,
    /// A finished ring, or one that another version of semring made.
    Ring,
    /// A finished ring with a damaged superblock: the reason.
    Damaged(&'static str),
    /// An unfinished segment, left by a creator that died, or being made now: the lock shows which.
    Unfinished(Unfinished),
    Foreign(Foreign),
    /// An object that can't be read.
    Hidden(MemoryError),
}

/// A segment without proof that a creator of semring made it.
pub(super) struct Foreign {
    /// A description and advice, in one sentence.
    pub(super) what: String,
    /// There is a sign that it could be semring's: its first bytes, or another object of semring with
    /// this key.
    pub(super) resembles_a_ring: bool,
}

/// A segment with the proof that a creator of semring made it.
pub(super) struct Unfinished {
    key: Key,
    object: Object,
    proof: Proof,
}

/// The proof: at least one of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Proof {
    /// The id of the set under the key.
    set: Option<i32>,
    key_file: bool,
}

/// The result of removing an unfinished segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cleared {
    /// It was removed, with its proof.
    Removed,
    /// Its creator is at work, or another remover.
    Busy,
    /// A process that is not its creator has it mapped.
    Mapped,
}

/// How many segments may be finished or removed while they are looked at. Each takes a creator or remover that does
/// so exactly between two looks; a process that does so on purpose must not keep others here for ever.
const MOST_CHANGES: u32 = 10_000;

/// Inspects the object under a key. Changes nothing.
pub(super) fn under(key: Key) -> Under {
    let mut changes = 0;
    loop {
        let (object, head, len) = match look(key) {
            Ok(seen) => seen,
            Err(MemoryError::NotFound) => return Under::Nothing,
            // A type of memory that no ring uses.
            Err(MemoryError::WrongType(what)) => {
                return Under::Foreign(Foreign {
                    what: what.to_owned(),
                    resembles_a_ring: false,
                });
            }
            Err(error) => return Under::Hidden(error),
        };
        let unfinished = match Superblock::decode(&head) {
            Ok(_)
            | Err(SuperblockError::OtherVersion { .. } | SuperblockError::UnknownFeatures { .. }) =>
            {
                return Under::Ring;
            }
            Err(SuperblockError::Removed) => return Under::Damaged("state word"),
            Err(SuperblockError::Damaged { what }) => return Under::Damaged(what),
            Err(SuperblockError::NotReady) => plausible_length(len),
            Err(SuperblockError::NotARing) => false,
        };
        let Some(segment) = object.segment() else {
            return Under::Nothing;
        };
        let stat = match segment.stat() {
            Ok(stat) => stat,
            Err(error) if error.is_removed() => continue,
            Err(error) => return Under::Hidden(MemoryError::of_sysv(error)),
        };
        if unfinished && let Some(proof) = proof(key, &stat) {
            return Under::Unfinished(Unfinished { key, object, proof });
        }
        // The proof was missed because the segment was finished or removed meanwhile.
        if unfinished && !is_still_unfinished(&object) && changes < MOST_CHANGES {
            changes += 1;
            continue;
        }
        let resembles_a_ring =
            unfinished && (head.starts_with(&MAGIC) || KeyLock::exists(key.raw()) || has_set(key));
        return Under::Foreign(Foreign {
            what: format!(
                "the key belongs to a System V segment {} (id {}, {} bytes, of user {}; nothing proves that a ring was \
                 begun there, and ipcrm -m {} removes it)",
                if stat.attached > 0 {
                    "that another program uses"
                } else {
                    "of another program"
                },
                segment.id(),
                stat.bytes,
                stat.uid,
                segment.id()
            ),
            resembles_a_ring,
        });
    }
}

fn look(key: Key) -> Result<(Object, Box<[u8; 4096]>, u64), MemoryError> {
    let object = Object::open(&Place::Sysv(key), Access::ReadOnly)?;
    let (head, len) = (object.head()?, object.len()?);
    Ok((object, head, len))
}

/// True if the segment has its key, and no creator has finished it. (One that is removed while a process has it
/// mapped loses its key.)
fn is_still_unfinished(object: &Object) -> bool {
    let is_unfinished = object
        .head()
        .is_ok_and(|head| matches!(Superblock::decode(&head), Err(SuperblockError::NotReady)));
    is_unfinished && object.key().is_some()
}

fn has_set(key: Key) -> bool {
    sandbox::may_ask() && SemSet::open(key).is_ok()
}

/// The proof that a creator of semring made a segment that is not ready.
fn proof(key: Key, segment: &shm::Stat) -> Option<Proof> {
    let proof = Proof {
        set: set_of(key, segment),
        key_file: KeyLock::proves(key.raw(), segment.cuid, segment.ctime),
    };
    (proof.set.is_some() || proof.key_file).then_some(proof)
}

/// The set that the creator of a segment made before it.
fn set_of(key: Key, segment: &shm::Stat) -> Option<i32> {
    if !sandbox::may_ask() {
        return None;
    }
    let set = SemSet::open(key).ok()?;
    let (stat, facts) = (set.stat().ok()?, SetFacts::of(set.id())?);
    let marked = facts.location() == Some(NameLocation::Key);
    let lanes = facts.lanes()?;
    let fits = possible_lanes(segment.bytes as u64).any(|possible| possible == lanes);
    (marked && fits && made_it(&stat, segment)).then_some(set.id())
}

/// True if the same user made the set and, later, the segment.
fn made_it(set: &sysv::sem::Stat, segment: &shm::Stat) -> bool {
    if set.cuid != segment.cuid {
        return false;
    }
    if set.uid == set.cuid {
        // A creator that makes a ring for another user gives away first the segment, then the set: in
        // between the segment may have another owner.
        return set.ctime <= segment.ctime;
    }
    // Both were given away, and the time of the set is the time of that. Their owner may remove the
    // segment anyway.
    set.uid == segment.uid
}

/// True if a process has the segment mapped and keeps it. Processes that just open or make the ring map
/// it only for the moment in which they read its first page.
pub(super) fn stays_attached(object: &Object) -> bool {
    let end = clock::now() + INSPECTION_TIMEOUT;
    while object.is_attached() {
        if clock::now() >= end {
            return true;
        }
        yield_now();
    }
    false
}

/// Why an unfinished segment could not be removed.
#[derive(Debug)]
pub(super) enum ClearError {
    Set(sysv::Error),
    Segment(MemoryError),
}

impl Unfinished {
    /// No process makes it now, and no process has it mapped. Changes nothing.
    pub(super) fn is_abandoned(&self) -> bool {
        let idle = |id| SetFacts::of(id).is_some_and(|set| set.is_idle());
        self.proof.set.is_none_or(idle)
            && (!self.proof.key_file || KeyLock::is_dead(self.key.raw()))
            && !self.object.is_attached()
    }

    /// The owner of the segment.
    pub(super) fn owner(&self) -> Option<u32> {
        self.object.ownership().ok().map(|owner| owner.uid)
    }

    pub(super) const fn object(&self) -> &Object {
        &self.object
    }

    /// The set that belongs to it.
    pub(super) fn set(&self) -> Option<i32> {
        self.proof.set
    }

    /// Waits until its creator has finished or died; false when the timeout has passed.
    pub(super) fn creation_ended(&self, patience: Duration) -> bool {
        let end = clock::now() + patience;
        if self.proof.set.is_some() && !creation_ended(self.key, patience) {
            return false;
        }
        let segment = self.object.segment();
        let stat = segment.and_then(|segment| segment.stat().ok());
        let left = end.saturating_duration_since(clock::now());
        !self.proof.key_file
            || stat.is_none_or(|stat| KeyLock::is_free(self.key.raw(), stat.cuid, left))
    }

    /// Removes the segment, then its proofs, with the locks of its creator held.
    pub(super) fn remove(&self) -> Result<Cleared, ClearError> {
        let set = match self.proof.set {
            Some(id) => match SeizedSet::seize(id).map_err(ClearError::Set)? {
                Some(held) => Some(held),
                None => return Ok(Cleared::Busy),
            },
            None => None,
        };
        let key_file = if self.proof.key_file {
            match KeyLock::of_the_dead(self.key.raw()) {
                Some(held) => Some(held),
                None => return Ok(Cleared::Busy),
            }
        } else {
            None
        };
        let cleared = self.remove_held();
        if matches!(cleared, Ok(Cleared::Removed)) {
            if let Some(set) = set {
                set.remove().map_err(ClearError::Set)?;
            }
            // Dropped, the file goes, too.
        } else if let Some(key_file) = key_file {
            key_file.keep();
        }
        cleared
    }

    /// With its proofs held no process makes or finishes a ring with them: the object stays unchanged.
    fn remove_held(&self) -> Result<Cleared, ClearError> {
        let Under::Unfinished(now) = under(self.key) else {
            return Ok(Cleared::Busy);
        };
        let id = |object: &Object| object.segment().map(|segment| segment.id());
        if now.proof != self.proof || id(&now.object) != id(&self.object) {
            return Ok(Cleared::Busy);
        }
        if stays_attached(&now.object) {
            return Ok(Cleared::Mapped);
        }
        now.object.unlink().map_err(ClearError::Segment)?;
        Ok(Cleared::Removed)
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::guard::RemovalLock;
    use crate::guard::semaphore::set::NewSet;
    use crate::layout::Capacity;
    use crate::layout::Geometry;

    fn stats(set: (u32, u32, i64), segment: (u32, u32, i64)) -> (sysv::sem::Stat, shm::Stat) {
        let key = Key::PRIVATE;
        let set_object = sysv_ipc::Created::new(SemSet::create(key, 10, 0o600).unwrap());
        let segment_object = sysv_ipc::Created::new(shm::Shm::create(key, 4096, 0o600).unwrap());
        let (mut of_set, mut of_segment) =
            (set_object.stat().unwrap(), segment_object.stat().unwrap());
        (of_set.uid, of_set.cuid, of_set.ctime) = set;
        (of_segment.uid, of_segment.cuid, of_segment.ctime) = segment;
        (of_set, of_segment)
    }

    #[test]
    fn only_a_set_of_the_same_creator_proves_a_segment() {
        let proves = |set, segment| {
            let (set, segment) = stats(set, segment);
            made_it(&set, &segment)
        };
        // (owner, creator, time)
        assert!(proves((7, 7, 10), (7, 7, 10)));
        assert!(
            !proves((7, 7, 11), (7, 7, 10)),
            "the segment was there first"
        );
        assert!(!proves((8, 8, 9), (7, 7, 10)), "another user's set");
        assert!(!proves((7, 8, 9), (7, 7, 10)), "given away by another user");
        assert!(!proves((8, 7, 9), (7, 7, 10)), "given away to another user");
        // Root makes a ring for user 7, and is killed at any point.
        assert!(proves((0, 0, 9), (0, 0, 10)));
        assert!(proves((0, 0, 9), (7, 0, 10)));
        assert!(proves((7, 0, 11), (7, 0, 10)));
    }

    #[test]
    fn segment_with_two_proofs_waits_for_both_creators() {
        let random = u16::from_le_bytes(crate::os::process::random().unwrap());
        let key = Key::from_raw(0x7d5a_0000 | u32::from(random));
        let patience = Duration::from_secs(1);
        let new = NewSet::lock(key, 1, 0o600, patience, || true).unwrap();
        let guard = new.unwrap().finish();
        let lock = KeyLock::take(key.raw(), patience).unwrap().unwrap();
        let capacity = Capacity::exact(4096).unwrap();
        let len = Geometry::new(1, capacity).unwrap().segment_bytes();
        let segment = sysv_ipc::Created::new(shm::Shm::create(key, len, 0o600).unwrap());
        let Under::Unfinished(found) = under(key) else {
            panic!("the segment of a creator")
        };
        // The one with pipes is at work.
        assert!(!found.is_abandoned());
        assert_eq!(found.remove().unwrap(), Cleared::Busy);
        lock.keep();
        let set = found.set().unwrap();
        let at_work = SeizedSet::seize(set).unwrap().unwrap();
        assert_eq!(found.remove().unwrap(), Cleared::Busy);
        drop(at_work);
        assert!(found.is_abandoned());
        assert_eq!(found.remove().unwrap(), Cleared::Removed);
        assert!(segment.stat().is_err() && guard.destroy().is_ok());
        assert!(matches!(under(key), Under::Nothing));
        assert!(!KeyLock::exists(key.raw()) && SemSet::open(key).is_err());
    }
}
