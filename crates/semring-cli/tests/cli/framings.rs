//! Framings of the two sides: each message is written as it was sent, and a framing given on the other
//! side is used, refused or converted to, in either order of starting.

use std::io::Write;

use crate::support::{Call, DONE, FAILED, Output, PRODUCER, Ring, Tool, USAGE, over_both_backends};

over_both_backends! {
    each_framing_comes_out_as_it_went_in,
    framings_agree_convert_or_are_refused,
    producers_of_two_framings_share_a_ring,
    a_successor_of_another_framing_finds_old_messages_unread,
    plain_messages_are_lines_or_as_requested,
    a_refused_framing_leaves_all_messages_to_the_next_consumer,
    a_record_that_is_too_short_or_too_long_is_an_error,
}

const OPTIONS: [&[&str]; 5] = [
    &["--lines"],
    &["--null"],
    &["--length-prefixed"],
    &["--raw"],
    &["--fixed", "3"],
];

/// Three messages of three bytes, some of which are delimiters of other framings.
const MESSAGES: [&[u8; 3]; 3] = [b"one", b"t\0o", b"\x03\0\0"];

/// The output of a consumer with this option, and the input of a producer with it.
fn stream(option: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in MESSAGES {
        // A NUL ends a message with `--null`.
        let message: Vec<u8> = match option[0] {
            "--null" => message.iter().map(|byte| byte | 0x40).collect(),
            _ => message.to_vec(),
        };
        if option[0] == "--length-prefixed" {
            bytes.extend(3u32.to_le_bytes());
        }
        bytes.extend(message);
        match option[0] {
            "--lines" => bytes.push(b'\n'),
            "--null" => bytes.push(0),
            _ => {}
        }
    }
    bytes
}

/// The messages that a producer with this option sends, written with another one.
fn converted(from: &[&str], to: &[&str]) -> Vec<u8> {
    let input = stream(from);
    let messages: Vec<Vec<u8>> = match from[0] {
        "--lines" | "--null" => input.chunks(4).map(|chunk| chunk[..3].to_vec()).collect(),
        "--length-prefixed" => input.chunks(7).map(|chunk| chunk[4..].to_vec()).collect(),
        "--fixed" => input.chunks(3).map(<[u8]>::to_vec).collect(),
        // One read(2) is one chunk here.
        _ => vec![input],
    };
    let mut output = Vec::new();
    for message in messages {
        if to[0] == "--length-prefixed" {
            output.extend((message.len() as u32).to_le_bytes());
        }
        output.extend(message);
        match to[0] {
            "--lines" => output.push(b'\n'),
            "--null" => output.push(0),
            _ => {}
        }
    }
    output
}

/// Both sides, either first; the consumer's end is returned.
fn pass(
    ring: &Ring,
    producer: &[&str],
    input: &[u8],
    consumer: &[&str],
    producer_first: bool,
) -> Output {
    let producer = ring.producer(&[producer, &["-q"]].concat()).input(input);
    let consumer = ring.consumer(&[consumer, &["-q"]].concat());
    if producer_first {
        producer.run().ended(DONE);
        return consumer.run();
    }
    let consumer = consumer.start();
    ring.wait_for_consumer(&consumer);
    // With 141 it learned that its consumer has ended.
    let _ = producer.run();
    consumer.finish()
}

fn each_framing_comes_out_as_it_went_in(ring: &Ring) {
    for option in OPTIONS {
        for producer_first in [true, false] {
            for consumer in [&[][..], option] {
                let input = stream(option);
                let output = pass(ring, option, &input, consumer, producer_first);
                output.quietly(DONE).wrote(input);
                ring.assert_gone();
            }
        }
    }
    for (option, input) in [("--lines", "a\n\nlast"), ("--null", "a\0\n\0last")] {
        for producer_first in [true, false] {
            let output = pass(ring, &[option], input.as_bytes(), &[], producer_first);
            output.quietly(DONE).wrote(input);
            ring.assert_gone();
        }
    }
}

fn framings_agree_convert_or_are_refused(ring: &Ring) {
    for from in OPTIONS {
        for to in OPTIONS.into_iter().filter(|to| *to != from) {
            for producer_first in [true, false] {
                let input = stream(from);
                let names = [&from.join(" ")[..], &to.join(" "), "--convert"];
                pass(ring, from, &input, to, producer_first).refused(USAGE, &names);
                ring.semring("rm", &[]).run();
                ring.assert_gone();
                let convert = [to, &["--convert"]].concat();
                let output = pass(ring, from, &input, &convert, producer_first);
                if from[0] == "--raw" && to[0] == "--fixed" {
                    output.refused(FAILED, &["9 bytes", "--fixed 3"]);
                    ring.semring("rm", &[]).run();
                } else {
                    output.quietly(DONE).wrote(converted(from, to));
                }
                ring.assert_gone();
            }
        }
    }
    // Records of another length are another framing.
    let output = pass(ring, &["--fixed", "3"], b"abcdef", &["--fixed", "2"], true);
    output.refused(USAGE, &["--fixed 3", "--fixed 2"]);
    ring.semring("rm", &[]).run().quietly(DONE);
    let call = ring.consumer(&["--convert"]).run();
    call.refused(USAGE, &["--lines", "--raw"]);
}

