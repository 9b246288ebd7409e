//! A producer stopped (SIGSTOP, a debugger, swapped out) at every single instruction: no process waits for
//! it.
//!
//! While it is stopped, another producer's messages arrive one by one, each waking the consumer, which
//! sleeps whenever the ring is empty. When it continues, its own message arrives.

use std::cell::RefCell;

use crate::fixture::{Fixture, answer, ask, say_ok};
use crate::kill_points::{AROUND, KillPoints, Point, Points};
use crate::producers::{BATCH, RESERVE, SEND, Sending, WRAPPING_SEND};
use crate::staged::{OnceCommitted, at_marker, gone_by, reopen};
use semring::any;
use semring_testkit::message;
use semring_testkit::peer::Peer;
use semring_testkit::step::Stepper;

traced_over_both_backends! {
    producer_stopped_in_send
    producer_stopped_in_wrapping_send
    producer_stopped_in_reserve_fill_and_commit
    producer_stopped_in_batch
    producer_stopped_in_leaving_asymmetric_mode
    producer_stopped_in_attach
    producer_stopped_in_detach
}

/// The producer that goes on, and the consumer.
struct Others<'a> {
    ring: &'a any::Ring,
    producer: any::Producer,
    consumer: &'a mut Peer,
    /// Messages of the stopped producer that were received while it stood.
    early: Vec<String>,
    sent: u64,
}

impl Others<'_> {
    /// Sends a message to the consumer, which is in a `recv`, and has it received.
    #[track_caller]
    fn pass(&mut self) {
        let mut bytes = Vec::new();
        message::encode(2, self.sent, 100, &mut bytes);
        self.producer
            .send(&bytes)
            .expect("nothing is wrong with it");
        let expected = format!("message 2 {} 1 {}", self.sent, self.sent * 112);
        self.sent += 1;
        loop {
            let received = answer(self.consumer);
            if received == expected {
                return;
            }
            // The stopped producer's may be there before, once.
            assert!(received.starts_with("message 1 "), "{received}");
            self.early.push(received);
            self.consumer.say("recv");
        }
    }

    /// Lets the consumer take what there is and fall asleep.
    #[track_caller]
    fn idle(&mut self) {
        loop {
            let received = ask(self.consumer, "recv-timeout 1");
            if received == "error TimedOut" {
                break;
            }
            assert!(received.starts_with("message 1 "), "{received}");
            self.early.push(received);
        }
        self.consumer.say("recv");
        self.consumer.wait_until_asleep_on_a_ring();
    }
}

/// Stops one at `point`; the others work; it goes on. `messages` are those that it then has sent.
#[track_caller]
fn stopped(
    fixture: &Fixture,
    point: Point,
    stepper: Stepper,
    mut others: Others,
    messages: &[String],
) {
    let mut stopped = stepper.stop().expect("it lives");
    others.pass();
    for _ in 0..2 {
        others.idle();
        others.pass();
    }
    others.idle();
    assert!(
        others.early.is_empty() || others.early == messages,
        "{:?}",
        others.early
    );
    assert!(!point.at_end || others.early == messages);
    stopped.cont();
    if others.early.is_empty() {
        for message in messages {
            assert_eq!(answer(others.consumer), *message);
            others.consumer.say("recv");
        }
    }
    assert_eq!(answer(&mut stopped), "ok");
    stopped.wait();
    others.consumer.wait_until_asleep_on_a_ring();
    others.pass();
    let Others {
        ring,
        producer,
        consumer,
        ..
    } = others;
    drop(producer);
    assert_eq!(ask(consumer, "recv"), "error EndOfStream");
    assert_eq!(ring.info().unwrap().producers(), 0);
    gone_by(fixture, consumer);
}

fn stopped_sender(
    fixture: Fixture,
    name: &str,
    points: Points,
    sending: &Sending,
    last: &[(u64, u64)],
) {
    let Sending { sure, what, .. } = *sending;
    let messages: Vec<String> = last
        .iter()
        .map(|(number, position)| format!("message 1 {number} 0 {position}"))
        .collect();
    let mut committed = OnceCommitted::default();
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, name, points).each(
        || {
            let ring = fixture.ring(2);
            let mut consumer = sleeper.borrow_mut();
            reopen(&fixture, &mut consumer);
            say_ok(&mut consumer, "consumer");
            let stepper = at_marker(&fixture, sending.prepare, what);
            let producer = ring.attach_producer().unwrap();
            assert_eq!(producer.lane(), 1);
            if sure > 0 {
                say_ok(&mut consumer, &format!("skip {sure}"));
                say_ok(&mut consumer, "flush");
            }
            consumer.say("recv");
            consumer.wait_until_asleep_on_a_ring();
            (stepper, (ring, producer))
        },
        |point, stepper, (ring, producer)| {
            let mut consumer = sleeper.borrow_mut();
            let others = Others {
                ring: &ring,
                producer,
                consumer: &mut consumer,
                early: Vec::new(),
                sent: 0,
            };
            stopped(&fixture, point, stepper, others, &messages);
            committed.note(point, 0);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

fn producer_stopped_in_send(fixture: Fixture) {
    stopped_sender(fixture, "stopped-send", Points::Every, &SEND, &[(5, 560)]);
}

fn producer_stopped_in_wrapping_send(fixture: Fixture) {
    let last = [(5, 4096)];
    stopped_sender(
        fixture,
        "stopped-wrapping-send",
        Points::Every,
        &WRAPPING_SEND,
        &last,
    );
}

fn producer_stopped_in_reserve_fill_and_commit(fixture: Fixture) {
    let last = [(5, 560)];
    stopped_sender(
        fixture,
        "stopped-reserve-fill-commit",
        Points::Every,
        &RESERVE,
        &last,
    );
}

fn producer_stopped_in_batch(fixture: Fixture) {
    let last = [(5, 560), (6, 672), (7, 784)];
    stopped_sender(fixture, "stopped-batch", AROUND, &BATCH, &last);
}

fn producer_stopped_in_leaving_asymmetric_mode(fixture: Fixture) {
    let asymmetric_lanes = Sending {
        name: "",
        prepare: &["producer", "send 1 0 40 24"],
        sure: 40,
        taken: 40,
        what: "send 1 40 24",
        doubt: 1,
    };
    stopped_sender(
        fixture,
        "stopped-leaving-burst",
        Points::Every,
        &asymmetric_lanes,
        &[(40, 1280)],
    );
}

/// The other one has lane 1 already; the stopped one comes to, or goes from, lane 0.
fn producer_stopped_in_attach(fixture: Fixture) {
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, "stopped-attach", AROUND).each(
        || {
            let ring = fixture.ring(2);
            let mut consumer = sleeper.borrow_mut();
            reopen(&fixture, &mut consumer);
            say_ok(&mut consumer, "consumer");
            let first = ring.attach_producer().unwrap();
            let producer = ring.attach_producer().unwrap();
            drop(first);
            consumer.say("recv");
            consumer.wait_until_asleep_on_a_ring();
            (at_marker(&fixture, &[], "attach"), (ring, producer))
        },
        |point, stepper, (ring, producer)| {
            let mut consumer = sleeper.borrow_mut();
            let others = Others {
                ring: &ring,
                producer,
                consumer: &mut consumer,
                early: Vec::new(),
                sent: 0,
            };
            stopped(&fixture, point, stepper, others, &[]);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

fn producer_stopped_in_detach(fixture: Fixture) {
    let detach = Sending {
        name: "",
        what: "detach",
        ..SEND
    };
    stopped_sender(fixture, "stopped-detach", AROUND, &detach, &[]);
}
