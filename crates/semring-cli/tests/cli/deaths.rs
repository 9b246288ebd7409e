//! The consumer's message and exit code when a producer did not finish its stream.

use nix::sys::signal::Signal;
use semring_testkit::peer::Exit;

use crate::support::{
    BROKEN_PIPE, DAMAGED, DONE, FAILED, KILLED, Ring, TIMED_OUT, number, one_object,
    over_both_backends, seq,
};

over_both_backends! {
    a_killed_producer_is_a_line_and_6,
    death_before_the_consumer_attaches_is_reported,
    a_producer_that_failed_or_was_interrupted_counts_as_died,
    a_producer_whose_reader_is_gone_has_finished,
    deaths_can_be_ignored,
    follower_reports_each_stream,
    other_ends_of_the_consumer_take_precedence,
    an_archive_that_was_cut_short_is_no_success,
}

/// The line of this number of producers.
fn line(ring: &Ring, producers: &str) -> String {
    let address = ring.address();
    format!("semring-consumer: {producers} of {address} died; the stream may be truncated\n")
}

fn a_killed_producer_is_a_line_and_6(ring: &Ring) {
    for (killed, noun) in [(1, "1 producer"), (2, "2 producers")] {
        let mut consumer = ring.consumer(&["-q"]).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(&["-q"]).input("whole\n").run().quietly(DONE);
        consumer.wait_for_stdout("whole\n");
        // That was the end of one stream; the ring is gone, unless a process came meanwhile.
        consumer.finish().quietly(DONE);
        let mut consumer = ring.consumer(&["-q"]).start();
        ring.wait_for_consumer(&consumer);
        let start = || ring.producer(&["-q"]).stdin_open().start();
        let mut producers: Vec<_> = std::iter::repeat_with(start).take(killed).collect();
        ring.wait_for_producers(killed as u64);
        for producer in &mut producers {
            producer.write("1\nunfinished");
        }
        consumer.wait_for_bytes(2 * killed);
        for producer in producers {
            producer.kill().ended(KILLED);
        }
        let output = consumer.finish().ended(DAMAGED);
        assert_eq!(output.stderr, line(ring, noun));
        output.wrote("1\n".repeat(killed));
        ring.assert_gone();
    }
}

fn death_before_the_consumer_attaches_is_reported(ring: &Ring) {
    let mut producer = ring.producer(&["-q"]).stdin_open().start();
    producer.write(seq(3));
    ring.wait_for_sent(3);
    producer.kill().ended(KILLED);
    let output = ring.consumer(&["-q"]).run().ended(DAMAGED).wrote(seq(3));
    assert_eq!(output.stderr, line(ring, "1 producer"));
    ring.assert_gone();
}

fn a_producer_that_failed_or_was_interrupted_counts_as_died(ring: &Ring) {
    let truncated = |ring: &Ring| {
        ring.consumer(&["-q"]).run().truncated().wrote("1\n");
        ring.assert_gone();
    };
    let mut producer = ring.producer(&["-q"]).stdin_open().start();
    producer.write("1\n");
    ring.wait_for_sent(1);
    producer.signal(Signal::SIGTERM);
    producer
        .finish_with_stdin_open()
        .ended(Exit::Signal(libc::SIGTERM));
    truncated(ring);
    let mut producer = ring
        .producer(&["-q", "--timeout", "0.05"])
        .stdin_open()
        .start();
    producer.write("1\n");
    producer.finish_with_stdin_open().ended(TIMED_OUT);
    truncated(ring);
    let prefixed = ["-q", "--length-prefixed"];
    let producer = ring.producer(&prefixed).input(b"\x01\0\0\x001\x09\0\0\0");
    producer.run().ended(FAILED);
    let consumer = ring.consumer(&["-q", "--lines", "--convert"]).run();
    consumer.truncated().wrote("1\n");
    ring.assert_gone();
}

