//! Files of a memory file system: unnamed, linked when ready, allocated for real.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// A new file without a name in this directory (O_TMPFILE): the kernel removes it if its creator
/// dies.
pub(crate) fn create_unnamed(directory: &Path, mode: u32) -> io::Result<File> {
    let file = super::retry(|| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(mode)
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(directory)
    })?;
    set_mode(&file, mode)?;
    Ok(file)
}

/// The same in a directory that is open.
pub(crate) fn create_unnamed_in(directory: &File, mode: u32) -> io::Result<File> {
    let file = make_in(directory, c".", libc::O_TMPFILE, mode)?;
    set_mode(&file, mode)?;
    Ok(file)
}

/// A new file in a directory under a name that must not exist.
pub(crate) fn create_named_in(directory: &File, name: &CStr, mode: u32) -> io::Result<File> {
    let file = make_in(directory, name, libc::O_CREAT | libc::O_EXCL, mode)?;
    if let Err(error) = set_mode(&file, mode) {
        let _ = unlink_in(directory, name);
        return Err(error);
    }
    Ok(file)
}

fn make_in(directory: &File, name: &CStr, how: libc::c_int, mode: u32) -> io::Result<File> {
    let flags = how | libc::O_RDWR | libc::O_CLOEXEC;
    let number = super::retry(|| {
        // SAFETY: a descriptor that we hold, and a string that ends in zero.
        super::check(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, mode) })
    })?;
    // SAFETY: a new descriptor, owned here.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// A new file under a name that must not exist.
pub(crate) fn create_named(path: &Path, mode: u32) -> io::Result<File> {
    let file = super::retry(|| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
    })?;
    if let Err(error) = set_mode(&file, mode) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Gives the file exactly this mode, independent of the umask. EOPNOTSUPP for the caller's own file on a
/// file system without modes (vfat).
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    match file.set_permissions(Permissions::from_mode(mode)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let metadata = file.metadata()?;
            if metadata.mode() & 0o7777 == mode {
                Ok(())
            } else if metadata.uid() == super::process::effective_uid() {
                Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
            } else {
                Err(error)
            }
        }
        other => other,
    }
}

/// Opens a file that exists; never follows a symbolic link, never blocks on a FIFO.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    super::retry(|| {
        OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    })
}

/// Opens the target of a link such as `/proc/PID/fd/N`; never blocks on a FIFO.
pub(crate) fn follow(path: &Path, writable: bool) -> io::Result<File> {
    super::retry(|| {
        OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
    })
}

/// The same file with an open file description of its own: locks are held by descriptions.
pub(crate) fn reopen(file: &File, writable: bool) -> io::Result<File> {
    follow(Path::new(&own_link(file.as_raw_fd())), writable).map_err(of_own_link)
}

/// Why a link in /proc/self/fd leads nowhere: our descriptors are there, if /proc is.
pub(super) fn of_own_link(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound || Path::new("/proc/self/fd").exists() {
        return error;
    }
    io::Error::other(
        "/proc is not mounted here, and a descriptor is opened again through its link in /proc/self/fd: mount it, or use a \
         ring with a name (posix:, sysv:, file:)",
    )
}

/// A descriptor of the same description that a program started from here inherits.
pub(crate) fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: a descriptor that we hold, and a number.
    let number = super::check(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD, 3) })?;
    // SAFETY: a new descriptor, owned here.
    Ok(unsafe { File::from_raw_fd(number) })
}

fn own_link(number: i32) -> String {
    format!("/proc/self/fd/{number}")
}

/// Gives the file to a user or a group; `None` leaves that as it is.
pub(crate) fn set_owner(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::fchown(file, uid, gid)
}

/// Writes a directory's names to the disk.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// True if an unnamed file can be given a name: that goes by its link in /proc.
pub(crate) fn is_linkable(file: &File) -> bool {
    std::fs::symlink_metadata(own_link(file.as_raw_fd())).is_ok()
}

/// Gives a file another name; fails with AlreadyExists if it is taken.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: both are NUL-terminated and live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    super::check(result as libc::c_int)?;
    Ok(())
}

/// Gives an unnamed file a name; fails with AlreadyExists if it is taken.
pub(crate) fn link(file: &File, path: &Path) -> io::Result<()> {
    link_at(
        file,
        libc::AT_FDCWD,
        &CString::new(path.as_os_str().as_bytes())?,
    )
}

/// The same with a name in a directory.
pub(crate) fn link_in(file: &File, directory: &File, name: &CStr) -> io::Result<()> {
    link_at(file, directory.as_raw_fd(), name)
}

/// True if the error means that the file system has no hard links, or that this one is not
/// permitted.
pub(crate) fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)
    )
}

fn link_at(file: &File, directory: i32, name: &CStr) -> io::Result<()> {
    let from = CString::new(own_link(file.as_raw_fd()))?;
    // SAFETY: both are NUL-terminated and live through the call.
    let result = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            directory,
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    super::check(result)?;
    Ok(())
}

/// Writes all of the bytes at a place in a file. EFBIG beyond RLIMIT_FSIZE, without a signal.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    super::limits::without_file_size_signal(|| file.write_all_at(bytes, offset))
}

/// Extends the file to `len` bytes, all of them allocated: ENOSPC now, not SIGBUS later. EFBIG beyond
/// RLIMIT_FSIZE, without a signal.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    super::limits::without_file_size_signal(|| match reserve(file, len) {
        // An old or network file system, a kernel or a filter without this call.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)
            ) =>
        {
            write_zeros(file, len)
        }
        other => other,
    })
}

