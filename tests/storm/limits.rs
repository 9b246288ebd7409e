//! More processes attach and detach than a wake-up semaphore has tokens, each a process of its own or not,
//! some by exit, some by SIGKILL, and no process takes the tokens meanwhile. (Within one process:
//! tests/processes/full_wakeups.rs.)

use crate::fixture::{Fixture, MESSAGES, PEER, ROOM, answer, ask, run_to_marker, say_ok};
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::step::{CallStop, Stepper};
use std::process::Command;
use std::time::Duration;

over_both_backends! {
    as_many_producers_as_lanes_come_and_go_and_none_is_refused
    lane_freed_after_the_look_is_found
    more_consumers_come_and_go_than_a_wakeup_has_tokens
}

/// More than a semaphore or a pipe can hold.
const VISITS: u64 = 33_000;

/// Ends when all have attached and detached; each checks that it was not refused.
fn crowd(fixture: &Fixture, role: &str) {
    let address = fixture.address();
    let visits = VISITS.to_string();
    let arguments = ["--crowd", role, "--address", &address, "--visits", &visits];
    let (exit, output) = Peer::start(env!("CARGO_BIN_EXE_storm"), arguments).finish();
    let output = String::from_utf8_lossy(&output);
    assert_eq!(exit, Exit::Code(0), "{output}");
    println!("{}", output.trim_end());
}

fn long_case(backend: crate::fixture::Backend, label: &'static str) -> Fixture {
    Fixture::with_hang_timeout(backend, label, Duration::from_secs(1200))
}

/// Each process leaves one message, and a token, whether it detaches or dies.
#[test]
fn short_lived_producers_fill_absent_wakeup() {
    let fixture = long_case(
        crate::fixture::Backend::Posix,
        "short_lived_producers_fill_the_wakeup",
    );
    // Room for a record of 16 bytes from each of them.
    let ring = fixture.ring_of(2, 1 << 20);
    let wakeups = fixture.cleanup().wakeups();
    crowd(&fixture, "producer");
    assert!(wakeups.is_full(MESSAGES));
    let info = ring.info().unwrap();
    assert_eq!((info.producers(), info.unread_messages()), (0, VISITS));
    let mut consumer = fixture.consumer();
    let said = ask(&mut consumer, "drain");
    assert_eq!(said, format!("drained {VISITS} EndOfStream"));
    assert!(wakeups.is_empty(MESSAGES));
    drop(consumer);
    fixture.finish();
}

#[test]
fn short_lived_consumers_fill_absent_wakeups() {
    let fixture = long_case(
        crate::fixture::Backend::Sysv,
        "short_lived_consumers_fill_the_wakeups",
    );
    let ring = fixture.ring(2);
    let wakeups = fixture.cleanup().wakeups();
    crowd(&fixture, "consumer");
    for wakeup in [ROOM, ROOM + 1] {
        assert!(wakeups.is_full(wakeup));
    }
    assert_eq!(ring.info().unwrap().consumer_pid, None);
    // Both sides work as before.
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    consumer.say("drain");
    say_ok(&mut producer, "send 1 0 5000 500");
    producer.wait();
    assert_eq!(answer(&mut consumer), "drained 5000 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn more_consumers_come_and_go_than_a_wakeup_has_tokens(fixture: Fixture) {
    let ring = fixture.ring(1);
    let wakeups = fixture.cleanup().wakeups();
    let mut peer = fixture.peer();
    say_ok(&mut peer, &format!("churn-consumer {VISITS}"));
    assert!(wakeups.is_full(ROOM));
    say_ok(&mut peer, "consumer");
    peer.kill();
    assert!(wakeups.is_full(ROOM));
    assert_eq!(ring.info().unwrap().consumer_pid, None);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    producer.kill();
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    drop(consumer);
    fixture.finish();
}

/// At every moment there is a free lane for a process that attaches, though not always the same.
fn as_many_producers_as_lanes_come_and_go_and_none_is_refused(fixture: Fixture) {
    let lanes = 4;
    fixture.ring(lanes);
    let mut peers: Vec<Peer> = (0..lanes).map(|_| fixture.peer()).collect();
    for peer in &mut peers {
        peer.say("churn 20000");
    }
    for peer in &mut peers {
        assert_eq!(answer(peer), "ok");
    }
    drop(peers);
    fixture.finish();
}

/// The lanes are tried one after the other: each is taken by a live process when it is tried, and
/// still one is free all the time. At each system call of the search.
fn lane_freed_after_the_look_is_found(fixture: Fixture) {
    if !semring_testkit::step::can_trace() {
        return;
    }
    fixture.ring(2);
    let (mut one, mut other) = (fixture.producer(), fixture.peer());
    for calls in 0.. {
        let mut seeker = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        seeker.peer().say(&format!("open {}", fixture.address()));
        seeker.peer().say("marked attach");
        run_to_marker(&mut seeker);
        // Before a call, and after it.
        for _ in 0..2 * calls {
            match seeker.run_to_call().expect("it goes on") {
                CallStop::Before { .. } | CallStop::Returned { .. } => {}
                end => panic!("{end:?} after {calls} calls, and no lane is taken"),
            }
        }
        // If the attaching process has not come so far, the holder of lane 0 has lane 1 now, and
        // lane 0 is free.
        say_ok(&mut one, "drop-producer");
        assert_eq!(ask(&mut other, "producer"), "ok 0");
        let moved = ask(&mut one, "producer");
        say_ok(&mut other, "drop-producer");
        let mut seeker = seeker.resume().expect("it goes on");
        assert!(answer(&mut seeker).starts_with("ok "), "open");
        assert_eq!(answer(&mut seeker), "ok", "attach, {calls} calls before");
        drop(seeker);
        if moved != "ok 1" {
            assert!(moved.starts_with("error NoFreeLane"), "{moved}");
            // Lane 0 was taken, it was not being removed, and lane 1 was looked at: three calls at least.
            assert!(calls >= 3, "{calls}");
            break;
        }
        say_ok(&mut one, "drop-producer");
        assert_eq!(ask(&mut one, "producer"), "ok 0");
    }
    drop((one, other));
    fixture.finish();
}
