//! Pipe semantics of a ring, in each kind of memory: a stream and its end, deaths on both sides,
//! removal.

use crate::fixture::{Fixture, answer, ask, say_ok};
use semring::RingState;

/// Each behaviour in each kind of memory that other programs find. (Anonymous memory: see `passing`.)
macro_rules! over_each_kind {
    ($($behaviour:ident)*) => {
        over_each_kind!(@ posix Posix, $($behaviour)*);
        over_each_kind!(@ sysv Sysv, $($behaviour)*);
        over_each_kind!(@ file File, $($behaviour)*);
        over_each_kind!(@ memfd Memfd, $($behaviour)*);
    };
    (@ $module:ident $kind:ident, $($behaviour:ident)*) => {
        mod $module {
            use crate::fixture::{Kind, Fixture};
            $(#[test] fn $behaviour() {
                super::$behaviour(Fixture::new(Kind::$kind, stringify!($behaviour)));
            })*
        }
    };
}

over_each_kind! {
    a_stream_goes_from_process_to_process
    a_killed_producer_is_an_end_of_stream
    a_killed_consumer_is_a_broken_pipe
    force_ends_both_sides
    inspect_changes_nothing
}

fn a_stream_goes_from_process_to_process(mut fixture: Fixture) {
    fixture.ring(2, 4096);
    let (mut consumer, mut first, mut second) =
        (fixture.consumer(), fixture.producer(), fixture.producer());
    consumer.say("drain");
    first.say("send 1 0 2000 100");
    second.say("send 2 0 2000 700");
    for producer in [&mut first, &mut second] {
        assert_eq!(answer(producer), "ok");
        say_ok(producer, "drop-producer");
    }
    assert_eq!(answer(&mut consumer), "drained 4000 EndOfStream");
    drop((consumer, first, second));
    fixture.finish();
}

fn a_killed_producer_is_an_end_of_stream(mut fixture: Fixture) {
    fixture.ring(1, 4096);
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    say_ok(&mut producer, "send 1 0 10 100");
    consumer.say("drain");
    producer.kill();
    assert_eq!(answer(&mut consumer), "drained 10 EndOfStream");
    // The role is free again.
    assert!(ask(&mut fixture.peer(), "producer").starts_with("ok 0"));
    drop(consumer);
    fixture.finish();
}

fn a_killed_consumer_is_a_broken_pipe(mut fixture: Fixture) {
    fixture.ring(1, 4096);
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    producer.wait_until_asleep_on_a_ring();
    consumer.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    // A successor gets the unreleased messages.
    let mut successor = fixture.consumer();
    assert!(ask(&mut successor, "recv").starts_with("message 1 0 "));
    drop((successor, producer));
    fixture.finish();
}

fn force_ends_both_sides(mut fixture: Fixture) {
    let ring = fixture.ring(2, 4096);
    let mut consumer = fixture.consumer();
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    let mut producer = fixture.producer();
    assert_eq!(ask(&mut producer, "check"), "ok");
    let cleanup = fixture.known_cleanup();
    semring::force_remove(fixture.parsed()).unwrap();
    assert_eq!(answer(&mut consumer), "error Removed");
    assert_eq!(ask(&mut producer, "check"), "error Removed");
    assert!(ring.attach_producer().is_err());
    // A process that still has a descriptor can't restore the ring.
    let again = ask(
        &mut fixture.idle_peer(),
        &format!("open {}", fixture.address()),
    );
    assert!(again.contains("NotFound"), "{again}");
    drop((consumer, producer, ring));
    fixture.assert_gone(cleanup);
}

fn inspect_changes_nothing(mut fixture: Fixture) {
    fixture.ring(1, 4096);
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 7 100");
    let info = semring::inspect(fixture.parsed()).unwrap();
    assert_eq!((info.state, info.unread_messages()), (RingState::Active, 7));
    assert_eq!(info.lanes[0].producer_pid, Some(producer.pid()));
    say_ok(&mut producer, "drop-producer");
    let info = semring::inspect(fixture.parsed()).unwrap();
    assert_eq!((info.state, info.unread_messages()), (RingState::Idle, 7));
    assert_eq!((info.finished_producers(), info.died_producers()), (1, 0));
    drop(producer);
    fixture.finish();
}
