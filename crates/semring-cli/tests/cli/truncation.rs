//! The file of a ring is truncated while the programs use it: an error message and code 1, never a
//! signal.

use std::fs::File;
use std::path::Path;

use crate::support::{DONE, FAILED, NOT_A_RING, Ring, Scratch, numbers, wait_until};

fn truncate(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).expect("the ring");
    file.set_len(len).expect("it is writable");
}

/// Truncates the ring to this many quarters of its size.
fn cut(ring: &Ring, quarters: u64) {
    let whole = std::fs::metadata(ring.path()).expect("the ring").len();
    truncate(&ring.path(), whole / 4 * quarters);
}

/// Both ended; the name is left, and nothing else.
fn clear_away(ring: &Ring) {
    std::fs::remove_file(ring.path()).expect("the name");
    ring.assert_gone();
}

#[test]
fn a_stream_of_lines_ends_on_both_sides() {
    for quarters in [0, 1, 2, 3] {
        let ring = Ring::posix("truncated-lines");
        let consumer = ring.consumer(&[]).start();
        let producer = ring.producer(&[]).feed_endless_seq().start();
        wait_until("lines come", || consumer.stdout().len() > 100_000);
        cut(&ring, quarters);
        let consumer = consumer.finish().said(FAILED, &["truncated"]);
        producer.finish().refused(FAILED, &["truncated"]);
        // The output is the beginning of the stream, without zeros in it.
        assert!(
            (1..)
                .zip(numbers(&consumer.stdout))
                .all(|(expected, number)| number == expected)
        );
        clear_away(&ring);
    }
}

#[test]
fn a_stream_of_bytes_ends_on_both_sides() {
    for quarters in [0, 1, 2, 3] {
        let ring = Ring::posix("truncated-raw");
        let null = File::options().write(true).open("/dev/null").expect("null");
        let zero = File::open("/dev/zero").expect("zero");
        let consumer = ring.consumer(&["--raw"]).stdout(null).start();
        let producer = ring.producer(&["--raw"]).stdin(zero).start();
        ring.wait_for_sent(1000);
        cut(&ring, quarters);
        consumer.finish().refused(FAILED, &["truncated"]);
        producer.finish().refused(FAILED, &["truncated"]);
        clear_away(&ring);
    }
}

#[test]
fn a_consumer_that_sleeps_ends_with_the_producer_that_notices() {
    let ring = Ring::posix("truncated-asleep");
    let mut consumer = ring.consumer(&[]).start();
    let mut producer = ring.producer(&[]).stdin_open().start();
    producer.write("1\n");
    wait_until("the line has come", || consumer.stdout() == b"1\n");
    consumer.wait_until_asleep_on_the_ring();
    truncate(&ring.path(), 0);
    // It looks after the ring while it waits for its stdin.
    producer
        .finish_with_stdin_open()
        .refused(FAILED, &["truncated"]);
    consumer.finish().said(FAILED, &["truncated"]).wrote("1\n");
    clear_away(&ring);
}

#[test]
fn producer_checks_its_consumer_at_end_of_input() {
    let ring = Ring::posix("truncated-end");
    let mut producer = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(1);
    truncate(&ring.path(), 0);
    producer.try_write("1\n");
    producer.finish().refused(FAILED, &["truncated"]);
    clear_away(&ring);
}

#[test]
fn waiting_producer_ends_with_its_consumer() {
    let ring = Ring::posix("truncated-full");
    let mut consumer = ring.consumer(&[]).stdout_unread().start();
    ring.wait_for_consumer(&consumer);
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    truncate(&ring.path(), 4096);
    // It goes on as soon as its output is read.
    consumer.capture_now();
    consumer.finish().said(FAILED, &["truncated"]);
    producer.finish().refused(FAILED, &["truncated"]);
    clear_away(&ring);
}

#[test]
fn ring_in_a_file_is_no_different() {
    let scratch = Scratch::new();
    let path = scratch.path("ring");
    let ring = Ring::posix("truncated-file");
    let script = format!(
        "seq 1000000000 | $P file:{0} & $C file:{0} | (head -c 100000; truncate -s 8192 {0}; cat) >/dev/null; \
         echo ${{PIPESTATUS[0]}}; wait $!; echo $?",
        path.display()
    );
    let output = ring.shell(&script).run();
    assert_eq!(output.text(), "1\n1\n", "{}", output.stderr);
    assert_eq!(output.stderr.matches("truncated").count(), 2);
    let address = format!("file:{}", path.display());
    let late = ring.shell(&format!("exec $C --no-create {address}"));
    late.run().refused(NOT_A_RING, &["truncated"]);
    std::fs::remove_file(&path).expect("the name");
    ring.shell("exec $S prune").run().ended(DONE);
}
