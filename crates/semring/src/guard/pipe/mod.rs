//! The guard of pipes and locks of open file descriptions: for systems where System V semaphores
//! can't work, and for programs that need a descriptor to poll.
//!
//! ```text
//! bytes of `lock`            held by
//! 0 REMOVAL    shared        every holder of a role; alone: a remover, so no role is held
//! 1 FORCED     alone         a remover of a ring that is in use
//! 2 CREATION   alone         the creator of the pipes (`pipe_files`)
//! 3 USERS      shared        users of a ring that ends with its users
//! 4 CONSUMER   alone         the consumer, or a process that is attaching
//! 8+i LANES    alone         lane i's producer, or a process that is attaching
//! ```
//! A wake-up FIFO holds tokens, one byte each. A *liveness FIFO* is kept open for writing, and locked, by
//! the holder of a role; peers that may wait for the holder listen to it. When the process ends, for
//! whatever reason, the kernel closes all of its files: after its memory is gone (so it publishes nothing
//! more), and in any order. Why the order does not matter:
//!
//! * **The liveness lock is released before the FIFO hangs up**: the kernel does both while it closes
//!   one open file, in this order. "Gone" means that the lock is free. So a peer that is woken by the
//!   hang-up finds the lock free, and a peer that finds it free need not be woken any more.
//! * **A successor posts before it opens the liveness FIFO**: as a second writer it keeps the FIFO from
//!   hanging up for its predecessor. By then it holds the slot's byte, which the predecessor has lost, so
//!   everything that the predecessor published is visible, and a peer that is woken finds it. If the
//!   predecessor still holds its liveness lock, the successor is refused, and tries again. If the
//!   successor is stopped or killed in between, no peer is asleep that has a message to find.
//! * **REMOVAL comes last** in taking a slot: a remover that holds it alone finds no liveness lock held, or
//!   gives up. A process that detaches gives REMOVAL back first. At a death it may go last, so a remover
//!   that can't get it while no process is alive tries again.
//! * **A remover has a liveness FIFO, too**: it opens `remover`, marks `lock`, and closes `remover`, or is
//!   killed: both hang up for every sleeper. So no sleeper stays asleep, wherever the remover is killed. If
//!   the directory is removed by other means, there is no hang-up; inotify wakes the sleepers then, within
//!   its limits.
//!
//! * **A process that detaches releases its locks explicitly and posts**, because a program that another
//!   thread of the process is just starting has copies of the descriptors until its exec, and so keeps the
//!   FIFOs from hanging up. (A process that is killed in such a moment counts as dead after that exec.)
//!
//! A wait is one `epoll_wait` on the wake-up FIFO and the liveness FIFOs of the peers; each hang-up is
//! reported once. All of it can be polled: see [`Wakeups::poller`].

pub(crate) mod abandoned;
pub(crate) mod create;
pub(crate) mod directory;
#[cfg(all(test, not(semring_loom)))]
mod model_tests;
mod removal;
mod roles;
#[cfg(all(test, not(semring_loom)))]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use self::directory::{NoPipeFiles, Pipe, PipeFiles, USERS};
use self::removal::Removing;
use self::roles::Taken;
use super::at_exit::AtExit;
use super::{Guard, GuardError, Result, Role, Waited, WakeTarget, Wakeups};
use crate::guard::timeouts::LOCK_CHECK_INTERVAL;
use crate::os::fifo::{self, End};
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte, would_be_refused};
use crate::os::poll::{Interest, Poller};
use crate::os::watch::DirectoryWatch;
use crate::os::{clock, errno};
use crate::sync::AtomicU64;

fn os(call: &'static str) -> impl FnOnce(io::Error) -> GuardError {
    move |error| GuardError::Os {
        call,
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    }
}

