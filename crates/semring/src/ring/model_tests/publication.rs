//! A producer and a consumer that both live: every message received is complete, in order, once, and
//! neither side waits for ever.

use loom::thread;

use super::{number_of, payload, receive, send, try_receive, try_send, used_lane};
use crate::layout::Tag;
use crate::model::explore;
use crate::ring::produce::{Mode, Need};

/// Sends messages of these lengths through a used lane while the consumer receives and releases each.
fn pass(preemptions: usize, used: &'static [usize], lengths: &'static [usize]) {
    explore(Some(preemptions), move || {
        let (mut producer, mut consumer) = used_lane(used);
        let sender = thread::spawn(move || {
            for (number, &length) in lengths.iter().enumerate() {
                send(&mut producer, &payload(number as u64, length));
            }
            producer
        });
        for (number, &length) in lengths.iter().enumerate() {
            let (_, bytes) = receive(&mut consumer);
            assert_eq!(
                bytes,
                payload(number as u64, length),
                "message {number} differs from the message sent"
            );
            consumer.take();
            consumer.release();
        }
        let producer = sender.join().unwrap();
        assert_eq!(consumer.find(), Ok(None), "more than was sent");
        assert_eq!(consumer.position(), producer.tail());
        assert_eq!(consumer.taken_messages(), producer.sent());
    });
}

/// Four records of 16 bytes are a lap: the headers of the next lap are at the same places.
const A_LAP: &[usize] = &[8, 8, 8, 8];

#[test]
fn model_messages_of_one_size_arrive_whole_and_once() {
    pass(3, A_LAP, &[8, 8, 8]);
    // More than fits: the producer waits for room.
    pass(2, A_LAP, &[8, 8, 8, 8, 8]);
}

#[test]
fn model_messages_of_varying_size_wrap() {
    // 24 + 8 + 24, padding of 8 | 24 + 16: full several times.
    pass(2, &[], &[16, 0, 13, 16, 8]);
}

#[test]
fn model_a_batch_appears_all_at_once() {
    explore(Some(3), || {
        let (mut producer, mut consumer) = used_lane(A_LAP);
        let sender = thread::spawn(move || {
            for number in 0..3 {
                let slot = producer
                    .try_reserve(Need::Message(8), Mode::Batch)
                    .expect("the lane is empty");
                producer
                    .view()
                    .write(slot.position(), slot.lead(), &payload(number, 8));
                producer.commit(slot, Tag::default(), Mode::Batch);
            }
            producer.end_batch();
        });
        let (_, first) = receive(&mut consumer);
        assert_eq!(number_of(&first), 0);
        for number in 1..3 {
            let (_, bytes) = try_receive(&mut consumer).expect("a part of the batch is missing");
            assert_eq!(bytes, payload(number, 8));
        }
        sender.join().unwrap();
    });
}

/// The mutant: the consumer finds a header of the previous lap after the message, and takes it for a message.
#[test]
fn model_next_header_is_cleared_before_publication() {
    pass(2, A_LAP, &[8, 8]);
}

/// The mutant: the fourth record fills the lane, and clearing the header after it clears the first, unread one. Then
/// the consumer finds no message, and the producer no room, for ever.
#[test]
fn model_slack_word_keeps_a_full_lane_going() {
    pass(2, &[], &[8, 8, 8, 8, 8]);
}

/// Detected as a race of the two copies of the payload, which the header no longer orders.
#[test]
fn model_the_header_that_publishes_is_a_release() {
    pass(3, A_LAP, &[8, 8]);
}

/// Detected as a race: the producer writes without an edge from the consumer's reads. (A stale value
/// can't show it: loom moves no store back over a load.)
#[test]
fn model_released_is_a_release() {
    pass(2, &[], &[16, 16, 16, 16]);
}

/// Without waiting, so that there is no bound on the schedules.
#[test]
fn model_two_messages_in_every_schedule() {
    explore(None, || {
        let (mut producer, mut consumer) = used_lane(A_LAP);
        let sender = thread::spawn(move || {
            assert!(try_send(&mut producer, &payload(0, 8)));
            assert!(try_send(&mut producer, &payload(1, 8)));
        });
        let mut next = 0;
        for _ in 0..3 {
            if let Some((_, bytes)) = try_receive(&mut consumer) {
                assert_eq!(bytes, payload(next, 8));
                next += 1;
            }
        }
        sender.join().unwrap();
        while let Some((_, bytes)) = try_receive(&mut consumer) {
            assert_eq!(bytes, payload(next, 8));
            next += 1;
        }
        assert_eq!(next, 2);
    });
}
