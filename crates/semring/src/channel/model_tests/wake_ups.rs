//! Models without deaths: no wake-up is lost, on either side, and no message before the end of the
//! stream.

use loom::thread;

use super::{Model, ROOMY, TIGHT, receive, send};
use crate::error::RecvError;
use crate::model::{explore, fails_without};
use crate::sync::Twin;

/// The consumer sleeps for each message, the producer stays attached: nothing but its post wakes.
fn hand_over(preemptions: usize, messages: u64) {
    explore(Some(preemptions), move || {
        let model = Model::new(1, ROOMY);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
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
fn model_a_sleeping_consumer_is_woken() {
    hand_over(3, 2);
}

#[test]
fn model_the_waker_fences_between_publishing_and_looking() {
    fails_without(Twin::NoWakerFence, "deadlock", || hand_over(3, 2));
}

#[test]
fn model_the_sleeper_fences_between_announcing_and_looking() {
    fails_without(Twin::NoSleeperFence, "deadlock", || hand_over(3, 2));
}

/// The lane holds three of the messages: the producer sleeps for room.
fn make_room(preemptions: usize, messages: u64) {
    explore(Some(preemptions), move || {
        let model = Model::new(1, TIGHT);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
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
fn model_a_producer_that_sleeps_for_room_is_woken() {
    make_room(2, 5);
}

#[test]
fn model_two_producers_wake_one_consumer() {
    explore(Some(2), || {
        let model = Model::new(2, ROOMY);
        let mut consumer = model.consumer();
        let senders = [0, 1].map(|number| {
            let mut producer = model.producer();
            thread::spawn(move || {
                send(&mut producer, number);
                producer
            })
        });
        assert_eq!(receive(&mut consumer) + receive(&mut consumer), 1);
        drop(senders.map(|sender| sender.join().unwrap()));
    });
}

/// The last producer sends and leaves: its message comes before the end.
fn end_of_stream() {
    explore(Some(3), || {
        let model = Model::new(1, ROOMY);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
            send(&mut producer, 0);
            drop(producer);
        });
        assert_eq!(receive(&mut consumer), 0);
        assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream));
        sender.join().unwrap();
    });
}

#[test]
fn model_the_last_message_comes_before_the_end_of_the_stream() {
    end_of_stream();
}

#[test]
fn model_the_end_is_asked_for_before_the_last_look() {
    fails_without(
        Twin::ProbeAfterScan,
        "a message: EndOfStream",
        end_of_stream,
    );
}

#[test]
fn model_an_interrupted_sleeper_wakes() {
    explore(Some(3), || {
        let model = Model::new(1, ROOMY);
        let producer = model.producer();
        let mut consumer = model.consumer();
        let interrupter = consumer.interrupter();
        let other = thread::spawn(move || interrupter.interrupt());
        assert_eq!(consumer.recv().err(), Some(RecvError::Interrupted));
        other.join().unwrap();
        drop(producer);
    });
}
