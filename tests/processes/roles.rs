//! One consumer, and one producer a lane: refused while they live, replaced the moment they are killed.

use crate::fixture::{Fixture, answer, ask, say_ok, setting};
use nix::sys::signal::Signal;
use semring_testkit::peer::Peer;

over_both_backends! {
    a_second_consumer_is_refused_with_the_pid_of_the_first
    a_stopped_consumer_is_not_a_dead_one
    refused_consumer_leaves_nothing
    a_consumer_takes_the_role_of_one_just_killed
    a_producer_takes_the_lane_of_one_just_killed
    a_producer_finds_no_lane_while_all_producers_live
    the_lowest_free_lane_is_taken
}

fn a_second_consumer_is_refused_with_the_pid_of_the_first(fixture: Fixture) {
    fixture.ring(1);
    let mut first = fixture.consumer();
    let mut second = fixture.peer();
    let refusal = format!("error ConsumerPresent {{ pid: {} }}", first.pid());
    assert_eq!(ask(&mut second, "consumer"), refusal);
    // Also while it sleeps, and while it is busy.
    first.say("drain");
    first.wait_until_asleep_on_a_ring();
    assert_eq!(ask(&mut second, "consumer"), refusal);
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 1000 64");
    assert_eq!(ask(&mut second, "consumer"), refusal);
    producer.wait();
    assert_eq!(answer(&mut first), "drained 1000 EndOfStream");
    say_ok(&mut first, "drop-consumer");
    say_ok(&mut second, "consumer");
    drop((first, second));
    fixture.finish();
}

fn a_stopped_consumer_is_not_a_dead_one(fixture: Fixture) {
    fixture.ring(1);
    let mut first = fixture.consumer();
    first.stop();
    let mut second = fixture.peer();
    let refusal = format!("error ConsumerPresent {{ pid: {} }}", first.pid());
    assert_eq!(ask(&mut second, "consumer"), refusal);
    first.cont();
    say_ok(&mut first, "drop-consumer");
    say_ok(&mut second, "consumer");
    drop((first, second));
    fixture.finish();
}

fn refused_consumer_leaves_nothing(fixture: Fixture) {
    fixture.ring(1);
    let (mut first, mut second) = (fixture.consumer(), fixture.peer());
    assert!(ask(&mut second, "consumer").starts_with("error ConsumerPresent"));
    let mut producer = fixture.producer();
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    producer.wait_until_asleep_on_a_ring();
    // The death of the refused process has no effect on the others.
    second.kill();
    producer.wait_until_asleep_on_a_ring();
    first.kill();
    assert_eq!(answer(&mut producer), "error ConsumerGone after 0");
    drop(producer);
    fixture.finish();
}

/// Rounds of: kill the holder, do not reap it, take its place at once.
fn successions(fixture: &Fixture, role: &str, granted: &str) {
    let rounds = setting("SEMRING_SUCCESSIONS", 200);
    let mut graveyard: Vec<Peer> = Vec::new();
    let mut holder = fixture.peer();
    assert_eq!(ask(&mut holder, role), granted);
    for round in 0..rounds {
        // Memory to be freed makes some deaths slow: the successor has to wait until the kernel has
        // ended the process.
        if round % 4 == 0 {
            say_ok(&mut holder, "allocate 8");
        }
        let mut successor = fixture.peer();
        // Asleep or in user space, as it happens.
        if role == "consumer" && round % 2 == 0 {
            holder.say("recv-timeout 10000");
        }
        holder.signal(Signal::SIGKILL);
        assert_eq!(ask(&mut successor, role), granted, "round {round}");
        graveyard.push(std::mem::replace(&mut holder, successor));
    }
}

fn a_consumer_takes_the_role_of_one_just_killed(fixture: Fixture) {
    fixture.ring(1);
    successions(&fixture, "consumer", "ok");
    fixture.finish();
}

fn a_producer_takes_the_lane_of_one_just_killed(fixture: Fixture) {
    fixture.ring(1);
    successions(&fixture, "producer", "ok 0");
    fixture.finish();
}

fn a_producer_finds_no_lane_while_all_producers_live(fixture: Fixture) {
    fixture.ring(2);
    let mut producers = [fixture.producer(), fixture.producer()];
    let mut third = fixture.peer();
    let first_pid = producers[0].pid();
    let refusal = format!("error NoFreeLane {{ lanes: 2, pid: {first_pid} }}");
    assert_eq!(ask(&mut third, "producer"), refusal);
    producers[1].stop();
    assert_eq!(ask(&mut third, "producer"), refusal);
    producers[1].signal(Signal::SIGKILL);
    assert_eq!(ask(&mut third, "producer"), "ok 1");
    drop((producers, third));
    fixture.finish();
}

fn the_lowest_free_lane_is_taken(fixture: Fixture) {
    fixture.ring(3);
    let mut producers = [fixture.peer(), fixture.peer(), fixture.peer()];
    for (lane, producer) in producers.iter_mut().enumerate() {
        assert_eq!(ask(producer, "producer"), format!("ok {lane}"));
    }
    say_ok(&mut producers[1], "drop-producer");
    assert_eq!(ask(&mut producers[1], "producer"), "ok 1");
    producers[0].kill();
    say_ok(&mut producers[2], "drop-producer");
    assert_eq!(ask(&mut producers[2], "producer"), "ok 0");
    drop(producers);
    fixture.finish();
}
