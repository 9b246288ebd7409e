//! Many make a ring at once, some are killed while they do, some remove it meanwhile: there is one ring
//! or none. (Creators killed at every system call: tests/faults.)

use crate::fixture::{Backend, Fixture, Random, answer, ask, say_ok, setting};
use semring::any;
use semring_testkit::peer::Peer;
use std::collections::HashSet;
use std::time::Duration;

over_both_backends! {
    sixteen_creators_at_once_get_one_ring
    a_creator_killed_at_a_random_moment_is_taken_over
    a_ring_is_made_while_others_remove_it
    a_ring_is_made_while_others_remove_it_by_force
}

/// All make the ring at once; gives its uuid.
#[track_caller]
fn make_at_once(fixture: &Fixture, peers: &mut [Peer]) -> String {
    let command = format!("open-or-create {} 2 4096", fixture.address());
    for peer in &mut *peers {
        peer.say(&command);
    }
    let mut answers: HashSet<String> = peers.iter_mut().map(answer).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let one = answers.drain().next().expect("there is one");
    one.strip_prefix("ok ")
        .unwrap_or_else(|| panic!("{one}"))
        .to_owned()
}

/// The ring works: a message can be sent through it by the processes that made it. Then it is
/// removed.
#[track_caller]
fn use_and_remove(fixture: &Fixture, peers: &mut [Peer]) {
    let [first, second, ..] = peers else {
        panic!("two peers at least")
    };
    assert_eq!(ask(first, "producer"), "ok 0");
    say_ok(second, "consumer");
    say_ok(first, "send 1 0 3 64");
    say_ok(first, "drop-producer");
    assert_eq!(ask(second, "drain"), "drained 3 EndOfStream");
    assert_eq!(ask(second, "remove-at-end"), "ok true");
    say_ok(second, "drop-consumer");
    assert!(any::open(fixture.address()).is_err());
}

fn sixteen_creators_at_once_get_one_ring(fixture: Fixture) {
    let mut peers: Vec<Peer> = (0..16).map(|_| fixture.maker()).collect();
    let mut uuids = HashSet::new();
    for _ in 0..setting("SEMRING_CREATIONS", 40) {
        assert!(
            uuids.insert(make_at_once(&fixture, &mut peers)),
            "each ring is another one"
        );
        use_and_remove(&fixture, &mut peers);
        fixture.guard.assert_clean();
    }
    drop(peers);
    fixture.finish_removed();
}

fn a_creator_killed_at_a_random_moment_is_taken_over(fixture: Fixture) {
    let mut random = Random::new("creators killed");
    let mut peers: Vec<Peer> = (0..3).map(|_| fixture.maker()).collect();
    // A POSIX creator leaves a set without a name, which only the next test but one can distinguish
    // from those of others: killed at every system call in tests/faults.
    let kills = if fixture.backend == Backend::Sysv {
        setting("SEMRING_KILLS", 60)
    } else {
        0
    };
    let address = fixture.address();
    for _ in 0..kills {
        let mut creators = [fixture.maker(), fixture.maker()];
        creators[0].say(&format!("make {address} 2 4096 attached 1000000"));
        creators[1].say(&format!("force-unmake {address} 1000000"));
        random.pass(Duration::from_millis(3));
        for creator in &mut creators {
            creator.kill();
        }
        make_at_once(&fixture, &mut peers);
        use_and_remove(&fixture, &mut peers);
        fixture.prune_pipes();
        fixture.guard.assert_clean();
        // The numbers of the dead may be others' by the next round but some.
        fixture.guard.forget_adopted();
        for peer in &peers {
            fixture.guard.adopt(peer.pid());
        }
    }
    drop(peers);
    fixture.finish_removed();
}

fn made_while_removed(fixture: Fixture, how: &str, remove: &str) {
    let rounds = setting("SEMRING_CREATIONS", 40) * 25;
    let mut makers: Vec<Peer> = (0..3).map(|_| fixture.maker()).collect();
    let mut removers: Vec<Peer> = (0..2).map(|_| fixture.maker()).collect();
    for maker in &mut makers {
        maker.say(&format!("make {} 2 4096 {how} {rounds}", fixture.address()));
    }
    for remover in &mut removers {
        remover.say(&format!("{remove} {} {rounds}", fixture.address()));
    }
    let answers: Vec<String> = makers.iter_mut().chain(&mut removers).map(answer).collect();
    assert_eq!(answers, ["ok"; 5]);
    make_at_once(&fixture, &mut makers);
    use_and_remove(&fixture, &mut makers);
    drop((makers, removers));
    fixture.finish_removed();
}

fn a_ring_is_made_while_others_remove_it(fixture: Fixture) {
    made_while_removed(fixture, "idle", "unmake");
}

fn a_ring_is_made_while_others_remove_it_by_force(fixture: Fixture) {
    made_while_removed(fixture, "attached", "force-unmake");
}
