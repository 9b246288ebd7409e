//! A producer gets a broken pipe when its consumer is gone: at once when it sleeps or checks, within
//! 16 messages or 4 KiB in fenced mode, and within half a lap in asymmetric mode.

use crate::fixture::{Fixture, SMALL, answer, ask, say_ok};
use semring::SendError;
use std::time::Duration;

over_both_backends! {
    blocked_producer_wakes_when_consumer_exits
    blocked_producer_wakes_when_consumer_is_killed
    blocked_producer_wakes_when_consumer_closes
    every_blocked_producer_wakes_at_the_death
    running_producer_notices_within_a_quarter_lap
    running_producer_notices_within_half_a_lap
    slow_producer_notices_within_16_messages
    slow_producer_notices_within_4_kib
    slow_asymmetric_producer_notices_within_8_kib
    death_of_a_sleeping_consumer_noticed_by_next_send
    broken_pipe_is_repeated_whatever_was_released
    idle_producer_notices_when_it_checks
    closed_ring_differs_from_a_broken_one
    producer_that_never_had_a_consumer_waits
    consumer_dead_before_attach_is_no_broken_pipe
    consumer_between_two_looks_is_a_broken_pipe
    a_producer_rides_over_to_the_next_consumer
}

/// A producer that sleeps on its full lane, and a consumer that it has known.
fn blocked(fixture: &Fixture) -> (semring_testkit::peer::Peer, semring_testkit::peer::Peer) {
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "check");
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    assert!(ask(&mut consumer, "recv").starts_with("message 1 0 "));
    producer.say("send 1 1000 1 1000");
    producer.wait_until_asleep_on_a_ring();
    (producer, consumer)
}

fn blocked_producer_wakes_when_consumer_exits(fixture: Fixture) {
    fixture.ring(1);
    let (mut producer, mut consumer) = blocked(&fixture);
    consumer.wait();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    drop(producer);
    fixture.finish();
}

fn blocked_producer_wakes_when_consumer_is_killed(fixture: Fixture) {
    fixture.ring(1);
    let (mut producer, mut consumer) = blocked(&fixture);
    consumer.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    // Also for what there is room for.
    let told = ask(&mut producer, "send 1 1000 1 8");
    assert_eq!(told, "error ConsumerGone after 0");
    drop(producer);
    fixture.finish();
}

fn blocked_producer_wakes_when_consumer_closes(fixture: Fixture) {
    fixture.ring(1);
    let (mut producer, mut consumer) = blocked(&fixture);
    say_ok(&mut consumer, "close-consumer");
    assert_eq!(answer(&mut producer), "error Closed after 0");
    drop((producer, consumer));
    fixture.finish();
}

fn every_blocked_producer_wakes_at_the_death(fixture: Fixture) {
    fixture.ring(3);
    let mut consumer = fixture.consumer();
    let mut producers = [fixture.producer(), fixture.producer(), fixture.producer()];
    for (number, producer) in (1..).zip(&mut producers) {
        assert!(ask(producer, &format!("fill {number} 0 100")).starts_with("ok "));
        producer.say(&format!("send {number} 1000 1 1000"));
        producer.wait_until_asleep_on_a_ring();
    }
    consumer.kill();
    for producer in &mut producers {
        assert_eq!(answer(producer), "error ConsumerGone after 0");
    }
    drop(producers);
    fixture.finish();
}

fn running_producer_notices_within_a_quarter_lap(fixture: Fixture) {
    let capacity: u64 = 1 << 20;
    fixture.ring_of(1, capacity);
    for kill in [true, false] {
        let mut producer = fixture.producer();
        let mut consumer = fixture.consumer();
        say_ok(&mut producer, "send 1 0 10 56");
        if kill {
            consumer.kill();
        } else {
            consumer.wait();
        }
        // 64 bytes each with the header; there is room for all of them.
        let told = ask(&mut producer, "send 1 10 10000 56");
        let after = told
            .strip_prefix("error ConsumerGone after ")
            .expect("it gets the error");
        let after: u64 = after.parse().unwrap();
        assert!(
            after * 64 <= capacity / 4,
            "the error came after {after} messages"
        );
        producer.kill();
        let mut cleaner = fixture.consumer();
        assert_eq!(
            ask(&mut cleaner, "drain"),
            format!("drained {} EndOfStream", 10 + after)
        );
    }
    fixture.finish();
}

