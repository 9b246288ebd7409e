//! Semaphore sets: `semget`, `semop`, `semtimedop`, `semctl`.
//!
//! A set holds some semaphores, each from 0 to [`MAX_VALUE`], all 0 at first. One call does a list
//! of [operations](Op) on them at one moment, or waits until it can. An operation with
//! [`undo`](Op::undo) is taken back by the kernel when its process ends, be it by `SIGKILL`.
//!
//! A set lives until it is removed. A [`SemSet`] is only its id: copying or dropping one does
//! nothing. [`Created`] removes the set when dropped, for code that owns one.
//!
//! ```
//! use sysv_ipc::{Key, sem::{Created, Op, SemSet}};
//!
//! let set = Created::new(SemSet::create(Key::PRIVATE, 2, 0o600)?);
//! // At one moment: wait until semaphore 0 is zero, take it until this process ends, add to 1.
//! set.op(&[Op::new(0, 0), Op::new(0, 1).undo(), Op::new(1, 5)])?;
//! assert_eq!(set.values()?, [1, 5]);
//! let busy = set.op(&[Op::new(0, 0).no_wait()]).unwrap_err();
//! assert!(busy.is_would_block());
//! # Ok::<(), sysv_ipc::Error>(())
//! ```
//!
//! # What the kernel undoes, and when
//!
//! For each process and semaphore it keeps the sum of the undoable operations, negated, and adds it
//! at the end of the process, after the memory of the process is gone. The value is kept within 0
//! and [`MAX_VALUE`]. `fork` gives the child no share in it, `exec` keeps it, and threads share it;
//! leaving the IPC namespace (`unshare`, `setns`) is as the end once all threads have.
//! [`set_value`](SemSet::set_value) and [`set_values`](SemSet::set_values) erase it.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::time::Duration;

use crate::error::{Call, Detail, Error, Result, Subject};
use crate::key::Key;
use crate::sys::{self, Perm};
use crate::table;

/// The largest value of a semaphore (`SEMVMX`), and the largest amount that one process can have to
/// undo on one semaphore (`SEMAEM`).
pub const MAX_VALUE: u16 = 32767;

/// A set that is removed when this value is dropped: [`Created`](crate::Created) of a [`SemSet`].
pub type Created = crate::Created<SemSet>;

/// A semaphore set, by its id. Not an owner: see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SemSet {
    id: i32,
}

/// One operation on one semaphore of a set.
///
/// ```
/// use sysv_ipc::sem::Op;
///
/// const LOCK: [Op; 2] = [Op::new(0, 0), Op::new(0, 1).undo()];
/// const UNLOCK: [Op; 1] = [Op::new(0, -1).undo()];
/// # assert_eq!(LOCK[1].delta(), -UNLOCK[0].delta());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Op {
    index: u16,
    delta: i16,
    flags: i16,
}

// A slice of operations goes to the kernel as it is.
const _: () = {
    assert!(size_of::<Op>() == size_of::<libc::sembuf>());
    assert!(align_of::<Op>() == align_of::<libc::sembuf>());
    assert!(offset_of!(Op, index) == offset_of!(libc::sembuf, sem_num));
    assert!(offset_of!(Op, delta) == offset_of!(libc::sembuf, sem_op));
    assert!(offset_of!(Op, flags) == offset_of!(libc::sembuf, sem_flg));
};

impl Op {
    /// On the semaphore `index`: add `delta` if it is positive; wait until that much can be
    /// taken and take it if it is negative; wait until the value is 0 if it is 0.
    pub const fn new(index: u16, delta: i16) -> Op {
        Op {
            index,
            delta,
            flags: 0,
        }
    }

    /// Let the kernel take `delta` back when the process ends, however it ends (`SEM_UNDO`).
    #[must_use]
    pub const fn undo(self) -> Op {
        self.with(libc::SEM_UNDO as i16)
    }

    /// Fail with `EAGAIN` where this operation would have to wait (`IPC_NOWAIT`).
    #[must_use]
    pub const fn no_wait(self) -> Op {
        self.with(libc::IPC_NOWAIT as i16)
    }

    const fn with(self, flag: i16) -> Op {
        Op {
            flags: self.flags | flag,
            ..self
        }
    }

    /// The semaphore in the set, from 0.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// The number to be added; 0 waits for zero.
    pub const fn delta(self) -> i16 {
        self.delta
    }

