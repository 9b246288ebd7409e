//! The three commands as processes: how to start, feed, watch and end them.
//!
//! Nothing here waits for a time to pass: a test waits until something can be seen
//! ([`wait_until`]), and a hang becomes a failure that says what hung.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use semring_testkit::names::{self, RingGuard};
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::process;
use serde_json::Value;

/// After this a wait counts as a hang. Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(100);

/// The codes of the contract.
pub const DONE: Exit = Exit::Code(0);
pub const FAILED: Exit = Exit::Code(1);
pub const USAGE: Exit = Exit::Code(2);
pub const NO_RING: Exit = Exit::Code(3);
pub const PERMISSION: Exit = Exit::Code(4);
pub const NOT_A_RING: Exit = Exit::Code(5);
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
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
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

/// A ring's address that no other test has, and the duty to leave nothing of it behind.
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
        let mut call = Call::new("bash", Some(self)).args(&["-c", script]);
        let variables = [
            ("P", PRODUCER),
            ("C", CONSUMER),
            ("S", SEMRING),
            ("RING", &self.address),
        ];
        call.command.envs(variables);
        call
    }

    /// What `semring info` says; nothing if there is no such ring.
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

    /// A number among what `semring info` says; 0 if there is no ring.
    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        self.look().map_or(0, |info| number(&info, field))
    }

    /// Waits until so many producers are attached.
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

    /// Waits until so many messages were sent.
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

/// What writes to a process's stdin.
type Feed = Box<dyn FnOnce(&mut ChildStdin) -> io::Result<()> + Send>;

enum Input {
    Nothing,
    Feed(Feed),
    Open,
    From(Stdio),
}

enum Sink {
    Captured,
    Piped,
    To(Stdio),
}

/// A command to be started.
pub struct Call<'r> {
    command: Command,
    ring: Option<&'r Ring>,
    input: Input,
    sink: Sink,
}

impl<'r> Call<'r> {
    pub fn new(program: &str, ring: Option<&'r Ring>) -> Call<'r> {
        let mut command = Command::new(program);
        // A panic would be longer and could be mistaken for more than one sentence.
        command.env_remove("RUST_BACKTRACE").env_remove("NO_COLOR");
        Call {
            command,
            ring,
            input: Input::Nothing,
            sink: Sink::Captured,
        }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// More to be set on the command itself.
    pub fn with(mut self, set: impl FnOnce(&mut Command)) -> Self {
        set(&mut self.command);
        self
    }

    /// Its stdin is a pipe with these bytes.
    pub fn input(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.feed(move |stdin| stdin.write_all(&bytes))
    }

    /// Its stdin is a pipe that a thread fills.
    pub fn feed(
        mut self,
        feed: impl FnOnce(&mut ChildStdin) -> io::Result<()> + Send + 'static,
    ) -> Self {
        self.input = Input::Feed(Box::new(feed));
        self
    }

    /// Its stdin is a pipe with `seq` without an end.
    pub fn feed_endless_seq(self) -> Self {
        self.feed(|stdin| {
            let mut first = 1;
            loop {
                stdin.write_all(&seq_from(first, first + 999))?;
                first += 1000;
            }
        })
    }

    /// Its stdin is a pipe that the test writes to.
    pub fn stdin_open(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    /// Its stdin is this.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.input = Input::From(stdin.into());
        self
    }

    /// Its stdout is this.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.sink = Sink::To(stdout.into());
        self
    }

    /// Its stdout is a pipe that nobody reads until the test does.
    pub fn stdout_unread(mut self) -> Self {
        self.sink = Sink::Piped;
        self
    }

    #[track_caller]
    pub fn start(mut self) -> Tool {
        let (stdin, feed, keep) = match self.input {
            Input::Nothing => (Stdio::null(), None, false),
            Input::Feed(feed) => (Stdio::piped(), Some(feed), false),
            Input::Open => (Stdio::piped(), None, true),
            Input::From(stdin) => (stdin, None, false),
        };
        let (stdout, capture) = match self.sink {
            Sink::Captured => (Stdio::piped(), true),
            Sink::Piped => (Stdio::piped(), false),
            Sink::To(stdout) => (stdout, false),
        };
        let (stderr, stderr_of_child) = unnamed_file();
        self.command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr_of_child);
        let what = format!("{:?}", self.command);
        let peer = Peer::spawn_as_it_is(self.command);
        let mut peer = peer.unwrap_or_else(|error| panic!("can't start {what}: {error}"));
        if let Some(ring) = self.ring {
            ring.guard.adopt(peer.pid());
        }
        let feeder = feed.map(|feed| {
            let mut stdin = peer.take_stdin().expect("stdin is piped");
            // A reader that has gone is not the feeder's business.
            thread::spawn(move || drop(feed(&mut stdin)))
        });
        let stdin = if keep { peer.take_stdin() } else { None };
        let stdout = capture.then(|| Capture::of(peer.take_stdout().expect("stdout is piped")));
        Tool {
            peer,
            what,
            stdin,
            stdout,
            stderr,
            feeder,
        }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().finish()
    }
}

