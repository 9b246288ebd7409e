//! The programs under a limit of file sizes (`ulimit -f`).

use std::fs::File;

use crate::support::{
    CONSUMER, Call, DONE, FAILED, Output, Ring, SEMRING, Scratch, numbers, over_both_backends, seq,
    whole_lines,
};

/// A program under the limit, in blocks of 512 or 1024 bytes: the shells differ.
fn limited<'r>(blocks: u32, program: &str, ring: Option<&'r Ring>, args: &[&str]) -> Call<'r> {
    let script = format!("ulimit -f {blocks} && exec \"$0\" \"$@\"");
    Call::new("sh", ring)
        .args(&["-c", &script, program])
        .args(args)
}

over_both_backends!(a_consumer_whose_output_is_too_large_ends_with_a_sentence);

/// As on a full disk: messages that did not get into the file are in the ring.
fn a_consumer_whose_output_is_too_large_ends_with_a_sentence(ring: &Ring) {
    const LAST: u64 = 40_000;
    let producer = ring.producer(&["-q", "--capacity", "1M"]);
    producer.input(seq(LAST)).run().quietly(DONE);
    let scratch = Scratch::new();
    let path = scratch.directory().join("output");
    let file = File::create(&path).unwrap();
    let args = ["-q", "--no-create", "--keep", ring.address()];
    let consumer = limited(64, CONSUMER, Some(ring), &args).stdout(file);
    let refused: Output = consumer.run().ended(FAILED);
    for words in ["stdout: File too large", "RLIMIT_FSIZE", "ulimit -f"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let written = std::fs::read(&path).unwrap();
    let (end, _) = whole_lines(&written);
    assert_eq!(written[..end], seq(LAST)[..end]);
    let had = numbers(&written[..end]).last().copied().unwrap_or(0);
    let rest = ring.consumer(&["-q", "--no-create"]).run().ended(DONE);
    let rest = numbers(rest.text().as_bytes());
    assert!(rest[0] <= had + 1, "{} after {had}", rest[0]);
    assert!(rest.iter().copied().eq(rest[0]..=LAST));
}

#[test]
fn programs_that_make_a_ring_name_the_limit() {
    let ring = Ring::posix("too-large");
    for args in [&["create"][..], &["create", "--guard", "pipe"]] {
        let args = [args, &[ring.address()]].concat();
        let refused = limited(1, SEMRING, Some(&ring), &args).run();
        refused.refused(FAILED, &["RLIMIT_FSIZE", "ulimit -f"]);
    }
}
