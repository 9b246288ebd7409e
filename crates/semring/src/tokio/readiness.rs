//! A handle's descriptor in tokio's event loop.
#![allow(unsafe_code)]

use std::io;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::channel::Pollable;

/// Makes the runtime listen to a handle.
pub(super) fn register(pollable: Pollable) -> io::Result<AsyncFd<Pollable>> {
    // SAFETY: a Pollable keeps its descriptor open, the same one, for as long as it lives, and nothing here
    // takes it out of the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(pollable, Interest::READABLE) }?)
}
