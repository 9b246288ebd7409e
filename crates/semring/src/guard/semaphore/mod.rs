//! The guard made of one System V semaphore set.
//!
//! ```text
//! 0 W      consumer's wake-up         4 I   creation lock
//! 1 N      producers attached         5     check value, set once
//! 2 C      consumer present           6, 7  where the ring's name is
//! 3 T      removal flag               8+2i  P: lane i is taken
//!                                     9+2i  S: wake-up of lane i's producer
//! ```
//! All semaphores begin at zero, which is right from the first moment, so there is no race between
//! making and initialising the set. Slots are taken with SEM_UNDO. At attach a token is posted
//! without undo and taken back with SEM_UNDO: this is the undo token, which the kernel posts when the
//! process ends for whatever reason. SETVAL and SETALL are never used: they would erase the undo
//! values of all processes.
//!
//! [`set`] makes, marks and identifies sets.

pub(crate) mod abandoned;
pub(crate) mod set;
#[cfg(all(test, not(semring_loom)))]
mod set_tests;
#[cfg(all(test, not(semring_loom)))]
mod tests;

use std::time::Duration;

use self::abandoned::SetFacts;
use super::at_exit::AtExit;
use super::{
    Claim, Guard, GuardError, Mismatch, RemovalLock, Result, Role, Roles, Waited, WakeTarget,
    Wakeups,
};
use crate::layout::superblock::SetIdentity;
use crate::os::errno::EACCES;
use crate::os::sysv::{self, Key, Op, SemSet};
use crate::os::undo;
use crate::sync::mutant::{self, Mutant};

pub(super) const W: u16 = 0;
pub(super) const N: u16 = 1;
pub(super) const C: u16 = 2;
pub(super) const T: u16 = 3;
pub(super) const I: u16 = 4;
pub(super) const CHECK: u16 = 5;
/// The place of the ring's name, in two numbers: see [`NameLocation`](set::NameLocation).
pub(super) const LOCATION: u16 = 6;
pub(super) const LANES: u16 = 8;

/// The upper half of the random keys of semaphore sets.
pub(crate) const KEY_PREFIX: u32 = 0x5eed_0000;

pub(super) const fn taken(lane: usize) -> u16 {
    LANES + 2 * lane as u16
}

const fn room(lane: usize) -> u16 {
    LANES + 2 * lane as u16 + 1
}

/// The number of semaphores of a ring with this many lanes.
pub(crate) const fn count_for(lanes: usize) -> usize {
    LANES as usize + 2 * lanes
}

/// The number of operations in the consumer's attach, which is one call.
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

/// The operation with undo, which a mutant leaves out.
fn with_undo(op: Op, mutant: Mutant) -> Op {
    if mutant::is(mutant) { op } else { op.undo() }
}

/// The set of one ring.
#[derive(Debug)]
pub(crate) struct SemaphoreGuard {
    set: SemSet,
    lanes: usize,
    /// Removes the process from the count of the set's users; see [`hold`](Self::hold).
    user: Option<AtExit>,
}

impl SemaphoreGuard {
    pub(crate) fn new(set: SemSet, lanes: usize) -> Self {
        Self {
            set,
            lanes,
            user: None,
        }
    }

    /// Opens the set of a ring and checks that it is that ring's.
    pub(crate) fn open(
        identity: &SetIdentity,
        lanes: usize,
    ) -> std::result::Result<Self, Mismatch> {
        let sort = |error: sysv::Error| {
            if error.not_found() || error.is_removed() {
                Mismatch::Missing
            } else if error.permission_denied() {
                Mismatch::Denied(error.into())
            } else {
                Mismatch::Failed(error.into())
            }
        };
        let set = SemSet::open(Key::new(identity.key)).map_err(sort)?;
        let stat = set.stat().map_err(sort)?;
        let check = set.value(CHECK).map_err(sort)?;
        if set.id() != identity.id
            || stat.count != count_for(lanes)
            || u32::from(check) != identity.check
        {
            return Err(Mismatch::Other);
        }
        Ok(Self::new(set, lanes))
    }

