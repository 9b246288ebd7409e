//! First attempts of a new user of the commands.

use nix::sys::signal::Signal;
use semring_testkit::peer::Exit;

use crate::support::{
    BROKEN_PIPE, DONE, FAILED, KILLED, Ring, Scratch, USAGE, assert_same, numbers,
    over_both_backends, seq, seq_from,
};

const TERMINATED: Exit = Exit::Signal(libc::SIGTERM);

over_both_backends! {
    first_producer_ends_and_reports_unread,
    a_consumer_that_comes_first_waits_for_the_first_producer,
    both_killed_and_restarted_deliver_the_unread,
    producer_reports_unread_and_sends_after_them,
    head_after_the_consumer_ends_all_quietly,
    tee_sends_one_stream_into_two_rings,
    too_long_line_is_refused_after_the_earlier,
    a_longer_line_passes_with_more_capacity_or_raw,
    binary_data_passes_through_lines,
    empty_input_is_an_empty_stream_in_either_order,
    a_last_line_without_newline_comes_out_without_one,
    message_after_open_line_begins_a_line,
    three_producers_arrive_in_order_with_follow,
    three_producers_arrive_in_order_before_a_consumer,
    three_commands_in_one_pipeline_are_one_stream,
    other_settings_are_refused_only_if_requested,
    a_ring_that_was_created_stays_at_the_end_of_the_stream,
    consumer_of_a_kept_ring_waits_for_producers,
    a_file_goes_through_with_shell_redirections,
}

fn first_producer_ends_and_reports_unread(ring: &Ring) {
    ring.producer(&[])
        .input(seq(3))
        .run()
        .refused(DONE, &["3 messages", ring.address()]);
    ring.assert_kept();
    ring.consumer(&[])
        .run()
        .said(DONE, &["3 messages", ring.address()])
        .wrote(seq(3));
    ring.assert_gone();
    ring.producer(&[])
        .input("one\n")
        .run()
        .refused(DONE, &["1 message "]);
    ring.consumer(&["-q"]).run().quietly(DONE).wrote("one\n");
    ring.assert_gone();
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.consumer(&["--quiet"])
        .run()
        .quietly(DONE)
        .wrote(seq(3));
    ring.assert_gone();
}

fn a_consumer_that_comes_first_waits_for_the_first_producer(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    consumer.wait_until_asleep_on_the_ring();
    assert!(consumer.is_alive());
    // With a consumer, no message waits, and nothing is printed.
    ring.producer(&[]).input(seq(3)).run().quietly(DONE);
    consumer.finish().quietly(DONE).wrote(seq(3));
    ring.assert_gone();
}

fn both_killed_and_restarted_deliver_the_unread(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).stdout_unread().start();
    ring.wait_for_consumer(&consumer);
    // The consumer fills its pipe, then the producer fills the ring.
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    consumer.stop();
    producer.kill().quietly(KILLED);
    let sent = ring.number("sent_messages");
    let received = ring.number("received_messages");
    consumer.kill().quietly(KILLED);
    assert!(received < sent);
    let unread = sent - received;

    let consumer = ring.consumer(&[]).run().truncated();
    let found = format!("found {unread} messages unread");
    assert!(consumer.stderr.contains(&found), "{}", consumer.stderr);
    assert_same(&consumer.stdout, &seq_from(received + 1, sent));
    ring.assert_gone();
}

fn producer_reports_unread_and_sends_after_them(ring: &Ring) {
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    let sent = ring.number("sent_messages");
    producer.kill().quietly(KILLED);

    // Alone in the ring, it sees the messages that are left.
    let mut producer = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(1);
    let consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    producer.write("0\n");
    let producer = producer.finish().ended(DONE);
    let consumer = consumer.finish().truncated();
    assert!(
        producer.stderr.contains(&sent.to_string()),
        "{}",
        producer.stderr
    );
    assert!(producer.stderr.contains("unread"), "{}", producer.stderr);
    let mut expected = seq(sent);
    expected.extend(b"0\n");
    assert_same(&consumer.stdout, &expected);
    ring.assert_gone();
}

fn head_after_the_consumer_ends_all_quietly(ring: &Ring) {
    let script = r#"
        seq 1000000 | "$P" "$RING" &
        "$C" "$RING" | head -2
        consumer=${PIPESTATUS[0]}
        wait $!
        echo "$consumer $?"
    "#;
    ring.shell(script)
        .run()
        .quietly(DONE)
        .wrote("1\n2\n141 141\n");
    ring.assert_gone();
}

fn tee_sends_one_stream_into_two_rings(ring: &Ring) {
    let other = ring.another("the-other-of-tee");
    let one = ring.consumer(&[]).start();
    let two = other.consumer(&[]).start();
    // So small that nothing goes through unless both are read.
    let script = format!(
        r#"seq 100000 | tee >("$P" "{}") | "$P" "$RING"; wait"#,
        other.address()
    );
    ring.wait_for_consumer(&one);
    other.wait_for_consumer(&two);
    ring.shell(&script).run().quietly(DONE);
    one.finish().quietly(DONE).wrote(seq(100_000));
    two.finish().quietly(DONE).wrote(seq(100_000));
    ring.assert_gone();
    other.assert_gone();
}

