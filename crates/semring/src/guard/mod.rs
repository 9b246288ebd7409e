//! Roles, liveness and sleeping: the trait that a guard implements, and the reason why no wake-up is
//! lost.
//!
//! # Why no wake-up is lost
//! A sleeper (the consumer of an empty ring, the producer of a full lane) and a waker share one wait
//! word, which only the sleeper writes, and one semaphore.
//!
//! ```text
//! sleeper                                waker
//!   word = e      (never used before)      publish (a header, or `released`)
//!   full fence                             full fence
//!   look again                             w = word
//!   peer gone?    (check the guard)        w ≠ 0 and w ≠ last:  post; last = w
//!   wait on the semaphore
//!   word = 0
//! ```
//! * **Awake peers.** The two fences order each side's store before its load, so one of them sees the
//!   other's store: the sleeper finds the publication, or the waker finds `e` and posts (edge E4). A
//!   producer in asymmetric mode omits its fence, and the sleeper makes its CPU execute one
//!   (`wakeup`).
//! * **A waker that is killed** between publishing and posting: the kernel posts for it when it
//!   applies the undo token that the waker left at attach. There is one undo token for each attached
//!   producer, and one for each lane for the consumer.
//! * **A waker that is stopped** there delays only its own messages: only the sleeper clears the
//!   word, so every other waker still sees `e` and posts itself.
//! * **A sleeper that is killed** leaves its word set. Each waker posts once for that epoch and never
//!   again. Its successor's epochs begin with another generation, so a waker never takes a new epoch
//!   for the old one, for which it has posted.
//! * **Tokens left over** wake a sleeper without need; it looks, and sleeps again. A token means
//!   only "look again".
//! * **Deaths.** If the peer is gone when the sleeper checks, it does not sleep; if the peer goes later,
//!   the kernel posts a token. The check and the sleep are one call where the guard can do that: a
//!   semaphore operation that fails if no peer is attached, and otherwise takes a token, or sleeps.
//! * **End of stream.** The result "gone" ends nothing yet: a producer may have sent a message after the last
//!   look, and then detached. So the sleeper repeats the loop, and checks *before* it looks: a producer that is
//!   gone by then published everything before, so that look finds it.

mod at_exit;
pub(crate) mod deadline;
pub(crate) mod interrupt;
#[cfg(test)]
mod mode_model_tests;
#[cfg(all(test, semring_loom))]
mod model_tests;
pub(crate) mod pipe;
pub(crate) mod semaphore;
pub(crate) mod strategy;
pub(crate) mod timeouts;
pub(crate) mod wait;
pub(crate) mod wakeup;

use std::sync::Arc;
use std::time::Duration;

use crate::os::poll::Poller;

/// Why a call of a guard failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuardError {
    /// The set was removed, by semring or by `ipcrm`: the ring is gone.
    Removed,
    /// The call failed otherwise.
    Os { call: &'static str, errno: i32 },
}

/// A role slot, which one process at a time can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Consumer,
    Producer { lane: usize },
}

/// The result of an attempt to take a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// This process holds it.
    Granted,
    /// Another process holds it.
    Taken,
    /// The ring is being removed.
    BeingRemoved,
}

/// The wake-up semaphore on which a sleeper waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WakeTarget {
    /// The consumer's: a message was published, or a producer died.
    Consumer,
    /// A producer's: room was released in its lane, or the consumer died.
    Producer { lane: usize },
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// A token came.
    Token,
    /// A signal came; look again.
    Signal,
    /// The timeout has passed.
    TimedOut,
    /// No process is attached that could post: the caller must look, check, and look again.
    Alone,
}

type Result<T> = std::result::Result<T, GuardError>;

/// The role slots of one ring. When the holder of a role dies, the kernel frees the slot and posts all wake-up
/// semaphores on which peers of the dead process may sleep, before any process can see the slot free.
pub(crate) trait Roles: Send + Sync {
    /// Tries to take a slot; never waits.
    fn claim(&self, role: Role) -> Result<Claim>;
    /// Gives a slot up and posts the wake-up semaphores on which peers may sleep.
    fn leave(&self, role: Role) -> Result<()>;
    /// Waits until no process holds the slot; false when the timeout has passed. Another process may
    /// take it first.
    fn await_free(&self, role: Role, timeout: Duration) -> Result<bool>;
    /// True if a process holds the slot.
    fn is_taken(&self, role: Role) -> Result<bool>;
    /// The process that took the slot last, if that is known: while the slot is taken that is its
    /// holder, even if the holder was killed before it stored its pid in the ring.
    fn last_holder(&self, _role: Role) -> Result<Option<u32>> {
        Ok(None)
    }
    /// True if no producer is attached at this moment.
    fn producers_gone(&self) -> Result<bool>;
    /// How many producers are attached at this moment.
    fn producers(&self) -> Result<usize>;
    /// True if no consumer is attached at this moment.
    fn consumer_gone(&self) -> Result<bool> {
        self.is_taken(Role::Consumer).map(|taken| !taken)
    }
}

