//! Pipe semantics: when one side ends, by exit or by SIGKILL, the other side gets an end of stream
//! or a broken pipe.

use nix::sys::signal::Signal;

use crate::support::{
    BROKEN_PIPE, Call, DONE, KILLED, Output, Ring, Tool, assert_same, numbers, over_both_backends,
    seq, wait_until, whole_lines,
};

over_both_backends! {
    the_consumer_ends_with_0_when_the_last_producer_has_ended,
    the_consumer_gets_all_that_a_killed_producer_committed,
    killed_senders_consumer_gets_whole_lines,
    the_consumer_goes_on_while_one_of_two_producers_is_killed,
    producer_prints_nothing_if_all_is_taken,
    blocked_producer_exits_141_at_consumers_count,
    blocked_producer_exits_141_consumer_killed,
    blocked_producer_exits_141_reader_gone,
    sending_producer_exits_141_at_consumers_count,
    sending_producer_exits_141_consumer_killed,
    sending_producer_exits_141_reader_gone,
    a_slow_producer_ends_with_141_at_its_next_line,
    a_consumer_killed_at_the_end_of_everything_leaves_no_ring,
    two_producers_both_end_with_141,
    yes_through_the_ring_to_head_leaves_nothing,
}

fn the_consumer_ends_with_0_when_the_last_producer_has_ended(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    let mut one = ring.producer(&[]).stdin_open().start();
    let mut other = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(2);
    one.write("one\n");
    consumer.wait_for_stdout("one\n");
    one.finish().quietly(DONE);
    // The other one is still there, so this is not the end.
    other.write("other\n");
    consumer.wait_for_stdout("one\nother\n");
    other.finish().quietly(DONE);
    consumer.finish().quietly(DONE).wrote("one\nother\n");
    ring.assert_gone();
}

fn the_consumer_gets_all_that_a_killed_producer_committed(ring: &Ring) {
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    let sent = ring.number("sent_messages");
    assert!(sent > 1000, "{sent} lines fill the ring");
    producer.kill().quietly(KILLED);
    // Unread messages are reported.
    let consumed = ring.consumer(&[]).run().truncated();
    assert_same(&consumed.stdout, &seq(sent));
    ring.assert_gone();
}

fn killed_senders_consumer_gets_whole_lines(ring: &Ring) {
    for bytes in [1, 100_000, 1_000_000] {
        let mut consumer = ring.consumer(&[]).start();
        let producer = ring.producer(&[]).feed_endless_seq().start();
        consumer.wait_for_bytes(bytes);
        producer.kill().quietly(KILLED);
        let output = consumer.finish().truncated();
        let (end, lines) = whole_lines(&output.stdout);
        assert_eq!(end, output.stdout.len(), "the last line is whole");
        assert_same(&output.stdout, &seq(lines.len() as u64));
        ring.assert_gone();
    }
}

fn the_consumer_goes_on_while_one_of_two_producers_is_killed(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    let mut stays = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(1);
    let killed = ring.producer(&[]).feed_endless_seq().start();
    consumer.wait_for_bytes(500_000);
    killed.kill();
    ring.wait_for_producers(1);
    assert!(consumer.is_alive());
    stays.write("0\n");
    stays.finish().quietly(DONE);
    let mut got = numbers(&consumer.finish().truncated().stdout);
    // FIFO within each producer; this one has sent a single line.
    let at = got
        .iter()
        .position(|number| *number == 0)
        .expect("the other producer's line");
    got.remove(at);
    assert!(got.iter().copied().eq(1..=got.len() as u64));
    ring.assert_gone();
}

/// Also where the consumer drains and removes the ring just while the producer checks for unread
/// messages.
fn producer_prints_nothing_if_all_is_taken(ring: &Ring) {
    for round in 0..60 {
        let lines = 1000 + 300 * round;
        let consumer = ring.consumer(&[]).start();
        ring.wait_for_consumer(&consumer);
        ring.producer(&[]).input(seq(lines)).run().quietly(DONE);
        consumer.finish().quietly(DONE).wrote(seq(lines));
        ring.assert_gone();
    }
}

/// How a consumer goes.
#[derive(Clone, Copy, PartialEq)]
enum Leaving {
    Count,
    Killed,
    ClosedStdout,
}

