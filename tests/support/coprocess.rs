//! The peer as a coprocess, or as the parent of one: `peer coprocess PART`. The tests read its real stdout.
//!
//! | part | does |
//! |---|---|
//! | `echo` | sends back what it receives, to the end |
//! | `exit CODE` | ends without opening its rings |
//! | `park` · `stuck` | opens its rings, or not, and stays until it is killed |
//! | `watch` | prints `open`, receives to the end, sends to the end, prints how each ended |
//! | `orphan PARENT` | waits until its parent is dead, then as `watch` |
//! | `descriptors` | sends the target of each of its descriptors |
//! | `inherit` | takes its rings and sends the descriptors of a program that it starts in turn |
//! | `bequeath` | takes its rings and sends what an `heir` that it starts prints, also with other rings under the numbers of its own |
//! | `heir` | prints what it gets in place of stdin and stdout |
//! | `parent PART` | starts a coprocess that does the part, sends it a message, prints its pid, stays |
//! | `return PART` | starts a coprocess that does the part, prints its pid, and returns from `main` |
//! | `exit-attached PART` | likewise, and ends by `exit` with all roles still taken |
//! | `parents` | starts coprocesses of several kinds one after the other, prints all their pids |

use std::process::{Command, Stdio};

use semring::process::{self, Child};
use semring::{RecvError, SendError, spsc};

use super::child::{die_with_the_parent, open_as, tell};
use crate::rings;

/// Does the part in the arguments; returning from it is returning from `main`.
pub fn run(mut arguments: impl Iterator<Item = String>) {
    let part = arguments.next().expect("a part");
    match part.as_str() {
        "echo" => echo(),
        "exit" => {
            let code = arguments.next().and_then(|code| code.parse().ok());
            std::process::exit(code.expect("a code"));
        }
        "park" => {
            die_with_the_parent();
            let _rings = rings();
            tell("open");
            stay();
        }
        "stuck" => {
            die_with_the_parent();
            stay();
        }
        "watch" => watch(),
        "orphan" => {
            // Given by the parent: it may be dead before it could be queried.
            let parent = arguments.next().and_then(|pid| pid.parse().ok());
            while Some(std::os::unix::process::parent_id()) == parent {
                std::thread::yield_now();
            }
            watch();
        }
        "descriptors" => {
            let (_input, mut output) = rings();
            for line in descriptors() {
                output.send(line.as_bytes()).expect("the parent receives");
            }
        }
        "inherit" => {
            let (_input, mut output) = rings();
            let listed = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
            output
                .send(&listed.expect("ls runs").stdout)
                .expect("the parent receives");
        }
        "bequeath" => bequeath(),
        "heir" => {
            tell(&format!("stdin {:?}", process::stdin().map(drop)));
            tell(&format!("stdout {:?}", process::stdout().map(drop)));
        }
        "parent" => {
            die_with_the_parent();
            let part = arguments.next().expect("a part");
            let mut child = start(&[&part, &std::process::id().to_string()]);
            let stdin = child.stdin.as_mut().expect("a ring");
            stdin.send(b"before").expect("there is room");
            tell(&format!("child {}", child.id()));
            stay();
        }
        "return" | "exit-attached" => {
            let child = start(&[&arguments.next().expect("a part")]);
            tell(&format!("child {}", child.id()));
            if part == "exit-attached" {
                std::mem::forget(child);
            }
            return;
        }
        "parents" => parents(),
        other => panic!("no such part: {other}"),
    }
    std::process::exit(0);
}

fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts this program as a coprocess.
fn start(arguments: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg("coprocess").args(arguments);
    rings::coprocess()
        .spawn(command)
        .expect("a coprocess starts")
}

fn rings() -> (spsc::Consumer, spsc::Producer) {
    let input = process::stdin().expect("a ring for stdin");
    (input, process::stdout().expect("a ring for stdout"))
}

fn echo() {
    let (mut input, mut output) = rings();
    loop {
        let bytes = match input.recv() {
            Ok(message) => message.to_vec(),
            Err(RecvError::EndOfStream { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        match output.send(&bytes) {
            Ok(()) => {}
            Err(SendError::ConsumerGone) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What an heir finds: after the rings were taken, and with other rings under their numbers.
fn bequeath() {
    let (_input, mut output) = rings();
    let mut send_what_an_heir_says = || {
        let program = std::env::current_exe().expect("this program has a path");
        let heir = Command::new(program).args(["coprocess", "heir"]).output();
        let said = heir.expect("it runs").stdout;
        output.send(&said).expect("the parent receives");
    };
    send_what_an_heir_says();
    let other = spsc::Builder::memfd().create().expect("a ring");
    for variable in [process::STDIN_VARIABLE, process::STDOUT_VARIABLE] {
        let address = std::env::var(variable).expect("it was given");
        let number = address
            .strip_prefix("fd:")
            .and_then(|rest| rest.split('#').next());
        let number = number.and_then(|number| number.parse().ok());
        let descriptor = other.inheritable().expect("it has one");
        open_as(number.expect("a descriptor"), &descriptor);
    }
    send_what_an_heir_says();
}

fn watch() {
    let (mut input, mut output) = rings();
    tell("open");
    let mut received = 0;
    let ended = loop {
        match input.recv() {
            Ok(_) => received += 1,
            Err(error) => break error,
        }
    };
    tell(&format!(
        "received {received} {}",
        super::flow::shown(ended)
    ));
    let refused = loop {
        if let Err(error) = output.send(&[0; 1000]) {
            break error;
        }
    };
    tell(&format!("refused {refused:?}"));
}

/// The target of each descriptor, except the one used for this.
fn descriptors() -> Vec<String> {
    let folder = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    let paths: Vec<_> = folder
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // That of the folder is closed by now.
    paths
        .iter()
        .filter_map(|path| {
            let leads_to = std::fs::read_link(path).ok()?;
            Some(format!(
                "{} {}",
                path.file_name()?.display(),
                leads_to.display()
            ))
        })
        .collect()
}

/// Coprocesses that end in every way.
fn parents() {
    die_with_the_parent();
    for arguments in [&["echo"][..], &["exit", "3"], &["park"], &["stuck"]] {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.arg("coprocess").args(arguments);
        command.stdout(Stdio::null());
        let mut child = rings::coprocess()
            .spawn(command)
            .expect("a coprocess starts");
        tell(&format!("child {}", child.id()));
        // It may be gone already.
        let _ = child.stdin.as_mut().expect("a ring").send(b"x");
        if arguments[0] == "echo" {
            let output = child.stdout.as_mut().expect("a ring");
            assert_eq!(output.recv().expect("an echo").to_vec(), b"x");
        } else {
            child.kill().expect("it can be killed");
        }
        child.wait().expect("it ends");
    }
    let missing = process::spawn(Command::new("/nowhere/to/be/found"));
    assert!(missing.is_err());
    tell("done");
}
