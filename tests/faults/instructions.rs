//! Producers and consumers killed behind each single instruction of one operation.
//!
//! After each kill the ring is used by others: a successor attaches and sends, everything committed
//! arrives once, whole and in order, at most the message (or batch) in flight is in doubt, the stream
//! ends, the ring goes, nothing is left.

use crate::case::{Case, PEER, SMALL, answer, ask, run_to_marker, setting};
use semring::{RecvError, any};
use semring_testkit::message::{self, Numbered};
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::step::Stepper;
use std::process::Command;
use std::time::Instant;

over_both_backends! {
    a_producer_killed_at_any_instruction_of_a_send_leaves_a_sound_ring
    a_producer_killed_at_any_instruction_of_a_wrapping_send_leaves_a_sound_ring
    a_producer_killed_at_any_instruction_of_a_batch_leaves_a_sound_ring
    a_producer_killed_at_any_instruction_of_waking_the_consumer_leaves_it_awake
    a_producer_killed_at_any_instruction_of_its_attach_never_was_or_ends_the_stream
    a_producer_killed_at_any_instruction_of_its_detach_ends_the_stream
    a_consumer_killed_at_any_instruction_of_a_receive_loses_nothing
    a_consumer_killed_at_any_instruction_of_waking_the_producer_leaves_it_awake
    a_consumer_killed_at_any_instruction_of_its_attach_makes_way
    a_consumer_killed_at_any_instruction_of_its_detach_makes_way
}

/// How many steps a short run makes for an operation of set-up: the k-th point costs k steps, so of a
/// long one it takes every n-th point. Of what the data path does every point is taken always.
const SHORT: u64 = 150_000;

/// Which points are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Points {
    Every,
    /// As many as [`SHORT`] allows, spread over the whole; every one with `SEMRING_FULL=1`.
    Spread,
}

/// A peer that has done `prepare` and stands in front of `marked WHAT`.
#[track_caller]
fn at_marker(case: &Case, prepare: &[&str], what: &str) -> Stepper {
    let mut stepper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
    let open = format!("open {}", case.address());
    let commands: Vec<&str> = [open.as_str()].iter().chain(prepare).copied().collect();
    for command in &commands {
        stepper.peer().say(command);
    }
    stepper.peer().say(&format!("marked {what}"));
    run_to_marker(&mut stepper);
    for command in &commands {
        let answer = answer(stepper.peer());
        assert!(answer.starts_with("ok"), "{answer} to {command}");
    }
    stepper
}

/// Where a killed process had come to.
#[derive(Clone, Copy)]
struct Point {
    /// Instructions behind the first marker.
    steps: u64,
    /// It had come to the second one: the operation was complete.
    at_end: bool,
}

/// Kills at one point after the other. `stage` sets up the ring and the process, `check` looks at what
/// the kill has left.
fn at_every_instruction<S>(
    what: &str,
    points: Points,
    mut stage: impl FnMut() -> (Stepper, S),
    mut check: impl FnMut(Point, S),
) {
    let begin = Instant::now();
    let (mut stepper, staged) = stage();
    let count = stepper.step_to_marker().expect("it comes to its end");
    stepper.kill();
    check(
        Point {
            steps: count,
            at_end: true,
        },
        staged,
    );
    let full = points == Points::Every || setting("SEMRING_FULL", 0) != 0;
    let stride = if full {
        1
    } else {
        (count * count / 2).div_ceil(SHORT)
    };
    let mut tried = 0;
    let mut steps = 0;
    loop {
        let (mut stepper, staged) = stage();
        let stepped = stepper.step(steps).expect("it goes on");
        assert_eq!(stepper.kill(), Exit::Signal(libc::SIGKILL));
        check(
            Point {
                steps: stepped.steps,
                at_end: stepped.at_end,
            },
            staged,
        );
        tried += 1;
        if stepped.at_end {
            break;
        }
        steps += stride;
    }
    println!(
        "{what}: {tried} points of {count} instructions, {:?}",
        begin.elapsed()
    );
    assert!(count > 50, "an operation is more than {count} instructions");
}

