//! The guard of pipes and locks of open file descriptions: for systems where System V semaphores
//! can't work, and for programs that need a descriptor to poll.
//!
//! ```text
//! bytes of `lock`            held by
//! 0 REMOVAL    shared        every holder of a role; alone: a remover, so no role is held
//! 1 FORCED     alone         a remover of a ring that is in use
//! 2 CREATION   alone         the creator of the pipes (`site`)
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
use super::site::{
    self, CREATION, FORCED, NewSite, NoSite, Owner, Pipe, REMOVAL, Site, Trouble, USERS,
};
use super::{
    Claim, Guard, GuardError, RemovalLock, Result, Roles, Seat, Waited, WakeTarget, Wakeups,
};
use crate::os::fifo::{self, End};
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte, would_be_refused};
use crate::os::poll::{Interest, Poller};
use crate::os::watch::Watch;
use crate::os::{clock, errno, process};
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering};

const CONSUMER: u64 = 4;
const LANES: u64 = 8;

/// Locks can't be waited for with a timeout: they are tried again at this interval.
const AGAIN: Duration = Duration::from_micros(200);

fn os(call: &'static str) -> impl FnOnce(io::Error) -> GuardError {
    move |error| GuardError::Os {
        call,
        errno: error.raw_os_error().unwrap_or(errno::EIO),
    }
}

/// The pipes of one ring.
#[derive(Debug)]
pub(crate) struct PipeGuard {
    site: Arc<Site>,
    lanes: usize,
    /// The slots held by this process: the lanes', then the consumer's.
    seats: Mutex<Vec<Option<Arc<Taken>>>>,
    /// Wake-up FIFOs, open for posting: the consumer's, then the lanes'.
    bells: Vec<OnceLock<File>>,
    /// Liveness FIFOs, open for listening: the remover's, the consumer's, then the producers'.
    lives: Vec<OnceLock<File>>,
    /// Reports that the directory was removed by other means than a hang-up.
    watch: OnceLock<Option<Watch>>,
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
    _bell: File,
    poller: Arc<Poller>,
    /// From its first sleep on the poller listens to the directory, too.
    watching: Once,
}

impl PipeGuard {
    fn new(site: Site, lanes: usize) -> Self {
        Self {
            site: Arc::new(site),
            lanes,
            seats: Mutex::new((0..=lanes).map(|_| None).collect()),
            bells: (0..=lanes).map(|_| OnceLock::new()).collect(),
            lives: (0..lanes + 2).map(|_| OnceLock::new()).collect(),
            watch: OnceLock::new(),
            removal: Mutex::new(None),
            user: None,
            alive: AtomicU64::new(0),
        }
    }

    /// Opens the pipes in a directory, which must belong to this user.
    pub(crate) fn open(path: &Path, lanes: usize, owner: u32) -> std::result::Result<Self, NoSite> {
        Site::open(path, lanes, owner).map(|site| Self::new(site, lanes))
    }

    fn check(&self) -> Result<()> {
        if self.site.is_removed() {
            Err(GuardError::Removed)
        } else {
            Ok(())
        }
    }

    /// Converts an error of a call with a name: a missing name means that the guard is gone.
    fn failed(&self, call: &'static str) -> impl FnOnce(io::Error) -> GuardError {
        move |error| {
            // Half of it is gone: another process is just removing it, file by file.
            if error.kind() == io::ErrorKind::NotFound || self.site.is_removed() {
                GuardError::Removed
            } else {
                os(call)(error)
            }
        }
    }

    fn own_lock(&self) -> Result<Private> {
        self.site.own_lock().map_err(self.failed("openat"))
    }

