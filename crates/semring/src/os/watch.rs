//! Notification of names that disappear from a directory (inotify).
//!
//! A user has few instances of inotify (`fs.inotify.max_user_instances`, often 128), and closing one that has or
//! just had a watch takes some milliseconds: the kernel waits until no CPU uses it any more. So a process has
//! one instance, until it ends, and in it a watch for each directory, from its first sleep on. The events are
//! not interpreted: each sleeper that is woken checks its own directory.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::process;

/// The kernel queues this many events by default, of 16 bytes each.
const QUEUED_BYTES: libc::c_int = 16_384 * 16;

/// The instance of one process.
#[derive(Debug)]
struct Instance {
    /// A forked child inherits the descriptor, and uses one of its own.
    owner: u32,
    file: File,
    /// The number of users of each watch: the kernel returns the same watch for the same file.
    watches: Mutex<HashMap<libc::c_int, usize>>,
}

static INSTANCE: Mutex<Option<Arc<Instance>>> = Mutex::new(None);

/// A lock that a thread which does not exist in a forked child may hold: not waited for without end.
fn locked<T>(mutex: &Mutex<T>) -> io::Result<MutexGuard<'_, T>> {
    for _ in 0..10_000 {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

impl Instance {
    fn of_this_process() -> io::Result<Arc<Self>> {
        let mut instance = locked(&INSTANCE)?;
        let owner = process::id();
        match &*instance {
            Some(ours) if ours.owner == owner => Ok(ours.clone()),
            _ => {
                let new = Arc::new(Self::new(owner)?);
                *instance = Some(new.clone());
                Ok(new)
            }
        }
    }

    fn new(owner: u32) -> io::Result<Self> {
        let flags = libc::IN_NONBLOCK | libc::IN_CLOEXEC;
        // SAFETY: takes flags only.
        let number = super::check(unsafe { libc::inotify_init1(flags) })?;
        // SAFETY: a new descriptor, owned here.
        let file = unsafe { File::from_raw_fd(number) };
        Ok(Self {
            owner,
            file,
            watches: Mutex::default(),
        })
    }

    /// Discards the events before the queue overflows. (A sleeper that is just being woken by one of
    /// these events may sleep on; it is one of thousands.)
    fn drain(&self) -> io::Result<()> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: a descriptor that we hold, and a number to be written.
        let asked = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        super::check(asked)?;
        let mut events = [0; 4096];
        while bytes > QUEUED_BYTES / 2 {
            bytes -= (&self.file).read(&mut events)? as libc::c_int;
        }
        Ok(())
    }
}

/// Has something new to read whenever a name in a directory goes, or the same happens in another directory that
/// this process watches.
#[derive(Debug)]
pub(crate) struct DirectoryWatch {
    number: libc::c_int,
    instance: Arc<Instance>,
}

impl DirectoryWatch {
    /// Opens what watches of this process need, if that can be had.
    pub(crate) fn prepare() {
        let _ = Instance::of_this_process();
    }

    /// Of the names in this directory, which had this path when it was opened: the path is used where /proc
    /// is missing. (If it leads to another directory by now, events of that one wake sleepers, which then
    /// find nothing.)
    ///
    /// # Errors
    /// EMFILE, ENOSPC if the user has as many instances or watches as inotify's limits allow.
    pub(crate) fn names_in(directory: &File, path: &Path) -> io::Result<Self> {
        let instance = Instance::of_this_process()?;
        instance.drain()?;
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let by_path = !Path::new(&link).exists();
        let path = if by_path {
            path.as_os_str().as_bytes()
        } else {
            link.as_bytes()
        };
        let path = CString::new(path)?;
        let mut watches = locked(&instance.watches)?;
        let inotify = instance.file.as_raw_fd();
        // Each name once: equal events that are still in the queue are merged.
        let wanted = libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_DELETE_SELF;
        // SAFETY: a descriptor that we hold, and a string that ends in zero.
        let added = unsafe { libc::inotify_add_watch(inotify, path.as_ptr(), wanted) };
        let number = super::check(added)?;
        *watches.entry(number).or_default() += 1;
        drop(watches);
        Ok(Self { number, instance })
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.file.as_fd()
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        if self.instance.owner != process::id() {
            return; // the watch is the parent's
        }
        let Ok(mut watches) = locked(&self.instance.watches) else {
            return;
        };
        let others = watches.get_mut(&self.number).map(|count| {
            *count -= 1;
            *count
        });
        if others == Some(0) {
            watches.remove(&self.number);
            let inotify = self.instance.file.as_raw_fd();
            // SAFETY: a descriptor that is open, and a number.
            unsafe { libc::inotify_rm_watch(inotify, self.number) };
        }
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::poll::{Interest, Poller};
    use std::path::PathBuf;
    use std::time::Duration;

    /// A directory with one file.
    fn fresh(name: &str) -> (PathBuf, File) {
        let name = format!("semring-watch-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        File::create(path.join("file")).unwrap();
        let directory = File::open(&path).unwrap();
        (path, directory)
    }

    #[test]
    fn all_watchers_see_a_file_lose_its_name() {
        let (path, file) = fresh("reported");
        let pollers = [(); 3].map(|()| {
            let (poller, watch) = (
                Poller::new().unwrap(),
                DirectoryWatch::names_in(&file, &path).unwrap(),
            );
            poller.add(watch.as_fd(), Interest::News).unwrap();
            (poller, watch)
        });
        let [first, second, third] = pollers;
        // One that goes takes nothing from the others.
        drop(third);
        let woken = |poller: &Poller| poller.wait(Some(Duration::from_secs(60))).unwrap();
        std::thread::scope(|scope| {
            let waiting = [&first.0, &second.0].map(|poller| scope.spawn(|| woken(poller)));
            std::fs::remove_dir_all(&path).unwrap();
            for thread in waiting {
                assert!(thread.join().unwrap());
            }
        });
    }

    #[test]
    fn however_many_files_went_the_next_one_is_told_of() {
        for round in 0..3 * QUEUED_BYTES / 16 / 2 {
            let (path, file) = fresh("many");
            let watch = DirectoryWatch::names_in(&file, &path).unwrap();
            std::fs::remove_dir_all(&path).unwrap();
            if round % 10_000 == 0 {
                let poller = Poller::new().unwrap();
                poller.add(watch.as_fd(), Interest::News).unwrap();
                assert!(poller.wait(Some(Duration::from_secs(60))).unwrap());
            }
        }
    }
}
