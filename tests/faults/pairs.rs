//! A second kill inside the takeover after the first one.
//!
//! The first process is killed after a change that others can see: in the segment, or by a system call.
//! Its successor is killed while it takes over, at each point around its own changes. The third must
//! find everything.

use std::cell::{Cell, RefCell};

use crate::consumers::{first_left, goes_on, sleeping_producer};
use crate::fixture::{Fixture, answer, ask, say_ok};
use crate::kill_points::{KillPoints, Point, Points, Track, is_full};
use crate::producers::{BATCH, SEND, Sending, WRAPPING_BATCH, WRAPPING_SEND};
use crate::staged::{Promise, at_marker, drained, sound, whole};
use semring::SendError;
use semring_testkit::message;

traced_over_both_backends! {
    producer_killed_taking_over_after_send
    producer_killed_taking_over_after_wrapping_send
    producer_killed_taking_over_after_batch
    producer_killed_taking_over_after_wrapping_batch
    producer_killed_taking_over_twice
    consumer_killed_taking_over_after_receive
    consumer_killed_taking_over_after_waking
    sleeping_successor_is_woken_like_predecessors
}

/// Of the takeover. It has some thousand instructions and is walked once for each first kill.
const TAKEOVER: Points = Points::Around {
    calls: 1,
    stores: 2,
    spread: 24,
};

/// The points of the first kill: the last changes (K3 and K4 are among them) and some before; all of
/// them in a full run.
fn first_points(track: &Track) -> Vec<u64> {
    let states = track.states();
    let last = states.len().saturating_sub(6);
    let stride = if is_full() {
        1
    } else {
        last.div_ceil(3).max(1)
    };
    let (before, at_the_end) = states.split_at(last);
    let before = before.iter().step_by(stride);
    before.chain(at_the_end).copied().collect()
}

fn producers(fixture: Fixture, sending: &Sending) {
    let Sending {
        sure, taken, doubt, ..
    } = *sending;
    let staged = || {
        let ring = fixture.ring(1);
        let mut consumer = ring.attach_consumer().unwrap();
        let stepper = at_marker(&fixture, sending.prepare, sending.what);
        for _ in 0..taken {
            consumer.recv().unwrap().release();
        }
        consumer.flush_released().unwrap();
        (stepper, ring, consumer)
    };
    let (mut stepper, ring, consumer) = staged();
    let track = Track::of(&mut stepper);
    stepper.kill();
    drop((consumer, ring));
    semring::force_remove(fixture.address()).unwrap();
    for first in first_points(&track) {
        let name = format!("attach-after-{}-{first}", sending.name);
        // The state that the first process left is the same each time.
        let found: Cell<Option<u64>> = Cell::new(None);
        KillPoints::new(&fixture, &name, TAKEOVER).kill(
            || {
                let (mut stepper, ring, consumer) = staged();
                track.lead(&mut stepper, first);
                stepper.kill();
                (at_marker(&fixture, &[], "attach"), (ring, consumer))
            },
            |_, (ring, consumer)| {
                let point = Point {
                    steps: first,
                    at_end: first == track.len,
                    set: None,
                };
                let promise = Promise { point, sure, doubt };
                let in_flight = sound(&fixture, &ring, consumer, taken, promise);
                assert_eq!(
                    found.replace(Some(in_flight)).unwrap_or(in_flight),
                    in_flight
                );
            },
        );
    }
    fixture.finish_removed();
}

fn producer_killed_taking_over_after_send(fixture: Fixture) {
    producers(fixture, &SEND);
}

fn producer_killed_taking_over_after_wrapping_send(fixture: Fixture) {
    producers(fixture, &WRAPPING_SEND);
}

fn producer_killed_taking_over_after_batch(fixture: Fixture) {
    producers(fixture, &BATCH);
}

fn producer_killed_taking_over_after_wrapping_batch(fixture: Fixture) {
    producers(fixture, &WRAPPING_BATCH);
}

/// Three deaths: after K3, in the takeover, in the next takeover.
fn producer_killed_taking_over_twice(fixture: Fixture) {
    let staged = || {
        let ring = fixture.ring(1);
        let consumer = ring.attach_consumer().unwrap();
        let batch = at_marker(&fixture, BATCH.prepare, BATCH.what);
        (batch, ring, consumer)
    };
    let (mut batch, ring, consumer) = staged();
    let track = Track::of(&mut batch);
    // After the store that published the batch, the last but two: K4 stores `sent` and `committed`.
    let published = track.stores[track.stores.len() - 3];
    batch.kill();
    let mut takeover = at_marker(&fixture, &[], "attach");
    let second = Track::of(&mut takeover);
    takeover.kill();
    drop((consumer, ring));
    semring::force_remove(fixture.address()).unwrap();
    for first in first_points(&second) {
        let name = format!("attach-after-attach-{first}");
        KillPoints::new(&fixture, &name, TAKEOVER).kill(
            || {
                let (mut batch, ring, consumer) = staged();
                track.lead(&mut batch, published);
                batch.kill();
                let mut takeover = at_marker(&fixture, &[], "attach");
                second.lead(&mut takeover, first);
                takeover.kill();
                (at_marker(&fixture, &[], "attach"), (ring, consumer))
            },
            |point, (ring, consumer)| {
                let promise = Promise {
                    point,
                    sure: 5,
                    doubt: 3,
                };
                let in_flight = sound(&fixture, &ring, consumer, 0, promise);
                assert_eq!(in_flight, 3);
            },
        );
    }
    fixture.finish_removed();
}

