//! The system calls, one thin function for each, and nothing else.
//!
//! Almost all `unsafe` of the crate is in this file. A function returns what the call returned, or
//! the bare errno; the callers add the call and its subject.

#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;

use libc::{c_int, c_long, c_void};

use crate::msg::Settings;
use crate::sem::Op;

/// The value of `errno` after a call.
pub(crate) type Errno = i32;

#[cold]
fn errno() -> Errno {
    // `last_os_error` only copies the number: it does not allocate.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[inline]
fn check(result: c_int) -> Result<c_int, Errno> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

// Not in the libc crate for every C library. The commands that end in ANY are those of Linux 4.17, which need
// no read permission, as the tables in /proc.
const IPC_INFO: c_int = 3;
const SEM_STAT_ANY: c_int = 20;
const SHM_STAT_ANY: c_int = 15;
const MSG_STAT_ANY: c_int = 13;

/// The key of an object. It is the first field of `ipc_perm` on every architecture, under names
/// that differ between the C libraries.
fn key_of(perm: &libc::ipc_perm) -> i32 {
    let first = (&raw const *perm).cast::<libc::key_t>();
    // SAFETY: `first` points to the first field of a valid `ipc_perm`, which is a `key_t`.
    unsafe { first.read() }
}

/// Owner and mode, decoded from `ipc_perm` once for all three kinds of objects.
#[derive(Clone, Copy)]
pub(crate) struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    /// With the flag bits of shared memory above 0o777.
    pub mode: u32,
}

impl From<&libc::ipc_perm> for Perm {
    fn from(perm: &libc::ipc_perm) -> Perm {
        Perm {
            key: key_of(perm),
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            // u16 on x86-64, u32 elsewhere.
            #[allow(clippy::useless_conversion)]
            mode: u32::from(perm.mode),
        }
    }
}

macro_rules! zeroed {
    ($type:ty) => {
        // SAFETY: the structure consists of integers only, for which zero bytes are a value.
        unsafe { mem::zeroed::<$type>() }
    };
}

// ---------------------------------------------------------------------------------- shared memory

pub(crate) fn shmget(key: i32, bytes: usize, flags: c_int) -> Result<i32, Errno> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::shmget(key, bytes, flags) })
}

/// Attaches; the kernel chooses the address unless `address` is given.
///
/// # Safety
/// With `SHM_REMAP` in `flags`, nothing may use the memory that is mapped at `address`.
pub(crate) unsafe fn shmat(id: i32, address: usize, flags: c_int) -> Result<NonNull<u8>, Errno> {
    let address = std::ptr::without_provenance::<c_void>(address);
    // SAFETY: without SHM_REMAP the kernel maps only where nothing is mapped; with it, the caller
    // vouches for the range.
    let pointer = unsafe { libc::shmat(id, address, flags) };
    if pointer.addr() == usize::MAX {
        return Err(errno());
    }
    // Address 0 would need vm.mmap_min_addr = 0 and a caller that requests it.
    NonNull::new(pointer.cast()).ok_or(libc::EINVAL)
}

/// # Safety
/// Nothing may use the attachment that begins at `pointer` any more.
pub(crate) unsafe fn shmdt(pointer: NonNull<u8>) -> Result<(), Errno> {
    // SAFETY: the caller vouches that the attachment is not used any more.
    check(unsafe { libc::shmdt(pointer.as_ptr().cast()) }).map(drop)
}

pub(crate) fn shm_stat(id: i32) -> Result<libc::shmid_ds, Errno> {
    let mut data = zeroed!(libc::shmid_ds);
    // SAFETY: `data` is a valid `shmid_ds` to write to.
    check(unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut data) })?;
    Ok(data)
}

pub(crate) fn shm_set(id: i32, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
    let mut data = zeroed!(libc::shmid_ds);
    data.shm_perm.uid = uid;
    data.shm_perm.gid = gid;
    data.shm_perm.mode = mode as _;
    // SAFETY: `data` is a valid `shmid_ds`; IPC_SET reads it.
    check(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut data) }).map(drop)
}

