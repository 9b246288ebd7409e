//! `semring-consumer`: a ring to stdout.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use semring::any::{Consumer, Ring};
use semring::{Address, Batch, RecvError, RemoveError};

use crate::args::{self, ConsumerArgs};
use crate::attach::{Left, attach, leave};
use crate::exit::{self, Failure};
use crate::framing::{Framing, Joiner};
use crate::output::{Output, WriteError};
use crate::pace::Pace;
use crate::report::{self, Producers, Report, Stats, Totals};
use crate::signals::{self, Signals};
use crate::units::count;

const PROGRAM: &str = "semring-consumer";

/// How often a consumer that waits for messages looks whether its own reader is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The most that is gathered for one write(2).
const MAX_GATHER: u64 = 256 << 10;

/// A message from which on a copy costs more than the write(2) that it saves.
const DIRECT_BYTES: usize = 4 << 10;

/// A message that is too large to be held twice, whatever goes with it.
const HUGE_BYTES: usize = 1 << 20;

/// Runs the command.
pub fn main() -> ExitCode {
    signals::keep_file_size_signal_away();
    report::end(PROGRAM, run())
}

fn run() -> Result<u8, Failure> {
    let args: ConsumerArgs = args::parse(std::env::args_os())?;
    let signals =
        Signals::catch().map_err(|error| Failure::run_time(format!("signals: {error}")))?;
    let output = Output::new(&signals, args.manner.timeout())?;
    let mut report = Report::new(PROGRAM, &args.manner);
    let (ring, consumer) = attach(&args.ring, &args.manner, &report, &signals, Ring::consumer)?;
    signals.interrupts(consumer.interrupter());
    let began = Instant::now();
    let mut receiving = Receiving {
        sink: Sink::new(&args, &ring, output, began),
        args: &args,
        report: &report,
        signals: &signals,
        ring: &ring,
        lost_before: lost(&ring),
        consumer,
        moved: began,
        ended: false,
        damaged: false,
    };
    let stop = receiving.receive();
    let Receiving {
        sink,
        consumer,
        damaged,
        ..
    } = receiving;
    let address = ring.address().to_string();
    let stats = Stats::new(&address, sink.totals, began, consumer.kernel_calls());
    report.moved(&sink.totals);
    report.end_progress();
    let interrupted = matches!(stop, Stop::Signal);
    let result = finish(&args, &report, &ring, consumer, stop);
    // Also of a ring that is removed by now: our mapping outlives it.
    let producers = ring.info().ok().map(|info| Producers {
        finished_producers: info.finished_producers(),
        died_producers: info.died_producers(),
    });
    if let Some(Producers { died_producers, .. }) = producers
        && died_producers > 0
    {
        let died = count(died_producers, "producer");
        report.detail(format_args!(
            "{died} of {address} died: what they meant to send afterwards is missing"
        ));
    }
    stats.with_producers(producers).print(PROGRAM, &args.manner);
    match signals.caught() {
        Some(signal) if interrupted => Ok(Signals::end_by(signal)),
        _ if damaged && result == Ok(exit::DONE) => Ok(exit::DAMAGED),
        _ => result,
    }
}

/// Why a transfer ended.
enum Stop {
    /// The producers are gone and the ring is drained (and removed, if that was ours to do).
    EndOfStream,
    /// As many messages as were asked for.
    Counted,
    /// Our own reader is gone.
    ReaderGone,
    Signal,
    TimedOut,
    Failed(Failure),
}