fn consumer_killed_taking_over_after_receive(fixture: Fixture) {
    let staged = || {
        let ring = fixture.ring(1);
        let mut producer = ring.attach_producer().unwrap();
        let mut bytes = Vec::new();
        for number in 0..5 {
            message::encode(1, number, 100, &mut bytes);
            producer.send(&bytes).unwrap();
        }
        drop(producer);
        (at_marker(&fixture, &["consumer"], "recv"), ring)
    };
    let (mut stepper, ring) = staged();
    let track = Track::of(&mut stepper);
    stepper.kill();
    ring.remove().unwrap();
    for first in first_points(&track) {
        let name = format!("attach-consumer-after-receive-{first}");
        let found: Cell<Option<u64>> = Cell::new(None);
        KillPoints::new(&fixture, &name, TAKEOVER).kill(
            || {
                let (mut stepper, ring) = staged();
                track.lead(&mut stepper, first);
                stepper.kill();
                (at_marker(&fixture, &[], "attach-consumer"), ring)
            },
            |point, ring| {
                let mut consumer = ring.attach_consumer().unwrap();
                let left = first_left(&mut consumer, &[0, 112, 224, 336, 448]);
                assert!(left <= 1 && (first < track.len || left == 1), "{left}");
                assert_eq!(found.replace(Some(left)).unwrap_or(left), left);
                let promise = Promise {
                    point,
                    sure: 5,
                    doubt: 0,
                };
                sound(&fixture, &ring, consumer, left, promise);
            },
        );
    }
    fixture.finish_removed();
}

/// A producer sleeps on its full lane through both deaths, or goes on at one of them.
fn consumer_killed_taking_over_after_waking(fixture: Fixture) {
    let peers = RefCell::new((fixture.idle_peer(), fixture.idle_peer()));
    let staged = || {
        let ring = fixture.ring(1);
        let stepper = at_marker(&fixture, &["consumer"], "recv");
        sleeping_producer(&fixture, &mut peers.borrow_mut().0);
        (stepper, ring)
    };
    let end = |ring: &semring::any::Ring| {
        let (producer, consumer) = &mut *peers.borrow_mut();
        goes_on(&fixture, producer, consumer, ring);
    };
    let (mut stepper, ring) = staged();
    let track = Track::of(&mut stepper);
    stepper.kill();
    end(&ring);
    for first in first_points(&track) {
        let name = format!("attach-consumer-after-release-{first}");
        KillPoints::new(&fixture, &name, TAKEOVER).kill(
            || {
                let (mut stepper, ring) = staged();
                track.lead(&mut stepper, first);
                stepper.kill();
                (at_marker(&fixture, &[], "attach-consumer"), ring)
            },
            |_, ring| end(&ring),
        );
    }
    drop(peers);
    fixture.finish_removed();
}

/// Each holder of the role sleeps once, is woken, and is killed. The other side, which stays, must not
/// take a successor's sleep for one that it has ended already.
fn sleeping_successor_is_woken_like_predecessors(fixture: Fixture) {
    let ring = fixture.ring(1);
    let mut bytes = Vec::new();
    let mut consumer = ring.attach_consumer().unwrap();
    for round in 0..3 {
        let mut producer = fixture.peer();
        assert_eq!(ask(&mut producer, "producer"), "ok 0");
        let first = 10 * round;
        let filled = ask(&mut producer, &format!("fill 1 {first} 1000"));
        let filled: u64 = filled.strip_prefix("ok ").unwrap().parse().unwrap();
        producer.say(&format!("send 1 {} 1 1000", first + filled));
        producer.wait_until_asleep_on_a_ring();
        for number in first..=first + filled {
            let received = consumer.recv().unwrap();
            assert_eq!(whole(&received.to_vec()), (1, number));
            drop(received);
            consumer.flush_released().unwrap();
        }
        assert_eq!(answer(&mut producer), "ok");
        producer.kill();
        assert_eq!(drained(&mut consumer), []);
    }
    drop(consumer);
    let mut producer = ring.attach_producer().unwrap();
    for round in 0..3 {
        let mut consumer = fixture.consumer();
        for number in 0..2 {
            consumer.say("recv");
            consumer.wait_until_asleep_on_a_ring();
            message::encode(2, 2 * round + number, 100, &mut bytes);
            producer.send(&bytes).unwrap();
            let received = answer(&mut consumer);
            let expected = format!("message 2 {} 0 ", 2 * round + number);
            assert!(received.starts_with(&expected), "{received}");
        }
        say_ok(&mut consumer, "flush");
        consumer.kill();
        assert_eq!(producer.check_consumer(), Err(SendError::ConsumerGone));
    }
    drop(producer);
    fixture.finish();
}
