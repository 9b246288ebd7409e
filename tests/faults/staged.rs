//! Shared parts of the kill points: a process before its operation, and the state required after a
//! kill.

use std::process::Command;

use crate::fixture::{Fixture, PEER, answer, ask, run_to_marker, say_ok};
use crate::kill_points::Point;
use semring::{RecvError, any};
use semring_testkit::message::{self, Numbered};
use semring_testkit::peer::Peer;
use semring_testkit::step::Stepper;

/// A peer that has opened the ring, has done `prepare`, and stands in front of `marked WHAT`.
#[track_caller]
pub fn at_marker(fixture: &Fixture, prepare: &[&str], what: &str) -> Stepper {
    let open = format!("open {}", fixture.address());
    // Sleeps at once: how long it would look out before is no matter of these tests.
    let commands: Vec<&str> = ["wait block", open.as_str()]
        .iter()
        .chain(prepare)
        .copied()
        .collect();
    at_marker_without_ring(fixture, &commands, what)
}

/// The same for a peer that has nothing open.
#[track_caller]
pub fn at_marker_without_ring(fixture: &Fixture, prepare: &[&str], what: &str) -> Stepper {
    let mut stepper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
    fixture.guard.adopt(stepper.peer().pid());
    for command in prepare {
        stepper.peer().say(command);
    }
    stepper.peer().say(&format!("marked {what}"));
    run_to_marker(&mut stepper);
    for command in prepare {
        let answer = answer(stepper.peer());
        assert!(answer.starts_with("ok"), "{answer} to {command}");
    }
    stepper
}

/// Lets a peer that has served before open the ring of this point.
#[track_caller]
pub fn reopen(fixture: &Fixture, peer: &mut Peer) {
    say_ok(peer, "wait block");
    let opened = ask(peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
}

/// Makes a peer the consumer of the ring and lets it fall asleep in `command`.
#[track_caller]
pub fn asleep_in(fixture: &Fixture, consumer: &mut Peer, command: &str) {
    reopen(fixture, consumer);
    say_ok(consumer, "consumer");
    consumer.say(command);
    consumer.wait_until_asleep_on_a_ring();
}

/// The required contents of the ring after a kill.
#[derive(Clone, Copy)]
pub struct Promise {
    /// Where the kill was.
    pub point: Point,
    /// Messages that were committed before.
    pub sure: u64,
    /// Messages that were being committed together.
    pub doubt: u64,
}

/// Receives to the end; every message is whole.
#[track_caller]
pub fn drained(consumer: &mut any::Consumer) -> Vec<(u32, u64)> {
    let mut arrived = Vec::new();
    loop {
        match consumer.recv().map(|received| whole(&received.to_vec())) {
            Ok(message) => arrived.push(message),
            Err(error) => {
                assert!(matches!(error, RecvError::EndOfStream { .. }));
                consumer.resume();
                return arrived;
            }
        }
    }
}

/// The producer and number in these bytes; a damaged message ends the test.
#[track_caller]
pub fn whole(bytes: &[u8]) -> (u32, u64) {
    match message::decode(bytes) {
        Ok(Numbered { producer, number }) => (producer, number),
        Err(damage) => panic!("damaged message: {damage}"),
    }
}

/// Producer 2 attaches to the lane that became free, at once, and sends messages 0 to 2.
#[track_caller]
pub fn successor_sends(ring: &any::Ring, lane: usize) {
    let mut successor = ring
        .attach_producer()
        .expect("a dead producer's lane is free");
    assert_eq!(successor.lane(), lane);
    let mut bytes = Vec::new();
    for number in 0..3 {
        message::encode(2, number, 300, &mut bytes);
        successor.send(&bytes).expect("there is room");
    }
}

/// Receives everything and checks that it is the first `sure` messages of producer 1 from number
/// `have` on, possibly the `doubt` that were in flight (all or none), and then the messages of the
/// successor, producer 2, sent now. Returns how many in flight have arrived. The ring is removed
/// afterwards.
#[track_caller]
pub fn sound(
    fixture: &Fixture,
    ring: &any::Ring,
    mut consumer: any::Consumer,
    have: u64,
    promise: Promise,
) -> u64 {
    let Promise { point, sure, doubt } = promise;
    // The caller may have received an end of the stream already.
    consumer.resume();
    successor_sends(ring, 0);
    let arrived = drained(&mut consumer);
    let from_first = arrived.iter().filter(|(from, _)| *from == 1).count() as u64;
    assert!(have + from_first >= sure, "lost: {arrived:?}");
    let in_flight = have + from_first - sure;
    assert!(in_flight == 0 || in_flight == doubt, "{arrived:?}");
    assert!(
        !point.at_end || in_flight == doubt,
        "committed and lost: {arrived:?}"
    );
    let expected = (have..have + from_first)
        .map(|number| (1, number))
        .chain((0..3).map(|number| (2, number)));
    assert!(arrived.iter().copied().eq(expected), "{arrived:?}");
    gone(fixture, consumer);
    in_flight
}

/// The ring is removed at its end, and nothing is left of it.
#[track_caller]
pub fn gone(fixture: &Fixture, mut consumer: any::Consumer) {
    assert!(
        consumer
            .remove_at_end()
            .expect("it can be removed")
            .is_removed()
    );
    drop(consumer);
    clean(fixture);
}

/// The consumer is a peer, which has seen the end: it removes the ring, and nothing is left of it.
#[track_caller]
pub fn gone_by(fixture: &Fixture, consumer: &mut Peer) {
    assert_eq!(ask(consumer, "remove-at-end"), "ok true");
    say_ok(consumer, "drop-consumer");
    clean(fixture);
}

/// Nothing is left of the ring of this point.
#[track_caller]
pub fn clean(fixture: &Fixture) {
    fixture.guard.assert_clean();
    fixture.guard.forget_adopted();
}

/// From some instruction on the message in flight is committed, and at all later ones, too.
#[derive(Default)]
pub struct OnceCommitted(bool);

impl OnceCommitted {
    /// At a point so much of it was there.
    #[track_caller]
    pub fn note(&mut self, point: Point, in_flight: u64) {
        // Points come in order but for the first, which is the end.
        if !point.at_end {
            assert!(!self.0 || in_flight > 0, "committed, and then not");
            self.0 |= in_flight > 0;
        }
    }
}
