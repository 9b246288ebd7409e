//! More come and go than a semaphore has tokens, each a process of its own or not, some by exit, some
//! by SIGKILL, and nobody takes the tokens meanwhile. (Within one process: tests/processes/full_bells.rs.)

use crate::case::{Case, answer, ask, say_ok};
use semring_testkit::peer::{Exit, Peer};
use std::time::Duration;
use sysv_ipc::sem::MAX_VALUE;

over_both_backends! {
    as_many_producers_as_lanes_come_and_go_and_none_is_refused
    more_consumers_come_and_go_than_a_bell_has_tokens
}

/// More than a semaphore can hold.
const VISITS: u64 = 33_000;

/// Ends when all have come and gone; each checks that it was let in.
fn crowd(case: &Case, role: &str) {
    let address = case.address();
    let visits = VISITS.to_string();
    let arguments = ["--crowd", role, "--address", &address, "--visits", &visits];
    let (exit, output) = Peer::start(env!("CARGO_BIN_EXE_storm"), arguments).finish();
    let output = String::from_utf8_lossy(&output);
    assert_eq!(exit, Exit::Code(0), "{output}");
    println!("{}", output.trim_end());
}

fn long_case(backend: crate::case::Backend, label: &'static str) -> Case {
    Case::with_patience(backend, label, Duration::from_secs(1200))
}

/// Each process leaves one message, and a token, whether it detaches or dies.
#[test]
fn short_lived_producers_fill_the_bell_of_a_consumer_that_never_came() {
    let case = long_case(
        crate::case::Backend::Posix,
        "short_lived_producers_fill_the_bell",
    );
    // Room for a record of 16 bytes from each of them.
    let ring = case.ring_of(2, 1 << 20);
    crowd(&case, "producer");
    assert_eq!(case.set().value(0).unwrap(), MAX_VALUE);
    let info = ring.info().unwrap();
    assert_eq!((info.producers(), info.unread_messages()), (0, VISITS));
    let mut consumer = case.consumer();
    let said = ask(&mut consumer, "drain");
    assert_eq!(said, format!("drained {VISITS} EndOfStream"));
    assert_eq!(case.set().value(0).unwrap(), 0);
    drop(consumer);
    case.finish();
}

#[test]
fn short_lived_consumers_fill_the_bells_of_producers_that_never_came() {
    let case = long_case(
        crate::case::Backend::Sysv,
        "short_lived_consumers_fill_the_bells",
    );
    let ring = case.ring(2);
    crowd(&case, "consumer");
    for bell in [9, 11] {
        assert_eq!(case.set().value(bell).unwrap(), MAX_VALUE);
    }
    assert_eq!(ring.info().unwrap().consumer_pid, None);
    // Both sides work as ever.
    let (mut consumer, mut producer) = (case.consumer(), case.producer());
    consumer.say("drain");
    say_ok(&mut producer, "send 1 0 5000 500");
    producer.wait();
    assert_eq!(answer(&mut consumer), "drained 5000 EndOfStream");
    drop(consumer);
    case.finish();
}

fn more_consumers_come_and_go_than_a_bell_has_tokens(case: Case) {
    case.ring(1);
    let mut peer = case.peer();
    say_ok(&mut peer, &format!("churn-consumer {VISITS}"));
    assert_eq!(case.set().value(9).unwrap(), MAX_VALUE);
    say_ok(&mut peer, "consumer");
    peer.kill();
    assert_eq!(case.set().value(9).unwrap(), MAX_VALUE);
    assert_eq!(case.set().value(2).unwrap(), 0);
    let mut consumer = case.consumer();
    let mut producer = case.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    producer.kill();
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    drop(consumer);
    case.finish();
}

/// At every moment there is a free lane for whoever looks for one, though not always the same.
fn as_many_producers_as_lanes_come_and_go_and_none_is_refused(case: Case) {
    let lanes = 4;
    case.ring(lanes);
    let mut peers: Vec<Peer> = (0..lanes).map(|_| case.peer()).collect();
    for peer in &mut peers {
        peer.say("churn 20000");
    }
    for peer in &mut peers {
        assert_eq!(answer(peer), "ok");
    }
    drop(peers);
    case.finish();
}
