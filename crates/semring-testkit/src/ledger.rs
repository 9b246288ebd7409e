//! The audit of a storm: records in [shared words](SharedWords), which survive the death of their
//! writer, and cost a producer two stores for each message and no memory.
//!
//! It holds for rings whose producers send the [`message`]s `0, 1, 2 …` of a producer number that they
//! [enlist](Ledger::enlist) for each attachment. A message shorter than [`message::FULL_LEN`] carries
//! the lower half of the producer's number only, so the first one of an attachment is not that short.
//!
//! * A **producer** records the number up to which it is about to commit, before it does, and the
//!   number up to which it has committed, afterwards. If it is killed in between, it may or may not
//!   have committed: these messages count as *unrecorded* when they arrive, and not as lost when they
//!   don't.
//! * The **consumer** records a message *before* it releases it. A message that its successor
//!   receives again is compared with the record for that position: a different message is a
//!   finding.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::audit::Report;
use crate::message::{self, FULL_LEN};
use crate::shared::SharedWords;

// All words of a ledger: counters, then lanes, then entries.
const ENLISTED: usize = 0;
const ARRIVALS: usize = 1;
const REDELIVERED: usize = 2;
const DUPLICATED: usize = 3;
const TORN: usize = 4;
const REORDERED: usize = 5;
const LOST: usize = 6;
const UNEXPECTED: usize = 7;
const COUNTERS: usize = 8;

/// Of an entry: about to be committed, committed, received, lane + 1 and [`FINISHED`].
const ENTRY_WORDS: usize = 4;
const BEGUN: usize = 0;
const COMMITTED: usize = 1;
const RECEIVED: usize = 2;
const STATE: usize = 3;
/// The producer detached regularly, and its record is complete.
const FINISHED: u64 = 1 << 32;

/// For a lane: a turn, and two states, of which the last bit of the turn selects the valid one.
const LANE_WORDS: usize = 8;
const STATE_WORDS: usize = 3;
/// Of the journal of a lane, for each 8 bytes of it: position + 1, producer, number.
const RECORD_WORDS: usize = 3;
/// Findings that one process prints on stderr; the others are only counted.
const TOLD: u64 = 10;

/// The books of one ring; see the [module](self).
#[derive(Debug)]
pub struct Ledger {
    words: SharedWords,
    lanes: usize,
    /// Notes of a lane: as many as it has places for records.
    notes: usize,
    entries: usize,
}

/// The record of a lane.
#[derive(Clone, Copy, Default, Debug)]
struct Lane {
    /// One past the position of the last message that was received.
    end: u64,
    /// Whose it was, + 1.
    producer: u64,
    /// The number that comes next.
    next: u64,
}

impl Ledger {
    /// Records for a ring with this many lanes of `capacity` bytes, and this many attachments of
    /// producers.
    ///
    /// # Errors
    /// Those of mmap.
    pub fn new(lanes: usize, capacity: usize, attachments: usize) -> io::Result<Ledger> {
        let notes = capacity / 8;
        let of_lanes = lanes * (LANE_WORDS + notes * RECORD_WORDS);
        Ok(Ledger {
            words: SharedWords::new(COUNTERS + of_lanes + attachments * ENTRY_WORDS)?,
            lanes,
            notes,
            entries: attachments,
        })
    }

    fn lane_at(&self, lane: usize) -> usize {
        assert!(lane < self.lanes, "the ring has {} lanes", self.lanes);
        COUNTERS + lane * (LANE_WORDS + self.notes * RECORD_WORDS)
    }

    fn entry(&self, producer: u64) -> Option<&[AtomicU64]> {
        let known = producer < self.enlisted();
        let first = COUNTERS + self.lanes * (LANE_WORDS + self.notes * RECORD_WORDS);
        let at = first + usize::try_from(producer).ok()? * ENTRY_WORDS;
        known.then(|| &self.words[at..at + ENTRY_WORDS])
    }

