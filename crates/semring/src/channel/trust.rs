//! Slices of shared memory, for those who vouch for their peers with
//! [`Builder::trust_peers`](crate::Builder::trust_peers). The only `unsafe` of this layer.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Bytes that a published, unreleased message owns.
pub(super) fn slice<'a>(start: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: callers hold a message (or reservation) for 'a whose bytes lie at `start`, bounds
    // checked by the view; that no peer writes them is what the user vouched for.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
}

/// Bytes that a reservation owns.
pub(super) fn slice_mut<'a>(start: NonNull<u8>, len: usize) -> &'a mut [u8] {
    // SAFETY: as for `slice`; the reservation is borrowed exclusively for 'a, and nobody reads its
    // bytes before the commit.
    unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
}
