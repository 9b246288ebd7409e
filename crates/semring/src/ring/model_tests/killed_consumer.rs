//! A consumer that is killed at any operation, and its successor: messages that were not released
//! come again, at the same position and with the same bytes, and released ones do not.

use std::sync::{Arc, Mutex};

use loom::thread;

use super::{CAPACITY, payload, receive, send};
use crate::layout::Position;
use crate::layout::view::LaneView;
use crate::model::{explore, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::LaneProducer;

/// The victim's log: for the test alone, not shared memory.
#[derive(Default)]
struct Diary {
    received: Vec<(Position, Vec<u8>)>,
    /// The number of messages that it certainly released, and the number that it may have released.
    released: usize,
    releasing: usize,
}

/// The victim receives `before` messages and releases after every second one, the successor receives
/// the rest; the producer sends all of them at the same time, and needs the room.
fn killed(preemptions: usize, lengths: &'static [usize], before: usize) {
    for_each_death(|| {
        explore(Some(preemptions), move || {
            let lane = LaneView::model(CAPACITY);
            let mut producer = LaneProducer::take_over(lane.clone()).expect("a new lane");
            let sender = thread::spawn(move || {
                for (number, &length) in lengths.iter().enumerate() {
                    send(&mut producer, &payload(number as u64, length));
                }
                producer
            });

            let diary = Arc::new(Mutex::new(Diary::default()));
            let _ = victim(|| {
                let mut consumer = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                for turn in 0..before {
                    let message = receive(&mut consumer);
                    consumer.take();
                    diary.lock().unwrap().received.push(message);
                    if turn % 2 == 1 {
                        diary.lock().unwrap().releasing = turn + 1;
                        consumer.release();
                        diary.lock().unwrap().released = turn + 1;
                    }
                }
            });

            let diary = diary.lock().unwrap();
            let mut successor = LaneConsumer::take_over(lane, 0).expect("a sound lane");
            let first = receive(&mut successor);
            let begin = (0..lengths.len())
                .find(|&number| first.1 == payload(number as u64, lengths[number]));
            let begin = begin.expect("whole payload");
            assert!(
                begin == diary.released || begin == diary.releasing,
                "begins again with {begin}"
            );
            let mut next = Some(first);
            for (number, &length) in lengths.iter().enumerate().skip(begin) {
                let message = next.take().unwrap_or_else(|| receive(&mut successor));
                match diary.received.get(number) {
                    Some(seen) => {
                        assert_eq!(&message, seen, "not as it came to the one that was killed")
                    }
                    None => assert_eq!(message.1, payload(number as u64, length)),
                }
                successor.take();
                successor.release();
            }
            let producer = sender.join().unwrap();
            assert_eq!(successor.find(), Ok(None), "more than was sent");
            assert_eq!(successor.position(), producer.tail());
        });
    });
}

#[test]
fn model_killed_consumer_redelivers_unreleased() {
    // The lane holds three of them.
    killed(2, &[8, 8, 8, 8], 3);
}

/// 24 + 24, padding of 16, 16, …
#[test]
fn model_killed_consumer_redelivers_around_padding() {
    killed(2, &[16, 16, 8, 8], 3);
}
