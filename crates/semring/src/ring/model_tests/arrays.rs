//! Arrays: a consumer that is killed at any operation inside of one, and its successors. A message of which a flush had
//! returned never comes again, and none is skipped.

use std::sync::{Arc, Mutex};

use loom::thread;

use super::{CAPACITY, number_of, payload, receive, send, try_receive, try_send_array, used_lane};
use crate::layout::Capacity;
use crate::layout::view::LaneView;
use crate::model::{explore, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::LaneProducer;

/// What is sent: an array of this many messages, or a plain one if it is 0. All have 8 bytes.
type Record = u32;

fn send_record(producer: &mut LaneProducer, number: &mut u64, record: Record) {
    if record == 0 {
        send(producer, &payload(*number, 8));
        *number += 1;
        return;
    }
    while !try_send_array(producer, *number, record) {
        thread::yield_now();
    }
    *number += u64::from(record);
}

/// The victim's log: for the test alone, not shared memory.
#[derive(Default, Clone, Copy)]
struct Diary {
    /// Messages of which a release has returned, and of which one was begun.
    released: u64,
    releasing: u64,
}

/// Receives messages `from..to` one by one and releases after those whose bit is set, and at the end.
fn receive_some(
    consumer: &mut LaneConsumer,
    from: u64,
    to: u64,
    releases: u64,
    diary: &Mutex<Diary>,
) {
    for number in from..to {
        let (_, bytes) = receive(consumer);
        assert_eq!(bytes, payload(number, 8), "message {number} did not come");
        consumer.take();
        if releases >> number & 1 == 1 || number + 1 == to {
            diary.lock().unwrap().releasing = number + 1;
            consumer.release();
            diary.lock().unwrap().released = number + 1;
        }
    }
}

/// The message with which a successor begins, which stays where it is.
fn begins_with(consumer: &mut LaneConsumer, diary: Diary, sent: u64) -> u64 {
    let Some((_, bytes)) = try_receive(consumer) else {
        assert!(
            diary.releasing == sent,
            "nothing comes, and not all was released"
        );
        return sent;
    };
    let number = number_of(&bytes);
    assert_eq!(bytes, payload(number, 8), "not whole");
    assert!(
        number >= diary.released,
        "message {number} comes again although a flush had returned"
    );
    assert!(
        number <= diary.releasing,
        "message {} was skipped",
        diary.releasing
    );
    consumer.step_back();
    number
}

/// A lane of 128 bytes, in which all records fit, is read by a victim, a second one that is killed at its first chance
/// after a few messages, and a successor.
fn killed(records: &'static [Record], releases: u64) {
    for_each_death(|| {
        explore(Some(2), move || {
            let lane = LaneView::model(Capacity::model(128));
            let mut producer = LaneProducer::take_over(lane.clone()).expect("a new lane");
            let mut sent = 0;
            for &record in records {
                send_record(&mut producer, &mut sent, record);
            }
            assert_eq!(producer.sent(), sent);
            let diary = Mutex::new(Diary::default());
            let _ = victim(|| {
                let mut consumer = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                receive_some(&mut consumer, 0, sent, releases, &diary);
            });
            let seen = *diary.lock().unwrap();
            let mut successor = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
            let begin = begins_with(&mut successor, seen, sent);
            let none = Mutex::new(Diary::default());
            // One message at a time, each time by another consumer.
            drop(successor);
            for number in begin..sent {
                let mut successor = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                receive_some(&mut successor, number, number + 1, !0, &none);
            }
            let mut last = LaneConsumer::take_over(lane, 0).expect("a sound lane");
            assert_eq!(last.find(), Ok(None), "more than was sent");
            assert_eq!(last.position(), producer.tail());
        });
    });
}

/// The mutant: `partial` is cleared, and its consumer killed before it stores that the array is behind it.
#[test]
fn model_killed_inside_array_repeats_no_flushed() {
    // After each message; in the middle of each array; after the first of one and the first of the next.
    for releases in [!0, 0b10101, 0b01001] {
        killed(&[2, 2, 0], releases);
        killed(&[3, 0, 2], releases);
        killed(&[0, 2, 2], releases);
    }
}

/// The mutant: a victim has stored `partial` for the array at 0, passes it, and is killed before it clears the word.
/// Models have 4 bits of a position there, so the word fits again at 128, two laps later.
#[test]
fn model_stale_partial_skips_no_message() {
    for_each_death(|| {
        explore(Some(2), || {
            let lane = LaneView::model(CAPACITY);
            let mut producer = LaneProducer::take_over(lane.clone()).expect("a new lane");
            let mut sent = 0;
            send_record(&mut producer, &mut sent, 2);
            let diary = Mutex::new(Diary::default());
            let _ = victim(|| {
                let mut consumer = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                receive_some(&mut consumer, 0, 2, !0, &diary);
            });
            let seen = *diary.lock().unwrap();
            let mut successor = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
            let mut next = begins_with(&mut successor, seen, sent);
            // Whole arrays at 32, 64 and 96, each released with one store.
            for _ in 0..4 {
                receive_some(&mut successor, next, sent, 0, &diary);
                next = sent;
                send_record(&mut producer, &mut sent, 2);
            }
            drop(successor);
            let mut last = LaneConsumer::take_over(lane, 0).expect("a sound lane");
            let (_, bytes) = receive(&mut last);
            assert_eq!(bytes, payload(next, 8), "message {next} was skipped");
        });
    });
}

/// The producer needs the room that the consumer releases, and the old words of the lane are everywhere. The mutant: the
/// word behind the header still is an old one when the header is published.
#[test]
fn model_arrays_arrive_whole_and_once() {
    const RECORDS: [Record; 3] = [2, 0, 2];
    explore(Some(2), || {
        let (mut producer, mut consumer) = used_lane(&[8, 8, 8, 8]);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            for record in RECORDS {
                send_record(&mut producer, &mut sent, record);
            }
            producer
        });
        let diary = Mutex::new(Diary::default());
        receive_some(&mut consumer, 0, 5, !0, &diary);
        let producer = sender.join().unwrap();
        assert_eq!(consumer.find(), Ok(None), "more than was sent");
        assert_eq!(consumer.position(), producer.tail());
        assert_eq!(consumer.taken_messages(), producer.sent());
    });
}

/// The victim reads while the producer sends, and needs the room.
#[test]
fn model_killed_while_arrays_are_sent_loses_nothing() {
    for_each_death(|| {
        explore(Some(1), || {
            let lane = LaneView::model(CAPACITY);
            let mut producer = LaneProducer::take_over(lane.clone()).expect("a new lane");
            let sender = thread::spawn(move || {
                let mut sent = 0;
                for record in [2, 2] {
                    send_record(&mut producer, &mut sent, record);
                }
                producer
            });
            let diary = Arc::new(Mutex::new(Diary::default()));
            let _ = victim(|| {
                let mut consumer = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                receive_some(&mut consumer, 0, 3, !0, &diary);
            });
            let seen = *diary.lock().unwrap();
            let mut successor = LaneConsumer::take_over(lane, 0).expect("a sound lane");
            let (_, first) = receive(&mut successor);
            successor.step_back();
            let begin = number_of(&first);
            assert!(
                begin == seen.released || begin == seen.releasing,
                "begins again with {begin}"
            );
            receive_some(&mut successor, begin, 4, !0, &diary);
            let producer = sender.join().unwrap();
            assert_eq!(successor.find(), Ok(None), "more than was sent");
            assert_eq!(successor.position(), producer.tail());
        });
    });
}
