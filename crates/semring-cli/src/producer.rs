//! `semring-producer`: stdin into a ring.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use semring::any::{Producer, Ring};
use semring::{SendError, UnusedRing, WhenFull};

use crate::args::{self, LongLines, ProducerArgs};
use crate::attach::{Left, attach, leave, mention_kept};
use crate::exit::{self, Failure};
use crate::framing::{CutError, Cutter, Framing};
use crate::input::{Input, Ready};
use crate::rate_limiter::RateLimiter;
use crate::report::{self, Report, Stats, Totals};
use crate::signals::{self, Signals};
use crate::units::count;

const PROGRAM: &str = "semring-producer";

/// A producer that waits for stdin checks the ring at this interval.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// The longest chunk of `--raw`: longer ones are no faster.
const MAX_CHUNK: usize = 1 << 20;

/// Runs the command.
pub fn main() -> ExitCode {
    signals::keep_file_size_signal_away();
    report::end(PROGRAM, run())
}

fn run() -> Result<u8, Failure> {
    let args: ProducerArgs = args::parse(std::env::args_os())?;
    let mut report = Report::new(PROGRAM, &args.manner);
    let mut stats = None;
    let result = transfer(&args, &mut report, &mut stats);
    report.finish(&args.ring.shown_address(), stats.as_ref(), result)
}

/// From stdin into the ring; `stats` has the figures if it came to a transfer.
fn transfer(
    args: &ProducerArgs,
    report: &mut Report,
    stats: &mut Option<Stats>,
) -> Result<u8, Failure> {
    let signals = Signals::catch().map_err(|error| Failure::of("signals", &error))?;
    let input = Input::new(&signals)?;
    if let Some(pid) = input.other_producer() {
        let other = match pid {
            0 => "another producer".to_owned(),
            pid => format!("producer {pid}"),
        };
        report.mention(format_args!(
            "{other} reads the same stdin: a message may be split between the two"
        ));
    }
    let (ring, producer) = attach(
        &args.ring,
        |builder| builder.unused_ring(UnusedRing::Replace),
        &args.manner,
        report,
        &signals,
        false,
        Ring::attach_producer,
    )?;
    signals.interrupts(producer.interrupter());
    let began = Instant::now();
    let when_full = ring.info().map_or(WhenFull::Wait, |info| info.when_full);
    let dropped_before = producer.dropped_messages();
    let mut sending = Sending {
        long_lines: long_lines(args, when_full)?,
        when_full,
        truncated: 0,
        framing: args.framing.framing().unwrap_or(Framing::Lines),
        pace: args.manner.rate().map(|rate| RateLimiter::new(rate, began)),
        input,
        address: ring.address().to_string(),
        args,
        report,
        signals: &signals,
        producer,
        moved: began,
        totals: Totals::default(),
    };
    let stop = sending.transfer().err().unwrap_or(Stop::EndOfInput);
    let Sending {
        producer,
        mut totals,
        truncated,
        ..
    } = sending;
    let dropped = producer.dropped_messages().wrapping_sub(dropped_before);
    totals.messages = totals.messages.saturating_sub(dropped);
    if dropped > 0 {
        let messages = count(dropped, "message");
        report.mention(format_args!("dropped {messages}: the ring was full"));
    }
    if truncated > 0 {
        let lines = count(truncated, "line");
        let max = producer.max_message_bytes();
        report.mention(format_args!("truncated {lines} to {max} bytes"));
    }
    let has_losses = args.strict && dropped + truncated > 0;
    *stats = Some(Stats::new(totals, began, producer.wait_stats()));
    report.moved(&totals);
    report.end_progress();
    let interrupted = matches!(stop, Stop::Signal);
    let result = finish(args, report, &ring, producer, stop, has_losses);
    match signals.caught() {
        Some(signal) if interrupted => Err(Failure::by_signal(signal)),
        _ if has_losses && result == Ok(exit::DONE) => Ok(exit::DAMAGED),
        _ => result,
    }
}

/// Why a transfer ended.
enum Stop {
    EndOfInput,
    /// The consumer of this producer is gone.
    ConsumerGone,
    Signal,
    TimedOut,
    Failed(Failure),
}

