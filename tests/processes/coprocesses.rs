//! Programs with rings in place of stdin and stdout: their ends, their parents' ends, their descriptors.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use semring::process::{self, Child};
use semring::{RecvError, SendError, SpawnError, StdioError};
use semring_testkit::names::RingGuard;
use semring_testkit::peer::Peer;
use semring_testkit::watchdog::Watchdog;

use crate::fixture::{PEER, SMALL};
use crate::rings;

const HANG_TIMEOUT: Duration = Duration::from_secs(600);

fn command(part: &[&str]) -> Command {
    let mut command = Command::new(PEER);
    command.arg("coprocess").args(part);
    command
}

fn start(part: &[&str]) -> (Child, Watchdog) {
    let watchdog = Watchdog::new(HANG_TIMEOUT, &part.join(" "));
    let mut command = command(part);
    command.stdout(Stdio::null());
    let child = rings::coprocess().capacity(SMALL).spawn(command).unwrap();
    (child, watchdog)
}

fn send_until_refused(child: &mut Child) -> SendError {
    let stdin = child.stdin.as_mut().unwrap();
    loop {
        if let Err(error) = stdin.send(&[0; 1000]) {
            return error;
        }
    }
}

#[test]
fn a_coprocess_receives_and_sends() {
    let (mut child, _watchdog) = start(&["echo"]);
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..5000u32 {
                input.send(&number.to_le_bytes().repeat(50)).unwrap();
            }
        });
        for number in 0..5000u32 {
            let echo = output.recv().unwrap().to_vec();
            assert_eq!(echo, number.to_le_bytes().repeat(50));
        }
        assert!(matches!(
            output.recv().err(),
            Some(RecvError::EndOfStream { .. })
        ));
    });
    assert!(child.wait().unwrap().success());
    assert!(child.wait().unwrap().success(), "on each call");
}

#[test]
fn waiting_closes_the_childs_input() {
    let (mut child, _watchdog) = start(&["echo"]);
    let runs = child.try_wait().unwrap_err();
    assert_eq!(runs.kind(), ErrorKind::WouldBlock);
    child.stdin.as_mut().unwrap().send(b"x").unwrap();
    assert_eq!(
        child.stdout.as_mut().unwrap().recv().unwrap().to_vec(),
        b"x"
    );
    assert!(child.wait_deadline(HANG_TIMEOUT).unwrap().success());
    assert!(child.stdin.is_none());
    assert!(child.try_wait().unwrap().success());
}

#[test]
fn a_child_that_never_opens_its_rings_ends_both_streams() {
    let (mut child, _watchdog) = start(&["exit", "3"]);
    assert!(matches!(
        child.stdout.as_mut().unwrap().recv().err(),
        Some(RecvError::EndOfStream { .. })
    ));
    assert_eq!(send_until_refused(&mut child), SendError::ConsumerGone);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // One whose end wakes both sides of the parent.
    let (mut child, _watchdog) = start(&["stuck"]);
    let runs = child.wait_deadline(Duration::from_millis(1)).unwrap_err();
    assert_eq!(runs.kind(), ErrorKind::TimedOut);
    let (mut child, _watchdog) = start(&["stuck"]);
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    while input.try_send(&[0; 1000]).is_ok() {}
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || input.send(&[0; 1000]));
        let receiving = scope.spawn(move || output.recv().map(drop));
        child.kill().unwrap();
        assert_eq!(sending.join().unwrap(), Err(SendError::ConsumerGone));
        assert!(matches!(
            receiving.join().unwrap(),
            Err(RecvError::EndOfStream { .. })
        ));
    });
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    child.kill().expect("no error if it has ended");
}

