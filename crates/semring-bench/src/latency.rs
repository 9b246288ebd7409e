//! There and back, and waking a sleeper.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::child::{Children, SIZE, Task};
use crate::machine::Places;
use crate::payload::{check, fill, sender, word};
use crate::ways::{Job, Link, Spec, make};
use crate::{Result, machine};

/// The child's part of a round trip.
pub(crate) fn echo<L: Link>(mut link: L, count: u64) -> Result<()> {
    let mut bytes = vec![0; SIZE.get()];
    for _ in 0..count {
        link.receive(&mut bytes)?;
        link.send(&bytes)?;
    }
    Ok(())
}

fn now_ns() -> Result<u64> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.num_nanoseconds() as u64)
}

/// The child's part of waking a sleeper: the clock of this machine, at fixed times.
pub(crate) fn tick<L: Link>(mut link: L, count: u64, interval_us: u64) -> Result<()> {
    let mut bytes = vec![0; SIZE.get()];
    let start = now_ns()?;
    for number in 1..=count {
        let at = start + number * interval_us * 1000;
        let at = nix::sys::time::TimeSpec::nanoseconds(at as i64);
        let flags = ClockNanosleepFlags::TIMER_ABSTIME;
        while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &at).is_err() {}
        fill(&mut bytes, now_ns()?);
        link.send(&bytes)?;
    }
    Ok(())
}

/// Nanoseconds up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

struct Volley {
    size: usize,
    count: u64,
}

impl Job for Volley {
    type Outcome = Histogram<u64>;

    fn run<L: Link>(self, mut link: L) -> Result<Histogram<u64>> {
        let mut bytes = vec![0; self.size];
        let mut times = histogram()?;
        let warm_up = self.count / 10;
        let mut last = Instant::now();
        for number in 0..self.count {
            fill(&mut bytes, word(0, number));
            link.send(&bytes)?;
            bytes.fill(0);
            link.receive(&mut bytes)?;
            if !check(&bytes, word(0, number)) {
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
}

struct Awaken {
    size: usize,
    count: u64,
}

impl Job for Awaken {
    type Outcome = (Histogram<u64>, Duration);

    /// Latencies, and the CPU that one message costs who waits for it.
    fn run<L: Link>(self, mut link: L) -> Result<(Histogram<u64>, Duration)> {
        let mut bytes = vec![0; self.size];
        let mut times = histogram()?;
        let used = || -> Result<i64> {
            let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
            Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
        };
        let before = used()?;
        for number in 0..self.count {
            link.receive(&mut bytes)?;
            let now = now_ns()?;
            let (high, low) = sender(&bytes).ok_or("a message of less than 8 bytes")?;
            let sent = high << 48 | low;
            if !check(&bytes, sent) || sent > now {
                return Err(format!("message {number} is not what was sent").into());
            }
            times.saturating_record(now - sent);
        }
        let micros = (used()? - before).max(0) as u64;
        Ok((times, Duration::from_micros(micros) / self.count as u32))
    }
}

/// Round trips.
pub(crate) fn round_trips(spec: Spec, places: &Places, count: u64) -> Result<Histogram<u64>> {
    let job = Volley {
        size: spec.size,
        count,
    };
    let made = make(spec)?;
    places.unpin()?;
    let children = Children::start(&made.spec, made.stdio, Some(places.peers), |_| Task::Echo {
        count,
    })?;
    machine::pin(places.mine)?;
    let times = made.end.give(job)?;
    children.end()?;
    Ok(times)
}

/// A message at each interval to somebody who sleeps.
pub(crate) fn wake_ups(
    spec: Spec,
    places: &Places,
    count: u64,
    interval: Duration,
) -> Result<(Histogram<u64>, Duration)> {
    let job = Awaken {
        size: spec.size,
        count,
    };
    let task = Task::Tick {
        count,
        interval_us: interval.as_micros() as u64,
    };
    let made = make(spec)?;
    places.unpin()?;
    let children = Children::start(&made.spec, made.stdio, Some(places.peers), |_| task)?;
    machine::pin(places.mine)?;
    let outcome = made.end.give(job)?;
    children.end()?;
    Ok(outcome)
}