/// The wake-ups of one ring: one for the consumer, one for each producer.
pub(crate) trait Wakeups: Roles {
    /// Posts one token.
    fn post(&self, wakeup: WakeTarget) -> Result<()>;
    /// Takes one token, or waits for it.
    fn wait(&self, wakeup: WakeTarget, timeout: Option<Duration>) -> Result<Waited>;
    /// The same on the consumer's wake-up semaphore while producers are attached: [`Waited::Alone`] instead of
    /// a sleep if none is. After the timeout it may be either.
    fn wait_for_producers(&self, timeout: Option<Duration>) -> Result<Waited> {
        // A producer that detaches or dies after this check posts a token.
        if self.producers_gone()? {
            return Ok(Waited::Alone);
        }
        self.wait(WakeTarget::Consumer, timeout)
    }
    /// Takes all tokens, without waiting.
    fn drain(&self, wakeup: WakeTarget) -> Result<()>;
    /// The descriptor on which the holder of a slot sleeps, if the guard can be polled.
    fn poller(&self, _role: Role) -> Option<Arc<Poller>> {
        None
    }
}

/// The lock that a removal of the ring holds, and the removal of the guard.
pub(crate) trait RemovalLock: Roles {
    /// Waits until no process is removing the ring; false when the timeout has passed.
    fn await_no_removal(&self, timeout: Duration) -> Result<bool>;
    /// Begins a removal: succeeds if no process is attached (except the caller, if it is the
    /// consumer), and prevents attaching until it ends. False: a process is attached.
    fn begin_removal(&self, as_consumer: bool) -> Result<bool>;
    /// Begins to replace the ring: succeeds if no producer is attached (the consumer may be) and keeps all processes from
    /// attaching until it ends. If the caller is killed then, the consumer is woken. False: a producer is there, or another
    /// remover.
    fn begin_replacing(&self) -> Result<bool>;
    /// Ends it without replacing.
    fn abort_replacing(&self) -> Result<()>;
    /// As [`begin_removal`](Self::begin_removal) by a process without a role, and only if no
    /// creator is at work.
    fn begin_pruning(&self) -> Result<bool> {
        self.begin_removal(false)
    }
    /// True if no process is attached, makes or removes the ring: a look that changes nothing.
    fn is_idle(&self) -> Result<bool> {
        Ok(self.producers_gone()? && self.consumer_gone()?)
    }
    /// Begins a removal even if processes are attached, after any other removal has ended; false if
    /// the other one does not end in time. Two removals at once could each remove objects that a
    /// creator has made after the other one.
    fn begin_forced_removal(&self, timeout: Duration) -> Result<bool>;
    /// Begins a removal although another process's flag or locks stay: that process was stopped, or it may write
    /// the guard and has set them without undo. Only for a caller that [may destroy](Self::may_destroy) the
    /// guard.
    fn override_removal(&self) -> Result<()>;
    /// Ends a removal without removing.
    fn abort_removal(&self) -> Result<()>;
    /// Whether [`destroy`](Self::destroy) is permitted to this process; changes nothing.
    fn may_destroy(&self) -> Result<()> {
        Ok(())
    }
    /// Records in the guard of a file whether the file has its name: if its creator or remover was killed, a
    /// guard of a file without a name is useless. Guards that are found through their ring need no such
    /// record.
    fn record_name(&self, _has_name: bool) {}
    /// Removes the guard's kernel objects: all waits and checks return [`GuardError::Removed`].
    fn destroy(&self) -> Result<()>;
}

/// The guard of one ring.
pub(crate) trait Guard: Wakeups + RemovalLock {
    /// Counts this process among the users of a ring that ends with them, until the guard is dropped: the
    /// last user removes the guard. [`GuardError::Removed`]: that has just happened.
    fn hold(&mut self) -> Result<()> {
        Ok(())
    }
    /// In a forked child: the same guard, without the parent's roles. `None`: it must be found through
    /// the superblock.
    fn reopen(&self) -> Option<Box<dyn Guard>> {
        None
    }
}

/// Why the guard named by a superblock can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mismatch {
    /// It does not exist.
    Missing,
    /// The object belongs to something else.
    Other,
    /// It is in another IPC namespace.
    Elsewhere,
    /// It resembles the ring's guard, but neither the ring's owner nor root made it.
    Stranger,
    /// It may not be used.
    Denied(Refusal),
    /// The check itself failed.
    Failed(Refusal),
}

/// A call that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) call: &'static str,
    pub(crate) errno: i32,
}

impl From<crate::os::sysv::Error> for Refusal {
    fn from(error: crate::os::sysv::Error) -> Self {
        Self {
            call: error.call(),
            errno: error.errno(),
        }
    }
}

impl From<Refusal> for std::io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::from_raw_os_error(refusal.errno)
    }
}

impl Mismatch {
    /// True if the ring has no guard that could be used here; false if the check failed or was not
    /// permitted.
    pub(crate) const fn is_lost(self) -> bool {
        !matches!(self, Self::Denied(_) | Self::Failed(_))
    }
}
