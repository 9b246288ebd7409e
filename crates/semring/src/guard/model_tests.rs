//! The wait word alone, small enough for every schedule: a sleeper that is killed in its sleep and
//! replaced, and a waker that stores the last epoch. Consumer and producer sleep by the same code, so
//! each model here covers both sides.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::deadline::Deadline;
use super::strategy::WaitStrategy;
use super::wait::{Outcome, PeerCheck, Waiter, Waiting, Wakeup};
use super::wakeup::{Epochs, Waker, arm, disarm};
use super::{GuardError, Waited};
use crate::model::explore;
use crate::sync::{AtomicU64, Ordering};

/// One wait word, one semaphore, and the number of published messages.
struct Shared {
    word: AtomicU64,
    published: AtomicU64,
    tokens: Mutex<u32>,
    posted: Condvar,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU64::new(0),
            published: AtomicU64::new(0),
            tokens: Mutex::new(0),
            posted: Condvar::new(),
        })
    }

    fn post(&self) {
        *self.tokens.lock().unwrap() += 1;
        self.posted.notify_all();
    }

    fn publish(&self, messages: u64, waker: &mut Waker) {
        self.published.store(messages, Ordering::Release);
        if waker.is_due(&self.word) {
            self.post();
        }
    }

    /// Waits for this many messages, as a new holder of the role.
    fn wait_for(&self, messages: u64, generation: u64) {
        // As every attach: old tokens and the predecessor's word are cleared.
        *self.tokens.lock().unwrap() = 0;
        disarm(&self.word);
        let mut waiter = Waiter::new(WaitStrategy::Block, 1, generation);
        let mut side = Side {
            shared: self,
            messages,
        };
        assert_eq!(waiter.wait(&mut side, Deadline::NEVER), Ok(Outcome::Ready));
    }
}

struct Side<'a> {
    shared: &'a Shared,
    messages: u64,
}

impl Waiting for Side<'_> {
    const CHECKS_ASLEEP: bool = false;

    fn word(&self) -> &AtomicU64 {
        &self.shared.word
    }

    fn is_ready(&mut self) -> bool {
        self.shared.published.load(Ordering::Acquire) >= self.messages
    }

    fn is_over(&mut self) -> Result<bool, GuardError> {
        Ok(false)
    }

    fn issue_barrier(&mut self) -> bool {
        true
    }

    fn flush_before_sleep(&mut self) -> Result<(), GuardError> {
        Ok(())
    }

    fn wakeup(&self) -> Wakeup<'_> {
        unreachable!("not polled here")
    }

    fn sleep(&mut self, _: PeerCheck, _: Option<Duration>) -> Result<Waited, GuardError> {
        let mut tokens = self.shared.tokens.lock().unwrap();
        while *tokens == 0 {
            tokens = self.shared.posted.wait(tokens).unwrap();
        }
        *tokens -= 1;
        Ok(Waited::Token)
    }
}

/// Holders of the role are killed in their sleep, one after the other; the last one lives. The waker
/// publishes at the same time, and lives all the time.
fn replaced_sleepers(preemptions: Option<usize>, killed: u64) {
    explore(preemptions, move || {
        let shared = Shared::new();
        let waking = shared.clone();
        let waker = thread::spawn(move || {
            let mut waker = Waker::new();
            (1..=2).for_each(|messages| waking.publish(messages, &mut waker));
        });
        for generation in 1..=killed {
            // Killed right after its announcement: the word stays.
            arm(&shared.word, Epochs::new(generation).next());
        }
        shared.wait_for(2, killed + 1);
        waker.join().unwrap();
    });
}

/// The mutant: the waker has posted for epoch 1 of the dead one, and takes epoch 1 of the next for the same.
#[test]
fn model_the_successor_of_a_killed_sleeper_is_woken() {
    replaced_sleepers(None, 1);
    replaced_sleepers(Some(2), 2);
}

/// The waker has posted for epoch 1 of the dead sleeper, and takes epoch 1 of the next for the
/// same.
#[test]
fn model_a_sleeper_that_announced_itself_is_woken() {
    replaced_sleepers(None, 0);
}
