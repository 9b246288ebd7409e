//! The three commands as processes: how to start, feed, watch and end them.
//!
//! Nothing here waits for a fixed time: a test waits until something can be observed
//! ([`wait_until`]), and a hang becomes a failure that reports what hung.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use semring_testkit::names::{self, RingGuard};
use semring_testkit::peer::Exit;
use serde_json::Value;

pub mod alone;
mod command;
mod endless;
pub mod terminal;

pub use command::{Call, Output, Tool};
pub use endless::Endless;

/// After this a wait counts as a hang. Many times what anything here takes.
const HANG_TIMEOUT: Duration = Duration::from_secs(300);

/// The codes of the contract.
pub const DONE: Exit = Exit::Code(0);
pub const FAILED: Exit = Exit::Code(1);
pub const USAGE: Exit = Exit::Code(2);
pub const NO_RING: Exit = Exit::Code(3);
pub const PERMISSION: Exit = Exit::Code(4);
pub const NOT_A_RING: Exit = Exit::Code(5);
pub const DAMAGED: Exit = Exit::Code(6);
pub const TIMED_OUT: Exit = Exit::Code(124);
pub const BROKEN_PIPE: Exit = Exit::Code(141);
pub const KILLED: Exit = Exit::Signal(libc::SIGKILL);

pub const SEMRING: &str = env!("CARGO_BIN_EXE_semring");
pub const PRODUCER: &str = env!("CARGO_BIN_EXE_semring-producer");
pub const CONSUMER: &str = env!("CARGO_BIN_EXE_semring-consumer");

/// Makes tests of functions that take a [`Ring`]: each over POSIX and over System V shared memory.
macro_rules! over_both_backends {
    ($($test:ident),* $(,)?) => {
        mod posix {
            $(#[test] fn $test() {
                super::$test(&crate::support::Ring::posix(stringify!($test)));
            })*
        }
        mod sysv {
            $(#[test] fn $test() {
                super::$test(&crate::support::Ring::sysv(stringify!($test)));
            })*
        }
    };
}
pub(crate) use over_both_backends;

/// Looks again and again until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < HANG_TIMEOUT, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The lines `1` to `last`, as `seq` writes them.
pub fn seq(last: u64) -> Vec<u8> {
    seq_from(1, last)
}

/// The lines `first` to `last`.
pub fn seq_from(first: u64, last: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in first..=last {
        writeln!(text, "{number}").expect("memory takes everything");
    }
    text
}

/// Compares long outputs without printing them.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8]) {
    if got == expected {
        return;
    }
    let pairs = got.iter().zip(expected);
    let at = pairs.take_while(|(one, other)| one == other).count();
    let show = |bytes: &[u8]| {
        let from = at.saturating_sub(20).min(bytes.len());
        let to = (at + 40).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..to]).into_owned()
    };
    panic!(
        "{} bytes instead of {}; they differ from byte {at} on: {:?} instead of {:?}",
        got.len(),
        expected.len(),
        show(got),
        show(expected)
    );
}

/// How many bytes of the text are whole lines, and the lines themselves.
pub fn whole_lines(text: &[u8]) -> (usize, Vec<&[u8]>) {
    let end = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = text[..end].split_inclusive(|byte| *byte == b'\n');
    (end, lines.map(|line| &line[..line.len() - 1]).collect())
}

/// The numbers that `seq` wrote.
#[track_caller]
pub fn numbers(text: &[u8]) -> Vec<u64> {
    let (_, lines) = whole_lines(text);
    let parse = |line: &&[u8]| {
        let number = str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        number.unwrap_or_else(|| panic!("not a number: {:?}", String::from_utf8_lossy(line)))
    };
    lines.iter().map(parse).collect()
}

/// A ring's address that no other test has, and a cleanup guard for its objects.
pub struct Ring {
    guard: RingGuard,
    address: String,
}

impl Ring {
    /// In POSIX shared memory.
    pub fn posix(label: &str) -> Ring {
        let guard = RingGuard::new(label);
        let address = guard.posix();
        Ring { guard, address }
    }

    /// In System V shared memory.
    pub fn sysv(label: &str) -> Ring {
        let guard = RingGuard::new(label);
        let address = guard.sysv();
        Ring { guard, address }
    }

