//! Waiting for a descriptor together with signals, and stdin.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, flock};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use semring_stdio::Stream;

use crate::exit::Failure;
use crate::signals::Signals;
use crate::transfers::{Kind, Transfers};

/// The byte of a stdin that producers lock. Other programs lock a file from its beginning.
const MARK: i64 = 0x7365_6d72_696e_6700;

/// The event that ended a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ready {
    /// Something can be read or written, or the end was reached.
    Transfer,
    /// A signal came.
    Signal,
    /// The time is over.
    Nothing,
}

/// Waits until a descriptor is ready, a signal came, or the time is over; no time is for ever.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    signals: &Signals,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let end = timeout.and_then(|time| Instant::now().checked_add(time));
    loop {
        // Its pipe may become readable only later.
        if signals.caught().is_some() {
            return Ok(Ready::Signal);
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(fd, events),
        ];
        match poll(&mut fds, poll_timeout(left)) {
            // The longest time that poll(2) takes is 24 days.
            Ok(0) if end.is_some_and(|end| Instant::now() >= end) => return Ok(Ready::Nothing),
            Ok(0) => {}
            Ok(_) if fds[0].any().unwrap_or(true) => return Ok(Ready::Signal),
            Ok(_) => return Ok(Ready::Transfer),
            // A handler ran.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// In milliseconds, rounded up: a wait of less than one is none at all otherwise.
pub(crate) fn poll_timeout(time: Option<Duration>) -> PollTimeout {
    let Some(time) = time else {
        return PollTimeout::NONE;
    };
    let millis = time.as_millis() + u128::from(time.subsec_nanos() % 1_000_000 != 0);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// The bytes to send.
pub(crate) struct Input<'a> {
    stdin: io::Stdin,
    transfers: Transfers,
    signals: &'a Signals,
}

impl<'a> Input<'a> {
    /// Refuses a stdin that can't be read.
    pub(crate) fn new(signals: &'a Signals) -> Result<Self, Failure> {
        let stdin = io::stdin();
        if semring_stdio::is_closed(Stream::Stdin) {
            return Err(Failure::run_time(
                "stdin is closed; read </dev/null for a stream without messages",
            ));
        }
        if access_mode(stdin.as_fd()) == Some(OFlag::O_WRONLY) {
            return Err(Failure::run_time("stdin is open for writing only"));
        }
        let transfers =
            Transfers::new(stdin.as_fd()).map_err(|error| Failure::of("stdin", &error))?;
        Ok(Self {
            stdin,
            transfers,
            signals,
        })
    }

    /// The process that reads the same pipe, socket or terminal and is a producer, too: its id, or 0 if it is
    /// none that can be seen from here. Each of the two takes the bytes that it finds first, wherever a
    /// message begins or ends.
    ///
    /// A producer marks its stdin with a shared lock on a byte that means nothing; the kernel takes the
    /// lock away with the process. The one that comes second finds the lock of the first.
    pub(crate) fn other_producer(&self) -> Option<i32> {
        let shared = match Kind::of(self.stdin.as_fd()) {
            Kind::File => false,
            Kind::Channel => true,
            Kind::Device => self.stdin.is_terminal(),
        };
        if !shared {
            return None;
        }
        let lock = |kind| flock {
            l_type: kind as i16,
            l_whence: SEEK_SET as i16,
            l_start: MARK,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.stdin, FcntlArg::F_SETLK(&lock(F_RDLCK))).ok()?;
        let mut other = lock(F_WRLCK);
        fcntl(&self.stdin, FcntlArg::F_GETLK(&mut other)).ok()?;
        (i32::from(other.l_type) != F_UNLCK).then_some(other.l_pid.max(0))
    }

    /// Waits for input, or its end.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<Ready> {
        wait_for(
            self.stdin.as_fd(),
            PollFlags::POLLIN,
            self.signals,
            Some(timeout),
        )
    }

    /// One read(2). `None` if there is nothing after all, 0 at the end.
    pub(crate) fn read(&self, to: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_with(|fd| nix::unistd::read(fd, to).map_err(io::Error::from))
    }

    /// One read(2) that `read` makes. Another process that reads the same stdin may have taken the
    /// bytes: then the read is broken off.
    pub(crate) fn read_with(
        &self,
        read: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        self.transfers.attempt(|| read(self.stdin.as_fd()))
    }
}

/// Whether a descriptor is open for reading, writing or both.
pub(crate) fn access_mode(fd: BorrowedFd<'_>) -> Option<OFlag> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).ok()?;
    Some(OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE)
}
