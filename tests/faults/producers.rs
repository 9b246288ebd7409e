//! Producers killed after each single instruction of one operation.
//!
//! After each kill the ring is used by others: a successor attaches and sends, every committed
//! message arrives once, complete and in order, at most the message (or batch) in flight is in doubt,
//! the stream ends, the ring is removed, nothing is left.

use std::cell::RefCell;

use crate::fixture::{Fixture, answer, ask, say_ok};
use crate::kill_points::{AROUND, KillPoints, Points};
use crate::staged::{
    OnceCommitted, Promise, asleep_in, at_marker, drained, gone, gone_by, reopen, sound, whole,
};
use semring_testkit::message;

traced_over_both_backends! {
    producer_killed_in_send
    producer_killed_in_wrapping_send
    producer_killed_in_reserve_and_commit
    producer_killed_in_discarded_reservation
    producer_killed_in_batch
    producer_killed_in_wrapping_batch
    producer_killed_in_send_released_before_takeover
    producer_killed_in_entering_asymmetric_mode
    producer_killed_in_asymmetric_send
    producer_killed_in_waking_the_consumer
    producer_killed_in_waking_from_asymmetric_mode
    producer_killed_in_waiting_for_room
    producer_killed_in_attach
    producer_killed_in_detach
    producer_killed_in_closing
    producer_killed_in_abort_counts_once
}

/// An operation of a producer that has sent messages before.
pub struct Sending {
    /// Its name.
    pub name: &'static str,
    /// The producer's commands before the operation; it sends as producer 1, from number 0 on.
    pub prepare: &'static [&'static str],
    /// Messages that it has sent then.
    pub sure: u64,
    /// How many of these have been received and released.
    pub taken: u64,
    /// The operation.
    pub what: &'static str,
    /// Messages that it commits, all at once.
    pub doubt: u64,
}

pub const SEND: Sending = Sending {
    name: "send",
    prepare: &["producer", "send 1 0 5 100"],
    sure: 5,
    taken: 0,
    what: "send 1 5 100",
    doubt: 1,
};

// 3 × 1008 + 2 × 80 bytes: 912 are left to the end, and a message of 1000 does not fit there.
pub const WRAPPING_SEND: Sending = Sending {
    name: "wrapping-send",
    prepare: &["producer", "send 1 0 3 1000", "send 1 3 2 72"],
    sure: 5,
    taken: 4,
    what: "send 1 5 1000",
    doubt: 1,
};

pub const RESERVE: Sending = Sending {
    name: "reserve-fill-commit",
    what: "reserve 1 5 100",
    ..SEND
};

pub const BATCH: Sending = Sending {
    name: "batch",
    taken: 2,
    what: "batch 1 5 3 100",
    doubt: 3,
    ..SEND
};

pub const WRAPPING_BATCH: Sending = Sending {
    name: "wrapping-batch",
    what: "batch 1 5 3 600",
    doubt: 3,
    ..WRAPPING_SEND
};

pub fn killed_sender(fixture: Fixture, sending: &Sending) {
    let mut committed = OnceCommitted::default();
    KillPoints::new(&fixture, sending.name, Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let mut consumer = ring.attach_consumer().unwrap();
            let stepper = at_marker(&fixture, sending.prepare, sending.what);
            for _ in 0..sending.taken {
                consumer.recv().unwrap().release();
            }
            consumer.flush_released().unwrap();
            (stepper, (ring, consumer))
        },
        |point, (ring, consumer)| {
            let promise = Promise {
                point,
                sure: sending.sure,
                doubt: sending.doubt,
            };
            let in_flight = sound(&fixture, &ring, consumer, sending.taken, promise);
            committed.note(point, in_flight);
        },
    );
    fixture.finish_removed();
}

fn producer_killed_in_send(fixture: Fixture) {
    killed_sender(fixture, &SEND);
}

fn producer_killed_in_wrapping_send(fixture: Fixture) {
    killed_sender(fixture, &WRAPPING_SEND);
}

fn producer_killed_in_reserve_and_commit(fixture: Fixture) {
    killed_sender(fixture, &RESERVE);
}

fn producer_killed_in_discarded_reservation(fixture: Fixture) {
    let discard = Sending {
        name: "discard",
        what: "discard 100",
        doubt: 0,
        ..SEND
    };
    killed_sender(fixture, &discard);
}