/// The end of a producer whose consumer has gone: no message, unless it is the last one and leaves
/// unread messages that were not refused.
#[track_caller]
fn broken_pipe(ring: &Ring, producer: Output, leaving: Leaving) {
    let producer = producer.ended(BROKEN_PIPE);
    if leaving != Leaving::ClosedStdout && ring.look().is_some() {
        let stderr = &producer.stderr;
        assert!(
            stderr.lines().count() <= 1,
            "at most one sentence: {stderr}"
        );
        assert!(
            stderr.is_empty() || (stderr.contains("kept") && stderr.contains(ring.name())),
            "{stderr}"
        );
        // It was kept because of its unread messages.
        assert!(ring.number("used_bytes") > 0);
        ring.semring("rm", &[]).run().ended(DONE);
    } else {
        assert_eq!(producer.stderr, "");
    }
    ring.assert_gone();
}

/// A producer that sleeps because the ring is full, and its consumer, which does not read it.
fn blocked(ring: &Ring, to_consumer: &[&str], producers: usize) -> (Vec<Tool>, Tool) {
    // Its stdout is not read: it fills that pipe, then waits.
    let consumer = ring.consumer(to_consumer).stdout_unread().start();
    ring.wait_for_consumer(&consumer);
    let endless = || ring.producer(&[]).feed_endless_seq().start();
    let mut producers: Vec<Tool> = std::iter::repeat_with(endless).take(producers).collect();
    producers
        .iter_mut()
        .for_each(Tool::wait_until_asleep_on_the_ring);
    (producers, consumer)
}

fn blocked_producer_exits_141_at_consumers_count(ring: &Ring) {
    let (producers, mut consumer) = blocked(ring, &["--count", "20000"], 1);
    consumer.capture_now();
    consumer.finish().ended(DONE).wrote(seq(20_000));
    for producer in producers {
        broken_pipe(ring, producer.finish(), Leaving::Count);
    }
}

fn blocked_producer_exits_141_consumer_killed(ring: &Ring) {
    let (producers, consumer) = blocked(ring, &[], 1);
    consumer.kill().quietly(KILLED);
    for producer in producers {
        broken_pipe(ring, producer.finish(), Leaving::Killed);
    }
}

fn blocked_producer_exits_141_reader_gone(ring: &Ring) {
    let (producers, mut consumer) = blocked(ring, &[], 1);
    drop(consumer.take_stdout());
    consumer.finish().quietly(BROKEN_PIPE);
    for producer in producers {
        broken_pipe(ring, producer.finish(), Leaving::ClosedStdout);
    }
}

fn two_producers_both_end_with_141(ring: &Ring) {
    for leaving in [Leaving::Killed, Leaving::ClosedStdout] {
        let (producers, mut consumer) = blocked(ring, &[], 2);
        if leaving == Leaving::Killed {
            consumer.kill().quietly(KILLED);
        } else {
            drop(consumer.take_stdout());
            consumer.finish().quietly(BROKEN_PIPE);
        }
        let ends: Vec<Output> = producers.into_iter().map(Tool::finish).collect();
        let mut told = 0;
        for end in ends {
            let end = end.ended(BROKEN_PIPE);
            assert!(end.stderr.lines().count() <= 1, "{}", end.stderr);
            told += usize::from(end.stderr.contains(ring.name()));
        }
        if leaving == Leaving::Killed {
            // The last user reports what it leaves (or both, if they end together).
            assert!(told >= 1);
            ring.assert_kept();
            ring.semring("rm", &[]).run().ended(DONE);
        } else {
            assert_eq!(told, 0);
        }
        ring.assert_gone();
    }
}

fn sending_producer_exits_141_at_consumers_count(ring: &Ring) {
    let consumer = ring.consumer(&["--count", "100000"]).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring.producer(&[]).feed_endless_seq().start();
    consumer.finish().ended(DONE).wrote(seq(100_000));
    broken_pipe(ring, producer.finish(), Leaving::Count);
}

fn sending_producer_exits_141_consumer_killed(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    let producer = ring.producer(&[]).feed_endless_seq().start();
    consumer.wait_for_bytes(1_000_000);
    consumer.kill().quietly(KILLED);
    broken_pipe(ring, producer.finish(), Leaving::Killed);
}

