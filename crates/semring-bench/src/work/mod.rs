//! The task and the measurement of one end of a way. Each workload has a sending and a receiving half.

mod latency;
mod one_way;
mod producers;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::link::Link;
use crate::payload::Message;

pub(crate) use producers::Count;

/// Work for one end of a way. Opaque to a way: its [`End`](crate::End) runs it over a [`Link`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Bytes of each message.
    pub(crate) size: usize,
    pub(crate) work: Work,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// One way: sends `count` messages.
    Send { count: u64 },
    /// One way: receives `count` messages.
    Receive { count: u64 },
    /// Sends `count` messages whose words all differ.
    SendScrambled { count: u64 },
    /// Receives `count` messages of `SendScrambled`.
    ReceiveScrambled { count: u64 },
    /// Round trip: sends `count` messages back.
    Echo { count: u64 },
    /// Round trip: sends `count` messages, and waits for the answer to each.
    Volley { count: u64 },
    /// Wake-up: sends its clock `count` times, at this interval.
    Tick { count: u64, interval_us: u64 },
    /// Wake-up: receives `count` clocks.
    Awaken { count: u64 },
    /// Several senders: sends until it is stopped, as this sender.
    Flood { sender: u64 },
    /// Several senders: receives from all of them for this time.
    Listen { senders: usize, window: Duration },
}

/// The result of a [`Task`].
#[derive(Debug)]
#[allow(missing_docs, reason = "opaque: only the runner reads it")]
pub struct Outcome(pub(crate) Measured);

#[derive(Debug)]
pub(crate) enum Measured {
    Nothing,
    Duration(Duration),
    Latencies(Histogram<u64>),
    /// Latencies, and the receiver's CPU time for each message.
    WakeUps(Histogram<u64>, Duration),
    Count(Count),
}

impl Task {
    /// Runs the work over this link. Generic, so that no call on the way is indirect.
    pub(crate) fn run<M: Message>(&self, link: &mut impl Link<M>) -> Result<Outcome> {
        let size = self.size;
        Ok(Outcome(match self.work {
            Work::Send { count } => {
                one_way::send(link, size, count)?;
                Measured::Nothing
            }
            Work::Receive { count } => Measured::Duration(one_way::receive(link, size, count)?),
            Work::SendScrambled { count } => {
                one_way::send_scrambled(link, size, count)?;
                Measured::Nothing
            }
            Work::ReceiveScrambled { count } => {
                one_way::receive_scrambled(link, size, count)?;
                Measured::Nothing
            }
            Work::Echo { count } => {
                latency::echo(link, size, count)?;
                Measured::Nothing
            }
            Work::Volley { count } => Measured::Latencies(latency::volley(link, size, count)?),
            Work::Tick { count, interval_us } => {
                latency::tick(link, size, count, interval_us)?;
                Measured::Nothing
            }
            Work::Awaken { count } => {
                let (latencies, cpu) = latency::awaken(link, size, count)?;
                Measured::WakeUps(latencies, cpu)
            }
            Work::Flood { sender } => {
                producers::flood(link, size, sender)?;
                Measured::Nothing
            }
            Work::Listen { senders, window } => {
                Measured::Count(producers::listen(link, size, senders, window)?)
            }
        }))
    }
}
