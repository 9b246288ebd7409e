//! The memory of a ring, mapped into this process, for all backends.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::locked_memory_text;
#[cfg(test)]
use super::heap;
use super::{MemoryError, Result};
use crate::os::errno;
use crate::os::fault::FaultWatch;
use crate::os::mapping::{self, Mapping};
use crate::os::mapping_state::MappingState;
use crate::os::sysv::Attachment;
use crate::sync::signals::SignalWord;

pub(super) enum Backing {
    Mapping(Mapping),
    /// Of a file that can be truncated by every process that may write it.
    Truncatable(Mapping),
    Attached(Attachment),
    /// Shared with the handles of the process that this one was forked from, too.
    Anonymous(Arc<Mapping>),
    /// A copy of our own, for looking.
    Private(Mapping),
    #[cfg(test)]
    Heap(heap::HeapPages),
}

/// Memory that a ring lies in, mapped into this process.
pub(crate) struct Segment {
    backing: ManuallyDrop<Backing>,
    base: NonNull<u8>,
    len: usize,
    /// The process outlives the loss of the pages.
    watch: Option<FaultWatch>,
    mapping_state: MappingState,
}

// SAFETY: the bytes are shared between processes anyway; all that is done with them goes through the
// views of `layout`, which use atomics and copies.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    pub(super) fn new(backing: Backing) -> Result<Self> {
        let (base, len) = match &backing {
            Backing::Mapping(mapping) | Backing::Truncatable(mapping) => {
                (mapping.base(), mapping.len())
            }
            Backing::Attached(attachment) => (attachment.as_ptr(), attachment.len()),
            Backing::Anonymous(mapping) => (mapping.base(), mapping.len()),
            Backing::Private(mapping) => (mapping.base(), mapping.len()),
            #[cfg(test)]
            Backing::Heap(pages) => (pages.base(), pages.len()),
        };
        let mapping_state = MappingState::new().map_err(|error| MemoryError::of("mmap", error))?;
        let is_inherited = matches!(
            backing,
            Backing::Mapping(_) | Backing::Truncatable(_) | Backing::Attached(_)
        );
        if is_inherited && mapping::dont_fork(base, len).is_err() {
            mapping_state.keep_from_children(base, len);
        }
        // Messages do not belong into the core dump of this process. A kernel without this advice follows
        // /proc/PID/coredump_filter.
        let _ = mapping::dont_dump(base, len);
        Ok(Self {
            backing: ManuallyDrop::new(backing),
            base,
            len,
            watch: None,
            mapping_state,
        })
    }

    /// A mapping of a file. If the file is `sealed` it can't be truncated; otherwise truncation
    /// makes the segment [truncated](Self::is_truncated).
    pub(super) fn of_file(mapping: Mapping, sealed: bool) -> Result<Self> {
        if sealed {
            return Self::new(Backing::Mapping(mapping));
        }
        let mut segment = Self::new(Backing::Truncatable(mapping))?;
        // SAFETY: `drop` ends the watch before it unmaps the pages; the mapping state goes after them.
        let watch = unsafe { FaultWatch::new(segment.base, segment.len, &segment.mapping_state) };
        // Where the program or the system has disabled the handler, the ring works all the same.
        segment.watch = watch.ok();
        Ok(segment)
    }

    /// Private zeroed memory of this process, for models and tests of the upper layers.
    #[cfg(test)]
    pub(crate) fn heap(len: usize) -> Self {
        Self::new(Backing::Heap(heap::HeapPages::new(len))).expect("a page for the mapping state")
    }

    /// Zeroed memory of this process alone; real where it is touched.
    pub(crate) fn private(len: usize) -> Result<Self> {
        let mapping = Mapping::private(len)
            .map_err(|error| MemoryError::of_mapping("mmap", len as u64, error))?;
        Self::new(Backing::Private(mapping))
    }

    pub(super) fn is_private(&self) -> bool {
        matches!(*self.backing, Backing::Private(_))
    }

    /// For a forked child, in which the pages of anonymous memory are still mapped: a segment of its
    /// own over them. `None` for other memory.
    pub(crate) fn adopt(&self) -> Result<Option<Self>> {
        match &*self.backing {
            Backing::Anonymous(mapping) => Self::new(Backing::Anonymous(mapping.clone())).map(Some),
            _ => Ok(None),
        }
    }

    /// Keeps every page in memory for as long as it is mapped here.
    pub(crate) fn lock(&self) -> Result<()> {
        mapping::lock(self.base, self.len).map_err(|source| match source.raw_os_error() {
            Some(errno::EPERM | errno::ENOMEM | errno::EAGAIN) => {
                MemoryError::Limit(locked_memory_text(self.len as u64))
            }
            _ => MemoryError::of("mlock", source),
        })
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The word that shows whether the pages are there, for code that checks it with each message.
    pub(crate) fn fate(&self) -> &SignalWord {
        self.mapping_state.word()
    }

    /// True while the pages are those of the ring: not in a forked child, and not after a truncation.
    #[inline(always)]
    pub(crate) fn is_intact(&self) -> bool {
        self.mapping_state.is_intact()
    }

    /// True if what this thread read of the segment last may have been zeros in place of the ring's bytes,
    /// because they were taken away.
    #[inline(always)]
    pub(crate) fn is_truncated(&self) -> bool {
        self.mapping_state.is_truncated()
    }

    /// The kernel found no page there.
    pub(super) fn record_fault(&self) {
        if matches!(*self.backing, Backing::Truncatable(_)) {
            self.mapping_state.tear();
        }
    }

    /// True in a process forked since the segment was mapped: it does not have the pages.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.mapping_state.is_child()
    }

    /// Makes every page real now.
    pub(super) fn populate(&self) -> io::Result<()> {
        match mapping::populate(self.base, self.len) {
            // Before Linux 5.14, in a sandbox or under a filter there is no such advice: touch the pages.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(errno::EINVAL | errno::ENOSYS | errno::EPERM)
                ) =>
            {
                for page in (0..self.len).step_by(4096) {
                    // SAFETY: page < len, so inside the mapping.
                    let at = unsafe { self.base.byte_add(page) };
                    // SAFETY: a new segment that no other process has; the byte is 0 and stays 0.
                    unsafe { at.as_ptr().write_volatile(0) };
                }
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Before the pages go, and in a forked child, too.
        drop(self.watch.take());
        if self.is_forked() {
            // The child never had these pages; the addresses may belong to something else by now. (Those of
            // anonymous memory it has; they go with it.)
            return;
        }
        self.mapping_state.end_of_pages();
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.backing) };
    }
}
