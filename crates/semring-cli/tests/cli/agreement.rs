//! Settings that either side names in either order, long lines in parts, groups of producers, rings that are full.

use semring_testkit::peer::Exit;

use crate::support::{
    DAMAGED, DONE, FAILED, KILLED, Ring, TIMED_OUT, USAGE, assert_same, number, over_both_backends,
    seq, wait_until,
};

over_both_backends! {
    settings_named_by_the_side_that_comes_second_hold,
    settings_of_a_ring_that_was_used_are_minima_or_refused,
    a_line_of_ten_megabytes_passes_among_short_ones,
    a_consumer_killed_inside_a_line_is_continued_by_its_successor,
    a_producer_killed_inside_a_line_ends_it_with_6,
    long_lines_are_truncated_or_refused_on_request,
    a_group_of_producers_that_come_and_go_is_one_stream,
    a_full_ring_drops_or_fails_if_it_was_made_so,
    counts_are_set_to_zero,
}

/// What a waiting consumer has is replaced without a word; and what the first one named is not needed twice.
fn settings_named_by_the_side_that_comes_second_hold(ring: &Ring) {
    let cases: [(&[&str], &str, &str); 5] = [
        (&["--capacity", "1M"], "capacity_bytes", "1048576"),
        (&["--producers", "9"], "lanes", "9"),
        (&["--mode", "0640"], "mode", "0640"),
        (&["--guard", "pipe"], "guard", "pipe"),
        (&["--full", "drop"], "when_full", "drop"),
    ];
    for (option, field, value) in cases {
        for (to_consumer, to_producer) in [(&[][..], option), (option, &[]), (option, option)] {
            for consumer_first in [true, false] {
                if !consumer_first && to_producer.is_empty() {
                    // The ring is used by then: see below.
                    continue;
                }
                let consumer = ring.consumer(&[to_consumer, &["-q"]].concat());
                let mut producer = ring.producer(&[to_producer, &["-q"]].concat()).stdin_open();
                let (consumer, mut producer) = if consumer_first {
                    let consumer = consumer.start();
                    ring.wait_for_consumer(&consumer);
                    (consumer, producer.start())
                } else {
                    producer = producer.stdin_open();
                    let producer = producer.start();
                    ring.wait_for_producers(1);
                    (consumer.start(), producer)
                };
                producer.write("1\n");
                wait_until("the line has come", || consumer.stdout() == b"1\n");
                let is = &ring.info()[field];
                let is = is.as_str().map_or_else(|| is.to_string(), str::to_owned);
                assert_eq!(is, value, "{option:?}, {to_consumer:?}, {consumer_first}");
                producer.finish().quietly(DONE);
                consumer.finish().quietly(DONE).wrote("1\n");
                ring.assert_gone();
            }
        }
    }
}

