//! Message queues: `msgget`, `msgsnd`, `msgrcv`, `msgctl`.
//!
//! A queue keeps whole messages, each with a type of 1 or more, and hands each to one receiver: the
//! oldest of all, the oldest of one type, the oldest of the lowest type, or the oldest of any other
//! type. It lives until it is removed. A [`Queue`] is only its id: copying or dropping one does
//! nothing. [`Created`] removes the queue when dropped, for code that owns one.
//!
//! ```
//! use sysv_ipc::{Key, msg::{Created, Queue, Selector}};
//!
//! let queue = Created::new(Queue::create(Key::PRIVATE, 0o600)?);
//! queue.send(2, b"later")?;
//! queue.send(1, b"urgent")?;
//! let mut buffer = [0; 64];
//! let message = queue.receive(&mut buffer, Selector::UpTo(2))?; // the lowest type first
//! assert_eq!((message.kind, &buffer[..message.len]), (1, &b"urgent"[..]));
//! # Ok::<(), sysv_ipc::Error>(())
//! ```

use std::io;

use crate::error::{Call, Detail, Error, Result, Subject};
use crate::key::Key;
use crate::sys::{self, Perm};
use crate::table;

/// A queue that is removed when this value is dropped: [`Created`](crate::Created) of a [`Queue`].
pub type Created = crate::Created<Queue>;

/// A message queue, by its id. Not an owner: see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Queue {
    id: i32,
}

/// Which message to receive. The numbers are types, so 1 or more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Selector {
    /// The oldest.
    Any,
    /// The oldest of this type.
    Type(i64),
    /// The oldest of the lowest type that is not above this one.
    UpTo(i64),
    /// The oldest that is not of this type (`MSG_EXCEPT`).
    Except(i64),
}

impl Selector {
    /// The `msgtyp` and the flag for the selector.
    fn argument(self) -> Option<(i64, i32)> {
        match self {
            Selector::Any => Some((0, 0)),
            Selector::Type(kind) if kind > 0 => Some((kind, 0)),
            Selector::UpTo(kind) if kind > 0 => Some((-kind, 0)),
            Selector::Except(kind) if kind > 0 => Some((kind, libc::MSG_EXCEPT)),
            // 0 would mean "any", and a negative number the opposite of the selector.
            Selector::Type(_) | Selector::UpTo(_) | Selector::Except(_) => None,
        }
    }
}

/// A message that has been received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Received {
    /// Its type, 1 or more.
    pub kind: i64,
    /// How many bytes of the buffer it fills.
    pub len: usize,
}

/// The settings that the owner of a queue may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// The permissions, at most 0o777.
    pub mode: u32,
    /// How many bytes the messages in the queue may have together.
    pub max_bytes: u64,
}

/// The kernel's data about a queue.
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
    /// The permissions, at most 0o777.
    pub mode: u32,
    /// How many messages are in the queue.
    pub messages: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many bytes they may have together, and how many messages there may be (the kernel uses
    /// one number for both). [`list`] can't read it and gives 0.
    pub max_bytes: u64,
    /// The process that sent last; 0 if none has.
    pub last_send_pid: i32,
    /// The process that received last; 0 if none has. If it had to wait, Linux notes the number of
    /// its thread instead.
    pub last_receive_pid: i32,
    /// The last send, in seconds since 1970; 0 if none was.
    pub stime: i64,
    /// The last receive, in seconds since 1970; 0 if none was.
    pub rtime: i64,
    /// The creation or the last [`set`](Queue::set), in seconds since 1970.
    pub ctime: i64,
}

impl From<&libc::msqid_ds> for Stat {
    fn from(data: &libc::msqid_ds) -> Self {
        let perm = Perm::from(&data.msg_perm);
        Stat {
            key: Key::new(perm.key),
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: perm.mode & 0o777,
            messages: data.msg_qnum,
            bytes: data.__msg_cbytes,
            max_bytes: data.msg_qbytes,
            last_send_pid: data.msg_lspid,
            last_receive_pid: data.msg_lrpid,
            stime: data.msg_stime,
            rtime: data.msg_rtime,
            ctime: data.msg_ctime,
        }
    }
}

