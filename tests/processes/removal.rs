//! A ring goes when nobody uses it, or by force; then everybody learns of it. Nothing that was sent goes
//! with it unnoticed.

use crate::case::{Case, Random, answer, ask, say_ok, setting};
use semring::{OpenError, RecvError, RemoveError, SendError, any};
use semring_testkit::peer::Peer;

over_both_backends! {
    a_ring_in_use_is_kept_and_its_users_are_named
    a_killed_user_keeps_no_ring
    force_ends_a_blocked_consumer_a_blocked_producer_and_a_running_pair
    a_guard_removed_from_outside_ends_everybody
    a_ring_whose_guard_was_removed_goes_by_force_only
    a_removed_ring_stays_removed_for_its_producer
    a_late_producer_loses_nothing_when_the_consumer_removes
    a_late_producer_loses_nothing_when_an_idle_ring_is_removed
}

fn a_ring_in_use_is_kept_and_its_users_are_named(case: Case) {
    case.ring(3);
    let mut consumer = case.consumer();
    let mut producers = [case.producer(), case.producer()];
    let address = case.address().parse().unwrap();
    let users = || match semring::remove(&address, false).unwrap_err() {
        RemoveError::InUse {
            producers,
            consumer,
            ..
        } => (producers, consumer),
        other => panic!("{other}"),
    };
    let [first, second] = [producers[0].pid(), producers[1].pid()];
    assert_eq!(users(), (vec![first, second], Some(consumer.pid())));
    producers[0].wait();
    assert_eq!(users(), (vec![second], Some(consumer.pid())));
    say_ok(&mut producers[1], "drop-producer");
    assert_eq!(users(), (vec![], Some(consumer.pid())));
    // It has been in nobody's way.
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    say_ok(&mut consumer, "drop-consumer");
    semring::remove(&address, false).unwrap();
    drop((consumer, producers));
    case.finish_removed();
}

fn a_killed_user_keeps_no_ring(case: Case) {
    case.ring(2);
    case.producer().kill();
    let mut consumer = case.consumer();
    assert_eq!(ask(&mut consumer, "recv"), "error EndOfStream");
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    consumer.kill();
    case.finish();
}

/// A consumer of one ring that sleeps, a producer of another that sleeps on a full lane, and a pair that
/// runs on a third; `removal` takes each ring away.
fn everybody_learns_of(case: &Case, removal: impl Fn(&Case)) {
    case.ring(1);
    let mut consumer = case.consumer();
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    removal(case);
    assert_eq!(answer(&mut consumer), "error Removed");
    assert_eq!(ask(&mut consumer, "recv"), "error Removed");
    assert_eq!(ask(&mut consumer, "try-recv"), "error Removed");
    assert_eq!(consumer.wait(), semring_testkit::peer::Exit::Code(0));
    case.guard.clean();

    case.ring(1);
    let mut producer = case.producer();
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    producer.wait_until_asleep_on_a_ring();
    removal(case);
    assert_eq!(answer(&mut producer), "error Removed after 0");
    assert_eq!(ask(&mut producer, "probe"), "error Removed");
    producer.wait();
    case.guard.clean();

    let ring = case.ring_of(1, 1 << 16);
    let (mut consumer, mut producer) = (case.consumer(), case.producer());
    consumer.say("drain");
    producer.say("send 1 0 1000000000000 64");
    while ring.info().unwrap().lanes[0].received_messages < 10_000 {
        std::thread::yield_now();
    }
    removal(case);
    assert!(answer(&mut producer).starts_with("error Removed after "));
    let drained = answer(&mut consumer);
    assert!(
        drained.starts_with("drained ") && drained.ends_with(" Removed"),
        "{drained}"
    );
    drop((consumer, producer));
}

fn force_ends_a_blocked_consumer_a_blocked_producer_and_a_running_pair(case: Case) {
    everybody_learns_of(&case, |case| {
        semring::remove(&case.address().parse().unwrap(), true).unwrap();
        case.guard.assert_clean();
    });
    case.finish_removed();
}

fn a_guard_removed_from_outside_ends_everybody(case: Case) {
    everybody_learns_of(&case, |case| case.keeper().remove());
    // The name is still there: the next test says what becomes of it.
    semring::remove(&case.address().parse().unwrap(), true).unwrap();
    case.finish_removed();
}