/// `IPC_RMID`, `SHM_LOCK` or `SHM_UNLOCK`: the commands without an argument.
pub(crate) fn shm_command(id: i32, command: c_int) -> Result<(), Errno> {
    debug_assert!([libc::IPC_RMID, libc::SHM_LOCK, libc::SHM_UNLOCK].contains(&command));
    // SAFETY: these commands ignore the pointer.
    check(unsafe { libc::shmctl(id, command, std::ptr::null_mut()) }).map(drop)
}

/// The limits of the namespace, as `IPC_INFO` of shared memory gives them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShmInfo {
    pub shmmax: libc::c_ulong,
    pub shmmin: libc::c_ulong,
    pub shmmni: libc::c_ulong,
    pub shmseg: libc::c_ulong,
    pub shmall: libc::c_ulong,
    unused: [libc::c_ulong; 4],
}

/// The limits, and the highest index in use.
pub(crate) fn shm_info() -> Result<(ShmInfo, i32), Errno> {
    let mut info = zeroed!(ShmInfo);
    // SAFETY: IPC_INFO writes a `shminfo64` to `info`, which has its layout.
    let highest = check(unsafe { libc::shmctl(0, IPC_INFO, (&raw mut info).cast()) })?;
    Ok((info, highest))
}

/// The id and the data of the segment at an index of the kernel's table.
pub(crate) fn shm_at(index: i32) -> Result<(i32, libc::shmid_ds), Errno> {
    let mut data = zeroed!(libc::shmid_ds);
    // SAFETY: `data` is a valid `shmid_ds` to write to.
    let id = check(unsafe { libc::shmctl(index, SHM_STAT_ANY, &raw mut data) })?;
    Ok((id, data))
}

// ------------------------------------------------------------------------------------- semaphores

#[cfg(not(target_env = "musl"))]
pub(crate) use libc::semid_ds as SemidDs;

/// The kernel's `semid64_ds`, which is also that of musl. The libc crate declares it for glibc only.
#[cfg(target_env = "musl")]
#[repr(C)]
#[allow(dead_code)] // padding
pub(crate) struct SemidDs {
    pub sem_perm: libc::ipc_perm,
    pub sem_otime: i64,
    #[cfg(target_arch = "x86_64")]
    unused1: u64,
    pub sem_ctime: i64,
    #[cfg(target_arch = "x86_64")]
    unused2: u64,
    pub sem_nsems: u64,
    unused3: u64,
    unused4: u64,
}

/// The last argument of `semctl`, which every program declares for itself.
#[repr(C)]
union SemUn {
    value: c_int,
    data: *mut SemidDs,
    array: *mut u16,
}

pub(crate) fn semget(key: i32, count: c_int, flags: c_int) -> Result<i32, Errno> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::semget(key, count, flags) })
}

#[inline]
pub(crate) fn semop(id: i32, ops: &[Op]) -> Result<(), Errno> {
    // SAFETY: `ops` has the layout of an array of `sembuf`, and the call only reads it.
    let result = unsafe { libc::semop(id, ops.as_ptr().cast_mut().cast(), ops.len()) };
    check(result).map(drop)
}

#[inline]
pub(crate) fn semtimedop(
    id: i32,
    ops: &[Op],
    timeout: Option<&libc::timespec>,
) -> Result<(), Errno> {
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `ops` has the layout of an array of `sembuf`, `timeout` is null or valid, and the
    // call only reads both. The libc crate has no `semtimedop`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_semtimedop,
            c_long::from(id),
            ops.as_ptr(),
            ops.len(),
            timeout,
        )
    };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

pub(crate) fn sem_stat(id: i32) -> Result<SemidDs, Errno> {
    let mut data = zeroed!(SemidDs);
    let argument = SemUn {
        data: &raw mut data,
    };
    // SAFETY: IPC_STAT writes to `data`, a valid `semid_ds`.
    check(unsafe { libc::semctl(id, 0, libc::IPC_STAT, argument) })?;
    Ok(data)
}

pub(crate) fn sem_set(id: i32, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
    let mut data = zeroed!(SemidDs);
    data.sem_perm.uid = uid;
    data.sem_perm.gid = gid;
    data.sem_perm.mode = mode as _;
    let argument = SemUn {
        data: &raw mut data,
    };
    // SAFETY: IPC_SET reads `data`, a valid `semid_ds`.
    check(unsafe { libc::semctl(id, 0, libc::IPC_SET, argument) }).map(drop)
}

