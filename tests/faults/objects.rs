//! Creators, openers and removers, killed around each of their system calls and of their changes of the
//! segment: they leave a working ring, or none, and only objects that can be found and removed.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::fixture::{Backend, Fixture, answer, ask, prune_guards, say_ok};
use crate::kill_points::{AROUND, KillPoints, Point, Points, Track, is_full};
use crate::rings;
use crate::staged::{at_marker_without_ring, successor_sends};
use semring::{OrphanKind, PruneOutcome, any};
use semring_testkit::objects::Object;
use semring_testkit::peer::Peer;
use semring_testkit::step::Stepper;
use sysv_ipc::sem::SemSet;

traced_over_both_backends! {
    a_creator_killed_at_any_point_is_taken_over
    creator_killed_taking_over_is_taken_over
    an_opener_killed_at_any_point_leaves_no_trace
    remover_killed_at_any_point
    remover_at_the_end_killed_at_any_point
    forced_remover_killed_at_any_point
    remover_delayed_at_any_point_takes_no_other_ring
    creator_stopped_at_any_call_survives_force
}

/// Three processes that look for the ring at once get the same one.
#[track_caller]
fn made_by_all(fixture: &Fixture, peers: &mut [Peer]) {
    for peer in &mut *peers {
        peer.say(&format!("open-or-create {} 1 4096", fixture.address()));
    }
    let answers: HashSet<String> = peers.iter_mut().map(answer).collect();
    assert!(
        answers.len() == 1 && answers.iter().all(|answer| answer.starts_with("ok ")),
        "{answers:?}"
    );
}

/// The ring takes a producer and a consumer, hands messages over, ends, and goes.
#[track_caller]
fn works_and_goes(peers: &mut [Peer]) {
    let [first, second, ..] = peers else {
        panic!("two peers at least")
    };
    assert_eq!(ask(first, "producer"), "ok 0");
    assert_eq!(ask(second, "consumer"), "ok");
    say_ok(first, "send 1 0 3 64");
    say_ok(first, "drop-producer");
    assert_eq!(ask(second, "drain"), "drained 3 EndOfStream");
    assert_eq!(ask(second, "remove-at-end"), "ok true");
    say_ok(second, "drop-consumer");
}

/// Removes a set that was never used. The kernel does not record its creator's pid, so no other
/// code can find it.
fn remove_unused(point: Point) {
    if let Some(id) = point.set {
        let key = SemSet::from_id(id).stat().map_or(0, |stat| stat.key.bits());
        let set = Object::Semaphores { id, key };
        if set.is_unused_set() {
            set.remove().expect("a set of ours can be removed");
        }
    }
}

/// Checks that only those objects are left that a POSIX creator or remover (with pipes every one) may leave:
/// a guard without a ring, which the library lists as an orphan and removes.
#[track_caller]
pub fn clean_but_for_nameless_guards(fixture: &Fixture, points: &[Point]) {
    points.iter().copied().for_each(remove_unused);
    for object in fixture.guard.objects() {
        let (name, kind) = match &object {
            Object::Semaphores { key, .. } => {
                assert_eq!(fixture.backend, Backend::Posix, "left behind: {object:?}");
                (format!("semaphores 0x{key:08x}"), OrphanKind::Semaphores)
            }
            Object::Posix { name } if name.starts_with(".semring-") => {
                (format!("pipes /dev/shm/{name}"), OrphanKind::Pipes)
            }
            _ => panic!("left behind: {object:?}"),
        };
        let left = semring::orphans();
        let left: Vec<_> = left.iter().filter(|left| left.name() == name).collect();
        // A concurrent test may just remove objects that were not even begun, or almost gone (below).
        let is_there = || fixture.guard.objects().contains(&object);
        let Some(left) = left.first() else {
            assert!(!is_there(), "{object:?} can't be found");
            continue;
        };
        assert_eq!(left.kind(), kind);
        while left.remove(semring::Unread::Keep).unwrap() != PruneOutcome::Removed {
            assert!(is_there(), "it is gone, and counts as used: {object:?}");
            std::thread::yield_now();
        }
    }
    // Directories of pipes that were not even begun don't show their maker. (A live maker whose
    // directory is removed begins again.)
    let orphans = fixture.has_pipes().then(semring::orphans);
    for left in orphans.iter().flatten() {
        if left.kind() == OrphanKind::Pipes
            && left
                .name()
                .strip_prefix("pipes ")
                .is_some_and(|path| !std::path::Path::new(path).join("lock").exists())
        {
            left.remove(semring::Unread::Keep).unwrap();
        }
    }
    fixture.guard.assert_clean();
    fixture.guard.forget_adopted();
}

