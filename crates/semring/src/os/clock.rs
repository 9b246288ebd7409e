//! Time: the monotonic clock for waiting, the real-time clock for records.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_MONOTONIC.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Sleeps for a time: for code that can only poll.
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
