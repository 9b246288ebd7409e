//! A System V segment: words that both sides change, and bytes that one side at a time may use.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use sysv_ipc::Key;
use sysv_ipc::shm::{Attachment, Shm};

use crate::cleanup::CleanupGuard;
use crate::error::Result;

/// A System V segment.
pub(super) struct Segment {
    attachment: Attachment,
    length: usize,
    _cleanup: Option<CleanupGuard>,
}

impl Segment {
    /// A new segment, filled with zeroes, and its identifier.
    pub(super) fn make(length: usize) -> Result<(Self, i32)> {
        let (segment, cleanup) =
            CleanupGuard::segment(|| Ok(Shm::create(Key::PRIVATE, length, 0o600)?))?;
        let bytes = Self {
            attachment: segment.attach()?,
            length,
            _cleanup: Some(cleanup),
        };
        Ok((bytes, segment.id()))
    }

    /// The segment with this identifier, made with this length.
    pub(super) fn open(id: i32, length: usize) -> Result<Self> {
        Ok(Self {
            attachment: Shm::from_id(id).attach()?,
            length,
            _cleanup: None,
        })
    }

    fn at(&self, offset: usize, length: usize) -> NonNull<u8> {
        assert!(offset <= self.length && length <= self.length - offset);
        // SAFETY: within the segment, as was just checked.
        unsafe { self.attachment.as_ptr().byte_add(offset) }
    }

    /// A word that both sides change.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        let word = self.at(offset, 8).cast();
        // SAFETY: mapped as long as `self`, aligned, and accessed by all processes as an atomic only.
        unsafe { word.as_ref() }
    }

    /// The same with 32 bits, for futex(2).
    pub(super) fn futex(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        let word = self.at(offset, 4).cast();
        // SAFETY: as in `word`.
        unsafe { word.as_ref() }
    }

    /// Bytes that only this side may access at this time, according to a word that both sides
    /// change.
    ///
    /// # Safety
    /// No other process, thread or slice accesses these bytes while the slice lives.
    #[allow(
        clippy::mut_from_ref,
        reason = "a protocol between the processes decides which side may access the memory"
    )]
    pub(super) unsafe fn own(&self, offset: usize, length: usize) -> &mut [u8] {
        let bytes = self.at(offset, length).as_ptr();
        // SAFETY: mapped as long as `self`; the caller guarantees exclusive access.
        unsafe { std::slice::from_raw_parts_mut(bytes, length) }
    }
}
