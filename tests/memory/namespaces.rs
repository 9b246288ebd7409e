//! Containers in small: other IPC namespaces, other pid namespaces, a small /dev/shm.

use crate::fixture::{Fixture, Kind, NAMED, answer, ask, peer_below, say_ok};

/// Bytes of a lane of the large rings.
const LARGE: u64 = 64 << 20;

#[test]
fn ring_of_another_ipc_namespace_is_refused() {
    let mut fixture = Fixture::new(Kind::Posix, "two-namespaces").with_semaphores();
    let ring = fixture.ring(1, 4096);
    let Some(mut peer) = peer_below(&["unshare", "-i"]) else {
        return;
    };
    let refused = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(refused.contains("another IPC namespace"), "{refused}");
    assert!(refused.contains("--ipc"), "{refused}");
    let seen = ask(&mut peer, &format!("inspect {}", fixture.address()));
    assert_eq!(seen, "ok guard_missing 0");
    drop((peer, ring));
    fixture.finish();

    // System V memory is in the namespace itself: there is none.
    let mut fixture = Fixture::new(Kind::Sysv, "two-namespaces");
    let ring = fixture.ring(1, 4096);
    let mut peer = peer_below(&["unshare", "-i"]).expect("it just worked");
    let missing = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(missing.contains("NotFound"), "{missing}");
    drop((peer, ring));
    fixture.finish();
}

/// Its pipes are where its memory is: one /dev/shm is all that both sides must share.
#[test]
fn a_ring_with_pipes_is_used_from_another_ipc_namespace() {
    let mut fixture = Fixture::new(Kind::Posix, "pipes-between-namespaces").with_pipes();
    drop(fixture.ring(1, 4096));
    let Some(mut inside) = peer_below(&["unshare", "-i"]) else {
        return;
    };
    assert!(ask(&mut inside, &format!("open {}", fixture.address())).starts_with("ok "));
    say_ok(&mut inside, "consumer");
    inside.say("drain");
    inside.wait_until_asleep_on_a_ring();
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 200 500");
    producer.kill();
    assert_eq!(answer(&mut inside), "drained 200 EndOfStream");
    drop(inside);
    fixture.finish();
}

#[test]
fn pid_namespaces_share_rings_and_see_deaths() {
    for kind in NAMED {
        let mut fixture = Fixture::new(kind, "two-pid-namespaces");
        drop(fixture.ring(2, 4096));
        let launcher = ["unshare", "-p", "--fork", "--kill-child", "--mount-proc"];
        let Some(mut inside) = peer_below(&launcher) else {
            return;
        };
        assert!(ask(&mut inside, &format!("open {}", fixture.address())).starts_with("ok "));
        assert_eq!(ask(&mut inside, "producer"), "ok 0");
        let mut consumer = fixture.consumer();
        consumer.say("drain");
        say_ok(&mut inside, "send 1 0 100 100");
        // The process in the namespace dies with the one that started it.
        inside.kill();
        assert_eq!(answer(&mut consumer), "drained 100 EndOfStream");
        say_ok(&mut consumer, "drop-consumer");

        let mut inside = peer_below(&launcher).expect("it just worked");
        assert!(ask(&mut inside, &format!("open {}", fixture.address())).starts_with("ok "));
        let mut outside = fixture.producer();
        say_ok(&mut inside, "consumer");
        assert!(ask(&mut outside, "fill 1 0 100").starts_with("ok "));
        outside.say("send 1 1000 1 1000");
        outside.wait_until_asleep_on_a_ring();
        inside.kill();
        assert_eq!(answer(&mut outside), "error ConsumerGone after 0");
        // Its role is free, though no process here could have seen its process.
        let mut successor = fixture.consumer();
        assert!(ask(&mut successor, "recv").starts_with("message 1 0 "));
        drop((consumer, inside, outside, successor));
        fixture.finish();
    }
}

#[test]
fn only_posix_rings_are_bound_by_a_small_dev_shm() {
    let small = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"";
    let launcher = ["unshare", "-m", "sh", "-c", small, "sh"];
    for kind in [Kind::Sysv, Kind::File, Kind::Memfd, Kind::Posix] {
        let fixture = Fixture::new(kind, "small-shm");
        let Some(mut peer) = peer_below(&launcher) else {
            return;
        };
        fixture.guard.adopt(peer.pid());
        let address = match kind {
            Kind::Memfd => "memfd:".to_owned(),
            _ => fixture.address(),
        };
        let made = ask(&mut peer, &format!("create {address} 1 {LARGE}"));
        if kind == Kind::Posix {
            assert!(made.contains("NoSpace"), "{made}");
            assert!(made.contains("free: Some(1048576)"), "{made}");
            assert!(
                made.contains("--shm-size") && made.contains("sysv:"),
                "{made}"
            );
            drop(peer);
            fixture.guard.assert_clean();
            continue;
        }
        assert!(made.starts_with("ok "), "{kind:?}: {made}");
        fixture.guard.objects();
        // Each page is there: two messages of a quarter of it, and many small ones.
        assert_eq!(ask(&mut peer, "producer"), "ok 0");
        let big = LARGE / 4 - 64;
        say_ok(&mut peer, &format!("send 1 0 3 {big}"));
        assert!(ask(&mut peer, "fill 1 3 60000").starts_with("ok "));
        say_ok(&mut peer, "consumer");
        say_ok(&mut peer, "drop-producer");
        let drained = ask(&mut peer, "drain");
        assert!(drained.ends_with(" EndOfStream"), "{drained}");
        assert_eq!(ask(&mut peer, "remove-at-end"), "ok true");
        drop(peer);
        fixture.guard.assert_clean();
    }
}

#[test]
fn a_pair_of_which_only_one_ring_has_room_leaves_nothing() {
    let small = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"";
    let launcher = ["unshare", "-m", "sh", "-c", small, "sh"];
    let fixture = Fixture::new(Kind::Posix, "half-a-pair");
    let Some(mut peer) = peer_below(&launcher) else {
        return;
    };
    fixture.guard.adopt(peer.pid());
    let half = 512 << 10;
    let made = ask(
        &mut peer,
        &format!("line create {} {half}", fixture.address()),
    );
    assert!(made.contains("NoSpace"), "{made}");
    fixture.guard.assert_clean();
    // The first one's memory is free again.
    let made = ask(&mut peer, &format!("create {} 1 {half}", fixture.address()));
    assert!(made.starts_with("ok "), "{made}");
    say_ok(&mut peer, &format!("remove {}", fixture.address()));
    drop(peer);
    fixture.guard.assert_clean();
}
