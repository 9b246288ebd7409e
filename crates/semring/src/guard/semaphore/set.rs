//! Semaphore sets of rings: made, marked, taken over, and identified. The meaning of the semaphores is
//! described in the [parent module](super); sets without users are in
//! [`abandoned`](super::abandoned).

use std::time::Duration;

use super::abandoned::SetFacts;
use super::{
    C, CHECK, I, KEY_PREFIX, LANES, LOCATION, N, SemaphoreGuard, T, add, count_for, sub, zero,
};
use crate::guard::{Guard, GuardError};
use crate::layout::superblock::SetIdentity;
use crate::os::process;
use crate::os::sandbox::may_ask;
use crate::os::sysv::{self, Key, Op, SemSet};

/// The place of the ring's name, stored in semaphores 6 and 7 of the set: if no ring names a set, this
/// shows whether the search covered the place where its ring would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameLocation {
    /// Unknown: such a set is never taken for an orphan.
    Unknown,
    /// In the directory with these two numbers, both from 1 to 32766.
    Directory { device: u16, inode: u16 },
    /// At a System V segment under the set's own key.
    Key,
    /// In a file of its own, anywhere. While the file has no name yet, or none any more, only the creator or
    /// remover uses the set; if that process is killed, the set is useless. (If the file has its name all
    /// the same, the next opener records that, or makes a new set.)
    File { has_name: bool },
    /// The ring has no name: it ends with its users, of which there are this many. (Or it is being
    /// passed to another process, which then makes a new set.)
    Users { count: u16 },
}

impl NameLocation {
    /// Two values that no directory has.
    const KEY: [i16; 2] = [32767, 0x5eed];
    /// The second value after a number of users; no inode is so high here.
    const USERS: i16 = 32767;
    /// The first value of a file's set; no device is so high here. The second counts its names and one more.
    const FILE: i16 = 32767;
    const WITHOUT_NAME: i16 = 1;
    const WITH_NAME: i16 = 2;

    /// A directory by its numbers; unknown where they don't fit into semaphores.
    pub(crate) fn directory(device: u64, inode: u64) -> Self {
        let fits = |number: u64| match u16::try_from(number) {
            Ok(number @ 1..=32766) => Some(number),
            _ => None,
        };
        match (fits(device), fits(inode)) {
            (Some(device), Some(inode)) => Self::Directory { device, inode },
            _ => Self::Unknown,
        }
    }

    pub(super) const fn values(self) -> [i16; 2] {
        match self {
            Self::Unknown => [0, 0],
            Self::Directory { device, inode } => [device as i16, inode as i16],
            Self::Key => Self::KEY,
            Self::File { has_name: false } => [Self::FILE, Self::WITHOUT_NAME],
            Self::File { has_name: true } => [Self::FILE, Self::WITH_NAME],
            Self::Users { count } => [count as i16, Self::USERS],
        }
    }

    /// Decodes a set's values; `None` if they are not those of a ring's set.
    pub(super) fn of(values: &[u16]) -> Option<Self> {
        let marks = values.get(usize::from(LOCATION)..usize::from(LANES))?;
        let location = match *marks {
            [0, 0] => Self::Unknown,
            _ if marks == Self::KEY.map(|value| value as u16) => Self::Key,
            [count, second] if second == Self::USERS as u16 => Self::Users { count },
            [first, second] if first == Self::FILE as u16 => Self::File {
                has_name: second == Self::WITH_NAME as u16,
            },
            [device, inode] => Self::directory(device.into(), inode.into()),
            _ => return None,
        };
        let back = location.values().map(|value| value as u16);
        (marks == back).then_some(location)
    }
}

/// How long the consumer of a ring that has lost its segment may take to leave.
const CONSUMER_LEAVES: Duration = Duration::from_secs(1);

/// A set that is being made into a guard, with the creation lock held. If it is dropped unfinished,
/// it gives the lock back and removes the set if it made it.
pub(crate) struct NewSet {
    set: SemSet,
    lanes: usize,
    remove_on_drop: bool,
    /// Semaphores 6 and 7 have their values.
    is_marked: bool,
}

/// Why a set under a given key can't be made.
#[derive(Debug)]
pub(crate) enum SetFailure {
    /// The key belongs to a set that is not semring's.
    Foreign,
    /// The process that makes or removes the ring has not finished in time.
    Busy,
    /// All keys for sets of rings are in use.
    NoKey,
    /// A call failed.
    Failed(sysv::Error),
}

