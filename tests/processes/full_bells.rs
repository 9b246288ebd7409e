//! A semaphore holds 32 767 tokens and not one more. Full ones must not keep anybody from anything.

use crate::case::{Case, answer, ask, say_ok};
use sysv_ipc::sem::{MAX_VALUE, Op, SemSet};

over_both_backends! {
    a_full_bell_of_the_consumer_keeps_nobody_from_coming_or_going
    a_full_bell_of_a_producer_keeps_nobody_from_coming_or_going
    deaths_with_full_bells_are_certified
    more_producers_come_and_go_than_a_bell_has_tokens
}

/// The consumer's bell, and that of the producer on lane 0.
const MESSAGES: u16 = 0;
const ROOM: u16 = 9;

/// Posts as many tokens as there is room for, while nobody takes any.
fn fill(set: SemSet, index: u16) {
    post_to(set, index);
    assert_eq!(set.value(index).unwrap(), MAX_VALUE);
}

/// The same while somebody may be taking them.
fn post_to(set: SemSet, index: u16) {
    let missing = MAX_VALUE - set.value(index).unwrap();
    if missing > 0 {
        set.op(&[Op::new(index, missing.cast_signed())]).unwrap();
    }
}

fn a_full_bell_of_the_consumer_keeps_nobody_from_coming_or_going(case: Case) {
    case.ring(2);
    let set = case.set();
    fill(set, MESSAGES);
    let mut producers = [case.producer(), case.producer()];
    say_ok(&mut producers[0], "send 1 0 3 64");
    fill(set, MESSAGES);
    say_ok(&mut producers[0], "drop-producer");
    assert_eq!(set.value(MESSAGES).unwrap(), MAX_VALUE);
    let mut consumer = case.consumer();
    fill(set, MESSAGES);
    // Tokens by the thousand wake a consumer for nothing, but not for ever.
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    assert_eq!(set.value(MESSAGES).unwrap(), 0);
    say_ok(&mut producers[1], "send 2 0 100 500");
    post_to(set, MESSAGES);
    say_ok(&mut producers[1], "drop-producer");
    assert_eq!(answer(&mut consumer), "drained 103 EndOfStream");
    fill(set, MESSAGES);
    say_ok(&mut consumer, "drop-consumer");
    drop((producers, consumer));
    case.finish();
}

fn a_full_bell_of_a_producer_keeps_nobody_from_coming_or_going(case: Case) {
    case.ring(1);
    let set = case.set();
    fill(set, ROOM);
    let mut consumer = case.consumer();
    fill(set, ROOM);
    let mut producer = case.producer();
    consumer.say("drain");
    say_ok(&mut producer, "send 1 0 200 1000");
    post_to(set, ROOM);
    say_ok(&mut producer, "drop-producer");
    assert_eq!(answer(&mut consumer), "drained 200 EndOfStream");
    fill(set, ROOM);
    say_ok(&mut consumer, "drop-consumer");
    assert_eq!(set.value(ROOM).unwrap(), MAX_VALUE);
    say_ok(&mut consumer, "consumer");
    // The producer that is to learn of a death finds all of these tokens first.
    assert_eq!(ask(&mut producer, "producer"), "ok 0");
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    consumer.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    drop(producer);
    case.finish();
}

fn deaths_with_full_bells_are_certified(case: Case) {
    let ring = case.ring(1);
    let set = case.set();
    for round in 0..3 {
        let mut producer = case.producer();
        let mut consumer = case.consumer();
        for index in [MESSAGES, ROOM] {
            fill(set, index);
        }
        producer.kill();
        consumer.kill();
        let info = ring.info().unwrap();
        assert_eq!(
            (info.producers(), info.consumer_pid),
            (0, None),
            "round {round}"
        );
        assert!(
            set.values()
                .unwrap()
                .iter()
                .all(|value| *value <= MAX_VALUE)
        );
    }
    let mut consumer = case.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    drop(consumer);
    case.finish();
}

fn more_producers_come_and_go_than_a_bell_has_tokens(case: Case) {
    let ring = case.ring(1);
    let set = case.set();
    let mut peer = case.peer();
    say_ok(&mut peer, "churn 33000");
    assert_eq!(set.value(MESSAGES).unwrap(), MAX_VALUE);
    // In one process more still: what the kernel owes a process has a limit, too.
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    say_ok(&mut peer, "send 1 0 3 64");
    peer.kill();
    assert_eq!(ring.info().unwrap().producers(), 0);
    let mut consumer = case.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    drop(consumer);
    case.finish();
}
