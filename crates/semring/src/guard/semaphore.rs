//! The guard made of one System V semaphore set.
//!
//! ```text
//! 0 W      consumer's bell            4 I   creation lock
//! 1 N      producers attached         5     check value, set once
//! 2 C      consumer present           6, 7  where the ring's name is, set once
//! 3 T      tombstone: being removed   8+2i  P: lane i is taken
//!                                     9+2i  S: bell of lane i's producer
//! ```
//! All semaphores begin at zero, which is right from the first moment, so there is no race between
//! making and initialising the set. Seats are taken with SEM_UNDO; a token is posted and taken back
//! with SEM_UNDO at attach, which leaves the kernel owing a token that it posts when the process ends
//! for whatever reason. SETVAL and SETALL are never used: they would erase those debts for everybody.

use std::time::Duration;

use super::abandoned::SetFacts;
use super::{Bell, Claim, Guard, GuardError, Result, Seat, Waited};
use crate::layout::superblock::SetIdentity;
use crate::os::process;
use crate::os::sysv::{self, Key, Op, SemSet};

const W: u16 = 0;
pub(super) const N: u16 = 1;
pub(super) const C: u16 = 2;
pub(super) const T: u16 = 3;
pub(super) const I: u16 = 4;
pub(super) const CHECK: u16 = 5;
/// Where the ring's name is, in two numbers: see [`Home`].
const HOME: u16 = 6;
pub(super) const LANES: u16 = 8;

/// The upper half of the random keys of semaphore sets.
pub(crate) const KEY_PREFIX: u32 = 0x5eed_0000;

pub(super) const fn taken(lane: usize) -> u16 {
    LANES + 2 * lane as u16
}

const fn room(lane: usize) -> u16 {
    LANES + 2 * lane as u16 + 1
}

/// How many semaphores a ring of this many lanes needs.
pub(crate) const fn count_for(lanes: usize) -> usize {
    LANES as usize + 2 * lanes
}

/// How many operations the consumer's attach makes in one call.
pub(crate) const fn operations_for(lanes: usize) -> usize {
    2 * lanes + 3
}

fn guard_error(error: sysv::Error) -> GuardError {
    if error.is_removed() {
        GuardError::Removed
    } else {
        GuardError::Os {
            call: error.call(),
            errno: error.errno(),
        }
    }
}

pub(super) const fn add(index: u16) -> Op {
    Op::new(index, 1)
}

pub(super) const fn sub(index: u16) -> Op {
    Op::new(index, -1)
}

pub(super) const fn zero(index: u16) -> Op {
    Op::new(index, 0)
}

/// The set of one ring.
#[derive(Debug)]
pub(crate) struct SemaphoreGuard {
    set: SemSet,
    lanes: usize,
}

/// Why the set named in a superblock is not this ring's guard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetMismatch {
    /// There is no such set in this IPC namespace.
    Missing,
    /// There is one, but it belongs to something else.
    Other,
    /// It may not be used.
    Denied(sysv::Error),
    /// The look itself failed.
    Failed(sysv::Error),
}

impl SemaphoreGuard {
    pub(crate) fn new(set: SemSet, lanes: usize) -> Self {
        Self { set, lanes }
    }

    /// Finds the set of a ring and makes sure that it is that ring's.
    pub(crate) fn open(
        identity: &SetIdentity,
        lanes: usize,
    ) -> std::result::Result<Self, SetMismatch> {
        let sort = |error: sysv::Error| {
            if error.not_found() || error.is_removed() {
                SetMismatch::Missing
            } else if error.permission_denied() {
                SetMismatch::Denied(error)
            } else {
                SetMismatch::Failed(error)
            }
        };
        let set = SemSet::open(Key::new(identity.key)).map_err(sort)?;
        let stat = set.stat().map_err(sort)?;
        let check = set.value(CHECK).map_err(sort)?;
        if set.id() != identity.id
            || stat.count != count_for(lanes)
            || u32::from(check) != identity.check
        {
            return Err(SetMismatch::Other);
        }
        Ok(Self::new(set, lanes))
    }

    fn op(&self, operations: &[Op]) -> std::result::Result<(), sysv::Error> {
        loop {
            match self.set.op(operations) {
                Err(error) if error.is_interrupted() => {}
                other => return other,
            }
        }
    }

