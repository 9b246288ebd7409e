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
//! reported once. All of it can be polled: see [`Guard::poller`].

mod removal;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use self::removal::{Remover, Removing};
use super::at_exit::AtExit;
use super::pipe_files::{
    self, CREATION, FORCED, Failure, NewPipeFiles, NoPipeFiles, Owner, Pipe, PipeFiles, REMOVAL,
    USERS,
};
use super::{
    Claim, Guard, GuardError, RemovalLock, Result, Role, Roles, Waited, WakeTarget, Wakeups,
};
use crate::os::fifo::{self, End};
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte, would_be_refused};
use crate::os::poll::{Interest, Poller};
use crate::os::watch::DirectoryWatch;
use crate::os::{clock, errno, process};
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering};

const CONSUMER: u64 = 4;
const LANES: u64 = 8;

/// Locks can't be waited for with a timeout: they are tried again at this interval.
const RETRY_INTERVAL: Duration = Duration::from_micros(200);

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

/// A slot held by this process.
#[derive(Debug)]
struct Taken {
    lock: Private,
    /// Dropped first.
    life: Mutex<Option<Private>>,
    /// The poller listens to it, until the slot is given up.
    _wakeup: File,
    poller: Arc<Poller>,
    /// From its first sleep on the poller listens to the directory, too.
    watching: Once,
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

