//! The effects of the options, and of signals.

use std::fs::File;
use std::io::Write;

use nix::sys::signal::Signal;
use semring_testkit::peer::Exit;
use semring_testkit::process::POLLING;

use crate::support::{
    BROKEN_PIPE, CONSUMER, Call, DONE, Endless, NO_RING, PRODUCER, Ring, SEMRING, Scratch,
    TIMED_OUT, Tool, assert_same, number, numbers, one_object, over_both_backends, seq, seq_from,
    wait_until, whole_lines,
};

over_both_backends! {
    a_consumer_to_whom_nothing_comes_ends_with_124,
    a_consumer_whose_reader_takes_nothing_ends_with_124,
    a_producer_in_a_full_ring_ends_with_124,
    a_producer_to_whom_nothing_is_given_ends_with_124,
    a_time_out_of_zero_is_none,
    count_is_exact_and_keep_keeps_the_rest,
    count_is_exact_and_a_created_ring_keeps_the_rest,
    count_on_an_unused_ring_reports_what_it_keeps,
    a_count_that_is_not_reached_ends_with_the_stream,
    follow_stays_for_new_producers_until_a_signal,
    keep_leaves_the_ring,
    figures_are_a_line_on_stderr_or_one_object,
    quiet_is_silent_and_verbose_prints_more,
    a_rate_limit_changes_nothing_in_the_stream,
    progress_is_not_shown_where_it_was_not_forced,
    each_way_of_waiting_carries_the_stream,
    signal_ends_an_idle_producer_after_its_input,
    a_signal_ends_a_blocked_producer_and_what_was_sent_stays,
    signal_ends_an_idle_consumer_after_its_output,
    a_signal_ends_a_consumer_whose_reader_takes_nothing,
    signal_ends_a_consumer_and_its_successor_goes_on,
    an_ignored_signal_stays_ignored,
}

#[test]
fn help_and_version_go_to_stdout_with_0() {
    for program in [PRODUCER, CONSUMER, SEMRING] {
        let name = program.rsplit('/').next().expect("a path");
        let help = Call::new(program, None)
            .args(&["--help"])
            .run()
            .quietly(DONE)
            .text();
        assert!(help.contains("Usage:") && help.contains(name), "{help}");
        let long = help.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "wider than 80 columns");
        let version = Call::new(program, None)
            .args(&["--version"])
            .run()
            .quietly(DONE)
            .text();
        assert!(version.starts_with(name), "{version}");
    }
    let help = Call::new(PRODUCER, None).args(&["--help"]).run().text();
    for word in [
        "--wait-for-consumer",
        "--raw",
        "--length-prefixed",
        "--null",
        "124",
        "141",
    ] {
        assert!(help.contains(word), "{word} is not in the help");
    }
}

fn a_consumer_to_whom_nothing_comes_ends_with_124(ring: &Ring) {
    // A plain number is seconds.
    ring.consumer(&["--timeout", "0.05"])
        .run()
        .refused(TIMED_OUT, &["timed out"]);
    ring.assert_gone();
    // With a producer that sends nothing.
    let mut producer = ring.producer(&[]).stdin_open().start();
    producer.write("1\n");
    ring.wait_for_sent(1);
    let consumer = ring.consumer(&["--timeout", "50ms"]).run();
    consumer.said(TIMED_OUT, &["timed out"]).wrote("1\n");
    // The consumer is gone: that ends the producer, too.
    producer.finish_with_stdin_open().ended(BROKEN_PIPE);
    ring.assert_gone();
}

fn a_consumer_whose_reader_takes_nothing_ends_with_124(ring: &Ring) {
    ring.producer(&["-q", "--capacity", "2M"])
        .input(seq(100_000))
        .run()
        .quietly(DONE);
    let mut consumer = ring
        .consumer(&["-q", "--timeout", "50ms"])
        .stdout_unread()
        .start();
    let mut stdout = consumer.take_stdout();
    consumer.finish().said(TIMED_OUT, &["timed out"]);
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut got).expect("a pipe");
    assert!(got.len() < seq(100_000).len());
    // The messages that it could not write are still there.
    let (end, lines) = whole_lines(&got);
    assert_same(&got[..end], &seq(lines.len() as u64));
    let rest = numbers(&ring.consumer(&["-q"]).run().quietly(DONE).stdout);
    let first = rest[0];
    assert!(first <= lines.len() as u64 + 1);
    assert!(rest.into_iter().eq(first..=100_000));
    ring.assert_gone();
}