fn reserve(file: &File, len: u64) -> io::Result<()> {
    const SMALLEST: u64 = 1 << 20;
    let (mut at, mut step) = (0, len);
    while at < len {
        let bytes = step.min(len - at);
        // SAFETY: takes a descriptor that we hold, and numbers.
        let result = unsafe {
            libc::fallocate(file.as_raw_fd(), 0, at as libc::off_t, bytes as libc::off_t)
        };
        match super::check(result) {
            Ok(_) => at += bytes,
            // A tmpfs frees what an interrupted call has allocated: where signals come often, only small
            // steps complete.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                step = (step / 2).max(SMALLEST);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut at = 0;
    while at < len {
        let bytes = (len - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..bytes as usize], at)?;
        at += bytes;
    }
    Ok(())
}

/// The free space of a file system, if it has limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    pub(crate) bytes: Option<u64>,
    /// Files that could be made.
    pub(crate) inodes: Option<u64>,
}

/// The free space of the file system that holds the path. One without limits (ramfs, a tmpfs of size 0)
/// reports 0 of 0.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is NUL-terminated, the buffer is ours.
    super::check(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: statvfs succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Ok(Space {
        bytes: (stat.f_blocks != 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)),
        inodes: (stat.f_files != 0).then_some(stat.f_favail),
    })
}

/// The type of a file's file system, and the size of its blocks.
fn file_system(file: &File) -> io::Result<(i64, usize)> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a descriptor that we hold; the buffer is ours.
    super::check(unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: fstatfs succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    // Signed in glibc, unsigned in musl.
    #[allow(clippy::unnecessary_cast)]
    let kind = stat.f_type as i64;
    Ok((kind, stat.f_bsize as usize))
}

/// Bytes of a page, if the file is made of reserved huge pages.
pub(crate) fn huge_page_bytes(file: &File) -> Option<usize> {
    match file_system(file) {
        Ok((libc::HUGETLBFS_MAGIC, page)) => Some(page),
        _ => None,
    }
}

/// Not in the libc crate.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// True if the file is nowhere but in memory.
pub(crate) fn is_in_memory(file: &File) -> bool {
    matches!(
        file_system(file),
        Ok((libc::TMPFS_MAGIC | libc::HUGETLBFS_MAGIC | RAMFS_MAGIC, _))
    )
}

/// Device and inode: whether two handles mean one file.
pub(crate) fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Names that a file has.
pub(crate) fn links(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.nlink())
}

/// Device and inode of a path; links are not followed.
pub(crate) fn path_identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Minor device number and inode of a directory, if its file system has no device of its own (such
/// as a tmpfs): while it is mounted, no other directory has the same two.
pub(crate) fn tmpfs_directory(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    let device = metadata.dev();
    (libc::major(device) == 0).then(|| (u64::from(libc::minor(device)), metadata.ino()))
}

/// Reads into memory that other processes may write meanwhile: the kernel stores the bytes, no
/// reference is made. Gives the number of bytes, 0 at the end.
///
/// # Safety
/// `to` must be valid for writes of `len` bytes.
pub(crate) unsafe fn read_raw(fd: i32, to: std::ptr::NonNull<u8>, len: usize) -> io::Result<usize> {
    // SAFETY: the caller vouches for the range; a bad descriptor gives EBADF.
    let got = unsafe { libc::read(fd, to.as_ptr().cast(), len) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes from memory that other processes may write meanwhile.
///
/// # Safety
/// `from` must be valid for reads of `len` bytes.
pub(crate) unsafe fn write_raw(
    fd: i32,
    from: std::ptr::NonNull<u8>,
    len: usize,
) -> io::Result<usize> {
    // SAFETY: the caller vouches for the range; a bad descriptor gives EBADF.
    let put = unsafe { libc::write(fd, from.as_ptr().cast(), len) };
    usize::try_from(put).map_err(|_| io::Error::last_os_error())
}

/// Reads from a place in a file into memory that is private to this process. Gives the number of bytes,
/// 0 at the end; beyond a file's end there is nothing, and nothing faults.
///
/// # Safety
/// `to` must be valid for writes of `len` bytes.
pub(crate) unsafe fn read_raw_at(
    file: &File,
    to: std::ptr::NonNull<u8>,
    len: usize,
    offset: u64,
) -> io::Result<usize> {
    super::retry(|| {
        // SAFETY: the caller vouches for the range.
        let got = unsafe {
            libc::pread(
                file.as_raw_fd(),
                to.as_ptr().cast(),
                len,
                offset as libc::off_t,
            )
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    })
}

/// Opens a directory itself, never through a symbolic link.
pub(crate) fn open_directory(path: &Path) -> io::Result<File> {
    super::retry(|| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)
    })
}

/// Opens a file in a directory; never follows a symbolic link, never blocks on a FIFO.
pub(crate) fn open_in(directory: &File, name: &CStr, writable: bool) -> io::Result<File> {
    let access = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let flags = access | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let number = super::retry(|| {
        // SAFETY: a descriptor that we hold, and a string that ends in zero.
        super::check(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) })
    })?;
    // SAFETY: a new descriptor, owned here.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// Takes a name out of a directory; true if it was there.
pub(crate) fn unlink_in(directory: &File, name: &CStr) -> io::Result<bool> {
    // SAFETY: a descriptor that we hold, and a string that ends in zero.
    match super::check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The target of an open file's link in /proc: its path, if it has one.
pub(crate) fn path_of(file: &File) -> io::Result<std::path::PathBuf> {
    std::fs::read_link(own_link(file.as_raw_fd())).map_err(of_own_link)
}
