//! Finds out which standard streams were closed when the process began.
//!
//! The loader calls the functions of `.init_array` before `main`, and so before the standard library
//! fills the gaps. One of them checks the three descriptors; it needs neither `/proc` nor memory.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

/// A standard stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Descriptor 0.
    Stdin = 0,
    /// Descriptor 1.
    Stdout = 1,
    /// Descriptor 2.
    Stderr = 2,
}

/// Bit N is set if descriptor N was closed. Written once, before there is a second thread.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Whether this stream was closed when the process began.
#[must_use]
pub fn is_closed(stream: Stream) -> bool {
    CLOSED.load(Ordering::Relaxed) & (1 << stream as u8) != 0
}

// SAFETY: the loader calls the entries of this section as functions of the C ABI; arguments that a
// function does not declare are ignored there.
#[allow(clippy::unnecessary_safety_comment)] // it answers for the attribute
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for descriptor in 0..3 {
        // SAFETY: the call takes a number and returns one; a closed descriptor is an error.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
        if flags == -1 {
            CLOSED.fetch_or(1 << descriptor, Ordering::Relaxed);
        }
    }
}
