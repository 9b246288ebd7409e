//! Keys: the names of System V objects.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Call, Detail, Error, Subject};

/// The name of a System V object: 32 bits that the processes agree on beforehand.
///
/// Shared memory, semaphore sets and message queues have separate name spaces, one of each kind in
/// every IPC namespace.
///
/// ```
/// use sysv_ipc::Key;
///
/// let key = Key::from_raw(0x5eed_0001);
/// assert_eq!(key.to_string(), "0x5eed0001");
/// assert_eq!(Key::new(key.raw()), key);
/// assert!(Key::new(0).is_private());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(i32);

impl Key {
    /// `IPC_PRIVATE`: creating with it always makes a new object without a name, which others reach
    /// through its id only. Opening it finds nothing.
    pub const PRIVATE: Key = Key(libc::IPC_PRIVATE);

    /// The key with this number, as C programs declare it.
    pub const fn new(raw: i32) -> Key {
        Key(raw)
    }

    /// The key with these bits, as `ipcs` prints them.
    pub const fn from_raw(bits: u32) -> Key {
        Key(bits.cast_signed())
    }

    /// The number that the kernel gets.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The bits, as `ipcs` prints them.
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// Whether this is [`Key::PRIVATE`].
    pub const fn is_private(self) -> bool {
        self.0 == libc::IPC_PRIVATE
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.bits())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A key from an existing file and a project id, as the C library's `ftok` makes it.
///
/// The key holds the low 8 bits of `id`, the low 8 bits of the file's device number and the low 16
/// bits of its inode number. So the same path gives the same key in every process as long as the
/// file is not replaced, and **two files can give the same key**: create with a check (as the
/// `create` functions do), or agree on a fixed key.
///
/// # Errors
/// The error of `stat`, or `EINVAL` if `id` is 0, which POSIX leaves undefined. The payload of the
/// `io::Error` is an [`Error`] with the subject [`Subject::Path`].
///
/// ```
/// let key = sysv_ipc::ftok("/proc/self/exe", b'A')?;
/// assert_eq!(key.bits() >> 24, u32::from(b'A'));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn ftok(path: impl AsRef<Path>, id: u8) -> io::Result<Key> {
    if id == 0 {
        return Err(Error::refused(Call::Ftok, Subject::Path, Detail::ProjectZero).into());
    }
    let data = std::fs::metadata(path).map_err(|error| match error.raw_os_error() {
        Some(errno) => Error::new(Call::Ftok, Subject::Path, errno).into(),
        // A path with a zero byte never reaches the kernel.
        None => error,
    })?;
    let bits = (data.ino() & 0xffff) | (data.dev() & 0xff) << 16 | u64::from(id) << 24;
    Ok(Key(bits as u32 as i32))
}
