//! What a run makes in the kernel and on disk, so that it is gone at the end, however that comes.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sysv_ipc::msg::Queue;
use sysv_ipc::sem::SemSet;
use sysv_ipc::shm::Shm;

/// Something to remove.
#[derive(Clone, Debug)]
enum Item {
    Ring(String),
    File(PathBuf),
    PosixQueue(String),
    Queue(Queue),
    Semaphores(SemSet),
    Segment(Shm),
}

static ITEMS: Mutex<Vec<(u64, Item)>> = Mutex::new(Vec::new());
static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Removes its object when it is dropped.
#[derive(Debug)]
pub(crate) struct Trash(u64);

impl Trash {
    fn new(item: Item) -> Self {
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        items().push((id, item));
        Self(id)
    }

    pub(crate) fn ring(address: &str) -> Self {
        Self::new(Item::Ring(address.to_string()))
    }

    pub(crate) fn file(path: PathBuf) -> Self {
        Self::new(Item::File(path))
    }

    pub(crate) fn posix_queue(name: String) -> Self {
        Self::new(Item::PosixQueue(name))
    }

    pub(crate) fn queue(queue: Queue) -> Self {
        Self::new(Item::Queue(queue))
    }

    pub(crate) fn semaphores(set: SemSet) -> Self {
        Self::new(Item::Semaphores(set))
    }

    pub(crate) fn segment(segment: Shm) -> Self {
        Self::new(Item::Segment(segment))
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

/// Removes everything that a run has made so far: for a signal, before the process ends.
pub fn sweep() {
    for (_, item) in items().drain(..) {
        remove(&item);
    }
}
