//! Errors: the call, its subject, the errno, and an explanation.

use std::fmt;
use std::io;

use crate::Key;

/// The result of a System V call.
pub type Result<T> = std::result::Result<T, Error>;

/// A System V call that failed: which one, on what, and why.
///
/// It is 16 bytes, `Copy`, and made without allocating, so it may be made and dropped on a path
/// that runs often. As text it names the call and its subject, and explains the number:
///
/// ```
/// use sysv_ipc::{Key, sem::SemSet};
///
/// let error = SemSet::open(Key::PRIVATE).unwrap_err();
/// assert!(error.not_found());
/// assert_eq!(error.call(), "semget");
/// let text = error.to_string();
/// assert!(text.starts_with("semget(private key): No such file or directory (os error 2)"));
/// ```
///
/// `io::Error::from` keeps the kind and carries the `Error` as its payload. Such an `io::Error` has
/// no `raw_os_error()`: reach the number by a downcast.
///
/// ```
/// # use sysv_ipc::{Error, Key, sem::SemSet};
/// let error = std::io::Error::from(SemSet::open(Key::PRIVATE).unwrap_err());
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert_eq!(error.downcast::<Error>().unwrap().errno(), libc::ENOENT);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    errno: i32,
    subject: Subject,
    call: Call,
    detail: Detail,
}

const _: () = assert!(size_of::<Error>() == 16);

/// The subject of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// A name, for the calls that look up or create.
    Key(Key),
    /// The number of an object, for the calls that use it.
    Id(i32),
    /// The path given to [`ftok`](crate::ftok). Its text is not kept.
    Path,
    /// Nothing with a name: an address to detach.
    None,
}

/// The calls of this crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Ftok,
    ShmGet,
    ShmAt,
    ShmDt,
    ShmStat,
    ShmSet,
    ShmRemove,
    ShmLock,
    ShmUnlock,
    SemGet,
    SemOp,
    SemTimedOp,
    SemStat,
    SemSet,
    SemRemove,
    SemGetVal,
    SemGetAll,
    SemSetVal,
    SemSetAll,
    SemGetNCnt,
    SemGetZCnt,
    SemGetPid,
    MsgGet,
    MsgSnd,
    MsgRcv,
    MsgStat,
    MsgSet,
    MsgRemove,
}

impl Call {
    /// The function, and the command where the function has many.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Call::Ftok => ("ftok", ""),
            Call::ShmGet => ("shmget", ""),
            Call::ShmAt => ("shmat", ""),
            Call::ShmDt => ("shmdt", ""),
            Call::ShmStat => ("shmctl", "IPC_STAT"),
            Call::ShmSet => ("shmctl", "IPC_SET"),
            Call::ShmRemove => ("shmctl", "IPC_RMID"),
            Call::ShmLock => ("shmctl", "SHM_LOCK"),
            Call::ShmUnlock => ("shmctl", "SHM_UNLOCK"),
            Call::SemGet => ("semget", ""),
            Call::SemOp => ("semop", ""),
            Call::SemTimedOp => ("semtimedop", ""),
            Call::SemStat => ("semctl", "IPC_STAT"),
            Call::SemSet => ("semctl", "IPC_SET"),
            Call::SemRemove => ("semctl", "IPC_RMID"),
            Call::SemGetVal => ("semctl", "GETVAL"),
            Call::SemGetAll => ("semctl", "GETALL"),
            Call::SemSetVal => ("semctl", "SETVAL"),
            Call::SemSetAll => ("semctl", "SETALL"),
            Call::SemGetNCnt => ("semctl", "GETNCNT"),
            Call::SemGetZCnt => ("semctl", "GETZCNT"),
            Call::SemGetPid => ("semctl", "GETPID"),
            Call::MsgGet => ("msgget", ""),
            Call::MsgSnd => ("msgsnd", ""),
            Call::MsgRcv => ("msgrcv", ""),
            Call::MsgStat => ("msgctl", "IPC_STAT"),
            Call::MsgSet => ("msgctl", "IPC_SET"),
            Call::MsgRemove => ("msgctl", "IPC_RMID"),
        }
    }
}

/// Details beyond the errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// Nothing.
    Kernel,
    /// `EINVAL` on an id although the object exists: the arguments are at fault.
    Arguments,
    /// Refused here: the mode has bits above 0o777, which the calls would take for flags.
    Mode,
    /// Refused here: the private key names nothing that could be opened.
    PrivateKey,
    /// Refused here: `ftok` with the project id 0.
    ProjectZero,
    /// Refused here: a number beyond what the call's argument can hold.
    TooMany,
    /// Refused here: not one value for each semaphore.
    Length,
    /// Refused here: message types begin at 1.
    MessageType,
}