/// If the consumer released something just before it died, that counts as progress for a quarter lap
/// more.
fn running_producer_notices_within_half_a_lap(fixture: Fixture) {
    let capacity: u64 = 1 << 20;
    fixture.ring_of(1, capacity);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    // 64 bytes each with the header.
    let a_quarter = capacity / 4 / 64;
    let sent = a_quarter - 96;
    say_ok(&mut producer, &format!("send 1 0 {sent} 56"));
    say_ok(&mut consumer, "skip 2000");
    say_ok(&mut consumer, "flush");
    consumer.kill();
    let told = ask(&mut producer, &format!("send 1 {sent} 10000 56"));
    let after = told.strip_prefix("error ConsumerGone after ");
    let after: u64 = after.expect("it gets the error").parse().unwrap();
    assert!(
        sent + after <= 2 * a_quarter,
        "the error came after {after} messages"
    );
    drop(producer);
    let mut cleaner = fixture.consumer();
    assert_eq!(
        ask(&mut cleaner, "drain"),
        format!("drained {} EndOfStream", sent + after - 2000)
    );
    drop(cleaner);
    fixture.finish();
}

/// The consumer is killed while it is awake, after the producer has sent `before` messages of `len` bytes and it has
/// received `received` of them. How many messages the producer sends then without an error, over both guards.
fn sent_to_the_dead(fixture: Fixture, len: u64, before: u64, received: u64) -> u64 {
    let backend = fixture.backend;
    fixture.finish_removed(); // each run has a ring of its own
    let cases = [
        Fixture::new(backend, "dead-semaphores").with_semaphores(),
        Fixture::new(backend, "dead-pipes").with_pipes(),
    ];
    let sent = cases.map(|fixture| {
        fixture.ring_of(1, 1 << 20);
        let mut producer = fixture.producer();
        let mut consumer = fixture.consumer();
        say_ok(&mut producer, &format!("send 1 0 {before} {len}"));
        say_ok(&mut consumer, &format!("skip {received}"));
        say_ok(&mut consumer, "flush");
        consumer.kill();
        // One by one, as a slow producer does: none of them waits, and none wakes the consumer.
        let mut send = |number| ask(&mut producer, &format!("send 1 {number} 1 {len}"));
        let sent = (before..)
            .take_while(|&number| send(number) == "ok")
            .count();
        assert_eq!(send(before), "error ConsumerGone after 0");
        drop(producer);
        fixture.finish();
        sent as u64
    });
    sent[0].max(sent[1])
}

/// A release since the last check counts as progress, for 16 messages more.
fn slow_producer_notices_within_16_messages(fixture: Fixture) {
    let backend = fixture.backend;
    fixture.finish_removed();
    for before in [1, 10, 20] {
        for (received, bound) in [(0, 16), (1, 32), (before, 32)] {
            let fixture = Fixture::new(backend, "dead-after-some");
            let sent = sent_to_the_dead(fixture, 50, before, received);
            assert!(sent <= bound, "{sent} after {received} of {before}");
        }
    }
}

fn slow_producer_notices_within_4_kib(fixture: Fixture) {
    let sent = sent_to_the_dead(fixture, 1000, 2, 0);
    assert!(sent * 1008 <= 4096 + 1008, "{sent}");
}

/// After 32 messages to a consumer that is awake. One that has received some had made progress, which counts
/// for 4 KiB more.
fn slow_asymmetric_producer_notices_within_8_kib(fixture: Fixture) {
    let backend = fixture.backend;
    fixture.finish_removed();
    for received in [0, 5, 100] {
        let fixture = Fixture::new(backend, "dead-after-many");
        let sent = sent_to_the_dead(fixture, 56, 100, received);
        assert!(sent * 64 <= 2 * 4096, "{sent} after {received}");
    }
}

fn death_of_a_sleeping_consumer_noticed_by_next_send(fixture: Fixture) {
    fixture.ring_of(1, 1 << 20);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    consumer.kill();
    // The first one finds the wait word and checks; a problem found after a commit is reported by
    // the next call.
    assert_eq!(
        ask(&mut producer, "send 1 0 10 56"),
        "error ConsumerGone after 1"
    );
    drop(producer);
    fixture.finish();
}

