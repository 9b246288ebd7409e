//! Consumers killed after each single instruction of one operation.
//!
//! After each kill a successor gets every unreleased message, in order, complete and with the same
//! positions; a producer that sleeps for room is woken, by the release or by the death.

use std::cell::RefCell;

use crate::fixture::{Backend, Fixture, SMALL, answer, ask, say_ok};
use crate::kill_points::{AROUND, KillPoints, Points};
use crate::staged::{
    OnceCommitted, Promise, at_marker, at_marker_without_ring, drained, gone, gone_by, reopen,
    sound, whole,
};
use semring::{RecvError, SendError, any};
use semring_testkit::message;
use semring_testkit::peer::Peer;

traced_over_both_backends! {
    consumer_killed_in_receive
    consumer_killed_in_receive_over_a_pad
    consumer_killed_in_batch
    consumer_killed_in_change_of_lanes
    consumer_killed_in_end
    consumer_killed_while_it_lingers
    consumer_killed_in_going_to_sleep
    consumer_killed_in_waking_the_producer
    consumer_killed_in_attach
    consumer_killed_in_detach
    consumer_killed_in_closing
}

/// Producer 1 sends messages of this length and goes.
fn sent_before(ring: &any::Ring, first: u64, count: u64, len: usize) {
    let mut producer = ring.attach_producer().unwrap();
    let mut bytes = Vec::new();
    for number in first..first + count {
        message::encode(1, number, len, &mut bytes);
        producer.send(&bytes).unwrap();
    }
}

/// The number of the next message, which lies where it always lay and stays unreceived; how many there
/// ever were if the stream has ended.
#[track_caller]
pub fn first_left(consumer: &mut any::Consumer, positions: &[u64]) -> u64 {
    let received = match consumer.recv() {
        Ok(received) => received,
        Err(error) => {
            assert!(matches!(error, RecvError::EndOfStream { .. }));
            return positions.len() as u64;
        }
    };
    let it = message::decode(&received.to_vec()).unwrap();
    assert_eq!(received.position().get(), positions[it.number as usize]);
    received.put_back();
    it.number
}

/// Messages of producer 1 lie at these positions of lane 0; `what` receives `most` of them.
pub struct Receiving {
    pub name: &'static str,
    /// Stages the messages.
    pub send: fn(&any::Ring),
    pub prepare: &'static [&'static str],
    pub what: &'static str,
    /// Where each message lies.
    pub positions: &'static [u64],
    /// Messages that were received and released before.
    pub before: u64,
    /// Messages that the operation receives and releases, one by one or all at once.
    pub most: u64,
}

pub fn killed_receiver(fixture: Fixture, receiving: &Receiving) {
    let mut released = OnceCommitted::default();
    let Receiving {
        before,
        most,
        positions,
        ..
    } = *receiving;
    KillPoints::new(&fixture, receiving.name, Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            (receiving.send)(&ring);
            (at_marker(&fixture, receiving.prepare, receiving.what), ring)
        },
        |point, ring| {
            let mut consumer = ring.attach_consumer().unwrap();
            let count = positions.len() as u64;
            let first = first_left(&mut consumer, positions);
            let took = first - before;
            assert!(took == 0 || took == most, "{took}");
            assert!(!point.at_end || took == most, "{took}");
            released.note(point, took);
            let promise = Promise {
                point,
                sure: count,
                doubt: 0,
            };
            sound(&fixture, &ring, consumer, first, promise);
        },
    );
    fixture.finish_removed();
}

fn consumer_killed_in_receive(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive",
        send: |ring| sent_before(ring, 0, 5, 100),
        prepare: &["consumer"],
        what: "recv",
        positions: &[0, 112, 224, 336, 448],
        before: 0,
        most: 1,
    };
    killed_receiver(fixture, &receiving);
}

/// Message 4 follows the padding, at the beginning of the lane.
fn consumer_killed_in_receive_over_a_pad(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-over-a-pad",
        send: |ring| {
            sent_before(ring, 0, 3, 1000);
            sent_before(ring, 3, 1, 500);
            let mut consumer = ring.attach_consumer().unwrap();
            for _ in 0..3 {
                consumer.recv().unwrap().release();
            }
            drop(consumer);
            sent_before(ring, 4, 2, 1000);
        },
        // Message 3, before the padding.
        prepare: &["consumer", "skip 1", "flush"],
        what: "recv",
        positions: &[0, 1008, 2016, 3024, 4096, 5104],
        before: 4,
        most: 1,
    };
    killed_receiver(fixture, &receiving);
}