/// Leaves the ring, removes it if that is ours to do, says what is left in it; gives the exit code.
fn finish(
    args: &ConsumerArgs,
    report: &Report,
    ring: &Ring,
    consumer: Consumer,
    stop: Stop,
) -> Result<u8, Failure> {
    let may_remove = ring.is_implicit() && !args.keep;
    let address = ring.address();
    match stop {
        Stop::EndOfStream => return Ok(exit::DONE),
        // On purpose: producers end, and what is unread is of no use to anybody.
        Stop::Counted | Stop::ReaderGone => {
            // A producer that is still here learns by its broken pipe that not all was read.
            let unread = match ring.info() {
                Ok(info) if info.producers() == 0 => info.unread_messages(),
                _ => 0,
            };
            consumer.close();
            let left = leave(ring, may_remove, report);
            if matches!(stop, Stop::ReaderGone) {
                return Err(Failure::broken_pipe());
            }
            let messages = count(unread, "unread message");
            match left {
                Left::Unread(unread) => {
                    let messages = count(unread, "unread message");
                    report.detail(format_args!("{messages} left in {address}"));
                }
                Left::Removed if unread > 0 => report.mention(format_args!(
                    "{messages} went with {address}, which nobody uses any more; --keep keeps it"
                )),
                Left::Removed | Left::Kept => {}
            }
            return Ok(exit::DONE);
        }
        Stop::Signal | Stop::TimedOut | Stop::Failed(_) => drop(consumer),
    }
    if let Left::Unread(unread) = leave(ring, may_remove, report) {
        report.mention(format_args!(
            "{} left in {address}",
            count(unread, "unread message")
        ));
    }
    match stop {
        Stop::TimedOut => Err(Failure::new(exit::TIMED_OUT, "timed out: nothing moved")),
        Stop::Failed(failure) => Err(failure),
        _ => Ok(exit::DONE),
    }
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
    /// The stream has ended, but somebody was in the ring when it was to be removed.
    ended: bool,
    /// Something was damaged or lost.
    damaged: bool,
    lost_before: u64,
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
            let received = match self.longest_wait() {
                None => self.consumer.recv_batch(),
                Some(time) => self.consumer.recv_batch_timeout(time),
            };
            let limit = wanted.unwrap_or(u64::MAX);
            let result = match received.map(|batch| self.sink.pass_on(batch, limit)) {
                Ok(result) => result,
                Err(error) => self.no_message(error),
            };
            if let Err(stop) = result.and_then(|()| self.note_movement()) {
                return stop;
            }
        }
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
            RecvError::EndOfStream if self.args.follow => Ok(()),
            RecvError::EndOfStream => self.end(),
            RecvError::TimedOut if self.sink.output.reader_is_gone() => Err(Stop::ReaderGone),
            RecvError::TimedOut if self.ended => self.end(),
            RecvError::TimedOut => match self.args.manner.timeout() {
                Some(time) if self.moved.elapsed() >= time => Err(Stop::TimedOut),
                _ => Ok(()),
            },
            // The flag of the signal is looked at next.
            RecvError::Interrupted => Ok(()),
            RecvError::Poisoned { .. } => {
                self.damaged = true;
                self.report
                    .error(format_args!("{}: {error}", self.ring.address()));
                Ok(())
            }
            error => Err(self.failure(error)),
        }
    }

    /// At the end of the stream: takes the ring away if that is ours to do. A producer that came in
    /// the last moment keeps it, and us, going.
    fn end(&mut self) -> Result<(), Stop> {
        let lost = lost(self.ring).saturating_sub(self.lost_before);
        if self.ring.is_implicit() && !self.args.keep {
            match self.consumer.remove_at_end() {
                Ok(true) => self
                    .report
                    .detail(format_args!("removed {}", self.ring.address())),
                Ok(false) => {
                    self.ended = true;
                    return Ok(());
                }
                Err(error @ RemoveError::Permission { .. }) => self.report.detail(error),
                Err(error) => return Err(Stop::Failed(error.into())),
            }
        }
        if lost > 0 {
            self.damaged = true;
            self.report.error(format_args!(
                "{}: {} lost",
                self.ring.address(),
                count(lost, "message")
            ));
        }
        Err(Stop::EndOfStream)
    }

    /// After something was received, or might have been.
    fn note_movement(&mut self) -> Result<(), Stop> {
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

fn ring_failure(address: &Address, error: RecvError) -> Failure {
    Failure::run_time(format!("{address}: {error}"))
}

/// Puts messages together and writes them.
struct Sink<'a> {
    address: Address,
    output: Output<'a>,
    joiner: Joiner,
    raw: bool,
    /// Bytes to gather for one write(2).
    gather: usize,
    buffer: Vec<u8>,
    pace: Option<Pace>,
    totals: Totals,
    /// Something was written since this was looked at last.
    wrote: bool,
}

