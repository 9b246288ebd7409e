//! The choice of a ring's guard, the messages about it, and pipes with the same semantics where semaphores
//! can't work.

use std::collections::BTreeSet;

use semring_testkit::objects::Object;
use semring_testkit::sandbox;

use crate::support::alone::{alone, alone_with, test_name};
use crate::support::{
    BROKEN_PIPE, CONSUMER, Call, DONE, Endless, FAILED, KILLED, Output, PRODUCER, Ring, SEMRING,
    USAGE, number, numbers, over_both_backends, seq, wait_until, whole_lines,
};
use semring_testkit::needs_root;

over_both_backends! {
    requested_guard_is_made_and_shown,
    a_stream_with_pipes_is_the_stream,
    a_stream_needs_no_advice_about_memory,
}

fn requested_guard_is_made_and_shown(ring: &Ring) {
    for (guard, other) in [("pipe", "semaphore"), ("semaphore", "pipe")] {
        ring.semring("create", &["--guard", guard])
            .run()
            .quietly(DONE);
        assert_eq!(ring.info()["guard"], guard);
        let text = ring.semring("info", &[]).run().quietly(DONE).text();
        assert!(text.contains(&format!("guard     {guard}\n")), "{text}");
        // Either guard will do, unless one was requested.
        ring.producer(&["-q"]).run().quietly(DONE);
        let refused = ring.producer(&["--guard", other]).run();
        refused.refused(USAGE, &[guard, other]);
        ring.semring("rm", &[]).run().quietly(DONE);
        ring.assert_gone();
    }
}

fn a_stream_with_pipes_is_the_stream(ring: &Ring) {
    let pipes = ["--guard", "pipe", "--capacity", "16K"];
    let consumer = ring.consumer(&pipes).start();
    ring.wait_for_consumer(&consumer);
    assert_eq!(ring.info()["guard"], "pipe");
    let input = seq(20_000);
    ring.producer(&pipes)
        .input(input.clone())
        .run()
        .quietly(DONE);
    consumer.finish().quietly(DONE).wrote(input);
    ring.assert_gone();
}

/// As in gVisor, which does not support all of madvise(2).
fn a_stream_needs_no_advice_about_memory(ring: &Ring) {
    let refused = |command: &mut std::process::Command| {
        sandbox::refuse(command, &[libc::SYS_madvise], libc::EINVAL);
    };
    for guard in ["pipe", "semaphore"] {
        let create = ring.semring("create", &["--guard", guard]);
        create.with(refused).run().quietly(DONE);
        let producer = ring.producer(&["-q"]).input(seq(5000));
        producer.with(refused).run().quietly(DONE);
        let consumer = ring.consumer(&["-q"]).with(refused).run();
        consumer.quietly(DONE).wrote(seq(5000));
        ring.semring("rm", &[]).with(refused).run().quietly(DONE);
        ring.assert_gone();
    }
}

/// A call for which the environment does not choose.
fn call(program: &str, sandboxed: bool) -> Call<'static> {
    Call::new(program, None).with(|command| {
        command.env_remove("SEMRING_GUARD");
        if sandboxed {
            sandbox::kill_for(command, &[libc::SYS_semget]);
        }
    })
}

fn objects() -> BTreeSet<Object> {
    Object::list().expect("/dev/shm and /proc/sysvipc can be read")
}

/// Streams, their ends and broken pipes, deaths and clearing away, all with pipes because of `why`.
fn all_goes_on_with_pipes(why: &str, sandboxed: bool) {
    let call = |program| call(program, sandboxed);
    let said_why = |output: Output, address: &str| {
        let expected = format!("{address} is guarded by pipes: ");
        let line = output.stderr.lines().find(|line| line.contains(&expected));
        let line = line.unwrap_or_else(|| panic!("nothing of pipes in {:?}", output.stderr));
        assert!(line.contains(why), "{line}");
    };
    let before = objects();
    for scheme in ["posix:", "sysv:"] {
        // The maker of the ring prints the reason with -v; all users see the guard.
        let made = format!("{scheme}made");
        said_why(
            call(SEMRING)
                .args(&["create", "-v", &made])
                .run()
                .ended(DONE),
            &made,
        );
        let info = call(SEMRING).args(&["info", "--json", &made]).run();
        assert_eq!(info.quietly(DONE).json()["guard"], "pipe");
        call(SEMRING).args(&["rm", &made]).run().quietly(DONE);
        let only = ["create", "--guard", "semaphore", &made];
        call(SEMRING).args(&only).run().refused(FAILED, &[why]);

        // A stream and its end; the producer is the maker.
        let address = format!("{scheme}stream");
        let producer = call(PRODUCER).args(&["-v", &address]).input(seq(5000));
        said_why(producer.run().ended(DONE), &address);
        let consumer = call(CONSUMER).args(&["-q", &address]).run();
        consumer.quietly(DONE).wrote(seq(5000));

        // A producer that is killed ends the stream, for a consumer that sleeps.
        let mut consumer = call(CONSUMER).args(&["-q", &address]).start();
        let mut producer = call(PRODUCER).args(&["-q", &address]).stdin_open().start();
        producer.write(seq(10));
        consumer.wait_for_stdout(&String::from_utf8_lossy(&seq(10)));
        consumer.wait_until_asleep_on_the_ring();
        producer.kill().ended(KILLED);
        consumer.finish().truncated().wrote(seq(10));

        // A consumer that is killed is a broken pipe to a producer that waits for room.
        let consumer = call(CONSUMER)
            .args(&["-q", &address])
            .stdout_unread()
            .start();
        let producer = call(PRODUCER)
            .args(&["-q", &address])
            .feed_endless_seq()
            .start();
        wait_until("the producer waits for room", || {
            let info = call(SEMRING).args(&["info", "--json", &address]).run();
            info.exit == DONE && number(&info.json(), "used_bytes") > 200_000
        });
        consumer.kill().ended(KILLED);
        producer.finish().quietly(BROKEN_PIPE);

        // The objects of the dead processes are removed, and nothing is left.
        let pruned = call(SEMRING).args(&["prune", "--discard-unread"]).run();
        let pruned = pruned.quietly(DONE).text();
        assert!(
            pruned.contains(&format!("removed {address}: no process is attached")),
            "{pruned}"
        );
        assert_eq!(objects(), before);
    }
}