fn a_producer_whose_reader_is_gone_has_finished(ring: &Ring) {
    ring.semring("create", &[]).run().quietly(DONE);
    let producer = ring.producer(&["-q"]).feed_endless_seq().start();
    ring.wait_for_sent(1);
    let consumer = ring.consumer(&["-q", "--count", "1"]).run();
    consumer.quietly(DONE).wrote("1\n");
    producer.finish().quietly(BROKEN_PIPE);
    let info = ring.info();
    assert_eq!(number(&info, "died_producers"), 0);
    assert_eq!(number(&info, "finished_producers"), 1);
    ring.consumer(&["-q"]).run().quietly(DONE);
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn deaths_can_be_ignored(ring: &Ring) {
    for args in [
        &["--ignore-deaths"][..],
        &["--ignore-deaths", "--count", "3"],
    ] {
        let consumer = ring.consumer(args).start();
        ring.wait_for_consumer(&consumer);
        let mut producer = ring.producer(&["-q"]).stdin_open().start();
        producer.write(seq(2));
        ring.wait_for_sent(2);
        producer.kill().ended(KILLED);
        consumer.finish().quietly(DONE).wrote(seq(2));
        ring.assert_gone();
    }
    // It is a figure all the same.
    let mut producer = ring.producer(&["-q"]).stdin_open().start();
    producer.write(seq(2));
    ring.wait_for_sent(2);
    producer.kill().ended(KILLED);
    let consumer = ring.consumer(&["-q", "--json", "--ignore-deaths"]).run();
    let figures = one_object(&consumer.ended(DONE).stderr);
    assert_eq!(number(&figures, "died_producers"), 1);
}

fn follower_reports_each_stream(ring: &Ring) {
    let mut follower = ring.consumer(&["-q", "--follow"]).start();
    ring.wait_for_consumer(&follower);
    let mut expected = String::new();
    for round in 1..=2 {
        let mut producer = ring.producer(&["-q"]).stdin_open().start();
        producer.write("1\n");
        follower.wait_for_bytes(2 * round);
        producer.kill().ended(KILLED);
        expected += &line(ring, "1 producer");
        crate::support::wait_until("it has reported it", || follower.stderr() == expected);
    }
    follower.signal(Signal::SIGTERM);
    let output = follower.finish().ended(Exit::Signal(libc::SIGTERM));
    assert_eq!(output.stderr, expected);
    ring.assert_gone();
}

fn other_ends_of_the_consumer_take_precedence(ring: &Ring) {
    // One producer dies, another one stays.
    let died = |consumer: &[&str]| {
        let mut stays = ring
            .producer(&["-q", "--wait-for-consumer"])
            .stdin_open()
            .start();
        stays.write("1\n");
        ring.wait_for_sent(1);
        let consumer = ring.consumer(consumer).start();
        ring.wait_for_consumer(&consumer);
        let dies = ring.producer(&["-q"]).stdin_open().start();
        ring.wait_for_producers(2);
        dies.kill().ended(KILLED);
        (stays, consumer)
    };
    let (stays, mut consumer) = died(&["-q"]);
    consumer.wait_for_stdout("1\n");
    consumer.signal(Signal::SIGTERM);
    consumer.finish().ended(Exit::Signal(libc::SIGTERM));
    stays.finish().quietly(DONE);
    ring.semring("rm", &[]).run();
    let (stays, consumer) = died(&["-q", "--timeout", "0.3"]);
    consumer.finish().ended(TIMED_OUT);
    stays.finish().quietly(DONE);
    ring.semring("rm", &[]).run();
    // A count is an end as good as that of the stream.
    let (mut stays, consumer) = died(&["-q", "--count", "2"]);
    stays.write("2\n");
    let output = consumer.finish().truncated().wrote(seq(2));
    assert_eq!(output.stderr, line(ring, "1 producer"));
    stays.finish().quietly(DONE);
    ring.semring("rm", &[]).run();
    ring.assert_gone();
}

/// The input of tar x is a part of an archive; its own exit code may be 0.
fn an_archive_that_was_cut_short_is_no_success(ring: &Ring) {
    let scratch = crate::support::Scratch::new();
    std::fs::write(scratch.path("file"), vec![b'x'; 1 << 20]).expect("room");
    // Slow enough to be killed in the middle.
    let script = r#"
        tar c "$FILE" 2>/dev/null | "$P" -q --raw --rate-limit 50K "$RING" &
        producer=$!
        "$C" -q "$RING" | (head -c 1000 >/dev/null; kill -9 $producer; cat >/dev/null)
        echo "${PIPESTATUS[0]}"
    "#;
    let call = ring.shell(script).with(|command| {
        command.env("FILE", scratch.path("file"));
    });
    let output = call.run().ended(DONE).wrote("6\n");
    assert!(
        output.stderr.contains(&line(ring, "1 producer")),
        "{}",
        output.stderr
    );
    ring.assert_gone();
}