fn producers_of_two_framings_share_a_ring(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    let mut lines = ring.producer(&[]).stdin_open().start();
    let mut null = ring.producer(&["-0"]).stdin_open().start();
    let mut prefixed = ring.producer(&["--length-prefixed"]).stdin_open().start();
    ring.wait_for_producers(3);
    let mut expected = Vec::new();
    let mut step = |tool: &mut Tool, bytes: &[u8]| {
        tool.write(bytes);
        expected.extend(bytes);
        consumer.wait_for_bytes(expected.len());
    };
    for _ in 0..3 {
        step(&mut lines, b"line\n");
        step(&mut null, b"nul\0");
        step(&mut prefixed, b"\x02\0\0\0ab");
    }
    for producer in [lines, null, prefixed] {
        producer.finish().quietly(DONE);
    }
    consumer.finish().quietly(DONE).wrote(expected);
    ring.assert_gone();
}

fn a_successor_of_another_framing_finds_old_messages_unread(ring: &Ring) {
    let produce = |args: &[&str], input: &[u8]| {
        let producer = ring.producer(&[args, &["-q"]].concat());
        producer.input(input).run().quietly(DONE);
    };
    // All three have the same lane, one after the other; the first two end without a delimiter.
    produce(&[], b"one\ntwo");
    produce(&["-0"], b"three\0four");
    produce(&["--fixed", "2"], b"abcd");
    produce(&["--raw"], b"the\nrest");
    let all = b"one\ntwo\nthree\0four\0abcdthe\nrest";
    ring.consumer(&["-q"]).run().quietly(DONE).wrote(all);
    ring.assert_gone();
}

fn plain_messages_are_lines_or_as_requested(ring: &Ring) {
    let cases: [(&[&str], &[u8]); 5] = [
        (&[], b"one\ntwo\n"),
        (&["--lines"], b"one\ntwo\n"),
        (&["-0"], b"one\0two\0"),
        (&["--raw"], b"onetwo"),
        (&["--fixed", "3"], b"onetwo"),
    ];
    let builder = semring::mpsc::Builder::new(ring.address());
    for (args, expected) in cases {
        let made = builder.create().expect("a ring");
        let mut producer = made.attach_producer().expect("a producer");
        for message in ["one", "two"] {
            producer.send(message.as_bytes()).expect("room");
        }
        drop(producer);
        drop(made);
        let consumer = ring.consumer(&[args, &["-q"]].concat());
        consumer.run().quietly(DONE).wrote(expected);
        ring.semring("rm", &[]).run().quietly(DONE);
    }
}

/// Earlier messages are written and gone; the message itself stays.
fn a_refused_framing_leaves_all_messages_to_the_next_consumer(ring: &Ring) {
    ring.producer(&["-q"]).input("1\n2\n").run().quietly(DONE);
    ring.producer(&["-q", "-0"])
        .input("3\x004\0")
        .run()
        .quietly(DONE);
    let consumer = ring
        .consumer(&["--lines"])
        .run()
        .ended(USAGE)
        .wrote("1\n2\n");
    let told = &consumer.stderr;
    assert!(
        told.contains("--null") && told.contains("kept 2 unread messages"),
        "{told}"
    );
    ring.consumer(&["-q"]).run().quietly(DONE).wrote("3\x004\0");
    ring.assert_gone();
}

fn a_record_that_is_too_short_or_too_long_is_an_error(ring: &Ring) {
    let producer = ring
        .producer(&["-q", "--fixed", "4"])
        .input("abcdefghij")
        .run();
    producer.said(FAILED, &["record 3", "2 of 4 bytes"]);
    ring.consumer(&["-q"]).run().truncated().wrote("abcdefgh");
    ring.assert_gone();
    let args = ["-q", "--capacity", "4K", "--fixed", "1025"];
    let mut command = Call::new(PRODUCER, None)
        .args(&args)
        .args(&[ring.address()]);
    command = command.feed(|stdin| stdin.write_all(b"x"));
    command
        .run()
        .refused(FAILED, &["1025 bytes", "1024 bytes", "--capacity"]);
    ring.consumer(&["-q"]).run().truncated().wrote("");
    ring.assert_gone();
}
