//! How long the layers from here upwards wait for other processes, and how often they look. Tests and models do not
//! depend on these values.

use std::time::Duration;

/// How long a creator may take before its ring is reported as busy, and another creator or remover before this creator
/// gives up.
pub(crate) const CREATOR_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a remover may take before the ring is reported as in use.
pub(crate) const REMOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long others may take to make a ring's new semaphores, or to find that theirs are gone.
pub(crate) const RENEWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A maker of a guard waits for this long for another one that it can't exclude, because a reader has locked the makers'
/// byte; then it overtakes that one.
pub(crate) const OVERTAKE_AFTER: Duration = Duration::from_millis(100);

/// How long another maker of a pair may take between its two rings.
pub(crate) const PAIR_MAKER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a process that only inspects may have a segment mapped, on a very busy machine.
pub(crate) const INSPECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for the kernel to free the slot of a process that was just killed, or to close its other files after
/// the first one. The kernel takes about 50 ms to end a process of 1 GiB.
pub(crate) const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for one lane before all are checked again: its holder may be a live process that has not stored its
/// pid yet, while the lane of another dead process becomes free.
pub(crate) const LANE_TIMEOUT: Duration = Duration::from_millis(10);

/// The interval at which a lock or a flag of another process is checked that can't be waited for with a timeout.
pub(crate) const LOCK_CHECK_INTERVAL: Duration = Duration::from_micros(200);

/// The interval at which half a pair is checked.
pub(crate) const PAIR_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The length of a sleep if it is not certain that a peer will wake the sleeper.
pub(crate) const UNCERTAIN_SLEEP: Duration = Duration::from_millis(1);
