//! A ring is removed when no process uses it, or by force; then all users get an error. No sent message
//! is lost with it unnoticed.

use crate::fixture::{Fixture, PEER, Random, answer, ask, run_to_marker, say_ok, setting};
use crate::rings;
use nix::fcntl::{FcntlArg, fcntl};
use semring::{OpenError, RecvError, RemoveError, SendError, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::peer::Peer;
use semring_testkit::process::SLEEPING_ON_A_RING;
use semring_testkit::step::{CallStop, Stepper};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

over_both_backends! {
    a_ring_in_use_is_kept_and_its_users_are_named
    a_killed_user_keeps_no_ring
    force_ends_blocked_and_running_processes
    guard_removed_from_outside_ends_all_handles
    guard_removed_before_the_first_sleep
    no_directory_watch_before_the_first_sleep
    a_ring_whose_guard_was_removed_goes_by_force_only
    a_removed_ring_stays_removed_for_its_producer
    a_ring_removed_under_two_busy_ends_is_noticed_by_each
    end_seen_while_last_producer_leaves_removes
    remover_waits_for_the_lock_of_a_dead_process
    a_late_producer_loses_nothing_when_the_consumer_removes
    a_late_producer_loses_nothing_when_an_idle_ring_is_removed
}

fn a_ring_in_use_is_kept_and_its_users_are_named(fixture: Fixture) {
    fixture.ring(3);
    let mut consumer = fixture.consumer();
    let mut producers = [fixture.producer(), fixture.producer()];
    let address = fixture.address().parse::<semring::Address>().unwrap();
    let users = || match semring::remove(&address).unwrap_err() {
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
    // It did not prevent anything.
    assert_eq!(ask(&mut consumer, "drain"), "drained 0 EndOfStream");
    say_ok(&mut consumer, "drop-consumer");
    semring::remove(&address).unwrap();
    drop((consumer, producers));
    fixture.finish_removed();
}

fn a_killed_user_keeps_no_ring(fixture: Fixture) {
    fixture.ring(2);
    fixture.producer().kill();
    let mut consumer = fixture.consumer();
    assert_eq!(ask(&mut consumer, "recv"), "error EndOfStream");
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    consumer.kill();
    fixture.finish();
}

/// A consumer of one ring that sleeps, a producer of another that sleeps on a full lane, and a pair that
/// runs on a third; `removal` takes each ring away.
fn noticed_by_all(fixture: &Fixture, removal: impl Fn(&Fixture)) {
    fixture.ring(1);
    let mut consumer = fixture.consumer();
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    removal(fixture);
    assert_eq!(answer(&mut consumer), "error Removed");
    assert_eq!(ask(&mut consumer, "recv"), "error Removed");
    assert_eq!(ask(&mut consumer, "try-recv"), "error Removed");
    assert_eq!(consumer.wait(), semring_testkit::peer::Exit::Code(0));
    fixture.guard.clean();

    fixture.ring(1);
    let mut producer = fixture.producer();
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    producer.say("send 1 1000 1 1000");
    producer.wait_until_asleep_on_a_ring();
    removal(fixture);
    assert_eq!(answer(&mut producer), "error Removed after 0");
    assert_eq!(ask(&mut producer, "check"), "error Removed");
    producer.wait();
    fixture.guard.clean();

    let ring = fixture.ring_of(1, 1 << 16);
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    consumer.say("drain");
    producer.say("send 1 0 1000000000000 64");
    while ring.info().unwrap().lanes[0].received_messages < 10_000 {
        std::thread::yield_now();
    }
    removal(fixture);
    assert!(answer(&mut producer).starts_with("error Removed after "));
    let drained = answer(&mut consumer);
    assert!(
        drained.starts_with("drained ") && drained.ends_with(" Removed"),
        "{drained}"
    );
    drop((consumer, producer));
}

fn force_ends_blocked_and_running_processes(fixture: Fixture) {
    noticed_by_all(&fixture, |fixture| {
        semring::force_remove(fixture.address()).unwrap();
        fixture.guard.assert_clean();
    });
    fixture.finish_removed();
}

fn guard_removed_from_outside_ends_all_handles(fixture: Fixture) {
    noticed_by_all(&fixture, |fixture| fixture.cleanup().remove());
    // The name is still there: the next test covers that.
    semring::force_remove(fixture.address()).unwrap();
    fixture.finish_removed();
}

/// After each system call of a consumer that has never slept before: pipes are watched from then on.
fn guard_removed_before_the_first_sleep(fixture: Fixture) {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let fixture = fixture.with_pipes();
    let mut is_asleep = false;
    for calls in 0.. {
        fixture.ring(1);
        let mut sleeper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        // Long, but not for ever: a sleeper that is not woken must report that.
        for line in [
            "wait block",
            &format!("open {}", fixture.address()),
            "consumer",
        ] {
            sleeper.peer().say(line);
        }
        sleeper.peer().say("marked recv-timeout 20000");
        run_to_marker(&mut sleeper);
        for _ in 0..calls {
            match sleeper.run_to_call().expect("it goes on") {
                CallStop::Before { number } if SLEEPING_ON_A_RING.contains(&number) => {
                    is_asleep = true;
                    break;
                }
                CallStop::Before { .. } => {
                    let returned = sleeper.run_to_call().expect("it goes on");
                    assert!(
                        matches!(returned, CallStop::Returned { .. }),
                        "{returned:?}"
                    );
                }
                other => panic!("{other:?} after {calls} calls, and it does not sleep"),
            }
        }
        fixture.cleanup().remove();
        let mut sleeper = sleeper.resume().expect("it goes on");
        assert_eq!(answer(&mut sleeper), "ok");
        assert!(answer(&mut sleeper).starts_with("ok "), "open");
        assert_eq!(answer(&mut sleeper), "ok");
        assert_eq!(answer(&mut sleeper), "error Removed", "{calls} calls");
        sleeper.wait();
        fixture.guard.clean();
        if is_asleep {
            println!("{calls} system calls on the way");
            break;
        }
    }
    fixture.finish_removed();
}

/// The producer is stopped at each system call of its detach.
fn end_seen_while_last_producer_leaves_removes(fixture: Fixture) {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let (mut has_left, mut ends) = (false, 0);
    for calls in 0.. {
        let ring = fixture.ring(1);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut leaver = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        for line in [&format!("open {}", fixture.address()), "producer"] {
            leaver.peer().say(line);
        }
        leaver.peer().say("marked detach");
        run_to_marker(&mut leaver);
        // Before a call, and after it.
        for _ in 0..calls {
            has_left = leaver.run_to_call().expect("it goes on") == CallStop::Marker;
        }
        match consumer.try_recv().map(|_| ()) {
            Err(RecvError::Empty) => assert!(!has_left),
            Err(RecvError::EndOfStream { .. }) => {
                ends += 1;
                let removed = consumer.remove_at_end().unwrap().is_removed();
                assert!(removed, "{calls} stops, has left: {has_left}");
            }
            other => panic!("{other:?} at {calls} stops"),
        }
        let mut leaver = leaver.resume().expect("it goes on");
        leaver.wait();
        drop((consumer, ring));
        if has_left {
            println!("{calls} stops, at {ends} of them the stream had ended");
            break;
        }
        let _ = semring::remove(fixture.address());
    }
    fixture.finish_removed();
}

/// The kernel closes the files of the dead process one after the other. The test holds the lock that a
/// producer would hold whose liveness FIFO is closed already.
fn remover_waits_for_the_lock_of_a_dead_process(fixture: Fixture) {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let fixture = fixture.with_pipes();
    fixture.ring(1);
    fixture.producer().kill();
    let CleanupGuard::Pipes(pipes) = fixture.cleanup() else {
        panic!("the ring has pipes")
    };
    let of_the_dead = File::open(pipes.join("lock")).unwrap();
    // Shared, of the byte of removals.
    let attached = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&of_the_dead, FcntlArg::F_OFD_SETLK(&attached)).unwrap();
    let mut remover = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
    for line in [&format!("open {}", fixture.address()), "consumer", "recv"] {
        remover.peer().say(line);
    }
    remover.peer().say("marked remove-at-end");
    run_to_marker(&mut remover);
    let asks_again = CallStop::Before {
        number: libc::SYS_clock_nanosleep,
    };
    for _ in 0..2 {
        loop {
            let stop = remover.run_to_call().expect("it goes on");
            assert_ne!(stop, CallStop::Marker, "it does not wait");
            if stop == asks_again {
                break;
            }
        }
    }
    drop(of_the_dead);
    let mut remover = remover.resume().expect("it goes on");
    assert!(answer(&mut remover).starts_with("ok "), "open");
    assert_eq!(answer(&mut remover), "ok");
    assert_eq!(answer(&mut remover), "error EndOfStream");
    assert_eq!(answer(&mut remover), "ok");
    drop(remover);
    fixture.finish_removed();
}

/// The targets of a process's descriptors, in the order of their numbers.
fn descriptors(peer: &Peer) -> Vec<PathBuf> {
    let folder = PathBuf::from(format!("/proc/{}/fd", peer.pid()));
    let entries = std::fs::read_dir(&folder).expect("it lives");
    let numbers = entries.map(|entry| entry.expect("an entry").file_name());
    let mut numbers: Vec<u32> = numbers
        .map(|number| number.to_string_lossy().parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    let links = numbers
        .into_iter()
        .map(|number| folder.join(number.to_string()));
    links
        .map(|link| std::fs::read_link(link).expect("it is open"))
        .collect()
}

/// How many directories a process watches.
fn watches(peer: &Peer) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fdinfo", peer.pid())).expect("it lives");
    let told = entries
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("it is open"));
    told.map(|told| {
        told.lines()
            .filter(|line| line.starts_with("inotify "))
            .count()
    })
    .sum()
}

