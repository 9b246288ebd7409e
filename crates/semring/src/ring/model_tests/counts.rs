//! The counts of messages after a kill: they may be too high, never too low.

use super::{receive, send, used_lane};
use crate::model::{explore, for_each_death, victim};
use crate::ring::consume::LaneConsumer;
use crate::ring::produce::LaneProducer;

#[test]
fn model_counts_are_never_too_low() {
    for_each_death(|| {
        explore(None, || {
            let (old, mut consumer) = used_lane(&[8]);
            let lane = old.view().clone();
            let _ = victim(|| {
                let mut producer = LaneProducer::take_over(lane.clone()).expect("a sound lane");
                send(&mut producer, &[1; 8]);
                send(&mut producer, &[2; 8]);
            });
            let mut published = consumer.taken_messages();
            while let Some(found) = consumer.find().expect("a sound lane") {
                consumer.step_over(&found);
                published += 1;
            }
            let producer = LaneProducer::take_over(lane).expect("a sound lane");
            assert!(producer.sent() >= published, "too few were sent");
        });
    });
    for_each_death(|| {
        explore(None, || {
            let (mut producer, consumer) = used_lane(&[]);
            let lane = consumer.view().clone();
            send(&mut producer, &[1; 8]);
            send(&mut producer, &[2; 8]);
            let _ = victim(|| {
                let mut consumer = LaneConsumer::take_over(lane.clone(), 0).expect("a sound lane");
                for _ in 0..2 {
                    receive(&mut consumer);
                    consumer.take();
                    consumer.release();
                }
            });
            let successor = LaneConsumer::take_over(lane, 0).expect("a sound lane");
            let released = successor.position().get() / 16;
            assert!(
                successor.taken_messages() >= released,
                "too few were received"
            );
        });
    });
}