/// The state of the consumer when the producer detached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConsumerState {
    NotMet,
    Present,
    Gone,
    /// The ring is gone, with or without its consumer.
    Removed,
}

fn consumer_state(ring: &Ring, producer: &mut Producer) -> ConsumerState {
    // In this order: a consumer that is attached now is the producer's known consumer when the
    // check follows.
    let present = ring.info().is_ok_and(|info| info.consumer_pid.is_some());
    match producer.check_consumer() {
        Ok(()) if present => ConsumerState::Present,
        Ok(()) => ConsumerState::NotMet,
        Err(SendError::Removed) => ConsumerState::Removed,
        Err(_) => ConsumerState::Gone,
    }
}

/// Detaches, removes the ring if this program may do so, reports unread messages; returns the exit
/// code.
fn finish(
    args: &ProducerArgs,
    report: &Report,
    ring: &Ring,
    mut producer: Producer,
    stop: Stop,
    has_losses: bool,
) -> Result<u8, Failure> {
    let consumer_state = match stop {
        Stop::ConsumerGone => ConsumerState::Gone,
        _ => consumer_state(ring, &mut producer),
    };
    let unsent_input = matches!(stop, Stop::Signal | Stop::TimedOut);
    // A stream that was broken off is no finished one: the consumer reports it.
    if has_losses || matches!(stop, Stop::Signal | Stop::TimedOut | Stop::Failed(_)) {
        producer.abort();
    } else {
        producer.close();
    }
    let remove = ring.is_auto_removed()
        && !args.wait_for_consumer
        && match consumer_state {
            ConsumerState::Gone => true,
            ConsumerState::Removed => false,
            // It may have closed the ring in the last moment, finding us still in it. A consumer that ends
            // at the end of the stream has not closed, and decides by itself.
            ConsumerState::Present => ring
                .info()
                .is_ok_and(|info| info.consumer_closed && info.consumer_pid.is_none()),
            // A consumer that comes now must find a stream that has ended, possibly an empty one. Only a
            // stream that was broken off before it began leaves nothing.
            ConsumerState::NotMet => unsent_input && ring.was_created() && is_fresh(ring),
        };
    let left = leave(ring, remove, report);
    if let Left::Unread(messages) = left {
        let address = ring.address();
        if consumer_state == ConsumerState::Gone {
            mention_kept(ring, messages, report);
        } else {
            let verb = if messages == 1 { "waits" } else { "wait" };
            let messages = count(messages, "message");
            report.mention(format_args!("{messages} {verb} in {address}"));
        }
    }
    match stop {
        Stop::Failed(failure) => Err(failure),
        Stop::Signal => Ok(exit::DONE),
        Stop::TimedOut => Err(Failure::new(exit::TIMED_OUT, "timed out: nothing moved")),
        Stop::ConsumerGone => Err(Failure::broken_pipe()),
        Stop::EndOfInput if consumer_state == ConsumerState::Gone && !args.wait_for_consumer => {
            Err(Failure::broken_pipe())
        }
        // Messages that were not read by then are lost with it.
        Stop::EndOfInput if consumer_state == ConsumerState::Removed => Err(Failure::run_time(
            format!("{}: {}", ring.address(), SendError::Removed),
        )),
        Stop::EndOfInput => Ok(exit::DONE),
    }
}

/// True if nothing was ever sent through the ring.
fn is_fresh(ring: &Ring) -> bool {
    ring.info()
        .is_ok_and(|info| info.lanes.iter().all(|lane| lane.sent_messages == 0))
}

/// What becomes of long lines: where messages may be dropped, none is sent in parts, of which some could be missing.
fn long_lines(args: &ProducerArgs, when_full: WhenFull) -> Result<LongLines, Failure> {
    match (args.long_lines, when_full) {
        (Some(LongLines::Split), WhenFull::Drop) => Err(Failure::new(
            exit::USAGE,
            "--long-lines split and a ring that drops messages: a line could lose a part",
        )),
        (None, WhenFull::Drop) => Ok(LongLines::Fail),
        (chosen, _) => Ok(chosen.unwrap_or(LongLines::Split)),
    }
}