/// If a process watches a directory, the kernel takes milliseconds to close its inotify instance: too
/// long for processes that attach, send a message and exit.
fn no_directory_watch_before_the_first_sleep(fixture: Fixture) {
    let fixture = fixture.with_pipes();
    fixture.ring(1);
    let (mut producer, mut consumer) = (fixture.producer(), fixture.consumer());
    say_ok(&mut producer, "send 1 0 3 64");
    for _ in 0..3 {
        assert!(ask(&mut consumer, "recv").starts_with("message "));
    }
    assert_eq!(ask(&mut consumer, "try-recv"), "error Empty");
    assert_eq!((watches(&producer), watches(&consumer)), (0, 0));
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    assert_eq!((watches(&producer), watches(&consumer)), (0, 1));
    say_ok(&mut producer, "send 1 3 1 64");
    assert!(answer(&mut consumer).starts_with("message "));
    // The kernel closes the highest descriptor first when a process ends. If the liveness FIFO came after
    // the watch, its hang-up would be late. (Of the liveness FIFOs the consumer's own was opened last.)
    let open = descriptors(&consumer);
    let last = |end: &[u8]| {
        open.iter()
            .rposition(|path| path.as_os_str().as_bytes().ends_with(end))
    };
    assert!(
        last(b"inotify").expect("a watch") < last(b"/consumer").expect("a life"),
        "{open:?}"
    );
    say_ok(&mut consumer, "drop-consumer");
    drop((producer, consumer));
    fixture.finish();
}

