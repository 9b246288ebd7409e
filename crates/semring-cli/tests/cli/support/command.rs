//! A command before it runs, while it runs, and when it has ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use semring_testkit::names;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::process;
use serde_json::Value;

use super::{DAMAGED, HANG_TIMEOUT, Ring, assert_same, one_object, seq_from, wait_until};

/// A function that writes to a process's stdin.
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

    /// Its stdout is a pipe that is not read until the test does so.
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
            // An error of the feeder means that the reader is gone, which is not checked here.
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

/// How a process ended, and its output.
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
        self.peer.take_stdout().expect("stdout is an unread pipe")
    }

    /// Begins to read a stdout that was not read so far.
    pub fn capture_now(&mut self) {
        self.stdout = Some(Capture::of(self.take_stdout()));
    }

    /// Its output on stdout so far.
    pub fn stdout(&self) -> Vec<u8> {
        let capture = self.stdout.as_ref().expect("stdout is captured");
        capture.bytes.lock().expect("no panic").clone()
    }

    fn stdout_bytes(&self) -> usize {
        let capture = self.stdout.as_ref().expect("stdout is captured");
        capture.bytes.lock().expect("no panic").len()
    }

    /// Its output on stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stderr)).into_owned()
    }

    /// Waits until it has written this many bytes.
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

    /// Waits until it sleeps on a semaphore of the ring, or on its pipes.
    #[track_caller]
    pub fn wait_until_asleep_on_the_ring(&mut self) {
        self.wait_until_in(semring_testkit::process::SLEEPING_ON_A_RING);
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

    /// Waits until it has ended, or one of its threads sleeps in one of these system calls.
    #[track_caller]
    pub fn wait_until_ended_or_in(&mut self, calls: &[i64]) {
        let what = format!("{} has ended or sleeps in {calls:?}", self.what);
        wait_until(&what, || {
            let sleeping = process::system_calls(self.peer.pid()).unwrap_or_default();
            !self.peer.is_alive() || sleeping.iter().flatten().any(|call| calls.contains(call))
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

    #[track_caller]
    pub fn cont(&mut self) {
        self.peer.cont();
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
            if begin.elapsed() > HANG_TIMEOUT {
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

    /// It ended like this, and printed nothing.
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

    /// It ended with 6 and reported that producers had died.
    #[track_caller]
    pub fn truncated(self) -> Output {
        let output = self.ended(DAMAGED);
        let told = "died; the stream may be truncated";
        assert!(
            output.stderr.contains(told),
            "{}: {}",
            output.what,
            output.stderr
        );
        output
    }

    /// In all cases: no message shows the internals of the program.
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