fn a_producer_in_a_full_ring_ends_with_124(ring: &Ring) {
    // More than the ring holds, and at once: no producer waits for a file.
    let scratch = Scratch::new();
    let lines = scratch.path("lines");
    std::fs::write(&lines, seq(100_000)).expect("room");
    let producer = ring
        .producer(&["--timeout", "50ms"])
        .stdin(File::open(lines).expect("our own file"))
        .run()
        .ended(TIMED_OUT);
    let stderr = &producer.stderr;
    assert!(stderr.contains("timed out"), "{stderr}");
    let sent = ring.number("sent_messages");
    assert!(
        sent > 1000 && stderr.contains(&sent.to_string()),
        "{stderr}"
    );
    ring.consumer(&["-q"]).run().truncated().wrote(seq(sent));
    ring.assert_gone();
}

fn a_producer_to_whom_nothing_is_given_ends_with_124(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    // The first line is there before it starts, so nothing is given to it from then on only.
    let (input, mut feed) = std::io::pipe().expect("a pipe");
    feed.write_all(b"1\n").expect("room for a line");
    let producer = ring.producer(&["--timeout", "100ms"]).stdin(input).start();
    consumer.wait_for_stdout("1\n");
    producer
        .finish_with_stdin_open()
        .refused(TIMED_OUT, &["timed out"]);
    consumer.finish().truncated().wrote("1\n");
    ring.assert_gone();
}

fn a_time_out_of_zero_is_none(ring: &Ring) {
    let mut consumer = ring.consumer(&["--timeout", "0"]).start();
    consumer.wait_until_asleep_on_the_ring();
    ring.producer(&["--timeout", "0"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    consumer.finish().quietly(DONE).wrote(seq(3));
    ring.assert_gone();
}

fn count_is_exact_and_keep_keeps_the_rest(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(1000)).run().quietly(DONE);
    let count = ["-q", "--keep", "--count"];
    ring.consumer(&[&count[..], &["0"]].concat())
        .run()
        .quietly(DONE)
        .wrote("");
    ring.consumer(&[&count[..], &["1"]].concat())
        .run()
        .quietly(DONE)
        .wrote("1\n");
    ring.consumer(&[&count[..], &["500"]].concat())
        .run()
        .quietly(DONE)
        .wrote(seq_from(2, 501));
    assert_eq!(ring.number("received_messages"), 501);
    ring.consumer(&["-q"])
        .run()
        .quietly(DONE)
        .wrote(seq_from(502, 1000));
    ring.assert_gone();
}

fn count_is_exact_and_a_created_ring_keeps_the_rest(ring: &Ring) {
    ring.semring("create", &[]).run().quietly(DONE);
    ring.producer(&["-q"]).input(seq(100)).run().quietly(DONE);
    ring.consumer(&["-q", "--count", "30"])
        .run()
        .quietly(DONE)
        .wrote(seq(30));
    ring.consumer(&["-q"])
        .run()
        .quietly(DONE)
        .wrote(seq_from(31, 100));
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}

fn count_on_an_unused_ring_reports_what_it_keeps(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(100)).run().quietly(DONE);
    let consumer = ring
        .consumer(&["--count", "30"])
        .run()
        .ended(DONE)
        .wrote(seq(30));
    let address = ring.address();
    let kept = format!("kept 70 unread messages in {address}; semring rm {address} removes them");
    assert!(consumer.stderr.contains(&kept), "{}", consumer.stderr);
    ring.consumer(&["-q"])
        .run()
        .quietly(DONE)
        .wrote(seq_from(31, 100));
    ring.assert_gone();
    // Unless they were refused.
    for created in [false, true] {
        if created {
            ring.semring("create", &[]).run().quietly(DONE);
        }
        ring.producer(&["-q"]).input(seq(100)).run().quietly(DONE);
        let consumer = ring.consumer(&["--discard-unread", "--count", "30"]).run();
        let consumer = consumer.ended(DONE).wrote(seq(30));
        let discarded = format!("discarded 70 unread messages of {address}");
        assert!(consumer.stderr.contains(&discarded), "{}", consumer.stderr);
    }
    assert_eq!(ring.number("unread_messages"), 0);
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}

