//! The commands at the limit of descriptors (`ulimit -n`): each does all of its work or nothing of it.

use semring_testkit::objects::Object;

use crate::support::alone::{alone, test_name};
use crate::support::{Call, DONE, PRODUCER, Ring, SEMRING, numbers, over_both_backends, seq};

over_both_backends! {
    rm_at_the_limit_of_descriptors_removes_all_or_nothing,
    create_at_the_limit_of_descriptors_makes_all_or_nothing,
    producer_at_descriptor_limit_sends_or_reports,
    a_consumer_at_the_limit_of_descriptors_loses_nothing,
}

/// From too few for the program itself to enough for all; the loader and the shell need some, too.
const LIMITS: std::ops::Range<u32> = 3..28;

/// The message of a command that a limit stopped must name the limit, if the program was started at
/// all.
#[track_caller]
fn says_why(stderr: &str) {
    let is_ours = stderr.starts_with("semring");
    assert!(!is_ours || stderr.contains("ulimit -n"), "{stderr}");
}

fn create(ring: &Ring) {
    let create = ring.semring("create", &["--guard", "pipe", "--producers", "2"]);
    create.run().quietly(DONE);
}

fn rm_at_the_limit_of_descriptors_removes_all_or_nothing(ring: &Ring) {
    for verb in ["rm", "rm --force"] {
        let (mut refused, mut removed) = (0, 0);
        for limit in LIMITS {
            create(ring);
            let script = format!("ulimit -n {limit}; exec \"$S\" {verb} \"$RING\"");
            // Below some limit the loader does not reach the program.
            let _ = ring.shell(&script).run();
            if ring.look().is_some() {
                refused += 1;
                ring.semring("rm", &[]).run().quietly(DONE);
            } else {
                removed += 1;
            }
            ring.assert_gone();
        }
        assert!(
            refused > 0 && removed > 0,
            "{verb}: {refused} and {removed}"
        );
    }
}

fn create_at_the_limit_of_descriptors_makes_all_or_nothing(ring: &Ring) {
    for guard in ["semaphore", "pipe"] {
        let (mut refused, mut made) = (0, 0);
        for limit in LIMITS {
            let script = format!(
                "ulimit -n {limit}; exec \"$S\" create --guard {guard} --producers 4 \"$RING\""
            );
            let create = ring.shell(&script).run();
            if create.exit == DONE {
                made += 1;
                ring.assert_kept();
                ring.semring("rm", &[]).run().quietly(DONE);
            } else {
                refused += 1;
                says_why(&create.stderr);
            }
            ring.assert_gone();
        }
        assert!(refused > 0 && made > 0, "{guard}: {refused} and {made}");
    }
}

fn producer_at_descriptor_limit_sends_or_reports(ring: &Ring) {
    let (mut refused, mut sent) = (0, 0);
    for limit in LIMITS {
        create(ring);
        let script = format!("ulimit -n {limit}; exec \"$P\" -q --no-create \"$RING\"");
        let producer = ring.shell(&script).input(seq(3)).run();
        let object = ring.look().expect("the ring stays");
        assert_eq!(object["producers"], 0, "{object}");
        if producer.exit == DONE {
            sent += 1;
            assert_eq!(object["unread_messages"], 3);
        } else {
            refused += 1;
            says_why(&producer.stderr);
            assert_eq!(object["unread_messages"], 0);
        }
        // Each lane can be taken.
        let more = ring.producer(&["-q", "--no-create"]).input(seq(3)).run();
        more.quietly(DONE);
        ring.semring("rm", &[]).run().quietly(DONE);
        ring.assert_gone();
    }
    assert!(refused > 0 && sent > 0, "{refused} and {sent}");
}

fn a_consumer_at_the_limit_of_descriptors_loses_nothing(ring: &Ring) {
    let (mut refused, mut received) = (0, 0);
    for limit in LIMITS {
        create(ring);
        let producer = ring.producer(&["-q", "--no-create"]).input(seq(3)).run();
        producer.quietly(DONE);
        let script = format!("ulimit -n {limit}; exec \"$C\" -q --no-create --keep \"$RING\"");
        let consumer = ring.shell(&script).run();
        let mut got = numbers(&consumer.stdout);
        if consumer.exit == DONE {
            received += 1;
        } else {
            refused += 1;
            says_why(&consumer.stderr);
            let rest = ring.consumer(&["-q", "--no-create", "--keep"]).run();
            got.extend(numbers(&rest.quietly(DONE).stdout));
        }
        assert_eq!(got, [1, 2, 3], "limit {limit}");
        ring.semring("rm", &[]).run().quietly(DONE);
        ring.assert_gone();
    }
    assert!(refused > 0 && received > 0, "{refused} and {received}");
}

#[test]
fn prune_at_descriptor_limit_leaves_findable_objects() {
    let test = test_name!(prune_at_descriptor_limit_leaves_findable_objects);
    alone(test, || {
        let objects = || Object::list().expect("/dev/shm and /proc/sysvipc can be read");
        let (mut refused, mut pruned) = (0, 0);
        for limit in LIMITS {
            for address in ["posix:few", "sysv:few"] {
                for guard in ["semaphore", "pipe"] {
                    let left = Call::new("sh", None).args(&[
                        "-c",
                        // It made the ring because that was missing, so prune may take it.
                        "echo 1 | \"$0\" -q --guard \"$1\" \"$2\"",
                        PRODUCER,
                        guard,
                        address,
                    ]);
                    left.run().quietly(DONE);
                    let script = format!("ulimit -n {limit}; exec \"$0\" prune --discard-unread");
                    let prune = Call::new("sh", None).args(&["-c", &script, SEMRING]).run();
                    if prune.exit == DONE && objects().is_empty() {
                        pruned += 1;
                    } else {
                        refused += 1;
                        let again = Call::new(SEMRING, None).args(&["prune", "--discard-unread"]);
                        again.run().ended(DONE);
                    }
                    assert!(objects().is_empty(), "limit {limit}: {:?}", objects());
                }
            }
        }
        assert!(refused > 0 && pruned > 0, "{refused} and {pruned}");
    });
}
