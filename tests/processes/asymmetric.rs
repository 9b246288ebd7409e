//! Lanes in asymmetric mode: the producer publishes without a fence, and the consumer, before it sleeps,
//! makes every CPU execute a barrier. That no wake-up is lost in any order of stores is checked by the model
//! (crates/semring/src/guard/mode_model_tests); here real processes change between fenced and asymmetric
//! mode, and the kernel refuses the barrier at each of its calls.

use std::path::Path;

use crate::fixture::{Backend, Fixture, PEER, answer, ask, say_ok, setting};
use semring_testkit::left_out;
use semring_testkit::peer::Peer;

over_both_backends! {
    no_wake_up_is_lost_between_bursts
    a_barrier_that_is_refused_at_any_call_loses_nothing
}

/// So long that the consumer is awake before it ends, and the lane in asymmetric mode.
const RUN: u64 = 3000;

/// A pair of rings in each of which `RUN` messages have room.
fn rings(fixture: Fixture) -> (Fixture, Fixture) {
    let back = Fixture::new(fixture.backend, "back");
    fixture.ring_of(1, 1 << 17);
    back.ring_of(1, 1 << 17);
    (fixture, back)
}

/// The server sends a burst and waits until all of it came back, then keeps the other side waiting for so
/// long that it sometimes falls asleep: with a lane still in asymmetric mode.
fn volleys(there: &Fixture, back: &Fixture, mut server: Peer, mut echo: Peer, count: u64) {
    for peer in [&mut server, &mut echo] {
        say_ok(peer, "wait adaptive");
    }
    for (peer, mine, others) in [(&mut server, there, back), (&mut echo, back, there)] {
        assert!(ask(peer, &format!("open {}", mine.address())).starts_with("ok "));
        assert!(ask(peer, "producer").starts_with("ok "));
        say_ok(peer, &format!("second {}", others.address()));
    }
    echo.say("echo");
    let said = ask(&mut server, &format!("volleys 1 {count} 24 {RUN} 20000"));
    assert_eq!(said, format!("ok {count}"));
    say_ok(&mut server, "drop-producer");
    assert_eq!(
        answer(&mut echo),
        format!("echoed {} EndOfStream", count * RUN)
    );
    // Not killed: it may be a tracer, whose tracee would live on for a moment.
    server.wait();
    echo.wait();
}

fn no_wake_up_is_lost_between_bursts(fixture: Fixture) {
    let (there, back) = rings(fixture);
    let count = setting("SEMRING_HANDOVERS", 100_000) * 10 / RUN;
    volleys(&there, &back, there.idle_peer(), back.idle_peer(), count);
    there.finish();
    back.finish();
}

/// A peer of whose calls of membarrier(2) those in `which` are refused, counted from 1.
fn refused(which: &str, log: &Path) -> Peer {
    let inject = format!("inject=membarrier:error=EPERM:when={which}");
    let log = log.to_str().expect("a path of this test");
    let options = ["-f", "-qq", "--seccomp-bpf", "-o", log];
    let what = ["-e", "trace=membarrier", "-e", &inject, PEER];
    Peer::start("strace", options.into_iter().chain(what))
}

/// The number of sleeps of the consumer with a lane in asymmetric mode, if no barrier is refused.
const SLEEPS: u64 = 4;

/// The consumer seems awake to the producer, while that commits enough to enter asymmetric mode; takes all
/// messages, sleeps, and is woken by one more. Returns the barriers made and refused.
fn sleep_after_bursts(backend: Backend, which: &str) -> (usize, usize) {
    let mut fixture = Fixture::new(backend, "refused");
    let log = fixture.file("strace");
    let ring = fixture.ring_of(1, 1 << 14);
    let mut producer = fixture.producer();
    let mut consumer = refused(which, &log);
    say_ok(&mut consumer, "wait block");
    assert!(ask(&mut consumer, &format!("open {}", fixture.address())).starts_with("ok "));
    say_ok(&mut consumer, "consumer");
    for sleep in 0..SLEEPS {
        let first = sleep * 101;
        say_ok(&mut producer, &format!("send 1 {first} 100 24"));
        for number in first..first + 100 {
            let message = ask(&mut consumer, "recv");
            assert!(
                message.starts_with(&format!("message 1 {number} ")),
                "{message}"
            );
        }
        consumer.say("recv");
        while !ring.info().expect("a ring").consumer_sleeps {
            std::thread::yield_now();
        }
        say_ok(&mut producer, &format!("send 1 {} 1 24", first + 100));
        assert!(answer(&mut consumer).starts_with(&format!("message 1 {} ", first + 100)));
    }
    // Not killed: the tracee would live on for a moment.
    producer.wait();
    consumer.wait();
    let calls = std::fs::read_to_string(&log).expect("strace writes it down");
    fixture.finish();
    let (refused, made): (Vec<&str>, Vec<&str>) =
        calls.lines().partition(|call| call.contains("INJECTED"));
    let barrier = |call: &&&str| call.contains("membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED");
    (made.iter().filter(barrier).count(), refused.len())
}

fn a_barrier_that_is_refused_at_any_call_loses_nothing(fixture: Fixture) {
    let strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"];
    if !left_out::can_run(&[&strace[..], &["true"]].concat()) {
        return;
    }
    let backend = fixture.backend;
    fixture.finish_removed(); // each run has a ring of its own
    let (made, refused) = sleep_after_bursts(backend, "1000");
    // A message that comes between announcing and sleeping leaves a token, and so one sleep more.
    assert!(made as u64 >= SLEEPS && refused == 0, "{made}, {refused}");
    // The first call queries the kernel, at attach; without it no lane enters asymmetric mode.
    assert_eq!(sleep_after_bursts(backend, "1"), (0, 1));
    for call in 2..=1 + SLEEPS as usize {
        let (made, refused) = sleep_after_bursts(backend, &format!("{call}+"));
        assert!(
            made == call - 2 && refused >= 1,
            "from {call} on: {made}, {refused}"
        );
        let (made, refused) = sleep_after_bursts(backend, &call.to_string());
        assert!(
            made >= call - 2 && refused == 1,
            "only {call}: {made}, {refused}"
        );
    }
}