/// A file without a name, open twice: to read and to write.
pub fn unnamed_file() -> (File, File) {
    let path = std::env::temp_dir().join(names::unique("stderr"));
    let write = File::options()
        .append(true)
        .create_new(true)
        .open(&path)
        .expect("a new file");
    let read = File::open(&path).expect("the new file");
    std::fs::remove_file(path).expect("the new file");
    (read, write)
}

/// All that a file holds, wherever others have read it to.
pub fn contents(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = [0; 1 << 16];
    loop {
        match file
            .read_at(&mut block, bytes.len() as u64)
            .expect("a plain file")
        {
            0 => return bytes,
            count => bytes.extend_from_slice(&block[..count]),
        }
    }
}

/// The output of a process, read as it comes.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Capture {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut block = vec![0; 1 << 16];
            while let Ok(count @ 1..) = pipe.read(&mut block) {
                sink.lock()
                    .expect("no panic")
                    .extend_from_slice(&block[..count]);
            }
        });
        Capture { bytes, thread }
    }
}

/// A process that runs. Dropped, it is killed.
pub struct Tool {
    peer: Peer,
    what: String,
    stdin: Option<ChildStdin>,
    stdout: Option<Capture>,
    stderr: File,
    feeder: Option<JoinHandle<()>>,
}

/// How a process ended, and what it wrote.
pub struct Output {
    pub what: String,
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Tool {
    pub fn pid(&self) -> u32 {
        self.peer.pid()
    }

    /// Writes to its stdin, which was left open.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        let written = stdin.write_all(bytes.as_ref());
        written.unwrap_or_else(|error| panic!("can't write to {}: {error}", self.what));
    }

