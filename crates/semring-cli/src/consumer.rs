//! `semring-consumer`: a ring to stdout.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use semring::any::{Consumer, Ring};
use semring::{Address, RecvError, RemoveError, UnusedRing};

use crate::args::{self, ConsumerArgs};
use crate::attach::{Left, attach, leave, mention_kept};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::report::{self, Producers, Report, Stats};
use crate::signals::{self, Signals};
use crate::sink::Sink;
use crate::units::count;

const PROGRAM: &str = "semring-consumer";

/// How often a consumer that waits for messages looks whether its own reader is still there.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the command.
pub fn main() -> ExitCode {
    signals::keep_file_size_signal_away();
    report::end(PROGRAM, run())
}

fn run() -> Result<u8, Failure> {
    let args: ConsumerArgs = args::parse(std::env::args_os())?;
    let mut report = Report::new(PROGRAM, &args.manner);
    let mut stats = None;
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return Err(Failure::of("signals", &error)),
    };
    let mut was_replaced = false;
    let result = loop {
        match transfer(&args, &mut report, &signals, was_replaced, &mut stats) {
            Ok(Ended::Replaced) => was_replaced = true,
            Ok(Ended::Done(code)) => break Ok(code),
            Err(failure) => break Err(failure),
        }
    };
    report.finish(&args.ring.shown_address(), stats.as_ref(), result)
}

/// How a transfer ended.
enum Ended {
    Done(u8),
    /// Before it began: the ring was replaced.
    Replaced,
}

/// From the ring to stdout; `stats` has the figures if it came to a transfer.
fn transfer(
    args: &ConsumerArgs,
    report: &mut Report,
    signals: &Signals,
    was_replaced: bool,
    stats: &mut Option<Stats>,
) -> Result<Ended, Failure> {
    let output = Output::new(signals, args.manner.timeout())?;
    let (ring, consumer) = attach(
        &args.ring,
        |builder| {
            let builder = builder.unused_ring(UnusedRing::ReplaceIdle);
            builder.linger(args.linger.unwrap_or_default())
        },
        &args.manner,
        report,
        signals,
        was_replaced,
        Ring::attach_consumer,
    )?;
    signals.interrupts(consumer.interrupter());
    let died_before = died(&ring);
    let began = Instant::now();
    let mut receiving = Receiving {
        sink: Sink::new(args, report, &ring, output, began),
        args,
        report,
        signals,
        ring: &ring,
        // Of a ring from which no consumer has read, all drops are in this stream.
        lost_before: if consumer.received_messages() == 0 {
            0
        } else {
            lost(&ring)
        },
        died: 0,
        consumer,
        moved: began,
        ended: false,
        damaged: false,
    };
    let stop = receiving.receive();
    if matches!(stop, Stop::Replaced) {
        return Ok(Ended::Replaced);
    }
    let Receiving {
        sink,
        consumer,
        damaged,
        died: mut deaths,
        ..
    } = receiving;
    if matches!(stop, Stop::Counted) {
        // Those of streams whose end was not reached.
        let since = died(&ring).saturating_sub(died_before);
        if since > deaths && !args.ignore_deaths {
            report.error(deaths_of(since - deaths, ring.address()));
        }
        deaths = deaths.max(since);
    }
    let totals = sink.totals;
    let figures = Stats::new(totals, began, consumer.wait_stats());
    report.moved(&totals);
    report.end_progress();
    let interrupted = matches!(stop, Stop::Signal);
    let result = finish(args, report, &ring, consumer, stop);
    // Also of a ring that is removed by now: our mapping outlives it.
    let producers = ring.info().ok().map(|info| Producers {
        finished_producers: info.finished_producers(),
        died_producers: info.died_producers(),
    });
    *stats = Some(figures.with_producers(producers));
    let code = match signals.caught() {
        Some(signal) if interrupted => Err(Failure::by_signal(signal)),
        _ if (damaged || (deaths > 0 && !args.ignore_deaths)) && result == Ok(exit::DONE) => {
            Ok(exit::DAMAGED)
        }
        _ => result,
    };
    code.map(Ended::Done)
}

/// Why a transfer ended.
pub(crate) enum Stop {
    /// The producers are gone and the ring is drained (and removed, if this program may do so).
    EndOfStream,
    /// Another process named other settings for the ring, which no producer had used: it is to be opened again.
    Replaced,
    /// The number of messages given by --count.
    Counted,
    /// The reader of stdout is gone.
    ReaderGone,
    Signal,
    TimedOut,
    Failed(Failure),
}

