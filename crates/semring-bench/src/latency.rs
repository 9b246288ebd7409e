//! There and back, and waking a sleeper.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::Result;
use crate::machine::Places;
use crate::pair::Pair;
use crate::payload::{Message, check, fill, word};
use crate::task::{Found, Work};
use crate::ways::{Link, Spec};

/// The other process's part of a round trip.
pub(crate) fn echo<M: Message>(link: &mut impl Link<M>, size: usize, count: u64) -> Result<()> {
    let mut message = M::zeroes(size);
    for _ in 0..count {
        link.receive(&mut message)?;
        link.send(&message)?;
    }
    Ok(())
}

fn now_ns() -> Result<u64> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.num_nanoseconds() as u64)
}

/// The other process's part of waking a sleeper: the clock of this machine, at fixed times.
pub(crate) fn tick<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
    interval_us: u64,
) -> Result<()> {
    let mut message = M::zeroes(size);
    let start = now_ns()?;
    for number in 1..=count {
        let at = start + number * interval_us * 1000;
        let at = nix::sys::time::TimeSpec::nanoseconds(at as i64);
        let flags = ClockNanosleepFlags::TIMER_ABSTIME;
        while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &at).is_err() {}
        fill(message.words_mut(), now_ns()?);
        link.send(&message)?;
    }
    Ok(())
}

/// Nanoseconds up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Round trips from here.
pub(crate) fn volley<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
) -> Result<Histogram<u64>> {
    let mut message = M::zeroes(size);
    let mut times = histogram()?;
    let warm_up = count / 10;
    let mut last = Instant::now();
    for number in 0..count {
        fill(message.words_mut(), word(0, number));
        link.send(&message)?;
        fill(message.words_mut(), 0);
        link.receive(&mut message)?;
        if !check(message.words(), word(0, number)) {
            return Err(format!("answer {number} is not what was sent").into());
        }
        let now = Instant::now();
        if number >= warm_up {
            times.saturating_record((now - last).as_nanos() as u64);
        }
        last = now;
    }
    Ok(times)
}

/// Latencies, and the CPU that one message costs who waits for it.
pub(crate) fn awaken<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
) -> Result<(Histogram<u64>, Duration)> {
    let mut message = M::zeroes(size);
    let mut times = histogram()?;
    let used = || -> Result<i64> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
        Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
    };
    let before = used()?;
    for number in 0..count {
        link.receive(&mut message)?;
        let now = now_ns()?;
        let sent = message.first();
        if !check(message.words(), sent) || sent > now {
            return Err(format!("message {number} is not what was sent").into());
        }
        times.saturating_record(now - sent);
    }
    let micros = (used()? - before).max(0) as u64;
    Ok((times, Duration::from_micros(micros) / count as u32))
}

/// Round trips.
pub(crate) fn round_trips(spec: Spec, places: &Places, count: u64) -> Result<Histogram<u64>> {
    let pair = Pair::pinned(spec, places, |_| Work::Echo { count })?;
    match pair.measure(Work::Volley { count })? {
        Found::Times(times) => Ok(times),
        other => Err(format!("no times, but {other:?}").into()),
    }
}

/// A message at each interval to somebody who sleeps.
pub(crate) fn wake_ups(
    spec: Spec,
    places: &Places,
    count: u64,
    interval: Duration,
) -> Result<(Histogram<u64>, Duration)> {
    let interval_us = interval.as_micros() as u64;
    let pair = Pair::pinned(spec, places, |_| Work::Tick { count, interval_us })?;
    match pair.measure(Work::Awaken { count })? {
        Found::Awoken(times, cpu) => Ok((times, cpu)),
        other => Err(format!("no times, but {other:?}").into()),
    }
}