impl<'a> Sink<'a> {
    fn new(args: &ConsumerArgs, ring: &Ring, output: Output<'a>, now: Instant) -> Self {
        let framing = args.framing.framing();
        let pace = args.manner.rate().map(|rate| Pace::new(rate, now));
        // A quarter of a lane: the producer fills the rest meanwhile.
        let gather = (ring.capacity_bytes() / 4).min(MAX_GATHER) as usize;
        Self {
            address: ring.address().clone(),
            output,
            joiner: Joiner::new(framing),
            raw: framing == Framing::Raw,
            gather: pace
                .as_ref()
                .map_or(gather, |pace| gather.min(pace.piece())),
            buffer: Vec::with_capacity(2 * gather),
            pace,
            totals: Totals::default(),
            wrote: false,
        }
    }

    /// Writes messages of the batch, at most `limit`, and releases them. If the write fails, all of
    /// them stay in the ring.
    fn pass_on(&mut self, mut batch: Batch<'_>, limit: u64) -> Result<(), Stop> {
        let joints = self.joiner.state();
        let mut totals = self.totals;
        match self.write(&mut batch, limit, &mut totals) {
            Ok(()) => {
                self.wrote |= batch.messages() > 0;
                batch.release();
                if let Some(pace) = &mut self.pace {
                    pace.spend((totals.bytes - self.totals.bytes) as usize);
                }
                self.totals = totals;
                Ok(())
            }
            Err(error) => {
                batch.put_back();
                self.joiner.restore(joints);
                Err(match error {
                    WriteError::Closed => Stop::ReaderGone,
                    WriteError::Signal => Stop::Signal,
                    WriteError::TimedOut => Stop::TimedOut,
                    WriteError::Failed(error) => {
                        Stop::Failed(Failure::run_time(format!("stdout: {error}")))
                    }
                    WriteError::Ring(error) => Stop::Failed(ring_failure(&self.address, error)),
                })
            }
        }
    }

    fn write(
        &mut self,
        batch: &mut Batch<'_>,
        limit: u64,
        totals: &mut Totals,
    ) -> Result<(), WriteError> {
        self.buffer.clear();
        let end = totals.messages.saturating_add(limit);
        while self.buffer.len() < self.gather && totals.messages < end {
            let Some(message) = batch.next_message() else {
                break;
            };
            let len = message.len();
            totals.messages += 1;
            totals.bytes += len as u64;
            self.joiner.before(len, &mut self.buffer);
            let direct = self.raw && len >= DIRECT_BYTES && self.buffer.is_empty();
            if direct || len >= HUGE_BYTES {
                self.output.write(&self.buffer)?;
                self.buffer.clear();
                self.output
                    .write_with(len, |fd, done| message.write_to(done, fd))?;
                self.joiner.after(message.meta().flags, &mut self.buffer);
                // Released before anything else is written: a kill repeats this message at most.
                break;
            }
            message
                .checked_append_to(&mut self.buffer)
                .map_err(WriteError::Ring)?;
            self.joiner.after(message.meta().flags, &mut self.buffer);
        }
        self.output.write(&self.buffer)
    }

    /// Waits until more may be written.
    fn keep_pace(&mut self, signals: &Signals) -> Result<(), Stop> {
        let Some(pace) = &mut self.pace else {
            return Ok(());
        };
        loop {
            let delay = pace.delay(Instant::now()).min(LOOK_EVERY);
            if delay.is_zero() {
                return Ok(());
            }
            if signals.wait(delay) {
                return Err(Stop::Signal);
            }
            if self.output.reader_is_gone() {
                return Err(Stop::ReaderGone);
            }
        }
    }
}
