//! A write that ends in the middle of a message: nothing is lost, and nothing comes twice but that message.

use std::fs::File;
use std::io::Read;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use semring_testkit::peer::Exit;

use crate::support::{
    DONE, FAILED, Output, Ring, Scratch, TIMED_OUT, assert_same, over_both_backends, seq,
    whole_lines,
};

over_both_backends! {
    a_full_file_ends_with_a_whole_message,
    a_signal_in_a_partial_write_loses_nothing,
    a_time_out_in_a_partial_write_loses_nothing,
}

const LINES: u64 = 100_000;

/// A file that may not grow beyond 64 KiB, as on a disk that is full, and then a run that goes on in it.
fn a_full_file_ends_with_a_whole_message(ring: &Ring) {
    for (framing, redirection) in [
        ("--lines", ">>"),
        ("--raw", ">>"),
        ("--length-prefixed", ">"),
    ] {
        let scratch = Scratch::new();
        let log = scratch.path("log");
        ring.semring("create", &["--capacity", "2M"])
            .run()
            .quietly(DONE);
        ring.producer(&["-q"]).input(seq(LINES)).run().quietly(DONE);
        let run = |limit: &str, to: &str| {
            let script = format!(
                r#"{limit} exec "$C" -q --no-create {framing} --convert "$RING" {to} "$LOG""#
            );
            ring.shell(&script)
                .with(|command| {
                    command.env("LOG", &log);
                })
                .run()
        };
        run("trap '' XFSZ; ulimit -f 64;", redirection).said(FAILED, &["stdout"]);
        run("", ">>").quietly(DONE);
        let mut expected = seq(LINES);
        match framing {
            "--raw" => expected.retain(|byte| *byte != b'\n'),
            "--length-prefixed" => {
                expected = expected
                    .split_inclusive(|byte| *byte == b'\n')
                    .map(|line| &line[..line.len() - 1])
                    .flat_map(|line| [&(line.len() as u32).to_le_bytes(), line].concat())
                    .collect();
            }
            _ => {}
        }
        assert_same(&std::fs::read(&log).expect("the log"), &expected);
        ring.semring("rm", &[]).run().quietly(DONE);
    }
}

/// The bytes in a pipe whose reader took nothing until the consumer had ended, and the rest from the next
/// consumer.
fn assert_nothing_lost(ring: &Ring, mut reader: std::io::PipeReader, first: &Output) {
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("a pipe");
    let (end, lines) = whole_lines(&got);
    assert!(!lines.is_empty());
    let part = got.len() - end;
    // The line that was written in part comes again, and that is reported.
    let told = first.stderr.contains("unfinished message");
    assert_eq!(told, part > 0, "{part} bytes: {}", first.stderr);
    let mut all = got[..end].to_vec();
    let rest = ring.consumer(&["-q", "--no-create"]).run().quietly(DONE);
    all.extend(rest.stdout);
    assert_same(&all, &seq(LINES));
}

fn stuck(ring: &Ring, args: &[&str]) -> (crate::support::Tool, std::io::PipeReader) {
    ring.semring("create", &["--capacity", "2M"])
        .run()
        .quietly(DONE);
    ring.producer(&["-q"]).input(seq(LINES)).run().quietly(DONE);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (ring.consumer(args).stdout(writer).start(), reader)
}

