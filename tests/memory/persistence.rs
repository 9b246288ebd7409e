//! The three persistences: memory that goes with the last process that has it, memory that stays until
//! the machine restarts, memory that a file system keeps.

use crate::site::{Kind, Site, ask, exists, peer_behind, say_ok};
use semring::{OpenError, RingState};

/// Everybody is gone; three messages were never read.
fn left_by_all(kind: Kind) -> Site {
    let mut site = Site::new(kind, "persistence");
    drop(site.ring(1, 4096));
    let mut producer = site.producer();
    say_ok(&mut producer, "send 1 0 3 100");
    producer.kill();
    site
}

#[test]
fn process_persistence_memory_without_a_name_goes_with_the_last_who_has_it() {
    // A process of its own makes it, so that it can end.
    let site = Site::new(Kind::Memfd, "process");
    let mut maker = site.idle_peer();
    site.guard.adopt(maker.pid());
    assert!(ask(&mut maker, "create memfd: 1 4096").starts_with("ok "));
    let number = (3..64)
        .find(|number| {
            let link = format!("/proc/{}/fd/{number}", maker.pid());
            std::fs::read_link(link).is_ok_and(|to| to.to_string_lossy().contains("memfd:semring"))
        })
        .expect("it has a descriptor");
    let address = format!("fd:/proc/{}/fd/{number}", maker.pid());
    let mut user = site.idle_peer();
    assert!(ask(&mut user, &format!("open {address}")).starts_with("ok "));
    assert_eq!(ask(&mut user, "producer"), "ok 0");
    say_ok(&mut user, "send 1 0 3 100");
    let sets = || site.guard.objects();
    assert_eq!(sets().len(), 1, "{:?}", sets());
    maker.wait();
    assert!(
        semring::inspect(&address.parse().unwrap()).is_err(),
        "the maker's descriptor is gone"
    );
    // The user still has all of it, and as the last one takes the semaphores away.
    say_ok(&mut user, "send 1 3 3 100");
    assert_eq!(sets().len(), 1);
    user.wait();
    assert_eq!(sets(), []);
}

#[test]
fn process_persistence_is_told_of_by_leftovers_when_everybody_was_killed() {
    let site = Site::new(Kind::Memfd, "killed");
    let mut maker = site.idle_peer();
    site.guard.adopt(maker.pid());
    assert!(ask(&mut maker, "create memfd: 1 4096").starts_with("ok "));
    let set = site.guard.objects();
    let names = |kind| {
        let found = semring::leftovers();
        let found = found.into_iter().filter(|leftover| leftover.kind() == kind);
        found
            .map(|leftover| leftover.name().to_owned())
            .collect::<Vec<_>>()
    };
    let name = set[0].to_string();
    let key = name.split("key ").nth(1).unwrap().trim_end_matches(')');
    let told = || names(semring::LeftoverKind::Semaphores).contains(&format!("semaphores {key}"));
    assert!(!told(), "somebody has it");
    maker.kill();
    assert!(told());
    for leftover in semring::leftovers() {
        if leftover.name() == format!("semaphores {key}") {
            leftover.remove(false).unwrap();
        }
    }
    site.guard.assert_clean();
}

#[test]
fn kernel_persistence_posix_and_system_v_rings_outlive_all_processes() {
    for kind in [Kind::Posix, Kind::Sysv] {
        let site = left_by_all(kind);
        let info = semring::inspect(&site.parsed()).unwrap();
        assert_eq!((info.state, info.unread_messages()), (RingState::Idle, 3));
        assert_eq!(info.died_producers(), 1);
        assert_eq!(ask(&mut site.consumer(), "drain"), "drained 3 EndOfStream");
        site.finish();
    }
}

#[test]
fn kernel_persistence_ends_with_the_semaphores() {
    // What a restart takes away together; apart, the ring says so.
    let site = left_by_all(Kind::Posix);
    site.set().remove().unwrap();
    assert!(matches!(
        semring::any::open(site.address()),
        Err(OpenError::GuardLost { why, .. }) if why.contains("RemoveIPC") && why.contains("--force")
    ));
    let info = semring::inspect(&site.parsed()).unwrap();
    assert_eq!(
        (info.state, info.unread_messages()),
        (RingState::Unguarded, 3)
    );
    semring::remove(&site.parsed(), true).unwrap();
    site.assert_gone(None);
}

#[test]
fn file_system_persistence_a_file_outlives_its_semaphores() {
    let site = left_by_all(Kind::File);
    let old = site.set();
    old.remove().unwrap();
    let info = semring::inspect(&site.parsed()).unwrap();
    assert_eq!(
        (info.state, info.unread_messages()),
        (RingState::Dormant, 3)
    );
    assert_eq!(ask(&mut site.consumer(), "drain"), "drained 3 EndOfStream");
    assert_ne!(site.set().id(), old.id());
    site.finish();
}

/// After a restart another set may have the number of the ring's: the boot id tells. Here a process
/// sees another one.
#[test]
fn file_system_persistence_a_restart_is_seen_by_the_boot_id() {
    let site = left_by_all(Kind::File);
    let before = site.known_set().unwrap();
    let boot = crate::site::fresh_path("boot-id");
    std::fs::write(&boot, "00000000-1111-2222-3333-444444444444\n").unwrap();
    let script = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        boot.display()
    );
    let restarted = peer_behind(&["unshare", "-m", "sh", "-c", &script, "sh"]);
    if let Some(mut restarted) = restarted {
        let answer = ask(&mut restarted, &format!("open {}", site.address()));
        assert!(answer.starts_with("ok "), "{answer}");
        let after = site.known_set().unwrap();
        assert_ne!(after, before);
        say_ok(&mut restarted, "consumer");
        assert_eq!(ask(&mut restarted, "drain"), "drained 3 EndOfStream");
        drop(restarted);
        // For us that other start is as good as a restart. (What a killed consumer was told last, its
        // successor is told again.)
        assert_eq!(ask(&mut site.consumer(), "drain"), "drained 0 EndOfStream");
        assert!(sysv_ipc::sem::SemSet::from_id(after.1).remove().is_ok());
    }
    std::fs::remove_file(boot).unwrap();
    if exists(before) {
        let _ = sysv_ipc::sem::SemSet::from_id(before.1).remove();
    }
    site.finish();
}
