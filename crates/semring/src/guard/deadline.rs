//! How long a call may wait.

use std::time::{Duration, Instant};

use crate::os::clock;

/// When a wait must end: never, or at a moment of CLOCK_MONOTONIC.
///
/// Every call named `…_deadline` accepts a [`Duration`], which counts from now on (one that the clock can't
/// represent is [`NEVER`](Self::NEVER)), or an [`Instant`], which several calls can share.
///
/// A call whose result is available succeeds even after its deadline. A deadline is not affected by setting the
/// clock, and the clock stops while the machine is suspended. Signals neither shorten nor prolong a wait; a process
/// that is stopped (SIGSTOP) beyond a deadline returns when it is continued.
///
/// ```
/// use semring::{Deadline, RecvError, spsc};
/// use std::time::{Duration, Instant};
///
/// let ring = spsc::Builder::memfd().create()?;
/// let mut consumer = ring.attach_consumer()?;
/// let timed_out = consumer.recv_deadline(Duration::from_millis(1));
/// assert_eq!(timed_out.unwrap_err(), RecvError::TimedOut);
///
/// ring.attach_producer()?.send(b"one")?;
/// let end = Instant::now() + Duration::from_secs(1);
/// assert_eq!(consumer.recv_deadline(end)?.to_vec(), b"one");
///
/// assert_eq!(Deadline::from(Duration::MAX), Deadline::NEVER);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// The time that is left is computed before each sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline: the call waits as long as it takes.
    pub const NEVER: Self = Self(None);

    /// The moment; `None` for [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// True if the moment has come.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.left().is_err()
    }

    /// `Err` if it has passed; `Ok(None)` if there is none.
    pub(crate) fn left(self) -> Result<Option<Duration>, ()> {
        let Some(end) = self.0 else { return Ok(None) };
        match end.checked_duration_since(clock::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(()),
        }
    }

    /// The earlier of two.
    pub(crate) fn or_earlier(self, moment: Instant) -> Self {
        Self(Some(self.0.map_or(moment, |end| end.min(moment))))
    }
}

impl From<Duration> for Deadline {
    fn from(timeout: Duration) -> Self {
        Self(clock::now().checked_add(timeout))
    }
}

impl From<Instant> for Deadline {
    fn from(end: Instant) -> Self {
        Self(Some(end))
    }
}

/// How long a call may wait, including not at all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    Try,
    Until(Deadline),
}

impl Patience {
    pub(crate) const FOREVER: Self = Self::Until(Deadline::NEVER);

    pub(crate) fn until(deadline: impl Into<Deadline>) -> Self {
        Self::Until(deadline.into())
    }

    /// True if there is no time left.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Try => true,
            Self::Until(deadline) => deadline.has_passed(),
        }
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_beyond_the_end_of_time_is_none() {
        let far = Deadline::from(Duration::MAX);
        assert_eq!((far, far.has_passed()), (Deadline::NEVER, false));
        assert_eq!(far.left(), Ok(None));
    }

    #[test]
    fn has_passed_at_its_moment() {
        assert!(Deadline::from(Duration::ZERO).has_passed());
        let past = Deadline::from(Instant::now());
        assert!(past.has_passed() && past.left().is_err());
        let future = Deadline::from(Duration::from_secs(3600));
        assert!(!future.has_passed() && future.left().is_ok_and(|left| left.is_some()));
    }

    #[test]
    fn the_earlier_of_two() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(Deadline::NEVER.or_earlier(now), Deadline::from(now));
        assert_eq!(Deadline::from(now).or_earlier(later), Deadline::from(now));
        assert_eq!(Deadline::from(later).or_earlier(now), Deadline::from(now));
    }

    #[test]
    fn patience_is_over_at_once_or_at_the_deadline() {
        assert!(Patience::Try.is_over());
        assert!(Patience::until(Duration::ZERO).is_over());
        assert!(!Patience::FOREVER.is_over());
    }
}
