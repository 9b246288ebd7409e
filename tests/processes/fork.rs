//! A forked child: the handles of its parent refuse all calls, and no call of the child changes the
//! ring.

use crate::fixture::{Fixture, answer, ask, say_ok};

over_both_backends! {
    handles_of_a_forked_producer_refuse
    handles_of_a_forked_consumer_refuse
    a_forked_child_gets_no_slice_of_its_parents_message
    forked_child_gives_nothing_back
    the_end_of_a_forked_child_is_not_the_end_of_the_stream
    a_forked_child_can_open_the_ring_itself
}

#[track_caller]
fn all_forked(tried: &str) {
    let results = tried.strip_prefix("tried ").expect("the child reports");
    for result in results.split_whitespace() {
        assert!(result.ends_with("=Forked"), "{result} among {tried}");
    }
}

fn handles_of_a_forked_producer_refuse(fixture: Fixture) {
    let ring = fixture.ring_of(1, 1 << 16);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 100 64");
    all_forked(&ask(&mut producer, "forked-handles"));
    assert_eq!(answer(&mut producer), "child 0");
    assert_eq!(ring.info().unwrap().producers(), 1);
    say_ok(&mut producer, "send 1 100 100 64");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 200 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn handles_of_a_forked_consumer_refuse(fixture: Fixture) {
    let ring = fixture.ring_of(1, 1 << 16);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 100 64");
    assert!(ask(&mut consumer, "recv").starts_with("message 1 0 "));
    let tried = ask(&mut consumer, "forked-handles");
    all_forked(&tried);
    assert_eq!(answer(&mut consumer), "child 0");
    assert_eq!(ring.info().unwrap().consumer_pid, Some(consumer.pid()));
    say_ok(&mut producer, "check");
    say_ok(&mut producer, "send 1 100 100 64");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 199 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn a_forked_child_gets_no_slice_of_its_parents_message(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 1 64");
    assert_eq!(ask(&mut consumer, "forked-slice"), "slices [false, false]");
    assert_eq!(answer(&mut consumer), "child 0");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 1 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn forked_child_gives_nothing_back(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "send 1 0 3 64");
    let answer = ask(&mut consumer, "forked-releases");
    assert_eq!(answer, "children 0 0, 2 messages");
    producer.wait();
    assert_eq!(ask(&mut consumer, "drain"), "drained 3 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn the_end_of_a_forked_child_is_not_the_end_of_the_stream(fixture: Fixture) {
    fixture.ring(1);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    consumer.say("drain");
    consumer.wait_until_asleep_on_a_ring();
    all_forked(&ask(&mut producer, "forked-handles"));
    assert_eq!(answer(&mut producer), "child 0");
    say_ok(&mut producer, "send 1 0 50 64");
    producer.wait();
    assert_eq!(answer(&mut consumer), "drained 50 EndOfStream");
    drop(consumer);
    fixture.finish();
}

fn a_forked_child_can_open_the_ring_itself(fixture: Fixture) {
    fixture.ring(2);
    let mut consumer = fixture.consumer();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 1 64");
    assert_eq!(
        ask(
            &mut producer,
            &format!("forked-opener {}", fixture.address())
        ),
        "child 0"
    );
    say_ok(&mut producer, "send 1 1 1 64");
    // And the child of a consumer, which has no undo of its own from its parent.
    let opener = format!("forked-opener {}", fixture.address());
    assert_eq!(ask(&mut consumer, &opener), "child 0");
    producer.wait();
    for _ in 0..4 {
        assert!(ask(&mut consumer, "recv").starts_with("message "));
    }
    assert_eq!(ask(&mut consumer, "recv"), "error EndOfStream");
    drop(consumer);
    fixture.finish();
}
