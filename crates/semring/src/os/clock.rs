//! Time: monotonic for waiting, real for the record.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_MONOTONIC.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos() as u64
}
