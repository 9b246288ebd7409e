//! Reads and writes that end when a signal comes or a timeout passes, on every kind of standard
//! stream.
//!
//! A stream that comes from elsewhere is open in other processes, too, so its flag `O_NONBLOCK` is
//! neither relied on nor changed: where it is set, a transfer that can't move anything returns at once;
//! where it is not, a [`Breaker`] ends it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::sys::stat::{SFlag, fstat};
use semring_stdio::Breaker;

/// A transfer that moves nothing ends after this time, and its caller looks at signals and clocks.
const BREAK_AFTER: Duration = Duration::from_millis(100);

/// The kind of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A file, which is always ready.
    File,
    /// A pipe or a socket: the other end can go away.
    Channel,
    /// A terminal or another device.
    Device,
}

impl Kind {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Self {
        let mode = fstat(fd).map_or(0, |status| status.st_mode);
        match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFBLK => Self::File,
            SFlag::S_IFIFO | SFlag::S_IFSOCK => Self::Channel,
            _ => Self::Device,
        }
    }
}

/// The transfers of one stream, made by one thread.
pub(crate) struct Transfers {
    breaker: Option<Breaker>,
}

impl Transfers {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let breaker = match Kind::of(fd) {
            Kind::File => None,
            Kind::Channel | Kind::Device => Some(Breaker::new()?),
        };
        Ok(Self { breaker })
    }

    /// One read(2) or write(2). `None` if it moved nothing and may be made again once the stream is ready.
    pub(crate) fn attempt(
        &self,
        transfer: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let result = match &self.breaker {
            Some(breaker) => breaker.transfer(BREAK_AFTER, transfer),
            None => transfer(),
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            },
        }
    }
}
