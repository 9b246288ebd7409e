//! Files without a name in any file system: `memfd_create`, and the seals that keep their size.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Since Linux 6.3: not executable, and sealed to stay so. Some systems refuse others.
const MFD_NOEXEC_SEAL: libc::c_uint = 0x8;

/// Bytes of a reserved huge page.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Marks reserved huge pages of [`HUGE_PAGE_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Huge;

/// A new file of no bytes that can be sealed. The label shows in `/proc/PID/fd` only.
pub(crate) fn create(label: &CStr, mode: u32, huge: Option<Huge>) -> io::Result<File> {
    let mut flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    if huge.is_some() {
        flags |= libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    }
    let make = |flags| {
        // SAFETY: the label is NUL-terminated and lives through the call.
        super::check(unsafe { libc::memfd_create(label.as_ptr(), flags) })
    };
    let fd = match make(
        flags
            | if mode & 0o111 == 0 {
                MFD_NOEXEC_SEAL
            } else {
                0
            },
    ) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(flags)?,
        other => other?,
    };
    // SAFETY: a new descriptor, owned here.
    let file = unsafe { File::from_raw_fd(fd) };
    super::file::set_mode(&file, mode)?;
    Ok(file)
}

/// Fixes the size of the file and its seals for ever, for all processes that have it.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a descriptor that we hold, and a number.
    super::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(())
}

/// The seals of a file that are relevant here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seals {
    /// The file can neither shrink nor grow, and no process can change that.
    Sized,
    /// It lacks some of these seals, or its file system has none.
    Missing,
}

/// Reads the seals.
pub(crate) fn seals(file: &File) -> Seals {
    let wanted = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a descriptor that we hold.
    match super::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) }) {
        Ok(seals) if seals & wanted == wanted => Seals::Sized,
        _ => Seals::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_keeps_its_size() {
        let file = create(c"sealed", 0o600, None).unwrap();
        crate::os::file::allocate(&file, 8192).unwrap();
        assert_eq!(seals(&file), Seals::Missing);
        seal(&file).unwrap();
        assert_eq!(seals(&file), Seals::Sized);
        for len in [0, 4096, 8193] {
            let refused = file.set_len(len).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{len}");
        }
    }
}
