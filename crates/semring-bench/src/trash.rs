//! What a run makes in the kernel and on disk, so that it is gone at the end, however that comes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sysv_ipc::msg::Queue;
use sysv_ipc::sem::SemSet;
use sysv_ipc::shm::Shm;

use crate::Result;

/// Something to remove.
#[derive(Clone, Debug)]
enum Item {
    Ring(String),
    File(PathBuf),
    Beginnings(Vec<PathBuf>),
    PosixQueue(String),
    Queue(Queue),
    Semaphores(SemSet),
    Segment(Shm),
}

static ITEMS: Mutex<Vec<(u64, Item)>> = Mutex::new(Vec::new());
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Removes its object when it is dropped.
#[derive(Debug)]
pub struct Trash(u64);

impl Trash {
    /// Makes something, and notes it for removal before a signal can come in between.
    fn make<T>(
        make: impl FnOnce() -> Result<T>,
        item: impl FnOnce(&T) -> Item,
    ) -> Result<(T, Self)> {
        let mut items = items();
        let made = make()?;
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        items.push((id, item(&made)));
        Ok((made, Self(id)))
    }

    pub(crate) fn ring<T>(address: &str, make: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        Self::make(make, |_| Item::Ring(address.to_string()))
    }

    /// Makes a file of this path.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn file(path: PathBuf, make: impl FnOnce() -> Result<()>) -> Result<Self> {
        Self::make(make, |()| Item::File(path)).map(|((), trash)| trash)
    }

    /// Everything whose path begins so, folders with all that is in them: for what is made later, by others.
    #[must_use]
    pub fn beginning_with(paths: Vec<PathBuf>) -> Self {
        let mut items = items();
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        items.push((id, Item::Beginnings(paths)));
        Self(id)
    }

    pub(crate) fn posix_queue<T>(
        name: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Self)> {
        Self::make(make, |_| Item::PosixQueue(name.to_string()))
    }

    pub(crate) fn queue(make: impl FnOnce() -> Result<Queue>) -> Result<(Queue, Self)> {
        Self::make(make, |queue| Item::Queue(*queue))
    }

    pub(crate) fn semaphores(make: impl FnOnce() -> Result<SemSet>) -> Result<(SemSet, Self)> {
        Self::make(make, |set| Item::Semaphores(*set))
    }

    pub(crate) fn segment(make: impl FnOnce() -> Result<Shm>) -> Result<(Shm, Self)> {
        Self::make(make, |segment| Item::Segment(*segment))
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        let mut items = items();
        if let Some(index) = items.iter().position(|(id, _)| *id == self.0) {
            remove(&items.swap_remove(index).1);
        }
    }
}

fn items() -> std::sync::MutexGuard<'static, Vec<(u64, Item)>> {
    ITEMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(item: &Item) {
    // What is gone already needs no removal.
    match item {
        Item::Ring(address) => {
            if let Ok(address) = address.parse() {
                let _ = semring::remove(&address, true);
            }
        }
        Item::File(path) => {
            let _ = std::fs::remove_file(path);
        }
        Item::Beginnings(paths) => {
            for path in paths {
                remove_beginning(path);
            }
        }
        Item::PosixQueue(name) => {
            let _ = nix::mqueue::mq_unlink(name.as_str());
        }
        Item::Queue(queue) => {
            let _ = queue.remove();
        }
        Item::Semaphores(set) => {
            let _ = set.remove();
        }
        Item::Segment(segment) => {
            let _ = segment.remove();
        }
    }
}

fn remove_beginning(path: &Path) {
    let (Some(folder), Some(beginning)) = (path.parent(), path.file_name()) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(beginning.as_bytes()) {
            let path = entry.path();
            // Either a folder or not.
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Removes everything that a run has made so far, and keeps it from making more: for a signal, right before
/// the process ends.
pub fn sweep() {
    let mut items = items();
    for (_, item) in items.drain(..) {
        remove(&item);
    }
    // Locked for good: who is about to make something waits for the end.
    std::mem::forget(items);
}