fn a_count_that_is_not_reached_ends_with_the_stream(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.consumer(&["-q", "--count", "4"])
        .run()
        .quietly(DONE)
        .wrote(seq(3));
    ring.assert_gone();
}

fn follow_stays_for_new_producers_until_a_signal(ring: &Ring) {
    let mut consumer = ring.consumer(&["--follow"]).start();
    ring.wait_for_consumer(&consumer);
    for line in ["one\n", "two\n", "three\n"] {
        ring.producer(&[]).input(line).run().quietly(DONE);
        ring.wait_for_producers(0);
        consumer.wait_until_asleep_on_the_ring();
    }
    assert!(consumer.is_alive());
    consumer.signal(Signal::SIGTERM);
    consumer
        .finish()
        .quietly(Exit::Signal(libc::SIGTERM))
        .wrote("one\ntwo\nthree\n");
    // Nothing is unread, no process is attached.
    ring.assert_gone();
}

fn keep_leaves_the_ring(ring: &Ring) {
    let consumer = ring.consumer(&["--keep"]).start();
    ring.wait_for_consumer(&consumer);
    ring.producer(&[]).input(seq(3)).run().quietly(DONE);
    consumer.finish().quietly(DONE).wrote(seq(3));
    let info = ring.info();
    assert_eq!(number(&info, "sent_messages"), 3);
    assert_eq!(number(&info, "received_messages"), 3);
    assert_eq!(number(&info, "used_bytes"), 0);
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}

fn figures_are_a_line_on_stderr_or_one_object(ring: &Ring) {
    let input = seq(1000);
    // Without the newlines, which are not in the ring.
    let payload = (input.len() - 1000) as u64;
    let consumer = ring.consumer(&["--stats"]).start();
    ring.wait_for_consumer(&consumer);
    let words = ["1000 messages", &payload.to_string()];
    ring.producer(&["--stats"])
        .input(input.as_slice())
        .run()
        .refused(DONE, &words);
    consumer.finish().said(DONE, &words).wrote(&input);

    let consumer = ring.consumer(&["--stats", "--json"]).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring
        .producer(&["--stats", "--json"])
        .input(input.as_slice())
        .run()
        .ended(DONE);
    let consumer = consumer.finish().ended(DONE).wrote(&input);
    for output in [producer, consumer] {
        let figures = one_object(&output.stderr);
        assert_eq!(figures["ring"], ring.address());
        assert_eq!(number(&figures, "messages"), 1000);
        assert_eq!(number(&figures, "bytes"), payload);
        assert!(
            figures["seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            "{figures}"
        );
    }
    ring.assert_gone();
}

fn quiet_is_silent_and_verbose_prints_more(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(3));
    // Errors are printed in any case.
    ring.consumer(&["-q", "--no-create"])
        .run()
        .refused(NO_RING, &[ring.address()]);
    let consumer = ring.consumer(&["-v"]).start();
    ring.wait_for_consumer(&consumer);
    ring.producer(&["-v"])
        .input(seq(3))
        .run()
        .refused(DONE, &["opened", ring.address()]);
    let consumer = consumer.finish().ended(DONE).wrote(seq(3));
    assert!(consumer.stderr.contains("made") && consumer.stderr.contains("removed"));
    ring.assert_gone();
}