/// Two lines, one of `len` bytes, another.
fn with_a_long_line(len: usize) -> Vec<u8> {
    let mut input = b"1\n2\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', len));
    input.extend(b"\n4\n");
    input
}

fn too_long_line_is_refused_after_the_earlier(ring: &Ring) {
    // The default is 256 KiB a lane: 65536 is the longest.
    for len in [65_537, 1_000_000] {
        let consumer = ring.consumer(&[]).start();
        ring.wait_for_consumer(&consumer);
        let producer = ring
            .producer(&["--long-lines", "fail"])
            .input(with_a_long_line(len))
            .run();
        producer.refused(FAILED, &["line 3", "65536", "--raw", "--capacity"]);
        consumer.finish().truncated().wrote("1\n2\n");
        ring.assert_gone();
    }
    // The same without a consumer: earlier messages wait.
    ring.producer(&["-q", "--long-lines", "fail"])
        .input(with_a_long_line(65_537))
        .run()
        .refused(FAILED, &["65536"]);
    ring.consumer(&["-q"]).run().truncated().wrote("1\n2\n");
    ring.assert_gone();
    // A line that never ends is refused as well, before its end.
    let consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    let mut producer = ring
        .producer(&["--long-lines", "fail"])
        .stdin_open()
        .start();
    producer.try_write(vec![b'x'; 1_000_000]);
    producer
        .finish_with_stdin_open()
        .refused(FAILED, &["line 1", "--raw"]);
    consumer.finish().truncated().wrote("");
    ring.assert_gone();
}

fn a_longer_line_passes_with_more_capacity_or_raw(ring: &Ring) {
    let input = with_a_long_line(1 << 20);
    for option in [&["--capacity", "4M"][..], &["--raw"]] {
        let consumer = ring.consumer(option).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(option)
            .input(input.as_slice())
            .run()
            .quietly(DONE);
        consumer.finish().quietly(DONE).wrote(&input);
        ring.assert_gone();
    }
}

fn binary_data_passes_through_lines(ring: &Ring) {
    // All bytes, in runs that differ, with and without newlines between them.
    let mut input = Vec::new();
    for round in 0..3000_u32 {
        let bytes = (0..=255_u8).map(|byte| byte.wrapping_mul(round as u8 | 1));
        input.extend(bytes.filter(|byte| round % 3 > 0 || *byte != b'\n'));
    }
    let consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    ring.producer(&["--lines"])
        .input(input.as_slice())
        .run()
        .quietly(DONE);
    consumer.finish().quietly(DONE).wrote(&input);
    ring.assert_gone();
}

fn empty_input_is_an_empty_stream_in_either_order(ring: &Ring) {
    for framing in ["--lines", "-0", "--length-prefixed", "--raw"] {
        ring.producer(&[framing]).run().quietly(DONE).wrote("");
        ring.assert_kept();
        ring.consumer(&[framing]).run().quietly(DONE).wrote("");
        ring.assert_gone();

        let consumer = ring.consumer(&[framing]).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(&[framing]).input("").run().quietly(DONE);
        consumer.finish().quietly(DONE).wrote("");
        ring.assert_gone();
    }
}

fn a_last_line_without_newline_comes_out_without_one(ring: &Ring) {
    let inputs: [(&str, &[u8]); 4] = [
        ("--lines", b"one\ntwo"),
        ("--lines", b"x"),
        ("-0", b"one\0two"),
        ("-0", b"\0\0\n"),
    ];
    for (framing, input) in inputs {
        ring.producer(&["-q", framing])
            .input(input)
            .run()
            .quietly(DONE);
        ring.consumer(&["-q", framing])
            .run()
            .quietly(DONE)
            .wrote(input);
        ring.assert_gone();
    }
    // A newline that is missing stays missing after the conversion.
    ring.producer(&["-q"]).input("one\ntwo").run().quietly(DONE);
    ring.consumer(&["-q", "-0", "--convert"])
        .run()
        .quietly(DONE)
        .wrote("one\0two");
    ring.assert_gone();
}

fn message_after_open_line_begins_a_line(ring: &Ring) {
    let mut consumer = ring.consumer(&["--follow"]).start();
    ring.wait_for_consumer(&consumer);
    ring.producer(&[]).input("one\ntwo").run().quietly(DONE);
    consumer.wait_for_stdout("one\ntwo");
    ring.producer(&[]).input("three\nfour").run().quietly(DONE);
    consumer.wait_for_stdout("one\ntwo\nthree\nfour");
    consumer.wait_until_asleep_on_the_ring();
    consumer.signal(Signal::SIGTERM);
    consumer
        .finish()
        .quietly(TERMINATED)
        .wrote("one\ntwo\nthree\nfour");
    ring.assert_gone();
}

