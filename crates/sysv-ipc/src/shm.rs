//! Shared memory: `shmget`, `shmat`, `shmdt`, `shmctl`.
//!
//! ```text
//!   key ──shmget──▶ id ──shmat──▶ memory in this process
//!                   │  ◀──shmdt──  (also at exit and at exec)
//!                   └─IPC_RMID──▶ no new key look-ups; gone when the last attachment is
//! ```
//!
//! A segment lives until it is removed *and* no process is attached, and it is full of zeros at
//! first. A [`Shm`] is only its id: copying or dropping one does nothing. An [`Attachment`] is the
//! memory in this process, and dropping it detaches. [`Created`] removes the segment when dropped,
//! for code that owns one.
//!
//! ```
//! use sysv_ipc::{Created, Key, shm::Shm};
//!
//! let segment = Created::new(Shm::create(Key::PRIVATE, 4096, 0o600)?);
//! let ours = segment.attach()?;
//! let theirs = segment.attach_read_only()?; // usually in another process
//! // SAFETY: both pointers are to the same live segment, and no other code uses it.
//! unsafe {
//!     ours.as_ptr().write(42);
//!     assert_eq!(theirs.as_ptr().read(), 42);
//! }
//! assert_eq!(segment.stat()?.attached, 2);
//! # Ok::<(), sysv_ipc::Error>(())
//! ```

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::error::{Call, Detail, Error, Result, Subject};
use crate::key::Key;
use crate::sys::{self, Perm};
use crate::table;

/// Flag bits above the permissions in `shm_perm.mode`.
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;
/// Where `shmget` and `mmap` take the logarithm of the size of a huge page.
const HUGE_SHIFT: u32 = 26;

/// A segment that is removed when this value is dropped: [`Created`](crate::Created) of a [`Shm`].
pub type Created = crate::Created<Shm>;

/// A shared memory segment, by its id. Not an owner: see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shm {
    id: i32,
}

/// How to create a segment.
///
/// ```
/// use sysv_ipc::{Key, shm::{Created, CreateOptions, Shm}};
///
/// let options = CreateOptions { no_reserve: true, ..CreateOptions::new(0o600) };
/// let segment = Created::new(Shm::create_with(Key::PRIVATE, 1 << 30, options)?);
/// assert_eq!(segment.stat()?.bytes, 1 << 30);
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CreateOptions {
    /// Permission to attach: read and write bits of owner, group and others, as for files. At most
    /// 0o777.
    pub mode: u32,
    /// Whether to use huge pages, and which (`SHM_HUGETLB`). The size is rounded up to whole ones.
    pub huge_pages: Option<HugePages>,
    /// Do not account for the memory at creation (`SHM_NORESERVE`), but for each page when it is
    /// touched: a size that could never be backed is not refused with `ENOMEM`, and a process that
    /// touches a page when no memory is left is killed.
    pub no_reserve: bool,
}

impl CreateOptions {
    /// Ordinary pages, with this mode.
    pub const fn new(mode: u32) -> CreateOptions {
        CreateOptions {
            mode,
            huge_pages: None,
            no_reserve: false,
        }
    }
}

/// A size of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// The system's default size.
    Default,
    /// 2 MiB.
    Size2MiB,
    /// 1 GiB.
    Size1GiB,
    /// Two to the power of this many bytes, at most 63.
    Log2(u8),
}

impl HugePages {
    const fn flags(self) -> i32 {
        let log2 = match self {
            HugePages::Default => 0,
            HugePages::Size2MiB => 21,
            HugePages::Size1GiB => 30,
            HugePages::Log2(log2) => (log2 & 63) as u32,
        };
        libc::SHM_HUGETLB | (log2 << HUGE_SHIFT).cast_signed()
    }
}