fn a_rate_limit_changes_nothing_in_the_stream(ring: &Ring) {
    let lines = seq(50_000);
    let nul = lines
        .iter()
        .map(|byte| if *byte == b'\n' { 0 } else { *byte })
        .collect();
    let cases: [(&[&str], &Vec<u8>); 3] = [
        (&["-L", "1M"], &lines),
        (&["--raw", "-L", "1MB"], &lines),
        (&["-0", "--rate-limit", "1MiB"], &nul),
    ];
    for (options, input) in cases {
        let consumer = ring.consumer(options).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(options)
            .input(input.as_slice())
            .run()
            .quietly(DONE);
        consumer.finish().quietly(DONE).wrote(input);
        ring.assert_gone();
    }
}

fn progress_is_not_shown_where_it_was_not_forced(ring: &Ring) {
    let consumer = ring.consumer(&["--progress"]).start();
    ring.wait_for_consumer(&consumer);
    ring.producer(&["--progress"])
        .input(seq(1000))
        .run()
        .quietly(DONE);
    consumer.finish().quietly(DONE).wrote(seq(1000));
    let consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring
        .producer(&["--progress", "-f"])
        .input(seq(1000))
        .run()
        .ended(DONE);
    assert!(!producer.stderr.is_empty());
    assert!(
        !producer.stderr.contains('\x1b'),
        "no escape codes into a file"
    );
    consumer.finish().quietly(DONE).wrote(seq(1000));
    ring.assert_gone();
}

fn each_way_of_waiting_carries_the_stream(ring: &Ring) {
    for wait in ["spin", "yield", "adaptive", "block"] {
        let options = ["--wait", wait, "--guard", "semaphore", "--capacity", "16K"];
        let consumer = ring.consumer(&options).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(&options)
            .input(seq(20_000))
            .run()
            .quietly(DONE);
        consumer.finish().quietly(DONE).wrote(seq(20_000));
        ring.assert_gone();
    }
}

fn signal_ends_an_idle_producer_after_its_input(ring: &Ring) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut consumer = ring.consumer(&[]).start();
        let mut producer = ring.producer(&[]).stdin_open().start();
        producer.write("1\n2\n");
        consumer.wait_for_stdout("1\n2\n");
        producer.signal(signal);
        producer
            .finish_with_stdin_open()
            .quietly(Exit::Signal(signal as i32));
        consumer.finish().truncated().wrote("1\n2\n");
        ring.assert_gone();
    }
    // Before anything was sent, it leaves no ring.
    let mut producer = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(1);
    producer.wait_until_in(POLLING);
    producer.signal(Signal::SIGINT);
    producer
        .finish_with_stdin_open()
        .quietly(Exit::Signal(libc::SIGINT));
    ring.assert_gone();
}

fn a_signal_ends_a_blocked_producer_and_what_was_sent_stays(ring: &Ring) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut producer = ring.producer(&[]).feed_endless_seq().start();
        producer.wait_until_asleep_on_the_ring();
        producer.signal(signal);
        let producer = producer.finish().ended(Exit::Signal(signal as i32));
        let sent = ring.number("sent_messages");
        // Both are reported: messages that wait, and input that could not be sent.
        assert!(
            producer.stderr.contains(&format!("{sent} messages wait")),
            "{}",
            producer.stderr
        );
        assert!(
            producer.stderr.contains("could not be sent"),
            "{}",
            producer.stderr
        );
        ring.consumer(&["-q"]).run().truncated().wrote(seq(sent));
        ring.assert_gone();
    }
}

fn signal_ends_an_idle_consumer_after_its_output(ring: &Ring) {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Before the first producer: nothing is left.
        let mut consumer = ring.consumer(&[]).start();
        consumer.wait_until_asleep_on_the_ring();
        consumer.signal(signal);
        consumer
            .finish()
            .quietly(Exit::Signal(signal as i32))
            .wrote("");
        ring.assert_gone();

        let mut consumer = ring.consumer(&[]).start();
        let mut producer = ring.producer(&["--wait-for-consumer"]).stdin_open().start();
        producer.write("1\n");
        consumer.wait_for_stdout("1\n");
        consumer.wait_until_asleep_on_the_ring();
        consumer.signal(signal);
        consumer
            .finish()
            .quietly(Exit::Signal(signal as i32))
            .wrote("1\n");
        // Later messages are for the next consumer.
        let next = ring.consumer(&[]).start();
        ring.wait_for_consumer(&next);
        producer.write("2\n");
        producer.finish().quietly(DONE);
        next.finish().quietly(DONE).wrote("2\n");
        ring.assert_gone();
    }
}