fn sending_producer_exits_141_reader_gone(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).stdout_unread().start();
    ring.wait_for_consumer(&consumer);
    let producer = ring.producer(&[]).feed_endless_seq().start();
    let mut begin = vec![0; 500_000];
    let mut stdout = consumer.take_stdout();
    std::io::Read::read_exact(&mut stdout, &mut begin).expect("the consumer writes");
    drop(stdout);
    consumer.finish().quietly(BROKEN_PIPE);
    broken_pipe(ring, producer.finish(), Leaving::ClosedStdout);
}

/// A producer that waits for its stdin can't sleep on the ring, too: it checks at intervals.
fn a_slow_producer_ends_with_141_at_its_next_line(ring: &Ring) {
    for leaving in [Leaving::Count, Leaving::Killed, Leaving::ClosedStdout] {
        let count: &[&str] = if leaving == Leaving::Count {
            &["--count", "1"]
        } else {
            &[]
        };
        let mut consumer = ring.consumer(count).stdout_unread().start();
        ring.wait_for_consumer(&consumer);
        let mut producer = ring.producer(&[]).stdin_open().start();
        ring.wait_for_producers(1);
        producer.write("1\n");
        let mut stdout = consumer.take_stdout();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
        assert_eq!(line, "1\n");
        match leaving {
            Leaving::Count => drop(consumer.finish().quietly(DONE)),
            Leaving::Killed => {
                // With the line released nothing is unread, and so nothing is kept.
                wait_until("the line is released", || {
                    ring.number("received_messages") == 1
                });
                consumer.kill().quietly(KILLED);
            }
            Leaving::ClosedStdout => {
                // A consumer that sleeps on the ring notices its closed stdout, because it watches
                // that; or, if not, with the next line.
                drop(stdout);
                producer.write("2\n");
                consumer.finish().quietly(BROKEN_PIPE);
            }
        }
        // It may have noticed already, and then this line finds a closed pipe.
        if producer.is_alive() {
            producer.try_write("3\n");
        }
        let end = producer.finish_with_stdin_open().ended(BROKEN_PIPE);
        if ring.look().is_some() {
            assert!(
                leaving != Leaving::ClosedStdout,
                "kept although its unread messages were refused"
            );
            ring.semring("rm", &[]).run().ended(DONE);
        } else {
            assert_eq!(end.stderr, "");
        }
        ring.assert_gone();
    }
}

fn a_consumer_killed_at_the_end_of_everything_leaves_no_ring(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    let mut producer = ring.producer(&[]).stdin_open().start();
    producer.write("1\n");
    consumer.wait_for_stdout("1\n");
    wait_until("the line is released", || {
        ring.number("received_messages") == 1
    });
    consumer.signal(Signal::SIGKILL);
    consumer.finish().quietly(KILLED);
    // Nothing is unread: the producer takes the ring with it. Whether it has learned of the death before
    // its input ended, or not, it has lost nothing by it.
    let producer = producer.finish();
    let exit = producer.exit;
    assert!(exit == BROKEN_PIPE || exit == DONE, "{exit}");
    producer.quietly(exit);
    ring.assert_gone();
}

fn yes_through_the_ring_to_head_leaves_nothing(ring: &Ring) {
    for _ in 0..5 {
        let (to_producer, from_yes) = std::io::pipe().expect("a pipe");
        let (to_head, from_consumer) = std::io::pipe().expect("a pipe");
        let yes = Call::new("yes", None).stdout(from_yes).start();
        let producer = ring.producer(&[]).stdin(to_producer).start();
        let consumer = ring.consumer(&[]).stdout(from_consumer).start();
        let head = Call::new("head", None).args(&["-1"]).stdin(to_head).start();
        head.finish().quietly(DONE).wrote("y\n");
        consumer.finish().quietly(BROKEN_PIPE);
        producer.finish().quietly(BROKEN_PIPE);
        yes.finish();
        ring.assert_gone();
    }
    // The same as it is typed.
    let script = r#"yes | "$P" "$RING" & "$C" "$RING" | head -1; wait"#;
    ring.shell(script).run().quietly(DONE).wrote("y\n");
    ring.assert_gone();
}