/// The kernel's data about a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// The key; [`Key::PRIVATE`] also once the segment is marked for removal.
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
    /// The requested size, in bytes. Attachments are rounded up to whole pages.
    pub bytes: usize,
    /// The process that created it.
    pub creator_pid: i32,
    /// The process that attached or detached last; 0 if none has.
    pub last_pid: i32,
    /// How many attachments there are, over all processes.
    pub attached: u64,
    /// The last attach, in seconds since 1970; 0 if none was.
    pub atime: i64,
    /// The last detach, in seconds since 1970; 0 if none was.
    pub dtime: i64,
    /// The creation or the last [`set_permissions`](Shm::set_permissions), in seconds since 1970.
    pub ctime: i64,
    /// Removed: it goes away with its last attachment.
    pub marked_for_removal: bool,
    /// Locked into memory by [`lock`](Shm::lock).
    pub locked: bool,
}

impl From<&libc::shmid_ds> for Stat {
    fn from(data: &libc::shmid_ds) -> Self {
        let perm = Perm::from(&data.shm_perm);
        Stat {
            key: Key::new(perm.key),
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: perm.mode & 0o777,
            bytes: data.shm_segsz,
            creator_pid: data.shm_cpid,
            last_pid: data.shm_lpid,
            attached: data.shm_nattch,
            atime: data.shm_atime,
            dtime: data.shm_dtime,
            ctime: data.shm_ctime,
            marked_for_removal: perm.mode & SHM_DEST != 0,
            locked: perm.mode & SHM_LOCKED != 0,
        }
    }
}

/// A line of the listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The id, for [`Shm::from_id`].
    pub id: i32,
    /// The rest.
    pub stat: Stat,
    /// How much of it is in memory, in bytes; 0 where `/proc` can't be read.
    pub resident_bytes: u64,
    /// How much of it is swapped out, in bytes; 0 where `/proc` can't be read.
    pub swapped_bytes: u64,
}

impl Shm {
    /// Creates a segment of `bytes` bytes, all zero (`IPC_CREAT | IPC_EXCL`).
    ///
    /// # Errors
    /// * `EEXIST`: the key is taken.
    /// * `EINVAL`: `bytes` is 0 or above `shmmax`, or `mode` has bits outside 0o777.
    /// * `ENOSPC`: too many segments (`shmmni`) or too much memory in them (`shmall`).
    /// * `ENOMEM`: the memory does not suffice.
    pub fn create(key: Key, bytes: usize, mode: u32) -> Result<Shm> {
        Shm::create_with(key, bytes, CreateOptions::new(mode))
    }

    /// Creates a segment, with a choice of pages and of accounting.
    ///
    /// # Errors
    /// As [`create`](Shm::create), and for huge pages:
    /// * `EPERM`: neither `CAP_IPC_LOCK` nor a member of the group in `vm.hugetlb_shm_group`.
    /// * `ENOMEM`: not enough huge pages are free.
    /// * `EINVAL`: there are no huge pages of this size.
    pub fn create_with(key: Key, bytes: usize, options: CreateOptions) -> Result<Shm> {
        let mut flags = libc::IPC_CREAT | libc::IPC_EXCL;
        if options.no_reserve {
            flags |= libc::SHM_NORESERVE;
        }
        if let Some(pages) = options.huge_pages {
            flags |= pages.flags();
        }
        get(key, bytes, flags, options.mode)
    }

    /// The segment that has this key, of any size.
    ///
    /// # Errors
    /// * `ENOENT`: there is none, or the key is private.
    pub fn open(key: Key) -> Result<Shm> {
        if key.is_private() {
            return Err(Error::refused(
                Call::ShmGet,
                Subject::Key(key),
                Detail::PrivateKey,
            ));
        }
        get(key, 0, 0, 0)
    }

    /// The segment that has this key, or a new one. The result does not show which: use
    /// [`create`](Shm::create) and then [`open`](Shm::open) if that matters.
    ///
    /// # Errors
    /// As [`create`](Shm::create) without `EEXIST`, and `EINVAL` if the existing segment is smaller
    /// than `bytes`, `EACCES` if its mode does not allow the caller the access in `mode`.
    pub fn open_or_create(key: Key, bytes: usize, mode: u32) -> Result<Shm> {
        get(key, bytes, libc::IPC_CREAT, mode)
    }

