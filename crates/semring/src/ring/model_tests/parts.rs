//! Lines of several messages, whose producer or consumer is killed at any operation: the line ends with one cut, and only
//! there; a new consumer finds that it is inside a line.
//!
//! One thread: what a killed process has stored is visible before its role is free.

use super::{payload, receive, used_lane};
use crate::layout::view::LaneView;
use crate::layout::{Framing, Tag};
use crate::model::{explore, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::{LaneProducer, Mode, Need};

const PART: Tag = Tag::new(0).with_framing(Framing::LinePart);
const WHOLE: Tag = Tag::new(0);

fn send(producer: &mut LaneProducer, bytes: usize, tag: Tag) {
    let slot = producer
        .try_reserve(Need::Message(bytes), Mode::Single)
        .expect("room");
    let view = producer.view();
    view.write(slot.position(), slot.lead(), &payload(1, bytes));
    producer.commit(slot, tag, Mode::Single);
}

/// Takes everything behind a part, or behind a message that is none; whether the last message is one without a cut.
fn drain(consumer: &mut LaneConsumer, mut is_open: bool) -> bool {
    loop {
        while consumer.take_cut() {
            assert!(is_open, "a cut after a whole message");
            is_open = false;
        }
        let Some(found) = consumer.find_before_cut().expect("a sound lane") else {
            consumer.release();
            return is_open;
        };
        is_open = found.header.tag().framing.continues();
        consumer.step_over(&found);
        consumer.take();
    }
}

/// With padding after the first part, after the second one, and without.
#[test]
fn model_killed_inside_a_line_ends_it_once() {
    for used in [&[8][..], &[8, 8], &[8, 0, 8], &[0, 8]] {
        for_each_death(|| {
            explore(None, || {
                let (old, mut consumer) = used_lane(used);
                let lane = old.view().clone();
                let _ = victim(|| {
                    let mut producer = LaneProducer::take_over(lane.clone()).expect("a sound lane");
                    send(&mut producer, 8, PART);
                    send(&mut producer, 8, PART);
                });
                // The victim's first part may be where each of these messages ends.
                for _ in 0..6 {
                    let is_open = drain(&mut consumer, false);
                    let mut next = LaneProducer::take_over(lane.clone()).expect("a sound lane");
                    assert!(next.is_cut_due() || !is_open, "a cut is missing");
                    assert!(is_open || !next.is_cut_due(), "a cut after a whole message");
                    send(&mut next, 0, WHOLE);
                    assert!(!drain(&mut consumer, is_open));
                }
            });
        });
    }
}

/// With padding after the first part, after the second one, and without.
#[test]
fn model_line_goes_on_after_a_killed_consumer() {
    for used in [&[8][..], &[8, 8], &[8, 0, 8], &[0, 8]] {
        for_each_death(|| {
            explore(None, || {
                let (mut producer, consumer) = used_lane(used);
                let lane: LaneView = consumer.view().clone();
                let begin = consumer.position();
                send(&mut producer, 8, PART);
                send(&mut producer, 8, PART);
                // Padding, if they end near the end of the lane.
                let _ = producer.try_reserve(Need::Message(16), Mode::Single);
                let _ = victim(|| {
                    let mut consumer =
                        LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                    for _ in 0..2 {
                        let found = consumer.find().expect("a sound lane").expect("a part");
                        consumer.take_part(&found);
                        consumer.release();
                    }
                    assert_eq!(consumer.find(), Ok(None));
                    consumer.release();
                });
                let mut successor = LaneConsumer::take_over(lane, 0).expect("a sound lane");
                let is_inside = successor.position() != begin;
                assert_eq!(successor.is_continued(), is_inside, "the rest of a line");
                send(&mut producer, 0, WHOLE);
                receive(&mut successor);
            });
        });
    }
}
