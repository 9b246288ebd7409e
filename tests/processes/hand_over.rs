//! The hand-over race: no process is killed, and each side falls asleep after every few messages. Deaths
//! post tokens and so wake sleepers that a missing fence left asleep; here only the other side wakes
//! them.
//!
//! A wake-up that is lost leaves both sides asleep: the watchdog reports it. A sleeper that does not look
//! again after its announcement hangs here at once. The waker's fence is different: without it x86-64
//! machines go on for millions of messages, so that one is checked by the model
//! (crates/semring/src/guard/model_tests.rs). `SEMRING_HANDOVERS` makes it longer.

use crate::fixture::{Fixture, SMALL, answer, ask, say_ok, setting};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use semring_testkit::peer::Peer;
use std::sync::Mutex;
use std::time::Duration;

over_both_backends! {
    no_wake_up_is_lost_on_a_lane_of_a_few_messages
    no_wake_up_is_lost_between_two_rings
    no_wake_up_is_lost_in_the_moment_of_falling_asleep
    no_wake_up_is_lost_among_three_producers
}

fn handovers() -> u64 {
    setting("SEMRING_HANDOVERS", 100_000)
}

fn patient(fixture: Fixture, label: &'static str) -> Fixture {
    // A time for each message, far beyond what it needs.
    let patience = Duration::from_secs(600) + Duration::from_millis(10) * handovers() as u32;
    Fixture::with_hang_timeout(fixture.backend, label, patience)
}

/// A peer that sleeps wherever it can.
fn open(fixture: &Fixture, commands: &[&str]) -> Peer {
    open_with(fixture, "block", commands)
}

fn open_with(fixture: &Fixture, strategy: &str, commands: &[&str]) -> Peer {
    let mut peer = fixture.idle_peer();
    say_ok(&mut peer, &format!("wait {strategy}"));
    assert!(ask(&mut peer, &format!("open {}", fixture.address())).starts_with("ok "));
    for command in commands {
        assert!(ask(&mut peer, command).starts_with("ok"), "{command}");
    }
    peer
}

fn no_wake_up_is_lost_on_a_lane_of_a_few_messages(fixture: Fixture) {
    let fixture = patient(fixture, "hand-over");
    fixture.ring(1);
    let count = handovers();
    let mut producer = open(&fixture, &["producer"]);
    let mut consumer = open(&fixture, &["consumer"]);
    consumer.say("drain");
    // Three or four fit.
    say_ok(&mut producer, &format!("send 1 0 {count} 1000"));
    // After the last message no other one could wake the consumer.
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "drop-producer");
    assert_eq!(
        answer(&mut consumer),
        format!("drained {count} EndOfStream")
    );
    drop((producer, consumer));
    fixture.finish();
}

fn no_wake_up_is_lost_between_two_rings(fixture: Fixture) {
    let there = patient(fixture, "there");
    let back = patient(Fixture::new(there.backend, "back"), "back");
    there.ring(1);
    back.ring(1);
    let count = handovers();
    let mut server = open(&there, &["producer"]);
    let mut echo = open(&back, &["producer"]);
    say_ok(&mut server, &format!("second {}", back.address()));
    say_ok(&mut echo, &format!("second {}", there.address()));
    echo.say("echo");
    assert_eq!(
        ask(&mut server, &format!("volley 1 {count} 24")),
        format!("ok {count}")
    );
    say_ok(&mut server, "drop-producer");
    assert_eq!(answer(&mut echo), format!("echoed {count} EndOfStream"));
    drop((server, echo));
    there.finish();
    back.finish();
}

/// One side never sleeps: it answers after a while so short and so random that its message is published
/// just when the other one announces its sleep. The message is long, so that its last store takes its
/// time to become visible. On processors of their own, or there is no such moment; so only one of these
/// runs at a time.
fn no_wake_up_is_lost_in_the_moment_of_falling_asleep(fixture: Fixture) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let there = patient(fixture, "there");
    let back = patient(Fixture::new(there.backend, "back"), "back");
    there.ring_of(1, 1 << 14);
    back.ring_of(1, 1 << 14);
    let count = handovers() / 5;
    let mut server = open_with(&there, "yield", &["producer"]);
    let mut echo = open(&back, &["producer"]);
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    if let [first, second, ..] = cpus[..] {
        say_ok(&mut server, &format!("pin {first}"));
        say_ok(&mut echo, &format!("pin {second}"));
    } else {
        say_ok(&mut server, "wait block");
    }
    say_ok(&mut server, &format!("second {}", back.address()));
    say_ok(&mut echo, &format!("second {}", there.address()));
    echo.say("echo");
    let volley = format!("volley-after 1 {count} 4000 100");
    assert_eq!(ask(&mut server, &volley), format!("ok {count}"));
    say_ok(&mut server, "drop-producer");
    assert_eq!(answer(&mut echo), format!("echoed {count} EndOfStream"));
    drop((server, echo));
    there.finish();
    back.finish();
}

fn no_wake_up_is_lost_among_three_producers(fixture: Fixture) {
    let fixture = patient(fixture, "three");
    fixture.ring(3);
    let count = handovers() / 3;
    let mut consumer = open(&fixture, &["consumer"]);
    let mut producers: Vec<Peer> = (0..3).map(|_| open(&fixture, &["producer"])).collect();
    consumer.say("drain");
    for (number, producer) in (1..).zip(&mut producers) {
        producer.say(&format!("send {number} 0 {count} {}", SMALL / 4));
    }
    for producer in &mut producers {
        assert_eq!(answer(producer), "ok");
    }
    consumer.wait_until_asleep_on_a_ring();
    drop(producers);
    assert_eq!(
        answer(&mut consumer),
        format!("drained {} EndOfStream", 3 * count)
    );
    drop(consumer);
    fixture.finish();
}
