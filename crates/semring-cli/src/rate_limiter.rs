//! Limits a transfer to this many bytes a second.

use std::time::{Duration, Instant};

/// A bucket that fills with time and is emptied by what moves. It holds a tenth of a second's worth; a
/// message may overdraw it, and the next one then waits.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bytes_per_second: f64,
    burst: f64,
    balance: f64,
    filled: Instant,
}

impl RateLimiter {
    pub(crate) fn new(bytes_per_second: u64, now: Instant) -> Self {
        let rate = bytes_per_second as f64;
        let burst = (rate / 10.0).max(1.0);
        Self {
            bytes_per_second: rate,
            burst,
            balance: burst,
            filled: now,
        }
    }

    /// How many bytes may go in one piece, so that they go evenly.
    pub(crate) fn piece(&self) -> usize {
        self.burst as usize
    }

    /// Notes bytes that went.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.balance -= bytes as f64;
    }

    /// How long to wait before anything more may go.
    pub(crate) fn delay(&mut self, now: Instant) -> Duration {
        let earned =
            now.saturating_duration_since(self.filled).as_secs_f64() * self.bytes_per_second;
        self.balance = (self.balance + earned).min(self.burst);
        self.filled = now;
        if self.balance > 0.0 {
            return Duration::ZERO;
        }
        // A little more than nothing must be there, or the next look finds exactly zero.
        let seconds = (1.0 - self.balance) / self.bytes_per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_a_second_worth_pass() {
        let start = Instant::now();
        let mut pace = RateLimiter::new(1000, start);
        let mut now = start;
        let mut passed = 0;
        while now < start + Duration::from_secs(10) {
            let delay = pace.delay(now);
            if delay.is_zero() {
                pace.spend(30);
                passed += 30;
            }
            now += delay;
        }
        assert!((10_000..=10_200).contains(&passed), "{passed}");
    }

    #[test]
    fn a_long_message_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut pace = RateLimiter::new(1000, start);
        assert_eq!(pace.delay(start), Duration::ZERO);
        pace.spend(5100);
        let delay = pace.delay(start);
        assert!((4.9..5.1).contains(&delay.as_secs_f64()), "{delay:?}");
        assert_eq!(pace.delay(start + delay), Duration::ZERO);
    }
}