fn consumer_killed_in_batch(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-a-batch",
        // More than a quarter of the capacity: the batch is released at its end, not by the flush.
        send: |ring| sent_before(ring, 0, 5, 300),
        prepare: &["consumer"],
        what: "recv-batch",
        positions: &[0, 312, 624, 936, 1248],
        before: 0,
        most: 5,
    };
    killed_receiver(fixture, &receiving);
}

/// Two lanes: the consumer has had the only message of the one, and goes on to the other.
fn consumer_killed_in_change_of_lanes(fixture: Fixture) {
    KillPoints::new(&fixture, "change-of-lanes", Points::Every).kill(
        || {
            let ring = fixture.ring(2);
            let mut producers = [
                ring.attach_producer().unwrap(),
                ring.attach_producer().unwrap(),
            ];
            let mut bytes = Vec::new();
            for (from, count) in [(1, 1), (2, 2)] {
                for number in 0..count {
                    message::encode(from, number, 100, &mut bytes);
                    producers[from as usize - 1].send(&bytes).unwrap();
                }
            }
            let stepper = at_marker(&fixture, &["consumer", "skip 1"], "recv");
            (stepper, (ring, producers))
        },
        |point, (ring, producers)| {
            drop(producers);
            let mut consumer = ring.attach_consumer().unwrap();
            let mut arrived = drained(&mut consumer);
            arrived.sort_unstable();
            // Released one after the other, in the order in which they were received.
            let all = [(1, 0), (2, 0), (2, 1)];
            assert!(arrived.len() <= 3 && all.ends_with(&arrived), "{arrived:?}");
            assert!(arrived.contains(&(2, 1)), "{arrived:?}");
            assert!(!point.at_end || arrived.len() == 1, "{arrived:?}");
            gone(&fixture, consumer);
        },
    );
    fixture.finish_removed();
}

/// A consumer that got the end of the stream and made no further call leaves it to its successor.
fn consumer_killed_in_end(fixture: Fixture) {
    let mut noted = OnceCommitted::default();
    KillPoints::new(&fixture, "end-of-stream", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            sent_before(&ring, 0, 1, 100);
            let prepare = ["consumer", "skip 1"];
            (at_marker(&fixture, &prepare, "recv-end"), ring)
        },
        |point, ring| {
            let mut consumer = ring.attach_consumer().unwrap();
            // A message that was not released comes again, and then the end is due again.
            let told = loop {
                match consumer.recv_deadline(std::time::Duration::from_millis(1)) {
                    Ok(received) => assert_eq!(whole(&received.to_vec()), (1, 0)),
                    Err(error) => break error,
                }
            };
            let delivered = match told {
                RecvError::EndOfStream { .. } => 0,
                RecvError::TimedOut => 1,
                other => panic!("{other}"),
            };
            assert!(!point.at_end || delivered == 1);
            noted.note(point, delivered);
            let promise = Promise {
                point,
                sure: 0,
                doubt: 0,
            };
            sound(&fixture, &ring, consumer, 0, promise);
        },
    );
    fixture.finish_removed();
}

