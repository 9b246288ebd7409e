//! The parent's side of a running coprocess.

use std::io;
use std::process::{ChildStderr, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::channel::spsc;
use crate::guard::deadline::Deadline;
use crate::os::child::await_end;

/// A program that was started with rings in place of stdin and stdout: the parent's ends, and its exit status.
///
/// As [`std::process::Child`], with rings in place of pipes.
///
/// Dropping it closes the rings that were not taken out of it. It neither kills the child nor waits for it;
/// the child is reaped when it ends.
#[derive(Debug)]
pub struct Child {
    /// Sends to the child's [`process::stdin`](super::stdin). When it is dropped, the child gets end of
    /// stream.
    pub stdin: Option<spsc::Producer>,
    /// Receives from the child's [`process::stdout`](super::stdout). When it is dropped, the child gets a
    /// broken pipe. After end of stream nothing more comes.
    pub stdout: Option<spsc::Consumer>,
    /// The pipe of the child's standard error, if the command requested one.
    pub stderr: Option<ChildStderr>,
    id: u32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    /// Here until it is reaped.
    child: Option<std::process::Child>,
    end: Option<End>,
}

/// The child's exit status, or the error number of waiting for it.
#[derive(Clone, Copy, Debug)]
enum End {
    Status(ExitStatus),
    Unknown(i32),
}

impl End {
    fn status(self) -> io::Result<ExitStatus> {
        match self {
            Self::Status(status) => Ok(status),
            Self::Unknown(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Shared {
    /// No panic leaves the state half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that waits for a child's end, before it has one.
pub(super) struct ExitWatch {
    hand_over: Sender<(u32, Arc<Shared>)>,
    thread: thread::JoinHandle<()>,
}

impl ExitWatch {
    /// The thread keeps the rings open, so that the child finds their guards also if the parent has closed
    /// its ends before.
    pub(super) fn begin(input: Option<spsc::Ring>, output: Option<spsc::Ring>) -> io::Result<Self> {
        let (hand_over, come) = channel();
        let thread = thread::Builder::new()
            .name("semring-child".to_owned())
            .spawn(move || watch(&come, input, output))?;
        Ok(Self { hand_over, thread })
    }

    /// There will be no child. The rings are closed when this returns.
    pub(super) fn abandon(self) {
        drop(self.hand_over);
        let _ = self.thread.join();
    }
}

fn watch(
    come: &Receiver<(u32, Arc<Shared>)>,
    input: Option<spsc::Ring>,
    output: Option<spsc::Ring>,
) {
    // Otherwise it could not be started.
    let Ok((id, shared)) = come.recv() else {
        return;
    };
    // Not reaped yet, so that no other process gets its pid while it may still be killed. (Where SIGCHLD
    // is ignored, this fails when the child has ended.)
    let _ = await_end(id);
    let mut state = shared.lock();
    let reaped = state.child.take().map(|mut child| child.wait());
    drop(state);
    // The kernel has released the child's roles. A stream that the child never opened ends here.
    if let Some(ring) = &input {
        ring.hang_up();
    }
    if let Some(ring) = &output
        && let Ok(info) = ring.info()
        && info.lanes.iter().all(|lane| lane.attached_producers == 0)
    {
        ring.end_stream();
    }
    // Before the end is made known: the parent may exit then, and the last user of a ring must remove
    // its guard.
    drop((input, output));
    let end = match reaped {
        Some(Ok(status)) => End::Status(status),
        Some(Err(error)) => End::Unknown(error.raw_os_error().unwrap_or_default()),
        None => return,
    };
    shared.lock().end = Some(end);
    shared.ended.notify_all();
}

impl Child {
    pub(super) fn new(
        mut child: std::process::Child,
        watch: ExitWatch,
        stdin: Option<spsc::Producer>,
        stdout: Option<spsc::Consumer>,
    ) -> Self {
        let id = child.id();
        let stderr = child.stderr.take();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                child: Some(child),
                end: None,
            }),
            ended: Condvar::new(),
        });
        // The thread waits for it.
        let _ = watch.hand_over.send((id, shared.clone()));
        Self {
            stdin,
            stdout,
            stderr,
            id,
            shared,
        }
    }

    /// Process id of the child.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills the child with SIGKILL, if it has not ended yet. Its own children are not killed.
    ///
    /// # Errors
    /// Those of kill(2).
    pub fn kill(&mut self) -> io::Result<()> {
        match &mut self.shared.lock().child {
            Some(child) => child.kill(),
            None => Ok(()),
        }
    }

    /// Closes the child's input and waits for its end.
    ///
    /// It does not receive: a child that still has much to send waits for room, and never ends; receive to the end
    /// of its stream first, or drop [`stdout`](Self::stdout).
    ///
    /// # Errors
    /// Those of waitpid(2): `ECHILD` if the child was reaped elsewhere, or SIGCHLD is ignored.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let state = self.shared.lock();
        let state = self
            .shared
            .ended
            .wait_while(state, |state| state.end.is_none());
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.end.expect("waited for").status()
    }

    /// As [`wait`](Self::wait), but no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut) if it still runs then, and those of [`wait`](Self::wait).
    pub fn wait_deadline(&mut self, deadline: impl Into<Deadline>) -> io::Result<ExitStatus> {
        let Ok(left) = deadline.into().left() else {
            self.stdin = None;
            return self.status_or(io::ErrorKind::TimedOut);
        };
        let Some(left) = left else {
            return self.wait();
        };
        self.stdin = None;
        let state = self.shared.lock();
        let waited = self
            .shared
            .ended
            .wait_timeout_while(state, left, |state| state.end.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.status_or(io::ErrorKind::TimedOut)
    }

    /// The child's exit status if it has ended. Its input stays open.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) while it runs, and those of [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<ExitStatus> {
        self.status_or(io::ErrorKind::WouldBlock)
    }

    fn status_or(&self, runs: io::ErrorKind) -> io::Result<ExitStatus> {
        self.shared.lock().end.ok_or(runs)?.status()
    }
}
