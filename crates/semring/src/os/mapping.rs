//! Shared mappings of a file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::LazyLock;

use super::memfd::Huge;

/// A shared mapping; unmapped on drop.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; the holders of the pointer are
// responsible for access to the bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file, MAP_SHARED.
    pub(crate) fn shared(file: &File, len: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: a new mapping, placed by the kernel.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        Self::of(base, len)
    }

    /// Zeros that children forked from now on share; of reserved huge pages whole ones.
    pub(crate) fn anonymous(len: usize, huge: Option<Huge>) -> io::Result<Self> {
        let huge = huge.map_or(0, |Huge| libc::MAP_HUGETLB | libc::MAP_HUGE_2MB);
        Self::nameless(len, libc::MAP_SHARED | huge)
    }

    /// Zeros of our own, made real by touching them only.
    pub(crate) fn private(len: usize) -> io::Result<Self> {
        Self::nameless(len, libc::MAP_PRIVATE | libc::MAP_NORESERVE)
    }

    fn nameless(len: usize, flags: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping, placed by the kernel.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        Self::of(base, len)
    }

    fn of(base: *mut libc::c_void, len: usize) -> io::Result<Self> {
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap gives no null page");
        Ok(Self { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Children forked from now on do not have these pages.
pub(crate) fn dont_fork(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: changes no byte; the range is a mapping that the caller holds.
    super::check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTFORK) })?;
    Ok(())
}

/// A core dump of this process does not have these pages.
pub(crate) fn dont_dump(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: changes no byte; the range is a mapping that the caller holds.
    super::check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTDUMP) })?;
    Ok(())
}

/// Makes every page of the range real and writable now. `Err` if memory is short: nothing faults
/// later.
pub(crate) fn populate(base: NonNull<u8>, len: usize) -> io::Result<()> {
    super::retry(|| {
        // SAFETY: keeps the contents; the range is a mapping that the caller holds.
        super::check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) })
    })?;
    Ok(())
}

/// Makes every page of the range readable now, without making it dirty.
pub(crate) fn populate_for_reading(base: NonNull<u8>, len: usize) -> io::Result<()> {
    super::retry(|| {
        // SAFETY: keeps the contents; the range is a mapping that the caller holds.
        super::check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_READ) })
    })?;
    Ok(())
}

/// True if the mapping is made of reserved huge pages: its first ordinary page can't have advice of its own.
/// Touches no page.
pub(crate) fn has_huge_pages(base: NonNull<u8>) -> bool {
    // Whether this kernel supports the advice.
    static KNOWN: LazyLock<bool> =
        LazyLock::new(|| Mapping::private(1).is_ok_and(|page| advise_first_page(page.base())));
    !advise_first_page(base) && *KNOWN
}

/// False if the advice for one page is invalid.
fn advise_first_page(base: NonNull<u8>) -> bool {
    // SAFETY: changes no byte; the range is the beginning of a mapping that the caller holds.
    let advised = unsafe { libc::madvise(base.as_ptr().cast(), 1, libc::MADV_DONTDUMP) };
    !matches!(super::check(advised), Err(error) if error.raw_os_error() == Some(libc::EINVAL))
}

/// Requests transparent huge pages.
pub(crate) fn advise_huge(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: changes no byte; the range is a mapping that the caller holds.
    super::check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) })?;
    Ok(())
}

/// Keeps every page of the range in memory for as long as it is mapped here.
pub(crate) fn lock(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: changes no byte; the range is a mapping that the caller holds.
    super::check(unsafe { libc::mlock(base.as_ptr().cast(), len) })?;
    Ok(())
}
