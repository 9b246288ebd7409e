//! Coprocesses: programs that are started with rings in place of stdin and stdout, as `popen` starts them
//! with pipes.
//!
//! ```no_run
//! use std::process::Command;
//!
//! let mut child = semring::process::spawn(Command::new("my-worker"))?;
//! let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
//! input.send(b"a task")?;
//! println!("{} bytes of result", output.recv()?.len());
//! drop(input); // the end of its input
//! println!("{}", child.wait()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! In the worker:
//!
//! ```no_run
//! let mut input = semring::process::stdin()?;
//! let mut output = semring::process::stdout()?;
//! loop {
//!     let task = match input.recv() {
//!         Ok(message) => message.to_vec(),
//!         Err(semring::RecvError::EndOfStream { .. }) => break, // the parent closed it, or is dead
//!         Err(error) => return Err(error.into()),
//!     };
//!     output.send(&task)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Any program
//! A program that does not use rings becomes a coprocess with two of the tools around it:
//!
//! ```no_run
//! use std::process::Command;
//!
//! let mut shell = Command::new("sh");
//! shell.args(["-c", r#"semring-consumer "$SEMRING_STDIN" | sort | semring-producer "$SEMRING_STDOUT""#]);
//! let mut sort = semring::process::spawn(shell)?; // a message is a line
//! # Ok::<(), semring::SpawnError>(())
//! ```
//!
//! # The environment
//! [`STDIN_VARIABLE`] and [`STDOUT_VARIABLE`] hold the addresses of the rings, `fd:N#ID`, N being the number of
//! an inherited descriptor, ID the beginning of the ring's uuid. They are valid in the child, and in the programs
//! that it starts before it has taken them (as a shell does). [`stdin`] and [`stdout`] keep the descriptor from
//! going further. The variables go further, because changing the environment is not safe where there are threads.
//! So a program that the child starts afterwards may find nothing under that number, or another descriptor. The ID
//! shows it, and the error is [`NotInherited`](crate::StdioError::NotInherited).
//!
//! The child gets these descriptors and those that [`Command`](std::process::Command) passes anyway, no
//! others of semring; other programs that are started at the same time don't get them. Descriptor 0 of the
//! child is `/dev/null` if it has a ring in its place; descriptors 1 and 2 are set by the `Command`.
//!
//! # When one side ends
//! * The child ends, by exit or signal: the parent receives the messages that are left, then end of stream,
//!   and its `send` returns a broken pipe. This also holds if the child ended before it opened its rings: a
//!   thread of the parent waits for its end. If the child leaves children of its own that have the rings, the
//!   stream goes on until they end.
//! * The parent ends, by exit or signal: the child receives the messages that are left, then end of stream,
//!   and its `send` returns a broken pipe. It is not killed. (If the parent of a `semring-producer` was killed
//!   before the program opened the ring, the program has known no consumer: it fills the ring, and then
//!   waits.)
//! * [`Child`] is dropped: its rings are closed, and the child is neither killed nor waited for, as with
//!   [`std::process::Child`]; but it is reaped when it ends, so no zombie stays.
//!
//! # Two full rings
//! As with `popen` in both directions, a parent that sends without receiving and a child that does the same
//! wait for each other for ever, once both rings are full: send and receive in two threads, or use `try_send`
//! or a time-out.
//!
//! # Memory
//! Rings of coprocesses are sealed memfds: they need no name, and end with the last process that has them
//! open. Anonymous memory can't be passed to a program: it does not survive exec. For a child that is forked
//! and executes nothing, [`duplex::Builder::anonymous`](crate::duplex::Builder::anonymous) makes the two
//! rings. Rings that have names need no inheritance: pass the name as an argument.

mod child;
mod spawn;
mod stdio;

pub use child::Child;
pub use spawn::{Builder, spawn};
pub use stdio::{STDIN_VARIABLE, STDOUT_VARIABLE, stdin, stdout};

#[cfg(not(semring_loom))]
const _: () = {
    use crate::channel::threads::{send, send_and_sync};

    send_and_sync::<Builder>();
    send::<Child>();
};