fn a_ring_whose_guard_was_removed_goes_by_force_only(fixture: Fixture) {
    fixture.ring(1);
    fixture.cleanup().remove();
    let address = fixture.address().parse::<semring::Address>().unwrap();
    assert!(matches!(
        any::open(fixture.address()),
        Err(OpenError::GuardMissing { .. })
    ));
    let refused = semring::remove(&address).unwrap_err();
    assert!(
        matches!(refused, RemoveError::Open(OpenError::GuardMissing { .. })),
        "{refused}"
    );
    semring::force_remove(&address).unwrap();
    fixture.finish_removed();
}

fn a_removed_ring_stays_removed_for_its_producer(fixture: Fixture) {
    let ring = fixture.ring_of(1, 1 << 16);
    let mut producer = ring.attach_producer().unwrap();
    producer.send(b"before").unwrap();
    semring::force_remove(fixture.address()).unwrap();
    // It is noticed within a quarter lap, and stays so.
    let noticed = (0..1 << 12).find_map(|_| producer.send(&[0; 56]).err());
    assert_eq!(noticed, Some(SendError::Removed));
    for _ in 0..10 {
        assert_eq!(producer.send(b"after"), Err(SendError::Removed));
        assert_eq!(producer.try_send(b"after"), Err(SendError::Removed));
    }
    assert_eq!(producer.check_consumer(), Err(SendError::Removed));
    assert_eq!(producer.send(b"after"), Err(SendError::Removed));
    drop((producer, ring));
    fixture.finish_removed();
}