    /// Whether the kernel takes it back at the end of the process.
    pub const fn is_undo(self) -> bool {
        self.flags & libc::SEM_UNDO as i16 != 0
    }

    /// Whether it fails rather than waits.
    pub const fn is_no_wait(self) -> bool {
        self.flags & libc::IPC_NOWAIT as i16 != 0
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Op({}, {:+}", self.index(), self.delta())?;
        if self.is_undo() {
            f.write_str(", undo")?;
        }
        if self.is_no_wait() {
            f.write_str(", no_wait")?;
        }
        f.write_str(")")
    }
}

/// The kernel's data about a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// The key.
    pub key: Key,
    /// The owner, which can be changed.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// The creator, which can't be changed.
    pub cuid: u32,
    /// The creator's group.
    pub cgid: u32,
    /// The permissions, at most 0o777. Bit 0o2 of each digit means "alter".
    pub mode: u32,
    /// How many semaphores the set has.
    pub count: usize,
    /// The last successful [`op`](SemSet::op), in seconds since 1970; 0 if none was.
    pub otime: i64,
    /// The creation, the last [`set_permissions`](SemSet::set_permissions) or the last change by
    /// [`set_value`](SemSet::set_value), in seconds since 1970.
    pub ctime: i64,
}

impl From<&sys::SemidDs> for Stat {
    fn from(data: &sys::SemidDs) -> Self {
        let perm = Perm::from(&data.sem_perm);
        Stat {
            key: Key::new(perm.key),
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: perm.mode & 0o777,
            count: data.sem_nsems as usize,
            otime: data.sem_otime,
            ctime: data.sem_ctime,
        }
    }
}

/// A line of the listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The id, for [`SemSet::from_id`].
    pub id: i32,
    /// The rest.
    pub stat: Stat,
}

impl SemSet {
    /// Creates a set of `count` semaphores, all 0 (`IPC_CREAT | IPC_EXCL`).
    ///
    /// # Errors
    /// * `EEXIST`: the key is taken.
    /// * `EINVAL`: `count` is 0 or above `SEMMSL`, or `mode` has bits outside 0o777.
    /// * `ENOSPC`: too many sets (`SEMMNI`) or too many semaphores in all (`SEMMNS`).
    /// * `ENOMEM`: the kernel has no memory for it.
    pub fn create(key: Key, count: usize, mode: u32) -> Result<SemSet> {
        get(key, count, libc::IPC_CREAT | libc::IPC_EXCL, mode)
    }

    /// The set that has this key, of any size.
    ///
    /// # Errors
    /// * `ENOENT`: there is none, or the key is private.
    pub fn open(key: Key) -> Result<SemSet> {
        if key.is_private() {
            return Err(Error::refused(
                Call::SemGet,
                Subject::Key(key),
                Detail::PrivateKey,
            ));
        }
        get(key, 0, 0, 0)
    }

    /// The set that has this key, or a new one. Both have every semaphore 0 at first, so no third
    /// party is needed to initialise a set for which 0 is the right value.
    ///
    /// # Errors
    /// As [`create`](SemSet::create) without `EEXIST`, and `EINVAL` if the existing set has fewer
    /// than `count` semaphores, `EACCES` if its mode does not allow the caller the access in
    /// `mode`.
    pub fn open_or_create(key: Key, count: usize, mode: u32) -> Result<SemSet> {
        get(key, count, libc::IPC_CREAT, mode)
    }

    /// The set with this id. No system call is made.
    pub const fn from_id(id: i32) -> SemSet {
        SemSet { id }
    }