/// The pipes of one ring.
#[derive(Debug)]
pub(crate) struct PipeGuard {
    pipe_files: Arc<PipeFiles>,
    lanes: usize,
    /// The slots held by this process: the lanes', then the consumer's.
    roles: Mutex<Vec<Option<Arc<Taken>>>>,
    /// Wake-up FIFOs, open for posting: the consumer's, then the lanes'.
    wakeups: Vec<OnceLock<File>>,
    /// Liveness FIFOs, open for listening: the remover's, the consumer's, then the producers'.
    lives: Vec<OnceLock<File>>,
    /// Reports that the directory was removed by other means than a hang-up.
    watch: OnceLock<Option<DirectoryWatch>>,
    removal: Mutex<Option<Removing>>,
    /// Removes this process from the users of a ring that ends with them.
    user: Option<AtExit>,
    /// The producer that was alive at the last check, and is checked first the next time.
    alive: AtomicU64,
}

impl PipeGuard {
    fn new(pipe_files: PipeFiles, lanes: usize) -> Self {
        Self {
            pipe_files: Arc::new(pipe_files),
            lanes,
            roles: Mutex::new((0..=lanes).map(|_| None).collect()),
            wakeups: (0..=lanes).map(|_| OnceLock::new()).collect(),
            lives: (0..lanes + 2).map(|_| OnceLock::new()).collect(),
            watch: OnceLock::new(),
            removal: Mutex::new(None),
            user: None,
            alive: AtomicU64::new(0),
        }
    }

    /// Opens the pipes in a directory, which must belong to this user.
    pub(crate) fn open(
        path: &Path,
        lanes: usize,
        owner: u32,
    ) -> std::result::Result<Self, NoPipeFiles> {
        PipeFiles::open(path, lanes, owner).map(|pipe_files| Self::new(pipe_files, lanes))
    }

    fn check(&self) -> Result<()> {
        if self.pipe_files.is_removed() {
            Err(GuardError::Removed)
        } else {
            Ok(())
        }
    }

    /// Converts an error of a call with a name: a missing name means that the guard is gone.
    fn failed(&self, call: &'static str) -> impl FnOnce(io::Error) -> GuardError {
        move |error| {
            // Half of it is gone: another process is just removing it, file by file.
            if error.kind() == io::ErrorKind::NotFound || self.pipe_files.is_removed() {
                GuardError::Removed
            } else {
                os(call)(error)
            }
        }
    }

    fn own_lock(&self) -> Result<Private> {
        self.pipe_files.own_lock().map_err(self.failed("openat"))
    }

    /// The file in a cell, opened when it is needed first.
    fn opened<'a>(&self, cell: &'a OnceLock<File>, pipe: Pipe, end: End) -> Result<&'a File> {
        if let Some(file) = cell.get() {
            return Ok(file);
        }
        let file = self
            .pipe_files
            .pipe(pipe, end)
            .map_err(self.failed("openat"))?;
        Ok(cell.get_or_init(|| file))
    }

    fn wakeup(&self, wakeup: WakeTarget) -> Result<&File> {
        match wakeup {
            WakeTarget::Consumer => self.opened(&self.wakeups[0], Pipe::Messages, End::Both),
            WakeTarget::Producer { lane } => {
                self.opened(&self.wakeups[1 + lane], Pipe::Room(lane), End::Both)
            }
        }
    }

    fn remover(&self) -> Result<&File> {
        self.opened(&self.lives[0], Pipe::Remover, End::Read)
    }

    /// To be called before each sleep: adds the directory to the poller. Not earlier, because a process that
    /// has ever watched one takes milliseconds to end, and most short-lived processes never sleep.
    fn watch(&self, taken: &Taken) -> Result<()> {
        if taken.watching.is_completed() {
            return Ok(());
        }
        taken.watching.call_once(|| {
            let watch = self.watch.get_or_init(|| self.pipe_files.watch());
            if let Some(watch) = watch {
                // If it fails (as where there is no watch at all), a removal by other means is seen
                // when another event wakes the sleeper.
                let _ = taken.poller.add(watch.as_fd(), Interest::News);
            }
        });
        // A removal before this point is not reported by the watch.
        self.check()
    }

    fn ring(&self, wakeup: WakeTarget) -> Result<()> {
        fifo::put_token(self.wakeup(wakeup)?).map_err(os("write"))
    }

    /// True if another process's lock is in the way.
    fn is_locked(&self, byte: u64, against: Hold) -> Result<bool> {
        would_be_refused(self.pipe_files.lock(), byte, against).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    fn hold(lock: &Private, byte: u64, how: Hold) -> Result<bool> {
        hold_byte(lock.file(), byte, how).map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Repeats a check until it is true; false when the timeout has passed.
    fn until(timeout: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
        let end = clock::now() + timeout;
        loop {
            if is_so()? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Ok(false);
            }
            clock::nap(left.min(LOCK_CHECK_INTERVAL));
        }
    }
}