    fn note(&self, lane: usize, position: u64) -> &[AtomicU64] {
        let place = (position / 8) as usize % self.notes;
        let at = self.lane_at(lane) + LANE_WORDS + place * RECORD_WORDS;
        &self.words[at..at + RECORD_WORDS]
    }

    fn lane(&self, lane: usize) -> Lane {
        let at = self.lane_at(lane);
        let turn = self.words[at].load(Ordering::Acquire);
        let state = at + 1 + (turn as usize & 1) * STATE_WORDS;
        let word = |index: usize| self.words[state + index].load(Ordering::Relaxed);
        Lane {
            end: word(0),
            producer: word(1),
            next: word(2),
        }
    }

    /// All of it or nothing, whenever the consumer is killed.
    fn set_lane(&self, lane: usize, new: Lane) {
        let at = self.lane_at(lane);
        let turn = self.words[at].load(Ordering::Relaxed).wrapping_add(1);
        let state = at + 1 + (turn as usize & 1) * STATE_WORDS;
        for (index, word) in [new.end, new.producer, new.next].into_iter().enumerate() {
            self.words[state + index].store(word, Ordering::Relaxed);
        }
        self.words[at].store(turn, Ordering::Release);
    }

    fn enlisted(&self) -> u64 {
        self.words[ENLISTED]
            .load(Ordering::Acquire)
            .min(self.entries as u64)
    }

    /// Messages that came so far, those that came again included.
    pub fn arrivals(&self) -> u64 {
        self.words[ARRIVALS].load(Ordering::Relaxed)
    }

    /// Whether something was found already that must not be.
    pub fn has_findings(&self) -> bool {
        [DUPLICATED, TORN, REORDERED, LOST, UNEXPECTED]
            .iter()
            .any(|counter| self.words[*counter].load(Ordering::Relaxed) != 0)
    }

    /// A producer number for one attachment; `None` if all are taken.
    pub fn enlist(&self) -> Option<ProducerBooks<'_>> {
        let producer = self.words[ENLISTED].fetch_add(1, Ordering::AcqRel);
        let entry = self.entry(producer)?;
        Some(ProducerBooks {
            producer,
            entry,
            next: 0,
        })
    }

    /// The books of a new consumer.
    pub fn consumer(&self) -> ConsumerBooks<'_> {
        let lanes = (0..self.lanes).map(|lane| {
            let state = self.lane(lane);
            // The predecessor may have been killed before it recorded this.
            if let Some(entry) = state.producer.checked_sub(1).and_then(|p| self.entry(p)) {
                entry[RECEIVED].store(state.next, Ordering::Relaxed);
            }
            (state, 0)
        });
        ConsumerBooks {
            ledger: self,
            lanes: lanes.collect(),
            told: 0,
        }
    }

    /// Whether this message of this producer arrived.
    pub fn has_arrived(&self, producer: u32, number: u64) -> bool {
        self.entry(u64::from(producer))
            .is_some_and(|entry| entry[RECEIVED].load(Ordering::Acquire) > number)
    }

    /// Computes the sums, when all producers are gone and the ring was drained.
    pub fn report(&self) -> Report {
        let count = |counter: usize| self.words[counter].load(Ordering::Relaxed);
        let mut report = Report {
            redelivered: count(REDELIVERED),
            duplicated: count(DUPLICATED),
            torn: count(TORN),
            reordered: count(REORDERED),
            lost: count(LOST),
            unexpected: count(UNEXPECTED),
            ..Report::default()
        };
        for producer in 0..self.enlisted() {
            let entry = self.entry(producer).expect("it is enlisted");
            let word = |index: usize| entry[index].load(Ordering::Acquire);
            let (committed, received) = (word(COMMITTED), word(RECEIVED));
            report.committed += committed;
            report.received += received;
            let lost = committed.saturating_sub(received);
            // Killed between the commit and the record: a message, or a batch.
            let begun = if word(STATE) & FINISHED != 0 {
                committed
            } else {
                word(BEGUN)
            };
            let unexpected = received.saturating_sub(begun);
            report.unrecorded += received.saturating_sub(committed) - unexpected;
            report.lost += lost;
            report.unexpected += unexpected;
            for (number, what) in [
                (lost, "committed and never received"),
                (unexpected, "received and never committed"),
            ] {
                if number > 0 && report.examples.len() < TOLD as usize {
                    report.examples.push(format!(
                        "producer {producer}: {number} messages were {what} (begun {}, committed \
                         {committed}, received {received}, lane + 1 and flags {:#x})",
                        word(BEGUN),
                        word(STATE)
                    ));
                }
            }
        }
        report
    }
}

