//! The audit: every committed message arrived, once, complete and in order.
//!
//! Two streams meet here: the side records of the producers ([`record`]) and what the consumers
//! received, in the order in which they received it. They may be added in any order relative to
//! each other; [`report`](Audit::report) computes the sums.
//!
//! # Rules for a test
//! * A producer's numbers only grow, and each process that takes the role of a producer gets a
//!   **producer number of its own**: a successor that continued with its predecessor's numbers would
//!   send again what was committed and not recorded.
//! * Each kill of a producer is announced ([`producer_killed`](Audit::producer_killed)) with the most
//!   messages that it may have committed without recording them: 1, or the length of a batch.
//! * Each change of the consumer is announced ([`consumer_changed`](Audit::consumer_changed)):
//!   only then may messages come a second time.
//!
//! It takes about 8 bytes of memory for each message.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;

use crate::message;
use crate::record;

/// Messages in a page of the books.
const PAGE: u64 = 1024;
const PAGE_WORDS: usize = PAGE as usize / 64;
/// How many findings are kept as sentences; the others are counted only.
const EXAMPLES: usize = 10;

/// The record of [`PAGE`] consecutive numbers of a producer.
struct Page {
    committed: [u64; PAGE_WORDS],
    received: [u64; PAGE_WORDS],
    /// Where a received message lay: lane and position in one word (see [`place`]).
    places: [u64; PAGE as usize],
}

#[derive(Default)]
struct Producer {
    /// By number / [`PAGE`]: a damaged number costs a page, not all the memory.
    pages: HashMap<u64, Box<Page>>,
    /// One past the highest number committed.
    committed_end: u64,
    /// One past the highest number received.
    received_end: u64,
    /// The number before which the next message would be a step back, and the consumer under which
    /// that holds.
    next: u64,
    next_under: u64,
    /// How many messages may be received without a record.
    unrecorded_allowed: u64,
}

/// Collects what happened in a test; see the [module](self).
#[derive(Default)]
pub struct Audit {
    producers: HashMap<u32, Producer>,
    /// Consumers so far.
    consumer: u64,
    /// Per lane: one past the position of the last message that came for the first time.
    lanes: HashMap<u32, u64>,
    committed: u64,
    received: u64,
    redelivered: u64,
    duplicated: u64,
    torn: u64,
    reordered: u64,
    recorded_twice: u64,
    examples: Vec<String>,
}

/// The sums of an [`Audit`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Messages that a producer recorded after its commit.
    pub committed: u64,
    /// Different messages that arrived.
    pub received: u64,
    /// Arrivals of a message that had arrived before, from the same place in the ring.
    pub redelivered: u64,
    /// Arrivals of a message that had arrived before, from another place: it was twice in the ring.
    pub duplicated: u64,
    /// Committed, and never received.
    pub lost: u64,
    /// Damaged messages, counted by [`Audit::torn`].
    pub torn: u64,
    /// Messages that came after a later one of their producer or of their lane, and messages that
    /// came again although the consumer had not changed.
    pub reordered: u64,
    /// Received without a record, within the number explained by the announced kills.
    pub unrecorded: u64,
    /// Received, and neither recorded nor explained by a kill; also numbers recorded twice.
    pub unexpected: u64,
    /// Objects of the ring that were there after it was removed; counted by the caller.
    pub leaked: u64,
    /// The first findings, a sentence each.
    pub examples: Vec<String>,
}

impl Audit {
    /// An audit of nothing.
    pub fn new() -> Audit {
        Audit::default()
    }

    /// Message `number` of `producer` was committed.
    pub fn committed(&mut self, producer: u32, number: u64) {
        let books = self.producers.entry(producer).or_default();
        books.committed_end = books.committed_end.max(number.saturating_add(1));
        let (page, word, bit) = books.page(number);
        if page.committed[word] & bit != 0 {
            self.recorded_twice += 1;
            let sentence = format!("message {number} of producer {producer} was recorded twice");
            self.example(sentence);
        } else {
            page.committed[word] |= bit;
            self.committed += 1;
        }
    }

    /// Everything in a side record was committed.
    pub fn all_committed(&mut self, entries: &[record::Entry]) {
        for entry in entries {
            for number in entry.first..entry.first.saturating_add(u64::from(entry.count)) {
                self.committed(entry.producer, number);
            }
        }
    }

