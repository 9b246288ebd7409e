//! Pipes that can be opened again: FIFOs, and pipes without a name, reached through a handle. A byte
//! in a pipe is a token. A hang-up means that the process that had it open for writing has ended.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use super::file::of_own_link;

/// Which end of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Sees the pipe hang up when no process has it open for writing any more. Opening it never
    /// waits.
    Read,
    /// Reads and writes: opening it never waits, and writing never finds a missing reader (so never
    /// SIGPIPE).
    Both,
}

impl End {
    const fn flags(self) -> libc::c_int {
        let end = match self {
            Self::Read => libc::O_RDONLY,
            Self::Both => libc::O_RDWR,
        };
        end | libc::O_NONBLOCK | libc::O_CLOEXEC
    }
}

/// Makes a FIFO in a directory, with this mode independent of the umask.
pub(crate) fn make(directory: &File, name: &CStr, mode: u32) -> io::Result<()> {
    let directory = directory.as_raw_fd();
    // SAFETY: a descriptor that we hold, and a string that ends in zero.
    super::check(unsafe { libc::mkfifoat(directory, name.as_ptr(), mode) })?;
    // SAFETY: as above.
    super::check(unsafe { libc::fchmodat(directory, name.as_ptr(), mode, 0) })?;
    Ok(())
}

/// Opens a FIFO in a directory; refuses anything else.
pub(crate) fn open_at(directory: &File, name: &CStr, end: End) -> io::Result<File> {
    let flags = end.flags() | libc::O_NOFOLLOW;
    let number = super::retry(|| {
        // SAFETY: a descriptor that we hold, and a string that ends in zero.
        super::check(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) })
    })?;
    // SAFETY: a new descriptor, owned here.
    let file = unsafe { File::from_raw_fd(number) };
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(file)
}

/// A handle to a new pipe without a name: it holds neither end open, and leads to both.
pub(crate) fn anonymous() -> io::Result<File> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    super::check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: new descriptors, owned here, each closed once.
    let ends = ends.map(|number| unsafe { File::from_raw_fd(number) });
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(link(&ends[0]))
        .map_err(of_own_link)
}

/// Opens an end of the pipe of a handle.
pub(crate) fn reopen(handle: &File, end: End) -> io::Result<File> {
    super::retry(|| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(end == End::Both)
            .custom_flags(end.flags() & !libc::O_ACCMODE)
            .open(link(handle))
    })
    .map_err(of_own_link)
}

fn link(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Puts a token in; one that is full of them has enough.
pub(crate) fn put_token(file: &File) -> io::Result<()> {
    super::retry(|| match (&*file).write(&[1]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    })
}

/// Takes out all tokens; true if there were some.
pub(crate) fn take_tokens(file: &File) -> io::Result<bool> {
    let mut bytes = [0; 512];
    let mut any = false;
    loop {
        match super::retry(|| (&*file).read(&mut bytes)) {
            Ok(0) => return Ok(any),
            // Fewer than requested: the pipe is empty, or a token was written just now, which counts
            // as coming later.
            Ok(got) if got < bytes.len() => return Ok(true),
            Ok(_) => any = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) => return Err(error),
        }
    }
}

/// A name for the calls here.
pub(crate) fn name(text: &str) -> CString {
    CString::new(text).expect("names of FIFOs are ours")
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::lock::{Hold, hold, would_be_refused};
    use crate::os::poll::{Interest, Poller};
    use crate::os::testing::{Ended, in_child};
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// In a process of its own, as the next test: children that concurrent tests fork have copies of the
    /// ends until they end.
    #[test]
    fn pipe_hangs_up_only_without_a_writer() {
        let ended = in_child(|| {
            let pipe = anonymous().unwrap();
            let reader = reopen(&pipe, End::Read).unwrap();
            let poller = Poller::new().unwrap();
            poller.add(reader.as_fd(), Interest::HangUp).unwrap();
            let now = || poller.wait(Some(Duration::ZERO)).unwrap();
            // A pipe without a name that no process has opened yet counts as hung up.
            now();
            for _ in 0..3 {
                let writer = reopen(&pipe, End::Both).unwrap();
                let second = reopen(&pipe, End::Both).unwrap();
                assert!(!now());
                drop(writer);
                assert!(!now());
                drop(second);
                assert!(now());
                assert!(!now(), "reported once");
            }
            0
        });
        assert_eq!(ended, Ended::Code(0));
    }

    #[test]
    fn the_lock_of_a_pipe_goes_with_its_end() {
        let ended = in_child(|| {
            let pipe = anonymous().unwrap();
            let reader = reopen(&pipe, End::Read).unwrap();
            let held = || would_be_refused(&reader, 0, Hold::Alone).unwrap();
            assert!(!held());
            let writer = reopen(&pipe, End::Both).unwrap();
            assert!(hold(&writer, Hold::Alone).unwrap());
            let other = reopen(&pipe, End::Both).unwrap();
            assert!(!hold(&other, Hold::Alone).unwrap());
            assert!(held());
            drop(writer);
            assert!(!held());
            0
        });
        assert_eq!(ended, Ended::Code(0));
    }

    #[test]
    fn a_full_pipe_has_tokens_enough() {
        let pipe = anonymous().unwrap();
        let end = reopen(&pipe, End::Both).unwrap();
        for _ in 0..70_000 {
            put_token(&end).unwrap();
        }
        assert!(take_tokens(&end).unwrap());
        assert!(!take_tokens(&end).unwrap());
    }
}
