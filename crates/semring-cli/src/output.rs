//! stdout for the consumer's payload, and detection of its end in every form.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Whence, ftruncate, lseek};
use semring::RecvError;
use semring_stdio::Stream;

use crate::exit::Failure;
use crate::input::{Ready, access_mode, wait_for};
use crate::joining::JoinError;
use crate::signals::Signals;
use crate::transfers::{Kind, Transfers};

/// How long a message that was written in part may take to be finished after a signal.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Why something was not, or not completely, written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The reader is gone.
    Closed,
    /// A signal came while the reader took nothing.
    Signal,
    /// The reader took nothing for the time of `--timeout`.
    TimedOut,
    /// Any other error: for example a full disk.
    Failed(io::Error),
    /// Not an error of stdout: the bytes to be written are gone.
    Ring(RecvError),
    /// The next message has a framing other than the requested one.
    Framing(JoinError),
}

/// A write that ended before its end.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) error: WriteError,
    /// Bytes that were written before.
    pub(crate) written: usize,
}

/// Where the payload goes.
pub(crate) struct Output<'a> {
    stdout: io::Stdout,
    kind: Kind,
    transfers: Transfers,
    signals: &'a Signals,
    timeout: Option<Duration>,
}

impl<'a> Output<'a> {
    /// Refuses a stdout that can't be written.
    pub(crate) fn new(signals: &'a Signals, timeout: Option<Duration>) -> Result<Self, Failure> {
        refuse_closed_stdout()?;
        let stdout = io::stdout();
        let transfers =
            Transfers::new(stdout.as_fd()).map_err(|error| Failure::of("stdout", &error))?;
        Ok(Self {
            kind: Kind::of(stdout.as_fd()),
            stdout,
            transfers,
            signals,
            timeout,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    /// True if there is a reader that can go away while we write nothing.
    pub(crate) fn has_reader(&self) -> bool {
        self.kind == Kind::Channel
    }

    /// Whether the reader is gone.
    pub(crate) fn reader_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::empty())];
        let looked = self.has_reader() && poll(&mut fds, PollTimeout::ZERO).is_ok();
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        looked
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(gone))
    }

    /// Writes all of it, in one write(2) if the reader takes it. After a signal, at most up to the end of
    /// the message in which the last write ended: `end_of_message` gives it for any offset.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        end_of_message: impl Fn(usize) -> usize,
    ) -> Result<(), Unwritten> {
        self.write_with(bytes.len(), end_of_message, |fd, done, len| {
            nix::unistd::write(fd, &bytes[done..len]).map_err(io::Error::from)
        })
    }

    /// The same with a message that only `write` can reach: it makes one write(2) from an offset on.
    pub(crate) fn write_message(
        &self,
        len: usize,
        mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Result<(), Unwritten> {
        self.write_with(len, |_| len, |fd, done, _| write(fd, done))
    }

    /// `write` makes one write(2) of what lies between two offsets.
    fn write_with(
        &self,
        mut len: usize,
        end_of_message: impl Fn(usize) -> usize,
        mut write: impl FnMut(BorrowedFd<'_>, usize, usize) -> io::Result<usize>,
    ) -> Result<(), Unwritten> {
        let all = len;
        let mut written = 0;
        let mut patience = Patience::new(self.timeout);
        let failed = loop {
            if written == len {
                if len == all {
                    return Ok(());
                }
                break WriteError::Signal;
            }
            match self.transfers.attempt(|| write(self.fd(), written, len)) {
                Ok(Some(bytes)) => {
                    written += bytes;
                    patience.moved();
                }
                Ok(None) => match self.wait(&patience) {
                    Ok(Ready::Transfer) => {}
                    Ok(Ready::Nothing) => break patience.error(),
                    Ok(Ready::Signal) => {
                        let end = end_of_message(written);
                        if end == written {
                            break WriteError::Signal;
                        }
                        // Ending within a message would cut it: its rest gets a short time.
                        len = end.min(all);
                        patience.finish();
                    }
                    Err(error) => break WriteError::Failed(error),
                },
                Err(error) => break write_error(error),
            }
        };
        Err(Unwritten {
            error: failed,
            written,
        })
    }

    /// Waits until something can be written.
    fn wait(&self, patience: &Patience) -> io::Result<Ready> {
        if !patience.finishing {
            return wait_for(self.fd(), PollFlags::POLLOUT, self.signals, patience.left());
        }
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, crate::input::poll_timeout(patience.left())) {
            Ok(0) => Ok(Ready::Nothing),
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(Ready::Transfer),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the last bytes that were written, if stdout is a file that ends with them: a full disk
    /// leaves a part of a message there. True if they were removed.
    pub(crate) fn take_back(&self, bytes: usize) -> bool {
        if self.kind != Kind::File {
            return false;
        }
        let position = lseek(self.fd(), 0, Whence::SeekCur);
        let size = nix::sys::stat::fstat(self.fd()).map(|status| status.st_size);
        let (Ok(position), Ok(size)) = (position, size) else {
            return false;
        };
        let start = size - i64::try_from(bytes).unwrap_or(i64::MAX);
        // Another process may have written since, or it was not the end of the file.
        if position != size || start < 0 || ftruncate(self.fd(), start).is_err() {
            return false;
        }
        let _ = lseek(self.fd(), start, Whence::SeekSet);
        true
    }
}

/// How long a write may wait.
struct Patience {
    timeout: Option<Duration>,
    /// When something moved last; kept only where it matters.
    since: Option<Instant>,
    /// A signal came: only the rest of a message is to be written.
    finishing: bool,
}

impl Patience {
    fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            since: timeout.map(|_| Instant::now()),
            finishing: false,
        }
    }

    fn moved(&mut self) {
        if self.since.is_some() && !self.finishing {
            self.since = Some(Instant::now());
        }
    }

    fn finish(&mut self) {
        *self = Self {
            finishing: true,
            ..Self::new(Some(FINISH_WITHIN))
        };
    }

    fn left(&self) -> Option<Duration> {
        let (timeout, since) = (self.timeout?, self.since?);
        Some(timeout.saturating_sub(since.elapsed()))
    }

    /// The error if the timeout has passed.
    fn error(&self) -> WriteError {
        if self.finishing {
            WriteError::Signal
        } else {
            WriteError::TimedOut
        }
    }
}

fn write_error(error: io::Error) -> WriteError {
    if is_gone(&error) {
        return WriteError::Closed;
    }
    let ring = error.get_ref().and_then(|inner| inner.downcast_ref());
    ring.copied()
        .map_or(WriteError::Failed(error), WriteError::Ring)
}

/// Whether a write failed because there is no reader any more: a pipe that was closed, a connection
/// that was closed or reset.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Payload would vanish in the `/dev/null` that the standard library opens in the place of a closed
/// stdout.
pub(crate) fn refuse_closed_stdout() -> Result<(), Failure> {
    if semring_stdio::is_closed(Stream::Stdout) {
        return Err(Failure::run_time(
            "stdout is closed; write >/dev/null to throw the output away",
        ));
    }
    if access_mode(io::stdout().as_fd()) == Some(OFlag::O_RDONLY) {
        return Err(Failure::run_time("stdout is open for reading only"));
    }
    Ok(())
}