/// Three peers that look for the ring after each kill.
fn makers(fixture: &Fixture) -> RefCell<Vec<Peer>> {
    RefCell::new((0..3).map(|_| fixture.idle_peer()).collect())
}

fn adopt_all(fixture: &Fixture, peers: &[Peer]) {
    for peer in peers {
        fixture.guard.adopt(peer.pid());
    }
}

fn open_or_create(fixture: &Fixture) -> String {
    format!("open-or-create {} 1 4096", fixture.address())
}

/// The old one or a new one: it works, and it goes.
#[track_caller]
fn sound(fixture: &Fixture, peers: &RefCell<Vec<Peer>>, points: &[Point]) {
    let mut peers = peers.borrow_mut();
    adopt_all(fixture, &peers);
    made_by_all(fixture, &mut peers);
    works_and_goes(&mut peers);
    clean_but_for_nameless_guards(fixture, points);
}

fn a_creator_killed_at_any_point_is_taken_over(fixture: Fixture) {
    let peers = makers(&fixture);
    KillPoints::new(&fixture, "create", AROUND).kill(
        || {
            let stepper = at_marker_without_ring(&fixture, &[], &open_or_create(&fixture));
            (stepper, ())
        },
        |point, ()| sound(&fixture, &peers, &[point]),
    );
    drop(peers);
    fixture.finish_removed();
}

/// The first one is killed after some of its system calls, the next one around all of its own.
fn creator_killed_taking_over_is_taken_over(fixture: Fixture) {
    let peers = makers(&fixture);
    let create = open_or_create(&fixture);
    let stage = || at_marker_without_ring(&fixture, &[], &create);
    let mut stepper = stage();
    let track = Track::of(&mut stepper);
    stepper.kill();
    sound(&fixture, &peers, &[]);
    // Where nothing of the first one is left the second is no successor.
    let made = track.calls.len() / 3;
    let stride = if is_full() { 1 } else { 6 };
    for first in track.calls.iter().skip(made).step_by(stride) {
        let name = format!("create-after-create-{first}");
        KillPoints::new(&fixture, &name, Points::Calls).kill(
            || {
                let mut stepper = stage();
                let point = track.lead(&mut stepper, *first);
                stepper.kill();
                (stage(), point)
            },
            |point, before| sound(&fixture, &peers, &[before, point]),
        );
    }
    drop(peers);
    fixture.finish_removed();
}

/// The others use the ring meanwhile and afterwards, as if there had been no opener.
fn an_opener_killed_at_any_point_leaves_no_trace(fixture: Fixture) {
    let open = format!("open {}", fixture.address());
    KillPoints::new(&fixture, "open", AROUND).kill(
        || {
            let ring = fixture.ring(1);
            let consumer = ring.attach_consumer().unwrap();
            let stepper = at_marker_without_ring(&fixture, &[], &open);
            (stepper, (ring, consumer))
        },
        |_, (ring, mut consumer)| {
            successor_sends(&ring, 0);
            let arrived = crate::staged::drained(&mut consumer);
            assert_eq!(arrived, [(2, 0), (2, 1), (2, 2)]);
            crate::staged::gone(&fixture, consumer);
        },
    );
    fixture.finish_removed();
}

