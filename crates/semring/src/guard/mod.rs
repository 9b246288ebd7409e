//! Who is alive, and when to sleep: the trait that a guard implements, and the argument why no wake-up
//! is lost.
//!
//! # The argument
//! A sleeper (the consumer of an empty ring, the producer of a full lane) and a waker share one wait
//! word, which only the sleeper writes, and one semaphore.
//!
//! ```text
//! sleeper                                waker
//!   word = e      (never used before)      publish (a header, or `released`)
//!   full fence                             full fence
//!   look again                             w = word
//!   peer gone?    (ask the kernel)         w ≠ 0 and w ≠ last:  post; last = w
//!   wait on the semaphore
//!   word = 0
//! ```
//! * **Awake peers.** The two fences order each side's store before its load, so one of them sees the
//!   other's store: the sleeper finds what was published, or the waker finds `e` and posts (edge E4). A
//!   producer in burst leaves its fence out, and the sleeper has one made in its place (`doorbell`).
//! * **A waker that is killed** between publishing and posting: the kernel posts for it when it undoes
//!   the token that the waker left at attach (the death rattle). One rattle per attached producer,
//!   one per lane for the consumer.
//! * **A waker that is stopped** there delays nobody but itself: the word is cleared by the sleeper
//!   only, so every other waker still sees `e` and posts on its own account.
//! * **A sleeper that is killed** leaves its word set. Each waker posts once for that epoch and never
//!   again. Its successor's epochs begin with another generation, so a waker that remembers the old
//!   epoch is not fooled by an equal one.
//! * **Tokens left over** wake a sleeper for nothing; it looks, and sleeps again. A sleeper never
//!   believes a token: only what it finds.
//! * **Deaths.** Who is gone when the sleeper asks is not waited for; who goes later posts a token. The
//!   question and the wait are one call where the guard can do that: a semaphore operation that fails if
//!   nobody is attached, and else takes a token, or sleeps.
//! * **End of stream.** The answer "gone" ends nothing yet: a message may have been sent after the last look,
//!   by a producer that then left. So the sleeper goes round once more, and asks *before* it looks: who is gone
//!   by then published everything before, so that look finds it.

pub(crate) mod abandoned;
pub(crate) mod abandoned_pipes;
mod at_exit;
#[cfg(all(test, not(semring_loom)))]
mod burst_model_tests;
pub(crate) mod deadline;
pub(crate) mod doorbell;
pub(crate) mod interrupt;
#[cfg(all(test, semring_loom))]
mod model_tests;
pub(crate) mod pipe;
#[cfg(all(test, not(semring_loom)))]
mod pipe_model_tests;
pub(crate) mod semaphore;
#[cfg(all(test, not(semring_loom)))]
mod semaphore_tests;
pub(crate) mod set;
#[cfg(all(test, not(semring_loom)))]
mod set_tests;
pub(crate) mod site;
pub(crate) mod strategy;
pub(crate) mod wait;

use std::sync::Arc;
use std::time::Duration;

use crate::os::poll::Poller;

/// Why a guard could not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuardError {
    /// The set was removed: the ring is gone, on purpose or by `ipcrm`.
    Removed,
    /// The call failed otherwise.
    Os { call: &'static str, errno: i32 },
}

/// A role that one process at a time can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seat {
    Consumer,
    Producer { lane: usize },
}

/// What came of trying to take a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// It is ours.
    Granted,
    /// Somebody has it.
    Taken,
    /// The ring is being removed.
    BeingRemoved,
}

/// What a sleeper waits on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WakeTarget {
    /// The consumer's: something was published, or a producer died.
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
    /// The time is over.
    TimedOut,
    /// Nobody is there who could post: look, ask, look again.
    Alone,
}

type Result<T> = std::result::Result<T, GuardError>;

/// The roles of one ring, and who is there. When the holder of a role dies, the kernel gives the role up and posts all
/// wake-ups of those who might wait for the dead one, before anybody can see the role free.
pub(crate) trait Roles: Send + Sync {
    /// Tries to take a seat; never waits.
    fn claim(&self, seat: Seat) -> Result<Claim>;
    /// Gives a seat up and rings the bells of those who might wait for us.
    fn leave(&self, seat: Seat) -> Result<()>;
    /// Waits until nobody has the seat; false when the time is over. Others may be faster to take it.
    fn await_free(&self, seat: Seat, timeout: Duration) -> Result<bool>;
    /// True if somebody has the seat.
    fn is_taken(&self, seat: Seat) -> Result<bool>;
    /// Who took the seat last, if that can be told: of a seat that is taken, its holder, also when that
    /// was killed before it came to say so in the ring.
    fn last_holder(&self, _seat: Seat) -> Result<Option<u32>> {
        Ok(None)
    }
    /// True if no producer is attached at this moment.
    fn producers_gone(&self) -> Result<bool>;
    /// How many producers are attached at this moment.
    fn producers(&self) -> Result<usize>;
    /// True if no consumer is attached at this moment.
    fn consumer_gone(&self) -> Result<bool> {
        self.is_taken(Seat::Consumer).map(|taken| !taken)
    }
}