/// Receives one message of the tests.
#[track_caller]
fn next(consumer: &mut any::Consumer, point: Point) -> Result<(u32, u64), RecvError> {
    let bytes = consumer.recv()?.to_vec();
    match message::decode(&bytes) {
        Ok(Numbered { producer, number }) => Ok((producer, number)),
        Err(damage) => panic!("torn: {damage}, killed behind {} steps", point.steps),
    }
}

/// Receives everything and holds that it is the first `sure` messages of producer 1, perhaps the `doubt`
/// that were in flight (all or none), and then what the successor, producer 2, sends now.
#[track_caller]
fn sound(
    case: &Case,
    ring: &any::Ring,
    mut consumer: any::Consumer,
    have: u64,
    promise: Promise,
) -> u64 {
    let Promise { point, sure, doubt } = promise;
    let at = point.steps;
    let mut successor = ring
        .producer()
        .unwrap_or_else(|error| panic!("{error} at {at}"));
    let mut bytes = Vec::new();
    for number in 0..3 {
        message::encode(2, number, 300, &mut bytes);
        successor
            .send(&bytes)
            .unwrap_or_else(|error| panic!("{error} at {at}"));
    }
    drop(successor);
    let mut arrived = Vec::new();
    let end = loop {
        match next(&mut consumer, point) {
            Ok(message) => arrived.push(message),
            Err(error) => break error,
        }
    };
    assert_eq!(end, RecvError::EndOfStream, "at {at}");
    let from_first = arrived
        .iter()
        .filter(|(producer, _)| *producer == 1)
        .count() as u64;
    let in_flight = have + from_first - sure;
    assert!(in_flight == 0 || in_flight == doubt, "{arrived:?} at {at}");
    assert!(
        !point.at_end || in_flight == doubt,
        "committed and lost at the end"
    );
    let expected = (have..have + from_first)
        .map(|n| (1, n))
        .chain((0..3).map(|n| (2, n)));
    assert!(arrived.iter().copied().eq(expected), "{arrived:?} at {at}");
    assert!(consumer.remove_at_end().unwrap(), "at {at}");
    case.guard.assert_clean();
    in_flight
}

/// What must be in the ring behind a kill.
#[derive(Clone, Copy)]
struct Promise {
    point: Point,
    /// Messages that were committed before.
    sure: u64,
    /// Messages that were being committed together.
    doubt: u64,
}

/// What was in flight is committed from some instruction on, and from there on always.
#[derive(Default)]
struct OnceCommitted(bool);

impl OnceCommitted {
    #[track_caller]
    fn note(&mut self, point: Point, in_flight: u64) {
        // Points come in order but for the first, which is the end.
        if !point.at_end {
            assert!(
                !self.0 || in_flight > 0,
                "committed, and then not: {}",
                point.steps
            );
            self.0 |= in_flight > 0;
        }
    }
}

fn killed_sender(case: Case, name: &str, prepare: &[&str], taken: u64, what: &str, doubt: u64) {
    let sure: u64 = 5;
    let mut committed = OnceCommitted::default();
    at_every_instruction(
        name,
        Points::Every,
        || {
            let ring = case.ring(1);
            let mut consumer = ring.consumer().unwrap();
            let stepper = at_marker(&case, prepare, what);
            for _ in 0..taken {
                consumer.recv().unwrap();
            }
            consumer.flush_released().unwrap();
            (stepper, (ring, consumer))
        },
        |point, (ring, consumer)| {
            let promise = Promise { point, sure, doubt };
            let in_flight = sound(&case, &ring, consumer, taken, promise);
            committed.note(point, in_flight);
        },
    );
    case.finish_removed();
}

fn a_producer_killed_at_any_instruction_of_a_send_leaves_a_sound_ring(case: Case) {
    killed_sender(
        case,
        "send",
        &["producer", "send 1 0 5 100"],
        0,
        "send 1 5 100",
        1,
    );
}

fn a_producer_killed_at_any_instruction_of_a_wrapping_send_leaves_a_sound_ring(case: Case) {
    // 3 × 1008 + 2 × 80 bytes: 912 are left to the end, and a message of 1000 does not fit there.
    let prepare = ["producer", "send 1 0 3 1000", "send 1 3 2 72"];
    killed_sender(case, "wrapping send", &prepare, 4, "send 1 5 1000", 1);
}