    /// The segment with this id. No system call is made.
    pub const fn from_id(id: i32) -> Shm {
        Shm { id }
    }

    /// The id. Once the segment is gone, the kernel may use it again, after tens of thousands of
    /// others.
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// Maps the segment into this process for reading and writing.
    ///
    /// # Errors
    /// * `EACCES`: the mode allows the caller no reading or no writing.
    /// * `EINVAL`, `EIDRM`: the segment has been removed.
    /// * `ENOMEM`: no room in the address space.
    pub fn attach(&self) -> Result<Attachment> {
        self.attach_flags(0, 0)
    }

    /// Maps the segment into this process for reading. A write through it is a `SIGSEGV`.
    ///
    /// # Errors
    /// As [`attach`](Shm::attach); `EACCES` is about reading only.
    pub fn attach_read_only(&self) -> Result<Attachment> {
        self.attach_flags(0, libc::SHM_RDONLY)
    }

    /// Maps the segment at this address for reading and writing, if nothing is mapped there.
    ///
    /// # Errors
    /// As [`attach`](Shm::attach), and `EINVAL` if the address is not on a page boundary or if
    /// something is mapped there ([`is_removed`](Error::is_removed) is `false` for it).
    pub fn attach_at(&self, address: usize) -> Result<Attachment> {
        self.attach_flags(address, 0)
    }

    fn attach_flags(&self, address: usize, flags: i32) -> Result<Attachment> {
        // SAFETY: without SHM_REMAP the call replaces no mapping.
        let attached = unsafe { sys::shmat(self.id, address, flags) };
        let pointer = attached.map_err(|errno| {
            // Without an address, EINVAL can only be about the id.
            if address == 0 {
                Error::new(Call::ShmAt, Subject::Id(self.id), errno)
            } else {
                Error::on_id(Call::ShmAt, self.id, errno, sys::shm_stat)
            }
        })?;
        let mut attachment = Attachment {
            pointer,
            len: 0,
            id: self.id,
            read_only: flags & libc::SHM_RDONLY != 0,
        };
        // Read after attaching: from now on the id cannot pass to another segment. If it fails,
        // dropping the attachment detaches.
        attachment.len = self.stat()?.bytes;
        Ok(attachment)
    }

    /// Reads the kernel's data about the segment (`IPC_STAT`).
    ///
    /// # Errors
    /// * `EACCES`: the mode allows the caller no reading.
    /// * `EINVAL`, `EIDRM`: the segment has been removed.
    pub fn stat(&self) -> Result<Stat> {
        let data = sys::shm_stat(self.id).map_err(|errno| self.error(Call::ShmStat, errno))?;
        Ok(Stat::from(&data))
    }