/// The wake-ups of one ring: one for the consumer, one for each producer.
pub(crate) trait Wakeups: Roles {
    /// Posts one token.
    fn post(&self, bell: WakeTarget) -> Result<()>;
    /// Takes one token, or waits for it.
    fn wait(&self, bell: WakeTarget, timeout: Option<Duration>) -> Result<Waited>;
    /// The same at the consumer's bell while producers are there: [`Waited::Alone`] instead of a sleep if none
    /// is attached. When the time is over it may be either.
    fn wait_for_producers(&self, timeout: Option<Duration>) -> Result<Waited> {
        // Who leaves or dies after the question posts a token.
        if self.producers_gone()? {
            return Ok(Waited::Alone);
        }
        self.wait(WakeTarget::Consumer, timeout)
    }
    /// Takes every token that is there, without waiting.
    fn drain(&self, bell: WakeTarget) -> Result<()>;
    /// What the holder of a seat sleeps on, where that can be polled.
    fn poller(&self, _seat: Seat) -> Option<Arc<Poller>> {
        None
    }
}

/// The lock that a removal of the ring holds, and the end of the guard.
pub(crate) trait RemovalLock: Roles {
    /// Waits until nobody is removing the ring; false when the time is over.
    fn await_no_removal(&self, timeout: Duration) -> Result<bool>;
    /// Begins a removal: succeeds if nobody is attached (but the caller, if it is the consumer) and
    /// keeps everybody from attaching until it ends. False: somebody is there.
    fn begin_removal(&self, as_consumer: bool) -> Result<bool>;
    /// As [`begin_removal`](Self::begin_removal) by an outsider, and only if no creator is at work.
    fn begin_pruning(&self) -> Result<bool> {
        self.begin_removal(false)
    }
    /// True if nobody is attached, makes or removes the ring: a look that changes nothing.
    fn is_idle(&self) -> Result<bool> {
        Ok(self.producers_gone()? && self.consumer_gone()?)
    }
    /// Begins a removal whoever is attached, after any other removal has ended; false if that one does
    /// not end in time. Two at once could each take away what the other one, or a creator behind it,
    /// has just put there.
    fn begin_forced_removal(&self, timeout: Duration) -> Result<bool>;
    /// Begins a removal although the flag or the locks of another one stay as they are: that one was stopped, or
    /// a process that may write the guard has set them, which the kernel undoes only if it asked for that.
    /// Only for a caller that [may destroy](Self::may_destroy) the guard.
    fn override_removal(&self) -> Result<()>;
    /// Ends a removal without removing.
    fn abort_removal(&self) -> Result<()>;
    /// Whether [`destroy`](Self::destroy) is permitted to us; changes nothing.
    fn may_destroy(&self) -> Result<()> {
        Ok(())
    }
    /// Notes in the guard of a file whether the file has its name: a guard without one is of no use when its
    /// creator or remover was killed. Guards that are found with their ring need no such note.
    fn note_name(&self, _has_name: bool) {}
    /// Removes the guard's kernel objects: everybody who waits or asks gets [`GuardError::Removed`].
    fn destroy(&self) -> Result<()>;
}

/// What guards one ring.
pub(crate) trait Guard: Wakeups + RemovalLock {
    /// Counts this process among the users of a ring that goes with them, until the guard is dropped: the
    /// last one takes the guard away. [`GuardError::Removed`]: that has just happened.
    fn hold(&mut self) -> Result<()> {
        Ok(())
    }
    /// In a forked child: the same guard, with nothing of the parent's. `None`: it is to be found by what
    /// the superblock says.
    fn reopen(&self) -> Option<Box<dyn Guard>> {
        None
    }
}

/// Why the guard that a superblock names is not there for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mismatch {
    /// There is none.
    Missing,
    /// There is one, but it belongs to something else.
    Other,
    /// It is in another IPC namespace.
    Elsewhere,
    /// It looks like the ring's, but neither its owner nor root made it.
    Stranger,
    /// It may not be used.
    Denied(Refusal),
    /// The look itself failed.
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
    /// True if the ring has no guard that could be used here; false if it only could not be looked at.
    pub(crate) const fn is_lost(self) -> bool {
        !matches!(self, Self::Denied(_) | Self::Failed(_))
    }
}