fn a_producer_killed_at_any_instruction_of_a_batch_leaves_a_sound_ring(case: Case) {
    let prepare = ["producer", "send 1 0 5 100"];
    killed_sender(case, "batch of 3", &prepare, 2, "batch 1 5 3 100", 3);
}

fn a_producer_killed_at_any_instruction_of_waking_the_consumer_leaves_it_awake(case: Case) {
    let mut committed = OnceCommitted::default();
    at_every_instruction(
        "send to a sleeper",
        Points::Every,
        || {
            let ring = case.ring(1);
            let mut consumer = case.consumer();
            let stepper = at_marker(&case, &["producer", "send 1 0 5 100"], "send 1 5 100");
            consumer.say("drain");
            consumer.wait_until_asleep_on_a_semaphore();
            (stepper, (ring, consumer))
        },
        |point, (_ring, mut consumer)| {
            let drained = answer(&mut consumer);
            let in_flight = match drained.as_str() {
                "drained 5 EndOfStream" => 0,
                "drained 6 EndOfStream" => 1,
                other => panic!("{other} at {}", point.steps),
            };
            assert!(!point.at_end || in_flight == 1);
            committed.note(point, in_flight);
            assert_eq!(ask(&mut consumer, "remove-at-end"), "ok true");
            case.guard.assert_clean();
        },
    );
    case.finish_removed();
}

fn a_producer_killed_at_any_instruction_of_its_attach_never_was_or_ends_the_stream(case: Case) {
    at_every_instruction(
        "attach",
        Points::Spread,
        || {
            let ring = case.ring(1);
            let consumer = case.consumer();
            (at_marker(&case, &[], "attach"), (ring, consumer))
        },
        |point, (ring, mut consumer)| {
            let info = ring.info().unwrap();
            assert_eq!(info.producers(), 0);
            let told = if info.lanes[0].attached_producers > 0 {
                "error EndOfStream"
            } else {
                "error TimedOut"
            };
            assert_eq!(
                ask(&mut consumer, "recv-timeout 1"),
                told,
                "at {}",
                point.steps
            );
            drop(consumer);
            let consumer = ring.consumer().unwrap();
            sound(
                &case,
                &ring,
                consumer,
                0,
                Promise {
                    point,
                    sure: 0,
                    doubt: 0,
                },
            );
        },
    );
    case.finish_removed();
}

fn a_producer_killed_at_any_instruction_of_its_detach_ends_the_stream(case: Case) {
    at_every_instruction(
        "detach",
        Points::Spread,
        || {
            let ring = case.ring(1);
            let mut consumer = case.consumer();
            let stepper = at_marker(&case, &["producer", "send 1 0 5 100"], "detach");
            consumer.say("drain");
            consumer.wait_until_asleep_on_a_semaphore();
            (stepper, (ring, consumer))
        },
        |point, (ring, mut consumer)| {
            assert_eq!(
                answer(&mut consumer),
                "drained 5 EndOfStream",
                "at {}",
                point.steps
            );
            drop(consumer);
            let consumer = ring.consumer().unwrap();
            sound(
                &case,
                &ring,
                consumer,
                0,
                Promise {
                    point,
                    sure: 0,
                    doubt: 0,
                },
            );
        },
    );
    case.finish_removed();
}

fn a_consumer_killed_at_any_instruction_of_a_receive_loses_nothing(case: Case) {
    let mut released = OnceCommitted::default();
    at_every_instruction(
        "receive and release",
        Points::Every,
        || {
            let ring = case.ring(1);
            let mut producer = ring.producer().unwrap();
            let mut bytes = Vec::new();
            for number in 0..5 {
                message::encode(1, number, 100, &mut bytes);
                producer.send(&bytes).unwrap();
            }
            drop(producer);
            (at_marker(&case, &["consumer"], "recv"), ring)
        },
        |point, ring| {
            let mut consumer = ring.consumer().unwrap();
            let first = {
                let received = consumer.recv().unwrap();
                let it = message::decode(&received.to_vec()).unwrap();
                assert_eq!(
                    received.position().get(),
                    it.number * 112,
                    "at {}",
                    point.steps
                );
                received.put_back();
                it.number
            };
            assert!(
                first <= 1 && (!point.at_end || first == 1),
                "{first} at {}",
                point.steps
            );
            released.note(point, first);
            sound(
                &case,
                &ring,
                consumer,
                first,
                Promise {
                    point,
                    sure: 5,
                    doubt: 0,
                },
            );
        },
    );
    case.finish_removed();
}

