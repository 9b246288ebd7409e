//! A stretch of shared memory that the kernel reads or writes in place: no reference to it is made, so
//! a peer that writes it meanwhile changes bytes and nothing else.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use crate::os::file;

pub(crate) struct Span<'a> {
    start: NonNull<u8>,
    len: usize,
    _segment: PhantomData<&'a ()>,
}

impl<'a> Span<'a> {
    /// # Safety
    /// The range must stay mapped for `'a`.
    pub(crate) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self {
            start,
            len,
            _segment: PhantomData,
        }
    }

    /// One read(2) into the range; 0 at the end of the input. EINTR is given to the caller.
    pub(crate) fn fill_from(&self, source: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the range is mapped, as `new` was promised.
        unsafe { file::read_raw(source.as_raw_fd(), self.start, self.len) }
    }

    /// One write(2) from the range. EINTR is given to the caller.
    pub(crate) fn drain_to(&self, target: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the range is mapped, as `new` was promised.
        unsafe { file::write_raw(target.as_raw_fd(), self.start, self.len) }
    }
}
