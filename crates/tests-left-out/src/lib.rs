//! Tests that can't run here: noted with a reason, and printed at the end of the run.
//!
//! A test that needs root, a tool or a kernel feature begins with [`needs_root!`], [`needs_tool!`] or
//! [`leave_out!`]. Where that is missing, the test ends there, and its name and the reason are
//! appended to `tests-left-out.txt` in the target folder. The test binary `report` of this crate prints
//! that file. Its crate's name sorts last, so `cargo test --workspace` runs it after all other binaries.
//!
//! All test binaries of one `cargo test` write to the same file. Its first line names the process that
//! started them. The first test that is noted while that process no longer runs begins the file again.
//! If the variable [`FILE`] is set, the file has that path and is never begun again: a script that
//! sets the variable for several runs of cargo must empty the file and print it.
//!
//! ```no_run
//! # fn main() {
//! use tests_left_out::{needs_root, needs_tool};
//!
//! needs_root!("to become another user");
//! needs_tool!("strace");
//! # }
//! ```
#![deny(unsafe_code)]

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The environment variable that names the file.
pub const FILE: &str = "SEMRING_TESTS_LEFT_OUT";

/// The file's name in the target folder.
const NAME: &str = "tests-left-out.txt";

/// Leaves the calling test out, with a reason as for `format!`.
#[macro_export]
macro_rules! leave_out {
    ($($reason:tt)+) => {{
        $crate::note(format_args!($($reason)+));
        return;
    }};
}

/// Leaves the calling test out unless root runs it. The argument completes "needs root".
#[macro_export]
macro_rules! needs_root {
    ($what_for:expr) => {
        if !$crate::is_root($what_for) {
            return;
        }
    };
}

/// Leaves the calling test out unless this program is in `PATH`.
#[macro_export]
macro_rules! needs_tool {
    ($tool:expr) => {
        if !$crate::has_tool($tool) {
            return;
        }
    };
}

/// True if root runs this. Otherwise the calling test is noted: it needs root `what_for`.
pub fn is_root(what_for: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        note(format_args!("needs root {what_for}"));
    }
    root
}

/// True if this program is in `PATH`. Otherwise the calling test is noted.
pub fn has_tool(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| {
        let file = std::fs::metadata(folder.join(tool));
        file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    });
    if !found {
        note(format_args!("needs {tool}, which is not in PATH"));
    }
    found
}

/// True if this command succeeds here with no input. Otherwise the calling test is noted with what the
/// command wrote to stderr.
pub fn can_run(command: &[&str]) -> bool {
    let (program, arguments) = command.split_first().expect("a command");
    if !has_tool(program) {
        return false;
    }
    let mut probe = Command::new(program);
    let probe = probe.args(arguments).stdin(Stdio::null()).output();
    let reason = match probe {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = stderr.lines().collect();
            format!("{}: {}", output.status, lines.join(" "))
        }
        Err(error) => error.to_string(),
    };
    note(format_args!("needs `{}`: {reason}", command.join(" ")));
    false
}

/// Notes that the calling test, or a part of it, is left out for this reason.
#[track_caller]
pub fn note(reason: impl Display) {
    let reason = reason.to_string().replace('\n', " ");
    let caller = std::panic::Location::caller();
    let thread = std::thread::current();
    // The harness names the thread of a test; with one test thread it has none.
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => format!("{}:{}", caller.file(), caller.line()),
    };
    let line = format!("{} {test}: {reason}", binary());
    if let Err(error) = append(&file(), &Run::current(), &line) {
        panic!("can't note that a test is left out: {error}: {line}");
    }
    // Not eprintln!, whose text the harness keeps to itself: a run of one suite must not be silent either.
    let _ = writeln!(std::io::stderr(), "left out: {line}");
}

/// The tests that were left out in this run, a line each.
pub fn noted() -> std::io::Result<Vec<String>> {
    let given = std::env::var_os(FILE).is_some();
    let text = match std::fs::read_to_string(file()) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (run, lines) = split(&text);
    let is_ours = given || run.is_some_and(|run| run.is_running());
    Ok(if is_ours { lines } else { Vec::new() })
}

/// The file of this run.
pub fn file() -> PathBuf {
    if let Some(given) = std::env::var_os(FILE) {
        return given.into();
    }
    let program = std::env::current_exe().expect("the path of this program");
    // cargo keeps this file in the target folder. (It marks one that it did not make with no CACHEDIR.TAG.)
    let target = program
        .ancestors()
        .find(|folder| folder.join(".rustc_info.json").exists());
    let fallback = || program.parent().expect("a program is in a folder");
    target.unwrap_or_else(fallback).join(NAME)
}

/// A `cargo test`: the process that started this test binary, or the test binary if cargo did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    process: u32,
    /// In clock ticks since boot: process ids come again.
    start: u64,
}

impl Run {
    const HEADING: &str = "# Left out in the run of process ";

    fn current() -> Run {
        // cargo sets CARGO for what it runs. The processes between are test binaries that tests started.
        let mut process = std::process::id();
        while has_variable(process, b"CARGO=") {
            let Some(parent) = stat(process, PARENT) else {
                break;
            };
            process = parent as u32;
        }
        let start = start_of(process).unwrap_or_default();
        Run { process, start }
    }

