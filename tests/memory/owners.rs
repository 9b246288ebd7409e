//! Permission to use a ring: owner, group and mode as for files, of memory and semaphores alike.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::fixture::{Fixture, Kind, NAMED, answer, ask, peer_below, say_ok};
use crate::rings;
use semring::{CreateError, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::peer::Peer;
use semring_testkit::{leave_out, needs_root};

/// A user and a group that no other process here has.
const USER: u32 = 54321;
const GROUP: u32 = 54322;

/// A peer of this user and group, in no other groups. `None` where that is refused.
fn peer_of(user: u32, group: u32) -> Option<Peer> {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    peer_below(&["setpriv", &user, &group, "--clear-groups"])
}

fn open(peer: &mut Peer, fixture: &Fixture) -> String {
    ask(peer, &format!("open {}", fixture.address()))
}

#[test]
fn private_ring_is_refused_to_other_users() {
    for kind in NAMED {
        let mut fixture = Fixture::new(kind, "private");
        drop(fixture.ring(1, 4096));
        let Some(mut other) = peer_of(USER, GROUP) else {
            return;
        };
        let refused = open(&mut other, &fixture);
        assert!(refused.contains("Permission"), "{kind:?}: {refused}");
        let refused = ask(&mut other, &format!("remove {}", fixture.address()));
        assert!(refused.contains("Permission"), "{kind:?}: {refused}");
        drop(other);
        fixture.finish();
    }
}

#[test]
fn a_group_ring_works_both_ways() {
    for kind in NAMED {
        let fixture = Fixture::new(kind, "group");
        let builder = rings::any(fixture.address()).producers(2).capacity(4096);
        let Some(mut other) = peer_of(USER, GROUP) else {
            return;
        };
        let ring = builder.mode(0o660).group(GROUP).create().unwrap();
        fixture.guard.objects();
        assert_eq!(ring.info().unwrap().gid, GROUP);
        assert!(open(&mut other, &fixture).starts_with("ok "));
        // Root sends, the member of the group receives; then the other way round.
        let mut producer = ring.attach_producer().unwrap();
        say_ok(&mut other, "consumer");
        other.say("drain");
        for number in 0..100 {
            let mut bytes = Vec::new();
            semring_testkit::message::encode(1, number, 100, &mut bytes);
            producer.send(&bytes).unwrap();
        }
        drop(producer);
        assert_eq!(answer(&mut other), "drained 100 EndOfStream");
        say_ok(&mut other, "drop-consumer");
        assert!(ask(&mut other, "producer").starts_with("ok "));
        other.say("send 1 0 100 100");
        let mut consumer = ring.attach_consumer().unwrap();
        for _ in 0..100 {
            consumer.recv().unwrap().release();
        }
        assert_eq!(answer(&mut other), "ok");
        // A user outside its group has no access.
        let mut stranger = peer_of(USER, USER).expect("it just worked");
        let refused = open(&mut stranger, &fixture);
        assert!(refused.contains("Permission"), "{kind:?}: {refused}");
        drop((consumer, ring, other, stranger));
        fixture.finish();
    }
}

#[test]
fn root_makes_a_ring_for_a_user() {
    for kind in NAMED {
        let fixture = Fixture::new(kind, "given");
        let Some(mut other) = peer_of(USER, GROUP) else {
            return;
        };
        let ring = fixture
            .builder()
            .capacity(4096)
            .owner(USER)
            .create()
            .unwrap();
        fixture.guard.objects();
        let info = ring.info().unwrap();
        assert_eq!((info.uid, info.mode), (USER, 0o600));
        let mut producer = ring.attach_producer().unwrap();
        assert!(open(&mut other, &fixture).starts_with("ok "));
        say_ok(&mut other, "consumer");
        other.say("drain");
        let mut bytes = Vec::new();
        semring_testkit::message::encode(1, 0, 100, &mut bytes);
        producer.send(&bytes).unwrap();
        drop((producer, ring));
        assert_eq!(answer(&mut other), "drained 1 EndOfStream");
        drop(other);
        fixture.finish();
    }
}

#[test]
fn only_root_gives_files_away() {
    let fixture = Fixture::new(Kind::Posix, "no-gift");
    if nix::unistd::geteuid().is_root() {
        leave_out!("needs a user other than root");
    }
    let refused = fixture.builder().owner(0).create().unwrap_err();
    assert!(
        matches!(refused, CreateError::Permission { .. }),
        "{refused}"
    );
    fixture.assert_gone(None);
}

#[test]
fn semaphores_made_by_the_group_are_the_owners() {
    let fixture = Fixture::new(Kind::File, "group-renews").with_semaphores();
    let Some(mut other) = peer_of(USER, GROUP) else {
        return;
    };
    let builder = fixture.builder().capacity(4096).mode(0o660).group(GROUP);
    drop(builder.create().unwrap());
    fixture.cleanup().remove();
    assert!(open(&mut other, &fixture).starts_with("ok "));
    assert_eq!(fixture.cleanup().ownership(), (0o660, 0, GROUP));
    let CleanupGuard::Semaphores(set) = fixture.cleanup() else {
        panic!("it has semaphores");
    };
    assert_eq!(set.stat().unwrap().cuid, USER);
    // Root uses the ring of the member.
    let ring = any::open(fixture.address()).unwrap();
    let mut producer = ring.attach_producer().unwrap();
    say_ok(&mut other, "consumer");
    producer.check_consumer().unwrap();
    drop((producer, ring, other));
    fixture.finish();
}

/// A user can't give a directory to another user, as the maker of a semaphore set can.
#[test]
fn pipes_are_made_again_by_the_owner_only() {
    let fixture = Fixture::new(Kind::File, "owner-renews").with_pipes();
    let Some(mut other) = peer_of(USER, GROUP) else {
        return;
    };
    let builder = fixture.builder().capacity(4096).mode(0o660).group(GROUP);
    drop(builder.create().unwrap());
    assert_eq!(fixture.cleanup().ownership(), (0o660, 0, GROUP));
    fixture.cleanup().remove();
    let refused = open(&mut other, &fixture);
    assert!(refused.contains("Permission"), "{refused}");
    assert!(!fixture.cleanup().exists(), "nothing half made");
    let ring = any::open(fixture.address()).unwrap();
    assert_eq!(fixture.cleanup().ownership(), (0o660, 0, GROUP));
    // And with these they work together.
    assert!(open(&mut other, &fixture).starts_with("ok "));
    let mut producer = ring.attach_producer().unwrap();
    say_ok(&mut other, "consumer");
    producer.check_consumer().unwrap();
    drop((producer, ring, other));
    fixture.finish();
}

#[test]
fn group_of_the_folder_is_the_rings() {
    needs_root!("for a second group");
    let folder = crate::fixture::fresh_path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o2775)).unwrap();
    let path = folder.join("ring");
    let address = format!("file:{}", path.display());
    let ring = rings::any(&address).mode(0o660).create().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().gid(), GROUP);
    assert_eq!(CleanupGuard::of_ring(&path, &folder).ownership().2, GROUP);
    ring.remove().unwrap();
    std::fs::remove_dir(folder).unwrap();
}

#[test]
fn read_permission_allows_inspect_only() {
    for kind in NAMED {
        let fixture = Fixture::new(kind, "readable");
        let Some(mut other) = peer_of(USER, GROUP) else {
            return;
        };
        let ring = fixture
            .builder()
            .capacity(4096)
            .mode(0o644)
            .create()
            .unwrap();
        fixture.guard.objects();
        ring.attach_producer().unwrap().send(b"to be seen").unwrap();
        let seen = ask(&mut other, &format!("inspect {}", fixture.address()));
        assert_eq!(seen, "ok idle 1", "{kind:?}");
        let refused = open(&mut other, &fixture);
        assert!(refused.contains("Permission"), "{kind:?}: {refused}");
        drop((ring, other));
        fixture.finish();
    }
}