/// Each end sees that the other one makes progress, and all the same checks for the ring once in a
/// MiB.
fn a_ring_removed_under_two_busy_ends_is_noticed_by_each(fixture: Fixture) {
    const MESSAGES_A_MIB: usize = 1 << 14;
    for producer_first in [true, false] {
        let ring = fixture.ring_of(1, 1 << 16);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut exchange = |ask: bool, messages: usize| {
            if ask {
                producer.check_consumer().unwrap();
            }
            for number in 0..messages {
                // 64 bytes with the header.
                if let Err(error) = producer.send(&[0; 56]) {
                    return Some((number, true, error == SendError::Removed));
                }
                if let Err(error) = consumer.recv() {
                    return Some((number, false, error == RecvError::Removed));
                }
            }
            None
        };
        let most = MESSAGES_A_MIB / 8 * 7;
        assert_eq!(exchange(false, most), None);
        // Here the consumer checks. The side whose last check is longer ago checks first.
        assert_eq!(exchange(producer_first, MESSAGES_A_MIB / 4), None);
        assert_eq!(exchange(!producer_first, 1), None);
        semring::force_remove(fixture.address()).unwrap();
        let (after, is_producer, is_removed) = exchange(false, 2 * MESSAGES_A_MIB).unwrap();
        assert!(is_removed && is_producer == producer_first);
        assert!(after <= MESSAGES_A_MIB, "noticed after {after} messages");
        drop((producer, consumer, ring));
    }
    fixture.finish_removed();
}

/// Lets about as much time pass as the peer needs to hear and obey a command.
fn hesitate(random: &mut Random) {
    for _ in 0..random.below(40_000) {
        std::hint::spin_loop();
    }
}

fn new_ring_for(fixture: &Fixture, peer: &mut Peer) -> any::Ring {
    let ring = rings::any(fixture.address())
        .producers(2)
        .capacity(4096)
        .create()
        .unwrap();
    let opened = ask(peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    ring
}

fn a_late_producer_loses_nothing_when_the_consumer_removes(fixture: Fixture) {
    let mut random = Random::new("late producer, consumer removes");
    let mut late = fixture.idle_peer();
    let (mut sent, mut refused) = (0, 0);
    for round in 0..setting("SEMRING_REMOVALS", 400) {
        let ring = new_ring_for(&fixture, &mut late);
        drop(ring.attach_producer().unwrap());
        let mut consumer = ring.attach_consumer().unwrap();
        assert!(matches!(
            consumer.recv().unwrap_err(),
            RecvError::EndOfStream { .. }
        ));
        late.say(&format!("late 1 {round} 40"));
        hesitate(&mut random);
        let mut received = 0;
        while !consumer.remove_at_end().unwrap().is_removed() {
            // A producer is there, or something came meanwhile.
            match consumer.recv() {
                Ok(_) => received += 1,
                Err(RecvError::EndOfStream { .. }) => {}
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
            any::open(fixture.address()),
            Err(OpenError::NotFound { .. })
        ));
    }
    println!("{sent} sent in time, {refused} came too late");
    drop(late);
    fixture.finish_removed();
}

fn a_late_producer_loses_nothing_when_an_idle_ring_is_removed(fixture: Fixture) {
    let mut random = Random::new("late producer, remove if done");
    let mut late = fixture.idle_peer();
    let (mut kept, mut refused) = (0, 0);
    for round in 0..setting("SEMRING_REMOVALS", 400) {
        let ring = new_ring_for(&fixture, &mut late);
        late.say(&format!("late 1 {round} 40"));
        hesitate(&mut random);
        let gone = ring.remove_if_done().unwrap().is_removed();
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
    fixture.finish_removed();
}