impl Detail {
    const fn errno(self) -> i32 {
        match self {
            Detail::PrivateKey => libc::ENOENT,
            _ => libc::EINVAL,
        }
    }
}

impl Error {
    pub(crate) const fn new(call: Call, subject: Subject, errno: i32) -> Error {
        Error {
            errno,
            subject,
            call,
            detail: Detail::Kernel,
        }
    }

    /// An error found before any system call.
    pub(crate) const fn refused(call: Call, subject: Subject, detail: Detail) -> Error {
        Error {
            errno: detail.errno(),
            subject,
            call,
            detail,
        }
    }

    /// An error of a call on an id whose `EINVAL` has two meanings. `stat` distinguishes them.
    #[cold]
    pub(crate) fn on_id<T>(
        call: Call,
        id: i32,
        errno: i32,
        stat: impl FnOnce(i32) -> std::result::Result<T, i32>,
    ) -> Error {
        let gone = |errno| matches!(errno, libc::EINVAL | libc::EIDRM);
        // A stat that is not permitted still shows that the object exists.
        let exists = errno == libc::EINVAL && !stat(id).is_err_and(gone);
        let detail = if exists {
            Detail::Arguments
        } else {
            Detail::Kernel
        };
        Error {
            errno,
            subject: Subject::Id(id),
            call,
            detail,
        }
    }

    /// The number, such as `libc::ENOSPC`.
    pub const fn errno(&self) -> i32 {
        self.errno
    }