    /// The set with this key and id, if it has the size of the ring's, with any check value.
    pub(crate) fn open_changed(identity: &SetIdentity, lanes: usize) -> Option<Self> {
        let set = SemSet::open(Key::new(identity.key)).ok()?;
        let fits = set.id() == identity.id && set.stat().ok()?.count == count_for(lanes);
        fits.then(|| Self::new(set, lanes))
    }

    /// True if the set has this owner, and was made by the owner, by root or by this maker: no other
    /// user can have put it in the place of the ring's.
    pub(crate) fn belongs_to(
        &self,
        owner: u32,
        maker: u32,
    ) -> std::result::Result<bool, sysv::Error> {
        let stat = self.set.stat()?;
        Ok(stat.uid == owner && (stat.cuid == owner || stat.cuid == 0 || stat.cuid == maker))
    }

    fn op(&self, operations: &[Op]) -> std::result::Result<(), sysv::Error> {
        loop {
            match self.set.op(operations) {
                Err(error) if error.is_interrupted() => {}
                other => return other,
            }
        }
    }

    /// True if the semaphore is zero, by the only call that needs no lock on the whole set.
    fn is_zero(&self, index: u16) -> Result<bool> {
        match self.op(&[zero(index).no_wait()]) {
            Ok(()) => Ok(true),
            Err(error) if error.is_would_block() => Ok(false),
            Err(error) => Err(guard_error(error)),
        }
    }

    pub(super) fn await_zero(&self, index: u16, timeout: Duration) -> Result<bool> {
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

    /// Why an attach was refused: by T, or by the slot.
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
            with_undo(add(p), Mutant::LaneWithoutUndo),
            with_undo(add(N), Mutant::ProducersWithoutUndo),
        ];
        loop {
            // The last two leave W unchanged and leave an undo token on it.
            let [a, b, c, d] = head;
            let owed = with_undo(sub(W), Mutant::NoUndoTokenOfProducer);
            match self.op(&[a, b, c, d, add(W), owed]) {
                Ok(()) => return Ok(Claim::Granted),
                Err(error) if error.is_would_block() => return self.refused(),
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            // W is full: take one token first. If that is refused as well, W was emptied in the
            // meantime, or the slot was taken; the first form shows which.
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
            if mutant::is(Mutant::NoTokenAtProducerLeave) {
                return self.op(&head).map_err(guard_error);
            }
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

    /// Operations that leave each producer's wake-up semaphore unchanged and leave an undo token on
    /// it. Those in `full` have no room for one more.
    fn undo_tokens(&self, full: &[bool]) -> Vec<Op> {
        let mut operations = Vec::with_capacity(operations_for(self.lanes));
        for (lane, &full) in full.iter().enumerate() {
            let s = room(lane);
            if full {
                operations.extend([sub(s).undo().no_wait(), add(s)]);
            } else {
                operations.extend([add(s), with_undo(sub(s), Mutant::NoUndoTokensOfConsumer)]);
            }
        }
        operations
    }

    /// The wake-up semaphores that have tokens.
    fn wakeups_with_tokens(&self) -> Result<Vec<bool>> {
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
            let mut operations = self.undo_tokens(&full);
            operations.extend([
                zero(T).no_wait(),
                zero(C).no_wait(),
                with_undo(add(C), Mutant::ConsumerWithoutUndo),
            ]);
            match self.op(&operations) {
                Ok(()) => return Ok(Claim::Granted),
                Err(error) if error.is_would_block() => {
                    if !self.is_zero(T)? {
                        return Ok(Claim::BeingRemoved);
                    }
                    if !self.is_zero(C)? {
                        return Ok(Claim::Taken);
                    }
                    // A wake-up semaphore was emptied in the meantime, or the slot became free: try
                    // again.
                }
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            full = self.wakeups_with_tokens()?;
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
            if mutant::is(Mutant::NoTokenAtConsumerLeave) {
                operations.truncate(1);
            }
            match self.op(&operations) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_overflow() || error.is_would_block() => {}
                Err(error) => return Err(guard_error(error)),
            }
            full = self.wakeups_with_tokens()?;
        }
        Err(GuardError::Os {
            call: "semop",
            errno: libc_erange(),
        })
    }

    const fn role_index(role: Role) -> u16 {
        match role {
            Role::Consumer => C,
            Role::Producer { lane } => taken(lane),
        }
    }

    const fn wakeup_index(wakeup: WakeTarget) -> u16 {
        match wakeup {
            WakeTarget::Consumer => W,
            WakeTarget::Producer { lane } => room(lane),
        }
    }
}

/// ERANGE, for a semaphore that stays full.
const fn libc_erange() -> i32 {
    34
}

impl Roles for SemaphoreGuard {
    fn claim(&self, role: Role) -> Result<Claim> {
        let claim = match role {
            Role::Consumer => self.claim_consumer(),
            Role::Producer { lane } => self.claim_lane(lane),
        };
        if let Ok(Claim::Granted) = claim {
            undo::taken();
        }
        claim
    }

