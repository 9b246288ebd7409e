//! A producer that is killed at any operation, and its successor. The consumer receives the messages
//! committed by the first and then those sent by the second: none partial, lost, twice or out of
//! order.
//!
//! The successor runs in the thread of the killed producer: the kernel frees a role only when its
//! holder's address space is gone, so all stores of the dead producer are visible (as after a join).

use std::sync::{Arc, Mutex};

use loom::thread;

use super::{number_of, payload, receive, send, try_send_array, used_lane};
use crate::layout::Tag;
use crate::model::{explore, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::{LaneProducer, Mode, Need};
use crate::sync::mortal;

/// Numbers of the successor's messages; the victim's begin at 0.
const SUCCESSOR: u64 = 100;

/// The number of messages known to be committed by the victim: for the test alone, not shared
/// memory.
type Diary = Arc<Mutex<u64>>;

type Sends = fn(&mut LaneProducer, &[usize], &Diary);

/// Sends the messages 0, 1, … one by one.
fn one_by_one(producer: &mut LaneProducer, lengths: &[usize], diary: &Diary) {
    for &length in lengths {
        let number = *diary.lock().unwrap();
        send(producer, &payload(number, length));
        *diary.lock().unwrap() += 1;
    }
}

/// Sends the next messages all at once.
fn as_batch(producer: &mut LaneProducer, lengths: &[usize], diary: &Diary) {
    let first = *diary.lock().unwrap();
    for (number, &length) in (first..).zip(lengths) {
        let slot = producer
            .try_reserve(Need::Message(length), Mode::Batch)
            .expect("room for the batch");
        producer
            .view()
            .write(slot.position(), slot.lead(), &payload(number, length));
        producer.commit(slot, Tag::default(), Mode::Batch);
    }
    producer.end_batch();
    *diary.lock().unwrap() += lengths.len() as u64;
}

/// The same as an array; all have 8 bytes.
fn as_array(producer: &mut LaneProducer, lengths: &[usize], diary: &Diary) {
    let first = *diary.lock().unwrap();
    let count = lengths.len() as u32;
    while !try_send_array(producer, first, count) {
        thread::yield_now();
    }
    *diary.lock().unwrap() += u64::from(count);
}

/// Receives up to the successor's last message; returns the number of the victim's messages that
/// came.
fn receive_all(consumer: &mut LaneConsumer, lengths: &[usize], successor: u64) -> u64 {
    let mut of_victim = 0;
    let mut of_successor = 0;
    while of_successor < successor {
        let (_, bytes) = receive(consumer);
        consumer.take();
        consumer.release();
        if of_successor == 0 && number_of(&bytes) < SUCCESSOR {
            assert_eq!(
                bytes,
                payload(of_victim, lengths[of_victim as usize]),
                "partial, lost or twice"
            );
            of_victim += 1;
        } else {
            assert_eq!(
                bytes,
                payload(SUCCESSOR + of_successor, 8),
                "partial, lost or twice"
            );
            of_successor += 1;
        }
    }
    of_victim
}

/// A predecessor sends message 0 and is killed before its operation number `earlier`; a victim takes
/// over and sends the others by `sends`; a successor sends two more. The consumer receives all the
/// time.
#[derive(Clone, Copy)]
struct Line {
    preemptions: usize,
    used: &'static [usize],
    earlier: Option<u32>,
    lengths: &'static [usize],
    sends: Sends,
    /// The permitted numbers of messages that came.
    whole: fn(u64) -> bool,
}

impl Line {
    fn explore(self) {
        for_each_death(|| explore(Some(self.preemptions), move || self.run()));
    }

    fn run(self) {
        let (mut old, mut consumer) = used_lane(self.used);
        let lane = old.view().clone();
        let diary = Diary::default();
        if let Some(life) = self.earlier {
            let _ = mortal(life, || send(&mut old, &payload(0, self.lengths[0])));
            *diary.lock().unwrap() = 1;
        }
        let noted = diary.clone();
        let producers = thread::spawn(move || {
            let _ = victim(|| {
                let mut producer = LaneProducer::take_over(lane.clone()).expect("a sound lane");
                let begun = *noted.lock().unwrap();
                (self.sends)(&mut producer, &self.lengths[begun as usize..], &noted);
            });
            let mut successor = LaneProducer::take_over(lane).expect("a sound lane");
            send(&mut successor, &payload(SUCCESSOR, 8));
            send(&mut successor, &payload(SUCCESSOR + 1, 8));
            successor
        });
        let received = receive_all(&mut consumer, self.lengths, 2);
        let producer = producers.join().unwrap();
        assert_eq!(consumer.find(), Ok(None), "more than was sent");
        assert_eq!(consumer.position(), producer.tail());
        // At most one step more than was recorded: killed right after the store that commits.
        let committed = *diary.lock().unwrap();
        assert!(
            received >= committed,
            "{committed} were committed, {received} came"
        );
        assert!((self.whole)(received), "a part of a batch came: {received}");
    }
}

const PLAIN: Line = Line {
    preemptions: 2,
    used: &[8, 8, 8, 8],
    earlier: None,
    lengths: &[8, 16],
    sends: one_by_one,
    whole: |_| true,
};

/// The mutant leaves a hole: the successor starts after a header that was never written, and the consumer waits for it
/// for ever.
#[test]
fn model_producer_killed_in_send_keeps_messages() {
    PLAIN.explore();
}

/// From 40 on, 16 bytes, padding of 8, 16 bytes.
#[test]
fn model_producer_killed_at_padding_keeps_messages() {
    Line {
        used: &[8, 16],
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
}

#[test]
fn model_batch_of_killed_producer_is_whole_or_absent() {
    let whole = |received| received == 0 || received == 2;
    Line {
        sends: as_batch,
        whole,
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
    // With padding between the two, and before both.
    Line {
        sends: as_batch,
        whole,
        used: &[8, 16],
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
    Line {
        sends: as_batch,
        whole,
        used: &[16, 8, 8],
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
}

/// Right after a lap, and with padding before it.
#[test]
fn model_array_of_killed_producer_is_whole_or_absent() {
    for used in [PLAIN.used, &[8, 16]] {
        Line {
            sends: as_array,
            whole: |received| received == 0 || received == 2,
            used,
            lengths: &[8, 8],
            ..PLAIN
        }
        .explore();
    }
}

/// The successor of a producer that was killed after the store that commits is killed while it takes
/// over.
#[test]
fn model_successor_killed_taking_over_loses_nothing() {
    for earlier in [BEFORE_SENT, BEFORE_COMMITTED] {
        Line {
            earlier: Some(earlier),
            ..PLAIN
        }
        .explore();
    }
}

/// A send with room consists of K1, the payload, K3, `sent`, `committed`.
const BEFORE_SENT: u32 = 3;
const BEFORE_COMMITTED: u32 = 4;