fn producer_killed_in_batch(fixture: Fixture) {
    killed_sender(fixture, &BATCH);
}

fn producer_killed_in_wrapping_batch(fixture: Fixture) {
    killed_sender(fixture, &WRAPPING_BATCH);
}

/// The consumer takes and releases everything before the lane has a successor: it may be ahead of
/// the dead producer's `committed`.
fn producer_killed_in_send_released_before_takeover(fixture: Fixture) {
    for (name, sending) in [
        ("send-and-released", &SEND),
        ("wrapping-send-and-released", &WRAPPING_SEND),
        ("batch-and-released", &BATCH),
        ("wrapping-batch-and-released", &WRAPPING_BATCH),
    ] {
        KillPoints::new(&fixture, name, AROUND).kill(
            || {
                let ring = fixture.ring(1);
                let mut consumer = ring.attach_consumer().unwrap();
                let stepper = at_marker(&fixture, sending.prepare, sending.what);
                for _ in 0..sending.taken {
                    consumer.recv().unwrap().release();
                }
                consumer.flush_released().unwrap();
                (stepper, (ring, consumer))
            },
            |point, (ring, mut consumer)| {
                let arrived = drained(&mut consumer);
                let got = sending.taken + arrived.len() as u64;
                let expected = (sending.taken..got).map(|number| (1, number));
                assert!(arrived.iter().copied().eq(expected), "{arrived:?}");
                let in_flight = got - sending.sure;
                assert!(in_flight == sending.doubt || in_flight == 0 && !point.at_end);
                assert_eq!(ring.info().unwrap().unread_messages(), 0);
                let promise = Promise {
                    point,
                    sure: got,
                    doubt: 0,
                };
                sound(&fixture, &ring, consumer, got, promise);
            },
        );
    }
    fixture.finish_removed();
}

/// After 32 commits that found the consumer awake, the next one enters asymmetric mode.
fn producer_killed_in_entering_asymmetric_mode(fixture: Fixture) {
    let begin = Sending {
        name: "into-burst",
        prepare: &["producer", "send 1 0 31 24"],
        sure: 31,
        taken: 0,
        what: "send 1 31 24",
        doubt: 1,
    };
    killed_sender(fixture, &begin);
}

fn producer_killed_in_asymmetric_send(fixture: Fixture) {
    let go_on = Sending {
        name: "send-in-burst",
        prepare: &["producer", "send 1 0 40 24"],
        sure: 40,
        taken: 0,
        what: "send 1 40 24",
        doubt: 1,
    };
    killed_sender(fixture, &go_on);
}

