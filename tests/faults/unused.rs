//! A ring that nobody has used is replaced: the newcomers that name other settings, and the consumer that waits, are
//! killed. A consumer always gets all messages of the newcomers that came, and nobody waits in a ring without a name.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::fixture::{Backend, Fixture, answer, ask, say_ok};
use crate::kill_points::{KillPoints, Point, Points};
use crate::objects::clean_but_for_nameless_guards;
use crate::staged::at_marker_without_ring;
use semring_testkit::peer::Peer;

traced_over_both_backends! {
    newcomer_killed_while_it_replaces
    newcomer_killed_while_two_others_come
    consumer_killed_while_it_replaces
    consumer_killed_on_its_way_to_the_new_ring
    newcomer_stopped_for_long_makes_its_ring
}

/// Each point takes several processes, and each operation makes or removes a ring, or both.
const FEW: Points = Points::Around {
    calls: 1,
    stores: 0,
    spread: 20,
};

/// The consumer, and the newcomers that are not killed. They serve at all points.
fn peers<const N: usize>(fixture: &Fixture) -> RefCell<[Peer; N]> {
    RefCell::new(std::array::from_fn(|_| {
        let mut peer = fixture.idle_peer();
        say_ok(&mut peer, "wait block");
        peer
    }))
}

/// The same test with semaphores and with pipes; these have more system calls, and fewer points are taken.
fn with_each_guard(fixture: Fixture, name: &str, test: impl Fn(&Fixture, &str, Points)) {
    let backend = fixture.backend;
    let fixture = fixture.with_semaphores();
    test(&fixture, name, FEW);
    fixture.finish_removed();
    if backend == Backend::Posix {
        // One at a time: a maker that is stepped through has a directory without a lock for long, and the other tests
        // would take it for a killed maker's and remove it, more often than it begins again.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let fixture = Fixture::new(backend, "replaced-with-pipes").with_pipes();
        test(&fixture, &format!("{name}-with-pipes"), Points::Calls);
        fixture.finish_removed();
    }
}

/// Lets the consumer wait in a ring of one lane, until it sleeps there.
fn waits(fixture: &Fixture, consumer: &mut Peer) {
    fixture.guard.adopt(consumer.pid());
    consumer.say(&format!("waiting {} 1 4096", fixture.address()));
    consumer.wait_until_asleep_on_a_ring();
    fixture.guard.objects();
}

/// Sends three messages to the consumer, wherever it waits: with settings of its own if the ring is unused, otherwise
/// with none. Whether it was unused.
#[track_caller]
fn sends(fixture: &Fixture, newcomer: &mut Peer, settings: &str) -> bool {
    fixture.guard.adopt(newcomer.pid());
    let address = fixture.address();
    match ask(newcomer, &format!("newcomer {address} {settings} 2 3 64")).as_str() {
        "ok" => true,
        "error Mismatch" => {
            say_ok(newcomer, &format!("newcomer {address} 0 0 2 3 64"));
            false
        }
        other => panic!("{other}"),
    }
}

/// The consumer gets this many messages, and removes the ring at the end of the stream. Where the one that was killed had
/// attached, there may be an end before the first message.
#[track_caller]
fn ends(fixture: &Fixture, consumer: &mut Peer, messages: u64, points: &[Point]) {
    let mut arrived = 0;
    loop {
        let drained = answer(consumer);
        let count = drained.strip_prefix("drained ");
        let count = count.and_then(|rest| rest.strip_suffix(" EndOfStream"));
        let count = count.and_then(|count| count.parse::<u64>().ok());
        arrived += count.unwrap_or_else(|| panic!("{drained}"));
        if arrived >= messages {
            break;
        }
        consumer.say("drain");
    }
    assert_eq!(arrived, messages);
    assert_eq!(ask(consumer, "remove-at-end"), "ok true");
    say_ok(consumer, "drop-consumer");
    clean_but_for_nameless_guards(fixture, points);
}

/// Killed at the end, or in the last steps, it has used the ring, and its settings stay.
fn newcomer_killed_while_it_replaces(fixture: Fixture) {
    with_each_guard(fixture, "replace", |fixture, name, points| {
        let peers = peers::<2>(fixture);
        let mut was_used = false;
        KillPoints::new(fixture, name, points).kill(
            || {
                waits(fixture, &mut peers.borrow_mut()[0]);
                let come = format!("come {} 2 4096", fixture.address());
                (at_marker_without_ring(fixture, &[], &come), ())
            },
            |point, ()| {
                let [consumer, newcomer] = &mut *peers.borrow_mut();
                let unused = sends(fixture, newcomer, "3 4096");
                assert!(!point.at_end || !unused);
                assert!(point.at_end || !was_used || !unused, "used, and then not");
                was_used |= !point.at_end && !unused;
                ends(fixture, consumer, 3, &[point]);
            },
        );
    });
}

