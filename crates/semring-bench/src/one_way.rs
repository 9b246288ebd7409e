//! One way: how many messages arrive in a second.

use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Places;
use crate::pair::Pair;
use crate::task::{Found, Work};
use crate::ways::{Link, Spec};

/// The other process's part.
pub(crate) fn send<L: Link>(link: &mut L, size: usize, count: u64) -> Result<()> {
    let mut bytes = vec![0; size];
    link.send_numbers(0..count, &mut bytes)?;
    link.flush()
}

/// Time for all of them, from behind the first tenth, by when both sides are awake.
pub(crate) fn receive<L: Link>(link: &mut L, size: usize, count: u64) -> Result<Duration> {
    let mut bytes = vec![0; size];
    let warm_up = count / 10;
    link.receive_numbers(0..warm_up, &mut bytes)?;
    let start = Instant::now();
    link.receive_numbers(warm_up..count, &mut bytes)?;
    let took = start.elapsed();
    Ok(took.mul_f64(count as f64 / (count - warm_up) as f64))
}

/// Messages a second.
pub(crate) fn rate(spec: Spec, places: &Places, count: u64) -> Result<f64> {
    let pair = Pair::pinned(spec, places, |_| Work::Send { count })?;
    match pair.measure(Work::Receive { count })? {
        Found::Took(took) => Ok(count as f64 / took.as_secs_f64()),
        other => Err(format!("not a time, but {other:?}").into()),
    }
}

/// How many messages take about this long.
pub(crate) fn count_for(spec: &Spec, places: &Places, round: Duration) -> Result<u64> {
    const FIRST: u64 = 1000;
    /// Nothing is faster; but so few messages may come in no time.
    const MOST: f64 = 1e9;
    let guess = |count| Ok::<_, crate::Error>(rate(spec.clone(), places, count)?.min(MOST));
    let after = |rate: f64, seconds: f64| (rate * seconds) as u64 + FIRST;
    // Further looks: so few messages say little, and a machine that is busy for a moment makes them too few
    // for the round, which would then measure how fast a full queue is emptied.
    let first = guess(FIRST)?;
    let second = guess(after(first, 0.01))?;
    let third = guess(after(second, 0.01))?;
    Ok(after(second.max(third), round.as_secs_f64()))
}