#[test]
fn a_killed_child_ends_both_streams() {
    let watchdog = Watchdog::new(HANG_TIMEOUT, "park");
    let mut command = command(&["park"]);
    // Its real stdout reports when it has its rings.
    let (mut reader, stdout) = std::io::pipe().unwrap();
    command.stdout(stdout);
    let mut child = rings::coprocess().capacity(SMALL).spawn(command).unwrap();
    let mut line = [0; 5];
    std::io::Read::read_exact(&mut reader, &mut line).unwrap();
    assert_eq!(&line, b"open\n");
    child.kill().unwrap();
    assert!(matches!(
        child.stdout.as_mut().unwrap().recv().err(),
        Some(RecvError::EndOfStream { .. })
    ));
    assert_eq!(send_until_refused(&mut child), SendError::ConsumerGone);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    drop(watchdog);
}

/// A parent that is killed after these reports, its own or its child's, and the child's reports after
/// that.
fn after_the_parent(part: &str, before: &[&str]) {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, part);
    let mut parent = Peer::start(PEER, ["coprocess", "parent", part]);
    let mut awaited = before.to_vec();
    while !awaited.is_empty() {
        let line = parent.read_line().expect("both are alive");
        awaited.retain(|beginning| !line.starts_with(beginning));
    }
    parent.kill();
    // The child has its real stdout from its parent; when that ends, the child has ended.
    let reader: Vec<String> = std::iter::from_fn(|| parent.read_line()).collect();
    let last: Vec<&str> = reader
        .iter()
        .map(String::as_str)
        .filter(|line| *line != "open")
        .collect();
    assert_eq!(last, ["received 1 EndOfStream", "refused ConsumerGone"]);
}

#[test]
fn a_killed_parent_ends_both_streams_of_its_child() {
    after_the_parent("watch", &["child ", "open"]);
}

#[test]
fn late_child_of_a_dead_parent_finds_both_ends() {
    after_the_parent("orphan", &["child "]);
}

#[test]
fn a_child_gets_its_two_descriptors_and_no_more() {
    // Descriptors that must not be inherited. (Those with which the test itself was started are.)
    let path = std::env::temp_dir().join(semring_testkit::names::unique("descriptors"));
    let _file = std::fs::File::create(&path).unwrap();
    let _ring = rings::spsc("memfd:").create().unwrap();
    let (mut child, _watchdog) = start(&["descriptors"]);
    let mut output = child.stdout.take().unwrap();
    let mut found = Vec::new();
    while let Ok(message) = output.recv() {
        found.push(String::from_utf8(message.to_vec()).unwrap());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(child.wait().unwrap().success());
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(!found.iter().any(|line| line.contains(name)), "{found:?}");
    // Those that it inherited, and those that the rings opened for themselves.
    let memory = found
        .iter()
        .filter(|line| line.contains("/memfd:semring"))
        .count();
    assert_eq!(memory, 4, "{found:?}");
    assert!(found.iter().any(|line| line == "0 /dev/null"), "{found:?}");
}

#[test]
fn descriptors_of_a_child_are_its_own() {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let strangers = scope.spawn(|| {
            let mut looked = 0;
            while !done.load(Ordering::Relaxed) || looked == 0 {
                let listed = Command::new("ls")
                    .args(["-l", "/proc/self/fd"])
                    .output()
                    .unwrap();
                let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
                assert!(!listed.contains("memfd:semring"), "{listed}");
                looked += 1;
            }
        });
        for _ in 0..50 {
            let (mut child, _watchdog) = start(&["exit", "0"]);
            child.wait().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        strangers.join().unwrap();
    });
    // Nor by a program that is started by a child that has taken its rings.
    let (mut child, _watchdog) = start(&["inherit"]);
    let listed = child.stdout.as_mut().unwrap().recv().unwrap().to_vec();
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(
        listed.contains("/dev/null") && !listed.contains("memfd:"),
        "{listed}"
    );
    child.wait().unwrap();
}

