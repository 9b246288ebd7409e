//! Removes the objects that a run makes in the kernel and on disk: when their guard is dropped, or when a
//! signal ends the process.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sysv_ipc::msg::Queue;
use sysv_ipc::sem::SemSet;
use sysv_ipc::shm::Shm;

use crate::error::Result;

/// Something to remove.
#[derive(Clone, Debug)]
enum Item {
    Ring(String),
    File(PathBuf),
    PathPrefixes(Vec<PathBuf>),
    PosixQueue(String),
    Queue(Queue),
    Semaphores(SemSet),
    Segment(Shm),
}

static ITEMS: Mutex<Vec<(u64, Item)>> = Mutex::new(Vec::new());
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Removes its object when it is dropped.
#[derive(Debug)]
pub struct CleanupGuard(u64);

impl CleanupGuard {
    /// Makes an object, and registers it for removal before [`sweep`] can run in between.
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

    /// Makes a file with this path.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn file(path: PathBuf, make: impl FnOnce() -> Result<()>) -> Result<Self> {
        Self::make(make, |()| Item::File(path)).map(|((), trash)| trash)
    }

    /// For objects that another process makes later: removes every file and folder whose path begins like one
    /// of these.
    #[must_use]
    pub fn path_prefixes(paths: Vec<PathBuf>) -> Self {
        let mut items = items();
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        items.push((id, Item::PathPrefixes(paths)));
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

impl Drop for CleanupGuard {
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
    // Errors are ignored: the object may be gone already.
    match item {
        Item::Ring(address) => {
            if let Ok(address) = address.parse::<semring::Address>() {
                let _ = semring::force_remove(&address);
            }
        }
        Item::File(path) => {
            let _ = std::fs::remove_file(path);
        }
        Item::PathPrefixes(paths) => {
            for path in paths {
                remove_prefix(path);
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

fn remove_prefix(path: &Path) {
    let (Some(folder), Some(prefix)) = (path.parent(), path.file_name()) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            let path = entry.path();
            // One of the two calls fits the kind of the entry.
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Removes everything that a run has made so far, and blocks threads that make more. Call it when a signal
/// arrives, right before the process ends.
pub fn sweep() {
    let mut items = items();
    for (_, item) in items.drain(..) {
        remove(&item);
    }
    // Never unlocked: a thread that is about to make an object waits until the process ends.
    std::mem::forget(items);
}