    /// The file in a cell, opened when it is needed first.
    fn opened<'a>(&self, cell: &'a OnceLock<File>, pipe: Pipe, end: End) -> Result<&'a File> {
        if let Some(file) = cell.get() {
            return Ok(file);
        }
        let file = self.site.pipe(pipe, end).map_err(self.failed("openat"))?;
        Ok(cell.get_or_init(|| file))
    }

    fn bell(&self, bell: WakeTarget) -> Result<&File> {
        match bell {
            WakeTarget::Consumer => self.opened(&self.bells[0], Pipe::Messages, End::Both),
            WakeTarget::Producer { lane } => {
                self.opened(&self.bells[1 + lane], Pipe::Room(lane), End::Both)
            }
        }
    }

    fn life(&self, seat: Seat) -> Result<&File> {
        match seat {
            Seat::Consumer => self.opened(&self.lives[1], Pipe::Consumer, End::Read),
            Seat::Producer { lane } => {
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
            let watch = self.watch.get_or_init(|| self.site.watch());
            if let Some(watch) = watch {
                // If it fails (as where there is no watch at all), a removal by other means is seen
                // when another event wakes the sleeper.
                let _ = taken.poller.add(watch.as_fd(), Interest::News);
            }
        });
        // A removal before this point is not reported by the watch.
        self.check()
    }

    fn ring(&self, bell: WakeTarget) -> Result<()> {
        fifo::put_token(self.bell(bell)?).map_err(os("write"))
    }

    const fn index(&self, seat: Seat) -> usize {
        match seat {
            Seat::Consumer => self.lanes,
            Seat::Producer { lane } => lane,
        }
    }

    const fn byte(seat: Seat) -> u64 {
        match seat {
            Seat::Consumer => CONSUMER,
            Seat::Producer { lane } => LANES + lane as u64,
        }
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Option<Arc<Taken>>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seated(&self, seat: Seat) -> Result<Arc<Taken>> {
        self.seats()[self.index(seat)]
            .clone()
            .ok_or(GuardError::Removed)
    }

    /// True if another process's lock is in the way.
    fn is_locked(&self, byte: u64, against: Hold) -> Result<bool> {
        would_be_refused(self.site.lock(), byte, against).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    /// True if the holder of a slot is alive, and has completed its attach.
    fn lives(&self, seat: Seat) -> Result<bool> {
        // Shared: the lock of a process that may only read must not count.
        would_be_refused(self.life(seat)?, 0, Hold::Shared).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    fn is_being_removed(&self) -> Result<bool> {
        Ok(self.is_locked(REMOVAL, Hold::Shared)? || self.is_locked(FORCED, Hold::Shared)?)
    }

    fn hold(lock: &Private, byte: u64, how: Hold) -> Result<bool> {
        hold_byte(lock.file(), byte, how).map_err(os("fcntl(F_OFD_SETLK)"))
    }

    /// Wakes all processes that may wait for the holder of a slot.
    fn ring_others(&self, seat: Seat) -> Result<()> {
        match seat {
            Seat::Producer { .. } => self.ring(WakeTarget::Consumer),
            Seat::Consumer => {
                (0..self.lanes).try_for_each(|lane| self.ring(WakeTarget::Producer { lane }))
            }
        }
    }

    /// The descriptors on which the holder of a slot sleeps: its wake-up FIFO, and the liveness
    /// FIFOs of its peers.
    fn listen(&self, seat: Seat) -> Result<(Poller, File)> {
        let poller = Poller::new().map_err(os("epoll_create1"))?;
        let add =
            |file: &dyn AsFd, interest| poller.add(file.as_fd(), interest).map_err(os("epoll_ctl"));
        let pipe = match own_bell(seat) {
            WakeTarget::Consumer => Pipe::Messages,
            WakeTarget::Producer { lane } => Pipe::Room(lane),
        };
        let bell = self
            .site
            .pipe(pipe, End::Both)
            .map_err(self.failed("openat"))?;
        add(&bell, Interest::Tokens)?;
        add(self.remover()?, Interest::HangUp)?;
        match seat {
            Seat::Producer { .. } => add(self.life(Seat::Consumer)?, Interest::HangUp)?,
            Seat::Consumer => {
                for lane in 0..self.lanes {
                    add(self.life(Seat::Producer { lane })?, Interest::HangUp)?;
                }
            }
        }
        Ok((poller, bell))
    }

    /// Whether another process is attached or attaching, with REMOVAL held alone.
    fn is_anybody_here(&self, as_consumer: bool) -> Result<bool> {
        Ok(!self.producers_gone()? || (!as_consumer && self.lives(Seat::Consumer)?))
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
            clock::nap(left.min(AGAIN));
        }
    }
}

/// The wake-up FIFO on which the holder of a slot sleeps.
const fn own_bell(seat: Seat) -> WakeTarget {
    match seat {
        Seat::Consumer => WakeTarget::Consumer,
        Seat::Producer { lane } => WakeTarget::Producer { lane },
    }
}

impl Roles for PipeGuard {
    // Each refusal closes what was opened before it. If this process is killed at any line, the
    // kernel does.
    fn claim(&self, seat: Seat) -> Result<Claim> {
        self.check()?;
        if self.is_being_removed()? {
            return Ok(Claim::BeingRemoved);
        }
        // Before the liveness FIFO, because of the numbers of descriptors: when a process ends, the kernel
        // closes the last ones first, and inotify, once there is a watch, takes it milliseconds.
        self.site.prepare_watch();
        let lock = self.own_lock()?;
        if !Self::hold(&lock, Self::byte(seat), Hold::Alone)? {
            return Ok(Claim::Taken);
        }
        // On behalf of the predecessor, whose hang-up will be hidden by the next step.
        if !mutant::is(Mutant::PipeRingsAfterLife) {
            self.ring_others(seat)?;
        }
        let pipe = match seat {
            Seat::Consumer => Pipe::Consumer,
            Seat::Producer { lane } => Pipe::Producer(lane),
        };
        let life =
            Private::open(|| self.site.pipe(pipe, End::Both)).map_err(self.failed("openat"))?;
        if mutant::is(Mutant::PipeRingsAfterLife) {
            self.ring_others(seat)?;
        }
        if !Self::hold(&life, 0, Hold::Alone)? {
            return Ok(Claim::Taken);
        }
        // A process that finds the slot taken checks whether its holder is dying.
        let _ = site::note_holder(&lock, self.index(seat), process::id());
        let (poller, bell) = self.listen(seat)?;
        // With this, all files that the role may need are open: a change of the user id does not
        // matter any more.
        self.bell(own_bell(seat))?;
        if !Self::hold(&lock, REMOVAL, Hold::Shared)? || self.is_locked(FORCED, Hold::Shared)? {
            return Ok(Claim::BeingRemoved);
        }
        self.check()?;
        self.seats()[self.index(seat)] = Some(Arc::new(Taken {
            lock,
            life: Mutex::new(Some(life)),
            _bell: bell,
            poller: Arc::new(poller),
            watching: Once::new(),
        }));
        Ok(Claim::Granted)
    }

    fn leave(&self, seat: Seat) -> Result<()> {
        let Some(taken) = self.seats()[self.index(seat)].take() else {
            return Ok(());
        };
        let _ = site::note_holder(&taken.lock, self.index(seat), 0);
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
                let _ = self.ring_others(seat);
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

    fn await_free(&self, seat: Seat, timeout: Duration) -> Result<bool> {
        Self::until(timeout, || self.is_taken(seat).map(|taken| !taken))
    }

    fn is_taken(&self, seat: Seat) -> Result<bool> {
        self.check()?;
        Ok(self.is_locked(Self::byte(seat), Hold::Shared)? || self.lives(seat)?)
    }

    fn last_holder(&self, seat: Seat) -> Result<Option<u32>> {
        let noted = self.site.noted_holder(self.index(seat));
        // 0: the holder has not recorded itself yet, or has just detached.
        noted.map(Some).map_err(os("pread"))
    }

    fn producers_gone(&self) -> Result<bool> {
        self.check()?;
        let first = self.alive.load(Ordering::Relaxed) as usize;
        for step in 0..self.lanes {
            let lane = (first + step) % self.lanes;
            if self.lives(Seat::Producer { lane })? {
                self.alive.store(lane as u64, Ordering::Relaxed);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn producers(&self) -> Result<usize> {
        let mut count = 0;
        for lane in 0..self.lanes {
            count += usize::from(self.is_taken(Seat::Producer { lane })?);
        }
        Ok(count)
    }

    fn consumer_gone(&self) -> Result<bool> {
        self.check()?;
        self.lives(Seat::Consumer).map(|lives| !lives)
    }
}

impl Wakeups for PipeGuard {
    fn post(&self, bell: WakeTarget) -> Result<()> {
        // Also in a ring that is gone: a process that polls must get the error.
        let there = self.check();
        self.ring(bell).and(there)
    }

    fn wait(&self, bell: WakeTarget, timeout: Option<Duration>) -> Result<Waited> {
        let seat = match bell {
            WakeTarget::Consumer => Seat::Consumer,
            WakeTarget::Producer { lane } => Seat::Producer { lane },
        };
        let taken = self.seated(seat)?;
        self.watch(&taken)?;
        match taken.poller.wait(timeout) {
            Ok(true) => {
                // Perhaps the ring was removed: then the next check reports it, which comes before the next
                // sleep; or a message comes first, and is received first.
                fifo::take_tokens(self.bell(bell)?).map_err(os("read"))?;
                Ok(Waited::Token)
            }
            Ok(false) => Ok(Waited::TimedOut),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Waited::Signal),
            Err(error) => Err(os("epoll_wait")(error)),
        }
    }

    fn drain(&self, bell: WakeTarget) -> Result<()> {
        let seat = match bell {
            WakeTarget::Consumer => Seat::Consumer,
            WakeTarget::Producer { lane } => Seat::Producer { lane },
        };
        fifo::take_tokens(self.bell(bell)?).map_err(os("read"))?;
        match self.seated(seat)?.poller.wait(Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(os("epoll_wait")(error))
            }
            _ => Ok(()),
        }
    }

    fn poller(&self, seat: Seat) -> Option<Arc<Poller>> {
        let taken = self.seated(seat).ok()?;
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
        Ok(!self.is_anybody_here(false)?)
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
        match self.site.owner() {
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
            clock::nap(AGAIN);
            return Err(GuardError::Removed);
        }
        self.check()?;
        let (site, lanes) = (self.site.clone(), self.lanes);
        self.user = Some(AtExit::register(move || leave_users(&site, lanes, &lock)));
        Ok(())
    }

    fn reopen(&self) -> Option<Box<dyn Guard>> {
        let site = self.site.reopen().ok()?;
        Some(Box::new(Self::new(site, self.lanes)))
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
fn leave_users(site: &Site, lanes: usize, lock: &Private) {
    // If two leave at the same time while both share the lock, neither would get it alone.
    if PipeGuard::hold(lock, USERS, Hold::Not).is_ok()
        && matches!(PipeGuard::hold(lock, USERS, Hold::Alone), Ok(true))
        && site::mark_removed(lock.file()).is_ok()
    {
        let _ = site.clear(lanes);
    }
}

/// The pipes of a ring that is being made.
pub(crate) struct NewPipes {
    new: NewSite,
    lanes: usize,
}

impl NewPipes {
    /// In a directory of this name, or without one for related processes.
    pub(crate) fn create(
        path: Option<&Path>,
        lanes: usize,
        owner: Owner,
        home: &str,
    ) -> std::result::Result<Self, Trouble> {
        let new = match path {
            Some(path) => NewSite::create(path, lanes, owner, home)?,
            None => NewSite::inherited(lanes)?,
        };
        Ok(Self { new, lanes })
    }

    /// The ring has its name. If it ends with its users, this process is the first.
    pub(crate) fn finish(self, goes_with_its_users: bool) -> Result<PipeGuard> {
        let (site, creation) = self.new.finish();
        let mut guard = PipeGuard::new(site, self.lanes);
        if goes_with_its_users && let Err(error) = guard.hold() {
            // No other process has the ring yet.
            if let Some(lock) = &creation {
                let _ = site::mark_removed(lock.file());
            }
            let _ = guard.site.clear(self.lanes);
            return Err(error);
        }
        // Until here it kept `prune` from removing the directory as unused.
        drop(creation);
        Ok(guard)
    }
}