    /// True if the semaphore is zero, by the one call that needs no lock on the whole set.
    fn is_zero(&self, index: u16) -> Result<bool> {
        match self.op(&[zero(index).no_wait()]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_would_block() => Ok(false),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn await_zero(&self, index: u16, timeout: Duration) -> Result<bool> {
        let end = crate::os::clock::now() + timeout;
        loop {
            let left = end.saturating_duration_since(crate::os::clock::now());
            match self.set.op_timeout(&[zero(index)], Some(left)) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_would_block() => return Ok(false),
                Err(error) if error.is_interrupted() => {}
                Err(error) => return Err(guard_error(error)),
            }
        }
    }

    /// Why an attach was refused: by T, or by the seat.
    fn refused(&self) -> Result<Claim> {
        Ok(if self.is_zero(T)? {
            Claim::Taken
        } else {
            Claim::BeingRemoved
        })
    }

    fn claim_lane(&self, lane: usize) -> Result<Claim> {
        let p = taken(lane);
        let head = [
            zero(T).no_wait(),
            zero(p).no_wait(),
            add(p).undo(),
            add(N).undo(),
        ];
        loop {
            // The last two leave W as it is and the kernel owing it a token (the death rattle).
            let [a, b, c, d] = head;
            match self.op(&[a, b, c, d, add(W), sub(W).undo()]) {
                Ok(()) => return Ok(Claim::Granted),
                Err(error) if error.is_would_block() => return self.refused(),
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            // W is full of tokens: take one first. Refused as well: somebody emptied W meanwhile, or
            // the seat went; the first form tells.
            match self.op(&[a, b, c, d, sub(W).undo().no_wait(), add(W)]) {
                Ok(()) => return Ok(Claim::Granted),
                Err(error) if error.is_would_block() => {}
                Err(error) => return Err(guard_error(error)),
            }
        }
    }

    fn leave_lane(&self, lane: usize) -> Result<()> {
        let head = [sub(taken(lane)).undo().no_wait(), sub(N).undo().no_wait()];
        for _ in 0..1000 {
            let [a, b] = head;
            match self.op(&[a, b, add(W).undo()]) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            match self.op(&[a, b, sub(W).no_wait(), add(W).undo()]) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_would_block() => {}
                Err(error) => return Err(guard_error(error)),
            }
        }
        Err(GuardError::Os {
            call: "semop",
            errno: libc_erange(),
        })
    }

    /// Operations that leave each producer's bell as it is and the kernel owing it a token. Bells in
    /// `full` have no room for one more.
    fn rattles(&self, full: &[bool]) -> Vec<Op> {
        let mut operations = Vec::with_capacity(operations_for(self.lanes));
        for (lane, &full) in full.iter().enumerate() {
            let s = room(lane);
            if full {
                operations.extend([sub(s).undo().no_wait(), add(s)]);
            } else {
                operations.extend([add(s), sub(s).undo()]);
            }
        }
        operations
    }

    /// Which bells have tokens in them.
    fn bells_with_tokens(&self) -> Result<Vec<bool>> {
        let values = self.set.values().map_err(guard_error)?;
        Ok((0..self.lanes)
            .map(|lane| {
                values
                    .get(usize::from(room(lane)))
                    .is_some_and(|&value| value > 0)
            })
            .collect())
    }

    fn claim_consumer(&self) -> Result<Claim> {
        let mut full = vec![false; self.lanes];
        loop {
            let mut operations = self.rattles(&full);
            operations.extend([zero(T).no_wait(), zero(C).no_wait(), add(C).undo()]);
            match self.op(&operations) {
                Ok(()) => return Ok(Claim::Granted),
                Err(error) if error.is_would_block() => {
                    if !self.is_zero(T)? {
                        return Ok(Claim::BeingRemoved);
                    }
                    if !self.is_zero(C)? {
                        return Ok(Claim::Taken);
                    }
                    // A bell was emptied under us, or the seat came free: look again.
                }
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            full = self.bells_with_tokens()?;
        }
    }

    fn leave_consumer(&self) -> Result<()> {
        let mut full = vec![false; self.lanes];
        for _ in 0..1000 {
            let mut operations = vec![sub(C).undo().no_wait()];
            for (lane, &full) in full.iter().enumerate() {
                if full {
                    operations.push(sub(room(lane)).no_wait());
                }
                operations.push(add(room(lane)).undo());
            }
            match self.op(&operations) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_overflow() || error.is_would_block() => {}
                Err(error) => return Err(guard_error(error)),
            }
            full = self.bells_with_tokens()?;
        }
        Err(GuardError::Os {
            call: "semop",
            errno: libc_erange(),
        })
    }

    const fn seat_index(seat: Seat) -> u16 {
        match seat {
            Seat::Consumer => C,
            Seat::Producer { lane } => taken(lane),
        }
    }

    const fn bell_index(bell: Bell) -> u16 {
        match bell {
            Bell::Messages => W,
            Bell::Room { lane } => room(lane),
        }
    }
}

/// ERANGE, for a semaphore that stays full whatever we try.
const fn libc_erange() -> i32 {
    34
}

impl Guard for SemaphoreGuard {
    fn claim(&self, seat: Seat) -> Result<Claim> {
        match seat {
            Seat::Consumer => self.claim_consumer(),
            Seat::Producer { lane } => self.claim_lane(lane),
        }
    }

