//! Reading pages of a mapping that may not be there. A load from a page that the kernel can't provide (a
//! huge page from an empty pool, memory beyond a control group's limit) is a SIGBUS. A system call that
//! reads the page fails with an error instead: so write(2) copies the bytes into a pipe here, and
//! read(2) back.
//!
//! `process_vm_readv` would need one call, but sandboxes often forbid it, because debuggers use it.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// An empty pipe always has room for this many bytes (PIPE_BUF).
const CHUNK: usize = 4096;

/// A pipe for copying.
pub(crate) struct Peek {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Peek {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer })
    }

    /// Copies `len` bytes. `Err` with EFAULT if one of the pages can't be had; nothing faults.
    ///
    /// # Safety
    /// `from` must be the beginning of a mapping of `len` bytes, there or not, and `to` valid for writes of
    /// `len` bytes that no other thread or process uses.
    pub(crate) unsafe fn copy(
        &mut self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        len: usize,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < len {
            let chunk = CHUNK.min(len - at);
            // SAFETY: at < len, so inside the mapping.
            let source = unsafe { from.byte_add(at) };
            let put = super::retry(|| {
                // SAFETY: the range is mapped, and where it can't be read the call gives EFAULT.
                unsafe { super::file::write_raw(self.writer.as_raw_fd(), source, chunk) }
            })?;
            let mut bytes = [0; CHUNK];
            self.reader.read_exact(&mut bytes[..put])?;
            // SAFETY: at < len, so inside the target.
            let target = unsafe { to.byte_add(at) };
            // SAFETY: `put` bytes at most `len - at`; the source is an array of ours.
            unsafe { target.copy_from_nonoverlapping(NonNull::from(&mut bytes[0]), put) };
            at += put;
        }
        Ok(())
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::{errno, mapping, memfd};

    #[test]
    fn bytes_of_several_pages_arrive() {
        let from: Vec<u8> = (0..10_000_usize).map(|at| (at % 251) as u8).collect();
        let mut to = vec![0; from.len()];
        let (source, mut peek) = (NonNull::from(&from[0]), Peek::new().unwrap());
        // SAFETY: two vectors of this length.
        unsafe { peek.copy(source, NonNull::from(&mut to[0]), from.len()) }.unwrap();
        assert_eq!(to, from);
    }

    #[test]
    fn a_page_that_is_not_there_is_an_error() {
        let file = memfd::create(c"peek", 0o600, None).unwrap();
        file.set_len(8192).unwrap();
        let pages = mapping::Mapping::shared(&file, 8192, false).unwrap();
        file.set_len(4096).unwrap();
        let mut to = vec![1; 8192];
        let mut peek = Peek::new().unwrap();
        // SAFETY: a mapping and a vector of this length.
        let result = unsafe { peek.copy(pages.base(), NonNull::from(&mut to[0]), 8192) };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(errno::EFAULT));
        assert_eq!(to[..4096], [0; 4096], "the page before it was copied");
    }
}
