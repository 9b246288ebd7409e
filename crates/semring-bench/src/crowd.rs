//! Many senders and one receiver, nobody pinned.

use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Places;
use crate::pair::Pair;
use crate::payload::{Message, check, fill, sender, word};
use crate::task::{Found, Work};
use crate::ways::{Link, Spec};

/// A sender's part: until it is stopped.
pub(crate) fn flood<M: Message>(link: &mut impl Link<M>, size: usize, who: u64) -> Result<()> {
    let mut message = M::zeroes(size);
    for number in 0.. {
        fill(message.words_mut(), word(who, number));
        link.send(&message)?;
    }
    Ok(())
}

/// What came in one window.
#[derive(Debug)]
pub(crate) struct Count {
    /// Messages a second, of all.
    pub(crate) rate: f64,
    /// The largest share of any sender against the smallest; none if somebody brought nothing.
    pub(crate) spread: Option<f64>,
}

/// Receives for so long, from when everybody was heard.
pub(crate) fn listen<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    senders: usize,
    window: Duration,
) -> Result<Count> {
    let mut expected = vec![0u64; senders];
    let mut message = M::zeroes(size);
    let mut receive = |expected: &mut Vec<u64>| -> Result<()> {
        link.receive(&mut message)?;
        let (who, number) = sender(message.first());
        let next = expected.get_mut(who as usize).ok_or("nobody's message")?;
        if number != *next || !check(message.words(), word(who, number)) {
            return Err(format!("sender {who}: {number} in place of {next}").into());
        }
        *next += 1;
        Ok(())
    };
    while expected.contains(&0) {
        receive(&mut expected)?;
    }
    let before = expected.clone();
    let start = Instant::now();
    while start.elapsed() < window {
        for _ in 0..64 {
            receive(&mut expected)?;
        }
    }
    let took = start.elapsed();
    let came: Vec<u64> = expected.iter().zip(before).map(|(n, b)| n - b).collect();
    let most = came.iter().max().copied().unwrap_or(0);
    let least = came.iter().min().copied().unwrap_or(0);
    Ok(Count {
        rate: came.iter().sum::<u64>() as f64 / took.as_secs_f64(),
        spread: (least > 0).then_some(most as f64 / least as f64),
    })
}

/// Counts what so many senders bring within a window.
pub(crate) fn count(spec: Spec, places: &Places, window: Duration) -> Result<Count> {
    let senders = spec.senders;
    let pair = Pair::free(spec, places, |who| Work::Flood { who })?;
    match pair.measure_and_stop(Work::Listen { senders, window })? {
        Found::Count(count) => Ok(count),
        other => Err(format!("no count, but {other:?}").into()),
    }
}
