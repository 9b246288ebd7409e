//! Any filter as a coprocess: `semring-consumer` before it, `semring-producer` after it.

use std::process::Command;
use std::time::Duration;

use semring::RecvError;
use semring::process::{self, Child};
use semring_testkit::watchdog::Watchdog;

/// Time after which a test must hang.
const HANG_TIMEOUT: Duration = Duration::from_secs(300);

/// Starts a filter between the two programs.
fn start(consumer: &str, filter: &str, producer: &str) -> Child {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!(r#""$CONSUMER" {consumer} "$SEMRING_STDIN" | {filter} | "$PRODUCER" {producer} "$SEMRING_STDOUT""#),
    ]);
    shell
        .env("CONSUMER", env!("CARGO_BIN_EXE_semring-consumer"))
        .env("PRODUCER", env!("CARGO_BIN_EXE_semring-producer"));
    process::spawn(shell).expect("a shell starts")
}

fn messages(child: &mut Child) -> Vec<String> {
    let output = child.stdout.as_mut().expect("a ring");
    let mut messages = Vec::new();
    loop {
        match output.recv() {
            Ok(message) => messages.push(String::from_utf8(message.to_vec()).unwrap()),
            Err(RecvError::EndOfStream { .. }) => return messages,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn filter_gets_and_gives_lines() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "sort");
    let mut child = start("", "sort -r", "");
    let mut input = child.stdin.take().unwrap();
    for word in ["b", "c", "a"] {
        input.send(word.as_bytes()).unwrap();
    }
    drop(input);
    assert_eq!(messages(&mut child), ["c", "b", "a"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn bytes_go_through_a_filter_unchanged() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "cat");
    let mut child = start("--raw", "cat", "--raw");
    let mut input = child.stdin.take().unwrap();
    let bytes: Vec<u8> = (0..1_000_000u32)
        .map(|at| (at * 7 + at / 255) as u8)
        .collect();
    let output = child.stdout.as_mut().unwrap();
    let arrived = std::thread::scope(|scope| {
        scope.spawn(|| {
            for chunk in bytes.chunks(10_000) {
                input.send(chunk).unwrap();
            }
            drop(input);
        });
        let mut arrived = Vec::new();
        while let Ok(message) = output.recv() {
            message.append_to(&mut arrived);
        }
        arrived
    });
    assert!(arrived == bytes);
    assert!(child.wait().unwrap().success());
}

#[test]
fn filter_of_one_line_is_a_broken_pipe() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "head");
    let mut child = start("", "head -n 1", "");
    let mut input = child.stdin.take().unwrap();
    // Until the ring is full and is not emptied any more.
    let refused = loop {
        if let Err(error) = input.send(&[b'x'; 1000]) {
            break error;
        }
    };
    assert!(
        matches!(
            refused,
            semring::SendError::ConsumerGone | semring::SendError::Closed
        ),
        "{refused}"
    );
    assert_eq!(messages(&mut child), ["x".repeat(1000)]);
    child.wait().unwrap();
}

#[test]
fn a_killed_filter_is_the_end_of_both_streams() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a killed filter");
    let mut child = start("", "sh -c 'read line; kill -9 $$'", "");
    child.stdin.as_mut().unwrap().send(b"go").unwrap();
    assert!(messages(&mut child).is_empty());
    while child.stdin.as_mut().unwrap().send(&[b'x'; 1000]).is_ok() {}
    child.wait().unwrap();
}