fn a_ring_whose_guard_was_removed_goes_by_force_only(case: Case) {
    case.ring(1);
    case.keeper().remove();
    let address = case.address().parse().unwrap();
    assert!(matches!(
        any::open(case.address()),
        Err(OpenError::GuardLost { .. })
    ));
    let refused = semring::remove(&address, false).unwrap_err();
    assert!(
        matches!(refused, RemoveError::Open(OpenError::GuardLost { .. })),
        "{refused}"
    );
    semring::remove(&address, true).unwrap();
    case.finish_removed();
}

fn a_removed_ring_stays_removed_for_its_producer(case: Case) {
    let ring = case.ring_of(1, 1 << 16);
    let mut producer = ring.producer().unwrap();
    producer.send(b"before").unwrap();
    semring::remove(&case.address().parse().unwrap(), true).unwrap();
    // Within a quarter lap it is noticed, and then it is so for good.
    let noticed = (0..1 << 12).find_map(|_| producer.send(&[0; 56]).err());
    assert_eq!(noticed, Some(SendError::Removed));
    for _ in 0..10 {
        assert_eq!(producer.send(b"after"), Err(SendError::Removed));
        assert_eq!(producer.try_send(b"after"), Err(SendError::Removed));
    }
    assert_eq!(producer.probe(), Err(SendError::Removed));
    assert_eq!(producer.send(b"after"), Err(SendError::Removed));
    drop((producer, ring));
    case.finish_removed();
}

/// Lets about as much time pass as the peer needs to hear and obey a command.
fn hesitate(random: &mut Random) {
    for _ in 0..random.below(40_000) {
        std::hint::spin_loop();
    }
}

fn new_ring_for(case: &Case, peer: &mut Peer) -> any::Ring {
    let ring = any::Builder::new(case.address())
        .producers(2)
        .capacity(4096)
        .create()
        .unwrap();
    let opened = ask(peer, &format!("open {}", case.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    ring
}

fn a_late_producer_loses_nothing_when_the_consumer_removes(case: Case) {
    let mut random = Random::new("late producer, consumer removes");
    let mut late = case.idle_peer();
    let (mut sent, mut refused) = (0, 0);
    for round in 0..setting("SEMRING_REMOVALS", 400) {
        let ring = new_ring_for(&case, &mut late);
        drop(ring.producer().unwrap());
        let mut consumer = ring.consumer().unwrap();
        assert_eq!(consumer.recv().unwrap_err(), RecvError::EndOfStream);
        late.say(&format!("late 1 {round} 40"));
        hesitate(&mut random);
        let mut received = 0;
        while !consumer.remove_at_end().unwrap() {
            // A producer is there, or something came meanwhile.
            match consumer.recv() {
                Ok(_) => received += 1,
                Err(RecvError::EndOfStream) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let told = answer(&mut late);
        if told == "sent" {
            sent += 1;
            assert_eq!(received, 1, "round {round}: lost");
        } else {
            refused += 1;
            assert_eq!(
                (told.as_str(), received),
                ("refused Removed", 0),
                "round {round}"
            );
        }
        assert!(matches!(
            any::open(case.address()),
            Err(OpenError::NotFound { .. })
        ));
    }
    println!("{sent} sent in time, {refused} came too late");
    drop(late);
    case.finish_removed();
}

fn a_late_producer_loses_nothing_when_an_idle_ring_is_removed(case: Case) {
    let mut random = Random::new("late producer, remove if done");
    let mut late = case.idle_peer();
    let (mut kept, mut refused) = (0, 0);
    for round in 0..setting("SEMRING_REMOVALS", 400) {
        let ring = new_ring_for(&case, &mut late);
        late.say(&format!("late 1 {round} 40"));
        hesitate(&mut random);
        let gone = ring.remove_if_done().unwrap();
        let told = answer(&mut late);
        if gone {
            refused += 1;
            assert_eq!(told, "refused Removed", "round {round}: lost");
        } else {
            kept += 1;
            assert_eq!(told, "sent", "round {round}");
            assert_eq!(ring.info().unwrap().unread_messages(), 1);
            ring.remove().unwrap();
        }
    }
    println!("{kept} kept, {refused} came too late");
    drop(late);
    case.finish_removed();
}
