//! Processes that become another user after they took a role in a ring that this user may not open.

use semring_testkit::needs_root;

use crate::fixture::{Fixture, answer, ask, say_ok};

over_both_backends! {
    a_producer_without_privileges_gives_its_lane_back
    a_consumer_without_privileges_gives_its_role_back
    a_producer_with_pipes_goes_on_without_privileges
    a_consumer_with_pipes_goes_on_without_privileges
}

fn a_producer_without_privileges_gives_its_lane_back(fixture: Fixture) {
    needs_root!("to become another user");
    let fixture = fixture.with_semaphores();
    let ring = fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "become-nobody");
    // The consumer can't be woken. The second message tries again; the next call returns the
    // reason.
    say_ok(&mut producer, "send 1 0 2 64");
    assert_eq!(
        ask(&mut producer, "send 1 2 1 64"),
        "error Os { call: Semop, errno: 13 } after 0"
    );
    say_ok(&mut producer, "close-producer");
    // The producer's process lives on. Its lane does not.
    assert_eq!(answer(&mut consumer), "drained 2 EndOfStream");
    let info = ring.info().unwrap();
    assert_eq!((info.producers(), info.finished_producers()), (0, 1));
    let mut next = fixture.producer();
    say_ok(&mut next, "send 2 0 1 64");
    producer.wait();
    // Its end does not take anything away from its successor.
    assert_eq!(ring.info().unwrap().producers(), 1);
    next.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 1 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn a_consumer_without_privileges_gives_its_role_back(fixture: Fixture) {
    needs_root!("to become another user");
    let fixture = fixture.with_semaphores();
    let ring = fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    let filled = ask(&mut producer, "fill 1 0 100");
    let next = filled.strip_prefix("ok ").expect("it is full");
    producer.say(&format!("send 1 {next} 1 1000"));
    producer.wait_until_asleep_on_a_ring();
    say_ok(&mut consumer, "become-nobody");
    let drained = ask(&mut consumer, "drain");
    assert!(drained.ends_with("errno: 13 }"), "{drained}");
    say_ok(&mut consumer, "drop-consumer");
    // Woken by that: there may be room, and no consumer that makes more.
    let sent = answer(&mut producer);
    assert!(
        sent == "ok" || sent.starts_with("error ConsumerGone"),
        "{sent}"
    );
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    assert_eq!(ring.info().unwrap().consumer_pid, None);
    let mut next = fixture.consumer();
    producer.wait();
    let drained = ask(&mut next, "drain");
    assert!(drained.ends_with(" EndOfStream"), "{drained}");
    drop((consumer, next));
    fixture.finish();
}

fn a_producer_with_pipes_goes_on_without_privileges(fixture: Fixture) {
    needs_root!("to become another user");
    let fixture = fixture.with_pipes();
    let ring = fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "become-nobody");
    // More than the lane holds: it waits for room, too.
    say_ok(&mut producer, "send 1 0 1000 64");
    say_ok(&mut producer, "close-producer");
    assert_eq!(answer(&mut consumer), "drained 1000 EndOfStream");
    assert_eq!(ring.info().unwrap().producers(), 0);
    drop((producer, consumer));
    fixture.finish();
}

fn a_consumer_with_pipes_goes_on_without_privileges(fixture: Fixture) {
    needs_root!("to become another user");
    let fixture = fixture.with_pipes();
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    let filled = ask(&mut producer, "fill 1 0 100");
    let next = filled.strip_prefix("ok ").expect("it is full");
    producer.say(&format!("send 1 {next} 1 1000"));
    producer.wait_until_asleep_on_a_ring();
    say_ok(&mut consumer, "become-nobody");
    consumer.say("drain");
    assert_eq!(answer(&mut producer), "ok");
    producer.wait();
    let drained = answer(&mut consumer);
    assert!(drained.ends_with(" EndOfStream"), "{drained}");
    drop(consumer);
    fixture.finish();
}