/// Two more newcomers, whose settings contradict each other: the one that comes too late takes what there is.
fn newcomer_killed_while_two_others_come(fixture: Fixture) {
    with_each_guard(fixture, "replace-among-others", |fixture, name, points| {
        let peers = peers::<3>(fixture);
        KillPoints::new(fixture, name, points).kill(
            || {
                waits(fixture, &mut peers.borrow_mut()[0]);
                let come = format!("come {} 2 4096", fixture.address());
                (at_marker_without_ring(fixture, &[], &come), ())
            },
            |point, ()| {
                let [consumer, first, second] = &mut *peers.borrow_mut();
                let address = fixture.address();
                let mut messages: u64 = 0;
                for (newcomer, settings, sender) in
                    [(&mut *first, "3 4096", 2), (second, "2 8192", 3)]
                {
                    fixture.guard.adopt(newcomer.pid());
                    newcomer.say(&format!("newcomer {address} {settings} {sender} 3 64"));
                }
                for newcomer in [&mut *first, second] {
                    match answer(newcomer).as_str() {
                        "ok" => messages += 3,
                        "error Mismatch" => {}
                        other => panic!("{other}"),
                    }
                }
                if messages == 0 {
                    // The one that was killed had used the ring.
                    say_ok(first, &format!("newcomer {address} 0 0 2 3 64"));
                    messages = 3;
                }
                ends(fixture, consumer, messages, &[point]);
            },
        );
    });
}

/// Nobody is attached; the consumer that is killed wants more lanes.
fn consumer_killed_while_it_replaces(fixture: Fixture) {
    with_each_guard(fixture, "replace-to-wait", |fixture, name, points| {
        let peers = peers::<2>(fixture);
        KillPoints::new(fixture, name, points).kill(
            || {
                fixture.unused_ring();
                let come = format!("come-to-wait {} 2 4096", fixture.address());
                (at_marker_without_ring(fixture, &[], &come), ())
            },
            |point, ()| {
                let [consumer, newcomer] = &mut *peers.borrow_mut();
                waits(fixture, consumer);
                assert!(sends(fixture, newcomer, "3 4096"), "nobody had used it");
                ends(fixture, consumer, 3, &[point]);
            },
        );
    });
}

/// The newcomer that has replaced the ring has sent its messages, and is gone.
fn consumer_killed_on_its_way_to_the_new_ring(fixture: Fixture) {
    with_each_guard(fixture, "come-again", |fixture, name, points| {
        let peers = peers::<2>(fixture);
        KillPoints::new(fixture, name, points).kill(
            || {
                let address = fixture.address();
                let open = format!("open {address}");
                fixture.unused_ring();
                let again = format!("come-again {address} 1 4096");
                let stepper = at_marker_without_ring(fixture, &[&open, "consumer"], &again);
                let [_, newcomer] = &mut *peers.borrow_mut();
                assert!(sends(fixture, newcomer, "2 4096"), "nobody had used it");
                (stepper, ())
            },
            |point, ()| {
                let [consumer, _] = &mut *peers.borrow_mut();
                fixture.guard.adopt(consumer.pid());
                consumer.say(&format!("waiting {} 1 4096", fixture.address()));
                ends(fixture, consumer, 3, &[point]);
            },
        );
    });
}

/// Longer than newcomers may replace each other's rings.
const LONG: Duration = Duration::from_millis(1100);

fn newcomer_stopped_for_long_makes_its_ring(fixture: Fixture) {
    fixture.unused_ring();
    let come = format!("come {} 2 4096", fixture.address());
    let mut newcomer = at_marker_without_ring(&fixture, &[], &come);
    while semring::any::open(fixture.address()).is_ok() {
        newcomer.run_to_call().expect("it removes the ring");
    }
    std::thread::sleep(LONG);
    let mut newcomer = newcomer.resume().expect("it goes on");
    assert_eq!(answer(&mut newcomer), "ok");
    assert_eq!(
        semring::any::open(fixture.address())
            .expect("its ring")
            .lanes(),
        2
    );
    say_ok(&mut newcomer, "drop-producer");
    fixture.guard.objects();
    drop(newcomer);
    fixture.finish();
}
