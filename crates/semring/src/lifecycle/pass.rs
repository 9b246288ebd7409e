//! Handing a ring's memory to another process: by inheritance, or through a Unix socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::{RingCore, SharedRing};
use crate::error::OpenError;
use crate::memory::MemoryError;
use crate::os::{file, socket};

/// A descriptor that is inherited by programs started from here.
pub(crate) fn inheritable(ring: &RingCore) -> io::Result<OwnedFd> {
    let descriptor = descriptor(ring)?;
    file::inheritable(descriptor.as_fd()).map(OwnedFd::from)
}

/// Sends a descriptor.
pub(crate) fn send(ring: &RingCore, to: &UnixStream) -> io::Result<()> {
    socket::send_descriptor(to, descriptor(ring)?.as_fd())
}

/// Receives a descriptor, and opens its ring.
pub(crate) fn receive(from: &UnixStream) -> Result<SharedRing, OpenError> {
    let received = socket::receive_descriptor(from).map_err(|source| OpenError::Os {
        name: "memfd:".to_owned(),
        call: "recvmsg",
        source,
    })?;
    super::open_received(received)
}

/// A descriptor to be passed on, not inherited by programs started from here.
pub(crate) fn descriptor(ring: &RingCore) -> io::Result<OwnedFd> {
    match ring.object.descriptor() {
        Ok(Some(descriptor)) => Ok(descriptor),
        Ok(None) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "System V and anonymous memory have no descriptor",
        )),
        Err(MemoryError::Denied(source) | MemoryError::Os { source, .. }) => Err(source),
        Err(_) => Err(io::ErrorKind::NotFound.into()),
    }
}