/// A line of the listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The id, for [`Queue::from_id`].
    pub id: i32,
    /// The rest, without `max_bytes`.
    pub stat: Stat,
}

impl Queue {
    /// Creates an empty queue (`IPC_CREAT | IPC_EXCL`).
    ///
    /// # Errors
    /// * `EEXIST`: the key is taken.
    /// * `EINVAL`: `mode` has bits outside 0o777.
    /// * `ENOSPC`: too many queues (`msgmni`).
    /// * `ENOMEM`: the kernel has no memory for it.
    pub fn create(key: Key, mode: u32) -> Result<Queue> {
        get(key, libc::IPC_CREAT | libc::IPC_EXCL, mode)
    }

    /// The queue that has this key.
    ///
    /// # Errors
    /// * `ENOENT`: none has, or the key is private.
    pub fn open(key: Key) -> Result<Queue> {
        if key.is_private() {
            // The call itself would create one.
            return Err(Error::refused(
                Call::MsgGet,
                Subject::Key(key),
                Detail::PrivateKey,
            ));
        }
        get(key, 0, 0)
    }

    /// The queue that has this key, or a new one.
    ///
    /// # Errors
    /// As [`create`](Queue::create) without `EEXIST`, and `EACCES` if the mode of the existing
    /// queue does not allow the caller the access in `mode`.
    pub fn open_or_create(key: Key, mode: u32) -> Result<Queue> {
        get(key, libc::IPC_CREAT, mode)
    }

    /// The queue with this id. No system call is made.
    pub const fn from_id(id: i32) -> Queue {
        Queue { id }
    }

    /// The id.
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// Puts a message at the end of the queue, and waits while the queue is full.
    ///
    /// The bytes are copied once into a buffer with the type before them, as the call takes it; above
    /// 8 KiB that buffer is allocated.
    ///
    /// # Errors
    /// * `EINVAL`: `kind` is below 1, or the message is longer than `msgmax`.
    /// * `EACCES`: the mode allows the caller no writing.
    /// * `EINTR`: a signal handler ran during the wait. Nothing was sent.
    /// * `EIDRM`: the queue was removed during the wait; `EINVAL`: before the call.
    /// * `ENOMEM`: the kernel has no memory for it.
    pub fn send(&self, kind: i64, bytes: &[u8]) -> Result<()> {
        self.send_flags(kind, bytes, 0)
    }

    /// Puts a message at the end of the queue, unless the queue is full.
    ///
    /// # Errors
    /// As [`send`](Queue::send); `EAGAIN` instead of waiting.
    pub fn try_send(&self, kind: i64, bytes: &[u8]) -> Result<()> {
        self.send_flags(kind, bytes, libc::IPC_NOWAIT)
    }

    fn send_flags(&self, kind: i64, bytes: &[u8], flags: i32) -> Result<()> {
        if kind < 1 {
            return Err(self.refused(Call::MsgSnd, Detail::MessageType));
        }
        sys::msgsnd(self.id, kind, bytes, flags)
            .map_err(|errno| Error::on_id(Call::MsgSnd, self.id, errno, sys::msg_stat))
    }

