//! Two cases near a death: exec, and leaving the IPC namespace. The two guards differ here: semaphores belong
//! to a process in a namespace, pipes to the descriptors that a program has.

use crate::fixture::{Fixture, answer, ask, say_ok};
use semring_testkit::leave_out;

over_both_backends! {
    a_program_that_becomes_another_one_keeps_its_place
    a_process_that_leaves_the_namespace_is_gone_for_the_others
    exec_gives_up_a_role_of_pipes
    a_process_that_leaves_the_namespace_keeps_its_pipes
}

/// The kernel keeps the undo values of a process over an exec: the producer is attached as long as the
/// program that took its place.
fn a_program_that_becomes_another_one_keeps_its_place(fixture: Fixture) {
    let fixture = fixture.with_semaphores();
    let ring = fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    say_ok(&mut producer, "become-cat");
    assert_eq!(ask(&mut producer, "are you cat?"), "are you cat?");
    for number in 0..3 {
        let message = ask(&mut consumer, "recv");
        assert!(message.starts_with(&format!("message 1 {number} ")));
    }
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    let info = ring.info().unwrap();
    assert_eq!(info.lanes[0].producer_pid, Some(producer.pid()));
    producer.wait();
    assert_eq!(answer(&mut consumer), "error EndOfStream");
    drop(consumer);
    fixture.finish();
}

/// The kernel then applies the undo values as for a dead process, so the stream ends though its producer
/// lives.
fn a_process_that_leaves_the_namespace_is_gone_for_the_others(fixture: Fixture) {
    let fixture = fixture.with_semaphores();
    fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    let left = ask(&mut producer, "unshare-ipc");
    if left != "ok" {
        leave_out!("needs an IPC namespace of its own: {left}");
    }
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    // It lives, and gets the error that its ring is gone at its next check.
    assert_eq!(ask(&mut producer, "check"), "error Removed");
    let mut successor = fixture.producer();
    consumer.say("drain");
    say_ok(&mut successor, "send 2 0 5 64");
    successor.wait();
    assert_eq!(answer(&mut consumer), "drained 5 EndOfStream");
    drop((producer, consumer));
    fixture.finish();
}

/// Its descriptors are closed by the exec: its messages are there, and the stream ends.
fn exec_gives_up_a_role_of_pipes(fixture: Fixture) {
    let fixture = fixture.with_pipes();
    let ring = fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "become-cat");
    assert_eq!(ask(&mut producer, "are you cat?"), "are you cat?");
    assert_eq!(answer(&mut consumer), "drained 3 EndOfStream");
    assert_eq!(ring.info().unwrap().producers(), 0);
    // The lane is free, though the process lives.
    let mut successor = fixture.producer();
    consumer.say("drain");
    say_ok(&mut successor, "send 2 0 5 64");
    successor.wait();
    assert_eq!(answer(&mut consumer), "drained 5 EndOfStream");
    drop((consumer, producer));
    fixture.finish();
}

/// Pipes and their locks are independent of IPC namespaces.
fn a_process_that_leaves_the_namespace_keeps_its_pipes(fixture: Fixture) {
    let fixture = fixture.with_pipes();
    fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 64");
    let left = ask(&mut producer, "unshare-ipc");
    if left != "ok" {
        leave_out!("needs an IPC namespace of its own: {left}");
    }
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    say_ok(&mut producer, "check");
    say_ok(&mut producer, "send 1 3 500 64");
    producer.kill();
    assert_eq!(answer(&mut consumer), "drained 503 EndOfStream");
    drop(consumer);
    fixture.finish();
}
