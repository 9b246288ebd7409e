//! Text for stdout and stderr, written completely on any kind of stream.
//!
//! The standard library gives up on a stream that another process made non-blocking, and mistakes a
//! stdout that is open for reading only for one that was closed on purpose.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::exit::Failure;
use crate::input::poll_timeout;
use crate::output::{is_gone, refuse_closed_stdout};
use crate::signals;
use crate::transfers::Transfers;

/// How long stderr may take nothing after a signal came.
const SIGNAL_WAITS: Duration = Duration::from_secs(1);

/// How often a wait looks whether a signal came.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Prints text on stdout, without a panic for any kind of stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    refuse_closed_stdout()?;
    write_all(io::stdout().as_fd(), text.as_bytes()).map_err(|error| {
        if is_gone(&error) {
            Failure::broken_pipe()
        } else {
            Failure::of("stdout", &error)
        }
    })
}

/// Prints text on stderr, if there is anything that takes it: in one write(2) where that is possible, as
/// several programs of a pipeline may print at once.
pub(crate) fn print_error(text: &str) {
    let _ = write_all(io::stderr().as_fd(), text.as_bytes());
}

/// stdout for output in pieces.
pub(crate) struct Stdout;

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(io::stdout().as_fd(), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, waiting as long as it takes; once a signal was caught, not much longer.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    let transfers = Transfers::new(fd)?;
    let mut moved = Instant::now();
    while !bytes.is_empty() {
        let write = || nix::unistd::write(fd, bytes).map_err(io::Error::from);
        match transfers.attempt(write)? {
            Some(written) => {
                bytes = &bytes[written..];
                moved = Instant::now();
            }
            None if signals::came() && moved.elapsed() >= SIGNAL_WAITS => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            None => {
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                match poll(&mut fds, poll_timeout(Some(LOOK_EVERY))) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }
    Ok(())
}
