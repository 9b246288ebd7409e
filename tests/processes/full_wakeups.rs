//! A semaphore holds 32 767 tokens and not one more, a pipe as many as it has bytes. Full ones must
//! not block any process.

use crate::fixture::{Fixture, MESSAGES, ROOM, answer, ask, say_ok};

over_both_backends! {
    full_wakeup_of_the_consumer_is_harmless
    full_wakeup_of_a_producer_is_harmless
    deaths_with_full_wakeups_are_certified
    more_producers_come_and_go_than_a_wakeup_has_tokens
}

fn full_wakeup_of_the_consumer_is_harmless(fixture: Fixture) {
    fixture.ring(2);
    let wakeups = fixture.cleanup().wakeups();
    wakeups.fill(MESSAGES);
    let mut producers = [fixture.producer(), fixture.producer()];
    say_ok(&mut producers[0], "send 1 0 3 64");
    wakeups.fill(MESSAGES);
    say_ok(&mut producers[0], "drop-producer");
    assert!(wakeups.is_full(MESSAGES));
    let mut consumer = fixture.consumer();
    wakeups.fill(MESSAGES);
    // Tokens by the thousand wake a consumer for nothing, but not for ever.
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    assert!(wakeups.is_empty(MESSAGES));
    say_ok(&mut producers[1], "send 2 0 100 500");
    wakeups.post_to(MESSAGES);
    say_ok(&mut producers[1], "drop-producer");
    assert_eq!(answer(&mut consumer), "drained 103 EndOfStream");
    wakeups.fill(MESSAGES);
    say_ok(&mut consumer, "drop-consumer");
    drop((producers, consumer));
    fixture.finish();
}

fn full_wakeup_of_a_producer_is_harmless(fixture: Fixture) {
    fixture.ring(1);
    let wakeups = fixture.cleanup().wakeups();
    wakeups.fill(ROOM);
    let mut consumer = fixture.consumer();
    wakeups.fill(ROOM);
    let mut producer = fixture.producer();
    consumer.say("drain");
    say_ok(&mut producer, "send 1 0 200 1000");
    wakeups.post_to(ROOM);
    say_ok(&mut producer, "drop-producer");
    assert_eq!(answer(&mut consumer), "drained 200 EndOfStream");
    wakeups.fill(ROOM);
    say_ok(&mut consumer, "drop-consumer");
    assert!(wakeups.is_full(ROOM));
    say_ok(&mut consumer, "consumer");
    // The producer that must notice a death finds all of these tokens first.
    assert_eq!(ask(&mut producer, "producer"), "ok 0");
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    consumer.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    drop(producer);
    fixture.finish();
}

fn deaths_with_full_wakeups_are_certified(fixture: Fixture) {
    let ring = fixture.ring(1);
    let wakeups = fixture.cleanup().wakeups();
    for round in 0..3 {
        let mut producer = fixture.producer();
        let mut consumer = fixture.consumer();
        for index in [MESSAGES, ROOM] {
            wakeups.fill(index);
        }
        producer.kill();
        consumer.kill();
        let info = ring.info().unwrap();
        assert_eq!(
            (info.producers(), info.consumer_pid),
            (0, None),
            "round {round}"
        );
        assert!(wakeups.are_sound());
    }
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn more_producers_come_and_go_than_a_wakeup_has_tokens(fixture: Fixture) {
    let ring = fixture.ring(1);
    let wakeups = fixture.cleanup().wakeups();
    let mut peer = fixture.peer();
    say_ok(&mut peer, "churn 33000");
    assert!(wakeups.is_full(MESSAGES));
    // In one process even more: the undo value of a process has a limit, too.
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    say_ok(&mut peer, "send 1 0 3 64");
    peer.kill();
    assert_eq!(ring.info().unwrap().producers(), 0);
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    drop(consumer);
    fixture.finish();
}