fn killed_remover(fixture: Fixture, name: &str, stage: impl Fn(&Fixture) -> Stepper) {
    let peers = makers(&fixture);
    KillPoints::new(&fixture, name, AROUND).kill(
        || {
            fixture.ring(1);
            (stage(&fixture), ())
        },
        |point, ()| sound(&fixture, &peers, &[point]),
    );
    drop(peers);
    fixture.finish_removed();
}

fn remover_killed_at_any_point(fixture: Fixture) {
    killed_remover(fixture, "remove", |fixture| {
        at_marker_without_ring(fixture, &[], &format!("remove {}", fixture.address()))
    });
}

fn remover_at_the_end_killed_at_any_point(fixture: Fixture) {
    killed_remover(fixture, "remove-at-end", |fixture| {
        let open = format!("open {}", fixture.address());
        at_marker_without_ring(fixture, &[&open, "consumer"], "remove-at-end")
    });
}

/// A producer is attached; its later calls are not tested here.
fn forced_remover_killed_at_any_point(fixture: Fixture) {
    killed_remover(fixture, "force-remove", |fixture| {
        at_marker_without_ring(fixture, &[], &format!("force-remove {}", fixture.address()))
    });
}

/// Where it stands matters by system calls only: it changes nothing of the segment. It stands still while another one removes the ring and makes a new one; then it goes on.
fn remover_delayed_at_any_point_takes_no_other_ring(fixture: Fixture) {
    let address = fixture.address().parse::<semring::Address>().unwrap();
    let what = format!("force-remove {}", fixture.address());
    KillPoints::new(&fixture, "dawdling-remove", Points::Calls).each(
        || {
            let old = fixture.ring(1);
            (at_marker_without_ring(&fixture, &[], &what), old)
        },
        |_, stepper, old| {
            // Waits a second for the other one, then goes on.
            let removed = semring::force_remove(&address).is_ok();
            let new = rings::any(fixture.address())
                .producers(1)
                .capacity(4096)
                .open_or_create();
            // The fixture must have seen its set, also when its name is removed.
            fixture.guard.objects();
            let mut peer = stepper.resume().expect("it goes on");
            assert!(peer.read_line().is_some());
            drop(peer);
            drop(old);
            if let (true, Ok(new)) = (removed, new) {
                if any::open(fixture.address()).is_ok() {
                    new.remove().unwrap();
                } else {
                    // The old remover was stopped between its look at the name and its unlink, for longer than
                    // a removal by force waits. The new ring has lost its name, and prune removes its set.
                    assert_eq!(
                        new.attach_producer().err(),
                        Some(semring::AttachError::Removed)
                    );
                    drop(new);
                    prune_guards();
                }
            }
            let _ = semring::force_remove(&address);
            fixture.guard.assert_clean();
            fixture.guard.forget_adopted();
        },
    );
    fixture.finish_removed();
}

/// If it is stopped while it holds its lock, a remover waits for a second; then its objects are removed, and
/// it begins again.
fn creator_stopped_at_any_call_survives_force(fixture: Fixture) {
    let address: semring::Address = fixture.address().parse().unwrap();
    let peers = makers(&fixture);
    let create = open_or_create(&fixture);
    let stage = || at_marker_without_ring(&fixture, &[], &create);
    let mut stepper = stage();
    let track = Track::of(&mut stepper);
    stepper.kill();
    sound(&fixture, &peers, &[]);
    for call in &track.calls {
        let mut stepper = stage();
        let point = track.lead(&mut stepper, *call);
        let _ = semring::force_remove(&address);
        let mut peer = stepper.resume().expect("it goes on");
        let answer = peer.read_line().expect("it comes to its end");
        assert!(
            answer.starts_with("ok "),
            "{answer} after {call} of {}",
            track.len
        );
        // The fixture has to record its set, also when its name goes.
        fixture.guard.objects();
        drop(peer);
        sound(&fixture, &peers, &[point]);
    }
    drop(peers);
    fixture.finish_removed();
}
