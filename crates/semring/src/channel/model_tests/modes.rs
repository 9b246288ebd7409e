//! Fenced and asymmetric mode: no wake-up is lost on the way between them.
//!
//! In these models one message without a wake-up is enough for a check of the consumer, and for asymmetric mode. The
//! barrier of the consumer is that of `sync::model_barrier`. `guard::mode_model_tests` has two producers.

use loom::thread;

use super::{Model, ROOMY, receive, send};
use crate::model::explore;
use crate::sync::take_part;

/// The lane enters asymmetric mode with the first or the second message, if the consumer is awake then, and leaves it
/// when the consumer has announced a sleep.
fn hand_over(preemptions: usize, messages: u64) {
    explore(Some(preemptions), move || {
        let model = Model::with_modes(1, ROOMY, true);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
            take_part();
            (0..messages).for_each(|number| send(&mut producer, number));
            producer
        });
        for number in 0..messages {
            assert_eq!(receive(&mut consumer), number);
        }
        sender.join().unwrap();
    });
}

#[test]
fn model_no_wake_up_is_lost_between_the_modes() {
    hand_over(3, 2);
}
