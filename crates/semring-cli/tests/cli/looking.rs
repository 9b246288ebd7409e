//! `info` and `ls` on rings with a history, and on hostile bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::signal::Signal;

use crate::support::alone::{alone, test_name};
use crate::support::{
    BROKEN_PIPE, CONSUMER, Call, DONE, FAILED, PRODUCER, Ring, SEMRING, USAGE, number,
    over_both_backends, seq, wait_until,
};

over_both_backends! {
    info_counts_finished_and_dead_producers,
    one_full_lane_of_eight_is_seen,
    late_messages_in_a_closed_ring_are_mentioned,
    reader_sees_that_a_producer_died,
    a_pair_is_listed_and_removed_as_one_thing,
}

fn info_counts_finished_and_dead_producers(ring: &Ring) {
    ring.semring("create", &["--producers", "2"])
        .run()
        .quietly(DONE);
    for _ in 0..2 {
        ring.producer(&["-q"]).input(seq(2)).run().quietly(DONE);
    }
    let mut doomed = ring.producer(&["-q"]).stdin_open().start();
    doomed.write("x\n");
    ring.wait_for_sent(5);
    let counts = || {
        let info = ring.info();
        ["producers", "finished_producers", "died_producers"].map(|field| number(&info, field))
    };
    assert_eq!(counts(), [1, 2, 0]);
    let pid = doomed.pid().to_string();
    let text = ring.semring("info", &[]).run().quietly(DONE).text();
    assert!(text.contains("1 attached, 2 finished, 0 died"), "{text}");
    let lane = text.lines().find(|line| line.contains(&pid));
    // Lane, pid, unread, used (two words), sent, received, finished, died.
    let lane: Vec<&str> = lane.expect("its lane").split_whitespace().collect();
    assert_eq!(lane, ["0", &pid, "5", "80", "B", "5", "0", "2", "0"]);
    doomed.kill();
    assert_eq!(counts(), [0, 2, 1]);
    let info = ring.info();
    assert_eq!(number(&info["each_lane"][0], "died_producers"), 1);
    assert_eq!(number(&info["each_lane"][1], "died_producers"), 0);
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// A producer waits as soon as its own lane is full: a sum over all lanes does not show that.
fn one_full_lane_of_eight_is_seen(ring: &Ring) {
    ring.semring("create", &["--capacity", "4K"])
        .run()
        .quietly(DONE);
    let list = || {
        let rings = Call::new(SEMRING, None).args(&["ls", "--json"]).run();
        let text = rings.quietly(DONE).text();
        let ours = text.lines().find(|line| line.contains(ring.name()));
        crate::support::one_object(ours.expect("our ring"))
    };
    assert_eq!(list()["fullest_lane"], serde_json::Value::Null);
    let mut producer = ring.producer(&["-q"]).stdin_open().start();
    producer.write(seq(1000));
    wait_until("it waits for room", || {
        number(&list(), "waiting_producers") == 1
    });
    let record = list();
    assert_eq!(number(&record, "fullest_lane"), 0);
    assert!(number(&record, "fullest_lane_percent") > 90, "{record}");
    assert!(number(&record, "used_bytes") < 4096 * 8 / 4, "{record}");
    let info = ring.info();
    for lane in 0..8 {
        assert_eq!(info["each_lane"][lane]["producer_waits"], lane == 0);
    }
    let text = ring.semring("info", &[]).run().quietly(DONE).text();
    let percent = number(&record, "fullest_lane_percent");
    let expected = format!("fullest   lane 0, {percent}%; 1 producer waits for room");
    assert!(text.contains(&expected), "{text}");
    let columns = "fullest_lane_percent,waiting_producers,address";
    let table = Call::new(SEMRING, None)
        .args(&["ls", "--noheadings", "-o", columns])
        .run();
    let line = format!("{percent}  1  {}", ring.address());
    assert!(
        table
            .quietly(DONE)
            .text()
            .lines()
            .any(|row| row.trim_start() == line)
    );
    // It gets an error, because its stream has no reader.
    let consumer = ring.consumer(&["-q", "--count", "3"]).run();
    consumer.quietly(DONE).wrote(seq(3));
    producer.finish_with_stdin_open().quietly(BROKEN_PIPE);
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn reader_sees_that_a_producer_died(ring: &Ring) {
    let mut doomed = ring.producer(&["-q"]).stdin_open().start();
    doomed.write("1\n");
    ring.wait_for_sent(1);
    let consumer = ring.consumer(&["-v", "--json"]).start();
    ring.wait_for_consumer(&consumer);
    let whole = ring.producer(&["-q"]).input(seq(3)).run();
    whole.quietly(DONE);
    doomed.kill();
    let output = consumer.finish().truncated();
    let stats = output.stderr.lines().find(|line| line.starts_with('{'));
    let stats = crate::support::one_object(stats.expect("one object"));
    assert_eq!(number(&stats, "messages"), 4);
    assert_eq!(number(&stats, "finished_producers"), 1);
    assert_eq!(number(&stats, "died_producers"), 1);
    ring.assert_gone();
}

fn late_messages_in_a_closed_ring_are_mentioned(ring: &Ring) {
    let mut early = ring.producer(&["-q"]).stdin_open().start();
    early.write("1\n");
    ring.wait_for_sent(1);
    // Stopped, it can't end by itself when the consumer closes the ring.
    early.signal(Signal::SIGSTOP);
    let consumer = ring.consumer(&["--count", "1", "--keep"]).run();
    assert_eq!(consumer.quietly(DONE).text(), "1\n");
    // Later messages were not refused: they wait for another consumer, which is reported.
    let late = ring.producer(&[]).input(seq(3)).run();
    late.said(DONE, &["3 messages wait"]);
    early.kill();
    ring.consumer(&["-q"]).run().truncated().wrote(seq(3));
    ring.assert_gone();
}

#[test]
fn hostile_counters_are_shown_and_nothing_else() {
    let ring = Ring::posix("hostile");
    ring.semring("create", &["--producers", "2", "--capacity", "4K"])
        .run()
        .quietly(DONE);
    let file = File::options().write(true).open(ring.path());
    let file = file.expect("the ring");
    // Each word of both lanes' pages, then all of them at once.
    let pages = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000];
    let words = pages
        .iter()
        .flat_map(|page| [0x08, 0x10, 0x18, 0x80, 0x88, 0x100, 0x118].map(|word| page + word));
    for at in words.chain(pages) {
        file.write_all_at(&[0xff; 8], at).expect("room in the page");
        let json = ring.semring("info", &["--json"]).run().quietly(DONE);
        json.json();
        ring.semring("info", &[]).run().quietly(DONE);
        for args in [&["ls"][..], &["ls", "--json"]] {
            let text = Call::new(SEMRING, None).args(args).run().quietly(DONE);
            assert!(text.text().contains(ring.name()));
        }
    }
    ring.semring("rm", &["--force"]).run().quietly(DONE);
}

#[test]
fn a_ring_of_another_ipc_namespace_is_shown_without_its_users() {
    alone(
        test_name!(a_ring_of_another_ipc_namespace_is_shown_without_its_users),
        || {
            let ring = Ring::posix("elsewhere");
            let semaphores = ["-q", "--guard", "semaphore"];
            let mut producer = ring.producer(&semaphores).stdin_open().start();
            producer.write("1\n2\n");
            ring.wait_for_sent(2);
            let there = |args: &[&str]| {
                let call = Call::new("unshare", None).args(&["--ipc", SEMRING]);
                call.args(args).run()
            };
            let output = there(&["info", "--json", ring.address()]).quietly(DONE);
            let info = output.json();
            assert_eq!(info["state"], "guard_missing");
            for (field, value) in [
                ("lanes", 8),
                ("sent_messages", 2),
                ("unread_messages", 2),
                ("producers", 0),
                ("died_producers", 0),
            ] {
                assert_eq!(number(&info, field), value, "{field}");
            }
            let text = there(&["info", ring.address()]).quietly(DONE).text();
            assert!(text.contains("producers unknown"), "{text}");
            let refused = there(&["rm", ring.address()]);
            refused.refused(FAILED, &["IPC namespace", "--ipc"]);
            producer.finish().quietly(DONE);
            ring.semring("rm", &[]).run().quietly(DONE);
        },
    );
}

#[test]
fn users_in_other_pid_namespaces_are_seen_as_from_here() {
    alone(
        test_name!(users_in_other_pid_namespaces_are_seen_as_from_here),
        || {
            let ring = Ring::posix("pids");
            // With pipes, the holder of a role is known only by its own record.
            let script = "exec unshare --pid --fork \"$P\" -q --guard semaphore \"$RING\"";
            let mut outside = ring.shell(script).stdin_open().start();
            ring.wait_for_producers(1);
            let id = outside.pid();
            let path = format!("/proc/{id}/task/{id}/children");
            let inside = std::fs::read_to_string(path).expect("/proc");
            let inside: u64 = inside.trim().parse().expect("one child");
            // To itself it is 1.
            let info = ring.info();
            assert_eq!(number(&info["each_lane"][0], "producer_pid"), inside);
            // Its death is noticed across the border, too.
            outside.write("1\n");
            ring.wait_for_sent(1);
            let pid = nix::unistd::Pid::from_raw(inside as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
            let text = ring.consumer(&["-q"]).run().truncated().text();
            assert_eq!(text, "1\n");
            outside.finish_with_stdin_open();
            ring.assert_gone();
        },
    );
}

#[test]
fn unreachable_memory_is_refused() {
    for address in ["memfd:", "memfd:name", "anonymous:"] {
        let create = Call::new(SEMRING, None).args(&["create", address]).run();
        create.refused(USAGE, &[address]);
    }
    for program in [PRODUCER, CONSUMER] {
        let call = Call::new(program, None).args(&["anonymous:"]).run();
        call.refused(USAGE, &["anonymous:"]);
    }
}

#[test]
fn rings_in_files_and_descriptors_are_shown() {
    alone(test_name!(rings_in_files_and_descriptors_are_shown), || {
        let scratch = crate::support::Scratch::new();
        let path = scratch.path("a.ring");
        let address = format!("file:{}", path.display());
        let semring = |args: &[&str]| Call::new(SEMRING, None).args(args).run();
        semring(&["create", &address]).quietly(DONE);
        let send = Call::new(PRODUCER, None).args(&["-q", &address]);
        send.input(seq(3)).run().quietly(DONE);
        let info = semring(&["info", "--json", &address]).quietly(DONE).json();
        assert_eq!(info["backend"], "file");
        assert_eq!(info["address"], address);
        assert_eq!(number(&info, "unread_messages"), 3);
        // Made by `create`, and not where prune searches: it stays.
        let prune = semring(&["prune", "--discard-unread"]);
        prune.quietly(DONE).wrote("");
        semring(&["rm", &address]).quietly(DONE);
        assert!(!path.exists());

        // Memory without a name: through the descriptor of a process that has it open.
        let mut producer = Call::new(PRODUCER, None).args(&["-q", "memfd:x"]);
        producer = producer.stdin_open();
        let mut producer = producer.start();
        producer.write("1\n");
        let descriptors = format!("/proc/{}/fd", producer.pid());
        let mut address = String::new();
        wait_until("it has a ring with a message", || {
            // While it starts, its descriptors come and go.
            let entries = std::fs::read_dir(&descriptors).expect("/proc");
            let found = entries.flatten().map(|entry| entry.path()).find(|path| {
                let target = std::fs::read_link(path).unwrap_or_default();
                target.to_string_lossy().starts_with("/memfd:semring")
            });
            let Some(path) = found else { return false };
            address = format!("fd:{}", path.display());
            let info = semring(&["info", "--json", &address]);
            info.exit == DONE && number(&info.json(), "sent_messages") == 1
        });
        let consumer = Call::new(CONSUMER, None).args(&["-q", &address]);
        let mut consumer = consumer.start();
        producer.write("2\n");
        consumer.wait_for_stdout("1\n2\n");
        producer.finish().quietly(DONE);
        consumer.finish().quietly(DONE).wrote("1\n2\n");
        semring(&["prune"]).quietly(DONE);
        let left = semring_testkit::objects::Object::list().expect("/proc");
        assert!(left.is_empty(), "{left:?}");
    });
}

fn a_pair_is_listed_and_removed_as_one_thing(ring: &Ring) {
    let make = || {
        let builder = semring::duplex::Builder::new(ring.address()).capacity(4096);
        builder.create().expect("a pair")
    };
    let listed = || {
        let list = Call::new(SEMRING, None).args(&["ls", "--json"]).run();
        let lines = list.quietly(DONE).text();
        let ours = lines.lines().filter(|line| line.contains(ring.name()));
        ours.map(crate::support::one_object).collect::<Vec<_>>()
    };
    let pair = make();
    let mut producer = pair.to_client().attach_producer().expect("a producer");
    producer.send(b"for the client").expect("room");
    let [object] = &listed()[..] else {
        panic!("{:?}", listed())
    };
    assert_eq!(object["address"], ring.address());
    assert_eq!(object["kind"], "pair");
    assert_eq!(object["state"], "active");
    let counts = ["lanes", "producers", "unread_messages"].map(|field| number(object, field));
    assert_eq!(counts, [2, 1, 1]);
    for address in [
        ring.address(),
        &pair.to_server().address().to_string(),
        &pair.to_client().address().to_string(),
    ] {
        let info = |more: &[&str]| {
            let info = Call::new(SEMRING, None)
                .args(&["info", address])
                .args(more)
                .run();
            info.quietly(DONE).text()
        };
        let object = crate::support::one_object(&info(&["--json"]));
        assert_eq!(
            (&object["address"], &object["kind"]),
            (&ring.address().into(), &"pair".into())
        );
        let lanes = |of: &serde_json::Value| -> Vec<u64> {
            let lanes = of["each_lane"].as_array().expect("lanes");
            lanes
                .iter()
                .map(|lane| number(lane, "sent_messages"))
                .collect()
        };
        assert_eq!(lanes(&object), [0, 1]);
        assert_eq!([0, 1].map(|at| lanes(&object["rings"][at])), [[0], [1]]);
        assert_eq!(
            object["rings"][1]["address"],
            pair.to_client().address().to_string()
        );
        let text = info(&[]);
        assert!(text.starts_with(&format!("{}\n", ring.address())), "{text}");
        assert!(
            text.contains("kind      pair")
                && text.contains(&pair.to_server().address().to_string()),
            "{text}"
        );
    }
    for address in [pair.to_server().address(), pair.to_client().address()] {
        let rm = Call::new(SEMRING, None).args(&["rm", &address.to_string()]);
        rm.run().refused(FAILED, &["in use"]);
    }
    drop(producer);
    let names = [pair.to_server().address(), pair.to_client().address()].map(ToString::to_string);
    drop(pair);
    Call::new(SEMRING, None)
        .args(&["rm", &names[0]])
        .run()
        .quietly(DONE);
    ring.assert_gone();
    let second = make().to_client().address().to_string();
    Call::new(SEMRING, None)
        .args(&["rm", &second])
        .run()
        .quietly(DONE);
    ring.assert_gone();
    drop(make());
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}
