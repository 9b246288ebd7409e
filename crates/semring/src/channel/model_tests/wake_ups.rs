//! Models without deaths: no wake-up is lost, on either side, and no message before the end of the
//! stream.

use loom::thread;

use super::{Model, ROOMY, TIGHT, receive, send};
use crate::error::RecvError;
use crate::model::explore;

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

/// The second message is found by the fast path, if it is there when the first one was taken.
#[test]
fn model_the_fast_path_acquires_what_it_finds() {
    explore(Some(2), || {
        let model = Model::new(1, ROOMY);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        send(&mut producer, 0);
        let sender = thread::spawn(move || {
            send(&mut producer, 1);
            producer
        });
        assert_eq!(receive(&mut consumer), 0);
        assert_eq!(receive(&mut consumer), 1);
        sender.join().unwrap();
    });
}

/// One producer attaches and leaves, which posts a token for nothing. The consumer takes all tokens before it announces
/// its next sleep, and so keeps the one that the other producer posts for it.
#[test]
fn model_a_token_for_an_announcement_is_kept() {
    explore(Some(2), || {
        let model = Model::new(2, ROOMY);
        let mut sending = model.producer();
        let leaving = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
            drop(leaving);
            send(&mut sending, 0);
            sending
        });
        assert_eq!(receive(&mut consumer), 0);
        drop(sender.join().unwrap());
    });
}

/// A message is held while its producer is followed by another one on the lane.
#[test]
fn model_a_message_has_the_generation_of_its_sender() {
    explore(None, || {
        let model = Model::new(1, ROOMY);
        let mut first = model.producer();
        send(&mut first, 0);
        drop(first);
        let mut consumer = model.consumer();
        let attaching = model.clone();
        let second = thread::spawn(move || drop(attaching.producer()));
        let message = consumer.recv().expect("a message");
        let generation = message.generation();
        assert!(
            generation.is_none_or(|generation| generation == 1),
            "the generation of another producer"
        );
        drop(message);
        second.join().unwrap();
    });
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
#[test]
fn model_last_message_precedes_the_end() {
    explore(Some(3), || {
        let model = Model::new(1, ROOMY);
        let mut producer = model.producer();
        let mut consumer = model.consumer();
        let sender = thread::spawn(move || {
            send(&mut producer, 0);
            drop(producer);
        });
        assert_eq!(receive(&mut consumer), 0);
        assert!(matches!(
            consumer.recv().err(),
            Some(RecvError::EndOfStream { .. })
        ));
        sender.join().unwrap();
    });
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
