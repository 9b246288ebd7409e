//! Removes from a forked child what belongs to its parent alone: descriptors, the pages of rings,
//! undo values.
//!
//! A process counts as gone when the last descriptor of its locks and pipes is closed. So a child that
//! inherits them makes its dead parent seem alive. `O_CLOEXEC` helps for children that exec. For the others
//! a handler of `pthread_atfork` replaces each such descriptor by one of the null device: the numbers stay
//! in use, so that code in the child that closes them closes nothing else. A child made by a bare `clone(2)`
//! call is not covered, and neither is one that is about to exec (`posix_spawn`): until then it keeps pipes
//! from hanging up, and locks held unless they are [released](Private::release).
//!
//! The same handler marks each [mapping state](super::mapping state) as a child's, and unmaps the ring's pages where
//! the kernel does not do it. The kernel is used for both first (that also covers children of a bare
//! `clone`), but gVisor and user-mode emulators refuse it, or only pretend to do it.

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Once;

use super::lock::release;
use super::undo::Owed;
use crate::sync::signals::SignalWord;

/// A descriptor of this process only.
#[derive(Debug)]
pub(crate) struct Private {
    file: Option<File>,
    /// The process whose locks it holds.
    owner: u32,
}

/// The data of the handlers, under a lock that is held while a process forks.
struct Registry {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    numbers: UnsafeCell<Vec<RawFd>>,
    words: UnsafeCell<Vec<Marked>>,
    owed: UnsafeCell<Owed>,
    /// The replacement for descriptors, as long as there is one.
    null: UnsafeCell<Option<OwnedFd>>,
}

/// A mapping state, and the pages that a child does not keep.
struct Marked {
    /// The address of its word. The page is never unmapped while it stands here.
    word: usize,
    /// Start and length.
    pages: Option<(usize, usize)>,
}

// SAFETY: the cells are touched with the lock held only (in a child: by its only thread).
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry {
    lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    numbers: UnsafeCell::new(Vec::new()),
    words: UnsafeCell::new(Vec::new()),
    owed: UnsafeCell::new(Owed::NOTHING),
    null: UnsafeCell::new(None),
};

extern "C" fn lock() {
    // SAFETY: a static mutex, initialised.
    unsafe { libc::pthread_mutex_lock(REGISTRY.lock.get()) };
}

extern "C" fn unlock() {
    // SAFETY: this thread locked it; in a child, the thread that it is a copy of.
    unsafe { libc::pthread_mutex_unlock(REGISTRY.lock.get()) };
}

extern "C" fn in_child() {
    // SAFETY: the lock was taken before the fork, and a child has one thread.
    let null = unsafe { &*REGISTRY.null.get() };
    // SAFETY: as above.
    let numbers = unsafe { &mut *REGISTRY.numbers.get() };
    if let Some(null) = null {
        for number in numbers.iter() {
            // SAFETY: two open descriptors; calls nothing but the kernel.
            unsafe { libc::dup3(null.as_raw_fd(), *number, libc::O_CLOEXEC) };
        }
    }
    // Only forgets them: frees nothing, as nothing else here does.
    numbers.clear();
    // SAFETY: as above.
    let words = unsafe { &mut *REGISTRY.words.get() };
    for Marked { word, pages } in words.iter() {
        let word = std::ptr::with_exposed_provenance::<SignalWord>(*word);
        // SAFETY: a mapping state's page is mapped for as long as it is in the list.
        unsafe { (*word).set_forked() };
        if let Some((start, len)) = *pages {
            let start = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: a mapping of the parent's, of which this child has a copy that is not used: the mapping state
            // is marked.
            unsafe { libc::munmap(start, len) };
        }
    }
    words.clear();
    // SAFETY: as above.
    let owed = unsafe { &mut *REGISTRY.owed.get() };
    *owed = Owed::NOTHING;
    unlock();
}

/// A descriptor that holds nothing and is not shared (a system may lack the null device).
fn nothing() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let number = super::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: a new descriptor, owned here.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes the lock, with the handlers in place.
fn enter() {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: three functions that live as long as the program.
        unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(in_child)) };
    });
    lock();
}