/// A consumer that has filled the pipe to its reader.
fn stuck(ring: &Ring) -> Tool {
    ring.producer(&["-q", "--capacity", "2M"])
        .input(seq(100_000))
        .run()
        .quietly(DONE);
    let mut consumer = ring.consumer(&["-q"]).stdout_unread().start();
    consumer.wait_until_in(&[POLLING, &[libc::SYS_write]].concat());
    consumer
}

fn a_signal_ends_a_consumer_whose_reader_takes_nothing(ring: &Ring) {
    let mut consumer = stuck(ring);
    let mut stdout = consumer.take_stdout();
    consumer.signal(Signal::SIGTERM);
    consumer.finish().quietly(Exit::Signal(libc::SIGTERM));
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut got).expect("a pipe");
    let (end, lines) = whole_lines(&got);
    assert_same(&got[..end], &seq(lines.len() as u64));
    let rest = numbers(&ring.consumer(&["-q"]).run().quietly(DONE).stdout);
    assert!(
        rest[0] <= lines.len() as u64 + 1,
        "lost: {} to {}",
        lines.len() + 1,
        rest[0] - 1
    );
    assert!(rest.iter().copied().eq(rest[0]..=100_000));
    ring.assert_gone();
}

fn signal_ends_a_consumer_and_its_successor_goes_on(ring: &Ring) {
    let mut first = ring.consumer(&["-q"]).start();
    ring.wait_for_consumer(&first);
    let endless = Endless::new();
    let producer = ring
        .producer(&["--wait-for-consumer"])
        .feed(endless.clone().feed())
        .start();
    first.wait_for_bytes(1_000_000);
    first.signal(Signal::SIGINT);
    let got = first.finish().quietly(Exit::Signal(libc::SIGINT)).stdout;
    let mut next = ring.consumer(&["-q"]).start();
    next.wait_for_bytes(1);
    endless.stop();
    producer.finish().quietly(DONE);
    let rest = next.finish().quietly(DONE).stdout;
    // The signal may have come in the middle of a write, which then was not released.
    let (end, lines) = whole_lines(&got);
    let read = lines.len() as u64;
    assert_same(&got[..end], &seq(read));
    let first = numbers(&rest)[0];
    assert!(first <= read + 1, "lost: {} to {}", read + 1, first - 1);
    // The number of lines of 16 bytes in a lane of 256 KiB.
    assert!(
        read + 1 - first <= 16384,
        "{} lines came again",
        read + 1 - first
    );
    assert_same(&rest, &seq_from(first, endless.last()));
    ring.assert_gone();
}

fn an_ignored_signal_stays_ignored(ring: &Ring) {
    // As `nohup` and the background jobs of scripts do.
    let mut consumer = ring.shell(r#"trap '' INT; exec "$C" "$RING""#).start();
    consumer.wait_until_asleep_on_the_ring();
    consumer.signal(Signal::SIGINT);
    ring.producer(&[]).input(seq(3)).run().quietly(DONE);
    wait_until("all has come", || consumer.stdout() == seq(3));
    consumer.finish().quietly(DONE);
    ring.assert_gone();
}

#[test]
fn lock_memory_keeps_the_whole_ring_in_memory() {
    let ring = Ring::posix("locked");
    let consumer = ring
        .consumer(&["--lock-memory", "--producers", "1"])
        .start();
    ring.wait_for_consumer(&consumer);
    let status = std::fs::read_to_string(format!("/proc/{}/status", consumer.pid()));
    let status = status.expect("it runs");
    let locked = status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:")?.strip_suffix("kB"));
    let locked: u64 = locked.expect("a line").trim().parse().expect("a number");
    assert!(locked * 1024 >= 256 << 10, "{locked} KiB");
    ring.producer(&["-q", "--lock-memory"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    consumer.finish().ended(DONE).wrote(seq(3));
    ring.assert_gone();
}
