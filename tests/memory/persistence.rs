//! The three persistences: memory that ends with the last process that has it open, memory that stays
//! until the machine restarts, memory that a file system keeps.

use std::path::{Path, PathBuf};

use crate::fixture::{Fixture, Kind, ask, peer_below, say_ok};
use semring::{OpenError, OrphanKind, RingState};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::objects::POSIX_DIRECTORY;
use semring_testkit::peer::Peer;

/// All processes have ended; three messages were never read.
fn left_by_all(kind: Kind) -> Fixture {
    left_in(Fixture::new(kind, "persistence"))
}

fn left_in(mut fixture: Fixture) -> Fixture {
    drop(fixture.ring(1, 4096));
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 3 100");
    producer.kill();
    fixture
}

/// Where the memfd of a peer's ring is found.
fn memfd_of(maker: &Peer) -> PathBuf {
    let links = (3..64).map(|number| PathBuf::from(format!("/proc/{}/fd/{number}", maker.pid())));
    let mut memfds = links.filter(|link| {
        std::fs::read_link(link).is_ok_and(|to| to.to_string_lossy().contains("memfd:semring"))
    });
    memfds.next().expect("it has a descriptor")
}

#[test]
fn process_persistence_ends_with_the_last_process() {
    // Made by a process of its own, so that it can end.
    let fixture = Fixture::new(Kind::Memfd, "process");
    let mut maker = fixture.idle_peer();
    fixture.guard.adopt(maker.pid());
    assert!(ask(&mut maker, "create memfd: 1 4096").starts_with("ok "));
    let link = memfd_of(&maker);
    let address = format!("fd:{}", link.display());
    let mut user = fixture.idle_peer();
    assert!(ask(&mut user, &format!("open {address}")).starts_with("ok "));
    assert_eq!(ask(&mut user, "producer"), "ok 0");
    say_ok(&mut user, "send 1 0 3 100");
    let cleanup = CleanupGuard::of_ring(&link, Path::new(POSIX_DIRECTORY));
    assert!(cleanup.exists());
    maker.wait();
    assert!(
        semring::inspect(&address).is_err(),
        "the maker's descriptor is gone"
    );
    // The user still has all of it, and as the last one takes the guard away.
    say_ok(&mut user, "send 1 3 3 100");
    assert!(cleanup.exists());
    user.wait();
    assert!(!cleanup.exists());
    fixture.guard.assert_clean();
}

#[test]
fn process_persistence_leaves_orphans_after_kills() {
    let fixture = Fixture::new(Kind::Memfd, "killed");
    let mut maker = fixture.idle_peer();
    fixture.guard.adopt(maker.pid());
    assert!(ask(&mut maker, "create memfd: 1 4096").starts_with("ok "));
    let cleanup = CleanupGuard::of_ring(&memfd_of(&maker), Path::new(POSIX_DIRECTORY));
    let (kind, name) = match &cleanup {
        CleanupGuard::Semaphores(set) => {
            let key = set.stat().unwrap().key.bits();
            (OrphanKind::Semaphores, format!("semaphores 0x{key:08x}"))
        }
        CleanupGuard::Pipes(path) => (OrphanKind::Pipes, format!("pipes {}", path.display())),
    };
    let told = || {
        let mut all = semring::orphans().into_iter();
        all.find(|leftover| leftover.kind() == kind && leftover.name() == name)
    };
    assert!(told().is_none(), "a process has it");
    maker.kill();
    told()
        .expect("no process has it")
        .remove(semring::Unread::Keep)
        .unwrap();
    assert!(!cleanup.exists() && told().is_none());
    fixture.guard.assert_clean();
}

#[test]
fn kernel_persistence_outlives_all_processes() {
    for kind in [Kind::Posix, Kind::Sysv] {
        let fixture = left_by_all(kind);
        let info = semring::inspect(fixture.parsed()).unwrap();
        assert_eq!((info.state, info.unread_messages()), (RingState::Idle, 3));
        assert_eq!(info.died_producers(), 1);
        assert_eq!(
            ask(&mut fixture.consumer(), "drain"),
            "drained 3 EndOfStream"
        );
        fixture.finish();
    }
}

#[test]
fn kernel_persistence_ends_with_the_guard() {
    // Objects that a restart removes together; if only one is gone, opening the ring reports that.
    let fixture = left_by_all(Kind::Posix);
    fixture.cleanup().remove();
    assert!(matches!(
        semring::any::open(fixture.address()),
        Err(OpenError::GuardMissing { why, .. }) if why.contains("RemoveIPC") && why.contains("by force")
    ));
    let info = semring::inspect(fixture.parsed()).unwrap();
    assert_eq!(
        (info.state, info.unread_messages()),
        (RingState::GuardMissing, 3)
    );
    semring::force_remove(fixture.parsed()).unwrap();
    fixture.assert_gone(None);
}

#[test]
fn file_system_persistence_a_file_outlives_its_guard() {
    let fixture = left_by_all(Kind::File);
    let old = fixture.cleanup();
    old.remove();
    let info = semring::inspect(fixture.parsed()).unwrap();
    assert_eq!(
        (info.state, info.unread_messages()),
        (RingState::GuardRenewable, 3)
    );
    assert_eq!(
        ask(&mut fixture.consumer(), "drain"),
        "drained 3 EndOfStream"
    );
    // A set has another number; pipes are where they were.
    assert!(fixture.cleanup().exists());
    assert_eq!(
        fixture.cleanup() == old,
        matches!(old, CleanupGuard::Pipes(_))
    );
    fixture.finish();
}

/// After a restart another set may have the id of the ring's: the boot id shows that. Here a
/// process sees another boot id.
#[test]
fn file_system_persistence_sees_a_restart() {
    let fixture = left_in(Fixture::new(Kind::File, "restart").with_semaphores());
    let before = fixture.cleanup();
    let boot = crate::fixture::fresh_path("boot-id");
    std::fs::write(&boot, "00000000-1111-2222-3333-444444444444\n").unwrap();
    let script = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        boot.display()
    );
    let restarted = peer_below(&["unshare", "-m", "sh", "-c", &script, "sh"]);
    if let Some(mut restarted) = restarted {
        let answer = ask(&mut restarted, &format!("open {}", fixture.address()));
        assert!(answer.starts_with("ok "), "{answer}");
        let after = fixture.cleanup();
        assert_ne!(after, before);
        say_ok(&mut restarted, "consumer");
        assert_eq!(ask(&mut restarted, "drain"), "drained 3 EndOfStream");
        drop(restarted);
        // For this process the other boot id is the same as a restart. (An end of stream that a
        // killed consumer received last is delivered again to its successor.)
        assert_eq!(
            ask(&mut fixture.consumer(), "drain"),
            "drained 0 EndOfStream"
        );
        after.remove();
    }
    std::fs::remove_file(boot).unwrap();
    if before.exists() {
        before.remove();
    }
    fixture.finish();
}
