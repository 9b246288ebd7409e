//! A range of shared memory that the kernel reads or writes in place: no reference to it is made, so a
//! peer that writes it at the same time changes bytes and nothing else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use super::Segment;
use crate::os::{errno, file};

pub(crate) struct Span<'a> {
    segment: &'a Segment,
    start: NonNull<u8>,
    len: usize,
}

impl<'a> Span<'a> {
    /// # Safety
    /// The range must lie in the segment.
    pub(crate) unsafe fn new(segment: &'a Segment, start: NonNull<u8>, len: usize) -> Self {
        Self {
            segment,
            start,
            len,
        }
    }

    /// One read(2) into the range; 0 at the end of the input. EINTR is given to the caller.
    pub(crate) fn fill_from(&self, source: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the range is mapped, as `new` was promised.
        self.noticed(unsafe { file::read_raw(source.as_raw_fd(), self.start, self.len) })
    }

    /// One write(2) from the range. EINTR is given to the caller.
    pub(crate) fn drain_to(&self, target: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the range is mapped, as `new` was promised.
        self.noticed(unsafe { file::write_raw(target.as_raw_fd(), self.start, self.len) })
    }

    /// Where a program gets SIGBUS, a system call that is to use the missing page gets EFAULT.
    fn noticed(&self, result: io::Result<usize>) -> io::Result<usize> {
        if let Err(error) = &result
            && error.raw_os_error() == Some(errno::EFAULT)
        {
            self.segment.record_fault();
        }
        result
    }
}