    fn is_running(self) -> bool {
        start_of(self.process) == Some(self.start)
    }

    fn heading(self) -> String {
        format!("{}{} {}", Run::HEADING, self.process, self.start)
    }

    fn parse(line: &str) -> Option<Run> {
        let (process, start) = line.strip_prefix(Run::HEADING)?.split_once(' ')?;
        Some(Run {
            process: process.parse().ok()?,
            start: start.parse().ok()?,
        })
    }
}

/// When a process started. `None` if there is none with this id.
fn start_of(process: u32) -> Option<u64> {
    stat(process, START)
}

/// Fields of /proc/PID/stat, counted from 1 as in proc(5).
const PARENT: usize = 4;
const START: usize = 22;

fn stat(process: u32, field: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Field 2, the name in parentheses, may contain anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(field - 3)?.parse().ok()
}

/// Whether a process was started with this environment variable. The argument ends in `=`.
fn has_variable(process: u32, variable: &[u8]) -> bool {
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|entry| entry.starts_with(variable))
}

/// The name of this test binary without the hash that cargo appends.
fn binary() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let stem = program.file_stem().unwrap_or_default().to_string_lossy();
    let (name, _hash) = stem.rsplit_once('-').unwrap_or((&stem, ""));
    name.to_owned()
}

/// The run that the file belongs to and its lines.
fn split(text: &str) -> (Option<Run>, Vec<String>) {
    let mut lines = text.lines().peekable();
    let run = lines.peek().and_then(|first| Run::parse(first));
    let lines = lines.filter(|line| !line.starts_with('#'));
    (run, lines.map(str::to_owned).collect())
}

/// Appends a line, once. The lock orders processes that do this at the same time.
fn append(path: &Path, run: &Run, line: &str) -> std::io::Result<()> {
    let given = std::env::var_os(FILE).is_some();
    append_to(path, (!given).then_some(run), line)
}

/// As [`append`]; with a run the file is begun again if it belongs to one that has ended.
fn append_to(path: &Path, run: Option<&Run>, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    file.lock()?;
    let text = read(&mut file)?;
    let (owner, lines) = split(&text);
    if let Some(run) = run
        && owner != Some(*run)
        && !owner.is_some_and(Run::is_running)
    {
        file.set_len(0)?;
        return writeln!(file, "{}\n{line}", run.heading());
    }
    if lines.iter().any(|noted| noted == line) {
        return Ok(());
    }
    writeln!(file, "{line}")
}

fn read(file: &mut File) -> std::io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that no other test uses; the file is removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(label: &str) -> Scratch {
            let name = format!("tests-left-out-{}-{label}", std::process::id());
            Scratch(std::env::temp_dir().join(name))
        }

        fn lines(&self) -> Vec<String> {
            split(&std::fs::read_to_string(&self.0).unwrap()).1
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// A run of this process, and one of a process that has ended: a process has one start only.
    fn runs() -> (Run, Run) {
        let process = std::process::id();
        let start = start_of(process).unwrap();
        let ended = start + 1;
        (
            Run { process, start },
            Run {
                process,
                start: ended,
            },
        )
    }

    #[test]
    fn a_run_that_has_ended_is_replaced() {
        let scratch = Scratch::new("ended");
        let (running, ended) = runs();
        append_to(&scratch.0, Some(&ended), "old").unwrap();
        append_to(&scratch.0, Some(&running), "new").unwrap();
        append_to(&scratch.0, Some(&running), "newer").unwrap();
        assert_eq!(scratch.lines(), ["new", "newer"]);
        // A binary that another process started, such as a second cargo, adds to it.
        append_to(&scratch.0, Some(&ended), "beside").unwrap();
        assert_eq!(scratch.lines(), ["new", "newer", "beside"]);
    }

    #[test]
    fn a_given_file_is_only_added_to() {
        let scratch = Scratch::new("given");
        append_to(&scratch.0, None, "one").unwrap();
        append_to(&scratch.0, None, "two").unwrap();
        append_to(&scratch.0, None, "one").unwrap();
        assert_eq!(scratch.lines(), ["one", "two"]);
    }

    #[test]
    fn lines_of_parallel_writers_are_whole() {
        let scratch = Scratch::new("parallel");
        let (running, ended) = runs();
        append_to(&scratch.0, Some(&ended), "old").unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &scratch.0;
                scope.spawn(move || {
                    for number in 0..20 {
                        let line = format!("writer {writer}, line {number}");
                        append_to(path, Some(&running), &line).unwrap();
                    }
                });
            }
        });
        let lines = scratch.lines();
        assert_eq!(lines.len(), 8 * 20);
        for writer in 0..8 {
            let start = format!("writer {writer}, ");
            let own = lines.iter().filter(|line| line.starts_with(&start));
            let expected: Vec<String> = (0..20).map(|n| format!("{start}line {n}")).collect();
            assert_eq!(own.collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_heading_is_read_back() {
        let (running, _) = runs();
        assert!(running.is_running());
        assert_eq!(Run::parse(&running.heading()), Some(running));
        assert_eq!(Run::parse("api a::test: a reason"), None);
    }
}
