//! Time: the monotonic clock for waiting, the real-time clock for records.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on CLOCK_MONOTONIC.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Sleeps for a time: for code that can only poll.
pub(crate) fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// When the kernel's clock ticked last, since 1970: its time for System V segments, in whole seconds of this.
pub(crate) fn last_tick() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the buffer is ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, time.as_mut_ptr()) };
    if super::check(result).is_err() {
        return Duration::from_nanos(realtime_ns());
    }
    // SAFETY: it was filled in.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos() as u64
}
