//! The descriptor of a handle, for event loops.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use crate::guard::{GuardError, Role};
use crate::lifecycle::SharedRing;
use crate::os::poll::Poller;

/// A file descriptor of a producer or consumer, for `poll(2)`, `epoll(7)` and event loops.
///
/// With it a program waits for a ring beside sockets, timers and other rings. The ring must have pipes
/// ([`GuardChoice::Pipe`](crate::GuardChoice::Pipe)).
///
/// It is readable (`POLLIN`, `EPOLLIN`) unless the handle's last non-blocking call found nothing to do
/// ([`Empty`](crate::RecvError::Empty), [`Full`](crate::SendError::Full)) and nothing has happened since.
/// So call until the handle returns one of these, then poll. A program that makes only one call after
/// each event also works, with some calls that find nothing. Blocking calls may be mixed in.
///
/// Readable means: call the handle. Never read from the descriptor or write to it. Any thread may poll
/// it. Once the handle is dropped, its readiness means nothing.
#[derive(Clone, Debug)]
pub struct Pollable(Arc<Poller>);

impl Pollable {
    pub(super) fn of(ring: &SharedRing, role: Role) -> io::Result<Self> {
        let unsupported = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        if ring.is_forked() {
            return unsupported("this handle belongs to the process that forked this one");
        }
        match ring.guard.poller(role) {
            Some(poller) => Ok(Self(poller)),
            None => unsupported(
                "the ring is guarded by semaphores, which can't be polled: make it with pipes",
            ),
        }
    }
}

pub(super) fn pollable_error(error: GuardError) -> io::Error {
    match error {
        GuardError::Removed => io::Error::new(io::ErrorKind::NotFound, "the ring was removed"),
        GuardError::Os { errno, .. } => io::Error::from_raw_os_error(errno),
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
