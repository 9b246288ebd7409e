//! How a consumer keeps a distance from a producer that is sending.
//!
//! A consumer that is faster than its producer polls the cache line that the producer is writing. Each poll moves the
//! line to the consumer, and the producer has to fetch it back: both are slowed down to the rate of these transfers. At a
//! small distance each line moves once. So a consumer that catches up again and again pauses before it polls, as long as
//! a pause brings several messages at a time. A consumer that waits for a reply is not affected: no reply comes that
//! soon.

/// Found with fewer looks than this, a message was about to be written while the wait for it began.
const SOON: u32 = 2;
/// After this many such waits in a row the consumer backs off.
const CATCHES: u32 = 8;
/// Falling back was worth it if it brought this many messages.
const WORTH: u64 = 4;
/// How far to fall back, in pauses of the processor: 0.1 to 0.7 µs.
const PAUSES: u32 = 16;

/// Statistics of the last waits of a consumer.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Waits in a row that were over soon.
    catches: u32,
    /// Messages taken when the last wait began.
    taken: u64,
}

impl Backoff {
    /// How many pauses to make before the first look of a wait, when `taken` messages have been taken in all.
    pub(super) fn pauses(&mut self, taken: u64) -> u32 {
        let run = taken.wrapping_sub(std::mem::replace(&mut self.taken, taken));
        if self.catches < CATCHES {
            0
        } else if run < WORTH {
            self.catches = 0;
            0
        } else {
            PAUSES
        }
    }

    /// The wait is over after this many polls that found nothing.
    pub(super) fn found(&mut self, looks: u32) {
        if self.catches < CATCHES {
            self.catches = if looks < SOON { self.catches + 1 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_back_while_that_is_worth_it() {
        let mut backoff = Backoff::default();
        let mut taken = 0;
        let mut wait = |run, looks| {
            taken += run;
            let pauses = backoff.pauses(taken);
            backoff.found(looks);
            pauses
        };
        assert!((0..CATCHES).all(|_| wait(1, 0) == 0));
        // It had caught up each time; from now on it pauses, whatever the first poll finds.
        assert!((0..100).all(|_| wait(WORTH, SOON + 1) == PAUSES));
        assert_eq!(wait(WORTH - 1, 0), 0);
        assert_eq!(wait(WORTH, 0), 0, "from the beginning");
    }

    #[test]
    fn never_falls_back_from_answers() {
        let mut backoff = Backoff::default();
        for taken in 1..1000 {
            assert_eq!(backoff.pauses(taken), 0);
            // One in a while comes soon.
            backoff.found(if taken % u64::from(CATCHES) == 0 {
                SOON
            } else {
                0
            });
        }
    }
}
