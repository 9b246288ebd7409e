//! stdout: payload for the consumer, text for `semring`; its end noticed in every way it can end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use semring::RecvError;

use crate::exit::Failure;
use crate::input::{Ready, unless_nothing, wait_for};
use crate::signals::Signals;

/// Why something was not, or not completely, written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The reader is gone.
    Closed,
    /// A signal came while the reader took nothing.
    Signal,
    /// The reader took nothing for the time of `--timeout`.
    TimedOut,
    /// Anything else: a full disk, say.
    Failed(io::Error),
    /// It is not stdout: what was to be written is gone.
    Ring(RecvError),
}

/// Where the payload goes.
pub(crate) struct Output<'a> {
    stdout: io::Stdout,
    /// A pipe opened once more, without blocking: a signal ends the wait for a reader that takes
    /// nothing, and whoever shares our stdout notices nothing of it.
    pipe: Option<File>,
    /// Its other end can go away: a pipe or a socket.
    has_reader: bool,
    signals: &'a Signals,
    timeout: Option<Duration>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(signals: &'a Signals, timeout: Option<Duration>) -> Result<Self, Failure> {
        refuse_closed_stdout()?;
        let stdout = io::stdout();
        let kind = std::fs::metadata("/proc/self/fd/1").map(|metadata| metadata.file_type());
        let is_pipe = kind.as_ref().is_ok_and(FileTypeExt::is_fifo);
        let pipe = is_pipe.then(|| {
            let flags = OFlag::O_NONBLOCK.bits();
            OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open("/proc/self/fd/1")
                .ok()
        });
        let has_reader = is_pipe || kind.is_ok_and(|kind| kind.is_socket());
        Ok(Self {
            stdout,
            pipe: pipe.flatten(),
            has_reader,
            signals,
            timeout,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_ref().map_or(self.stdout.as_fd(), AsFd::as_fd)
    }

    /// True if there is a reader that can go away while we write nothing.
    pub(crate) fn has_reader(&self) -> bool {
        self.has_reader
    }

    /// Whether the reader is gone.
    pub(crate) fn reader_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::empty())];
        let asked = self.has_reader && poll(&mut fds, PollTimeout::ZERO).is_ok();
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        asked
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(gone))
    }

    /// Writes all of it, in one write(2) if the reader takes it.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_with(bytes.len(), |fd, done| {
            nix::unistd::write(fd, &bytes[done..]).map_err(io::Error::from)
        })
    }

    /// The same with bytes that only `write` can reach: it makes one write(2) from an offset on.
    pub(crate) fn write_with(
        &self,
        len: usize,
        mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Result<(), WriteError> {
        let mut done = 0;
        while done < len {
            match unless_nothing(write(self.fd(), done)) {
                Ok(Some(bytes)) => done += bytes,
                Ok(None) => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(WriteError::Closed);
                }
                Err(error) => {
                    let ring = error.get_ref().and_then(|inner| inner.downcast_ref());
                    return Err(ring
                        .copied()
                        .map_or(WriteError::Failed(error), WriteError::Ring));
                }
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), WriteError> {
        let ready = wait_for(self.fd(), PollFlags::POLLOUT, self.signals, self.timeout);
        match ready.map_err(WriteError::Failed)? {
            Ready::Transfer => Ok(()),
            Ready::Signal => Err(WriteError::Signal),
            Ready::Nothing if self.timeout.is_some() => Err(WriteError::TimedOut),
            Ready::Nothing => Ok(()),
        }
    }
}

/// The standard library puts /dev/null, open for reading and writing, in the place of a closed stdout
/// before `main` begins. Payload would vanish there without a word, so exactly that is refused; what
/// `>/dev/null` gives is open for writing only.
pub(crate) fn refuse_closed_stdout() -> Result<(), Failure> {
    let stdout = io::stdout();
    let flags = fcntl(&stdout, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    let both_ways = flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDWR);
    let device = |path| std::fs::metadata(path).map(|metadata| metadata.rdev());
    let is_null = matches!(
        (device("/proc/self/fd/1"), device("/dev/null")),
        (Ok(ours), Ok(null)) if ours == null
    );
    if both_ways && is_null {
        return Err(Failure::run_time(
            "stdout is closed; write >/dev/null to throw the output away",
        ));
    }
    Ok(())
}

/// Prints text, without a panic whatever stdout is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    printed.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
        _ => Failure::run_time(format!("stdout: {error}")),
    })
}
