//! Many make the same ring at once, and some of them are killed meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use crate::fixture::{Fixture, Kind, NAMED, answer, ask, say_ok};
use semring_testkit::peer::Peer;

/// How many make a ring at once, and how many of them are killed.
const MAKERS: usize = 32;
const KILLED: usize = 8;

/// A number that differs from run to run.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

fn a_ring_is_made_by_all_at_once(kind: Kind) {
    let fixture = Fixture::new(kind, "thirty-two");
    for _ in 0..5 {
        let mut makers: Vec<Peer> = (0..MAKERS).map(|_| fixture.idle_peer()).collect();
        for maker in &makers {
            fixture.guard.adopt(maker.pid());
        }
        let command = format!("open-or-create {} 2 4096", fixture.address());
        for maker in &mut makers {
            maker.say(&command);
        }
        // At some moment, not at an agreed one.
        std::thread::sleep(Duration::from_micros(random() % 10_000));
        for maker in &mut makers[..KILLED] {
            maker.kill();
        }
        let survivors = &mut makers[KILLED..];
        let answers: HashSet<String> = survivors.iter_mut().map(answer).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|a| a.starts_with("ok ")), "{answers:?}");
        // It is one ring and whole: the first two are its producers, and there is no third.
        assert_eq!(ask(&mut survivors[0], "producer"), "ok 0");
        assert_eq!(ask(&mut survivors[1], "producer"), "ok 1");
        assert!(ask(&mut survivors[2], "producer").contains("NoFreeLane"));
        assert_eq!(ask(&mut survivors[3], "consumer"), "ok");
        say_ok(&mut survivors[0], "send 1 0 3 64");
        say_ok(&mut survivors[1], "send 2 0 3 64");
        let _ = survivors;
        drop(makers.drain(..KILLED + 2));
        assert_eq!(ask(&mut makers[1], "drain"), "drained 6 EndOfStream");
        drop(makers);
        let cleanup = fixture.known_cleanup();
        semring::remove(fixture.parsed()).unwrap();
        // Objects left without a name by the killed processes.
        fixture.guard.clean();
        fixture.guard.forget_adopted();
        fixture.assert_gone(cleanup);
    }
}

#[test]
fn thirty_two_processes_some_of_them_killed_make_one_ring() {
    for kind in NAMED {
        a_ring_is_made_by_all_at_once(kind);
    }
}
