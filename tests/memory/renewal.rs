//! The guard of a file is gone: one process makes a new one, and no process works with the old one.

use std::collections::HashSet;
use std::process::Command;

use crate::fixture::{Fixture, Kind, PEER, answer, ask, fresh_path, say_ok};
use semring::{AttachError, OpenError, RingState, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::needs_root;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::step::{CallStop, Stepper};
use sysv_ipc::sem::SemSet;

fn ring_with_messages(fixture: &mut Fixture, lanes: usize) -> any::Ring {
    let ring = fixture.ring(lanes, 4096);
    let mut producer = ring.attach_producer().unwrap();
    for number in 0..5 {
        let mut bytes = Vec::new();
        semring_testkit::message::encode(1, number, 100, &mut bytes);
        producer.send(&bytes).unwrap();
    }
    ring
}

#[test]
fn of_many_openers_one_makes_the_guard_and_all_use_it() {
    let mut fixture = Fixture::new(Kind::File, "openers");
    drop(ring_with_messages(&mut fixture, 12));
    for _ in 0..10 {
        fixture.cleanup().remove();
        let mut peers: Vec<Peer> = (0..12).map(|_| fixture.idle_peer()).collect();
        for peer in &mut peers {
            peer.say(&format!("open {}", fixture.address()));
        }
        let answers: HashSet<String> = peers.iter_mut().map(answer).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        // One set: each gets a lane of its own.
        let lanes: HashSet<String> = peers.iter_mut().map(|peer| ask(peer, "producer")).collect();
        assert_eq!(lanes.len(), 12, "{lanes:?}");
        assert!(
            lanes.iter().all(|lane| lane.starts_with("ok ")),
            "{lanes:?}"
        );
    }
    assert_eq!(
        ask(&mut fixture.consumer(), "drain"),
        "drained 5 EndOfStream"
    );
    fixture.finish();
}

#[test]
fn pair_goes_on_after_its_guard_was_removed() {
    let mut fixture = Fixture::new(Kind::File, "pair");
    let ring = fixture.ring(1, 4096);
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    consumer.say("drain");
    producer.say("send 1 0 1000000000000 64");
    while ring.info().unwrap().lanes[0].received_messages < 10_000 {
        std::thread::yield_now();
    }
    fixture.cleanup().remove();
    let sent = answer(&mut producer);
    assert!(sent.starts_with("error Removed after "), "{sent}");
    assert!(answer(&mut consumer).ends_with(" Removed"));
    // They still have their roles, which no other process can take.
    let refused = any::open(fixture.address()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("still has its role"), "{text}");
    assert_eq!(
        semring::inspect(fixture.parsed()).unwrap().state,
        RingState::GuardRenewable
    );
    say_ok(&mut producer, "drop-producer");
    say_ok(&mut consumer, "drop-consumer");
    let old = ring.attach_producer().map(drop);
    assert_eq!(old, Err(AttachError::Removed));
    let again = any::open(fixture.address()).unwrap();
    let left = again.info().unwrap().unread_messages();
    drop(again);
    let drained = ask(&mut fixture.consumer(), "drain");
    assert_eq!(drained, format!("drained {left} EndOfStream"));
    drop((consumer, producer, ring));
    fixture.finish();
}

#[test]
fn a_handle_from_before_neither_attaches_nor_removes() {
    let mut fixture = Fixture::new(Kind::File, "before").with_semaphores();
    let old = ring_with_messages(&mut fixture, 1);
    let first = fixture.cleanup();
    let moved = move_to_another_namespace(&fixture);
    let Some(mut elsewhere) = moved else { return };
    // The first set is still there, and belongs to no ring any more.
    assert!(first.exists());
    assert_eq!(old.attach_producer().map(drop), Err(AttachError::Removed));
    assert_eq!(old.attach_consumer().map(drop), Err(AttachError::Removed));
    let refused = old.remove().unwrap_err();
    assert!(refused.to_string().contains("open it again"), "{refused}");
    assert!(fixture.path().exists());
    assert_eq!(ask(&mut elsewhere, "drain"), "drained 5 EndOfStream");
    drop(elsewhere);
    // No process is attached any more, so it comes back.
    let ring = any::open(fixture.address()).unwrap();
    assert_eq!(ring.info().unwrap().unread_messages(), 0);
    first.remove();
    drop((ring, old));
    fixture.finish();
}

/// A peer in another IPC namespace that is the ring's consumer.
fn move_to_another_namespace(fixture: &Fixture) -> Option<Peer> {
    let mut peer = crate::fixture::peer_below(&["unshare", "-i"])?;
    let answer = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(answer.starts_with("ok "), "{answer}");
    say_ok(&mut peer, "consumer");
    Some(peer)
}

#[test]
fn ring_in_use_in_another_namespace_is_refused() {
    let mut fixture = Fixture::new(Kind::File, "elsewhere").with_semaphores();
    let ring = ring_with_messages(&mut fixture, 1);
    let mut producer = ring.attach_producer().unwrap();
    let Some(mut peer) = crate::fixture::peer_below(&["unshare", "-i"]) else {
        return;
    };
    let answer = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(answer.contains("another IPC namespace"), "{answer}");
    producer.send(b"still ours").unwrap();
    drop((peer, producer, ring));
    fixture.finish();
}

#[test]
fn opener_killed_at_any_call_leaves_a_whole_ring() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let mut fixture = Fixture::new(Kind::File, "opener-killed");
    drop(ring_with_messages(&mut fixture, 1));
    let mut stops = 0;
    let mut orphans = Vec::new();
    loop {
        fixture.cleanup().remove();
        let mut stepper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        fixture.guard.adopt(stepper.peer().pid());
        stepper
            .peer()
            .say(&format!("marked open {}", fixture.address()));
        stepper.run_to_marker().expect("it begins");
        let mut ended = false;
        for _ in 0..stops {
            match stepper.run_to_call().expect("it goes on") {
                CallStop::Returned { number, result }
                    if number == libc::SYS_semget && result >= 0 =>
                {
                    orphans.push(result as i32);
                }
                CallStop::Before { .. } | CallStop::Returned { .. } => {}
                _ => {
                    ended = true;
                    break;
                }
            }
        }
        assert_eq!(stepper.kill(), Exit::Signal(libc::SIGKILL));
        let ring = any::open(fixture.address()).unwrap_or_else(|error| panic!("{stops}: {error}"));
        assert_eq!(ring.info().unwrap().unread_messages(), 5, "{stops}");
        drop((
            ring.attach_producer().unwrap(),
            ring.attach_consumer().unwrap(),
            ring,
        ));
        if ended {
            break;
        }
        stops += 1;
    }
    println!("{stops} points");
    assert!(stops > 20);
    // Sets of the killed that no record names.
    let named = fixture.cleanup();
    let orphans = orphans.into_iter().map(SemSet::from_id);
    for orphan in orphans.filter(|orphan| CleanupGuard::Semaphores(*orphan) != named) {
        let _ = orphan.remove();
    }
    fixture.finish();
}