impl From<sysv::Error> for SetFailure {
    fn from(error: sysv::Error) -> Self {
        Self::Failed(error)
    }
}

impl NewSet {
    /// A new set under a random unused key.
    pub(crate) fn create(lanes: usize, mode: u32) -> std::result::Result<Self, SetFailure> {
        // Of 65536 keys half are free even where as many sets are made as the kernel allows by default.
        for _ in 0..1 << 16 {
            let random = u16::from_le_bytes(process::random().map_err(|_| SetFailure::Busy)?);
            let key = Key::from_raw(KEY_PREFIX | u32::from(random));
            let set = match SemSet::create(key, count_for(lanes), mode) {
                Ok(set) => set,
                Err(error) if error.already_exists() => continue,
                Err(error) => return Err(error.into()),
            };
            let new = Self {
                set,
                lanes,
                remove_on_drop: true,
                is_marked: false,
            };
            match set.op(&[zero(I).no_wait(), add(I).undo()]) {
                Ok(()) => return Ok(new),
                // Until here it looked abandoned: a process that removes such sets was faster, and has
                // it or had it. It is not ours any more.
                Err(error) if error.is_would_block() || error.is_removed() => {
                    std::mem::forget(new);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(SetFailure::NoKey)
    }

    /// The set under a given key, made or taken over, with the creation lock held. A set left behind by a
    /// dead creator or remover is replaced; a set that is not semring's is refused. `is_vacant` checks,
    /// with the lock held, that there is no segment under this key. If there is one, the set stays
    /// unchanged, and `None` is returned: the set may be that segment's, or the proof of its creator.
    pub(crate) fn lock(
        key: Key,
        lanes: usize,
        mode: u32,
        patience: Duration,
        is_vacant: impl Fn() -> bool,
    ) -> std::result::Result<Option<Self>, SetFailure> {
        let end = crate::os::clock::now() + patience;
        loop {
            let left = end.saturating_duration_since(crate::os::clock::now());
            if left.is_zero() {
                return Err(SetFailure::Busy);
            }
            let (set, made) = match SemSet::create(key, count_for(lanes), mode) {
                Ok(set) => (set, true),
                Err(error) if error.already_exists() => match SemSet::open(key) {
                    Ok(set) => (set, false),
                    Err(error) if error.not_found() => continue,
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            };
            let mut has_mark = false;
            let taken = match origin(set) {
                Ok(Origin::Foreign) => return Err(SetFailure::Foreign),
                Ok(Origin::Marked) => set
                    .op_timeout(&[zero(I), add(I).undo()], Some(left))
                    .map(|()| true),
                Ok(Origin::Untouched) => {
                    has_mark = true;
                    mark_and_lock(set)
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(true) => {}
                // Another process marked it in the meantime.
                Ok(false) => continue,
                Err(error) if error.is_would_block() => return Err(SetFailure::Busy),
                Err(error) if error.is_interrupted() || error.is_removed() => continue,
                Err(error) => return Err(error.into()),
            }
            let mut held = Self {
                set,
                lanes,
                // Made and marked here, it has never belonged to another process.
                remove_on_drop: made && has_mark,
                is_marked: true,
            };
            if !is_vacant() {
                return Ok(None); // dropping `held` gives the lock back
            }
            let stat = match set.stat() {
                Ok(stat) => stat,
                Err(error) if error.is_removed() => continue,
                Err(error) => return Err(error.into()),
            };
            let values = match set.values() {
                Ok(values) => values,
                Err(error) if error.is_removed() => continue,
                Err(error) => return Err(error.into()),
            };
            // A set made by another user could be removed again by that user.
            let is_ours = stat.cuid == process::effective_uid();
            let fits = stat.count == count_for(lanes) && stat.mode & 0o777 == mode;
            if is_fresh(&values) && is_ours && fits {
                held.remove_on_drop = true;
                return Ok(Some(held));
            }
            if values.get(usize::from(T)).is_some_and(|&value| value != 0) {
                // A removal is under way: at its end it removes the set, or the kernel undoes T at
                // its death.
                drop(held);
                match set.op_timeout(&[zero(T)], Some(left)) {
                    Ok(()) => {}
                    Err(error) if error.is_would_block() => return Err(SetFailure::Busy),
                    Err(error) if error.is_interrupted() || error.is_removed() => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            if !is_unused(&values) {
                // A process that replaced an unused ring was killed before it removed the set. The consumer was woken
                // by that, and leaves.
                let has_consumer = values.get(usize::from(C)).is_some_and(|&value| value != 0);
                drop(held);
                if !has_consumer {
                    return Err(SetFailure::Foreign);
                }
                match set.op_timeout(&[zero(C)], Some(left.min(CONSUMER_LEAVES))) {
                    Ok(()) => {}
                    Err(error) if error.is_would_block() => return Err(SetFailure::Foreign),
                    Err(error) if error.is_interrupted() || error.is_removed() => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            // Left behind by a creator or remover that died: it has no segment, and no slot is
            // taken. Processes that wait for its lock get EIDRM and try again.
            match set.remove() {
                Ok(()) => {}
                Err(error) if error.is_removed() => {}
                Err(error) => return Err(error.into()),
            }
            // The lock was removed with the set.
            std::mem::forget(held);
        }
    }

    /// Gives the set the owner, group and mode of the ring's memory.
    pub(crate) fn give_to(
        &self,
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> std::result::Result<(), SetFailure> {
        let stat = self.set.stat()?;
        if (stat.uid, stat.gid, stat.mode & 0o777) != (uid, gid, mode) {
            self.set.set_permissions(uid, gid, mode)?;
        }
        Ok(())
    }

    /// The same for the group alone, before there is any memory: the set's time of the last change shows
    /// whether set or segment was first.
    pub(crate) fn give_to_group(&self, gid: u32, mode: u32) -> std::result::Result<(), SetFailure> {
        let stat = self.set.stat()?;
        self.give_to(stat.uid, gid, mode)
    }

    /// Assigns the set to one ring, whose name is at this place; returns what the superblock stores. (A
    /// set under a given key has its place from the beginning.)
    pub(crate) fn identify(
        &self,
        location: NameLocation,
    ) -> std::result::Result<SetIdentity, SetFailure> {
        let random = u16::from_le_bytes(process::random().map_err(|_| SetFailure::Busy)?);
        let check = (random % 32767) as i16 + 1;
        let stat = self.set.stat()?;
        let [first, second] = location.values();
        let mark = [
            zero(CHECK).no_wait(),
            Op::new(CHECK, check),
            Op::new(LOCATION, first),
            Op::new(LOCATION + 1, second),
        ];
        // An operation of 0 would mean "wait for 0".
        let known = if self.is_marked || location == NameLocation::Unknown {
            2
        } else {
            4
        };
        self.set.op(&mark[..known])?;
        Ok(SetIdentity {
            key: stat.key.raw(),
            id: self.set.id(),
            ctime: stat.ctime,
            check: check as u32,
        })
    }

    /// Ends the creation: the set stays, the lock is given back.
    pub(crate) fn finish(mut self) -> SemaphoreGuard {
        self.remove_on_drop = false;
        let guard = SemaphoreGuard::new(self.set, self.lanes);
        // With the lock still held: a process that removes orphans must not take the set for that of
        // a dead creator.
        record_name(self.set);
        guard
    }

    /// The same for a ring that ends with its users; this process is the first.
    pub(crate) fn finish_held(self) -> std::result::Result<SemaphoreGuard, GuardError> {
        let mut guard = SemaphoreGuard::new(self.set, self.lanes);
        guard.hold()?;
        self.finish();
        Ok(guard)
    }
}

/// If this is the set of a file recorded as having no name: records that it has one. Nothing changes in
/// other sets. (If it fails, the set may be removed when no process uses it, and will be made again.)
pub(super) fn record_name(set: SemSet) {
    let first = set.value(LOCATION).map(i32::from);
    let second = set.value(LOCATION + 1).map(i32::from);
    let expected = (
        i32::from(NameLocation::FILE),
        i32::from(NameLocation::WITHOUT_NAME),
    );
    if first.ok().zip(second.ok()) == Some(expected) {
        // Succeeds only if the value is exactly one, and no remover is at work.
        let _ = set.op(&[
            zero(T).no_wait(),
            sub(LOCATION + 1).no_wait(),
            zero(LOCATION + 1).no_wait(),
            Op::new(LOCATION + 1, NameLocation::WITH_NAME),
        ]);
    }
}

/// The opposite, before the name is removed. With the removal flag held.
pub(super) fn record_no_name(set: SemSet) {
    let first = set.value(LOCATION).map(i32::from);
    let second = set.value(LOCATION + 1).map(i32::from);
    let expected = (
        i32::from(NameLocation::FILE),
        i32::from(NameLocation::WITH_NAME),
    );
    if first.ok().zip(second.ok()) == Some(expected) {
        let _ = set.op(&[sub(LOCATION + 1).no_wait()]);
    }
}

/// The origin of a set under a given key, found without changing the set.
enum Origin {
    /// Semring's: it bears the mark of a set under a key.
    Marked,
    /// All zero, and no operation was ever done on it or waits: the state that a creator leaves when
    /// it is killed between making and marking the set.
    Untouched,
    Foreign,
}

fn origin(set: SemSet) -> std::result::Result<Origin, sysv::Error> {
    let (stat, values) = (set.stat()?, set.values()?);
    let facts = SetFacts::new(values);
    if facts.lanes().is_none() {
        return Ok(Origin::Foreign);
    }
    if facts.location() == Some(NameLocation::Key) {
        return Ok(Origin::Marked);
    }
    if !facts.is_blank() || stat.otime != 0 {
        return Ok(Origin::Foreign);
    }
    for index in 0..stat.count as u16 {
        if set.waiting_for_increase(index)? != 0 || set.waiting_for_zero(index)? != 0 {
            // If it was marked after the values were read, creators of ours wait for its lock.
            let marked = SetFacts::new(set.values()?).location() == Some(NameLocation::Key);
            return Ok(if marked {
                Origin::Marked
            } else {
                Origin::Foreign
            });
        }
    }
    Ok(Origin::Untouched)
}

/// Marks an untouched set as semring's and takes the creation lock, both at once; false if another
/// process was faster.
fn mark_and_lock(set: SemSet) -> std::result::Result<bool, sysv::Error> {
    let [first, second] = NameLocation::KEY;
    let operations = [
        zero(LOCATION).no_wait(),
        zero(LOCATION + 1).no_wait(),
        zero(I).no_wait(),
        Op::new(LOCATION, first),
        Op::new(LOCATION + 1, second),
        add(I).undo(),
    ];
    match set.op(&operations) {
        Ok(()) => Ok(true),
        Err(error) if error.is_would_block() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The values right after [`mark_and_lock`].
fn is_fresh(values: &[u16]) -> bool {
    values.iter().enumerate().all(|(index, &value)| {
        let expected = match index as u16 {
            I => 1,
            LOCATION => NameLocation::KEY[0] as u16,
            index if index == LOCATION + 1 => NameLocation::KEY[1] as u16,
            _ => 0,
        };
        value == expected
    })
}

/// The shape of an unused set of a ring: enough semaphores, an even number, the lock held by this
/// process, no slot taken.
fn is_unused(values: &[u16]) -> bool {
    values.len() >= count_for(1)
        && values.len().is_multiple_of(2)
        && values[usize::from(I)] == 1
        && [N, C, T]
            .iter()
            .all(|&index| values[usize::from(index)] == 0)
        && NameLocation::of(values) == Some(NameLocation::Key)
        && values[usize::from(LANES)..]
            .iter()
            .step_by(2)
            .all(|&role| role == 0)
}

impl Drop for NewSet {
    fn drop(&mut self) {
        if self.remove_on_drop {
            let _ = self.set.remove();
        } else {
            let _ = self.set.op(&[sub(I).undo().no_wait()]);
        }
    }
}

/// Waits until no process holds the creation lock of the set under a key (or there is no set); false
/// when the timeout has passed.
pub(crate) fn creation_ended(key: Key, patience: Duration) -> bool {
    if !may_ask() {
        return true; // no process in this sandbox makes one
    }
    match SemSet::open(key) {
        // Read first: even waiting for 0 is an operation, and a set without any operation is recognised
        // by that (see `origin`). A process that holds the lock has marked the set.
        Ok(set) if matches!(set.value(I), Ok(0)) => true,
        Ok(set) => !matches!(
            SemaphoreGuard::new(set, 0).await_zero(I, patience),
            Ok(false)
        ),
        Err(_) => true,
    }
}