/// The record of what one attachment of a producer has sent.
#[derive(Debug)]
pub struct ProducerBooks<'a> {
    producer: u64,
    entry: &'a [AtomicU64],
    next: u64,
}

impl ProducerBooks<'_> {
    /// The producer's number.
    pub fn producer(&self) -> u32 {
        self.producer as u32
    }

    /// The number of the next message.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// It has this lane.
    pub fn attached(&self, lane: usize) {
        self.entry[STATE].store(lane as u64 + 1, Ordering::SeqCst);
    }

    /// Makes message [`next`](Self::next)` + ahead` of `len` bytes.
    pub fn encode(&self, ahead: u64, len: usize, out: &mut Vec<u8>) {
        let number = self.next + ahead;
        let len = if number == 0 { len.max(FULL_LEN) } else { len };
        let producer = if len < FULL_LEN {
            self.producer() & 0xffff
        } else {
            self.producer()
        };
        message::encode(producer, number, len, out);
    }

    /// Before the commit: messages up to this number are about to be committed.
    pub fn begin(&self, count: u64) {
        self.entry[BEGUN].store(self.next + count, Ordering::SeqCst);
    }

    /// After the commit: messages up to this number were committed.
    pub fn committed(&mut self, count: u64) {
        self.next += count;
        self.entry[COMMITTED].store(self.next, Ordering::SeqCst);
    }

    /// The producer is finished; to be called before it detaches.
    pub fn finish(self) {
        self.entry[STATE].fetch_or(FINISHED, Ordering::SeqCst);
    }
}

/// The record of what one consumer receives.
#[derive(Debug)]
pub struct ConsumerBooks<'a> {
    ledger: &'a Ledger,
    /// For each lane: what its predecessors and it received; one past the last position that it
    /// received itself.
    lanes: Vec<(Lane, u64)>,
    told: u64,
}

