//! One way: how many messages arrive in a second.

use std::time::{Duration, Instant};

use crate::child::{Children, SIZE, Task};
use crate::machine::Places;
use crate::payload::{check, fill, word};
use crate::ways::{Job, Link, Spec, make};
use crate::{Result, machine};

/// The child's part.
pub(crate) fn send<L: Link>(mut link: L, count: u64) -> Result<()> {
    let mut bytes = vec![0; SIZE.get()];
    for number in 0..count {
        fill(&mut bytes, word(0, number));
        link.send(&bytes)?;
    }
    link.flush()
}

struct Receive {
    size: usize,
    count: u64,
}

impl Job for Receive {
    type Outcome = Duration;

    /// Time for all of them, from behind the first tenth, by when both sides are awake.
    fn run<L: Link>(self, mut link: L) -> Result<Duration> {
        let mut bytes = vec![0; self.size];
        let mut receive = |numbers: std::ops::Range<u64>| -> Result<()> {
            for number in numbers {
                link.receive(&mut bytes)?;
                if !check(&bytes, word(0, number)) {
                    return Err(format!("message {number} is not what was sent").into());
                }
            }
            Ok(())
        };
        let warm_up = self.count / 10;
        receive(0..warm_up)?;
        let start = Instant::now();
        receive(warm_up..self.count)?;
        let took = start.elapsed();
        Ok(took.mul_f64(self.count as f64 / (self.count - warm_up) as f64))
    }
}

/// Messages a second.
pub(crate) fn rate(spec: Spec, places: &Places, count: u64) -> Result<f64> {
    let job = Receive {
        size: spec.size,
        count,
    };
    let made = make(spec)?;
    // Not begun on our CPU, where it would have to wait for us.
    places.unpin()?;
    let children = Children::start(&made.spec, made.stdio, Some(places.peers), |_| Task::Send {
        count,
    })?;
    machine::pin(places.mine)?;
    let took = made.end.give(job)?;
    children.end()?;
    Ok(count as f64 / took.as_secs_f64())
}

/// How many messages take about this long.
pub(crate) fn count_for(spec: &Spec, places: &Places, round: Duration) -> Result<u64> {
    const FIRST: u64 = 1000;
    let guess = rate(spec.clone(), places, FIRST)?;
    // A second look: so few messages say little.
    let count = (guess * 0.01) as u64 + FIRST;
    let guess = rate(spec.clone(), places, count)?;
    Ok((guess * round.as_secs_f64()) as u64 + FIRST)
}
