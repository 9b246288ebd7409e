//! The consumer gets end of stream when the last producer is gone and the ring is drained, and not
//! before.

use crate::fixture::{Fixture, answer, ask, say_ok};
use semring::RecvError;
use semring_testkit::message;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(30);

over_both_backends! {
    exited_producer_ends_stream_after_last_message
    killed_producer_ends_stream_after_last_message
    the_end_comes_when_the_last_of_three_producers_is_gone
    sleeping_consumer_wakes_at_the_end
    sleeping_consumer_wakes_when_last_producer_dies
    kept_ring_has_no_end_before_an_attach
    end_is_repeated_if_consumer_died_before_acting
    end_that_was_acted_upon_is_not_repeated
    the_end_is_returned_until_the_consumer_resumes
    repeated_end_is_not_reported_to_the_successor
    a_resumed_consumer_waits_for_the_next_producer
    dead_producers_messages_reach_a_late_consumer
    batch_on_a_full_lane_appears_at_once
}

fn exited_producer_ends_stream_after_last_message(fixture: Fixture) {
    fixture.ring_of(1, 1 << 16);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 500 64");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 500 EndOfStream");
    consumer.wait();
    fixture.finish();
}

fn killed_producer_ends_stream_after_last_message(fixture: Fixture) {
    fixture.ring_of(1, 1 << 16);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 500 64");
    producer.kill();
    assert_eq!(ask(&mut consumer, "drain"), "drained 500 EndOfStream");
    consumer.wait();
    fixture.finish();
}

fn the_end_comes_when_the_last_of_three_producers_is_gone(fixture: Fixture) {
    fixture.ring_of(3, 1 << 16);
    let mut consumer = fixture.consumer();
    let mut producers = [fixture.producer(), fixture.producer(), fixture.producer()];
    for (number, producer) in (1..).zip(&mut producers) {
        say_ok(producer, &format!("send {number} 0 100 64"));
    }
    let [first, second, third] = &mut producers;
    first.wait();
    second.kill();
    for _ in 0..300 {
        assert!(ask(&mut consumer, "recv").starts_with("message "));
    }
    assert_eq!(ask(&mut consumer, "recv-timeout 30"), "error TimedOut");
    third.kill();
    assert_eq!(ask(&mut consumer, "recv"), "error EndOfStream");
    consumer.wait();
    fixture.finish();
}

fn sleeping_consumer_wakes_at_the_end(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "send 1 0 3 64");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "drop-producer");
    assert_eq!(answer(&mut consumer), "drained 3 EndOfStream");
    drop((producer, consumer));
    fixture.finish();
}

fn sleeping_consumer_wakes_when_last_producer_dies(fixture: Fixture) {
    fixture.ring(2);
    let mut producers = [fixture.producer(), fixture.producer()];
    let mut consumer = fixture.consumer();
    say_ok(&mut producers[1], "send 1 0 3 64");
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    producers[0].kill();
    consumer.wait_until_asleep_on_a_ring();
    producers[1].kill();
    assert_eq!(answer(&mut consumer), "drained 3 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn kept_ring_has_no_end_before_an_attach(fixture: Fixture) {
    let ring = fixture.ring(1);
    let mut consumer = ring.attach_consumer().unwrap();
    // New: no producer was ever attached.
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 1 64");
    producer.kill();
    assert!(consumer.recv().is_ok());
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    consumer.resume();
    // Ended once, and no producer attached since: it has not ended again, neither now nor for a
    // later consumer.
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    drop(consumer);
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    // A producer that sends nothing ends the stream, too, by detaching or by dying.
    fixture.producer().wait();
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    consumer.resume();
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    fixture.producer().kill();
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    consumer.resume();
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    drop(consumer);
    fixture.finish();
}

fn end_is_repeated_if_consumer_died_before_acting(fixture: Fixture) {
    let ring = fixture.ring(1);
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 5 64");
    producer.wait();
    for _ in 0..3 {
        let mut consumer = fixture.consumer();
        assert!(ask(&mut consumer, "drain").ends_with(" EndOfStream"));
        consumer.kill();
    }
    let mut consumer = ring.attach_consumer().unwrap();
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    drop(consumer);
    fixture.finish();
}

fn end_that_was_acted_upon_is_not_repeated(fixture: Fixture) {
    let ring = fixture.ring(1);
    fixture.producer().wait();
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    // The next call is the act.
    assert_eq!(ask(&mut consumer, "recv-timeout 10"), "error TimedOut");
    consumer.kill();
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    drop(consumer);
    fixture.finish();
}

fn the_end_is_returned_until_the_consumer_resumes(fixture: Fixture) {
    fixture.ring(2);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 2 64");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 2 EndOfStream");
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    // Neither a producer that comes nor what it sends changes that.
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 2 1 64");
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    say_ok(&mut producer, "send 1 3 1 64");
    producer.kill();
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    // Resumed, nothing was skipped, and the next end comes at once.
    say_ok(&mut consumer, "resume");
    assert!(ask(&mut consumer, "recv-again").starts_with("message 1 2 "));
    assert!(ask(&mut consumer, "recv-again").starts_with("message 1 3 "));
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    // One that came and left without a message, also.
    fixture.producer().wait();
    say_ok(&mut consumer, "resume");
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    say_ok(&mut consumer, "resume");
    assert_eq!(ask(&mut consumer, "recv-timeout 10"), "error TimedOut");
    drop(consumer);
    fixture.finish();
}