    /// Another ring in the same kind of memory.
    pub fn another(&self, label: &str) -> Ring {
        if self.is_posix() {
            Ring::posix(label)
        } else {
            Ring::sysv(label)
        }
    }

    pub fn is_posix(&self) -> bool {
        self.address.starts_with("posix:")
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn name(&self) -> &str {
        self.guard.name()
    }

    /// `semring-producer ARGS RING`.
    pub fn producer(&self, args: &[&str]) -> Call<'_> {
        Call::new(PRODUCER, Some(self))
            .args(args)
            .args(&[&self.address])
    }

    /// `semring-consumer ARGS RING`.
    pub fn consumer(&self, args: &[&str]) -> Call<'_> {
        Call::new(CONSUMER, Some(self))
            .args(args)
            .args(&[&self.address])
    }

    /// `semring VERB RING ARGS`.
    pub fn semring(&self, verb: &str, args: &[&str]) -> Call<'_> {
        Call::new(SEMRING, Some(self))
            .args(&[verb, &self.address])
            .args(args)
    }

    /// A shell script with the commands in `$P`, `$C` and `$S`, and this ring's address in `$RING`.
    pub fn shell(&self, script: &str) -> Call<'_> {
        let variables = [
            ("P", PRODUCER),
            ("C", CONSUMER),
            ("S", SEMRING),
            ("RING", &self.address),
        ];
        Call::new("bash", Some(self))
            .args(&["-c", script])
            .with(|command| {
                command.envs(variables);
            })
    }

    /// The output of `semring info`; `None` if there is no such ring.
    #[track_caller]
    pub fn look(&self) -> Option<Value> {
        let output = Call::new(SEMRING, None)
            .args(&["info", &self.address, "--json"])
            .run();
        match output.exit {
            DONE => Some(output.json()),
            // A ring that is just being made or removed is none yet, or no more.
            NO_RING | FAILED => None,
            other => panic!("semring info ended with {other}: {}", output.stderr),
        }
    }

    /// As [`look`](Ring::look), for a ring that must be there.
    #[track_caller]
    pub fn info(&self) -> Value {
        self.look()
            .unwrap_or_else(|| panic!("there is no ring {}", self.address))
    }

    /// A number in the output of `semring info`; 0 if there is no ring.
    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        self.look().map_or(0, |info| number(&info, field))
    }

    /// Waits until this many producers are attached.
    #[track_caller]
    pub fn wait_for_producers(&self, count: u64) {
        wait_until("the producers are attached", || {
            self.look()
                .is_some_and(|info| number(&info, "producers") == count)
        });
    }

    /// Waits until this process is the consumer.
    #[track_caller]
    pub fn wait_for_consumer(&self, consumer: &Tool) {
        let pid = u64::from(consumer.pid());
        wait_until("the consumer is attached", || {
            self.number("consumer_pid") == pid
        });
    }

    /// Waits until this many messages were sent.
    #[track_caller]
    pub fn wait_for_sent(&self, count: u64) {
        wait_until("the messages are sent", || {
            self.number("sent_messages") >= count
        });
    }

    /// Nothing of the ring is there: neither memory nor semaphores.
    #[track_caller]
    pub fn assert_gone(&self) {
        self.guard.assert_clean();
    }

    /// The ring is there.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.look().is_some(), "{} is gone", self.address);
    }

    /// The file of a ring in POSIX shared memory.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev/shm").join(self.name())
    }
}

/// A number in a JSON object; a field that is null counts as 0, a list as its length.
#[track_caller]
pub fn number(object: &Value, field: &str) -> u64 {
    match &object[field] {
        Value::Null if object.get(field).is_some() => 0,
        Value::Array(list) => list.len() as u64,
        other => other
            .as_u64()
            .unwrap_or_else(|| panic!("no number {field:?} in {object}")),
    }
}

/// The text is one JSON object in one line.
#[track_caller]
pub fn one_object(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one object in one line: {text:?}");
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        other => panic!("{other:?} from {text:?}"),
    }
}

/// A directory for one test, which is removed with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let path = std::env::temp_dir().join(names::unique("scratch"));
        std::fs::create_dir(&path).expect("a new directory");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether new rings get pipes according to the environment.
pub fn over_pipes() -> bool {
    std::env::var_os("SEMRING_GUARD").is_some_and(|guard| guard == "pipe")
}