fn a_consumer_killed_at_any_instruction_of_waking_the_producer_leaves_it_awake(case: Case) {
    at_every_instruction(
        "release to a sleeper",
        Points::Every,
        || {
            let ring = case.ring(1);
            let mut producer = case.producer();
            assert_eq!(ask(&mut producer, "fill 1 0 1000"), "ok 4");
            const { assert!(4 * 1008 <= SMALL) };
            producer.say("send 1 4 1 1000");
            let stepper = at_marker(&case, &["consumer"], "recv");
            producer.wait_until_asleep_on_a_semaphore();
            (stepper, (ring, producer))
        },
        |point, (ring, mut producer)| {
            let sent = match answer(&mut producer).as_str() {
                "ok" => 5,
                "error ConsumerGone after 0" => 4,
                other => panic!("{other} at {}", point.steps),
            };
            producer.wait();
            let mut consumer = ring.consumer().unwrap();
            let first = {
                let received = consumer.recv().unwrap();
                let it = message::decode(&received.to_vec()).unwrap();
                received.put_back();
                it.number
            };
            assert!(first <= 1, "{first} at {}", point.steps);
            // Room for the successor's messages, which is not this test's matter.
            let mut arrived = first;
            while arrived < sent {
                assert_eq!(
                    next(&mut consumer, point),
                    Ok((1, arrived)),
                    "at {}",
                    point.steps
                );
                arrived += 1;
            }
            consumer.flush_released().unwrap();
            sound(
                &case,
                &ring,
                consumer,
                sent,
                Promise {
                    point,
                    sure: sent,
                    doubt: 0,
                },
            );
        },
    );
    case.finish_removed();
}

/// A producer that a consumer's coming and going concerns, asleep on its full lane. It waits for the
/// next consumer when one that it met is gone.
fn sleeping_producer(case: &Case) -> Peer {
    let mut producer = case.producer();
    assert_eq!(ask(&mut producer, "fill 1 0 1000"), "ok 4");
    producer.say("feed 1 4 1 1000 /dev/null");
    producer.wait_until_asleep_on_a_semaphore();
    producer
}

/// The next consumer finds everything, and the producer goes on.
#[track_caller]
fn goes_on(case: &Case, mut producer: Peer, point: Point) {
    let mut consumer = case.consumer();
    consumer.say("drain");
    assert_eq!(answer(&mut producer), "ok", "at {}", point.steps);
    producer.wait();
    assert_eq!(
        answer(&mut consumer),
        "drained 5 EndOfStream",
        "at {}",
        point.steps
    );
    assert_eq!(
        ask(&mut consumer, "remove-at-end"),
        "ok true",
        "at {}",
        point.steps
    );
    case.guard.assert_clean();
}

fn a_consumer_killed_at_any_instruction_of_its_attach_makes_way(case: Case) {
    at_every_instruction(
        "consumer's attach",
        Points::Spread,
        || {
            let ring = case.ring(1);
            let producer = sleeping_producer(&case);
            (at_marker(&case, &[], "attach-consumer"), (ring, producer))
        },
        |point, (ring, producer)| {
            assert_eq!(ring.info().unwrap().consumer_pid, None);
            goes_on(&case, producer, point);
        },
    );
    case.finish_removed();
}

fn a_consumer_killed_at_any_instruction_of_its_detach_makes_way(case: Case) {
    at_every_instruction(
        "consumer's detach",
        Points::Spread,
        || {
            let ring = case.ring(1);
            let stepper = at_marker(&case, &["consumer"], "detach-consumer");
            let producer = sleeping_producer(&case);
            (stepper, (ring, producer))
        },
        |point, (ring, producer)| {
            assert_eq!(ring.info().unwrap().consumer_pid, None);
            goes_on(&case, producer, point);
        },
    );
    case.finish_removed();
}