#[test]
fn a_copy_is_a_ring_of_its_own_and_a_renamed_file_is_the_same() {
    let mut fixture = Fixture::new(Kind::File, "copied");
    let ring = ring_with_messages(&mut fixture, 1);
    let mut consumer = ring.attach_consumer().unwrap();
    let copy = fresh_path("copy");
    std::fs::copy(fixture.path(), &copy).unwrap();
    let address = format!("file:{}", copy.display());
    let other = any::open(&address).unwrap();
    // The original's consumer does not prevent anything here.
    let mut theirs = other.attach_consumer().unwrap();
    assert!(theirs.recv().is_ok());
    for _ in 0..5 {
        consumer.recv().unwrap().release();
    }
    drop((theirs, other));
    semring::remove(&address).unwrap();
    let moved = fresh_path("moved");
    std::fs::rename(fixture.path(), &moved).unwrap();
    let address = format!("file:{}", moved.display());
    let same = any::open(&address).unwrap();
    assert_eq!(same.info().unwrap().consumer_pid, Some(std::process::id()));
    std::fs::rename(&moved, fixture.path()).unwrap();
    drop((consumer, same, ring));
    fixture.finish();
}

#[test]
fn guard_of_a_stranger_is_not_used() {
    needs_root!("to give objects to another user");
    let mut fixture = Fixture::new(Kind::Posix, "stranger");
    drop(fixture.ring(1, 4096));
    // As if another user had made one with the same key, id and check value; or the directory.
    let cleanup = fixture.cleanup();
    let give_to = |user: u32, mode| match &cleanup {
        CleanupGuard::Semaphores(set) => set.set_permissions(user, user, mode).unwrap(),
        CleanupGuard::Pipes(path) => {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap()
        }
    };
    give_to(65534, 0o666);
    let refused = any::open(fixture.address()).unwrap_err();
    assert!(
        matches!(refused, OpenError::GuardMissing { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("another user"), "{refused}");
    give_to(0, 0o600);
    fixture.finish();
}

#[test]
fn a_role_is_not_lost_by_the_time_that_others_take() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    // An opener that finds the set removed waits a while for users that have not noticed yet.
    let mut fixture = Fixture::new(Kind::File, "patience");
    let ring = ring_with_messages(&mut fixture, 1);
    let producer = ring.attach_producer().unwrap();
    let known = fixture.cleanup();
    fixture.cleanup().remove();
    let mut opener = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
    fixture.guard.adopt(opener.peer().pid());
    opener
        .peer()
        .say(&format!("marked open {}", fixture.address()));
    opener.run_to_marker().expect("it begins");
    // It has checked, has found a process with a role, and is about to check again.
    let waits = CallStop::Before {
        number: libc::SYS_sched_yield,
    };
    loop {
        let stop = opener.run_to_call().expect("it goes on");
        assert_ne!(stop, CallStop::Marker, "it does not wait");
        if stop == waits {
            break;
        }
    }
    drop(producer);
    let mut opener = opener.resume().expect("it goes on");
    assert!(answer(&mut opener).starts_with("ok "));
    // Sets have numbers; pipes are where they were.
    assert!(fixture.cleanup().exists());
    assert_eq!(known.exists(), matches!(known, CleanupGuard::Pipes(_)));
    drop((opener, ring));
    fixture.finish();
}

/// An action of a process that may only read the file: a shared lock, of all bytes or of the one that roles
/// lock.
fn readers_lock(fixture: &Fixture, bytes: i64) -> std::fs::File {
    let reader = std::fs::File::open(fixture.path()).unwrap();
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: bytes,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    reader
}

#[test]
fn a_readers_lock_keeps_no_ring_unusable() {
    for bytes in [0, 1] {
        let mut fixture = Fixture::new(Kind::File, "reader");
        drop(ring_with_messages(&mut fixture, 1));
        let reader = readers_lock(&fixture, bytes);
        fixture.cleanup().remove();
        // No process had a role. Then: a process has one, detaches, is killed with it.
        let mut consumer = fixture.consumer();
        assert!(ask(&mut consumer, "recv").starts_with("message 1 0 "));
        fixture.cleanup().remove();
        let refused = any::open(fixture.address()).unwrap_err().to_string();
        assert!(refused.contains("still has its role"), "{refused}");
        say_ok(&mut consumer, "drop-consumer");
        assert!(ask(&mut consumer, &format!("open {}", fixture.address())).starts_with("ok "));
        say_ok(&mut consumer, "consumer");
        fixture.cleanup().remove();
        consumer.kill();
        let ring = any::open(fixture.address()).unwrap();
        assert!(ring.info().unwrap().unread_messages() >= 4);
        drop((ring, reader));
        fixture.finish();
    }
}

#[test]
fn of_many_openers_beside_a_reader_one_makes_the_guard() {
    of_many_openers_one_makes_it(Fixture::new(Kind::File, "openers-reader"), 1);
}

/// The makers' lock can't exclude them then.
#[test]
fn beside_a_reader_of_all_bytes_one_set_is_made() {
    let fixture = Fixture::new(Kind::File, "openers-reader-all").with_semaphores();
    of_many_openers_one_makes_it(fixture, 0);
}

fn of_many_openers_one_makes_it(mut fixture: Fixture, bytes: i64) {
    drop(ring_with_messages(&mut fixture, 12));
    let reader = readers_lock(&fixture, bytes);
    for _ in 0..10 {
        fixture.cleanup().remove();
        let mut peers: Vec<Peer> = (0..12).map(|_| fixture.idle_peer()).collect();
        for peer in &mut peers {
            peer.say(&format!("open {}", fixture.address()));
        }
        let answers: HashSet<String> = peers.iter_mut().map(answer).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let lanes: HashSet<String> = peers.iter_mut().map(|peer| ask(peer, "producer")).collect();
        assert_eq!(lanes.len(), 12, "{lanes:?}");
        assert!(
            lanes.iter().all(|lane| lane.starts_with("ok ")),
            "{lanes:?}"
        );
    }
    drop(reader);
    fixture.finish();
}

#[test]
fn a_maker_overtaken_beside_a_reader_joins_the_other() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let mut fixture = Fixture::new(Kind::File, "overtaken").with_semaphores();
    drop(ring_with_messages(&mut fixture, 2));
    let reader = readers_lock(&fixture, 0);
    fixture.cleanup().remove();
    let mut slow = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
    fixture.guard.adopt(slow.peer().pid());
    slow.peer()
        .say(&format!("marked open {}", fixture.address()));
    slow.run_to_marker().expect("it begins");
    // It has made a set, and no record names it yet.
    let made = loop {
        match slow.run_to_call().expect("it goes on") {
            CallStop::Returned { number, result } if number == libc::SYS_semget && result >= 0 => {
                break SemSet::from_id(result as i32);
            }
            CallStop::Before { .. } | CallStop::Returned { .. } => {}
            other => panic!("it made no set: {other:?}"),
        }
    };
    let mut fast = fixture.producer();
    assert_ne!(fixture.cleanup(), CleanupGuard::Semaphores(made));
    let mut slow = slow.resume().expect("it goes on");
    assert!(answer(&mut slow).starts_with("ok "));
    assert_eq!(ask(&mut slow, "producer"), "ok 1");
    assert!(made.stat().is_err(), "the set that no process uses is left");
    assert_eq!(ask(&mut fast, "check"), "ok");
    drop((slow, fast, reader));
    fixture.finish();
}