    /// Everything in the side record in this file was committed.
    ///
    /// # Errors
    /// What reading the file gives; a missing file is an empty record.
    pub fn read_record(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        self.all_committed(&record::read_file(path)?);
        Ok(())
    }

    /// The producer was killed; it may have committed up to `at_most` messages that it did not come
    /// to record.
    pub fn producer_killed(&mut self, producer: u32, at_most: u64) {
        let books = self.producers.entry(producer).or_default();
        books.unrecorded_allowed = books.unrecorded_allowed.saturating_add(at_most);
    }

    /// Later messages were received by another consumer (or by a new handle): it may begin with
    /// messages that its predecessor had received and not released.
    pub fn consumer_changed(&mut self) {
        self.consumer += 1;
    }

    /// The consumer received message `number` of `producer`, which lay at `position` of `lane`.
    pub fn received(&mut self, producer: u32, number: u64, lane: u32, position: u64) {
        let consumer = self.consumer;
        let books = self.producers.entry(producer).or_default();
        // A step back is right once for each producer after a change of the consumer.
        let back = number < books.next;
        let allowed = !back || books.next_under < consumer;
        if back && allowed {
            books.next_under = consumer;
        }
        let end = books.received_end;
        books.next = number.saturating_add(1);
        books.received_end = end.max(books.next);
        let (page, word, bit) = books.page(number);
        let index = (number % PAGE) as usize;
        if page.received[word] & bit == 0 {
            page.received[word] |= bit;
            page.places[index] = place(lane, position);
            self.received += 1;
            let lane_end = self.lanes.entry(lane).or_default();
            let lane_back = position < *lane_end;
            *lane_end = (*lane_end).max(position.saturating_add(1));
            if number < end {
                self.reordered += 1;
                self.example(format!(
                    "message {number} of producer {producer} came after number {}",
                    end - 1
                ));
            } else if lane_back {
                self.reordered += 1;
                self.example(format!(
                    "message {number} of producer {producer} came from position {position} of lane \
                     {lane}, after a later position"
                ));
            }
        } else if page.places[index] != place(lane, position) {
            self.duplicated += 1;
            self.example(format!(
                "message {number} of producer {producer} came again from another place: position \
                 {position} of lane {lane}"
            ));
        } else {
            self.redelivered += 1;
            if !allowed {
                self.reordered += 1;
                self.example(format!(
                    "message {number} of producer {producer} came again to the same consumer"
                ));
            }
        }
    }

    /// A damaged message arrived; `what` describes the damage and the place.
    pub fn torn(&mut self, what: impl fmt::Display) {
        self.torn += 1;
        self.example(format!("damaged: {what}"));
    }

    /// The consumer received these bytes from `position` of `lane`: decodes them as a [`message`]
    /// and records it as received or as damaged.
    pub fn received_bytes(&mut self, bytes: &[u8], lane: u32, position: u64) {
        match message::decode(bytes) {
            Ok(numbered) => self.received(numbered.producer, numbered.number, lane, position),
            Err(damage) => self.torn(format_args!("lane {lane}, position {position}: {damage}")),
        }
    }

    /// Draws the sums.
    pub fn report(&self) -> Report {
        let mut report = Report {
            committed: self.committed,
            received: self.received,
            redelivered: self.redelivered,
            duplicated: self.duplicated,
            torn: self.torn,
            reordered: self.reordered,
            unexpected: self.recorded_twice,
            examples: self.examples.clone(),
            ..Report::default()
        };
        let mut producers: Vec<_> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(producer, _)| **producer);
        for (producer, books) in producers {
            let mut lost = Numbers::default();
            let mut unrecorded = Numbers::default();
            let mut unexpected = Numbers::default();
            let mut pages: Vec<_> = books.pages.iter().collect();
            pages.sort_unstable_by_key(|(page, _)| **page);
            for (page, bits) in pages {
                for word in 0..PAGE_WORDS {
                    let first = page * PAGE + word as u64 * 64;
                    lost.add(first, bits.committed[word] & !bits.received[word]);
                    let mut extra = bits.received[word] & !bits.committed[word];
                    while extra != 0 {
                        let bit = extra & extra.wrapping_neg();
                        extra ^= bit;
                        let number = first + u64::from(bit.trailing_zeros());
                        // A producer is killed after the last commit that it recorded.
                        if number >= books.committed_end
                            && unrecorded.count < books.unrecorded_allowed
                        {
                            unrecorded.add(first, bit);
                        } else {
                            unexpected.add(first, bit);
                        }
                    }
                }
            }
            report.lost += lost.count;
            report.unrecorded += unrecorded.count;
            report.unexpected += unexpected.count;
            for (numbers, what) in [
                (lost, "committed and not received"),
                (unexpected, "received and never committed"),
            ] {
                if let (1.., Some(first)) = (numbers.count, numbers.first) {
                    report.examples.push(format!(
                        "{} messages of producer {producer} were {what}, the first is {first}",
                        numbers.count
                    ));
                }
            }
        }
        report
    }

    fn example(&mut self, sentence: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(sentence);
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.report(), f)
    }
}