fn settings_of_a_ring_that_was_used_are_minima_or_refused(ring: &Ring) {
    ring.producer(&["-q", "--capacity", "64K"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    for (args, told) in [
        (["--capacity", "128K"], "131072"),
        (["--producers", "9"], "9"),
        (["--full", "drop"], "drop"),
        (["--mode", "0640"], "0640"),
    ] {
        let told = [told, "the command that starts first"];
        ring.consumer(&args).run().refused(USAGE, &told);
        ring.producer(&args).run().refused(USAGE, &told);
    }
    // Less than there is, is there.
    let consumer = ring.consumer(&["-q", "--capacity", "4K", "--producers", "2"]);
    consumer.run().quietly(DONE).wrote(seq(3));
    ring.assert_gone();
}

fn long_line() -> Vec<u8> {
    let mut line: Vec<u8> = (0..10_000_000u32)
        .map(|at| b'a' + (at % 23) as u8)
        .collect();
    line.push(b'\n');
    line
}

fn a_line_of_ten_megabytes_passes_among_short_ones(ring: &Ring) {
    let consumer = ring.consumer(&["-q"]).start();
    ring.wait_for_consumer(&consumer);
    // It keeps the stream open until the others are there.
    let mut short = ring.producer(&["-q"]).stdin_open().start();
    ring.wait_for_producers(1);
    let more = ring.producer(&["-q"]).input(seq(50_000)).start();
    let long = [b"first\n".to_vec(), long_line()].concat();
    let long = ring.producer(&["-q"]).input(long).start();
    short.write(seq(50_000));
    long.finish().quietly(DONE);
    short.finish().quietly(DONE);
    more.finish().quietly(DONE);
    let output = consumer.finish().quietly(DONE);
    let mut lines: Vec<&[u8]> = output
        .stdout
        .split_inclusive(|byte| *byte == b'\n')
        .collect();
    assert_eq!(lines.len(), 100_002);
    let at = lines
        .iter()
        .position(|line| line.len() > 10)
        .expect("the long line");
    assert_same(lines.remove(at), &long_line());
    ring.assert_gone();
}

/// What the first one had written, and what the second one writes, are one line; at most its last write comes again.
fn a_consumer_killed_inside_a_line_is_continued_by_its_successor(ring: &Ring) {
    let producer = ring
        .producer(&["-q", "--wait-for-consumer"])
        .input(long_line())
        .start();
    let mut first = ring.consumer(&["-q"]).stdout_unread().start();
    let mut begin = vec![0; 3_000_000];
    let mut stdout = first.take_stdout();
    std::io::Read::read_exact(&mut stdout, &mut begin).expect("it writes");
    first.stop();
    first.kill().ended(KILLED);
    std::io::Read::read_to_end(&mut stdout, &mut begin).expect("a pipe");
    let short = ring
        .producer(&["-q", "--wait-for-consumer"])
        .input("short\n")
        .start();
    let second = ring.consumer(&["-q"]).run().quietly(DONE);
    producer.finish().quietly(DONE);
    short.finish().quietly(DONE);
    let line = long_line();
    // The line goes on before anything else comes.
    let rest = second
        .stdout
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("its end")
        + 1;
    assert_eq!(&second.stdout[rest..], b"short\n");
    let again = begin.len() + rest - line.len();
    assert!(again <= 256 << 10, "{again} bytes came again");
    begin.truncate(begin.len() - again);
    begin.extend(&second.stdout[..rest]);
    assert_same(&begin, &line);
    ring.assert_gone();
}

fn a_producer_killed_inside_a_line_ends_it_with_6(ring: &Ring) {
    let mut consumer = ring.consumer(&["-q"]).start();
    ring.wait_for_consumer(&consumer);
    let mut producer = ring.producer(&["-q"]).stdin_open().start();
    producer.write(&long_line()[..1_000_000]);
    consumer.wait_for_bytes(900_000);
    let mut other = ring.producer(&["-q"]).stdin_open().start();
    other.write("short\n");
    ring.wait_for_producers(2);
    producer.kill().ended(KILLED);
    consumer.wait_for_bytes(900_000 + 6);
    other.finish().quietly(DONE);
    let output = consumer.finish().ended(DAMAGED);
    assert!(output.stderr.contains("was cut short"), "{}", output.stderr);
    let line = output
        .stdout
        .strip_suffix(b"\nshort\n")
        .expect("a line of its own");
    assert_same(line, &long_line()[..line.len()]);
    ring.assert_gone();
}

fn long_lines_are_truncated_or_refused_on_request(ring: &Ring) {
    let input = [b"1\n", &[b'x'; 70_000][..], b"\n3\n"].concat();
    for (strict, exit) in [(&[][..], DONE), (&["--strict"], DAMAGED)] {
        let args = [&["--long-lines", "truncate"][..], strict].concat();
        let producer = ring.producer(&args).input(&input[..]).run().ended(exit);
        assert!(
            producer.stderr.contains("truncated 1 line to 65536 bytes"),
            "{}",
            producer.stderr
        );
        let expected = [b"1\n", &[b'x'; 65_536][..], b"\n3\n"].concat();
        ring.consumer(&["-q"]).run().ended(exit).wrote(expected);
        ring.assert_gone();
    }
    let producer = ring
        .producer(&["-q", "--long-lines", "fail"])
        .input(input)
        .run();
    producer.refused(FAILED, &["line 2", "65536"]);
    ring.consumer(&["-q"]).run().truncated().wrote("1\n");
    ring.assert_gone();
}

fn a_group_of_producers_that_come_and_go_is_one_stream(ring: &Ring) {
    let consumer = ring
        .consumer(&["-q", "--linger", "2s", "--timeout", "60"])
        .start();
    ring.wait_for_consumer(&consumer);
    for _ in 0..5 {
        ring.producer(&["-q"]).input("1\n").run().quietly(DONE);
    }
    consumer.finish().quietly(DONE).wrote("1\n".repeat(5));
    ring.assert_gone();
    // Before the first producer there is no end to wait for.
    ring.consumer(&["-q", "--linger", "0.01", "--timeout", "0.3"])
        .run()
        .ended(TIMED_OUT);
    ring.consumer(&["--linger", "1", "--follow"])
        .run()
        .refused(USAGE, &["--follow"]);
    ring.assert_gone();
}

fn a_full_ring_drops_or_fails_if_it_was_made_so(ring: &Ring) {
    for (strict, exit) in [(&["-q"][..], DONE), (&["-q", "--strict"], DAMAGED)] {
        let args = [&["--full", "drop", "--capacity", "4K"][..], strict].concat();
        ring.producer(&args).input(seq(1000)).run().ended(exit);
        let info = ring.info();
        assert_eq!(info["when_full"], "drop");
        let (lost, unread) = (
            number(&info, "lost_messages"),
            number(&info, "unread_messages"),
        );
        assert!(lost > 0 && lost + unread == 1000, "{info}");
        let consumer = ring.consumer(strict).run().ended(exit).wrote(seq(unread));
        let told = format!("dropped {lost} messages");
        assert!(consumer.stderr.contains(&told), "{}", consumer.stderr);
        ring.assert_gone();
    }
    let producer = ring.producer(&["-q", "--full", "fail", "--capacity", "4K"]);
    producer
        .input(seq(1000))
        .run()
        .refused(FAILED, &["full", "--full fail"]);
    let sent = ring.number("sent_messages");
    ring.consumer(&["-q"]).run().truncated().wrote(seq(sent));
    ring.assert_gone();
    let split = ["--full", "drop", "--long-lines", "split"];
    ring.producer(&split).run().refused(USAGE, &["split"]);
    ring.semring("rm", &[]).run();
}

fn counts_are_set_to_zero(ring: &Ring) {
    ring.semring("create", &[]).run().quietly(DONE);
    let producer = ring.producer(&["-q"]).stdin_open().start();
    ring.wait_for_producers(1);
    producer.signal(nix::sys::signal::Signal::SIGTERM);
    producer
        .finish_with_stdin_open()
        .ended(Exit::Signal(libc::SIGTERM));
    ring.producer(&["-q"]).run().quietly(DONE);
    let counts = || {
        let info = ring.info();
        ["finished_producers", "died_producers"].map(|field| number(&info, field))
    };
    assert_eq!(counts(), [1, 1]);
    ring.semring("reset-counts", &[]).run().quietly(DONE);
    assert_eq!(counts(), [0, 0]);
    // The stream is as incomplete as before.
    ring.consumer(&["-q"]).run().truncated();
    ring.semring("rm", &[]).run().quietly(DONE);
}