    /// The function that failed, such as `"semctl"`.
    pub const fn call(&self) -> &'static str {
        self.call.names().0
    }

    /// The command of a `…ctl` function, such as `"IPC_RMID"`; `None` for the other functions.
    pub fn command(&self) -> Option<&'static str> {
        Some(self.call.names().1).filter(|name| !name.is_empty())
    }

    /// The subject of the call.
    pub const fn subject(&self) -> Subject {
        self.subject
    }

    /// The kind that `io::Error` has for this number.
    pub fn kind(&self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.errno).kind()
    }

    /// `EAGAIN`: the call would have to wait and must not, or waited for its whole time-out.
    pub const fn is_would_block(&self) -> bool {
        self.errno == libc::EAGAIN
    }

    /// `ENOMSG`: no such message is in the queue.
    pub const fn is_no_message(&self) -> bool {
        self.errno == libc::ENOMSG
    }

    /// `EINTR`: a signal handler ran while the call slept. Nothing was done. System V calls are not
    /// restarted, not even with `SA_RESTART`.
    pub const fn is_interrupted(&self) -> bool {
        self.errno == libc::EINTR
    }

    /// The object is not there (any more): `EIDRM`, or `EINVAL` from a call on an id.
    ///
    /// Both mean the same. A call that sleeps while the object is removed is woken with `EIDRM`. A
    /// later call uses an id that no object has, which gives `EINVAL`; so does, on Linux, an id
    /// that never existed in this IPC namespace. An `EINVAL` about another argument is
    /// distinguished (the crate checks again whether the object exists) and gives `false` here.
    pub const fn is_removed(&self) -> bool {
        matches!(
            (self.errno, self.subject, self.detail),
            (libc::EIDRM, ..) | (libc::EINVAL, Subject::Id(_), Detail::Kernel)
        )
    }

    /// `ERANGE`: a semaphore, or its undo value, would exceed 32767.
    pub const fn is_overflow(&self) -> bool {
        self.errno == libc::ERANGE
    }

    /// `EEXIST`: an object with this key exists.
    pub const fn already_exists(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// `ENOENT`: no object has this key in this IPC namespace.
    pub const fn not_found(&self) -> bool {
        self.errno == libc::ENOENT
    }

    /// `ENOSPC`: a limit of the IPC namespace is reached; see [`limits`](crate::limits).
    pub const fn no_space(&self) -> bool {
        self.errno == libc::ENOSPC
    }

    /// `EACCES` (the mode of the object forbids it) or `EPERM` (only its owner, its creator or a
    /// privileged process may do it).
    pub const fn permission_denied(&self) -> bool {
        matches!(self.errno, libc::EACCES | libc::EPERM)
    }

    /// The meaning of the number for this call, where it is more than the number's own
    /// text.
    fn hint(&self) -> Option<&'static str> {
        match self.detail {
            Detail::Mode => return Some("the mode has bits outside 0o777"),
            Detail::PrivateKey => {
                return Some("the private key cannot be opened, only created with");
            }
            Detail::ProjectZero => return Some("the project id must not be 0"),
            Detail::TooMany => return Some("no set can have that many semaphores"),
            Detail::Length => return Some("the set needs exactly one value for each semaphore"),
            Detail::MessageType => return Some("message types begin at 1"),
            Detail::Arguments => {
                return Some(match self.call {
                    Call::SemOp | Call::SemTimedOp => "the list of operations is empty",
                    Call::ShmAt => "the address is not on a page boundary or in use",
                    Call::ShmSet | Call::SemSet | Call::MsgSet => {
                        "the owner or group has no meaning in this user namespace"
                    }
                    Call::MsgSnd => {
                        "the message is longer than the limit in /proc/sys/kernel/msgmax"
                    }
                    _ => "the object exists, but has nothing with this index",
                });
            }
            Detail::Kernel => {}
        }
        if self.is_removed() {
            return Some("the object has been removed, or was never there in this IPC namespace");
        }
        Some(match (self.call, self.errno) {
            (Call::ShmGet | Call::SemGet | Call::MsgGet, libc::EEXIST) => {
                "an object with this key exists: open it, or choose another key"
            }
            (Call::ShmGet | Call::SemGet | Call::MsgGet, libc::ENOENT) => {
                "nothing has this key in this IPC namespace"
            }
            (Call::ShmGet, libc::ENOSPC) => {
                "the limit in /proc/sys/kernel/shmmni (segments) or /proc/sys/kernel/shmall \
                 (pages in all) is reached; `ipcs -m` shows their owners"
            }
            (Call::SemGet, libc::ENOSPC) => {
                "the second (semaphores in all) or fourth (sets) limit in /proc/sys/kernel/sem \
                 is reached; `ipcs -s` shows their owners"
            }
            (Call::MsgGet, libc::ENOSPC) => {
                "the limit in /proc/sys/kernel/msgmni is reached; `ipcs -q` shows their owners"
            }
            (Call::ShmGet, libc::EINVAL) => {
                "the size is 0 or above /proc/sys/kernel/shmmax, or the existing segment is smaller"
            }
            (Call::SemGet, libc::EINVAL) => {
                "the count is 0 or above the first limit in /proc/sys/kernel/sem, or the \
                 existing set is smaller"
            }
            (Call::ShmGet, libc::EPERM) => {
                "huge pages need CAP_IPC_LOCK or the group in /proc/sys/vm/hugetlb_shm_group"
            }
            (Call::ShmGet, libc::ENOMEM) => {
                "the memory, or the free huge pages, do not suffice for this size"
            }
            (Call::ShmDt, libc::EINVAL) => "no attachment begins at this address",
            (Call::ShmLock, libc::ENOMEM) => "the locked memory would pass RLIMIT_MEMLOCK",
            (Call::SemOp | Call::SemTimedOp, libc::E2BIG) => {
                "more operations than the third limit in /proc/sys/kernel/sem"
            }
            (Call::SemOp | Call::SemTimedOp, libc::EFBIG) => "an index lies outside the set",
            (_, libc::ERANGE) => "a value would pass 32767",
            (Call::SemOp, libc::EAGAIN) => "the operations would have to wait",
            (Call::SemTimedOp, libc::EAGAIN) => {
                "the operations would have to wait, or waited for the whole time-out"
            }
            (Call::MsgSnd, libc::EAGAIN) => "the queue is full",
            (Call::MsgRcv, libc::ENOMSG) => "no such message is in the queue",
            (Call::MsgRcv, libc::E2BIG) => "the message is longer than the buffer",
            (Call::MsgRcv, libc::ENOSYS) => {
                "this kernel cannot copy messages (CONFIG_CHECKPOINT_RESTORE)"
            }
            (_, libc::ENOSYS) => "this kernel or sandbox has no System V IPC",
            (Call::MsgSet, libc::EPERM) => {
                "only the owner, the creator or CAP_SYS_ADMIN may do this; more bytes than \
                 /proc/sys/kernel/msgmnb need CAP_SYS_RESOURCE"
            }
            (_, libc::EPERM) => "only the owner, the creator or CAP_SYS_ADMIN may do this",
            (_, libc::EACCES) if self.call != Call::Ftok => {
                "the mode of the object does not allow this to the caller"
            }
            (_, libc::EINTR) => "a signal handler ran meanwhile",
            _ => return None,
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Key(key) if key.is_private() => f.write_str("private key"),
            Subject::Key(key) => write!(f, "key {key}"),
            Subject::Id(id) => write!(f, "id {id}"),
            Subject::Path => f.write_str("path"),
            Subject::None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, command) = self.call.names();
        let separator = if command.is_empty() { "" } else { ", " };
        let reason = io::Error::from_raw_os_error(self.errno);
        write!(f, "{call}({}{separator}{command}): {reason}", self.subject)?;
        match self.hint() {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (call, command) = self.call.names();
        let mut out = f.debug_struct("Error");
        out.field("call", &call);
        if !command.is_empty() {
            out.field("command", &command);
        }
        out.field("subject", &self.subject)
            .field("errno", &self.errno)
            .finish()
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