    /// The id.
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// Does all operations at once, or waits until it can (`semop`).
    ///
    /// Each operation sees what the ones before it in the list did; if one cannot be done, none is.
    /// A signal ends the wait with `EINTR`, and the call is never repeated silently: whether to go
    /// on waiting is the caller's decision.
    ///
    /// # Errors
    /// * `EAGAIN`: it would have to wait at an operation that is [`no_wait`](Op::no_wait).
    /// * `EINTR`: a signal handler ran during the wait.
    /// * `EIDRM`: the set was removed during the wait; `EINVAL`: before the call, or the list is
    ///   empty.
    /// * `ERANGE`: a value, or an amount to undo, would pass [`MAX_VALUE`].
    /// * `EFBIG`: an index is outside the set.
    /// * `E2BIG`: more operations than `SEMOPM` (500).
    /// * `EACCES`: the mode allows the caller no altering (or, for waits for 0 only, no reading).
    /// * `ENOSPC`, `ENOMEM`: no room to note what is to be undone.
    #[inline]
    pub fn op(&self, ops: &[Op]) -> Result<()> {
        match sys::semop(self.id, ops) {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.op_error(Call::SemOp, ops.len(), errno)),
        }
    }

    /// As [`op`](SemSet::op), but waits at most this long (`semtimedop`); `None` waits for ever.
    ///
    /// # Errors
    /// As [`op`](SemSet::op); `EAGAIN` also when the time is over.
    #[inline]
    pub fn op_timeout(&self, ops: &[Op], timeout: Option<Duration>) -> Result<()> {
        let timeout = timeout.map(|timeout| libc::timespec {
            // Longer than the universe is for ever.
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match sys::semtimedop(self.id, ops, timeout.as_ref()) {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.op_error(Call::SemTimedOp, ops.len(), errno)),
        }
    }

    #[cold]
    fn op_error(&self, call: Call, ops: usize, errno: i32) -> Error {
        if ops == 0 {
            return Error::on_id(call, self.id, errno, sys::sem_stat);
        }
        Error::new(call, Subject::Id(self.id), errno)
    }

    /// The value of one semaphore (`GETVAL`).
    ///
    /// # Errors
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINVAL`: the set has no such semaphore.
    /// * `EINVAL`, `EIDRM`: the set has been removed.
    pub fn value(&self, index: u16) -> Result<u16> {
        // The kernel keeps values within 0..=MAX_VALUE.
        self.number(Call::SemGetVal, index, libc::GETVAL)
            .map(|value| value as u16)
    }

    /// How many processes wait for the semaphore to grow (`GETNCNT`).
    ///
    /// # Errors
    /// As [`value`](SemSet::value).
    pub fn waiting_for_increase(&self, index: u16) -> Result<u32> {
        self.number(Call::SemGetNCnt, index, libc::GETNCNT)
    }

    /// How many processes wait for the semaphore to become 0 (`GETZCNT`).
    ///
    /// # Errors
    /// As [`value`](SemSet::value).
    pub fn waiting_for_zero(&self, index: u16) -> Result<u32> {
        self.number(Call::SemGetZCnt, index, libc::GETZCNT)
    }

    /// The process that operated on the semaphore last, or whose end undid something on it
    /// (`GETPID`); 0 if none has, or if it is not visible from this pid namespace.
    ///
    /// # Errors
    /// As [`value`](SemSet::value).
    pub fn last_pid(&self, index: u16) -> Result<i32> {
        self.number(Call::SemGetPid, index, libc::GETPID)
            .map(u32::cast_signed)
    }

    /// The values of all semaphores at one moment (`GETALL`).
    ///
    /// # Errors
    /// As [`value`](SemSet::value).
    pub fn values(&self) -> Result<Vec<u16>> {
        let count = self.stat()?.count;
        sys::sem_get_all(self.id, count).map_err(|errno| self.error(Call::SemGetAll, errno))
    }

    /// Sets one semaphore (`SETVAL`), and **erases what any process has to undo on it**.
    ///
    /// # Errors
    /// * `ERANGE`: `value` is above [`MAX_VALUE`].
    /// * `EACCES`: the mode allows the caller no altering.
    /// * `EINVAL`: the set has no such semaphore.
    /// * `EINVAL`, `EIDRM`: the set has been removed.
    pub fn set_value(&self, index: u16, value: u16) -> Result<()> {
        sys::sem_set_value(self.id, index, value)
            .map_err(|errno| Error::on_id(Call::SemSetVal, self.id, errno, sys::sem_stat))
    }

    /// Sets all semaphores at one moment (`SETALL`), and **erases what any process has to undo on
    /// the set**.
    ///
    /// # Errors
    /// As [`set_value`](SemSet::set_value); `EINVAL` also if `values` has not exactly one value for
    /// each semaphore. `EACCES` also if the caller may not read, which is needed to compare.
    pub fn set_values(&self, values: &[u16]) -> Result<()> {
        if self.stat()?.count != values.len() {
            return Err(Error::refused(
                Call::SemSetAll,
                Subject::Id(self.id),
                Detail::Length,
            ));
        }
        sys::sem_set_all(self.id, values).map_err(|errno| self.error(Call::SemSetAll, errno))
    }

    /// Reads the kernel's data about the set (`IPC_STAT`).
    ///
    /// # Errors
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINVAL`, `EIDRM`: the set has been removed.
    pub fn stat(&self) -> Result<Stat> {
        let data = sys::sem_stat(self.id).map_err(|errno| self.error(Call::SemStat, errno))?;
        Ok(Stat::from(&data))
    }

    /// Changes owner, group and mode (`IPC_SET`).
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`.
    /// * `EINVAL`: `mode` has bits outside 0o777, or the user or group does not exist in this user
    ///   namespace.
    /// * `EINVAL`, `EIDRM`: the set has been removed.
    pub fn set_permissions(&self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        if mode & !0o777 != 0 {
            return Err(Error::refused(
                Call::SemSet,
                Subject::Id(self.id),
                Detail::Mode,
            ));
        }
        sys::sem_set(self.id, uid, gid, mode)
            .map_err(|errno| Error::on_id(Call::SemSet, self.id, errno, sys::sem_stat))
    }

    /// Removes the set at once (`IPC_RMID`). Waiting calls are woken with `EIDRM`, and nothing is
    /// undone any more.
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`.
    /// * `EINVAL`, `EIDRM`: it has been removed already.
    pub fn remove(&self) -> Result<()> {
        sys::sem_command(self.id, 0, libc::IPC_RMID)
            .map(drop)
            .map_err(|errno| self.error(Call::SemRemove, errno))
    }

    fn number(&self, call: Call, index: u16, command: i32) -> Result<u32> {
        sys::sem_command(self.id, index, command)
            .map(i32::cast_unsigned)
            .map_err(|errno| Error::on_id(call, self.id, errno, sys::sem_stat))
    }

    /// For the calls whose `EINVAL` can only be about the id.
    const fn error(&self, call: Call, errno: i32) -> Error {
        Error::new(call, Subject::Id(self.id), errno)
    }
}