impl Producer {
    /// The page of a number, and its bit there.
    fn page(&mut self, number: u64) -> (&mut Page, usize, u64) {
        let page = self.pages.entry(number / PAGE).or_insert_with(|| {
            Box::new(Page {
                committed: [0; PAGE_WORDS],
                received: [0; PAGE_WORDS],
                places: [0; PAGE as usize],
            })
        });
        let index = number % PAGE;
        (page, index as usize / 64, 1 << (index % 64))
    }
}

/// Lane and position in one word: different places of a ring give different words as long as the
/// positions stay below 2^52 and the lanes below 2^12.
fn place(lane: u32, position: u64) -> u64 {
    position ^ u64::from(lane).rotate_right(12)
}

/// Numbers counted by words of 64.
#[derive(Default)]
struct Numbers {
    count: u64,
    first: Option<u64>,
}

impl Numbers {
    fn add(&mut self, first: u64, bits: u64) {
        if bits != 0 {
            self.count += u64::from(bits.count_ones());
            self.first
                .get_or_insert(first + u64::from(bits.trailing_zeros()));
        }
    }
}

impl Report {
    /// Adds the sums of another run.
    pub fn add(&mut self, other: &Report) {
        let Report {
            committed,
            received,
            redelivered,
            duplicated,
            lost,
            torn,
            reordered,
            unrecorded,
            unexpected,
            leaked,
            examples,
        } = other;
        self.committed += committed;
        self.received += received;
        self.redelivered += redelivered;
        self.duplicated += duplicated;
        self.lost += lost;
        self.torn += torn;
        self.reordered += reordered;
        self.unrecorded += unrecorded;
        self.unexpected += unexpected;
        self.leaked += leaked;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(examples.iter().take(room).cloned());
    }

    /// Whether nothing is lost, damaged, reordered, unexpected, leaked or twice in the ring, and
    /// nothing came again unless that is allowed.
    pub fn is_clean(&self, allow_redelivery: bool) -> bool {
        let Report {
            redelivered,
            duplicated,
            lost,
            torn,
            reordered,
            unexpected,
            leaked,
            ..
        } = self;
        [duplicated, lost, torn, reordered, unexpected, leaked] == [&0; 6]
            && (allow_redelivery || *redelivered == 0)
    }

    /// Panics with the whole report unless it [is clean](Report::is_clean).
    #[track_caller]
    pub fn assert_clean(&self, allow_redelivery: bool) {
        assert!(self.is_clean(allow_redelivery), "the audit failed\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "committed {}, received {}, redelivered {}, duplicated {}, lost {}, torn {}, reordered {}, \
             unrecorded {}, unexpected {}, leaked {}",
            self.committed,
            self.received,
            self.redelivered,
            self.duplicated,
            self.lost,
            self.torn,
            self.reordered,
            self.unrecorded,
            self.unexpected,
            self.leaked
        )?;
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Producer 1 commits `0..n`; its messages are 64 bytes apart in lane 0.
    fn committed(n: u64) -> Audit {
        let mut audit = Audit::new();
        for number in 0..n {
            audit.committed(1, number);
        }
        audit
    }

    fn receive(audit: &mut Audit, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            audit.received(1, number, 0, number * 64);
        }
    }

    #[test]
    fn what_arrives_once_and_in_order_is_clean() {
        let mut audit = committed(3000);
        receive(&mut audit, 0..3000);
        let report = audit.report();
        report.assert_clean(false);
        assert_eq!((report.committed, report.received), (3000, 3000));
    }

    #[test]
    fn a_missing_message_is_lost() {
        let mut audit = committed(3000);
        receive(&mut audit, (0..3000).filter(|n| *n != 2047));
        let report = audit.report();
        assert_eq!(report.lost, 1);
        assert!(!report.is_clean(true));
        assert!(report.to_string().contains("the first is 2047"), "{report}");
    }