/// An empty ring with a producer: the consumer announces itself, sleeps for a moment, and gives up. An
/// announcement that was never cleared costs the producer one call; when the successor sleeps for the
/// first time, the producer must not take that for the old sleep.
fn consumer_killed_in_going_to_sleep(fixture: Fixture) {
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, "wait-for-messages", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let mut producer = ring.attach_producer().unwrap();
            let predecessor = ring.attach_consumer().unwrap();
            // In asymmetric mode, so that falling asleep needs a barrier.
            for number in 0..40 {
                send(&mut producer, number);
            }
            drop(predecessor);
            let stepper = at_marker(&fixture, &["consumer", "skip 40"], "recv-timeout 1");
            (stepper, (ring, producer))
        },
        |_, (_ring, mut producer)| {
            send(&mut producer, 40);
            let mut successor = sleeper.borrow_mut();
            reopen(&fixture, &mut successor);
            say_ok(&mut successor, "consumer");
            // Released were 32, a quarter of the capacity; before its sleep, all.
            let first = ask(&mut successor, "recv");
            let mut next = if first == "message 1 32 0 1024" {
                33
            } else {
                assert_eq!(first, "message 1 40 0 1280");
                41
            };
            while next < 41 {
                let expected = format!("message 1 {next} 0 {}", next * 32);
                assert_eq!(ask(&mut successor, "recv"), expected);
                next += 1;
            }
            for number in 41..43 {
                successor.say("recv");
                successor.wait_until_asleep_on_a_ring();
                send(&mut producer, number);
                let expected = format!("message 1 {number} 0 {}", number * 32);
                assert_eq!(answer(&mut successor), expected);
            }
            drop(producer);
            assert_eq!(ask(&mut successor, "recv"), "error EndOfStream");
            gone_by(&fixture, &mut successor);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

/// One short message of producer 1, even if the consumer that it woke last is gone.
#[track_caller]
fn send(producer: &mut any::Producer, number: u64) {
    let mut bytes = Vec::new();
    message::encode(1, number, 24, &mut bytes);
    if let Err(error) = producer.send(&bytes) {
        assert_eq!(error, SendError::ConsumerGone);
        producer.send(&bytes).unwrap();
    }
}

fn consumer_killed_in_waking_the_producer(fixture: Fixture) {
    let sleeper = RefCell::new(fixture.idle_peer());
    KillPoints::new(&fixture, "release-to-a-sleeper", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let mut producer = sleeper.borrow_mut();
            reopen(&fixture, &mut producer);
            assert_eq!(ask(&mut producer, "producer"), "ok 0");
            assert_eq!(ask(&mut producer, "fill 1 0 1000"), "ok 4");
            const { assert!(4 * 1008 <= SMALL) };
            producer.say("send 1 4 1 1000");
            let stepper = at_marker(&fixture, &["consumer"], "recv");
            producer.wait_until_asleep_on_a_ring();
            (stepper, ring)
        },
        |point, ring| {
            let mut producer = sleeper.borrow_mut();
            let sent = match answer(&mut producer).as_str() {
                "ok" => 5,
                "error ConsumerGone after 0" => 4,
                other => panic!("{other}"),
            };
            say_ok(&mut producer, "drop-producer");
            let mut consumer = ring.attach_consumer().unwrap();
            let first = first_left(&mut consumer, &[0, 1008]);
            let arrived: Vec<_> = (first..sent)
                .map(|_| whole(&consumer.recv().unwrap().to_vec()))
                .collect();
            let expected = (first..sent).map(|number| (1, number));
            assert!(arrived.iter().copied().eq(expected), "{arrived:?}");
            // Room for the successor's messages, which is not this test's matter.
            consumer.flush_released().unwrap();
            let promise = Promise {
                point,
                sure: sent,
                doubt: 0,
            };
            sound(&fixture, &ring, consumer, sent, promise);
        },
    );
    drop(sleeper);
    fixture.finish_removed();
}

/// A producer that depends on the consumer, asleep on its full lane. If a consumer that was attached beside it is
/// gone, it waits for the next one.
pub fn sleeping_producer(fixture: &Fixture, producer: &mut Peer) {
    reopen(fixture, producer);
    assert_eq!(ask(producer, "producer"), "ok 0");
    assert_eq!(ask(producer, "fill 1 0 1000"), "ok 4");
    producer.say("feed 1 4 1 1000 /dev/null");
    producer.wait_until_asleep_on_a_ring();
}

/// The next consumer finds everything that was not released, and the producer goes on.
#[track_caller]
pub fn goes_on(fixture: &Fixture, producer: &mut Peer, consumer: &mut Peer, ring: &any::Ring) {
    // Counted a moment before it is released: killed in between, it is counted and comes again.
    let counted = ring.info().unwrap().lanes[0].received_messages;
    reopen(fixture, consumer);
    say_ok(consumer, "consumer");
    consumer.say("drain");
    assert_eq!(answer(producer), "ok");
    say_ok(producer, "drop-producer");
    let arrived = answer(consumer);
    let released = u64::from(arrived == "drained 4 EndOfStream");
    assert!(released <= counted);
    assert_eq!(arrived, format!("drained {} EndOfStream", 5 - released));
    gone_by(fixture, consumer);
}