    fn life(&self, role: Role) -> Result<&File> {
        match role {
            Role::Consumer => self.opened(&self.lives[1], Pipe::Consumer, End::Read),
            Role::Producer { lane } => {
                self.opened(&self.lives[2 + lane], Pipe::Producer(lane), End::Read)
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

    const fn index(&self, role: Role) -> usize {
        match role {
            Role::Consumer => self.lanes,
            Role::Producer { lane } => lane,
        }
    }

    const fn byte(role: Role) -> u64 {
        match role {
            Role::Consumer => CONSUMER,
            Role::Producer { lane } => LANES + lane as u64,
        }
    }

    fn roles(&self) -> MutexGuard<'_, Vec<Option<Arc<Taken>>>> {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, role: Role) -> Result<Arc<Taken>> {
        self.roles()[self.index(role)]
            .clone()
            .ok_or(GuardError::Removed)
    }

    /// True if another process's lock is in the way.
    fn is_locked(&self, byte: u64, against: Hold) -> Result<bool> {
        would_be_refused(self.pipe_files.lock(), byte, against).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    /// True if the holder of a slot is alive, and has completed its attach.
    fn lives(&self, role: Role) -> Result<bool> {
        // Shared: the lock of a process that may only read must not count.
        would_be_refused(self.life(role)?, 0, Hold::Shared).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    fn is_being_removed(&self) -> Result<bool> {
        Ok(self.is_locked(REMOVAL, Hold::Shared)? || self.is_locked(FORCED, Hold::Shared)?)
    }

    fn hold(lock: &Private, byte: u64, how: Hold) -> Result<bool> {
        hold_byte(lock.file(), byte, how).map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Wakes all processes that may wait for the holder of a slot.
    fn ring_others(&self, role: Role) -> Result<()> {
        match role {
            Role::Producer { .. } => self.ring(WakeTarget::Consumer),
            Role::Consumer => {
                (0..self.lanes).try_for_each(|lane| self.ring(WakeTarget::Producer { lane }))
            }
        }
    }

    /// The descriptors on which the holder of a slot sleeps: its wake-up FIFO, and the liveness
    /// FIFOs of its peers.
    fn listen(&self, role: Role) -> Result<(Poller, File)> {
        let poller = Poller::new().map_err(os("epoll_create1"))?;
        let add =
            |file: &dyn AsFd, interest| poller.add(file.as_fd(), interest).map_err(os("epoll_ctl"));
        let pipe = match own_wakeup(role) {
            WakeTarget::Consumer => Pipe::Messages,
            WakeTarget::Producer { lane } => Pipe::Room(lane),
        };
        let wakeup = self
            .pipe_files
            .pipe(pipe, End::Both)
            .map_err(self.failed("openat"))?;
        add(&wakeup, Interest::Tokens)?;
        add(self.remover()?, Interest::HangUp)?;
        match role {
            Role::Producer { .. } => add(self.life(Role::Consumer)?, Interest::HangUp)?,
            Role::Consumer => {
                for lane in 0..self.lanes {
                    add(self.life(Role::Producer { lane })?, Interest::HangUp)?;
                }
            }
        }
        Ok((poller, wakeup))
    }

    /// Whether another process is attached or attaching, with REMOVAL held alone.
    fn is_any_alive(&self, as_consumer: bool) -> Result<bool> {
        Ok(!self.producers_gone()? || (!as_consumer && self.lives(Role::Consumer)?))
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
            clock::nap(left.min(RETRY_INTERVAL));
        }
    }
}

/// The wake-up FIFO on which the holder of a slot sleeps.
const fn own_wakeup(role: Role) -> WakeTarget {
    match role {
        Role::Consumer => WakeTarget::Consumer,
        Role::Producer { lane } => WakeTarget::Producer { lane },
    }
}

impl Roles for PipeGuard {
    // Each refusal closes what was opened before it. If this process is killed at any line, the
    // kernel does.
    fn claim(&self, role: Role) -> Result<Claim> {
        self.check()?;
        if self.is_being_removed()? {
            return Ok(Claim::BeingRemoved);
        }
        // Before the liveness FIFO, because of the numbers of descriptors: when a process ends, the kernel
        // closes the last ones first, and inotify, once there is a watch, takes it milliseconds.
        self.pipe_files.prepare_watch();
        let lock = self.own_lock()?;
        if !Self::hold(&lock, Self::byte(role), Hold::Alone)? {
            return Ok(Claim::Taken);
        }
        // On behalf of the predecessor, whose hang-up will be hidden by the next step.
        if !mutant::is(Mutant::PipeRingsAfterLife) {
            self.ring_others(role)?;
        }
        let pipe = match role {
            Role::Consumer => Pipe::Consumer,
            Role::Producer { lane } => Pipe::Producer(lane),
        };
        let life = Private::open(|| self.pipe_files.pipe(pipe, End::Both))
            .map_err(self.failed("openat"))?;
        if mutant::is(Mutant::PipeRingsAfterLife) {
            self.ring_others(role)?;
        }
        if !Self::hold(&life, 0, Hold::Alone)? {
            return Ok(Claim::Taken);
        }
        // A process that finds the slot taken checks whether its holder is dying.
        let _ = pipe_files::record_holder(&lock, self.index(role), process::id());
        let (poller, wakeup) = self.listen(role)?;
        // With this, all files that the role may need are open: a change of the user id does not
        // matter any more.
        self.wakeup(own_wakeup(role))?;
        if !Self::hold(&lock, REMOVAL, Hold::Shared)? || self.is_locked(FORCED, Hold::Shared)? {
            return Ok(Claim::BeingRemoved);
        }
        self.check()?;
        self.roles()[self.index(role)] = Some(Arc::new(Taken {
            lock,
            life: Mutex::new(Some(life)),
            _wakeup: wakeup,
            poller: Arc::new(poller),
            watching: Once::new(),
        }));
        Ok(Claim::Granted)
    }

    fn leave(&self, role: Role) -> Result<()> {
        let Some(taken) = self.roles()[self.index(role)].take() else {
            return Ok(());
        };
        let _ = pipe_files::record_holder(&taken.lock, self.index(role), 0);
        // A process that sees this one gone may remove the ring at once.
        let _ = Self::hold(&taken.lock, REMOVAL, Hold::Not);
        // The liveness lock before the byte: a process that takes the byte next must find the lock
        // free.
        let life = taken
            .life
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(life) = life {
            life.release();
            // The hang-up wakes the waiting peers, unless a copy of the descriptor exists: a program that
            // another thread is just starting has one until its exec.
            if !mutant::is(Mutant::NoTokenAtPipeLeave) {
                let _ = self.ring_others(role);
            }
        }
        taken.lock.release();
        // A removal that this process began as the consumer ends here.
        let mut removing = self.removing();
        let ours = |removing: &Removing| matches!(&removing.by, Remover::Consumer(by) if Arc::ptr_eq(by, &taken));
        if removing.as_ref().is_some_and(ours) {
            *removing = None;
        }
        Ok(())
    }

    fn await_free(&self, role: Role, timeout: Duration) -> Result<bool> {
        Self::until(timeout, || self.is_taken(role).map(|taken| !taken))
    }

    fn is_taken(&self, role: Role) -> Result<bool> {
        self.check()?;
        Ok(self.is_locked(Self::byte(role), Hold::Shared)? || self.lives(role)?)
    }

    fn last_holder(&self, role: Role) -> Result<Option<u32>> {
        let noted = self.pipe_files.recorded_holder(self.index(role));
        // 0: the holder has not recorded itself yet, or has just detached.
        noted.map(Some).map_err(os("pread"))
    }

    fn producers_gone(&self) -> Result<bool> {
        self.check()?;
        let first = self.alive.load(Ordering::Relaxed) as usize;
        for step in 0..self.lanes {
            let lane = (first + step) % self.lanes;
            if self.lives(Role::Producer { lane })? {
                self.alive.store(lane as u64, Ordering::Relaxed);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn producers(&self) -> Result<usize> {
        let mut count = 0;
        for lane in 0..self.lanes {
            count += usize::from(self.is_taken(Role::Producer { lane })?);
        }
        Ok(count)
    }

    fn consumer_gone(&self) -> Result<bool> {
        self.check()?;
        self.lives(Role::Consumer).map(|lives| !lives)
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

impl RemovalLock for PipeGuard {
    fn await_no_removal(&self, timeout: Duration) -> Result<bool> {
        Self::until(timeout, || {
            self.check()?;
            self.is_being_removed().map(|removal| !removal)
        })
    }

    fn begin_removal(&self, as_consumer: bool) -> Result<bool> {
        self.begin_removal_as(as_consumer)
    }

    fn begin_replacing(&self) -> Result<bool> {
        // FORCED alone: from now on nobody attaches. A producer that was faster is alive already, and is seen.
        if !self.begin_by_force(Duration::ZERO)? {
            return Ok(false);
        }
        match self.producers_gone() {
            Ok(true) => Ok(true),
            Ok(false) => self.end_removal().map(|()| false),
            Err(error) => {
                self.end_removal()?;
                Err(error)
            }
        }
    }

    fn abort_replacing(&self) -> Result<()> {
        self.end_removal()
    }

    fn begin_pruning(&self) -> Result<bool> {
        Ok(!self.is_locked(CREATION, Hold::Alone)? && self.begin_removal_as(false)?)
    }

    fn is_idle(&self) -> Result<bool> {
        self.check()?;
        // REMOVAL is held by all attached processes, and by removers.
        for byte in [REMOVAL, FORCED, CREATION] {
            if self.is_locked(byte, Hold::Alone)? {
                return Ok(false);
            }
        }
        Ok(!self.is_any_alive(false)?)
    }

    fn begin_forced_removal(&self, timeout: Duration) -> Result<bool> {
        self.begin_by_force(timeout)
    }

    fn override_removal(&self) -> Result<()> {
        self.begin_regardless()
    }

    fn abort_removal(&self) -> Result<()> {
        self.end_removal()
    }

    fn may_destroy(&self) -> Result<()> {
        let us = process::effective_uid();
        match self.pipe_files.owner() {
            Some(owner) if us != 0 && us != owner => Err(GuardError::Os {
                call: "rmdir",
                errno: errno::EPERM,
            }),
            _ => Ok(()),
        }
    }

    fn destroy(&self) -> Result<()> {
        self.take_away()
    }
}

impl Guard for PipeGuard {
    fn hold(&mut self) -> Result<()> {
        let lock = self.own_lock()?;
        // A process that removes the guard holds it alone.
        if !Self::hold(&lock, USERS, Hold::Shared)? {
            clock::nap(RETRY_INTERVAL);
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
        && pipe_files::mark_removed(lock.file()).is_ok()
    {
        let _ = pipe_files.clear(lanes);
    }
}

/// The pipes of a ring that is being made.
pub(crate) struct NewPipes {
    new: NewPipeFiles,
    lanes: usize,
}

impl NewPipes {
    /// In a directory of this name, or without one for related processes.
    pub(crate) fn create(
        path: Option<&Path>,
        lanes: usize,
        owner: Owner,
        location: &str,
    ) -> std::result::Result<Self, Failure> {
        let new = match path {
            Some(path) => NewPipeFiles::create(path, lanes, owner, location)?,
            None => NewPipeFiles::inherited(lanes)?,
        };
        Ok(Self { new, lanes })
    }

    /// The ring has its name. If it ends with its users, this process is the first.
    pub(crate) fn finish(self, goes_with_its_users: bool) -> Result<PipeGuard> {
        let (pipe_files, creation) = self.new.finish();
        let mut guard = PipeGuard::new(pipe_files, self.lanes);
        if goes_with_its_users && let Err(error) = guard.hold() {
            // No other process has the ring yet.
            if let Some(lock) = &creation {
                let _ = pipe_files::mark_removed(lock.file());
            }
            let _ = guard.pipe_files.clear(self.lanes);
            return Err(error);
        }
        // Until here it kept `prune` from removing the directory as unused.
        drop(creation);
        Ok(guard)
    }
}