/// Detaches, removes the ring if this program may do so, reports unread messages; returns the exit
/// code.
fn finish(
    args: &ConsumerArgs,
    report: &Report,
    ring: &Ring,
    consumer: Consumer,
    stop: Stop,
) -> Result<u8, Failure> {
    let discards = match stop {
        Stop::EndOfStream => return Ok(exit::DONE),
        Stop::ReaderGone => true,
        Stop::Counted | Stop::Signal | Stop::TimedOut => args.discard_unread,
        Stop::Failed(_) | Stop::Replaced => false,
    };
    // A producer that is still attached gets a broken pipe, so it sees that not all was read.
    if discards {
        discard(args, report, ring, consumer);
    } else {
        drop(consumer);
    }
    let may_remove = ring.is_auto_removed() && !args.keep;
    if let Left::Unread(unread) = leave(ring, may_remove, report) {
        mention_kept(ring, unread, report);
    }
    match stop {
        Stop::ReaderGone => Err(Failure::broken_pipe()),
        Stop::TimedOut => Err(Failure::new(exit::TIMED_OUT, "timed out: nothing moved")),
        Stop::Failed(failure) => Err(failure),
        Stop::EndOfStream | Stop::Counted | Stop::Signal | Stop::Replaced => Ok(exit::DONE),
    }
}

/// Closes the ring: producers end, and unread messages are discarded. With `--discard-unread` they are taken
/// out also of a ring that stays.
fn discard(args: &ConsumerArgs, report: &Report, ring: &Ring, mut consumer: Consumer) {
    if args.discard_unread {
        // No more than are there now: producers may go on sending.
        let unread = ring.info().map_or(0, |info| info.unread_messages());
        let mut discarded = 0;
        while discarded < unread {
            let Ok(mut batch) = consumer.try_recv_batch() else {
                break;
            };
            while batch.next_message().is_some() {
                discarded += 1;
            }
            batch.release();
        }
        if discarded > 0 {
            let messages = count(discarded, "unread message");
            report.mention(format_args!("discarded {messages} of {}", ring.address()));
        }
    }
    consumer.close();
}

/// Producers that died since the ring was made.
fn died(ring: &Ring) -> u64 {
    ring.info().map_or(0, |info| info.died_producers())
}

/// The message about producers that died.
fn deaths_of(died: u64, address: &Address) -> String {
    let producers = count(died, "producer");
    format!("{producers} of {address} died; the stream may be truncated")
}

/// Messages that a policy dropped so far.
fn lost(ring: &Ring) -> u64 {
    ring.info().map_or(0, |info| {
        info.lanes
            .iter()
            .map(|lane| lane.lost_messages)
            .fold(0, u64::wrapping_add)
    })
}

/// A transfer under way.
struct Receiving<'a> {
    args: &'a ConsumerArgs,
    report: &'a Report,
    signals: &'a Signals,
    ring: &'a Ring,
    consumer: Consumer,
    sink: Sink<'a>,
    /// When something moved last; kept only where it matters.
    moved: Instant,
    /// The stream has ended, but a process was attached when the ring was to be removed.
    ended: bool,
    /// Something was damaged or lost.
    damaged: bool,
    lost_before: u64,
    /// Producers of the streams whose end was received that died.
    died: u64,
}

