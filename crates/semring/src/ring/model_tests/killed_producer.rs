//! A producer that is killed at any operation, and its successor. The consumer sees what the first had
//! committed and then what the second sends: nothing torn, lost, twice or out of order.
//!
//! The successor goes on in the thread of the killed one: the kernel gives a seat away only when its
//! holder's address space is gone, so all that the dead one stored is there (as after a join).

use std::sync::{Arc, Mutex};

use loom::thread;

use super::{number_of, payload, receive, send, used_lane};
use crate::layout::Tag;
use crate::model::{explore, fails_without, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::{LaneProducer, Mode};
use crate::sync::{Twin, mortal};

/// Numbers of the successor's messages; the victim's begin at 0.
const SUCCESSOR: u64 = 100;

/// What the victim knows to be committed: for the test alone, not shared memory.
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
            .try_reserve(length, Mode::Batch)
            .expect("room for the batch");
        producer
            .view()
            .write(slot.position(), slot.lead(), &payload(number, length));
        producer.commit(slot, Tag::default(), Mode::Batch);
    }
    producer.end_batch();
    *diary.lock().unwrap() += lengths.len() as u64;
}

/// Receives up to the successor's last message; gives how many of the victim's came.
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
                "torn, lost or twice"
            );
            of_victim += 1;
        } else {
            assert_eq!(
                bytes,
                payload(SUCCESSOR + of_successor, 8),
                "torn, lost or twice"
            );
            of_successor += 1;
        }
    }
    of_victim
}

/// A predecessor sends message 0 and is killed in front of its operation `earlier`; a victim takes over
/// and sends the others by `sends`; a successor sends two more. The consumer receives all the while.
#[derive(Clone, Copy)]
struct Line {
    preemptions: usize,
    used: &'static [usize],
    earlier: Option<u32>,
    lengths: &'static [usize],
    sends: Sends,
    /// How many of the messages may have come.
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
        // At most one step more than it knew of: killed right behind the store that commits.
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

#[test]
fn model_a_producer_killed_while_it_sends_leaves_whole_messages() {
    PLAIN.explore();
}

/// From 40 on, 16 bytes, a pad of 8, 16 bytes.
#[test]
fn model_a_producer_killed_around_a_pad_leaves_whole_messages() {
    Line {
        used: &[8, 16],
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
}

#[test]
fn model_a_batch_of_a_killed_producer_comes_whole_or_not_at_all() {
    let whole = |received| received == 0 || received == 2;
    Line {
        sends: as_batch,
        whole,
        lengths: &[8, 8],
        ..PLAIN
    }
    .explore();
    // With a pad between the two, and in front of both.
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

/// The successor of one that was killed behind the store that commits is killed on its way over what
/// it finds.
#[test]
fn model_a_successor_killed_while_it_takes_over_loses_nothing() {
    for earlier in [BEFORE_SENT, BEFORE_COMMITTED] {
        Line {
            earlier: Some(earlier),
            ..PLAIN
        }
        .explore();
    }
}

/// A hole: the successor begins behind a header that was never written, and the consumer waits for it
/// for ever.
#[test]
fn model_committed_is_stored_behind_the_header() {
    fails_without(
        Twin::CommittedBeforeHeader,
        "exceeded maximum number of branches",
        || {
            PLAIN.explore();
        },
    );
}

/// A send with room is K1, the payload, K3, `sent`, `committed`.
const BEFORE_SENT: u32 = 3;
const BEFORE_COMMITTED: u32 = 4;
