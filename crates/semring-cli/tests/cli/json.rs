//! `--json` of producer and consumer: stderr holds one object in all cases.

use semring_testkit::peer::Exit;
use serde_json::Value;

use crate::support::{
    DONE, FAILED, NO_RING, Output, Ring, TIMED_OUT, number, one_object, over_both_backends, seq,
};

over_both_backends! {
    json_holds_notes,
    json_holds_the_error,
    json_holds_the_end_by_a_signal,
}

/// The object, which is all that stderr holds.
#[track_caller]
fn object(output: Output, exit: Exit) -> Value {
    one_object(&output.ended(exit).stderr)
}

fn json_holds_notes(ring: &Ring) {
    let producer = ring.producer(&["--json"]).input(seq(3)).run();
    let object_of_producer = object(producer, DONE);
    assert_eq!(number(&object_of_producer, "messages"), 3);
    assert_eq!(number(&object_of_producer, "exit_code"), 0);
    assert_eq!(object_of_producer["error"], Value::Null);
    let note = object_of_producer["notes"][0].as_str().expect("a sentence");
    assert!(note.contains("3 messages"), "{note}");
    let consumer = ring.consumer(&["--json", "-v"]).run().wrote(seq(3));
    let object_of_consumer = object(consumer, DONE);
    assert_eq!(number(&object_of_consumer, "messages"), 3);
    // The findings, and with -v that the ring was opened and removed.
    assert!(number(&object_of_consumer, "notes") >= 3);
    // With -q there are no notes.
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    let quiet = object(ring.consumer(&["--json", "-q"]).run(), DONE);
    assert_eq!(number(&quiet, "notes"), 0);
    ring.assert_gone();
}

fn json_holds_the_error(ring: &Ring) {
    let missing = object(ring.consumer(&["--json", "--no-create"]).run(), NO_RING);
    assert_eq!(missing["ring"], ring.address());
    assert_eq!(number(&missing, "exit_code"), 3);
    assert!(missing["error"].is_string() && missing.get("messages").is_none());
    let late = ring.consumer(&["--json", "--timeout", "10ms"]).run();
    let late = object(late, TIMED_OUT);
    assert_eq!(number(&late, "messages"), 0);
    assert!(late["error"].is_string());
    let closed = ring.shell(r#"exec "$P" --json "$RING" <&-"#).run();
    let closed = object(closed, FAILED);
    assert!(
        closed["error"]
            .as_str()
            .is_some_and(|error| error.contains("stdin"))
    );
    ring.assert_gone();
}

fn json_holds_the_end_by_a_signal(ring: &Ring) {
    let mut producer = ring.producer(&["--json"]).stdin_open().start();
    producer.write("one\ntwo");
    ring.wait_for_sent(1);
    producer.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = producer.finish_with_stdin_open();
    let ended = object(ended, Exit::Signal(libc::SIGTERM));
    assert_eq!(number(&ended, "exit_code"), 143);
    assert_eq!(number(&ended, "messages"), 1);
    let unsent = ended["notes"][0].as_str().expect("a sentence");
    assert!(unsent.contains("3 bytes of an unfinished line"), "{unsent}");
    ring.semring("rm", &[]).run().quietly(DONE);
}