/// The consumer sleeps: it must wake up for the message, or for the end of the stream.
fn killed_waker(fixture: Fixture, name: &str, before: u64, prepare: &[&str], what: &str) {
    let mut committed = OnceCommitted::default();
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, name, Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let mut consumer = sleeper.borrow_mut();
            // Present and not asleep while the producer prepares: it commits without waking any
            // process.
            reopen(&fixture, &mut consumer);
            say_ok(&mut consumer, "consumer");
            let stepper = at_marker(&fixture, prepare, what);
            consumer.say("drain");
            consumer.wait_until_asleep_on_a_ring();
            (stepper, ring)
        },
        |point, _ring| {
            let mut consumer = sleeper.borrow_mut();
            let drained = answer(&mut consumer);
            let in_flight = if drained == format!("drained {before} EndOfStream") {
                0
            } else {
                assert_eq!(drained, format!("drained {} EndOfStream", before + 1));
                1
            };
            assert!(!point.at_end || in_flight == 1);
            committed.note(point, in_flight);
            gone_by(&fixture, &mut consumer);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

fn producer_killed_in_waking_the_consumer(fixture: Fixture) {
    let Sending { prepare, what, .. } = SEND;
    killed_waker(fixture, "send-to-a-sleeper", 5, prepare, what);
}

fn producer_killed_in_waking_from_asymmetric_mode(fixture: Fixture) {
    let prepare = ["producer", "send 1 0 40 24"];
    killed_waker(
        fixture,
        "send-to-a-sleeper-in-burst",
        40,
        &prepare,
        "send 1 40 24",
    );
}

/// The lane is full: the producer announces itself, sleeps for a moment, and gives up. The consumer may
/// have answered the announcement when the successor, on the same lane, sleeps for the first time: it
/// must not take that sleep for the old one.
fn producer_killed_in_waiting_for_room(fixture: Fixture) {
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, "wait-for-room", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let consumer = ring.attach_consumer().unwrap();
            let full = ["producer", "send 1 0 4 1000"];
            let stepper = at_marker(&fixture, &full, "send-timeout 1 4 1000 1");
            (stepper, (ring, consumer))
        },
        |_, (ring, mut consumer)| {
            let mut receive = |from, number| {
                let received = consumer.recv().unwrap();
                assert_eq!(whole(&received.to_vec()), (from, number));
                drop(received);
                consumer.flush_released().unwrap();
            };
            receive(1, 0);
            let mut successor = sleeper.borrow_mut();
            reopen(&fixture, &mut successor);
            assert_eq!(ask(&mut successor, "producer"), "ok 0");
            // There is room for the padding only.
            successor.say("send 2 0 1 1000");
            successor.wait_until_asleep_on_a_ring();
            receive(1, 1);
            assert_eq!(answer(&mut successor), "ok");
            say_ok(&mut successor, "drop-producer");
            for (from, number) in [(1, 2), (1, 3), (2, 0)] {
                receive(from, number);
            }
            assert_eq!(ring.info().unwrap().producers(), 0);
            assert_eq!(drained(&mut consumer), []);
            gone(&fixture, consumer);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

fn producer_killed_in_attach(fixture: Fixture) {
    let waiting = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, "attach", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            asleep_in(&fixture, &mut waiting.borrow_mut(), "recv");
            (at_marker(&fixture, &[], "attach"), ring)
        },
        |point, ring| {
            let mut consumer = waiting.borrow_mut();
            let info = ring.info().unwrap();
            assert_eq!(info.producers(), 0);
            let came = info.lanes[0].attached_producers > 0;
            assert!(!point.at_end || came);
            if came {
                // A producer that has attached ends a stream; if it was killed before, it never
                // attached.
                assert_eq!(answer(&mut consumer), "error EndOfStream");
            }
            let mut successor = ring.attach_producer().unwrap();
            let mut bytes = Vec::new();
            message::encode(2, 0, 300, &mut bytes);
            successor.send(&bytes).unwrap();
            drop(successor);
            if came {
                consumer.say("recv");
            }
            assert_eq!(answer(&mut consumer), "message 2 0 0 0");
            assert_eq!(ask(&mut consumer, "recv"), "error EndOfStream");
            gone_by(&fixture, &mut consumer);
        },
    );
    drop(waiting);
    fixture.finish_removed();
}

fn ended_stream(fixture: Fixture, name: &str, what: &str) {
    let is_abort = what == "abort";
    let waiting = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, name, Points::Every).kill_before_the_end(
        || {
            let ring = fixture.ring(1);
            let mut consumer = waiting.borrow_mut();
            // In asymmetric mode at the end: detaching ends that, too.
            reopen(&fixture, &mut consumer);
            say_ok(&mut consumer, "consumer");
            let stepper = at_marker(&fixture, &["producer", "send 1 0 40 24"], what);
            consumer.say("drain");
            consumer.wait_until_asleep_on_a_ring();
            (stepper, ring)
        },
        |point, ring| {
            let mut consumer = waiting.borrow_mut();
            assert_eq!(answer(&mut consumer), "drained 40 EndOfStream");
            say_ok(&mut consumer, "drop-consumer");
            let info = ring.info().unwrap();
            let (finished, died) = (info.finished_producers(), info.died_producers());
            assert_eq!(finished + died, 1, "it is counted once");
            assert!(!is_abort || died == 1, "an abort never finishes");
            let consumer = ring.attach_consumer().unwrap();
            let promise = Promise {
                point,
                sure: 0,
                doubt: 0,
            };
            sound(&fixture, &ring, consumer, 0, promise);
        },
    );
    drop(waiting);
    fixture.finish_removed();
}

fn producer_killed_in_detach(fixture: Fixture) {
    ended_stream(fixture, "detach", "detach");
}

fn producer_killed_in_closing(fixture: Fixture) {
    ended_stream(fixture, "close", "close");
}

fn producer_killed_in_abort_counts_once(fixture: Fixture) {
    ended_stream(fixture, "abort", "abort");
}