    /// Takes a message out of the queue, and waits until there is one.
    ///
    /// # Errors
    /// * `E2BIG`: the message is longer than `buffer`. It stays in the queue.
    /// * `EINVAL`: the selector has a type below 1.
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINTR`: a signal handler ran during the wait.
    /// * `EIDRM`: the queue was removed during the wait; `EINVAL`: before the call.
    pub fn receive(&self, buffer: &mut [u8], selector: Selector) -> Result<Received> {
        self.receive_flags(buffer, selector, 0)
    }

    /// Takes a message out of the queue, if there is one.
    ///
    /// # Errors
    /// As [`receive`](Queue::receive); `ENOMSG` ([`is_no_message`](Error::is_no_message)) instead
    /// of waiting.
    pub fn try_receive(&self, buffer: &mut [u8], selector: Selector) -> Result<Received> {
        self.receive_flags(buffer, selector, libc::IPC_NOWAIT)
    }

    /// As [`receive`](Queue::receive), but bytes that do not fit into `buffer` are lost
    /// (`MSG_NOERROR`). A message that was cut can't be distinguished from one that just fits.
    ///
    /// # Errors
    /// As [`receive`](Queue::receive) without `E2BIG`.
    pub fn receive_truncated(&self, buffer: &mut [u8], selector: Selector) -> Result<Received> {
        self.receive_flags(buffer, selector, libc::MSG_NOERROR)
    }

    /// As [`try_receive`](Queue::try_receive), but what does not fit into `buffer` is lost.
    ///
    /// # Errors
    /// As [`try_receive`](Queue::try_receive) without `E2BIG`.
    pub fn try_receive_truncated(&self, buffer: &mut [u8], selector: Selector) -> Result<Received> {
        self.receive_flags(buffer, selector, libc::MSG_NOERROR | libc::IPC_NOWAIT)
    }

    fn receive_flags(&self, buffer: &mut [u8], selector: Selector, flags: i32) -> Result<Received> {
        let Some((kind, flag)) = selector.argument() else {
            return Err(self.refused(Call::MsgRcv, Detail::MessageType));
        };
        let received = sys::msgrcv(self.id, buffer, kind, flags | flag);
        let (kind, len) = received.map_err(|errno| self.error(Call::MsgRcv, errno))?;
        Ok(Received { kind, len })
    }

    /// Copies the message at this position, counted from 0 for the oldest, and leaves it in the
    /// queue (`MSG_COPY`). Never waits.
    ///
    /// # Errors
    /// * `ENOMSG`: there are fewer messages.
    /// * `E2BIG`: the message is longer than `buffer`.
    /// * `ENOSYS`: the kernel was built without `CONFIG_CHECKPOINT_RESTORE`.
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINVAL`, `EIDRM`: the queue has been removed.
    pub fn peek(&self, buffer: &mut [u8], position: usize) -> Result<Received> {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let received = sys::msgrcv(self.id, buffer, position, libc::MSG_COPY | libc::IPC_NOWAIT);
        let (kind, len) = received.map_err(|errno| self.error(Call::MsgRcv, errno))?;
        Ok(Received { kind, len })
    }

    /// Reads the kernel's data about the queue (`IPC_STAT`).
    ///
    /// # Errors
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINVAL`, `EIDRM`: the queue has been removed.
    pub fn stat(&self) -> Result<Stat> {
        let data = sys::msg_stat(self.id).map_err(|errno| self.error(Call::MsgStat, errno))?;
        Ok(Stat::from(&data))
    }

    /// Changes owner, group, mode and size, all together (`IPC_SET`).
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`; or `max_bytes`
    ///   is above `msgmnb` and the caller has no `CAP_SYS_RESOURCE`.
    /// * `EINVAL`: `mode` has bits outside 0o777, or the user or group does not exist in this user
    ///   namespace.
    /// * `EINVAL`, `EIDRM`: the queue has been removed.
    pub fn set(&self, settings: Settings) -> Result<()> {
        if settings.mode & !0o777 != 0 {
            return Err(self.refused(Call::MsgSet, Detail::Mode));
        }
        sys::msg_set(self.id, &settings)
            .map_err(|errno| Error::on_id(Call::MsgSet, self.id, errno, sys::msg_stat))
    }

    /// Changes owner, group and mode. The kernel sets the size along with them, so this reads it
    /// first: a change of the size by someone else between the two calls is lost.
    ///
    /// # Errors
    /// As [`stat`](Queue::stat) and [`set`](Queue::set).
    pub fn set_permissions(&self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        let max_bytes = self.stat()?.max_bytes;
        self.set(Settings {
            uid,
            gid,
            mode,
            max_bytes,
        })
    }

