//! A process is killed, or stopped, before any one of its operations: the others go on.

use loom::thread;

use super::{Model, ROOMY, TIGHT, number_of, receive, send};
use crate::error::{RecvError, SendError};
use crate::guard::Role;
use crate::layout::{Framing, Position, Tag};
use crate::model::{explore, fails, for_each_death, victim};
use crate::sync::Ordering;

const LANE_0: Role = Role::Producer { lane: 0 };
const LANE_1: Role = Role::Producer { lane: 1 };

/// A producer attaches, sends and is killed on the way. A second producer is attached and sends
/// nothing unless nothing was committed. So the consumer gets exactly one message, and if it is the
/// dead producer's, only its undo token can wake the consumer.
fn killed_before_the_post(undo_tokens: bool) {
    for_each_death(|| {
        explore(Some(3), move || {
            let model = Model::new(2, ROOMY);
            let mut other = model.producer();
            let mut consumer = model.consumer();
            let dying = model.clone();
            let producers = thread::spawn(move || {
                if !undo_tokens {
                    dying.kernel.forget_undo_tokens();
                }
                let killed = victim(|| {
                    let mut producer = dying.producer();
                    send(&mut producer, 1);
                    producer
                });
                if killed.is_err() {
                    dying.bury(LANE_1);
                }
                if !dying.has_message(1) {
                    send(&mut other, 0);
                }
                (killed, other)
            });
            let number = receive(&mut consumer);
            assert_eq!(number == 1, model.has_message(1));
            drop(producers.join().unwrap());
        });
    });
}

#[test]
fn model_producer_killed_before_its_post_wakes() {
    killed_before_the_post(true);
}

#[test]
fn model_without_the_undo_token_a_message_is_missed() {
    fails("no undo token", "deadlock", || {
        killed_before_the_post(false)
    });
}

/// A producer is stopped before one of its operations and never continues: there is no death, so no
/// undo token. The other producer's messages arrive all the same. (The mutant is the usual swap of a flag: the producer
/// that wins the swap is stopped, and no other producer posts.)
#[test]
fn model_stopped_producer_delays_only_its_message() {
    for_each_death(|| {
        explore(Some(2), || {
            let model = Model::new(2, ROOMY);
            let mut stopping = model.producer();
            let mut other = model.producer();
            let mut consumer = model.consumer();
            let first = thread::spawn(move || {
                victim(|| {
                    send(&mut stopping, 1);
                    stopping
                })
            });
            let second = thread::spawn(move || {
                send(&mut other, 0);
                other
            });
            while receive(&mut consumer) != 0 {}
            drop((first.join().unwrap(), second.join().unwrap()));
        });
    });
}

/// A producer is killed inside a line, and another one takes its lane and sends nothing. The consumer, which waits for the
/// rest of the line, is not left waiting: for the first one it is woken by the death, for the second one by its post.
#[test]
fn model_line_ends_at_the_next_producer() {
    for_each_death(|| {
        explore(Some(2), || {
            let model = Model::new(1, ROOMY);
            let mut consumer = model.consumer();
            let mut producer = model.producer();
            let part = Tag::default().with_framing(Framing::LinePart);
            producer.send_with(&[1], part).expect("there is room");
            consumer.recv().expect("the first part").release_part();
            let successors = thread::spawn(move || {
                let killed = victim(|| {
                    producer.send_with(&[2], part).expect("there is room");
                    std::mem::forget(producer);
                });
                model.bury(LANE_0);
                (killed, model.producer())
            });
            loop {
                match consumer.recv_from(0) {
                    Ok(message) => {
                        assert_eq!(message.to_vec(), [2]);
                        message.release_part();
                    }
                    Err(error) => {
                        assert_eq!(error, RecvError::LaneEnded);
                        break;
                    }
                }
            }
            drop(successors.join().unwrap());
        });
    });
}