/// `GETVAL`, `GETPID`, `GETNCNT`, `GETZCNT` or `IPC_RMID`: the commands without an argument.
pub(crate) fn sem_command(id: i32, index: u16, command: c_int) -> Result<i32, Errno> {
    debug_assert!(
        [
            libc::GETVAL,
            libc::GETPID,
            libc::GETNCNT,
            libc::GETZCNT,
            libc::IPC_RMID
        ]
        .contains(&command)
    );
    // SAFETY: these commands take no argument.
    check(unsafe { libc::semctl(id, c_int::from(index), command) })
}

pub(crate) fn sem_set_value(id: i32, index: u16, value: u16) -> Result<(), Errno> {
    let argument = SemUn {
        value: c_int::from(value),
    };
    // SAFETY: SETVAL takes a number.
    check(unsafe { libc::semctl(id, c_int::from(index), libc::SETVAL, argument) }).map(drop)
}

/// The least length of the arrays for `GETALL` and `SETALL`: the size of the largest set whose
/// semaphores all have an index. Between reading the size of the set and this call the id may in
/// principle pass to a larger set, and the kernel takes no length.
const LARGEST_SET: usize = 1 << 16;

/// The values of a set that had `count` semaphores a moment ago.
pub(crate) fn sem_get_all(id: i32, count: usize) -> Result<Vec<u16>, Errno> {
    let mut array = vec![0; count.max(LARGEST_SET)];
    let argument = SemUn {
        array: array.as_mut_ptr(),
    };
    // SAFETY: GETALL writes one u16 a semaphore, and the array is longer than any set.
    check(unsafe { libc::semctl(id, 0, libc::GETALL, argument) })?;
    array.truncate(count);
    array.shrink_to_fit();
    Ok(array)
}

/// Sets the values of a set that had as many semaphores a moment ago.
pub(crate) fn sem_set_all(id: i32, values: &[u16]) -> Result<(), Errno> {
    let mut array = values.to_vec();
    array.resize(values.len().max(LARGEST_SET), 0);
    let argument = SemUn {
        array: array.as_mut_ptr(),
    };
    // SAFETY: SETALL reads one u16 a semaphore, and the array is longer than any set.
    check(unsafe { libc::semctl(id, 0, libc::SETALL, argument) }).map(drop)
}

/// The limits of the namespace, as `IPC_INFO` of semaphores gives them (`struct seminfo`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SemInfo {
    pub semmap: c_int,
    pub semmni: c_int,
    pub semmns: c_int,
    pub semmnu: c_int,
    pub semmsl: c_int,
    pub semopm: c_int,
    pub semume: c_int,
    pub semusz: c_int,
    pub semvmx: c_int,
    pub semaem: c_int,
}

/// The limits, and the highest index in use.
pub(crate) fn sem_info() -> Result<(SemInfo, i32), Errno> {
    let mut info = zeroed!(SemInfo);
    let argument = SemUn {
        data: (&raw mut info).cast(),
    };
    // SAFETY: IPC_INFO writes a `seminfo` to `info`, which has its layout.
    let highest = check(unsafe { libc::semctl(0, 0, IPC_INFO, argument) })?;
    Ok((info, highest))
}

/// The id and the data of the set at an index of the kernel's table.
pub(crate) fn sem_at(index: i32) -> Result<(i32, SemidDs), Errno> {
    let mut data = zeroed!(SemidDs);
    let argument = SemUn {
        data: &raw mut data,
    };
    // SAFETY: SEM_STAT_ANY writes to `data`, a valid `semid_ds`.
    let id = check(unsafe { libc::semctl(index, 0, SEM_STAT_ANY, argument) })?;
    Ok((id, data))
}

// --------------------------------------------------------------------------------- message queues

/// Messages up to this many bytes take a buffer on the stack. It is the kernel's default for the
/// longest message.
const SMALL_MESSAGE: usize = 8192;

