//! Round trips, and waking a sleeper.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::error::{Result, wrong_content};
use crate::link::Link;
use crate::payload::{Message, check, fill, word};

/// Sends each message back.
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

/// Sends this machine's clock at fixed times.
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

/// For nanoseconds up to a minute, with three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Sends a message and receives the answer, `count` times. The first tenth is not recorded.
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
            return Err(format!("answer {number} differs from the one sent").into());
        }
        let now = Instant::now();
        if number >= warm_up {
            times.saturating_record((now - last).as_nanos() as u64);
        }
        last = now;
    }
    Ok(times)
}

/// Receives the clocks of [`tick`]: their latencies, and the CPU time of this thread for each message.
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
            return Err(wrong_content(number));
        }
        times.saturating_record(now - sent);
    }
    let micros = (used()? - before).max(0) as u64;
    Ok((times, Duration::from_micros(micros) / count as u32))
}