#[test]
fn where_no_semaphore_set_can_be_had_rings_have_pipes() {
    needs_root!("to set limits");
    alone_with(
        test_name!(where_no_semaphore_set_can_be_had_rings_have_pipes),
        "size=64m",
        "echo 250 32000 100 0 > /proc/sys/kernel/sem",
        || all_goes_on_with_pipes("kernel.sem", false),
    );
}

#[test]
fn filter_that_kills_leads_to_pipes() {
    alone(test_name!(filter_that_kills_leads_to_pipes), || {
        all_goes_on_with_pipes("seccomp", true)
    });
}

#[test]
fn pipes_without_a_ring_are_reported_and_removed() {
    alone(
        test_name!(pipes_without_a_ring_are_reported_and_removed),
        || {
            let semring = |args: &[&str]| Call::new(SEMRING, None).args(args).run();
            let send = |name: &str| {
                let call = Call::new(PRODUCER, None).args(&["-q", "--guard", "pipe", name]);
                call.input(seq(3)).run().quietly(DONE);
            };
            let before = objects();
            let lines = |output: Output| {
                let text = output.quietly(DONE).text();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            };
            // The pipes alone, of two rings.
            for name in ["one", "two"] {
                send(name);
                std::fs::remove_file(format!("/dev/shm/{name}")).expect("the file of the ring");
            }
            let doctor = semring(&["doctor"]).quietly(DONE).text();
            assert!(doctor.contains("2 directories of pipes"), "{doctor}");
            let forecast = lines(semring(&["prune", "--dry-run"]));
            let gone = lines(semring(&["prune"]));
            assert_eq!(forecast.len(), 2, "{forecast:?}");
            for (told, done) in forecast.iter().zip(&gone) {
                assert!(
                    done.starts_with("removed pipes /dev/shm/.semring-"),
                    "{done}"
                );
                assert!(done.ends_with(": no ring goes with them"), "{done}");
                assert_eq!(told, &format!("would remove{}", &done["removed".len()..]));
            }
            assert_eq!(objects(), before);
            // The ring alone: its users are unknown, but it is certain that it can't be used.
            send("three");
            let pipes = objects().into_iter().find_map(|object| match object {
                Object::Posix { name } if name.starts_with(".semring-") => Some(name),
                _ => None,
            });
            let pipes = format!("/dev/shm/{}", pipes.expect("the ring has pipes"));
            std::fs::remove_dir_all(pipes).expect("a directory");
            semring(&["info", "three"]).quietly(DONE);
            let refused = Call::new(CONSUMER, None).args(&["three"]).run();
            refused.refused(FAILED, &["pipes", "--force"]);
            let pruned = semring(&["prune", "--discard-unread"]).quietly(DONE).text();
            assert_eq!(
                pruned,
                "removed posix:three: its pipes are gone, with 3 unread messages\n"
            );
            assert_eq!(objects(), before);
        },
    );
}

#[test]
fn numbers_survive_killed_consumers_over_pipes() {
    let ring = Ring::posix("killed-over-pipes");
    ring.semring("create", &["--guard", "pipe", "--capacity", "16K"])
        .run()
        .quietly(DONE);
    let endless = Endless::new();
    let producer = ring
        .producer(&["-q", "--wait-for-consumer"])
        .feed(endless.clone().feed())
        .start();
    let mut all = Vec::new();
    for round in 0..5 {
        let mut consumer = ring.consumer(&["-q"]).start();
        consumer.wait_for_bytes(2000 * (round + 1));
        let killed = consumer.kill().ended(KILLED);
        // Killed within a write it may leave half a line, which comes again.
        let (end, _) = whole_lines(&killed.stdout);
        all.extend(&killed.stdout[..end]);
    }
    let consumer = ring.consumer(&["-q"]).start();
    endless.stop();
    producer.finish().quietly(DONE);
    all.extend(consumer.finish().quietly(DONE).stdout);
    // At most the messages of a last write come twice: once sorted, nothing is missing.
    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert!(unique.into_iter().eq(1..=endless.last()));
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}
