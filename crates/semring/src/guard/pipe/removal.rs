//! Removing the pipes of a ring. All descriptors for a removal are opened when it begins: at the limit of
//! descriptors it then fails at the beginning, not half-way.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::directory::{self, CREATION, FORCED, Pipe, REMOVAL};
use super::roles::Taken;
use super::{PipeGuard, os};
use crate::guard::timeouts::TEARDOWN_TIMEOUT;
use crate::guard::{GuardError, RemovalLock, Result, Role, Roles, WakeTarget};
use crate::os::fifo::End;
use crate::os::fork::Private;
use crate::os::lock::Hold;
use crate::os::{errno, process};
use crate::sync::mutant::{self, Mutant};

/// A removal that has begun.
#[derive(Debug)]
pub(super) struct Removing {
    pub(super) by: Remover,
    /// The liveness FIFO of the remover, opened before anything is removed: later there may be no
    /// descriptor.
    _life: Private,
}

#[derive(Debug)]
pub(super) enum Remover {
    Consumer(Arc<Taken>),
    Other { lock: Private },
}

impl Removing {
    /// The lock file that the remover has had open from the beginning.
    fn lock(&self) -> &Private {
        match &self.by {
            Remover::Consumer(role) => &role.lock,
            Remover::Other { lock } => lock,
        }
    }
}

impl PipeGuard {
    pub(super) fn is_being_removed(&self) -> Result<bool> {
        Ok(self.is_locked(REMOVAL, Hold::Shared)? || self.is_locked(FORCED, Hold::Shared)?)
    }

    /// Whether another process is attached or attaching, with REMOVAL held alone.
    fn is_any_alive(&self, as_consumer: bool) -> Result<bool> {
        Ok(!self.producers_gone()? || (!as_consumer && self.lives(Role::Consumer)?))
    }

    pub(super) fn begin_removal_as(&self, as_consumer: bool) -> Result<bool> {
        self.check()?;
        let life = self.remover_life()?;
        let by = if as_consumer {
            let role = self.held(Role::Consumer)?;
            if !self.keep_everybody_out(&role.lock, as_consumer)? {
                return Ok(false);
            }
            Remover::Consumer(role)
        } else {
            let lock = self.own_lock()?;
            if !self.keep_everybody_out(&lock, as_consumer)? {
                return Ok(false);
            }
            Remover::Other { lock }
        };
        let begun = self.check().and_then(|()| self.is_any_alive(as_consumer));
        *self.removing() = Some(Removing { by, _life: life });
        match begun {
            Ok(false) => Ok(true),
            Ok(true) => self.end_removal().map(|()| false),
            Err(error) => {
                self.end_removal()?;
                Err(error)
            }
        }
    }

    /// Takes REMOVAL alone; false if a process is attached, attaching, or removes the ring.
    fn keep_everybody_out(&self, lock: &Private, as_consumer: bool) -> Result<bool> {
        let mut is_refused = false;
        let over = Self::until(TEARDOWN_TIMEOUT, || {
            self.check()?;
            if Self::hold(lock, REMOVAL, Hold::Alone)? {
                return Ok(true);
            }
            // A process that holds it without a liveness lock has died, and the kernel is still closing its
            // files: a caller that has seen that process gone must not get the answer that it is in the
            // way.
            is_refused = self.is_being_removed()? || self.is_any_alive(as_consumer)?;
            Ok(is_refused)
        })?;
        Ok(over && !is_refused)
    }

    fn remover_life(&self) -> Result<Private> {
        Private::open(|| self.pipe_files.pipe(Pipe::Remover, End::Both))
            .map_err(self.failed("openat"))
    }

    pub(super) fn removing(&self) -> MutexGuard<'_, Option<Removing>> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`RemovalLock::begin_forced_removal`].
    pub(super) fn begin_by_force(&self, timeout: Duration) -> Result<bool> {
        let lock = self.own_lock()?;
        let both =
            || {
                self.check()?;
                // A shared lock excludes processes that want it alone.
                Ok(Self::hold(&lock, FORCED, Hold::Alone)?
                    && Self::hold(&lock, REMOVAL, Hold::Shared)?)
            };
        let life = self.remover_life()?;
        let begun = Self::until(timeout, both)?;
        if begun {
            self.check()?;
            let by = Remover::Other { lock };
            *self.removing() = Some(Removing { by, _life: life });
        }
        Ok(begun)
    }

    /// As [`RemovalLock::override_removal`].
    pub(super) fn begin_regardless(&self) -> Result<()> {
        self.check()?;
        let by = Remover::Other {
            lock: self.own_lock()?,
        };
        let life = self.remover_life()?;
        *self.removing() = Some(Removing { by, _life: life });
        Ok(())
    }

    /// Ends a removal without removing.
    pub(super) fn end_removal(&self) -> Result<()> {
        match self.removing().take() {
            Some(Removing {
                by: Remover::Consumer(role),
                ..
            }) => Self::hold(&role.lock, REMOVAL, Hold::Shared).map(drop),
            _ => Ok(()),
        }
    }

    /// As [`RemovalLock::destroy`].
    pub(super) fn take_away(&self) -> Result<()> {
        if self.removing().is_none() {
            match self.begin_regardless() {
                Err(GuardError::Removed) => return Ok(()), // another remover was faster
                other => other?,
            }
        }
        // The liveness FIFO and the lock file were opened when the removal began: now there may be no
        // descriptor. The liveness lock ends with this function, or with the process.
        let Some(removing) = self.removing().take() else {
            return Ok(());
        };
        directory::mark_removed(removing.lock().file()).map_err(os("pwrite"))?;
        // Wakes sleeping processes, in case another process has a copy of the remover's descriptor just
        // now (`leave`).
        if !mutant::is(Mutant::NoTokenAtPipeRemoval) {
            let _ = self.ring_others(Role::Consumer);
            let _ = self.ring(WakeTarget::Consumer);
        }
        drop(removing);
        self.pipe_files.clear(self.lanes).map_err(os("rmdir"))
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
        // FORCED alone: from now on no process attaches. A producer that was faster is alive already, and is seen.
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