impl Wakeups for PipeGuard {
    fn post(&self, wakeup: WakeTarget) -> Result<()> {
        // Also in a ring that is gone: a process that polls must get the error.
        let there = self.check();
        self.ring(wakeup).and(there)
    }

    fn wait(&self, wakeup: WakeTarget, timeout: Option<Duration>) -> Result<Waited> {
        let role = match wakeup {
            WakeTarget::Consumer => Role::Consumer,
            WakeTarget::Producer { lane } => Role::Producer { lane },
        };
        let taken = self.held(role)?;
        self.watch(&taken)?;
        match taken.poller.wait(timeout) {
            Ok(true) => {
                // Perhaps the ring was removed: then the next check reports it, which comes before the next
                // sleep; or a message comes first, and is received first.
                fifo::take_tokens(self.wakeup(wakeup)?).map_err(os("read"))?;
                Ok(Waited::Token)
            }
            Ok(false) => Ok(Waited::TimedOut),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Waited::Signal),
            Err(error) => Err(os("epoll_wait")(error)),
        }
    }

    fn drain(&self, wakeup: WakeTarget) -> Result<()> {
        let role = match wakeup {
            WakeTarget::Consumer => Role::Consumer,
            WakeTarget::Producer { lane } => Role::Producer { lane },
        };
        fifo::take_tokens(self.wakeup(wakeup)?).map_err(os("read"))?;
        match self.held(role)?.poller.wait(Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(os("epoll_wait")(error))
            }
            _ => Ok(()),
        }
    }

    fn poller(&self, role: Role) -> Option<Arc<Poller>> {
        let taken = self.held(role).ok()?;
        // A process that will sleep on it must first check whether the ring is still there.
        let _ = self.watch(&taken);
        Some(taken.poller.clone())
    }
}

impl Guard for PipeGuard {
    fn hold(&mut self) -> Result<()> {
        let lock = self.own_lock()?;
        // A process that removes the guard holds it alone.
        if !Self::hold(&lock, USERS, Hold::Shared)? {
            clock::nap(LOCK_CHECK_INTERVAL);
            return Err(GuardError::Removed);
        }
        self.check()?;
        let (pipe_files, lanes) = (self.pipe_files.clone(), self.lanes);
        self.user = Some(AtExit::register(move || {
            leave_users(&pipe_files, lanes, &lock)
        }));
        Ok(())
    }

    fn reopen(&self) -> Option<Box<dyn Guard>> {
        let pipe_files = self.pipe_files.reopen().ok()?;
        Some(Box::new(Self::new(pipe_files, self.lanes)))
    }
}

impl Drop for PipeGuard {
    fn drop(&mut self) {
        if let Some(user) = self.user.take() {
            user.make_now();
        }
    }
}

/// Gives up the shared lock on USERS. The last user removes the pipes: no other process has the
/// ring open.
fn leave_users(pipe_files: &PipeFiles, lanes: usize, lock: &Private) {
    // If two leave at the same time while both share the lock, neither would get it alone.
    if PipeGuard::hold(lock, USERS, Hold::Not).is_ok()
        && matches!(PipeGuard::hold(lock, USERS, Hold::Alone), Ok(true))
        && directory::mark_removed(lock.file()).is_ok()
    {
        let _ = pipe_files.clear(lanes);
    }
}
