//! stdin, waited for together with signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::signals::Signals;

/// What a wait ended with.
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
    let timeout = match timeout {
        None => PollTimeout::NONE,
        // Rounded up: a wait of less than a millisecond is none at all otherwise.
        Some(time) => {
            let millis = time.as_millis() + u128::from(time.subsec_nanos() % 1_000_000 != 0);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(fd, events),
    ];
    match poll(&mut fds, timeout) {
        Ok(0) => Ok(Ready::Nothing),
        Ok(_) if fds[0].any().unwrap_or(true) => Ok(Ready::Signal),
        Ok(_) => Ok(Ready::Transfer),
        // A handler ran; whether it concerns us, the next look at the pipe tells.
        Err(Errno::EINTR) => Ok(Ready::Nothing),
        Err(errno) => Err(errno.into()),
    }
}

/// The bytes to send.
pub(crate) struct Input<'a> {
    stdin: io::Stdin,
    signals: &'a Signals,
}

impl<'a> Input<'a> {
    pub(crate) fn new(signals: &'a Signals) -> Self {
        Self {
            stdin: io::stdin(),
            signals,
        }
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
        unless_nothing(nix::unistd::read(&self.stdin, to).map_err(io::Error::from))
    }

    /// The descriptor, for reading without a copy.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }
}

/// `None` for a read or write that found nothing to do and may be tried again.
pub(crate) fn unless_nothing(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error),
        },
    }
}
