//! The consumer's output: batches of messages are combined, written, and then released.
//!
//! A write(2) may end within a message: a full disk, a signal, a time-out. Then the messages that were
//! written completely are released and the others come again, to the next consumer. The one message that was
//! written in part is handled in this order: after a signal its rest is written, if the reader takes it
//! soon; in a file the part is removed again; otherwise the part stays, the whole message comes again, and
//! stderr has a note.

use std::time::Instant;

use semring::any::Ring;
use semring::{Address, Message, Position, RecvBatch};

use crate::args::ConsumerArgs;
use crate::consumer::{LOOK_EVERY, Stop, ring_failure};
use crate::exit::{self, Failure};
use crate::framing::Framing;
use crate::joining::{JoinError, Joiner};
use crate::output::{Output, Unwritten, WriteError};
use crate::rate_limiter::RateLimiter;
use crate::report::{Report, Totals};
use crate::signals::Signals;
use crate::units::count;

/// The most that is gathered for one write(2).
const MAX_GATHER: u64 = 256 << 10;

/// A message from which on a copy costs more than the write(2) that it saves.
const DIRECT_BYTES: usize = 4 << 10;

/// A message of this size is not copied once more, even with others before it.
const HUGE_BYTES: usize = 1 << 20;

/// A message of the batch, and its place in the output.
struct Entry {
    lane: usize,
    position: Position,
    /// Bytes of the message itself.
    payload: usize,
    /// Its end in the output, counted from the first message of the batch; includes the bytes before
    /// and after the payload.
    end: u64,
}

