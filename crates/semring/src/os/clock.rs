//! Time: monotonic for waiting, real for the record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_MONOTONIC.
pub(crate) fn now() -> Instant {
    Instant::now()
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
