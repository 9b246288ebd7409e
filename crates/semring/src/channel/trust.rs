//! Slices of shared memory, for users that have promised with
//! [`Builder::trust_peers`](crate::Builder::trust_peers) that no peer changes them. The only
//! `unsafe` of this layer.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Bytes that a published, unreleased message owns.
pub(super) fn slice<'a>(start: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: callers hold a message (or reservation) for 'a whose bytes lie at `start`, bounds
    // checked by the view; the user has promised that no peer writes them.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
}

/// Bytes that a reservation owns.
pub(super) fn slice_mut<'a>(start: NonNull<u8>, len: usize) -> &'a mut [u8] {
    // SAFETY: as for `slice`; the reservation is borrowed exclusively for 'a, and no process reads
    // its bytes before the commit.
    unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
}