impl Receiving<'_> {
    fn receive(&mut self) -> Stop {
        loop {
            if self.signals.caught().is_some() {
                return Stop::Signal;
            }
            let wanted = self
                .args
                .count
                .map(|count| count - self.sink.totals.messages.min(count));
            if wanted == Some(0) {
                return Stop::Counted;
            }
            if let Err(stop) = self.sink.keep_pace(self.signals) {
                return stop;
            }
            if let Some(lane) = self.consumer.continued_lane() {
                // The predecessor was killed inside a line.
                if let Err(stop) = self.long_line(lane) {
                    return stop;
                }
                continue;
            }
            let received = match self.longest_wait() {
                None => self.consumer.recv_batch(),
                Some(time) => self.consumer.recv_batch_deadline(time),
            };
            let limit = wanted.unwrap_or(u64::MAX);
            let result = match received.map(|batch| self.sink.pass_on(batch, limit)) {
                Ok(result) => result,
                Err(error) => self.no_message(error),
            };
            let result = result.and_then(|()| self.record_movement());
            let result = match (result, self.sink.part_in.take()) {
                (Ok(()), Some(lane)) => self.long_line(lane),
                (result, _) => result,
            };
            if let Err(stop) = result {
                return stop;
            }
        }
    }

    /// Writes a line that comes in parts: until it ends, nothing of other lanes.
    fn long_line(&mut self, lane: usize) -> Result<(), Stop> {
        loop {
            if self.signals.caught().is_some() {
                return Err(Stop::Signal);
            }
            self.sink.keep_pace(self.signals)?;
            let wait = self.longest_wait();
            let continues = match self.pass_on_part(lane, wait) {
                Ok(continues) => continues?,
                Err(RecvError::LaneEnded) => {
                    self.damaged = true;
                    self.sink.end_line()?;
                    let address = self.ring.address();
                    self.report.error(format_args!(
                        "a line of {address} was cut short: its producer is gone"
                    ));
                    false
                }
                Err(error) => {
                    self.no_message(error)?;
                    true
                }
            };
            self.record_movement()?;
            if !continues {
                return Ok(());
            }
        }
    }

    /// Writes the next part of a line; true if it goes on.
    fn pass_on_part(
        &mut self,
        lane: usize,
        wait: Option<Duration>,
    ) -> Result<Result<bool, Stop>, RecvError> {
        let part = match wait {
            None => self.consumer.recv_from(lane)?,
            Some(time) => self.consumer.recv_from_deadline(lane, time)?,
        };
        if let Err(stop) = self.sink.write_part(&part) {
            part.put_back();
            return Ok(Err(stop));
        }
        let continues = part.tag().framing.continues();
        // Now, so that a kill makes this part come again at most.
        if continues {
            part.release_part();
        } else {
            part.release();
        }
        Ok(Ok(continues))
    }

    /// How long to wait for messages before looking around.
    fn longest_wait(&self) -> Option<Duration> {
        let look = (self.sink.output.has_reader() || self.ended).then_some(LOOK_EVERY);
        let left = self
            .args
            .manner
            .timeout()
            .map(|time| time.saturating_sub(self.moved.elapsed()));
        [look, left].into_iter().flatten().min()
    }

    fn no_message(&mut self, error: RecvError) -> Result<(), Stop> {
        match error {
            RecvError::EndOfStream { died, .. } => {
                self.record_deaths(died.into());
                if self.args.follow {
                    self.consumer.resume();
                    return Ok(());
                }
                self.end()
            }
            RecvError::TimedOut if self.sink.output.reader_is_gone() => Err(Stop::ReaderGone),
            RecvError::TimedOut if self.ended => self.end(),
            RecvError::TimedOut if self.lingers() => {
                self.moved = Instant::now();
                Ok(())
            }
            RecvError::TimedOut => match self.args.manner.timeout() {
                Some(time) if self.moved.elapsed() >= time => Err(Stop::TimedOut),
                _ => Ok(()),
            },
            // The flag of the signal is looked at next.
            RecvError::Interrupted => Ok(()),
            RecvError::Corrupt { .. } => {
                self.damaged = true;
                self.report
                    .error(format_args!("{}: {error}", self.ring.address()));
                Ok(())
            }
            RecvError::Replaced => Err(Stop::Replaced),
            error => Err(self.failure(error)),
        }
    }

    /// True while the consumer awaits new producers in place of those that have left.
    fn lingers(&self) -> bool {
        self.args.linger.is_some()
            && self.consumer.attached_producers() > 0
            && self.ring.info().is_ok_and(|info| info.producers() == 0)
    }

    /// At the end of a stream: mentions the producers that did not finish theirs.
    fn record_deaths(&mut self, died: u64) {
        if died > 0 {
            self.died += died;
            if !self.args.ignore_deaths {
                self.report.error(deaths_of(died, self.ring.address()));
            }
        }
    }

    /// At the end of the stream: takes the ring away if that is ours to do. A producer that came in
    /// the last moment keeps it, and us, going.
    fn end(&mut self) -> Result<(), Stop> {
        let lost = lost(self.ring).saturating_sub(self.lost_before);
        if self.ring.is_auto_removed() && !self.args.keep {
            match self.consumer.remove_at_end() {
                Ok(outcome) if outcome.is_removed() => self
                    .report
                    .detail(format_args!("removed {}", self.ring.address())),
                Ok(_) => {
                    self.ended = true;
                    return Ok(());
                }
                Err(error @ RemoveError::Permission { .. }) => self.report.detail(error),
                Err(error) => return Err(Stop::Failed(error.into())),
            }
        }
        if lost > 0 {
            self.damaged |= self.args.strict;
            let address = self.ring.address();
            let messages = count(lost, "message");
            self.report.error(format_args!(
                "producers dropped {messages} of {address}: the ring was full"
            ));
        }
        Err(Stop::EndOfStream)
    }

    /// After something was received, or might have been.
    fn record_movement(&mut self) -> Result<(), Stop> {
        if !std::mem::take(&mut self.sink.wrote) {
            return Ok(());
        }
        self.ended = false;
        if self.args.manner.timeout().is_some() {
            self.moved = Instant::now();
        }
        self.report.moved(&self.sink.totals);
        // Now, so that a kill makes nothing of it come again.
        self.consumer
            .flush_released()
            .map_err(|error| self.failure(error))
    }

    fn failure(&self, error: RecvError) -> Stop {
        Stop::Failed(ring_failure(self.ring.address(), error))
    }
}

pub(crate) fn ring_failure(address: &Address, error: RecvError) -> Failure {
    Failure::run_time(format!("{address}: {error}"))
}