    fn leave(&self, seat: Seat) -> Result<()> {
        match seat {
            Seat::Consumer => self.leave_consumer(),
            Seat::Producer { lane } => self.leave_lane(lane),
        }
    }

    fn await_free(&self, seat: Seat, timeout: Duration) -> Result<bool> {
        self.await_zero(Self::seat_index(seat), timeout)
    }

    fn await_no_removal(&self, timeout: Duration) -> Result<bool> {
        self.await_zero(T, timeout)
    }

    fn is_taken(&self, seat: Seat) -> Result<bool> {
        self.is_zero(Self::seat_index(seat)).map(|zero| !zero)
    }

    fn last_holder(&self, seat: Seat) -> Result<Option<u32>> {
        // Nobody else's operation on it succeeds while it is taken. 0: of another pid namespace.
        let pid = self.set.last_pid(Self::seat_index(seat));
        let pid = pid.map_err(guard_error)?;
        Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
    }

    fn producers_gone(&self) -> Result<bool> {
        self.is_zero(N)
    }

    fn producers(&self) -> Result<usize> {
        self.set.value(N).map(usize::from).map_err(guard_error)
    }

    fn post(&self, bell: Bell) -> Result<()> {
        match self.op(&[add(Self::bell_index(bell)).no_wait()]) {
            // So many tokens are there that one more says nothing new.
            Err(error) if error.is_overflow() => Ok(()),
            other => other.map_err(guard_error),
        }
    }

