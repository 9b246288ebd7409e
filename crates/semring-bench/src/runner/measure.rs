//! One round of each workload over a way.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::pair::Pair;
use crate::error::Result;
use crate::machine::Cpus;
use crate::ways::Spec;
use crate::work::{Count, Measured, Work};

/// Messages that a way must carry before it is measured.
const VERIFIED: u64 = 2000;

/// One way: messages a second.
pub(crate) fn rate(spec: Spec, cpus: &Cpus, count: u64) -> Result<f64> {
    let pair = Pair::pinned(spec, cpus, |_| Work::Send { count })?;
    match pair.measure(Work::Receive { count })? {
        Measured::Duration(took) => Ok(count as f64 / took.as_secs_f64()),
        other => Err(unexpected(&other)),
    }
}

/// Fails unless a way carries [`VERIFIED`] messages in order whose words all differ.
pub(crate) fn verify(spec: Spec, cpus: &Cpus) -> Result<()> {
    let count = VERIFIED;
    let pair = Pair::pinned(spec, cpus, |_| Work::SendScrambled { count })?;
    match pair.measure(Work::ReceiveScrambled { count })? {
        Measured::Nothing => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// One way: the number of messages that take about as long as `round`.
pub(crate) fn count_for(spec: &Spec, cpus: &Cpus, round: Duration) -> Result<u64> {
    const FIRST: u64 = 1000;
    /// No way is faster; but 1000 messages may take no measurable time.
    const MAX_RATE: f64 = 1e9;
    let guess =
        |count| Ok::<_, crate::error::Error>(rate(spec.clone(), cpus, count)?.min(MAX_RATE));
    let count = |rate: f64, seconds: f64| (rate * seconds) as u64 + FIRST;
    // The first guess is from few messages. If the machine is busy during it the count comes out too small,
    // and the round would measure how fast a full queue is emptied: so there are two more guesses.
    let first = guess(FIRST)?;
    let second = guess(count(first, 0.01))?;
    let third = guess(count(second, 0.01))?;
    Ok(count(second.max(third), round.as_secs_f64()))
}

/// Round trips: their latencies.
pub(crate) fn latencies(spec: Spec, cpus: &Cpus, count: u64) -> Result<Histogram<u64>> {
    let pair = Pair::pinned(spec, cpus, |_| Work::Echo { count })?;
    match pair.measure(Work::Volley { count })? {
        Measured::Latencies(latencies) => Ok(latencies),
        other => Err(unexpected(&other)),
    }
}

/// A message at each interval to a sleeper: latencies, and its CPU time for each message.
pub(crate) fn wake_ups(
    spec: Spec,
    cpus: &Cpus,
    count: u64,
    interval: Duration,
) -> Result<(Histogram<u64>, Duration)> {
    let interval_us = interval.as_micros() as u64;
    let pair = Pair::pinned(spec, cpus, |_| Work::Tick { count, interval_us })?;
    match pair.measure(Work::Awaken { count })? {
        Measured::WakeUps(latencies, cpu) => Ok((latencies, cpu)),
        other => Err(unexpected(&other)),
    }
}

/// Several senders: what arrives from them within a window.
pub(crate) fn producers(spec: Spec, cpus: &Cpus, window: Duration) -> Result<Count> {
    let senders = spec.senders;
    let pair = Pair::unpinned(spec, cpus, |sender| Work::Flood { sender })?;
    match pair.measure_and_stop(Work::Listen { senders, window })? {
        Measured::Count(count) => Ok(count),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(measured: &Measured) -> crate::error::Error {
    format!("the work measured something else: {measured:?}").into()
}