fn broken_pipe_is_repeated_whatever_was_released(fixture: Fixture) {
    fixture.ring_of(1, 1 << 20);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 10 56");
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    consumer.kill();
    let told = ask(&mut producer, "send 1 10 10 56");
    assert_eq!(told, "error ConsumerGone after 1");
    for _ in 0..2 {
        let told = ask(&mut producer, "send 1 11 10 56");
        assert_eq!(told, "error ConsumerGone after 0");
    }
    // The next consumer is accepted without an error.
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 11 10 56");
    drop(producer);
    assert_eq!(ask(&mut consumer, "drain"), "drained 11 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn idle_producer_notices_when_it_checks(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    say_ok(&mut producer, "check");
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "check");
    consumer.kill();
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "check");
    consumer.wait();
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    drop(producer);
    fixture.finish();
}

fn closed_ring_differs_from_a_broken_one(fixture: Fixture) {
    fixture.ring_of(1, 1 << 16);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut consumer, "close-consumer");
    assert_eq!(ask(&mut producer, "check"), "error Closed");
    assert!(ask(&mut producer, "send 1 0 10000 56").starts_with("error Closed after "));
    // The next consumer takes messages again; killed, it leaves a broken pipe, not a closed one.
    say_ok(&mut consumer, "consumer");
    say_ok(&mut producer, "check");
    consumer.kill();
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    drop(producer);
    fixture.finish();
}

fn producer_that_never_had_a_consumer_waits(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let filled = ask(&mut producer, "fill 1 0 100");
    let filled: u64 = filled.strip_prefix("ok ").unwrap().parse().unwrap();
    say_ok(&mut producer, "check");
    assert_eq!(
        ask(&mut producer, "send-timeout 1 500 1000 50"),
        "error TimedOut"
    );
    // And goes on when one comes.
    producer.say(&format!("send 1 {filled} 50 1000"));
    producer.wait_until_asleep_on_a_ring();
    let mut consumer = fixture.consumer();
    consumer.say("drain");
    assert_eq!(answer(&mut producer), "ok");
    producer.wait();
    assert_eq!(
        answer(&mut consumer),
        format!("drained {} EndOfStream", filled + 50)
    );
    drop(consumer);
    fixture.finish();
}

fn consumer_dead_before_attach_is_no_broken_pipe(fixture: Fixture) {
    let ring = fixture.ring(1);
    fixture.consumer().kill();
    fixture.consumer().wait();
    let mut producer = ring.attach_producer().unwrap();
    producer.check_consumer().unwrap();
    while producer.try_send(&[0; 500]).is_ok() {}
    let moment = Duration::from_millis(30);
    assert_eq!(
        producer.send_deadline(&[0; 500], moment),
        Err(SendError::TimedOut)
    );
    drop(producer);
    fixture.finish();
}

fn consumer_between_two_looks_is_a_broken_pipe(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    // It comes and goes while the producer does not look.
    fixture.consumer().kill();
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    say_ok(&mut producer, "await-next");
    say_ok(&mut producer, "check");
    drop(producer);
    fixture.finish();
}

fn a_producer_rides_over_to_the_next_consumer(fixture: Fixture) {
    fixture.ring(1);
    let (mut producer, mut consumer) = blocked(&fixture);
    consumer.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    say_ok(&mut producer, "await-next");
    // No consumer is expected now: it waits.
    assert_eq!(
        ask(&mut producer, "send-timeout 1 1000 1000 50"),
        "error TimedOut"
    );
    producer.say("send 2 0 20 1000");
    producer.wait_until_asleep_on_a_ring();
    let mut consumer = fixture.consumer();
    // Not released before the kill, so it comes again.
    assert!(ask(&mut consumer, "recv").starts_with("message 1 0 "));
    consumer.say("drain");
    assert_eq!(answer(&mut producer), "ok");
    const { assert!(SMALL / 4 >= 1000) };
    producer.wait();
    let drained = answer(&mut consumer);
    assert!(
        drained.starts_with("drained ") && drained.ends_with(" EndOfStream"),
        "{drained}"
    );
    drop(consumer);
    fixture.finish();
}
