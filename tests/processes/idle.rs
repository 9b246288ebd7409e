//! A waiting process sleeps in the kernel, and uses no CPU time there.

use crate::fixture::{Fixture, answer, ask, say_ok, setting};
use crate::rings;
use semring::RecvError;
use semring_testkit::peer::Peer;
use semring_testkit::process;
use std::time::Duration;

over_both_backends! {
    a_consumer_that_waits_uses_no_cpu
    a_producer_that_waits_for_room_uses_no_cpu
}

/// Time used and how often it was scheduled: equal before and after means that it did not run.
fn used(peer: &Peer) -> (Duration, String) {
    let pid = peer.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let switches: Vec<&str> = status
        .lines()
        .filter(|line| line.contains("ctxt_switches"))
        .collect();
    (process::cpu_time(pid).unwrap(), switches.join(" "))
}

/// Lets the peer sleep while time passes (300 ms; `SEMRING_IDLE_MS` for more) and holds that it did not run.
fn does_not_run(fixture: &Fixture, peer: &mut Peer) {
    peer.wait_until_asleep_on_a_ring();
    let before = used(peer);
    // Nothing to wait for: time passes.
    let time = setting("SEMRING_IDLE_MS", 300);
    let clock = rings::any(format!("{}-clock", fixture.address()))
        .create()
        .unwrap();
    let mut nobody = clock.attach_consumer().unwrap();
    let passed = nobody
        .recv_deadline(Duration::from_millis(time))
        .unwrap_err();
    assert_eq!(passed, RecvError::TimedOut);
    drop(nobody);
    clock.remove().unwrap();
    assert_eq!(used(peer), before);
    assert_eq!(process::state(peer.pid()).unwrap(), 'S');
}

fn a_consumer_that_waits_uses_no_cpu(fixture: Fixture) {
    fixture.ring(4);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 20 64");
    consumer.say("drain");
    does_not_run(&fixture, &mut consumer);
    producer.wait();
    assert_eq!(answer(&mut consumer), "drained 20 EndOfStream");
    // The same without a peer, or with a time limit.
    consumer.say("recv-timeout 100000");
    does_not_run(&fixture, &mut consumer);
    drop(consumer);
    fixture.finish();
}

fn a_producer_that_waits_for_room_uses_no_cpu(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    does_not_run(&fixture, &mut producer);
    producer.kill();
    fixture.finish();
}