    #[test]
    fn a_new_consumer_may_receive_again_and_the_same_one_may_not() {
        let mut audit = committed(10);
        receive(&mut audit, 0..6);
        audit.consumer_changed();
        receive(&mut audit, 3..10);
        let report = audit.report();
        assert_eq!((report.redelivered, report.received), (3, 10));
        report.assert_clean(true);
        assert!(!report.is_clean(false));

        let mut audit = committed(10);
        receive(&mut audit, 0..6);
        receive(&mut audit, 3..10);
        assert_eq!(audit.report().reordered, 1);

        // Only once for each consumer.
        let mut audit = committed(10);
        receive(&mut audit, 0..6);
        audit.consumer_changed();
        receive(&mut audit, 3..6);
        receive(&mut audit, 3..10);
        assert_eq!(audit.report().reordered, 1);
    }

    #[test]
    fn a_redelivery_from_another_place_is_a_duplicate() {
        let mut audit = committed(2);
        receive(&mut audit, 0..2);
        audit.consumer_changed();
        audit.received(1, 1, 0, 128);
        let report = audit.report();
        assert_eq!((report.duplicated, report.redelivered), (1, 0));
        assert!(!report.is_clean(true));
    }

    #[test]
    fn the_same_position_of_another_lane_is_another_place() {
        let mut audit = committed(1);
        receive(&mut audit, 0..1);
        audit.consumer_changed();
        audit.received(1, 0, 1, 0);
        assert_eq!(audit.report().duplicated, 1);
    }

    #[test]
    fn message_after_a_later_one_is_reordered() {
        let mut audit = committed(4);
        receive(&mut audit, [0, 2, 1, 3]);
        assert_eq!(audit.report().reordered, 1);
        assert!(audit.report().to_string().contains("came after number 2"));

        // By its lane, too, when it is the first of its producer.
        let mut audit = committed(1);
        audit.committed(2, 0);
        audit.received(1, 0, 0, 64);
        audit.received(2, 0, 0, 0);
        assert_eq!(audit.report().reordered, 1);
    }

    #[test]
    fn new_consumer_does_not_excuse_reordering() {
        let mut audit = committed(4);
        receive(&mut audit, [0, 2]);
        audit.consumer_changed();
        receive(&mut audit, [1, 3]);
        assert_eq!(audit.report().reordered, 1);
    }

    #[test]
    fn a_kill_explains_what_was_not_recorded_and_no_more() {
        let mut audit = committed(5);
        receive(&mut audit, 0..6);
        assert_eq!(audit.report().unexpected, 1);
        audit.producer_killed(1, 1);
        let report = audit.report();
        assert_eq!((report.unrecorded, report.unexpected), (1, 0));
        report.assert_clean(false);
        receive(&mut audit, 6..7);
        assert_eq!(audit.report().unexpected, 1);
        assert!(
            audit
                .report()
                .to_string()
                .contains("never committed, the first is 6")
        );

        // A kill does not explain a gap in the records.
        let mut audit = Audit::new();
        audit.committed(1, 0);
        audit.committed(1, 2);
        audit.producer_killed(1, 1);
        receive(&mut audit, 0..3);
        assert_eq!(audit.report().unexpected, 1);
    }

    #[test]
    fn damage_counts_and_a_wild_number_costs_no_memory() {
        let mut audit = committed(1);
        let mut message = Vec::new();
        message::encode(1, 0, 64, &mut message);
        audit.received_bytes(&message, 0, 0);
        audit.report().assert_clean(false);
        message[40] ^= 1;
        audit.received_bytes(&message, 0, 72);
        let report = audit.report();
        assert_eq!(report.torn, 1);
        assert!(
            report
                .to_string()
                .contains("lane 0, position 72: byte 40 does not belong"),
            "{report}"
        );
        audit.received(1, u64::MAX, 0, u64::MAX);
        assert_eq!(audit.report().unexpected, 1);
    }

    #[test]
    fn a_number_recorded_twice_is_unexpected() {
        let mut audit = committed(2);
        audit.all_committed(&[record::Entry {
            producer: 1,
            first: 1,
            count: 2,
        }]);
        receive(&mut audit, 0..3);
        assert_eq!(audit.report().unexpected, 1);
    }
}
