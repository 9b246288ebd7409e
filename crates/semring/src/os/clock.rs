//! Time: monotonic for waiting, real for the record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_MONOTONIC.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Something that is to be done now and then, and not more often than so.
#[derive(Debug, Default)]
pub(crate) struct Rarely(Option<Instant>);

impl Rarely {
    /// True if it was not done for so long; then it is taken for done.
    pub(crate) fn is_due(&mut self, interval: Duration) -> bool {
        // Models have no time.
        if cfg!(semring_loom) {
            return true;
        }
        let now = now();
        let due = self
            .0
            .is_none_or(|last| now.duration_since(last) >= interval);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Lets some time pass, for those who can only ask again.
pub(crate) fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// Nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos() as u64
}
