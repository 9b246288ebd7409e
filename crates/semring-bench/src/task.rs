//! What one end of a way does, and what comes of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::crowd::Count;
use crate::payload::Message;
use crate::ways::Link;
use crate::{Result, crowd, latency, one_way};

/// Work for one end of a way. Opaque to a way: its [`End`](crate::End) does it over a [`Link`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Bytes of each message.
    pub(crate) size: usize,
    pub(crate) work: Work,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Sends so many messages.
    Send { count: u64 },
    /// Sends back so many messages.
    Echo { count: u64 },
    /// Sends its clock so often, at such intervals.
    Tick { count: u64, interval_us: u64 },
    /// Sends until it is stopped, as the sender of this number.
    Flood { who: u64 },
    /// Receives so many messages.
    Receive { count: u64 },
    /// Sends so many messages, and waits for the answer of each.
    Volley { count: u64 },
    /// Receives so many clocks.
    Awaken { count: u64 },
    /// Receives for so long what so many send.
    Listen { senders: usize, window: Duration },
}

/// What came of a [`Task`].
#[derive(Debug)]
#[allow(missing_docs, reason = "opaque: only the plan looks into it")]
pub struct Outcome(pub(crate) Found);

#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Took(Duration),
    Times(Histogram<u64>),
    Awoken(Histogram<u64>, Duration),
    Count(Count),
}

impl Task {
    /// Does the work over this link. Generic, so that nothing on the way is called through a table.
    pub(crate) fn run<M: Message>(&self, link: &mut impl Link<M>) -> Result<Outcome> {
        let size = self.size;
        Ok(Outcome(match self.work {
            Work::Send { count } => {
                one_way::send(link, size, count)?;
                Found::Nothing
            }
            Work::Echo { count } => {
                latency::echo(link, size, count)?;
                Found::Nothing
            }
            Work::Tick { count, interval_us } => {
                latency::tick(link, size, count, interval_us)?;
                Found::Nothing
            }
            Work::Flood { who } => {
                crowd::flood(link, size, who)?;
                Found::Nothing
            }
            Work::Receive { count } => Found::Took(one_way::receive(link, size, count)?),
            Work::Volley { count } => Found::Times(latency::volley(link, size, count)?),
            Work::Awaken { count } => {
                let (times, cpu) = latency::awaken(link, size, count)?;
                Found::Awoken(times, cpu)
            }
            Work::Listen { senders, window } => {
                Found::Count(crowd::listen(link, size, senders, window)?)
            }
        }))
    }
}
