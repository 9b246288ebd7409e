//! Kinds of stdin, stdout and stderr: closed, the null device opened in every way, non-blocking.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{
    CONSUMER, Call, DONE, FAILED, NO_RING, PRODUCER, Ring, SEMRING, over_both_backends, seq,
};

over_both_backends! {
    the_null_device_takes_and_gives,
    streams_of_the_wrong_direction_are_refused,
}

/// Commands of `semring` that print.
const PRINTING: [&str; 9] = [
    "ls",
    "ls --json",
    "info --json",
    "top --json -n 1 -i 10ms",
    "prune -n",
    "man",
    "completions bash",
    "--help",
    "--version",
];

/// The command with the ring's address where it needs one.
fn script(command: &str, redirection: &str) -> String {
    let address = if command.starts_with("info") {
        r#""$RING""#
    } else {
        ""
    };
    format!(r#"exec "$S" {command} {address} {redirection}"#)
}

/// Supervisors open it for reading and writing.
fn the_null_device_takes_and_gives(ring: &Ring) {
    ring.semring("create", &[]).run().quietly(DONE);
    for command in PRINTING {
        for way in [">/dev/null", "1<>/dev/null", "</dev/null 1<>/dev/null"] {
            ring.shell(&script(command, way)).run().quietly(DONE);
        }
        for way in [">&-", "<&- >&-", "2</dev/null >&- "] {
            let output = ring.shell(&script(command, way)).run().ended(FAILED);
            let told = output.stderr.contains("stdout is closed");
            assert!(told || way.starts_with('2'), "{command}: {}", output.stderr);
        }
    }
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.shell(r#"exec "$C" -q "$RING" 1<>/dev/null 2<>/dev/null"#)
        .run()
        .quietly(DONE);
    assert_eq!(ring.number("unread_messages"), 0);
    for way in ["</dev/null", "0<>/dev/null", "0<>/dev/null >&- 2>&-"] {
        ring.shell(&format!(r#"exec "$P" "$RING" {way}"#))
            .run()
            .quietly(DONE);
    }
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn streams_of_the_wrong_direction_are_refused(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    for command in PRINTING {
        ring.shell(&script(command, "1</dev/null"))
            .run()
            .said(FAILED, &["stdout", "reading only"]);
    }
    ring.shell(r#"exec "$C" "$RING" 1</dev/null"#)
        .run()
        .said(FAILED, &["stdout", "reading only"]);
    ring.shell(r#"exec "$P" "$RING" 0>/dev/null"#)
        .run()
        .said(FAILED, &["stdin", "writing only"]);
    ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(3));
    ring.assert_gone();
}

/// A non-blocking pipe of one page.
fn non_blocking_pipe() -> (File, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("a small pipe");
    let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    fcntl(&writer, flags).expect("a pipe that does not block");
    (File::from(OwnedFd::from(reader)), writer.into())
}

fn is_non_blocking(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).expect("a descriptor");
    OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)
}

const POLL: i64 = libc::SYS_ppoll;

#[cfg(target_arch = "x86_64")]
const POLLS: [i64; 2] = [POLL, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const POLLS: [i64; 1] = [POLL];

#[test]
fn text_comes_whole_through_a_non_blocking_stdout() {
    for (program, args) in [
        (SEMRING, &["completions", "bash"][..]),
        (SEMRING, &["man", "semring-producer"]),
        (SEMRING, &["bench", "--help"]),
        (PRODUCER, &["--help"]),
        (CONSUMER, &["--help"]),
    ] {
        let expected = Call::new(program, None).args(args).run().quietly(DONE);
        let (mut reader, writer) = non_blocking_pipe();
        let shared = writer.try_clone().expect("a descriptor");
        let mut running = Call::new(program, None).args(args).stdout(writer).start();
        if expected.stdout.len() > 4096 {
            running.wait_until_in(&POLLS);
        }
        // Whose the pipe is, keeps it as it was.
        assert!(is_non_blocking(&shared));
        drop(shared);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("a pipe");
        running.finish().quietly(DONE);
        crate::support::assert_same(&text, &expected.stdout);
    }
}

#[test]
fn payload_comes_whole_through_a_non_blocking_stdout() {
    let ring = Ring::posix("non-blocking-payload");
    ring.producer(&["-q"]).input(seq(8_000)).run().quietly(DONE);
    let (mut reader, writer) = non_blocking_pipe();
    let running = ring.consumer(&["-q"]).stdout(writer).start();
    let mut text = Vec::new();
    reader.read_to_end(&mut text).expect("a pipe");
    running.finish().quietly(DONE);
    crate::support::assert_same(&text, &seq(8_000));
    ring.assert_gone();
}

#[test]
fn a_sentence_comes_whole_through_a_non_blocking_stderr() {
    let ring = Ring::posix("non-blocking-stderr");
    for (program, args) in [
        (SEMRING, &["info"][..]),
        (CONSUMER, &["--no-create"]),
        (CONSUMER, &["--no-create", "--json"]),
    ] {
        let mut words = args.to_vec();
        words.push(ring.address());
        let expected = Call::new(program, None).args(&words).run().ended(NO_RING);
        let (mut reader, writer) = non_blocking_pipe();
        let mut full = File::from(writer.try_clone().expect("a descriptor"));
        let mut filled = 0;
        while let Ok(bytes @ 1..) = full.write(&[b'.'; 64]) {
            filled += bytes;
        }
        drop(full);
        let mut child = Command::new(program)
            .args(&words)
            .stdin(Stdio::null())
            .stderr(writer)
            .spawn()
            .expect("it starts");
        crate::support::wait_until("it waits for room in stderr", || {
            let sleeping = semring_testkit::process::system_calls(child.id()).unwrap_or_default();
            let polls = sleeping.iter().flatten().any(|call| POLLS.contains(call));
            polls || child.try_wait().expect("our child").is_some()
        });
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("a pipe");
        assert_eq!(child.wait().expect("our child").code(), Some(3));
        let told = String::from_utf8_lossy(&text[filled..]);
        assert_eq!(told, expected.stderr);
    }
}
