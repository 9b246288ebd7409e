//! Producers and consumers of a ring of several lanes, killed at every single instruction while the
//! others are at work: one producer sleeps for room again and again, one is idle, the consumer takes
//! what comes. A dead producer's lane is usable again at once.

use std::cell::RefCell;

use crate::fixture::{Fixture, answer, ask, say_ok};
use crate::kill_points::{AROUND, KillPoints, Points};
use crate::producers::{BATCH, RESERVE, SEND, Sending, WRAPPING_SEND};
use crate::staged::{OnceCommitted, at_marker, drained, gone, gone_by, reopen, successor_sends};
use semring_testkit::message;

traced_over_both_backends! {
    producer_killed_in_send_among_others
    producer_killed_in_wrapping_send_among_others
    producer_killed_in_reserve_among_others
    producer_killed_in_batch_among_others
    producer_killed_in_attach_among_others
    producer_killed_in_detach_among_others
    consumer_killed_in_receive_among_others
    consumer_killed_in_attach_among_others
}

/// The number of messages of the busy producer, number 3 on lane 1: three times as many as its lane
/// holds.
const FED: u64 = 12;

fn killed_among_others(fixture: Fixture, name: &str, points: Points, sending: &Sending) {
    let mut committed = OnceCommitted::default();
    let peers = RefCell::new((fixture.idle_peer(), fixture.idle_peer()));
    KillPoints::new(&fixture, name, points).kill(
        || {
            let ring = fixture.ring(3);
            let (consumer, busy) = &mut *peers.borrow_mut();
            let stepper = at_marker(&fixture, sending.prepare, sending.what);
            let holder = (sending.sure == 0).then(|| ring.attach_producer().unwrap());
            reopen(&fixture, busy);
            assert_eq!(ask(busy, "producer"), "ok 1");
            let idle = ring.attach_producer().unwrap();
            assert_eq!(idle.lane(), 2);
            drop(holder);
            reopen(&fixture, consumer);
            say_ok(consumer, "consumer");
            if sending.taken > 0 {
                say_ok(consumer, &format!("skip {}", sending.taken));
                say_ok(consumer, "flush");
            }
            busy.say(&format!("feed 3 0 {FED} 1000 /dev/null"));
            consumer.say("drain");
            (stepper, (ring, idle))
        },
        |point, (ring, mut idle)| {
            let (consumer, busy) = &mut *peers.borrow_mut();
            successor_sends(&ring, 0);
            let mut bytes = Vec::new();
            message::encode(4, 0, 100, &mut bytes);
            idle.send(&bytes).unwrap();
            drop(idle);
            assert_eq!(answer(busy), "ok");
            say_ok(busy, "drop-producer");
            let sure = sending.sure - sending.taken + 3 + 1 + FED;
            let arrived = answer(consumer);
            let in_flight = if arrived == format!("drained {sure} EndOfStream") {
                0
            } else {
                let all = sure + sending.doubt;
                assert_eq!(arrived, format!("drained {all} EndOfStream"));
                sending.doubt
            };
            assert!(!point.at_end || in_flight == sending.doubt, "{arrived}");
            committed.note(point, in_flight);
            gone_by(&fixture, consumer);
        },
    );
    drop(peers);
    fixture.finish_removed();
}

fn producer_killed_in_send_among_others(fixture: Fixture) {
    killed_among_others(fixture, "send-among-others", Points::Every, &SEND);
}

fn producer_killed_in_wrapping_send_among_others(fixture: Fixture) {
    let name = "wrapping-send-among-others";
    killed_among_others(fixture, name, Points::Every, &WRAPPING_SEND);
}

fn producer_killed_in_reserve_among_others(fixture: Fixture) {
    let name = "reserve-fill-commit-among-others";
    killed_among_others(fixture, name, Points::Every, &RESERVE);
}

fn producer_killed_in_batch_among_others(fixture: Fixture) {
    killed_among_others(fixture, "batch-among-others", Points::Every, &BATCH);
}

const COME: Sending = Sending {
    name: "",
    prepare: &[],
    sure: 0,
    taken: 0,
    what: "attach",
    doubt: 0,
};

fn producer_killed_in_attach_among_others(fixture: Fixture) {
    killed_among_others(fixture, "attach-among-others", AROUND, &COME);
}

fn producer_killed_in_detach_among_others(fixture: Fixture) {
    let go = Sending {
        what: "detach",
        doubt: 0,
        ..SEND
    };
    killed_among_others(fixture, "detach-among-others", AROUND, &go);
}

/// Two producers sleep on their full lanes, a third one has detached and left messages.
fn killed_consumer(fixture: Fixture, name: &str, points: Points, prepare: &[&str], what: &str) {
    let peers = RefCell::new((fixture.idle_peer(), fixture.idle_peer()));
    KillPoints::new(&fixture, name, points).kill(
        || {
            let ring = fixture.ring(3);
            successor_sends(&ring, 0);
            let (first, second) = &mut *peers.borrow_mut();
            let gone = ring.attach_producer().unwrap();
            for (peer, number) in [(&mut *first, 3), (&mut *second, 4)] {
                reopen(&fixture, peer);
                assert_eq!(ask(peer, "producer"), format!("ok {}", number - 2));
                assert_eq!(ask(peer, &format!("fill {number} 0 1000")), "ok 4");
            }
            drop(gone);
            let stepper = at_marker(&fixture, prepare, what);
            first.say("feed 3 4 8 1000 /dev/null");
            second.say("feed 4 4 8 1000 /dev/null");
            first.wait_until_asleep_on_a_ring();
            second.wait_until_asleep_on_a_ring();
            (stepper, ring)
        },
        |_, ring| {
            let (first, second) = &mut *peers.borrow_mut();
            let mut consumer = ring.attach_consumer().unwrap();
            let mut arrived = Vec::new();
            // The producers go when they have sent all, and the stream ends.
            let (arrived_all, _) = std::thread::scope(|scope| {
                let leaving = scope.spawn(|| {
                    for peer in [first, second] {
                        assert_eq!(answer(peer), "ok");
                        say_ok(peer, "drop-producer");
                    }
                });
                arrived.extend(drained(&mut consumer));
                (std::mem::take(&mut arrived), leaving.join().unwrap())
            });
            for (producer, sent) in [(2, 3), (3, FED), (4, FED)] {
                let numbers: Vec<u64> = arrived_all
                    .iter()
                    .filter(|(from, _)| *from == producer)
                    .map(|(_, number)| *number)
                    .collect();
                // The dead consumer had at most three of each.
                let first = numbers.first().copied().unwrap_or(sent);
                assert!(first <= 3, "{producer}: {numbers:?}");
                assert!(numbers.iter().copied().eq(first..sent), "{numbers:?}");
            }
            gone(&fixture, consumer);
        },
    );
    drop(peers);
    fixture.finish_removed();
}

fn consumer_killed_in_receive_among_others(fixture: Fixture) {
    let name = "receive-among-producers";
    // The next message is another lane's: the last lane is released.
    let prepare = ["consumer", "skip 3"];
    killed_consumer(fixture, name, Points::Every, &prepare, "recv");
}

fn consumer_killed_in_attach_among_others(fixture: Fixture) {
    let name = "attach-consumer-among-producers";
    killed_consumer(fixture, name, AROUND, &[], "attach-consumer");
}
