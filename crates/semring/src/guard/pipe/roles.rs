//! The role slots: taking and giving up a byte of `lock` and the liveness FIFO with it. Why their order is as
//! it is: see the [parent module](super).

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::directory::{self, FORCED, Pipe, REMOVAL};
use super::removal::{Remover, Removing};
use super::{PipeGuard, os};
use crate::guard::{Claim, GuardError, Result, Role, Roles, WakeTarget};
use crate::os::fifo::End;
use crate::os::fork::Private;
use crate::os::lock::{Hold, would_be_refused};
use crate::os::poll::{Interest, Poller};
use crate::os::process;
use crate::sync::Ordering;
use crate::sync::mutant::{self, Mutant};

const CONSUMER: u64 = 4;
const LANES: u64 = 8;

/// A slot held by this process.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lock: Private,
    /// Dropped first.
    life: Mutex<Option<Private>>,
    /// The poller listens to it, until the slot is given up.
    _wakeup: File,
    pub(super) poller: Arc<Poller>,
    /// From its first sleep on the poller listens to the directory, too.
    pub(super) watching: Once,
}

impl PipeGuard {
    pub(super) fn life(&self, role: Role) -> Result<&File> {
        match role {
            Role::Consumer => self.opened(&self.lives[1], Pipe::Consumer, End::Read),
            Role::Producer { lane } => {
                self.opened(&self.lives[2 + lane], Pipe::Producer(lane), End::Read)
            }
        }
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

    pub(super) fn held(&self, role: Role) -> Result<Arc<Taken>> {
        self.roles()[self.index(role)]
            .clone()
            .ok_or(GuardError::Removed)
    }

    /// True if the holder of a slot is alive, and has completed its attach.
    pub(super) fn lives(&self, role: Role) -> Result<bool> {
        // Shared: the lock of a process that may only read must not count.
        would_be_refused(self.life(role)?, 0, Hold::Shared).map_err(os("fcntl(F_OFD_GETLK)"))
    }

    /// Wakes all processes that may wait for the holder of a slot.
    pub(super) fn ring_others(&self, role: Role) -> Result<()> {
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
        let _ = directory::record_holder(&lock, self.index(role), process::id());
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
        let _ = directory::record_holder(&taken.lock, self.index(role), 0);
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
