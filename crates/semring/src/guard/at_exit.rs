//! Leaving a ring that ends with its users when the process ends by `exit` or by returning from `main`: handles that
//! are still open then are not dropped, and the kernel, which removes the process from the count of users, removes no
//! objects.
//!
//! Each guard that counts its process registers the step that its drop would make; a handler of `atexit` makes the steps
//! that are left. A process that is killed, or ends by `_exit` or `abort`, does not make them: if it was the last user,
//! its semaphores or pipes stay until `prune` finds them.

use std::sync::{Mutex, MutexGuard, Once, TryLockError};

use crate::os::process;
use crate::sync::yield_now;

type Step = Box<dyn FnOnce() + Send>;

struct Registered {
    number: u64,
    /// The steps belong to this process; a forked child has copies of them, and must not make them.
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

/// The registry; `None` if it can't be locked. The lock is held for moments only, but a process that was forked in such
/// a moment by another thread never gets it.
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

/// A step to be made when the process ends. If this is dropped, the step stays registered.
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

    /// Makes the step now. Nothing happens in a forked child (the step is its parent's), and after the end of the
    /// process has begun (the step has been made).
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
            // The parent's step.
            std::mem::forget(entry.step);
        }
    }
}
