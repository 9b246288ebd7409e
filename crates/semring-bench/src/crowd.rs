//! Many senders and one receiver, nobody pinned.

use std::time::{Duration, Instant};

use crate::Result;
use crate::child::{Children, SIZE, Task};
use crate::machine::Places;
use crate::payload::{check, fill, sender, word};
use crate::ways::{Job, Link, Spec, make};

/// The child's part: until it is killed.
pub(crate) fn flood<L: Link>(mut link: L, who: u64) -> Result<()> {
    let mut bytes = vec![0; SIZE.get()];
    for number in 0.. {
        fill(&mut bytes, word(who, number));
        link.send(&bytes)?;
    }
    Ok(())
}

/// What came in one window.
pub(crate) struct Count {
    /// Messages a second, of all.
    pub(crate) rate: f64,
    /// The largest share of any sender against the smallest; none if somebody brought nothing.
    pub(crate) spread: Option<f64>,
}

struct Listen {
    size: usize,
    senders: usize,
    window: Duration,
}

impl Job for Listen {
    type Outcome = Count;

    fn run<L: Link>(self, mut link: L) -> Result<Count> {
        let mut expected = vec![0u64; self.senders];
        let mut bytes = vec![0; self.size];
        let mut receive = |expected: &mut Vec<u64>| -> Result<()> {
            link.receive(&mut bytes)?;
            let (who, number) = sender(&bytes).ok_or("a message of less than 8 bytes")?;
            let next = expected.get_mut(who as usize).ok_or("nobody's message")?;
            if number != *next || !check(&bytes, word(who, number)) {
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
        while start.elapsed() < self.window {
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
}

/// Counts what so many senders bring within a window.
pub(crate) fn count(spec: Spec, places: &Places, window: Duration) -> Result<Count> {
    let job = Listen {
        size: spec.size,
        senders: spec.senders,
        window,
    };
    let made = make(spec)?;
    places.unpin()?;
    let children = Children::start(&made.spec, made.stdio, None, |who| Task::Flood { who })?;
    let count = made.end.give(Hold(job, Some(children)))?;
    Ok(count)
}

/// Ends the senders before the way: they would say that it broke.
struct Hold(Listen, Option<Children>);

impl Job for Hold {
    type Outcome = Count;

    fn run<L: Link>(mut self, mut link: L) -> Result<Count> {
        let count = self.0.run(Borrowed(&mut link));
        drop(self.1.take());
        count
    }
}

struct Borrowed<'a, L>(&'a mut L);

impl<L: Link> Link for Borrowed<'_, L> {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.send(bytes)
    }

    #[inline]
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.0.receive(bytes)
    }
}
