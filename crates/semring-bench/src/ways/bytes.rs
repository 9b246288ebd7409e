//! Memory of two processes: words that both change, and bytes that belong to one side at a time.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use sysv_ipc::Key;
use sysv_ipc::shm::{Attachment, Shm};

use crate::Result;
use crate::trash::Trash;

/// A System V segment.
pub(super) struct Segment {
    attachment: Attachment,
    length: usize,
    _trash: Option<Trash>,
}

impl Segment {
    /// A new one, full of zeroes, and its identifier.
    pub(super) fn make(length: usize) -> Result<(Self, i32)> {
        let (segment, trash) = Trash::segment(|| Ok(Shm::create(Key::PRIVATE, length, 0o600)?))?;
        let bytes = Self {
            attachment: segment.attach()?,
            length,
            _trash: Some(trash),
        };
        Ok((bytes, segment.id()))
    }

    /// The one of this identifier, made with this length.
    pub(super) fn open(id: i32, length: usize) -> Result<Self> {
        Ok(Self {
            attachment: Shm::from_id(id).attach()?,
            length,
            _trash: None,
        })
    }

    fn at(&self, offset: usize, length: usize) -> NonNull<u8> {
        assert!(offset <= self.length && length <= self.length - offset);
        // SAFETY: within the segment, as was just looked at.
        unsafe { self.attachment.as_ptr().byte_add(offset) }
    }

    /// A word that both sides change.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        let word = self.at(offset, 8).cast();
        // SAFETY: mapped as long as `self`, aligned, and changed only as an atomic by everybody.
        unsafe { word.as_ref() }
    }

    /// The same of 32 bits, as futex(2) wants it.
    pub(super) fn futex(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        let word = self.at(offset, 4).cast();
        // SAFETY: as in `word`.
        unsafe { word.as_ref() }
    }

    /// Bytes that are this side's alone now: a word that both change says so.
    ///
    /// # Safety
    /// Nobody else touches them while the slice lives.
    #[allow(
        clippy::mut_from_ref,
        reason = "the memory is not Rust's: a protocol says whose it is"
    )]
    pub(super) unsafe fn own(&self, offset: usize, length: usize) -> &mut [u8] {
        let bytes = self.at(offset, length).as_ptr();
        // SAFETY: mapped as long as `self`; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(bytes, length) }
    }
}
