//! Leaving a ring that goes with its users when the process ends by `exit` or by returning from `main`: what is still
//! open then is not dropped, and the kernel, which takes the process out of the count of users, removes nothing.
//!
//! Each guard that counts its process registers what its drop would do; a handler of `atexit` does what is left. A
//! process that is killed, or ends by `_exit` or `abort`, does not come to that: if it was the last user, its semaphores
//! or pipes stay until `prune` finds them.

use std::sync::{Mutex, MutexGuard, Once, TryLockError};

use crate::os::process;
use crate::sync::yield_now;

type Step = Box<dyn FnOnce() + Send>;

struct Registered {
    number: u64,
    /// A forked child has copies of its parent's steps, which are not for it.
    process: u32,
    step: Step,
}

struct Registry {
    last: u64,
    steps: Vec<Registered>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    last: 0,
    steps: Vec::new(),
});

/// The registry; nothing if it can't be had. The lock is held for moments only, but a process that was forked in such a
/// moment by another thread never gets it.
fn registry() -> Option<MutexGuard<'static, Registry>> {
    const LOOKS: usize = 1000;
    for _ in 0..LOOKS {
        match REGISTRY.try_lock() {
            Ok(registry) => return Some(registry),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => yield_now(),
        }
    }
    None
}

/// A step that is made when the process ends. Dropped, it stays registered.
#[derive(Debug)]
pub(super) struct AtExit {
    number: u64,
    process: u32,
}

impl AtExit {
    /// Registers a step. It must not panic.
    pub(super) fn register(step: impl FnOnce() + Send + 'static) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| process::at_exit(make_steps));
        let process = process::id();
        let Some(mut registry) = registry() else {
            return Self { number: 0, process };
        };
        registry.last += 1;
        let number = registry.last;
        registry.steps.push(Registered {
            number,
            process,
            step: Box::new(step),
        });
        Self { number, process }
    }

    /// Makes the step now. Nothing happens in a forked child, whose parent's step it is, and once the end of the process
    /// has begun: then it has been made.
    pub(super) fn make_now(self) {
        if self.process != process::id() {
            return;
        }
        let Some(mut registry) = registry() else {
            return;
        };
        let at = registry
            .steps
            .iter()
            .position(|entry| entry.number == self.number);
        let entry = at.map(|at| registry.steps.swap_remove(at));
        drop(registry);
        if let Some(entry) = entry {
            (entry.step)();
        }
    }
}

/// Makes all steps of this process.
extern "C" fn make_steps() {
    let Some(mut registry) = registry() else {
        return;
    };
    let steps = std::mem::take(&mut registry.steps);
    drop(registry);
    let us = process::id();
    for entry in steps {
        if entry.process == us {
            (entry.step)();
        } else {
            // The parent's.
            std::mem::forget(entry.step);
        }
    }
}