    fn leave(&self, role: Role) -> Result<()> {
        let left = match role {
            Role::Consumer => self.leave_consumer(),
            Role::Producer { lane } => self.leave_lane(lane),
        };
        match left {
            // This process may not do it any more. The kernel's undo may.
            Err(GuardError::Os { errno: EACCES, .. }) if undo::refused() => return Ok(()),
            Err(GuardError::Os { errno: EACCES, .. }) => {}
            _ => undo::given_back(),
        }
        left
    }

    fn await_free(&self, role: Role, timeout: Duration) -> Result<bool> {
        self.await_zero(Self::role_index(role), timeout)
    }

    fn is_taken(&self, role: Role) -> Result<bool> {
        self.is_zero(Self::role_index(role)).map(|zero| !zero)
    }

    fn last_holder(&self, role: Role) -> Result<Option<u32>> {
        // While the slot is taken, no other process's operation on it succeeds. 0: of another pid
        // namespace.
        let pid = self.set.last_pid(Self::role_index(role));
        let pid = pid.map_err(guard_error)?;
        Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0))
    }

    fn producers_gone(&self) -> Result<bool> {
        self.is_zero(N)
    }

    fn producers(&self) -> Result<usize> {
        self.set.value(N).map(usize::from).map_err(guard_error)
    }
}

impl Wakeups for SemaphoreGuard {
    fn post(&self, wakeup: WakeTarget) -> Result<()> {
        match self.op(&[add(Self::wakeup_index(wakeup)).no_wait()]) {
            // The semaphore is at its maximum: one more token makes no difference.
            Err(error) if error.is_overflow() => Ok(()),
            other => other.map_err(guard_error),
        }
    }