/// Calls `f` with the address of a message buffer: room for the type, then for `bytes` bytes.
fn with_message_buffer<R>(bytes: usize, f: impl FnOnce(*mut c_long) -> R) -> R {
    const SMALL_WORDS: usize = 1 + SMALL_MESSAGE / size_of::<c_long>();
    let words = 1 + bytes.div_ceil(size_of::<c_long>());
    if words <= SMALL_WORDS {
        let mut buffer = [MaybeUninit::<c_long>::uninit(); SMALL_WORDS];
        f(buffer.as_mut_ptr().cast())
    } else {
        f(Vec::<MaybeUninit<c_long>>::with_capacity(words)
            .as_mut_ptr()
            .cast())
    }
}

pub(crate) fn msgget(key: i32, flags: c_int) -> Result<i32, Errno> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::msgget(key, flags) })
}

pub(crate) fn msgsnd(id: i32, kind: i64, bytes: &[u8], flags: c_int) -> Result<(), Errno> {
    with_message_buffer(bytes.len(), |buffer| {
        // SAFETY: the buffer begins with room for the type.
        unsafe { buffer.write(kind) };
        let text = buffer.wrapping_add(1).cast::<u8>();
        // SAFETY: the buffer has room for as many bytes after the type, and is a new object.
        unsafe { text.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // SAFETY: the buffer holds the type and the bytes; the call only reads it.
        check(unsafe { libc::msgsnd(id, buffer.cast(), bytes.len(), flags) }).map(drop)
    })
}

/// Returns the type and the length.
pub(crate) fn msgrcv(
    id: i32,
    into: &mut [u8],
    kind: i64,
    flags: c_int,
) -> Result<(i64, usize), Errno> {
    with_message_buffer(into.len(), |buffer| {
        // SAFETY: the buffer has room for the type and the number of bytes passed to the call.
        let result = unsafe { libc::msgrcv(id, buffer.cast(), into.len(), kind, flags) };
        let Ok(length) = usize::try_from(result) else {
            return Err(errno());
        };
        let text = buffer.wrapping_add(1).cast::<u8>();
        // SAFETY: the call wrote `length` bytes after the type, at most as many as `into` has.
        unsafe { text.copy_to_nonoverlapping(into.as_mut_ptr(), length) };
        // SAFETY: the call wrote the type.
        let kind = unsafe { buffer.read() };
        Ok((kind, length))
    })
}

pub(crate) fn msg_stat(id: i32) -> Result<libc::msqid_ds, Errno> {
    let mut data = zeroed!(libc::msqid_ds);
    // SAFETY: `data` is a valid `msqid_ds` to write to.
    check(unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut data) })?;
    Ok(data)
}

pub(crate) fn msg_set(id: i32, settings: &Settings) -> Result<(), Errno> {
    let mut data = zeroed!(libc::msqid_ds);
    data.msg_perm.uid = settings.uid;
    data.msg_perm.gid = settings.gid;
    data.msg_perm.mode = settings.mode as _;
    data.msg_qbytes = settings.max_bytes;
    // SAFETY: `data` is a valid `msqid_ds`; IPC_SET reads it.
    check(unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut data) }).map(drop)
}

pub(crate) fn msg_remove(id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID ignores the pointer.
    check(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// The limits of the namespace, as `IPC_INFO` of message queues gives them (`struct msginfo`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct MsgInfo {
    pub msgpool: c_int,
    pub msgmap: c_int,
    pub msgmax: c_int,
    pub msgmnb: c_int,
    pub msgmni: c_int,
    pub msgssz: c_int,
    pub msgtql: c_int,
    pub msgseg: u16,
}

/// The limits, and the highest index in use.
pub(crate) fn msg_info() -> Result<(MsgInfo, i32), Errno> {
    let mut info = zeroed!(MsgInfo);
    // SAFETY: IPC_INFO writes a `msginfo` to `info`, which has its layout.
    let highest = check(unsafe { libc::msgctl(0, IPC_INFO, (&raw mut info).cast()) })?;
    Ok((info, highest))
}

/// The id and the data of the queue at an index of the kernel's table.
pub(crate) fn msg_at(index: i32) -> Result<(i32, libc::msqid_ds), Errno> {
    let mut data = zeroed!(libc::msqid_ds);
    // SAFETY: MSG_STAT_ANY writes to `data`, a valid `msqid_ds`.
    let id = check(unsafe { libc::msgctl(index, MSG_STAT_ANY, &raw mut data) })?;
    Ok((id, data))
}
