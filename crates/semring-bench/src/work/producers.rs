//! Several senders and one receiver.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::link::Link;
use crate::payload::{Message, check, fill, origin, word};

/// Sends until the process or thread is stopped.
pub(crate) fn flood<M: Message>(link: &mut impl Link<M>, size: usize, sender: u64) -> Result<()> {
    let mut message = M::zeroes(size);
    for number in 0.. {
        fill(message.words_mut(), word(sender, number));
        link.send(&message)?;
    }
    Ok(())
}

/// The messages of one window.
#[derive(Debug)]
pub(crate) struct Count {
    /// Messages a second, of all senders together.
    pub(crate) rate: f64,
    /// The largest share of any sender divided by the smallest. Absent if a sender sent nothing.
    pub(crate) spread: Option<f64>,
}

/// Counts the messages of a window, which begins after the first message of each sender.
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
        let (sender, number) = origin(message.first());
        let next = expected
            .get_mut(sender as usize)
            .ok_or("a message of an unknown sender")?;
        if number != *next || !check(message.words(), word(sender, number)) {
            return Err(format!("sender {sender}: message {number} in place of {next}").into());
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
    let counts: Vec<u64> = expected
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    let least = counts.iter().min().copied().unwrap_or(0);
    Ok(Count {
        rate: counts.iter().sum::<u64>() as f64 / took.as_secs_f64(),
        spread: (least > 0).then_some(most as f64 / least as f64),
    })
}