    /// Changes owner, group and mode (`IPC_SET`). Attachments stay.
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`.
    /// * `EINVAL`: `mode` has bits outside 0o777, or the user or group does not exist in this user
    ///   namespace.
    /// * `EINVAL`, `EIDRM`: the segment has been removed.
    pub fn set_permissions(&self, uid: u32, gid: u32, mode: u32) -> Result<()> {
        if mode & !0o777 != 0 {
            return Err(Error::refused(
                Call::ShmSet,
                Subject::Id(self.id),
                Detail::Mode,
            ));
        }
        sys::shm_set(self.id, uid, gid, mode)
            .map_err(|errno| Error::on_id(Call::ShmSet, self.id, errno, sys::shm_stat))
    }

    /// Removes the segment (`IPC_RMID`): the key is free at once, the memory when the last process
    /// has detached. To attach first and then remove is the way to leave nothing behind, however
    /// the processes end.
    ///
    /// # Errors
    /// * `EPERM`: the caller is neither owner nor creator, nor has `CAP_SYS_ADMIN`.
    /// * `EINVAL`, `EIDRM`: it has been removed already.
    pub fn remove(&self) -> Result<()> {
        self.command(Call::ShmRemove, libc::IPC_RMID)
    }

    /// Forbids the kernel to swap the segment out (`SHM_LOCK`). Pages are locked as they are
    /// touched.
    ///
    /// # Errors
    /// * `EPERM`: without `CAP_IPC_LOCK`, the caller is neither owner nor creator, or its
    ///   `RLIMIT_MEMLOCK` is 0.
    /// * `ENOMEM`: `RLIMIT_MEMLOCK` would be passed.
    /// * `EINVAL`, `EIDRM`: the segment has been removed.
    pub fn lock(&self) -> Result<()> {
        self.command(Call::ShmLock, libc::SHM_LOCK)
    }

    /// Allows the kernel to swap the segment out again (`SHM_UNLOCK`).
    ///
    /// # Errors
    /// As [`lock`](Shm::lock).
    pub fn unlock(&self) -> Result<()> {
        self.command(Call::ShmUnlock, libc::SHM_UNLOCK)
    }

    fn command(&self, call: Call, command: i32) -> Result<()> {
        sys::shm_command(self.id, command).map_err(|errno| self.error(call, errno))
    }

    /// For the calls whose `EINVAL` can only be about the id.
    const fn error(&self, call: Call, errno: i32) -> Error {
        Error::new(call, Subject::Id(self.id), errno)
    }
}

fn get(key: Key, bytes: usize, flags: i32, mode: u32) -> Result<Shm> {
    if mode & !0o777 != 0 {
        return Err(Error::refused(
            Call::ShmGet,
            Subject::Key(key),
            Detail::Mode,
        ));
    }
    match sys::shmget(key.raw(), bytes, flags | mode.cast_signed()) {
        Ok(id) => Ok(Shm { id }),
        Err(errno) => Err(Error::new(Call::ShmGet, Subject::Key(key), errno)),
    }
}

/// A segment in the memory of this process. Dropping it detaches.
///
/// Other processes may change the memory at any time, so it is available as a pointer only: the
/// caller is responsible for reading and writing through it, and for the order with other
/// processes.
///
/// A child of `fork` inherits the attachment (the kernel counts it as one more), and its copy of
/// this value detaches the child's only. `exec` detaches.
#[derive(Debug)]
pub struct Attachment {
    pointer: NonNull<u8>,
    len: usize,
    id: i32,
    read_only: bool,
}

// SAFETY: an attachment belongs to the whole process: any thread may use and detach it. The value
// gives out a raw pointer and never reads or writes the memory itself.
unsafe impl Send for Attachment {}
// SAFETY: as above; `&Attachment` gives out plain numbers and a pointer, which are never changed.
unsafe impl Sync for Attachment {}

impl Attachment {
    /// The first byte, on a page boundary. It stays valid until the value is dropped or detached.
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.pointer
    }

    /// The size of the segment in bytes, as requested at creation: never 0. The rest of the last
    /// page is mapped, too.
    #[allow(clippy::len_without_is_empty)] // A segment is never empty.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The id of the segment.
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// Whether a write through it is a `SIGSEGV`.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Detaches now, and returns whether that worked.
    ///
    /// # Errors
    /// * `EINVAL`: the memory was unmapped by other means.
    pub fn detach(self) -> Result<()> {
        let (pointer, _) = self.into_raw();
        // SAFETY: the value is consumed, so by the rule of `as_ptr` its pointers are not used any
        // more.
        unsafe { detach_raw(pointer) }
    }

    /// The pointer and the size in bytes, without detaching. Give the pointer to [`detach_raw`], or
    /// leave the memory attached until the process ends.
    #[must_use = "the memory stays attached until `detach_raw` or the end of the process"]
    pub fn into_raw(self) -> (NonNull<u8>, usize) {
        let this = ManuallyDrop::new(self);
        (this.pointer, this.len)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the value is dropped, so by the rule of `as_ptr` its pointers are not used any
        // more.
        let detached = unsafe { sys::shmdt(self.pointer) };
        // Only a foreign unmapping makes it fail, and then there is nothing left to do.
        let _ = detached;
    }
}

/// Detaches the segment whose attachment begins at `pointer` (`shmdt`).
///
/// # Safety
/// `pointer` must come from [`Attachment::into_raw`], and nothing may use that memory any more.
///
/// # Errors
/// * `EINVAL`: no attachment begins there.
///
/// ```
/// use sysv_ipc::{Key, shm::{self, Created, Shm}};
///
/// let segment = Created::new(Shm::create(Key::PRIVATE, 1, 0o600)?);
/// let (pointer, bytes) = segment.attach()?.into_raw();
/// assert_eq!(bytes, 1);
/// // SAFETY: the pointer comes from `into_raw` and is not used any more.
/// unsafe { shm::detach_raw(pointer) }?;
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
pub unsafe fn detach_raw(pointer: NonNull<u8>) -> Result<()> {
    // SAFETY: the caller vouches for it.
    unsafe { sys::shmdt(pointer) }.map_err(|errno| Error::new(Call::ShmDt, Subject::None, errno))
}

/// The segments of this IPC namespace, of all users: from `/proc/sysvipc/shm`, or from the kernel's
/// table, an index at a time, where that can't be read.
///
/// # Errors
/// The error of reading the file, if the kernel has no System V IPC.
///
/// ```
/// use sysv_ipc::{Key, shm::{self, Created, Shm}};
///
/// let segment = Created::new(Shm::create(Key::PRIVATE, 4096, 0o600)?);
/// let entries = shm::list()?;
/// let entry = entries.iter().find(|entry| entry.id == segment.id()).unwrap();
/// assert_eq!(entry.stat, segment.stat()?);
/// assert_eq!(entry.resident_bytes, 0); // no page was ever touched
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn list() -> io::Result<Vec<Entry>> {
    from_proc().or_else(|error| from_kernel().ok_or(error))
}

fn from_proc() -> io::Result<Vec<Entry>> {
    table::read("/proc/sysvipc/shm", |row| {
        let mode = row.mode()?;
        let stat = Stat {
            key: row.key()?,
            uid: row.number("uid")?,
            gid: row.number("gid")?,
            cuid: row.number("cuid")?,
            cgid: row.number("cgid")?,
            mode: mode & 0o777,
            bytes: row.number("size")?,
            creator_pid: row.number("cpid")?,
            last_pid: row.number("lpid")?,
            attached: row.number("nattch")?,
            atime: row.number("atime")?,
            dtime: row.number("dtime")?,
            ctime: row.number("ctime")?,
            marked_for_removal: mode & SHM_DEST != 0,
            locked: mode & SHM_LOCKED != 0,
        };
        Some(Entry {
            id: row.number("shmid")?,
            stat,
            resident_bytes: row.number("rss")?,
            swapped_bytes: row.number("swap")?,
        })
    })
}

/// The same where `/proc` can't be read, by an index at a time.
fn from_kernel() -> Option<Vec<Entry>> {
    let (_, highest) = sys::shm_info().ok()?;
    let at = |index| {
        let (id, data) = sys::shm_at(index).ok()?;
        Some(Entry {
            id,
            stat: Stat::from(&data),
            resident_bytes: 0,
            swapped_bytes: 0,
        })
    };
    Some((0..=highest).filter_map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_the_same_as_proc() {
        let object = Created::new(Shm::create(Key::PRIVATE, 4096, 0o640).unwrap());
        let of = |entries: Vec<Entry>| entries.into_iter().find(|entry| entry.id == object.id());
        assert_eq!(of(from_kernel().unwrap()), of(from_proc().unwrap()));
    }
}