fn repeated_end_is_not_reported_to_the_successor(fixture: Fixture) {
    let ring = fixture.ring(1);
    fixture.producer().wait();
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    // The next call records it, also if it only returns the end again.
    assert_eq!(ask(&mut consumer, "recv-again"), "error EndOfStream");
    consumer.kill();
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(
        consumer.recv_deadline(MOMENT).unwrap_err(),
        RecvError::TimedOut
    );
    drop(consumer);
    fixture.finish();
}

fn a_resumed_consumer_waits_for_the_next_producer(fixture: Fixture) {
    fixture.ring(1);
    let mut consumer = fixture.consumer();
    fixture.producer().wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    say_ok(&mut consumer, "resume");
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    producer.kill();
    assert_eq!(answer(&mut consumer), "drained 3 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn dead_producers_messages_reach_a_late_consumer(fixture: Fixture) {
    let ring = fixture.ring_of(2, 1 << 16);
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 200 64");
    producer.kill();
    // A successor on the same lane continues after it.
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 200 200 64");
    producer.kill();
    assert_eq!(ring.info().unwrap().unread_messages(), 400);
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "drain"), "drained 400 EndOfStream");
    consumer.wait();
    fixture.finish();
}

fn batch_on_a_full_lane_appears_at_once(fixture: Fixture) {
    let ring = fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = ring.attach_producer().unwrap();
    let mut bytes = Vec::new();
    let mut filled = 0;
    let mut encoded = |number| {
        message::encode(1, number, 500, &mut bytes);
        bytes.clone()
    };
    while producer.try_send(&encoded(filled)).is_ok() {
        filled += 1;
    }
    let sent = || ring.info().unwrap().lanes[0].sent_messages;
    std::thread::scope(|scope| {
        let [first, second, third] = [encoded(filled), encoded(filled + 1), encoded(filled + 2)];
        let mut batch = producer.batch();
        let pushing = scope.spawn(move || {
            batch.push(&first).unwrap();
            batch
        });
        while !ring.info().unwrap().lanes[0].producer_sleeps {
            std::thread::yield_now();
        }
        for number in 0..filled {
            assert!(ask(&mut consumer, "recv").starts_with(&format!("message 1 {number} ")));
        }
        consumer.say("recv-timeout 60000");
        let mut batch = pushing.join().unwrap();
        assert_eq!(sent(), filled, "the first of the batch is held back");
        // Asleep, it has released everything: the whole batch fits.
        consumer.wait_until_asleep_on_a_ring();
        batch.push(&second).unwrap();
        batch.push(&third).unwrap();
        assert_eq!(sent(), filled, "nothing is visible before the commit");
        batch.commit();
    });
    // The producer stays attached, idle: it is the batch that woke the consumer.
    assert!(answer(&mut consumer).starts_with(&format!("message 1 {filled} ")));
    assert_eq!(sent(), filled + 3);
    drop(producer);
    assert_eq!(ask(&mut consumer, "drain"), "drained 2 EndOfStream");
    drop(consumer);
    fixture.finish();
}