/// A transfer under way.
struct Sending<'a> {
    long_lines: LongLines,
    when_full: WhenFull,
    /// Lines of which the end was left out.
    truncated: u64,
    args: &'a ProducerArgs,
    report: &'a Report,
    signals: &'a Signals,
    input: Input<'a>,
    address: String,
    framing: Framing,
    producer: Producer,
    pace: Option<RateLimiter>,
    /// When something moved last; kept only where it matters.
    moved: Instant,
    totals: Totals,
}

impl Sending<'_> {
    fn transfer(&mut self) -> Result<(), Stop> {
        if self.framing == Framing::Raw {
            self.send_chunks()
        } else {
            self.send_messages()
        }
    }

    /// Cuts stdin into messages; sends those of each read(2) together, as soon as they are there.
    fn send_messages(&mut self) -> Result<(), Stop> {
        let mut cutter = Cutter::new(
            self.framing,
            self.producer.max_message_bytes(),
            self.long_lines,
        );
        let result = loop {
            if let Err(stop) = self.await_input() {
                break Err(stop);
            }
            match self.input.read(cutter.room()).map_err(stdin_failure)? {
                None => continue,
                Some(0) => break self.send_rest(&mut cutter),
                Some(bytes) => cutter.filled(bytes),
            }
            if let Err(stop) = self.send_complete(&mut cutter) {
                break Err(stop);
            }
            self.record_movement();
        };
        if matches!(result, Err(Stop::Signal)) {
            self.send_what_fits(&mut cutter);
        }
        self.truncated = cutter.truncated;
        result
    }

    /// Sends the complete messages of the cutter as a batch.
    fn send_complete(&mut self, cutter: &mut Cutter) -> Result<(), Stop> {
        let [whole, part] = [self.framing.tag(), self.framing.tag_of_part()];
        let mut batch = self.producer.batch();
        loop {
            let piece = match cutter.next() {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                // Earlier messages are in the batch, and are sent.
                Err(error) => {
                    batch.commit();
                    return Err(Stop::Failed(self.cut_failure(error)));
                }
            };
            if let Some(pace) = &mut self.pace {
                let delay = pace.delay(Instant::now());
                if !delay.is_zero() {
                    batch.commit();
                    self.pause(delay)?;
                    batch = self.producer.batch();
                    continue;
                }
                pace.spend(cutter.input_bytes(piece));
            }
            let bytes = cutter.bytes(piece);
            let tag = if piece.is_part { part } else { whole };
            let pushed = match self.args.manner.timeout() {
                None => batch.push_with(bytes, tag),
                Some(_) => batch.try_push_with(bytes, tag),
            };
            if let Err(error) = pushed {
                batch.commit();
                if error == SendError::Full {
                    self.send_blocking(bytes, tag)?;
                } else {
                    self.recover(error)?;
                    batch = self.producer.batch();
                    continue;
                }
                batch = self.producer.batch();
            }
            self.totals.messages += u64::from(!piece.is_part);
            self.totals.bytes += (piece.end - piece.start) as u64;
            cutter.step_over(piece);
        }
    }

    /// Sends the end of the input, if it has no delimiter.
    fn send_rest(&mut self, cutter: &mut Cutter) -> Result<(), Stop> {
        let rest = cutter
            .rest()
            .map_err(|error| Stop::Failed(self.cut_failure(error)))?;
        let Some(piece) = rest else { return Ok(()) };
        self.send_blocking(cutter.bytes(piece), self.framing.tag_without_end())?;
        self.totals.messages += 1;
        self.totals.bytes += (piece.end - piece.start) as u64;
        cutter.step_over(piece);
        Ok(())
    }

    /// Sends one message, waiting for room as long as `--timeout` allows.
    fn send_blocking(&mut self, bytes: &[u8], tag: semring::Tag) -> Result<(), Stop> {
        loop {
            // Only a message that is there can be dropped; and nothing waits.
            if self.when_full != WhenFull::Wait {
                match self.producer.send_with(bytes, tag) {
                    Ok(()) => return Ok(()),
                    Err(error) => self.recover(error)?,
                }
                continue;
            }
            let reserved = match self.args.manner.timeout() {
                None => self.producer.reserve(bytes.len()),
                Some(timeout) => self.producer.reserve_deadline(bytes.len(), timeout),
            };
            match reserved {
                Ok(mut reservation) => {
                    reservation.write_at(0, bytes);
                    reservation.set_tag(tag);
                    reservation.commit();
                    return Ok(());
                }
                Err(error) => self.recover(error)?,
            }
        }
    }

    /// After a signal: sends complete messages without waiting, and reports input that is not sent.
    fn send_what_fits(&mut self, cutter: &mut Cutter) {
        let [whole, part] = [self.framing.tag(), self.framing.tag_of_part()];
        let mut batch = self.producer.batch();
        while let Ok(Some(piece)) = cutter.next() {
            let tag = if piece.is_part { part } else { whole };
            if batch.try_push_with(cutter.bytes(piece), tag).is_err() {
                break;
            }
            self.totals.messages += u64::from(!piece.is_part);
            self.totals.bytes += (piece.end - piece.start) as u64;
            cutter.step_over(piece);
        }
        batch.commit();
        let noun = self.framing.noun();
        let complete = cutter.count_complete();
        let partial = cutter.left_over();
        let unfinished = format!("{} of an unfinished {noun}", count(partial as u64, "byte"));
        let what = match (complete, partial) {
            (0, 0) => return,
            (0, _) => unfinished,
            (_, 0) => count(complete, noun),
            _ => format!("{} and {unfinished}", count(complete, noun)),
        };
        self.report.error(format_args!(
            "interrupted: {what} had been read and could not be sent"
        ));
    }

    /// Reads stdin straight into the ring.
    fn send_chunks(&mut self) -> Result<(), Stop> {
        if self.when_full != WhenFull::Wait {
            return self.send_copied_chunks();
        }
        let chunk = self.producer.max_message_bytes().min(MAX_CHUNK);
        let chunk = self
            .pace
            .as_ref()
            .map_or(chunk, |pace| chunk.min(pace.piece()));
        loop {
            self.await_input()?;
            let reserved = match self.args.manner.timeout() {
                None => self.producer.reserve(chunk),
                Some(timeout) => self.producer.reserve_deadline(chunk, timeout),
            };
            let mut reservation = match reserved {
                Ok(reservation) => reservation,
                Err(error) => {
                    self.recover(error)?;
                    continue;
                }
            };
            let filled = self.input.read_with(|fd| reservation.fill_from(fd));
            match filled.map_err(|error| chunk_failure(&self.address, error))? {
                None => reservation.discard(),
                Some(0) => return Ok(()),
                Some(bytes) => {
                    reservation.truncate(bytes);
                    reservation.set_tag(self.framing.tag());
                    reservation.commit();
                    self.totals.messages += 1;
                    self.totals.bytes += bytes as u64;
                    self.record_movement();
                    self.keep_pace(bytes)?;
                }
            }
        }
    }

    /// The same where nothing waits for room: a chunk that was read is there to be dropped.
    fn send_copied_chunks(&mut self) -> Result<(), Stop> {
        let chunk = self.producer.max_message_bytes().min(MAX_CHUNK);
        let mut buffer = vec![0; chunk];
        loop {
            self.await_input()?;
            match self.input.read(&mut buffer).map_err(stdin_failure)? {
                None => {}
                Some(0) => return Ok(()),
                Some(bytes) => {
                    self.send_blocking(&buffer[..bytes], self.framing.tag())?;
                    self.totals.messages += 1;
                    self.totals.bytes += bytes as u64;
                    self.record_movement();
                    self.keep_pace(bytes)?;
                }
            }
        }
    }

    /// Waits until stdin is readable or has ended. Checks the ring before it waits and meanwhile, so
    /// that a slow producer also notices that its consumer is gone.
    fn await_input(&mut self) -> Result<(), Stop> {
        let mut patience = Duration::ZERO;
        loop {
            match self.input.wait(patience).map_err(stdin_failure)? {
                Ready::Transfer => return Ok(()),
                Ready::Signal => return Err(Stop::Signal),
                Ready::Nothing => {}
            }
            if let Err(error) = self.producer.check_consumer() {
                self.recover(error)?;
            }
            patience = PROBE_EVERY;
            if let Some(timeout) = self.args.manner.timeout() {
                let left = timeout.saturating_sub(self.moved.elapsed());
                if left.is_zero() {
                    return Err(Stop::TimedOut);
                }
                patience = patience.min(left);
            }
        }
    }

    /// After bytes went: waits until the next may go.
    fn keep_pace(&mut self, bytes: usize) -> Result<(), Stop> {
        if let Some(pace) = &mut self.pace {
            pace.spend(bytes);
        }
        loop {
            let Some(pace) = &mut self.pace else {
                return Ok(());
            };
            let delay = pace.delay(Instant::now());
            if delay.is_zero() {
                return Ok(());
            }
            self.pause(delay)?;
        }
    }

    /// Lets time pass, but no signal and no end of the consumer.
    fn pause(&mut self, delay: Duration) -> Result<(), Stop> {
        self.record_movement();
        let end = Instant::now() + delay.min(Duration::from_secs(3600));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.signals.wait(left.min(PROBE_EVERY)) {
                return Err(Stop::Signal);
            }
            if let Err(error) = self.producer.check_consumer() {
                self.recover(error)?;
            }
        }
    }

    /// After an error the message was not sent: either it can be tried again, or this is the end.
    fn recover(&mut self, error: SendError) -> Result<(), Stop> {
        let error = match error {
            SendError::ConsumerGone | SendError::Closed if !self.args.wait_for_consumer => {
                return Err(Stop::ConsumerGone);
            }
            SendError::ConsumerGone | SendError::Closed => {
                match self.producer.accept_next_consumer() {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            SendError::Interrupted => {
                return self.signals.caught().map_or(Ok(()), |_| Err(Stop::Signal));
            }
            SendError::TimedOut => return Err(Stop::TimedOut),
            SendError::Full => {
                let address = &self.address;
                let why = format!("{address}: the ring is full, and its policy is --full fail");
                return Err(Stop::Failed(Failure::run_time(why)));
            }
            error => error,
        };
        Err(Stop::Failed(Failure::run_time(format!(
            "{}: {error}",
            self.address
        ))))
    }

    fn record_movement(&mut self) {
        if self.args.manner.timeout().is_some() {
            self.moved = Instant::now();
        }
        self.report.moved(&self.totals);
    }

    fn cut_failure(&self, error: CutError) -> Failure {
        cut_failure(
            self.framing,
            self.totals.messages + 1,
            self.producer.max_message_bytes(),
            error,
        )
    }
}

fn stdin_failure(error: io::Error) -> Stop {
    Stop::Failed(Failure::of("stdin", &error))
}

/// Why nothing came from stdin into the ring.
fn chunk_failure(address: &str, error: io::Error) -> Stop {
    // The error may come from the ring.
    let ring = error.get_ref().and_then(|inner| inner.downcast_ref());
    match ring {
        Some(ring @ SendError::Removed) => {
            Stop::Failed(Failure::run_time(format!("{address}: {ring}")))
        }
        _ => stdin_failure(error),
    }
}

/// Why the stream can't be cut, and what to do.
fn cut_failure(framing: Framing, number: u64, max: usize, error: CutError) -> Failure {
    let noun = framing.noun();
    Failure::run_time(match error {
        CutError::TooLong { bytes } => {
            let length = bytes.map_or_else(String::new, |bytes| format!(" has {bytes} bytes and"));
            format!(
                "{noun} {number}{length} is longer than {max} bytes, a quarter of the ring's capacity; use --raw, \
                 or a ring with a larger --capacity"
            )
        }
        CutError::Truncated { has, wants } => {
            let included = match framing {
                Framing::LengthPrefixed => ", length included",
                _ => "",
            };
            format!(
                "stdin ended inside {noun} {number}: {has} of {wants} bytes were there{included}"
            )
        }
    })
}