/// A producer sleeps on its full lane meanwhile.
fn consumer_killed_in_attach(fixture: Fixture) {
    let peers = RefCell::new((fixture.idle_peer(), fixture.idle_peer()));
    KillPoints::new(&fixture, "attach-consumer", AROUND).kill(
        || {
            let ring = fixture.ring(1);
            let stepper = at_marker(&fixture, &[], "attach-consumer");
            sleeping_producer(&fixture, &mut peers.borrow_mut().0);
            (stepper, ring)
        },
        |_, ring| {
            assert_eq!(ring.info().unwrap().consumer_pid, None);
            let (producer, consumer) = &mut *peers.borrow_mut();
            goes_on(&fixture, producer, consumer, &ring);
        },
    );
    drop(peers);
    fixture.finish_removed();
}

fn consumer_killed_in_detach(fixture: Fixture) {
    leaves(fixture, "detach-consumer", false);
}

fn consumer_killed_in_closing(fixture: Fixture) {
    leaves(fixture, "close-consumer", true);
}

/// A producer that waits for room gets an error: the ring was closed, or the consumer is gone.
fn leaves(fixture: Fixture, what: &str, on_purpose: bool) {
    let peers = RefCell::new((fixture.idle_peer(), fixture.idle_peer()));
    let mut closed = OnceCommitted::default();
    KillPoints::new(&fixture, what, AROUND).kill_before_the_end(
        || {
            let ring = fixture.ring(1);
            let stepper = at_marker(&fixture, &["consumer"], what);
            let producer = &mut peers.borrow_mut().0;
            reopen(&fixture, producer);
            assert_eq!(ask(producer, "producer"), "ok 0");
            assert_eq!(ask(producer, "fill 1 0 1000"), "ok 4");
            producer.say("send 1 4 1 1000");
            producer.wait_until_asleep_on_a_ring();
            (stepper, ring)
        },
        |point, ring| {
            let (producer, consumer) = &mut *peers.borrow_mut();
            let refused = match answer(producer).as_str() {
                "error ConsumerGone after 0" => 0,
                "error Closed after 0" => 1,
                other => panic!("{other}"),
            };
            assert!(on_purpose || refused == 0);
            assert!(!point.at_end || on_purpose == (refused == 1));
            closed.note(point, refused);
            assert_eq!(ring.info().unwrap().consumer_pid, None);
            // Messages that one consumer refused are not refused by the next.
            reopen(&fixture, consumer);
            say_ok(consumer, "consumer");
            say_ok(producer, "drop-producer");
            let mut late = ring.attach_producer().unwrap();
            consumer.say("drain");
            let mut bytes = Vec::new();
            message::encode(2, 0, 1000, &mut bytes);
            late.send(&bytes).unwrap();
            drop(late);
            assert_eq!(answer(consumer), "drained 5 EndOfStream");
            gone_by(&fixture, consumer);
        },
    );
    drop(peers);
    fixture.finish_removed();
}

/// The same while it lingers, with either guard: no end is recorded before the time is over.
fn consumer_killed_while_it_lingers(fixture: Fixture) {
    let pipes = (fixture.backend == Backend::Posix)
        .then(|| Fixture::new(Backend::Posix, "linger-with-pipes").with_pipes());
    let pipes = pipes.map(|fixture| ("linger-with-pipes", fixture));
    for (name, fixture) in [("linger", fixture.with_semaphores())]
        .into_iter()
        .chain(pipes)
    {
        let mut delivered = OnceCommitted::default();
        KillPoints::new(&fixture, name, AROUND).kill(
            || {
                let ring = fixture.ring(1);
                sent_before(&ring, 0, 1, 100);
                let open = format!("open {}", fixture.address());
                let prepare = ["wait block", "linger 20", &open, "consumer", "skip 1"];
                (at_marker_without_ring(&fixture, &prepare, "recv-end"), ring)
            },
            |point, ring| {
                let mut consumer = ring.attach_consumer().unwrap();
                let told = loop {
                    match consumer.recv_deadline(std::time::Duration::from_millis(1)) {
                        Ok(received) => assert_eq!(whole(&received.to_vec()), (1, 0)),
                        Err(error) => break error,
                    }
                };
                let ended = match told {
                    RecvError::EndOfStream { .. } => 0,
                    RecvError::TimedOut => 1,
                    other => panic!("{other}"),
                };
                assert!(!point.at_end || ended == 1);
                delivered.note(point, ended);
                let promise = Promise {
                    point,
                    sure: 0,
                    doubt: 0,
                };
                sound(&fixture, &ring, consumer, 0, promise);
            },
        );
        fixture.finish_removed();
    }
}