impl ConsumerBooks<'_> {
    /// Records a message; to be called before it is released.
    pub fn received(&mut self, bytes: &[u8], lane: usize, position: u64) {
        let (state, own_end) = self.lanes[lane];
        self.lanes[lane].1 = own_end.max(position + 1);
        let arrivals = &self.ledger.words[ARRIVALS];
        arrivals.store(arrivals.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if position < own_end {
            let what = format_args!("position {position} came after {}", own_end - 1);
            self.find(REORDERED, lane, what);
        }
        let numbered = match message::decode(bytes) {
            Ok(numbered) => numbered,
            Err(damage) => {
                let what = format_args!("position {position}, {} bytes: {damage}", bytes.len());
                self.find(TORN, lane, what);
                return;
            }
        };
        let short = bytes.len() < FULL_LEN;
        if position < state.end {
            self.again(
                numbered.producer,
                numbered.number,
                short,
                lane,
                position,
                state,
            );
        } else {
            self.first_time(
                numbered.producer,
                numbered.number,
                short,
                lane,
                position,
                state,
            );
        }
    }

    fn again(&mut self, from: u32, number: u64, short: bool, lane: usize, at: u64, state: Lane) {
        let note = self.ledger.note(lane, at);
        let [place, producer, noted] = [0, 1, 2].map(|index| note[index].load(Ordering::Relaxed));
        let same_producer = if short {
            producer & 0xffff == u64::from(from)
        } else {
            producer == u64::from(from)
        };
        if place == at + 1 && same_producer && noted == number {
            let count = &self.ledger.words[REDELIVERED];
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            let what = format_args!(
                "message {number} of producer {from} came at position {at}, where message {noted} of \
                 producer {producer} was before (at {}); the lane stands at {state:?}",
                place.wrapping_sub(1)
            );
            self.find(DUPLICATED, lane, what);
        }
    }

    fn first_time(&mut self, from: u32, number: u64, short: bool, lane: usize, at: u64, was: Lane) {
        let mut producer = u64::from(from);
        if short {
            // The lower half: the lane's last producer, or none that is right.
            let last = was.producer.wrapping_sub(1);
            if was.producer != 0 && last & 0xffff == producer {
                producer = last;
            } else {
                let what = format_args!(
                    "message {number} of some producer {from} began its attachment; the lane stood at \
                     {was:?}"
                );
                self.find(LOST, lane, what);
                return;
            }
        }
        let Some(entry) = self.ledger.entry(producer) else {
            let what = format_args!("message {number} of producer {producer}, which never was");
            self.find(UNEXPECTED, lane, what);
            return;
        };
        let word = |index: usize| entry[index].load(Ordering::Acquire);
        let (state, begun, received) = (word(STATE), word(BEGUN), word(RECEIVED));
        if state & (FINISHED - 1) != lane as u64 + 1 {
            let what = format_args!("producer {producer} never had this lane ({state:#x})");
            self.find(UNEXPECTED, lane, what);
        }
        if number >= begun {
            let what = format_args!(
                "message {number} of producer {producer}, which had begun {begun} messages"
            );
            self.find(UNEXPECTED, lane, what);
        }
        if received > 0 && was.producer != producer + 1 {
            let what = format_args!(
                "message {number} of producer {producer} came after those of a successor ({was:?})"
            );
            self.find(REORDERED, lane, what);
        }
        if number < received {
            let what = format_args!(
                "message {number} of producer {producer} was twice in the ring, the second time at {at} \
                 ({was:?})"
            );
            self.find(DUPLICATED, lane, what);
        } else if number > received {
            let what = format_args!(
                "messages {received} to {} of producer {producer} are missing before position {at} \
                 ({was:?})",
                number - 1
            );
            self.find(LOST, lane, what);
        }
        let note = self.ledger.note(lane, at);
        for (word, value) in note.iter().zip([at + 1, producer, number]) {
            word.store(value, Ordering::Relaxed);
        }
        let now = Lane {
            end: at + 1,
            producer: producer + 1,
            next: number + 1,
        };
        self.ledger.set_lane(lane, now);
        self.lanes[lane].0 = now;
        entry[RECEIVED].store(number + 1, Ordering::Release);
    }

    fn find(&mut self, counter: usize, lane: usize, what: std::fmt::Arguments<'_>) {
        self.ledger.words[counter].fetch_add(1, Ordering::Relaxed);
        self.told += 1;
        if self.told <= TOLD {
            let kind = match counter {
                DUPLICATED => "duplicated",
                TORN => "torn",
                REORDERED => "reordered",
                LOST => "lost",
                _ => "unexpected",
            };
            eprintln!("{kind}: lane {lane}: {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(2, 4096, 100_000).unwrap()
    }

    /// Sends through lane 0: the messages as they lie there, 64 bytes apart.
    fn commit(books: &mut ProducerBooks<'_>, count: u64, lane: &mut Vec<Vec<u8>>) {
        books.attached(0);
        for _ in 0..count {
            let mut bytes = Vec::new();
            books.encode(0, 8 + lane.len() % 40, &mut bytes);
            books.begin(1);
            lane.push(bytes);
            books.committed(1);
        }
    }

    fn receive(books: &mut ConsumerBooks<'_>, lane: &[Vec<u8>], which: std::ops::Range<usize>) {
        for at in which {
            books.received(&lane[at], 0, at as u64 * 64);
        }
    }

    #[test]
    fn arrivals_once_in_order_are_clean() {
        let ledger = ledger();
        let mut lane = Vec::new();
        for _ in 0..5 {
            let mut books = ledger.enlist().unwrap();
            commit(&mut books, 10, &mut lane);
            books.finish();
        }
        let mut books = ledger.consumer();
        receive(&mut books, &lane, 0..23);
        let mut books = ledger.consumer();
        receive(&mut books, &lane, 19..50);
        let report = ledger.report();
        report.assert_clean(true);
        assert_eq!((report.committed, report.received), (50, 50));
        assert_eq!((report.redelivered, ledger.arrivals()), (4, 54));
        assert!(ledger.has_arrived(4, 9) && !ledger.has_arrived(4, 10));
    }

    #[test]
    fn what_is_missing_is_lost_wherever_it_is() {
        for gap in 0..20 {
            let ledger = ledger();
            let mut lane = Vec::new();
            for _ in 0..2 {
                let mut books = ledger.enlist().unwrap();
                commit(&mut books, 10, &mut lane);
            }
            let mut books = ledger.consumer();
            receive(&mut books, &lane, 0..gap);
            receive(&mut books, &lane, gap + 1..20);
            let report = ledger.report();
            assert!(report.lost >= 1, "{gap}: {report}");
        }
    }

    #[test]
    fn unexpected_message_and_one_of_a_killed_producer() {
        let ledger = ledger();
        let mut lane = Vec::new();
        let mut producer = ledger.enlist().unwrap();
        commit(&mut producer, 2, &mut lane);
        // Killed right after the commit.
        producer.begin(1);
        let mut bytes = Vec::new();
        producer.encode(0, 40, &mut bytes);
        lane.push(bytes.clone());
        let mut books = ledger.consumer();
        receive(&mut books, &lane, 0..3);
        assert_eq!(ledger.report().unrecorded, 1);
        ledger.report().assert_clean(false);
        producer.encode(1, 40, &mut bytes);
        books.received(&bytes, 0, 500);
        assert_eq!(ledger.report().unexpected, 2, "at once, and in the sums");
    }

    #[test]
    fn duplicate_differs_from_a_step_back() {
        let ledger = ledger();
        let mut lane = Vec::new();
        commit(&mut ledger.enlist().unwrap(), 5, &mut lane);
        let mut books = ledger.consumer();
        receive(&mut books, &lane, 0..5);
        books.received(&lane[4], 0, 5 * 64);
        assert_eq!(ledger.report().duplicated, 1);
        let mut books = ledger.consumer();
        books.received(&lane[2], 0, 3 * 64);
        assert_eq!(ledger.report().duplicated, 2);
        receive(&mut books, &lane, 2..3);
        assert_eq!(ledger.report().reordered, 1);
    }

    #[test]
    fn damage_and_the_wrong_lane_are_found() {
        let ledger = ledger();
        let mut lane = Vec::new();
        commit(&mut ledger.enlist().unwrap(), 3, &mut lane);
        let mut books = ledger.consumer();
        lane[1][7] ^= 1;
        receive(&mut books, &lane, 0..2);
        assert_eq!(ledger.report().torn, 1);
        let mut other = ledger.consumer();
        other.received(&lane[0], 1, 0);
        assert!(ledger.report().unexpected >= 1);
        assert!(ledger.has_findings());
    }

    #[test]
    fn short_messages_have_their_producer_by_the_lane() {
        let ledger = ledger();
        for _ in 0..70_000 {
            ledger.enlist().unwrap();
        }
        let mut lane = Vec::new();
        commit(&mut ledger.enlist().unwrap(), 30, &mut lane);
        let mut books = ledger.consumer();
        receive(&mut books, &lane, 0..30);
        let report = ledger.report();
        report.assert_clean(false);
        assert_eq!(report.received, 30);
    }
}
