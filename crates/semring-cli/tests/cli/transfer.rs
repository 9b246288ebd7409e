//! The output is the input, in every framing, in either order of starting.

use crate::support::{DONE, FAILED, Ring, assert_same, over_both_backends, seq};

over_both_backends! {
    million_lines_identical_producer_first,
    million_lines_identical_consumer_first,
    nul_ended_identical_in_each_order_of_start,
    length_prefixed_identical_in_each_order_of_start,
    raw_stream_identical_in_each_order_of_start,
    empty_messages_come_out_identical_in_each_framing,
    framings_are_converted_between_the_sides,
    messages_as_long_as_the_lane_allows_pass,
    a_lane_of_the_smallest_size_carries_the_same_stream,
    truncated_length_prefix_is_an_error_at_the_end,
}

#[derive(Clone, Copy)]
enum First {
    Producer,
    Consumer,
}

/// Sends `input` through the ring, and checks that `expected` comes out and nothing is left.
fn transfer(ring: &Ring, first: First, input: &[u8], sides: [&[&str]; 2], expected: &[u8]) {
    let [to_producer, to_consumer] = sides;
    let producer = ring.producer(to_producer).input(input);
    let consumer = ring.consumer(to_consumer);
    let (producer, consumer) = match first {
        First::Producer => {
            let producer = producer.start();
            // All of a short input may be in the ring by now, and the producer gone.
            ring.wait_for_sent(1);
            (producer, consumer.start())
        }
        First::Consumer => {
            let consumer = consumer.start();
            ring.wait_for_consumer(&consumer);
            (producer.start(), consumer)
        }
    };
    // A producer that ends before the consumer starts reports how many messages wait.
    producer.finish().ended(DONE);
    let output = consumer.finish().ended(DONE);
    assert_same(&output.stdout, expected);
    ring.assert_gone();
}

fn in_both_orders(ring: &Ring, input: &[u8], framing: &[&str]) {
    for first in [First::Producer, First::Consumer] {
        transfer(ring, first, input, [framing, framing], input);
    }
}

/// Bytes without a pattern, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Messages of many lengths, each after its length.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let (mut at, mut len) = (0, 0);
    while at < bytes.len() {
        let end = (at + len).min(bytes.len());
        stream.extend(((end - at) as u32).to_le_bytes());
        stream.extend(&bytes[at..end]);
        at = end;
        len = (len * 5 + 1) % 40_009;
    }
    stream
}

fn million_lines_identical_producer_first(ring: &Ring) {
    let input = seq(1_000_000);
    transfer(ring, First::Producer, &input, [&[], &["--lines"]], &input);
}

fn million_lines_identical_consumer_first(ring: &Ring) {
    let input = seq(1_000_000);
    transfer(ring, First::Consumer, &input, [&["--lines"], &[]], &input);
}

fn nul_ended_identical_in_each_order_of_start(ring: &Ring) {
    let mut input = seq(200_000);
    // Every third keeps its newline inside: only NUL ends a message here.
    for (count, byte) in input.iter_mut().filter(|byte| **byte == b'\n').enumerate() {
        if count % 3 != 0 {
            *byte = 0;
        }
    }
    in_both_orders(ring, &input, &["-0"]);
    transfer(
        ring,
        First::Consumer,
        &input,
        [&["--null"], &["-0"]],
        &input,
    );
}

fn length_prefixed_identical_in_each_order_of_start(ring: &Ring) {
    in_both_orders(ring, &prefixed(&noise(8_000_000)), &["--length-prefixed"]);
}

fn raw_stream_identical_in_each_order_of_start(ring: &Ring) {
    in_both_orders(ring, &noise(9_999_991), &["--raw"]);
}

fn empty_messages_come_out_identical_in_each_framing(ring: &Ring) {
    in_both_orders(ring, &b"\n".repeat(100_000), &["--lines"]);
    in_both_orders(ring, &b"\0".repeat(100_000), &["--null"]);
    in_both_orders(ring, &b"\0\0\0\0".repeat(100_000), &["--length-prefixed"]);
    in_both_orders(ring, b"\n\none\n\n\ntwo\n\n", &["--lines"]);
}

fn framings_are_converted_between_the_sides(ring: &Ring) {
    let messages = ["one", "", "three and more", "4"];
    let text = |end: &str| {
        messages
            .map(|message| format!("{message}{end}"))
            .concat()
            .into_bytes()
    };
    let (lines, nul) = (text("\n"), text("\0"));
    let mut lengths = Vec::new();
    for message in messages {
        lengths.extend((message.len() as u32).to_le_bytes());
        lengths.extend(message.as_bytes());
    }
    let forms: [(&str, &[u8]); 3] = [
        ("--lines", &lines),
        ("--null", &nul),
        ("--length-prefixed", &lengths),
    ];
    for (from, input) in forms {
        for (to, output) in forms {
            let options: [&[&str]; 2] = [&[from], &[to, "--convert"]];
            transfer(ring, First::Producer, input, options, output);
            transfer(ring, First::Consumer, input, options, output);
        }
        // Nothing stands between the messages of a raw stream.
        let options: [&[&str]; 2] = [&[from], &["--raw", "--convert"]];
        transfer(ring, First::Consumer, input, options, &text(""));
    }
}

fn messages_as_long_as_the_lane_allows_pass(ring: &Ring) {
    let mut input = Vec::new();
    for _ in 0..50 {
        for len in [16 << 10, 1, (16 << 10) - 1, 0] {
            input.extend(std::iter::repeat_n(b'x', len));
            input.push(b'\n');
        }
    }
    in_both_orders(ring, &input, &["--capacity", "64K"]);
}

fn a_lane_of_the_smallest_size_carries_the_same_stream(ring: &Ring) {
    in_both_orders(
        ring,
        &seq(100_000),
        &["--capacity", "4K", "--producers", "1"],
    );
    in_both_orders(ring, &noise(1_000_003), &["--raw", "--capacity", "4K"]);
}

fn truncated_length_prefix_is_an_error_at_the_end(ring: &Ring) {
    let consumer = ring.consumer(&["--length-prefixed"]).start();
    ring.wait_for_consumer(&consumer);
    let input = b"\x02\0\0\0ab\x05\0\0\0cd".to_vec();
    ring.producer(&["--length-prefixed"])
        .input(input)
        .run()
        .refused(FAILED, &[]);
    consumer.finish().truncated().wrote(b"\x02\0\0\0ab");
    ring.assert_gone();
}