    fn wait(&self, wakeup: WakeTarget, timeout: Option<Duration>) -> Result<Waited> {
        match self
            .set
            .op_timeout(&[sub(Self::wakeup_index(wakeup))], timeout)
        {
            Ok(()) => Ok(Waited::Token),
            Err(error) if error.is_interrupted() => Ok(Waited::Signal),
            Err(error) if error.is_would_block() => Ok(Waited::TimedOut),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn wait_for_producers(&self, timeout: Option<Duration>) -> Result<Waited> {
        // N − 1 and N + 1, both applied together or not at all, mean "fail if N is zero". After each
        // post, the kernel tries all of it again.
        match self
            .set
            .op_timeout(&[sub(N).no_wait(), add(N), sub(W)], timeout)
        {
            Ok(()) => Ok(Waited::Token),
            Err(error) if error.is_interrupted() => Ok(Waited::Signal),
            // Or the timeout has passed.
            Err(error) if error.is_would_block() => Ok(Waited::Alone),
            Err(error) => Err(guard_error(error)),
        }
    }

    fn drain(&self, wakeup: WakeTarget) -> Result<()> {
        // Half of the remaining tokens at a time: GETVAL would take the lock of the whole set.
        let index = Self::wakeup_index(wakeup);
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
}

impl RemovalLock for SemaphoreGuard {
    fn await_no_removal(&self, timeout: Duration) -> Result<bool> {
        self.await_zero(T, timeout)
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

    fn begin_replacing(&self) -> Result<bool> {
        let head = [zero(N).no_wait(), zero(T).no_wait(), add(T).undo()];
        let [n, t, up] = head;
        loop {
            // The last two leave W as it is and the kernel owing it a token, as at the attach of a producer.
            match self.op(&[n, t, up, add(W), sub(W).undo()]) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_would_block() => return Ok(false),
                Err(error) if error.is_overflow() => {}
                Err(error) => return Err(guard_error(error)),
            }
            match self.op(&[n, t, up, sub(W).undo().no_wait(), add(W)]) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_would_block() => {}
                Err(error) => return Err(guard_error(error)),
            }
        }
    }

    fn abort_replacing(&self) -> Result<()> {
        loop {
            let down = sub(T).undo().no_wait();
            match self.op(&[down, add(W).undo()]) {
                Err(error) if error.is_overflow() => {}
                other => return other.map_err(guard_error),
            }
            match self.op(&[down, sub(W).no_wait(), add(W).undo()]) {
                Err(error) if error.is_would_block() => {}
                other => return other.map_err(guard_error),
            }
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
        // One read of all of them; it leaves no trace, as an operation would.
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

    fn override_removal(&self) -> Result<()> {
        match self.op(&[add(T).undo().no_wait()]) {
            // T is at its maximum: no process attaches.
            Err(error) if error.is_overflow() => Ok(()),
            other => other.map_err(guard_error),
        }
    }

    fn abort_removal(&self) -> Result<()> {
        self.op(&[sub(T).undo().no_wait()]).map_err(guard_error)
    }

    fn may_destroy(&self) -> Result<()> {
        // Setting the owner and the mode that it has needs the same right as removing it.
        let same = self
            .set
            .stat()
            .and_then(|stat| self.set.set_permissions(stat.uid, stat.gid, stat.mode));
        match same {
            Err(error) if !error.is_removed() => Err(guard_error(error)),
            _ => Ok(()),
        }
    }

    fn record_name(&self, has_name: bool) {
        if has_name {
            set::record_name(self.set);
        } else {
            set::record_no_name(self.set);
        }
    }

    fn destroy(&self) -> Result<()> {
        match self.set.remove() {
            Err(error) if !error.is_removed() => Err(guard_error(error)),
            _ => Ok(()),
        }
    }
}

impl Guard for SemaphoreGuard {
    fn hold(&mut self) -> Result<()> {
        match self.op(&[add(LOCATION).undo()]) {
            Ok(()) => {
                undo::taken();
                let set = self.set;
                self.user = Some(AtExit::register(move || leave_users(set)));
            }
            // Its value is at the maximum: one more makes no difference.
            Err(error) if error.is_overflow() => {}
            Err(error) => return Err(guard_error(error)),
        }
        Ok(())
    }
}

impl Drop for SemaphoreGuard {
    fn drop(&mut self) {
        if let Some(user) = self.user.take() {
            user.make_now();
        }
    }
}

/// Removes a process from the count of a set's users. The last one removes the set. Roles that are still held then
/// belong to processes that are about to end, perhaps this one: all others are counted.
fn leave_users(set: SemSet) {
    let operate = |operations: &[Op]| {
        loop {
            match set.op(operations) {
                Err(error) if error.is_interrupted() => {}
                other => return other,
            }
        }
    };
    let leave = sub(LOCATION).undo().no_wait();
    let left = match operate(&[leave, zero(LOCATION).no_wait(), zero(T).no_wait()]) {
        Ok(()) => set.remove(),
        Err(_) => operate(&[leave]),
    };
    match left {
        Err(error) if error.permission_denied() => {
            undo::refused();
        }
        _ => undo::given_back(),
    }
}