    /// Writes to its stdin, whether or not it still reads.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        // Rust's test programs ignore SIGPIPE, so this is an error at most.
        let _ = self
            .stdin
            .as_mut()
            .expect("stdin is open")
            .write_all(bytes.as_ref());
    }

    /// Gives away the pipe of a stdout that was not captured.
    pub fn take_stdout(&mut self) -> std::io::BufReader<std::process::ChildStdout> {
        self.peer
            .take_stdout()
            .expect("stdout is a pipe that nobody reads")
    }

    /// Begins to read a stdout that nobody read so far.
    pub fn capture_now(&mut self) {
        self.stdout = Some(Capture::of(self.take_stdout()));
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> Vec<u8> {
        let capture = self.stdout.as_ref().expect("stdout is captured");
        capture.bytes.lock().expect("no panic").clone()
    }

    fn stdout_bytes(&self) -> usize {
        let capture = self.stdout.as_ref().expect("stdout is captured");
        capture.bytes.lock().expect("no panic").len()
    }

    /// What it said so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stderr)).into_owned()
    }

    /// Waits until it has written so many bytes.
    #[track_caller]
    pub fn wait_for_bytes(&mut self, count: usize) {
        let what = format!("{} has written {count} bytes", self.what);
        wait_until(&what, || {
            let written = self.stdout_bytes();
            if written < count && !self.peer.is_alive() {
                let stderr = self.stderr();
                // The last of it may still be on its way through the pipe.
                wait_until(&format!("{what} (it has ended: {stderr})"), || {
                    self.stdout_bytes() >= count
                });
            }
            self.stdout_bytes() >= count
        });
    }

    /// Waits until its stdout is exactly this.
    #[track_caller]
    pub fn wait_for_stdout(&mut self, expected: &str) {
        self.wait_for_bytes(expected.len());
        assert_eq!(String::from_utf8_lossy(&self.stdout()), expected);
    }

    /// Waits until it sleeps on a semaphore of the ring.
    #[track_caller]
    pub fn wait_until_asleep_on_the_ring(&mut self) {
        self.wait_until_in(&[libc::SYS_semop, libc::SYS_semtimedop]);
    }

    /// Waits until one of its threads sleeps in one of these system calls.
    #[track_caller]
    pub fn wait_until_in(&mut self, calls: &[i64]) {
        let what = format!("{} sleeps in {calls:?}", self.what);
        wait_until(&what, || {
            assert!(
                self.peer.is_alive(),
                "{} has ended: {}",
                self.what,
                self.stderr()
            );
            let sleeping = process::system_calls(self.peer.pid()).unwrap_or_default();
            sleeping.iter().flatten().any(|call| calls.contains(call))
        });
    }

    pub fn is_alive(&mut self) -> bool {
        self.peer.is_alive()
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.peer.signal(signal);
    }

    #[track_caller]
    pub fn stop(&mut self) {
        self.peer.stop();
    }

    /// Closes its stdin and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        self.stdin = None;
        self.finish_with_stdin_open()
    }

    /// Waits for its end, which must come without an end of its stdin.
    #[track_caller]
    pub fn finish_with_stdin_open(mut self) -> Output {
        let begin = Instant::now();
        while self.peer.is_alive() {
            if begin.elapsed() > PATIENCE {
                let doing = process::describe(self.pid());
                panic!("{} does not end: {doing}{}", self.what, self.stderr());
            }
            thread::sleep(Duration::from_micros(500));
        }
        self.collect()
    }

    /// Kills it.
    #[track_caller]
    pub fn kill(mut self) -> Output {
        self.peer.kill();
        self.collect()
    }

    fn collect(mut self) -> Output {
        let exit = self.peer.wait();
        let stderr = self.stderr();
        if let Some(feeder) = self.feeder.take() {
            feeder.join().expect("the feeder does not panic");
        }
        let stdout = self.stdout.take().map(|capture| {
            capture.thread.join().expect("the reader does not panic");
            std::mem::take(&mut *capture.bytes.lock().expect("no panic"))
        });
        Output {
            what: self.what,
            exit,
            stdout: stdout.unwrap_or_default(),
            stderr,
        }
    }
}

impl Output {
    /// It ended like this.
    #[track_caller]
    pub fn ended(self, exit: Exit) -> Output {
        let Output {
            what,
            exit: is,
            stderr,
            ..
        } = &self;
        assert!(*is == exit, "{what}: {is} instead of {exit}\n{stderr}");
        self.civil()
    }

    /// It ended like this, and said nothing.
    #[track_caller]
    pub fn quietly(self, exit: Exit) -> Output {
        let output = self.ended(exit);
        assert_eq!(output.stderr, "", "{}", output.what);
        output
    }

    /// It ended like this with one sentence that contains these words, and wrote nothing.
    #[track_caller]
    pub fn refused(self, exit: Exit, words: &[&str]) -> Output {
        let output = self.said(exit, words);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "{}",
            output.what
        );
        output
    }

    /// It ended like this with one sentence that contains these words.
    #[track_caller]
    pub fn said(self, exit: Exit, words: &[&str]) -> Output {
        let output = self.ended(exit);
        let Output { what, stderr, .. } = &output;
        assert!(stderr.ends_with('\n'), "{what}: {stderr:?}");
        assert_eq!(
            stderr.lines().count(),
            1,
            "{what}: not one sentence: {stderr}"
        );
        for word in words {
            assert!(
                stderr.contains(word),
                "{what}: {word:?} is not in {stderr:?}"
            );
        }
        output
    }

    /// Whatever happened, nobody is shown the inside of the program.
    #[track_caller]
    fn civil(self) -> Output {
        for word in ["panicked", "backtrace", ".rs:", "Os {", "Error("] {
            assert!(
                !self.stderr.contains(word),
                "{}: {}",
                self.what,
                self.stderr
            );
        }
        self
    }

    /// Its stdout is this text.
    #[track_caller]
    pub fn wrote(self, text: impl AsRef<[u8]>) -> Output {
        assert_same(&self.stdout, text.as_ref());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its stdout is one JSON object in one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        one_object(&self.text())
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

/// A directory for one test, which goes with it.
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

/// Whether the tests run as root, without which another user can't be had.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