/// Puts messages together and writes them.
pub(crate) struct Sink<'a> {
    address: Address,
    report: &'a Report,
    pub(crate) output: Output<'a>,
    joiner: Joiner,
    /// Bytes to gather for one write(2).
    gather: usize,
    /// Output that is not written yet.
    buffer: Vec<u8>,
    /// The messages of this batch.
    entries: Vec<Entry>,
    /// Output of this batch that is written.
    written: u64,
    pace: Option<RateLimiter>,
    pub(crate) totals: Totals,
    /// The lane whose next message is a part of a line.
    pub(crate) part_in: Option<usize>,
    /// Where that part is in the batch.
    part: Option<(usize, Position)>,
    /// The framing in which a line is written of which parts are written.
    line: Option<Framing>,
    /// Something was written since this was looked at last.
    pub(crate) wrote: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(
        args: &ConsumerArgs,
        report: &'a Report,
        ring: &Ring,
        output: Output<'a>,
        now: Instant,
    ) -> Self {
        let pace = args.manner.rate().map(|rate| RateLimiter::new(rate, now));
        // A quarter of a lane: the producer fills the rest meanwhile.
        let gather = (ring.capacity_bytes() / 4).min(MAX_GATHER) as usize;
        Self {
            address: ring.address().clone(),
            report,
            output,
            joiner: Joiner::new(args.framing.framing(), args.convert),
            gather: pace
                .as_ref()
                .map_or(gather, |pace| gather.min(pace.piece())),
            buffer: Vec::with_capacity(2 * gather),
            entries: Vec::new(),
            written: 0,
            pace,
            totals: Totals::default(),
            wrote: false,
            part_in: None,
            part: None,
            line: None,
        }
    }

    /// Writes a part of a line, or its end.
    pub(crate) fn write_part(&mut self, part: &Message<'_>) -> Result<(), Stop> {
        let sent = part.tag().framing;
        let result = self.append_part(part).and_then(|()| self.write_line());
        result.map_err(|error| self.stop(error))?;
        self.totals.bytes += part.len() as u64;
        if !sent.continues() {
            self.line = None;
            self.totals.messages += 1;
        }
        Ok(())
    }

    fn append_part(&mut self, part: &Message<'_>) -> Result<(), WriteError> {
        let (sent, len) = (part.tag().framing, part.len());
        let framing = self.joiner.framing_of(sent, len);
        let framing = framing.map_err(WriteError::Framing)?;
        if matches!(framing, Framing::LengthPrefixed | Framing::Fixed(_)) {
            return Err(WriteError::Framing(JoinError::Parts { wanted: framing }));
        }
        self.line = Some(framing);
        self.buffer.clear();
        self.joiner.before(framing, len, &mut self.buffer);
        part.checked_append_to(&mut self.buffer)
            .map_err(WriteError::Ring)?;
        if !sent.continues() {
            self.joiner.after(framing, sent, &mut self.buffer);
        }
        Ok(())
    }

    /// Ends a line whose producer is gone.
    pub(crate) fn end_line(&mut self) -> Result<(), Stop> {
        self.buffer.clear();
        let framing = self.line.take().or(self.joiner.wanted());
        self.buffer
            .extend(framing.unwrap_or(Framing::Lines).delimiter());
        self.totals.messages += 1;
        self.write_line().map_err(|error| self.stop(error))
    }

    /// Writes a piece of a line, as one message.
    fn write_line(&mut self) -> Result<(), WriteError> {
        let len = self.buffer.len();
        let result = self.output.write(&self.buffer, |_| len);
        self.buffer.clear();
        match result {
            Ok(()) => {
                self.wrote = true;
                if let Some(pace) = &mut self.pace {
                    pace.spend(len);
                }
                Ok(())
            }
            Err(Unwritten { error, written }) => {
                self.mention_part(written as u64);
                Err(error)
            }
        }
    }

    /// Removes or reports what was written of an unfinished message.
    fn mention_part(&self, part: u64) {
        if part > 0 && !self.output.take_back(part as usize) {
            self.report.mention(format_args!(
                "{} of an unfinished message were written; all of it comes again",
                count(part, "byte")
            ));
        }
    }

    fn stop(&self, error: WriteError) -> Stop {
        match error {
            WriteError::Closed => Stop::ReaderGone,
            WriteError::Signal => Stop::Signal,
            WriteError::TimedOut => Stop::TimedOut,
            WriteError::Failed(error) => Stop::Failed(Failure::of("stdout", &error)),
            WriteError::Ring(error) => Stop::Failed(ring_failure(&self.address, error)),
            WriteError::Framing(error) => Stop::Failed(join_failure(&self.address, error)),
        }
    }

    /// Writes messages of the batch, at most `limit`, and releases those that were written whole.
    pub(crate) fn pass_on(&mut self, mut batch: RecvBatch<'_>, limit: u64) -> Result<(), Stop> {
        self.buffer.clear();
        self.entries.clear();
        self.written = 0;
        let result = self.write(&mut batch, limit);
        if matches!(result, Err(WriteError::Closed)) {
            // No reader has read the contents of the pipe.
            batch.put_back();
            return Err(Stop::ReaderGone);
        }
        if let Some((lane, position)) = self.part.take() {
            batch.put_back_from(lane, position);
            self.part_in = Some(lane);
        }
        let whole = self.settle(result.is_err());
        self.put_back_from(&mut batch, whole);
        self.wrote |= whole > 0;
        batch.release();
        let payload: usize = self.entries[..whole]
            .iter()
            .map(|entry| entry.payload)
            .sum();
        self.totals.messages += whole as u64;
        self.totals.bytes += payload as u64;
        if let Some(pace) = &mut self.pace {
            pace.spend(self.written as usize);
        }
        result.map_err(|error| self.stop(error))
    }

    /// The number of messages that were written completely; removes or reports the written part of
    /// the next one.
    fn settle(&mut self, failed: bool) -> usize {
        if !failed {
            return self.entries.len();
        }
        let whole = self
            .entries
            .partition_point(|entry| entry.end <= self.written);
        let end = whole
            .checked_sub(1)
            .map_or(0, |last| self.entries[last].end);
        self.mention_part(self.written - end);
        whole
    }

    /// Puts the messages from this one on back into the ring.
    fn put_back_from(&self, batch: &mut RecvBatch<'_>, whole: usize) {
        let mut lanes = Vec::new();
        for entry in &self.entries[whole..] {
            // The first one of each lane; those after it in the lane go with it.
            if !lanes.contains(&entry.lane) {
                lanes.push(entry.lane);
                batch.put_back_from(entry.lane, entry.position);
            }
        }
    }

    fn write(&mut self, batch: &mut RecvBatch<'_>, limit: u64) -> Result<(), WriteError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        while self.buffer.len() < self.gather && self.entries.len() < limit {
            let Some(message) = batch.next_message() else {
                break;
            };
            let len = message.len();
            let mut entry = Entry {
                lane: message.lane(),
                position: message.position(),
                payload: len,
                // Not before more is known.
                end: u64::MAX,
            };
            let sent = message.tag().framing;
            if sent.continues() {
                // The rest of the line comes from this lane alone.
                self.part = Some((entry.lane, entry.position));
                break;
            }
            let framing = match self.joiner.framing_of(sent, len) {
                Ok(framing) => framing,
                Err(error) => {
                    // It stays in the ring; earlier messages are written.
                    self.entries.push(entry);
                    self.flush()?;
                    return Err(WriteError::Framing(error));
                }
            };
            let before = self.buffer.len();
            self.joiner.before(framing, len, &mut self.buffer);
            let direct = framing.is_bare() && len >= DIRECT_BYTES && self.buffer.is_empty();
            if direct || len >= HUGE_BYTES {
                let begin = self.written + before as u64;
                let around = self.buffer.len() - before + Joiner::bytes_after(framing, sent);
                entry.end = begin + (len + around) as u64;
                self.entries.push(entry);
                self.flush()?;
                let written = self
                    .output
                    .write_message(len, |fd, done| message.write_to(done, fd));
                self.note(len, written)?;
                self.joiner.after(framing, sent, &mut self.buffer);
                // Released before anything else is written: a kill repeats this message at most.
                break;
            }
            let appended = message.checked_append_to(&mut self.buffer);
            if appended.is_ok() {
                self.joiner.after(framing, sent, &mut self.buffer);
                entry.end = self.written + self.buffer.len() as u64;
            }
            self.entries.push(entry);
            appended.map_err(WriteError::Ring)?;
        }
        self.flush()
    }

    /// Writes the gathered output.
    fn flush(&mut self) -> Result<(), WriteError> {
        let (base, buffer) = (self.written, &self.buffer);
        // The end of the message in whose middle an offset of the buffer lies.
        let end_of_message = |offset: usize| {
            let at = base + offset as u64;
            let next = self.entries.partition_point(|entry| entry.end <= at);
            let begin = next.checked_sub(1).map_or(0, |last| self.entries[last].end);
            match self.entries.get(next) {
                Some(entry) if begin < at => usize::try_from(entry.end - base)
                    .map_or(buffer.len(), |end| end.min(buffer.len())),
                _ => offset,
            }
        };
        let result = self.output.write(buffer, end_of_message);
        let len = buffer.len();
        self.note(len, result)?;
        self.buffer.clear();
        Ok(())
    }

    /// Counts the bytes of a write of `len` bytes.
    fn note(&mut self, len: usize, result: Result<(), Unwritten>) -> Result<(), WriteError> {
        match result {
            Ok(()) => {
                self.written += len as u64;
                Ok(())
            }
            Err(Unwritten { error, written }) => {
                self.written += written as u64;
                Err(error)
            }
        }
    }

    /// Waits until more may be written.
    pub(crate) fn keep_pace(&mut self, signals: &Signals) -> Result<(), Stop> {
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

/// Why a message was not written, and what to do.
fn join_failure(address: &Address, error: JoinError) -> Failure {
    match error {
        JoinError::Differs { sent, wanted } => Failure::new(
            exit::USAGE,
            format!(
                "{address}: the messages were sent with {sent}, and {wanted} was requested; leave it out, or add \
                 --convert"
            ),
        ),
        JoinError::NoRecord { bytes, wanted } => Failure::run_time(format!(
            "{address}: a message of {} is no record of --fixed {wanted}",
            count(bytes as u64, "byte")
        )),
        JoinError::Parts { wanted } => Failure::run_time(format!(
            "{address}: a line in parts can't be converted to {wanted}: its length is not known before its end"
        )),
        JoinError::Unknown => Failure::run_time(format!(
            "{address}: a message was sent in a framing of a later version than this one; use a newer one, or name \
             the framing to write with --convert"
        )),
    }
}