fn get(key: Key, count: usize, flags: i32, mode: u32) -> Result<SemSet> {
    if mode & !0o777 != 0 {
        return Err(Error::refused(
            Call::SemGet,
            Subject::Key(key),
            Detail::Mode,
        ));
    }
    let Ok(count) = count.try_into() else {
        return Err(Error::refused(
            Call::SemGet,
            Subject::Key(key),
            Detail::TooMany,
        ));
    };
    match sys::semget(key.raw(), count, flags | mode.cast_signed()) {
        Ok(id) => Ok(SemSet { id }),
        Err(errno) => Err(Error::new(Call::SemGet, Subject::Key(key), errno)),
    }
}

/// The sets of this IPC namespace, of all users: from `/proc/sysvipc/sem`, or from the kernel's
/// table, an index at a time, where that can't be read.
///
/// # Errors
/// The error of reading the file, if the kernel has no System V IPC.
///
/// ```
/// use sysv_ipc::{Key, sem::{self, Created, SemSet}};
///
/// let set = Created::new(SemSet::create(Key::PRIVATE, 3, 0o600)?);
/// let entries = sem::list()?;
/// let entry = entries.iter().find(|entry| entry.id == set.id()).unwrap();
/// assert_eq!(entry.stat.count, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn list() -> io::Result<Vec<Entry>> {
    from_proc().or_else(|error| from_kernel().ok_or(error))
}

fn from_proc() -> io::Result<Vec<Entry>> {
    table::read("/proc/sysvipc/sem", |row| {
        let stat = Stat {
            key: row.key()?,
            uid: row.number("uid")?,
            gid: row.number("gid")?,
            cuid: row.number("cuid")?,
            cgid: row.number("cgid")?,
            mode: row.mode()? & 0o777,
            count: row.number("nsems")?,
            otime: row.number("otime")?,
            ctime: row.number("ctime")?,
        };
        Some(Entry {
            id: row.number("semid")?,
            stat,
        })
    })
}

/// The same where `/proc` can't be read, by an index at a time.
fn from_kernel() -> Option<Vec<Entry>> {
    let (_, highest) = sys::sem_info().ok()?;
    let at = |index| {
        let (id, data) = sys::sem_at(index).ok()?;
        let stat = Stat::from(&data);
        Some(Entry { id, stat })
    };
    Some((0..=highest).filter_map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_the_same_as_proc() {
        let object = Created::new(SemSet::create(Key::PRIVATE, 3, 0o640).unwrap());
        let of = |entries: Vec<Entry>| entries.into_iter().find(|entry| entry.id == object.id());
        assert_eq!(of(from_kernel().unwrap()), of(from_proc().unwrap()));
    }
}