    fn wait(&self, bell: Bell, timeout: Option<Duration>) -> Result<Waited> {
        match self.set.op_timeout(&[sub(Self::bell_index(bell))], timeout) {
            Ok(()) => Ok(Waited::Token),
            Err(error) if error.is_interrupted() => Ok(Waited::Signal),
            Err(error) if error.is_would_block() => Ok(Waited::TimedOut),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn drain(&self, bell: Bell) -> Result<()> {
        // Half of what is there at a time: GETVAL would take the lock of the whole set.
        let index = Self::bell_index(bell);
        let mut step: i16 = 16384;
        while step > 0 {
            match self.op(&[Op::new(index, -step).no_wait()]) {
                Ok(()) => {}
                Err(error) if error.is_would_block() => step /= 2,
                Err(error) => return Err(guard_error(error)),
            }
        }
        Ok(())
    }

    fn begin_removal(&self, as_consumer: bool) -> Result<bool> {
        let tail = [zero(T).no_wait(), add(T).undo()];
        let attempt = if as_consumer {
            self.op(&[zero(N).no_wait(), tail[0], tail[1]])
        } else {
            self.op(&[zero(N).no_wait(), zero(C).no_wait(), tail[0], tail[1]])
        };
        match attempt {
            Ok(()) => Ok(true),
            Err(error) if error.is_would_block() => Ok(false),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn begin_pruning(&self) -> Result<bool> {
        let nobody = [N, C, T, I].map(|index| zero(index).no_wait());
        let [n, c, t, i] = nobody;
        match self.op(&[n, c, t, i, add(T).undo()]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_would_block() => Ok(false),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn is_idle(&self) -> Result<bool> {
        // One look at all of them; it leaves no trace, as an operation would.
        let values = self.set.values().map_err(guard_error)?;
        Ok(SetFacts::new(values).is_idle())
    }

    fn begin_forced_removal(&self, timeout: Duration) -> Result<bool> {
        let end = crate::os::clock::now() + timeout;
        loop {
            let left = end.saturating_duration_since(crate::os::clock::now());
            match self.set.op_timeout(&[zero(T), add(T).undo()], Some(left)) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_would_block() => return Ok(false),
                Err(error) if error.is_interrupted() => {}
                Err(error) => return Err(guard_error(error)),
            }
        }
    }

    fn abort_removal(&self) -> Result<()> {
        self.op(&[sub(T).undo().no_wait()]).map_err(guard_error)
    }

    fn destroy(&self) -> Result<()> {
        match self.set.remove() {
            Err(error) if !error.is_removed() => Err(guard_error(error)),
            _ => Ok(()),
        }
    }
}

/// Where the name of a set's ring is. The set itself says so, in semaphores 6 and 7: who finds a set that
/// no ring names can tell whether the ring would have to be where it looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// Nobody can tell: such a set is never taken for left behind.
    Unknown,
    /// In the directory with these two numbers, both from 1 to 32766.
    Directory { device: u16, inode: u16 },
    /// At a System V segment under the set's own key.
    Key,
}

impl Home {
    /// Two values that no directory has.
    const KEY: [i16; 2] = [32767, 0x5eed];

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

    const fn values(self) -> [i16; 2] {
        match self {
            Self::Unknown => [0, 0],
            Self::Directory { device, inode } => [device as i16, inode as i16],
            Self::Key => Self::KEY,
        }
    }

    /// What a set's values say; nothing if they are not what one of ours has there.
    pub(super) fn of(values: &[u16]) -> Option<Self> {
        let marks = values.get(usize::from(HOME)..usize::from(LANES))?;
        let home = match *marks {
            [0, 0] => Self::Unknown,
            _ if marks == Self::KEY.map(|value| value as u16) => Self::Key,
            [device, inode] => Self::directory(device.into(), inode.into()),
            _ => return None,
        };
        let back = home.values().map(|value| value as u16);
        (marks == back).then_some(home)
    }
}

/// A set that is being made into a guard, with the creation lock held. Dropped unfinished, it gives
/// the lock back and removes the set if it made it.
pub(crate) struct NewSet {
    set: SemSet,
    lanes: usize,
    remove_on_drop: bool,
}

/// What stands in the way of a set under a given key.
#[derive(Debug)]
pub(crate) enum SetTrouble {
    /// The key belongs to a set that is not ours.
    Foreign,
    /// Whoever made or removes the ring has not finished in time.
    Busy,
    /// A call failed.
    Failed(sysv::Error),
}

impl From<sysv::Error> for SetTrouble {
    fn from(error: sysv::Error) -> Self {
        Self::Failed(error)
    }
}

impl NewSet {
    /// A new set under a random key that nobody uses.
    pub(crate) fn create(lanes: usize, mode: u32) -> std::result::Result<Self, SetTrouble> {
        loop {
            let random = u16::from_le_bytes(process::random().map_err(|_| SetTrouble::Busy)?);
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
            };
            match set.op(&[zero(I).no_wait(), add(I).undo()]) {
                Ok(()) => return Ok(new),
                // Until here it looked abandoned: whoever clears such sets away was faster, and has it
                // or had it. It is theirs.
                Err(error) if error.is_would_block() || error.is_removed() => {
                    std::mem::forget(new);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The set under a given key, made or taken over, with the creation lock held. A set that a dead
    /// creator or remover of ours left behind is replaced; one that is not ours is refused.
    /// `alive` says whether the memory under this key is a finished ring: then the set is in use and
    /// only the lock is taken.
    pub(crate) fn lock(
        key: Key,
        lanes: usize,
        mode: u32,
        patience: Duration,
        is_ring: impl Fn() -> bool,
    ) -> std::result::Result<Option<Self>, SetTrouble> {
        let end = crate::os::clock::now() + patience;
        loop {
            let left = end.saturating_duration_since(crate::os::clock::now());
            if left.is_zero() {
                return Err(SetTrouble::Busy);
            }
            let set = match SemSet::create(key, count_for(lanes), mode) {
                Ok(set) => set,
                Err(error) if error.already_exists() => match SemSet::open(key) {
                    Ok(set) => set,
                    Err(error) if error.not_found() => continue,
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            };
            match set.op_timeout(&[zero(I), add(I).undo()], Some(left)) {
                Ok(()) => {}
                // EFBIG: so small a set has no creation lock.
                Err(error) if error.errno() == EFBIG => return Err(SetTrouble::Foreign),
                Err(error) if error.is_would_block() => return Err(SetTrouble::Busy),
                Err(error) if error.is_interrupted() || error.is_removed() => continue,
                Err(error) => return Err(error.into()),
            }
            let mut held = Self {
                set,
                lanes,
                remove_on_drop: false,
            };
            if is_ring() {
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
            let fresh = values
                .iter()
                .enumerate()
                .all(|(index, &value)| value == u16::from(index == usize::from(I)));
            if fresh && stat.count == count_for(lanes) && stat.mode & 0o777 == mode {
                held.remove_on_drop = true;
                return Ok(Some(held));
            }
            if values.get(usize::from(T)).is_some_and(|&value| value != 0) {
                // A removal is under way: its end takes the set with it, or its death undoes T.
                drop(held);
                match set.op_timeout(&[zero(T)], Some(left)) {
                    Ok(()) => {}
                    Err(error) if error.is_would_block() => return Err(SetTrouble::Busy),
                    Err(error) if error.is_interrupted() || error.is_removed() => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            if !looks_abandoned(&values) {
                return Err(SetTrouble::Foreign);
            }
            // Left behind by a creator or remover that died: no segment goes with it, nobody holds a
            // seat. Those who wait for its lock get EIDRM and come back.
            match set.remove() {
                Ok(()) => {}
                Err(error) if error.is_removed() => {}
                Err(error) => return Err(error.into()),
            }
            // The lock went with the set.
            std::mem::forget(held);
        }
    }

    /// Marks the set as one particular ring's, whose name is there; gives what the superblock stores.
    pub(crate) fn identify(&self, home: Home) -> std::result::Result<SetIdentity, SetTrouble> {
        let random = u16::from_le_bytes(process::random().map_err(|_| SetTrouble::Busy)?);
        let check = (random % 32767) as i16 + 1;
        let stat = self.set.stat()?;
        let [first, second] = home.values();
        let mark = [
            zero(CHECK).no_wait(),
            Op::new(CHECK, check),
            Op::new(HOME, first),
            Op::new(HOME + 1, second),
        ];
        // Adding 0 would be waiting for 0.
        let known = if home == Home::Unknown { 2 } else { 4 };
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
        SemaphoreGuard::new(self.set, self.lanes)
    }
}

/// EFBIG: a semaphore number beyond the set.
const EFBIG: i32 = 27;

/// The shape of a set of ours that nobody uses: enough semaphores, an even number, our lock held by us,
/// no seat taken.
fn looks_abandoned(values: &[u16]) -> bool {
    values.len() >= count_for(1)
        && values.len().is_multiple_of(2)
        && values[usize::from(I)] == 1
        && [N, C, T]
            .iter()
            .all(|&index| values[usize::from(index)] == 0)
        && matches!(Home::of(values), Some(Home::Unknown | Home::Key))
        && values[usize::from(LANES)..]
            .iter()
            .step_by(2)
            .all(|&seat| seat == 0)
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

/// Waits until nobody holds the creation lock of the set under a key (or there is no set); false when
/// the time is over.
pub(crate) fn creation_ended(key: Key, patience: Duration) -> bool {
    match SemSet::open(key) {
        Ok(set) => !matches!(
            SemaphoreGuard::new(set, 0).await_zero(I, patience),
            Ok(false)
        ),
        Err(_) => true,
    }
}
