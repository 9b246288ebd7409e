//! A model of a semaphore set with undo, as the guard uses it: each call is one step under one lock, and
//! so is the kernel's undo for a dead process.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::{Condvar, Mutex, MutexGuard};

use crate::guard::{
    Claim, Guard, GuardError, RemovalLock, Role, Roles, Waited, WakeTarget, Wakeups,
};
use crate::sync::shared_operation;

type Result<T> = std::result::Result<T, GuardError>;

/// One semaphore a field, with the names of the guard's.
struct Semaphores {
    /// W
    messages: u32,
    /// N
    producers: u32,
    /// C
    consumer: bool,
    /// P_i, S_i
    lanes: Vec<(bool, u32)>,
    /// Whether the dead leave a token. Without it models must stall.
    undo_tokens: bool,
}

pub(super) struct Kernel {
    semaphores: Mutex<Semaphores>,
    posted: Condvar,
}

impl Kernel {
    pub(super) fn new(lanes: usize) -> Self {
        let semaphores = Semaphores {
            messages: 0,
            producers: 0,
            consumer: false,
            lanes: vec![(false, 0); lanes],
            undo_tokens: true,
        };
        Self {
            semaphores: Mutex::new(semaphores),
            posted: Condvar::new(),
        }
    }

    /// From now on the dead are only counted out, as if they had left no token.
    pub(super) fn forget_undo_tokens(&self) {
        self.lock().undo_tokens = false;
    }

    /// Frees a dead process's role, if it had it.
    pub(super) fn undo(&self, role: Role) {
        let mut semaphores = self.lock();
        if semaphores.is_taken(role) {
            semaphores.vacate(role);
            drop(semaphores);
            self.posted.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Semaphores> {
        self.semaphores.lock().unwrap()
    }
}

impl Semaphores {
    fn is_taken(&self, role: Role) -> bool {
        match role {
            Role::Consumer => self.consumer,
            Role::Producer { lane } => self.lanes[lane].0,
        }
    }

    fn vacate(&mut self, role: Role) {
        let token = u32::from(self.undo_tokens);
        match role {
            Role::Consumer => {
                self.consumer = false;
                self.lanes.iter_mut().for_each(|(_, room)| *room += token);
            }
            Role::Producer { lane } => {
                self.lanes[lane].0 = false;
                self.producers -= 1;
                self.messages += token;
            }
        }
    }

    fn wakeup(&mut self, wakeup: WakeTarget) -> &mut u32 {
        match wakeup {
            WakeTarget::Consumer => &mut self.messages,
            WakeTarget::Producer { lane } => &mut self.lanes[lane].1,
        }
    }
}

/// The kernel's interface for one process. A dead process's calls have no effect; their results
/// don't matter.
pub(super) struct Handle(pub(super) Arc<Kernel>);

impl Roles for Handle {
    fn claim(&self, role: Role) -> Result<Claim> {
        // Not `Taken`: the caller would look for the holder.
        if !shared_operation() {
            return Err(GuardError::Removed);
        }
        let mut semaphores = self.0.lock();
        if semaphores.is_taken(role) {
            return Ok(Claim::Taken);
        }
        match role {
            Role::Consumer => semaphores.consumer = true,
            Role::Producer { lane } => {
                semaphores.lanes[lane].0 = true;
                semaphores.producers += 1;
            }
        }
        Ok(Claim::Granted)
    }

    fn leave(&self, role: Role) -> Result<()> {
        if shared_operation() {
            self.0.lock().vacate(role);
            self.0.posted.notify_all();
        }
        Ok(())
    }

    fn await_free(&self, _: Role, _: Duration) -> Result<bool> {
        unreachable!("no role of a model is requested before it is free")
    }

    fn is_taken(&self, role: Role) -> Result<bool> {
        Ok(shared_operation() && self.0.lock().is_taken(role))
    }

    fn producers_gone(&self) -> Result<bool> {
        Ok(shared_operation() && self.0.lock().producers == 0)
    }

    fn producers(&self) -> Result<usize> {
        Ok(if shared_operation() {
            self.0.lock().producers as usize
        } else {
            usize::MAX
        })
    }
}

impl Wakeups for Handle {
    fn post(&self, wakeup: WakeTarget) -> Result<()> {
        if shared_operation() {
            *self.0.lock().wakeup(wakeup) += 1;
            self.0.posted.notify_all();
        }
        Ok(())
    }

    fn wait(&self, wakeup: WakeTarget, timeout: Option<Duration>) -> Result<Waited> {
        assert_eq!(timeout, None, "loom has no time");
        if shared_operation() {
            let mut semaphores = self.0.lock();
            while *semaphores.wakeup(wakeup) == 0 {
                semaphores = self.0.posted.wait(semaphores).unwrap();
            }
            *semaphores.wakeup(wakeup) -= 1;
        }
        Ok(Waited::Token)
    }

    fn wait_for_producers(&self, timeout: Option<Duration>) -> Result<Waited> {
        assert_eq!(timeout, None, "loom has no time");
        if shared_operation() {
            let mut semaphores = self.0.lock();
            loop {
                if semaphores.producers == 0 {
                    return Ok(Waited::Alone);
                }
                if *semaphores.wakeup(WakeTarget::Consumer) > 0 {
                    break;
                }
                semaphores = self.0.posted.wait(semaphores).unwrap();
            }
            *semaphores.wakeup(WakeTarget::Consumer) -= 1;
        }
        Ok(Waited::Token)
    }

    fn drain(&self, wakeup: WakeTarget) -> Result<()> {
        if shared_operation() {
            *self.0.lock().wakeup(wakeup) = 0;
        }
        Ok(())
    }
}

impl RemovalLock for Handle {
    fn await_no_removal(&self, _: Duration) -> Result<bool> {
        unreachable!("no model removes its ring")
    }

    fn begin_removal(&self, _: bool) -> Result<bool> {
        unreachable!("no model removes its ring")
    }

    fn begin_replacing(&self) -> Result<bool> {
        unreachable!("no model removes its ring")
    }

    fn abort_replacing(&self) -> Result<()> {
        unreachable!("no model removes its ring")
    }

    fn begin_forced_removal(&self, _: Duration) -> Result<bool> {
        unreachable!("no model removes its ring")
    }

    fn override_removal(&self) -> Result<()> {
        unreachable!("no model removes its ring")
    }

    fn abort_removal(&self) -> Result<()> {
        unreachable!("no model removes its ring")
    }

    fn destroy(&self) -> Result<()> {
        unreachable!("no model removes its ring")
    }
}

impl Guard for Handle {}
