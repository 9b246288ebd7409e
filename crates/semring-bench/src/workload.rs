//! The workloads by name, and the constants that both sides of one must agree on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The work of the two processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Workload {
    /// As many messages as possible, one way.
    OneWay,
    /// One message there and back, again and again.
    RoundTrip,
    /// One message each millisecond to a process that waits for it.
    WakeUp,
    /// Several senders, one receiver, no process pinned.
    Producers,
}

impl Workload {
    /// All workloads, in the order of the report.
    pub const ALL: [Self; 4] = [Self::OneWay, Self::RoundTrip, Self::WakeUp, Self::Producers];

    /// The heading of its figures.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OneWay => "One way",
            Self::RoundTrip => "There and back",
            Self::WakeUp => "Waking a sleeper",
            Self::Producers => "Several senders",
        }
    }
}

/// Bytes of a message in workloads that do not compare sizes.
pub(crate) const SMALL_BYTES: usize = 64;
/// Wake-ups in a round.
pub(crate) const WAKE_UPS: u64 = 200;
/// Time between two wake-ups.
pub(crate) const WAKE_INTERVAL: Duration = Duration::from_millis(1);