fn a_signal_in_a_partial_write_loses_nothing(ring: &Ring) {
    let (mut consumer, reader) = stuck(ring, &[]);
    #[cfg(target_arch = "x86_64")]
    consumer.wait_until_in(&[libc::SYS_poll, libc::SYS_ppoll]);
    #[cfg(not(target_arch = "x86_64"))]
    consumer.wait_until_in(&[libc::SYS_ppoll]);
    consumer.signal(Signal::SIGTERM);
    let first = consumer.finish().ended(Exit::Signal(libc::SIGTERM));
    assert_nothing_lost(ring, reader, &first);
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// The reader goes on as soon as the signal was sent: the last line is finished, or comes again.
#[test]
fn a_message_is_finished_after_a_signal() {
    let ring = Ring::posix("finished-message");
    let (mut consumer, reader) = stuck(&ring, &[]);
    #[cfg(target_arch = "x86_64")]
    consumer.wait_until_in(&[libc::SYS_poll, libc::SYS_ppoll]);
    #[cfg(not(target_arch = "x86_64"))]
    consumer.wait_until_in(&[libc::SYS_ppoll]);
    consumer.signal(Signal::SIGTERM);
    let (copy, mut writer) = std::io::pipe().expect("a pipe");
    let mut from = reader;
    let copying = std::thread::spawn(move || std::io::copy(&mut from, &mut writer));
    let collected = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut copy = copy;
        copy.read_to_end(&mut bytes).map(|_| bytes)
    });
    let first = consumer.finish().ended(Exit::Signal(libc::SIGTERM));
    copying.join().expect("no panic").expect("pipes");
    let got = collected.join().expect("no panic").expect("a pipe");
    let (end, _) = whole_lines(&got);
    assert_eq!(first.stderr.contains("unfinished message"), got.len() > end);
    let rest = ring.consumer(&["-q", "--no-create"]).run().quietly(DONE);
    assert_same(&[&got[..end], &rest.stdout].concat(), &seq(LINES));
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn a_time_out_in_a_partial_write_loses_nothing(ring: &Ring) {
    let (consumer, reader) = stuck(ring, &["--timeout", "50ms"]);
    let first = consumer.finish().ended(TIMED_OUT);
    assert_nothing_lost(ring, reader, &first);
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// Bytes that another process wrote later are not cut off.
#[test]
fn a_file_that_others_write_keeps_their_bytes() {
    let ring = Ring::posix("shared-log");
    let scratch = Scratch::new();
    let log = scratch.path("log");
    ring.semring("create", &["--capacity", "2M"])
        .run()
        .quietly(DONE);
    ring.producer(&["-q"]).input(seq(LINES)).run().quietly(DONE);
    // Ours go to the beginning of a file that is longer.
    std::fs::write(&log, vec![b'#'; 70_000]).expect("a file");
    let script = r#"trap '' XFSZ; ulimit -f 64; exec "$C" -q "$RING" 1<>"$LOG""#;
    let output = ring.shell(script).with(|command| {
        command.env("LOG", &log);
    });
    output.run().ended(FAILED);
    let mut bytes = Vec::new();
    let mut file = File::open(&log).expect("the log");
    file.read_to_end(&mut bytes).expect("the log");
    assert_eq!(bytes.len(), 70_000);
    assert_same(&bytes[65_536..], &vec![b'#'; 70_000 - 65_536]);
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// The thread that makes signals known stands still, as on a busy machine, while the reader takes everything.
#[test]
fn signal_counts_before_its_thread_runs() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let ring = Ring::posix("signal-counts");
    let (mut consumer, mut reader) = stuck(&ring, &["-q"]);
    consumer.wait_until_in(semring_testkit::process::POLLING);
    let thread = thread_of(consumer.pid(), "signals");
    ptrace::seize(thread, ptrace::Options::empty()).expect("our child");
    ptrace::interrupt(thread).expect("it is seized");
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
    consumer.signal(Signal::SIGTERM);
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).map(|_| got)
    });
    // It ends with its process.
    waitpid(thread, Some(WaitPidFlag::__WALL)).expect("its end");
    consumer.finish().ended(Exit::Signal(libc::SIGTERM));
    let got = reading.join().expect("no panic").expect("a pipe");
    let (end, _) = whole_lines(&got);
    let rest = ring.consumer(&["-q", "--no-create"]).run().quietly(DONE);
    assert_same(&[&got[..end], &rest.stdout].concat(), &seq(LINES));
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// The thread of a process that has this name.
fn thread_of(pid: u32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let mut threads = tasks.map(|task| task.expect("a thread").path());
    let is_it = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let task = threads.find(is_it).expect("the thread");
    let id = task.file_name().and_then(|id| id.to_str());
    Pid::from_raw(id.and_then(|id| id.parse().ok()).expect("a number"))
}