    /// Changes how many bytes the messages in the queue may have together. Reads owner, group and
    /// mode first, as [`set_permissions`](Queue::set_permissions) reads the size.
    ///
    /// # Errors
    /// As [`stat`](Queue::stat) and [`set`](Queue::set).
    pub fn set_max_bytes(&self, max_bytes: u64) -> Result<()> {
        let Stat { uid, gid, mode, .. } = self.stat()?;
        self.set(Settings {
            uid,
            gid,
            mode,
            max_bytes,
        })
    }

    /// Removes the queue and all messages in it at once (`IPC_RMID`). Waiting calls are woken with
    /// `EIDRM`.
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`.
    /// * `EINVAL`, `EIDRM`: it has been removed already.
    pub fn remove(&self) -> Result<()> {
        sys::msg_remove(self.id).map_err(|errno| self.error(Call::MsgRemove, errno))
    }

    const fn refused(&self, call: Call, detail: Detail) -> Error {
        Error::refused(call, Subject::Id(self.id), detail)
    }

    /// For the calls whose `EINVAL` can only be about the id.
    const fn error(&self, call: Call, errno: i32) -> Error {
        Error::new(call, Subject::Id(self.id), errno)
    }
}

fn get(key: Key, flags: i32, mode: u32) -> Result<Queue> {
    if mode & !0o777 != 0 {
        return Err(Error::refused(
            Call::MsgGet,
            Subject::Key(key),
            Detail::Mode,
        ));
    }
    match sys::msgget(key.raw(), flags | mode.cast_signed()) {
        Ok(id) => Ok(Queue { id }),
        Err(errno) => Err(Error::new(Call::MsgGet, Subject::Key(key), errno)),
    }
}

/// The queues of this IPC namespace, of all users: from `/proc/sysvipc/msg`, or from the kernel's
/// table, an index at a time, where that can't be read.
///
/// # Errors
/// The error of reading the file, if the kernel has no System V IPC.
///
/// ```
/// use sysv_ipc::{Key, msg::{self, Created, Queue}};
///
/// let queue = Created::new(Queue::create(Key::PRIVATE, 0o600)?);
/// assert!(msg::list()?.iter().any(|entry| entry.id == queue.id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn list() -> io::Result<Vec<Entry>> {
    from_proc().or_else(|error| from_kernel().ok_or(error))
}

fn from_proc() -> io::Result<Vec<Entry>> {
    table::read("/proc/sysvipc/msg", |row| {
        let stat = Stat {
            key: row.key()?,
            uid: row.number("uid")?,
            gid: row.number("gid")?,
            cuid: row.number("cuid")?,
            cgid: row.number("cgid")?,
            mode: row.mode()? & 0o777,
            messages: row.number("qnum")?,
            bytes: row.number("cbytes")?,
            max_bytes: 0,
            last_send_pid: row.number("lspid")?,
            last_receive_pid: row.number("lrpid")?,
            stime: row.number("stime")?,
            rtime: row.number("rtime")?,
            ctime: row.number("ctime")?,
        };
        Some(Entry {
            id: row.number("msqid")?,
            stat,
        })
    })
}

/// The same where `/proc` can't be read, by an index at a time.
fn from_kernel() -> Option<Vec<Entry>> {
    let (_, highest) = sys::msg_info().ok()?;
    let at = |index| {
        let (id, data) = sys::msg_at(index).ok()?;
        let stat = Stat {
            max_bytes: 0,
            ..Stat::from(&data)
        };
        Some(Entry { id, stat })
    };
    Some((0..=highest).filter_map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_the_same_as_proc() {
        let object = Created::new(Queue::create(Key::PRIVATE, 0o640).unwrap());
        let of = |entries: Vec<Entry>| entries.into_iter().find(|entry| entry.id == object.id());
        assert_eq!(of(from_kernel().unwrap()), of(from_proc().unwrap()));
    }
}