/// A consumer is killed, also in its sleep, and replaced. The producer remembers the epoch that it
/// posted for last.
#[test]
fn model_the_successor_of_a_killed_consumer_is_woken() {
    for_each_death(|| {
        explore(Some(2), || {
            let model = Model::new(1, ROOMY);
            let mut producer = model.producer();
            let sender = thread::spawn(move || {
                (0..2).for_each(|number| send(&mut producer, number));
                producer
            });
            let killed = victim(|| {
                let mut consumer = model.consumer();
                assert_eq!(receive(&mut consumer), 0);
            });
            if killed.is_err() {
                model.bury(Role::Consumer);
            }
            let mut successor = model.consumer();
            let mut last = None;
            while last != Some(1) {
                let number = receive(&mut successor);
                assert_eq!(
                    number,
                    last.map_or(number, |last| last + 1),
                    "lost, or out of order"
                );
                last = Some(number);
            }
            drop(sender.join().unwrap());
        });
    });
}

/// On a full lane a producer is killed, also while it sleeps for room, and replaced. The consumer
/// remembers the epoch that it posted for last.
#[test]
fn model_the_successor_of_a_killed_producer_is_woken() {
    for_each_death(|| {
        explore(Some(1), || {
            let model = Model::new(1, TIGHT);
            let mut consumer = model.consumer();
            let mut first = model.producer();
            (0..3).for_each(|number| send(&mut first, number));
            drop(first);
            let attaching = model.clone();
            let producers = thread::spawn(move || {
                let killed = victim(|| send(&mut attaching.producer(), 3));
                if killed.is_err() {
                    attaching.bury(LANE_0);
                }
                let mut successor = attaching.producer();
                (10..12).for_each(|number| send(&mut successor, number));
                successor
            });
            let mut expected = 0;
            while expected < 12 {
                let received = consumer.recv().map(|message| number_of(&message));
                let number = match received {
                    Ok(number) => number,
                    // No producer was attached in between.
                    Err(RecvError::EndOfStream { .. }) => {
                        consumer.resume();
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                if (3..10).contains(&expected) && number == 10 {
                    expected = 10;
                }
                assert_eq!(number, expected, "lost, twice or out of order");
                expected += 1;
            }
            drop(producers.join().unwrap());
        });
    });
}

/// The last producer is killed on its way through two messages and the detach: its committed
/// messages come, then the end.
#[test]
fn model_killed_producers_messages_precede_the_end() {
    for_each_death(|| {
        explore(Some(2), || {
            let model = Model::new(1, ROOMY);
            let mut producer = model.producer();
            let mut consumer = model.consumer();
            let dying = model.clone();
            let sender = thread::spawn(move || {
                let killed = victim(|| {
                    (0..2).for_each(|number| send(&mut producer, number));
                    drop(producer);
                });
                if killed.is_err() {
                    dying.bury(LANE_0);
                }
            });
            let mut received = 0;
            loop {
                match consumer.recv() {
                    Ok(message) => {
                        assert_eq!(number_of(&message), received);
                        received += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, RecvError::EndOfStream { .. }));
                        break;
                    }
                }
            }
            sender.join().unwrap();
            assert_eq!(received, model.messages(0), "lost");
        });
    });
}

/// The consumer of the producer is killed: a producer that sleeps for room gets a broken
/// pipe.
#[test]
fn model_producer_waiting_for_room_sees_the_death() {
    for_each_death(|| {
        explore(Some(2), || {
            let model = Model::new(1, TIGHT);
            let mut producer = model.producer();
            let mut consumer = model.consumer();
            let sender = thread::spawn(move || {
                let sent = (0..6u64).try_for_each(|number| producer.send(&number.to_le_bytes()));
                assert_eq!(sent, Err(SendError::ConsumerGone));
                producer
            });
            let killed = victim(|| {
                (0..2).for_each(|number| assert_eq!(receive(&mut consumer), number));
                drop(consumer);
            });
            if killed.is_err() {
                model.bury(Role::Consumer);
            }
            drop(sender.join().unwrap());
        });
    });
}

impl Model {
    /// Whether the first message of a lane was committed: for the test, after its producer.
    fn has_message(&self, lane: usize) -> bool {
        self.messages(lane) > 0
    }

    /// How many messages of 8 bytes were committed on a lane in its first lap.
    fn messages(&self, lane: usize) -> u64 {
        let view = self.view.lane(lane);
        let header = |index: &u64| {
            view.header(Position::new(index * 16))
                .load(Ordering::Relaxed)
        };
        (0..).take_while(|index| header(index) != 0).count() as u64
    }
}
