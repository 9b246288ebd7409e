//! Deaths that take their time, and deaths of all.

use crate::fixture::{Fixture, PEER, SMALL, answer, ask, run_to_marker, say_ok};
use nix::sys::signal::Signal;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::step::Stepper;
use std::process::Command;
use std::time::Instant;

over_both_backends! {
    committed_messages_outlive_all_processes
    slow_death_delays_no_other_process
    producer_stopped_in_commit_delays_only_itself
}

/// A consumer that is started only at the end finds all messages of the dead producers, once, in
/// order.
fn committed_messages_outlive_all_processes(fixture: Fixture) {
    let lanes = 6;
    let ring = fixture.ring(lanes);
    let len = 80;
    let mut first = vec![0; lanes];
    for round in 0..20 {
        // The consumer of this round takes a part, so that each round begins elsewhere in the lanes.
        let mut consumer = fixture.consumer();
        let mut producers: Vec<Peer> = (0..lanes).map(|_| fixture.producer()).collect();
        for (lane, producer) in producers.iter_mut().enumerate() {
            let filled = ask(producer, &format!("fill {lane} {} {len}", first[lane]));
            let count: u64 = filled
                .strip_prefix("ok ")
                .expect("it fills")
                .parse()
                .unwrap();
            first[lane] += count;
        }
        assert!(ring.info().unwrap().used_bytes() > lanes as u64 * (SMALL - 200));
        for producer in &mut producers {
            producer.signal(Signal::SIGKILL);
        }
        if round % 2 == 0 {
            consumer.signal(Signal::SIGKILL);
        }
        for producer in &mut producers {
            assert_eq!(producer.wait(), Exit::Signal(libc::SIGKILL));
        }
        if round % 2 == 0 {
            consumer = fixture.consumer();
        }
        let unread = ring.info().unwrap().unread_messages();
        assert!(unread >= lanes as u64 * (SMALL - 200) / (len + 8));
        let drained = ask(&mut consumer, "drain");
        assert_eq!(
            drained,
            format!("drained {unread} EndOfStream"),
            "round {round}"
        );
        // The room is complete: a message of the maximum length can be sent.
        let mut producer = fixture.producer();
        consumer.say("drain");
        say_ok(&mut producer, &format!("send 9 0 500 {len}"));
        producer.wait();
        assert_eq!(answer(&mut consumer), "drained 500 EndOfStream");
    }
    assert_eq!(ring.info().unwrap().used_bytes(), 0);
    fixture.finish();
}

/// A GiB of memory is freed before the kernel reports its owner as dead.
fn slow_death_delays_no_other_process(fixture: Fixture) {
    let ring = fixture.ring_of(3, 1 << 16);
    let mut consumer = fixture.consumer();
    let mut heavy = fixture.producer();
    let mut light = fixture.producer();
    say_ok(&mut heavy, &format!("allocate {}", mebibytes()));
    say_ok(&mut heavy, "send 1 0 100 64");
    say_ok(&mut light, "send 2 0 100 64");
    for _ in 0..200 {
        assert!(ask(&mut consumer, "recv").starts_with("message "));
    }
    let killed = Instant::now();
    heavy.signal(Signal::SIGKILL);
    // The others go on as if nothing were: each message is received before the next one is sent.
    let mut meanwhile = 0;
    while ring.info().unwrap().lanes[0].producer_pid.is_some() {
        say_ok(&mut light, &format!("send 2 {} 1 64", 100 + meanwhile));
        let number = format!("message 2 {} ", 100 + meanwhile);
        assert!(ask(&mut consumer, "recv").starts_with(&number));
        meanwhile += 1;
    }
    println!(
        "{} MiB: gone after {:?}, {meanwhile} messages and answers meanwhile",
        mebibytes(),
        killed.elapsed()
    );
    light.wait();
    // And with a dying one as the last: the end comes when it is dead, and not before.
    for size in [0, 16, mebibytes()] {
        let mut last = fixture.producer();
        say_ok(&mut last, &format!("allocate {size}"));
        consumer.say("drain");
        consumer.wait_until_asleep_on_a_ring();
        let killed = Instant::now();
        last.signal(Signal::SIGKILL);
        assert_eq!(answer(&mut consumer), "drained 0 EndOfStream");
        println!(
            "{size} MiB: end of stream {:?} after the kill",
            killed.elapsed()
        );
    }
    assert_eq!(ring.info().unwrap().producers(), 0);
    drop(consumer);
    fixture.finish();
}

/// As much as is free, at most a GiB.
fn mebibytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    (kib.unwrap_or(0) / 1024 / 4).clamp(16, 1024)
}

/// Stopped at instructions all over `send`, some before the message is published and some after it.
fn producer_stopped_in_commit_delays_only_itself(fixture: Fixture) {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let ring = fixture.ring_of(4, 1 << 13);
    let mut consumer = fixture.consumer();
    let mut others: Vec<Peer> = (0..3).map(|_| fixture.producer()).collect();
    let (mut points, mut published) = (0, 0);
    for at in (1..).step_by(23) {
        let mut stepper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        let open = format!("open {}", fixture.address());
        for command in [open.as_str(), "producer", "marked send 8 0 48"] {
            stepper.peer().say(command);
        }
        run_to_marker(&mut stepper);
        if stepper.step(at).expect("it goes on").steps < at {
            break;
        }
        let mut stopped = stepper.stop().expect("it can be left stopped");
        // Many laps of the lanes of the others: each waits for room, and the consumer for messages.
        for (number, other) in (1..).zip(&mut others) {
            other.say(&format!("send {number} {} 200 400", points * 200));
        }
        let mut came = false;
        let mut left = 600;
        while left > 0 {
            let message = ask(&mut consumer, "recv");
            assert!(message.starts_with("message "), "{message}");
            if message.starts_with("message 8 ") {
                came = true;
            } else {
                left -= 1;
            }
        }
        for other in &mut others {
            assert_eq!(answer(other), "ok");
        }
        say_ok(&mut consumer, "flush");
        came |= ring.info().unwrap().unread_messages() == 1
            && ask(&mut consumer, "recv").starts_with("message 8 0 ");
        // With nothing to do the consumer sleeps, and then the message arrives.
        consumer.say(if came { "recv-timeout 50" } else { "recv" });
        if !came {
            consumer.wait_until_asleep_on_a_ring();
        }
        stopped.cont();
        if came {
            assert_eq!(answer(&mut consumer), "error TimedOut");
        } else {
            assert!(answer(&mut consumer).starts_with("message 8 0 "));
        }
        assert!(answer(&mut stopped).starts_with("ok "), "open");
        assert!(answer(&mut stopped).starts_with("ok "), "producer");
        assert_eq!(answer(&mut stopped), "ok", "send");
        assert_eq!(stopped.wait(), Exit::Code(0));
        points += 1;
        published += u64::from(came);
    }
    println!("stopped at {points} points, {published} of them after the commit");
    assert!(points >= 5 && published < points);
    drop((others, consumer));
    fixture.finish();
}