/// Changes the list with the lock held.
fn with_words<R>(action: impl FnOnce(&mut Vec<Marked>) -> R) -> R {
    enter();
    // SAFETY: the lock is held, and nothing else has a reference.
    let result = action(unsafe { &mut *REGISTRY.words.get() });
    unlock();
    result
}

/// Changes the record of this process's undo values, with the lock held.
pub(super) fn with_owed<R>(action: impl FnOnce(&mut Owed) -> R) -> R {
    enter();
    // SAFETY: the lock is held, and nothing else has a reference.
    let result = action(unsafe { &mut *REGISTRY.owed.get() });
    unlock();
    result
}

/// Has a forked child find its copy of a mapping state's word changed.
pub(super) fn mark_in_children(word: usize) {
    with_words(|words| words.push(Marked { word, pages: None }));
}

/// Has a forked child not keep these pages (start and length), which go with a mapping state that was given to
/// [`mark_in_children`]; with `None`, no longer so.
pub(super) fn unmap_in_children(word: usize, pages: Option<(usize, usize)>) {
    with_words(|words| {
        if let Some(entry) = words.iter_mut().find(|entry| entry.word == word) {
            entry.pages = pages;
        }
    });
}

/// Takes a mapping state out of the list.
pub(super) fn forget(word: usize) {
    with_words(|words| {
        if let Some(at) = words.iter().position(|entry| entry.word == word) {
            words.swap_remove(at);
        }
    });
}

/// Does something to the descriptors with the lock held.
fn locked<R>(action: impl FnOnce(&mut Vec<RawFd>, &mut Option<OwnedFd>) -> R) -> R {
    enter();
    // SAFETY: the lock is held, and nothing else has a reference.
    let numbers = unsafe { &mut *REGISTRY.numbers.get() };
    // SAFETY: as above.
    let null = unsafe { &mut *REGISTRY.null.get() };
    let result = action(numbers, null);
    unlock();
    result
}

impl Private {
    /// Opens a file that no child is to have: no fork comes between.
    pub(crate) fn open(open: impl FnOnce() -> io::Result<File>) -> io::Result<Self> {
        locked(|numbers, null| {
            if null.is_none() {
                *null = Some(nothing()?);
            }
            let file = open()?;
            numbers.push(file.as_raw_fd());
            let owner = super::process::id();
            Ok(Self {
                file: Some(file),
                owner,
            })
        })
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().expect("it is there until drop")
    }

    /// Releases the locks that it holds, even if another process has a copy of the descriptor just now. Not
    /// in a child, which may have a copy (a bare `clone` calls no handlers): the locks are the parent's.
    pub(crate) fn release(&self) {
        if self.owner == super::process::id() {
            let _ = release(self.file());
        }
    }
}

impl AsFd for Private {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file().as_fd()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.release();
        locked(|numbers, null| {
            let number = self.file().as_raw_fd();
            // In a child it is one of nothing by now, and not in the list any more.
            if let Some(at) = numbers.iter().position(|&other| other == number) {
                numbers.swap_remove(at);
            }
            self.file = None;
            if numbers.is_empty() {
                *null = None;
            }
        });
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::fifo::{self, End};
    use crate::os::poll::{Interest, Poller};
    use std::time::Duration;

    #[test]
    fn a_forked_child_does_not_keep_a_pipe_open() {
        let pipe = fifo::anonymous().unwrap();
        let reader = fifo::reopen(&pipe, End::Read).unwrap();
        let poller = Poller::new().unwrap();
        poller.add(reader.as_fd(), Interest::HangUp).unwrap();
        let writer = Private::open(|| fifo::reopen(&pipe, End::Both)).unwrap();
        // SAFETY: the child makes only calls that are safe after fork: pause is a bare system call.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            loop {
                // SAFETY: waits for the signal that ends it.
                unsafe { libc::pause() };
            }
        }
        drop(writer);
        // With the child's copy this would be the time-out.
        let woken = poller.wait(Some(Duration::from_secs(60))).unwrap();
        // SAFETY: this process's child, not reaped yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: our own child; status is ours.
        unsafe { libc::waitpid(pid, &mut status, 0) };
        assert!(woken);
    }
}