fn three_producers_arrive_in_order_with_follow(ring: &Ring) {
    let mut consumer = ring.consumer(&["--follow"]).start();
    ring.wait_for_consumer(&consumer);
    for third in 0..3 {
        let first = 100_000 * third + 1;
        ring.producer(&[])
            .input(seq_from(first, first + 99_999))
            .run()
            .quietly(DONE);
    }
    consumer.wait_for_bytes(seq(300_000).len());
    // Idle again, it has released everything.
    consumer.wait_until_asleep_on_the_ring();
    consumer.signal(Signal::SIGTERM);
    consumer.finish().quietly(TERMINATED).wrote(seq(300_000));
    ring.assert_gone();
}

fn three_producers_arrive_in_order_before_a_consumer(ring: &Ring) {
    for third in 0..3 {
        let first = 1000 * third + 1;
        let producer = ring
            .producer(&[])
            .input(seq_from(first, first + 999))
            .run()
            .ended(DONE);
        let waits = (1000 * (third + 1)).to_string();
        assert!(producer.stderr.contains(&waits), "{}", producer.stderr);
    }
    ring.consumer(&[])
        .run()
        .said(DONE, &["3000"])
        .wrote(seq(3000));
    ring.assert_gone();
}

fn three_commands_in_one_pipeline_are_one_stream(ring: &Ring) {
    let script = r#"
        { seq 1 1000; seq 1001 2000; seq 2001 3000; } | "$P" "$RING" &
        "$C" -q "$RING"
        wait $! || exit
    "#;
    // The producer reports waiting messages if it is so fast that the consumer is not there yet.
    ring.shell(script).run().ended(DONE).wrote(seq(3000));
    ring.assert_gone();
}

fn other_settings_are_refused_only_if_requested(ring: &Ring) {
    let yesterday: &[&str] = &["--capacity", "64K", "--producers", "3", "--mode", "0640"];
    ring.producer(&[&["-q"], yesterday].concat())
        .input(seq(10))
        .run()
        .quietly(DONE);
    for (option, value, is) in [
        ("--capacity", "1M", "65536"),
        ("--producers", "4", "3"),
        ("--mode", "0600", "640"),
    ] {
        ring.producer(&[option, value])
            .input("x\n")
            .run()
            .refused(USAGE, &[ring.address(), is]);
        ring.consumer(&[option, value])
            .run()
            .refused(USAGE, &[ring.address(), is]);
    }
    // Nothing was lost by that; a process with the same options, or with none, may use it.
    ring.producer(&[&["-q"], yesterday].concat())
        .input("11\n")
        .run()
        .quietly(DONE);
    ring.producer(&["-q", "--capacity", "65535"])
        .input("12\n")
        .run()
        .quietly(DONE);
    assert_eq!(ring.number("capacity_bytes"), 65536);
    ring.consumer(&[&["-q"], yesterday].concat())
        .run()
        .quietly(DONE)
        .wrote(seq(12));
    ring.assert_gone();
}

fn a_ring_that_was_created_stays_at_the_end_of_the_stream(ring: &Ring) {
    ring.semring("create", &[]).run().ended(DONE);
    for _ in 0..2 {
        ring.producer(&["-q"]).input(seq(10)).run().quietly(DONE);
        ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(10));
        ring.assert_kept();
    }
    // Also when the reader goes on purpose.
    let consumer = ring.consumer(&["--count", "5"]).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring.producer(&[]).feed_endless_seq().start();
    consumer.finish().ended(DONE).wrote(seq(5));
    producer.finish().ended(BROKEN_PIPE);
    ring.assert_kept();
    ring.semring("rm", &[]).run().ended(DONE);
    ring.assert_gone();
}

fn consumer_of_a_kept_ring_waits_for_producers(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.consumer(&["-q", "--keep"])
        .run()
        .quietly(DONE)
        .wrote(seq(3));
    ring.assert_kept();
    // That stream has ended; the next one has not begun.
    let mut consumer = ring.consumer(&[]).start();
    consumer.wait_until_asleep_on_the_ring();
    ring.producer(&[]).input("4\n").run().quietly(DONE);
    consumer.finish().quietly(DONE).wrote("4\n");
    ring.assert_gone();
}

fn a_file_goes_through_with_shell_redirections(ring: &Ring) {
    let scratch = Scratch::new();
    let (from, to) = (scratch.path("from"), scratch.path("to"));
    std::fs::write(&from, seq(200_000)).expect("a file");
    let script = format!(
        r#""$P" "$RING" <"{}" & "$C" -q "$RING" >"{}"; consumer=$?; wait $!; echo "$consumer $?""#,
        from.display(),
        to.display()
    );
    ring.shell(&script).run().ended(DONE).wrote("0 0\n");
    let arrived = std::fs::read(to).expect("the file");
    assert_eq!(numbers(&arrived).len(), 200_000);
    assert_same(&arrived, &seq(200_000));
    ring.assert_gone();
}