#[test]
fn grandchild_gets_no_ring_for_the_taken_one() {
    let (mut child, _watchdog) = start(&["bequeath"]);
    let mut output = child.stdout.take().unwrap();
    for found in ["nothing under the numbers", "other rings"] {
        let reader = output.recv().unwrap().to_vec();
        let reader = String::from_utf8_lossy(&reader).into_owned();
        let lines: Vec<&str> = reader.lines().collect();
        assert_eq!(lines.len(), 2, "{reader}");
        for (line, variable) in lines.into_iter().zip(["SEMRING_STDIN", "SEMRING_STDOUT"]) {
            let refused = line.contains("Err(NotInherited") && line.contains(variable);
            assert!(refused, "{found}: {line}");
        }
    }
    drop(output);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_whose_handle_was_dropped_is_reaped() {
    let (child, _watchdog) = start(&["echo"]);
    let process = format!("/proc/{}", child.id());
    assert!(std::path::Path::new(&process).exists());
    drop(child); // closes its input, and it ends
    while std::path::Path::new(&process).exists() {
        std::thread::yield_now();
    }
}

#[test]
fn each_ring_can_be_left_out() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "one ring");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        r#"cat; test -z "$SEMRING_STDIN" && test -n "$SEMRING_STDOUT""#,
    ]);
    let (input, mut feed) = std::io::pipe().unwrap();
    let (mut printed, output) = std::io::pipe().unwrap();
    command.stdin(input).stdout(output);
    let mut child = rings::coprocess().without_stdin().spawn(command).unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_some());
    std::io::Write::write_all(&mut feed, b"through the pipes").unwrap();
    drop(feed);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut printed, &mut text).unwrap();
    assert_eq!(text, "through the pipes");
    assert!(child.wait().unwrap().success());
    let mut command = Command::new("sh");
    command.args([
        "-c",
        r#"test -n "$SEMRING_STDIN" && test -z "$SEMRING_STDOUT""#,
    ]);
    let mut child = rings::coprocess().without_stdout().spawn(command).unwrap();
    assert!(child.stdin.is_some() && child.stdout.is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn missing_program_and_missing_ring_are_named() {
    let missing = process::spawn(Command::new("/nowhere/to/be/found")).unwrap_err();
    assert!(
        matches!(&missing, SpawnError::Program { program, .. } if program == "/nowhere/to/be/found")
    );
    assert!(missing.to_string().contains("No such file"), "{missing}");
    let absent = process::stdin().unwrap_err();
    assert!(matches!(
        absent,
        StdioError::NotGiven {
            variable: "SEMRING_STDIN"
        }
    ));
    assert!(process::stdout().is_err());
}

#[test]
fn coprocesses_leave_nothing() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "coprocesses");
    let guard = RingGuard::new("coprocesses");
    let mut parent = Peer::start(PEER, ["coprocess", "parents"]);
    guard.adopt(parent.pid());
    loop {
        let line = parent.read_line().expect("it reports when it is done");
        match line.strip_prefix("child ") {
            Some(pid) => guard.adopt(pid.parse().unwrap()),
            None => break assert_eq!(line, "done"),
        }
    }
    parent.wait();
    crate::fixture::prune_guards();
    guard.assert_clean();
}

#[test]
fn a_parent_that_does_not_wait_leaves_nothing() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "parents that return");
    for guard_kind in ["semaphore", "pipe"] {
        for way in ["return", "exit-attached"] {
            for part in ["echo", "watch"] {
                let guard = RingGuard::new("no-wait");
                let mut parent = command(&[way, part]);
                parent
                    .env("SEMRING_GUARD", guard_kind)
                    .stdout(Stdio::piped());
                let parent = parent.spawn().unwrap();
                guard.adopt(parent.id());
                // The child has the same stdout: when it ends, both have.
                let output = parent.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
                let reader = String::from_utf8(output.stdout).unwrap();
                let child = reader.lines().find_map(|line| line.strip_prefix("child "));
                guard.adopt(child.expect("a child").parse().unwrap());
                let left = guard.objects();
                assert!(left.is_empty(), "{guard_kind} {way} {part}: {left:?}");
            }
        }
    }
}
