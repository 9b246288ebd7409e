//! Message rings in shared memory, guarded by System V semaphores.
//!
//! Programs on one machine send each other messages at memory speed, with the semantics of a pipe: the
//! consumer gets end of stream when the last producer is gone, and a producer gets a broken pipe when
//! the consumer is gone. This also holds after SIGKILL, and without delay, because the kernel reports
//! the death. There is no daemon, time-out or heartbeat; a process may be killed at any instruction
//! without stopping the others or losing a committed message.
//!
//! ```
//! # let name = format!("doc-lib-{}", std::process::id());
//! let ring = semring::spsc::Builder::new(&name).capacity(1 << 16).create()?;
//! let mut consumer = ring.attach_consumer()?;
//!
//! // Usually in another process:
//! let mut producer = semring::spsc::open(&name)?.attach_producer()?;
//! producer.send(b"hello")?;
//! drop(producer);
//!
//! assert_eq!(consumer.recv()?.to_vec(), b"hello");
//! assert!(matches!(consumer.recv(), Err(semring::RecvError::EndOfStream { .. })));
//! consumer.remove_at_end()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//! * [`spsc`] and [`mpsc`]: rings of one and of many producers; the same types with another parameter.
//! * [`Builder`]: makes or opens a ring. [`Ring`]: an open ring. [`Producer`], [`Consumer`]: the roles.
//! * [`Reservation`] and [`Message`]: writing and reading in place.
//! * [`duplex`]: two rings as a connection in both directions, and calls over it: a replacement for a
//!   Unix socket.
//! * [`process`]: programs with rings in place of stdin and stdout: a replacement for `popen`.
//! * [`Address`]: how rings are named. [`list`], [`inspect`], [`remove`]: for administration.
//!
//! # The end of a stream
//! [`RecvError::EndOfStream`] means that all producers are gone and everything was received, and how many of them
//! finished and died. Every further call returns it again, until [`Consumer::resume`]: then the consumer waits for a
//! producer that attached after that end, and returns at once if one already did. No message is skipped.
//!
//! # "Not now"
//! Every call that waits has a `try_` form, which never waits, and a `_deadline` form, which takes a [`Deadline`], a
//! duration or a moment. Both report "not now" as an error:
//!
//! | calls | `try_…` | `…_deadline` |
//! |---|---|---|
//! | send, reserve, push; [`duplex::Request::reply`] | [`SendError::Full`] | [`SendError::TimedOut`] |
//! | recv, `recv_batch`; [`duplex::Server::next_request`] | [`RecvError::Empty`] | [`RecvError::TimedOut`] |
//! | [`duplex::Client::start`] | [`CallError::Full`] | [`CallError::TimedOut`] |
//! | [`duplex::Client::wait`] | [`CallError::Empty`] | [`CallError::TimedOut`] |
//! | [`duplex::Client::call`], [`next_reply`](duplex::Client::next_reply) | | [`CallError::TimedOut`] |
//! | [`process::Child::wait`] | [`WouldBlock`](std::io::ErrorKind::WouldBlock) | [`TimedOut`](std::io::ErrorKind::TimedOut) |
//!
//! # Errors by call
//! | | send, reserve, push | recv | attach | calls of a client |
//! |---|---|---|---|---|
//! | the other side is gone | [`ConsumerGone`](SendError::ConsumerGone), [`Closed`](SendError::Closed) | [`EndOfStream`](RecvError::EndOfStream) | | [`PeerGone`](CallError::PeerGone) |
//! | the message is too long | [`TooLong`](SendError::TooLong) | | | [`TooLong`](CallError::TooLong) |
//! | the role is taken | | | [`NoFreeLane`](AttachError::NoFreeLane), [`ConsumerPresent`](AttachError::ConsumerPresent) | |
//! | another thread interrupted the wait | `Interrupted` | `Interrupted` | | `Interrupted` |
//! | the ring was removed or truncated | `Removed` | `Removed` | `Removed` | `Removed` |
//! | a process wrote where it must not | `Corrupt` | `Corrupt`, once for each lane | `Corrupt` | `Corrupt` |
//! | the handle is a parent's | `Forked` | `Forked` | | `Forked` |
//! | the system refused a call | `Os` | `Os` | `Os`, `Permission` | `Os` |
//!
//! # Messages are borrowed
//! A [`Message`] lies in the ring, and its consumer can't be used again before it is dropped. So this is refused
//! (E0499), although only one message is in use at a time, because the returned message is borrowed in every round of
//! the loop:
//!
//! ```compile_fail,E0499
//! use semring::{Consumer, Message, RecvError};
//! fn next_long(consumer: &mut Consumer) -> Result<Message<'_>, RecvError> {
//!     loop {
//!         let message = consumer.recv()?;
//!         if message.len() > 100 {
//!             return Ok(message);
//!         }
//!     }
//! }
//! ```
//!
//! Decide first, [put the message back](Message::put_back), and receive it again, which copies nothing:
//!
//! ```
//! use semring::{Consumer, Message, RecvError};
//! fn next_long(consumer: &mut Consumer) -> Result<Message<'_>, RecvError> {
//!     loop {
//!         let message = consumer.recv()?;
//!         if message.len() > 100 {
//!             message.put_back();
//!             return consumer.recv();
//!         }
//!     }
//! }
//! ```
//!
//! A `match` on the call itself borrows until its end, in the arms for errors, too. To use the consumer in an arm, take
//! what is needed out of the message first:
//!
//! ```
//! use semring::{Consumer, RecvError};
//! fn follow(consumer: &mut Consumer) -> Result<Vec<u8>, RecvError> {
//!     loop {
//!         let received = consumer.recv().map(|message| message.to_vec());
//!         match received {
//!             Err(RecvError::EndOfStream { .. }) => consumer.resume(),
//!             other => return other,
//!         }
//!     }
//! }
//! ```
//!
//! To hold several messages at once, copy them: [`Message::to_vec`], [`Consumer::messages`].
//!
//! # Threads
//! Every handle is `Send`: a thread can take it over. One thread at a time uses a role (`&mut self`). [`Ring`],
//! [`Builder`], [`Address`], [`Interrupter`] and [`Pollable`] are `Send` and `Sync`.
//!
//! # Forks
//! One rule holds for all handles that a forked child inherits. A role stays the parent's: in the child every call on
//! a [`Producer`], a [`Consumer`], an end of a pair, a [`Client`](duplex::Client) or a [`Server`](duplex::Server) has no
//! effect and returns the `Forked` error of its error type ([`Unsupported`](std::io::ErrorKind::Unsupported) where that is
//! an [`io::Error`](std::io::Error)); a count is 0, a slice `None`; and dropping or closing the handle does nothing. A
//! [`Ring`] or a [`Pair`](duplex::Pair) has no role: the child attaches through it, as any other process, if the ring is
//! `anonymous:`; other rings it opens itself ([`AttachError::Forked`]).
//!
//! # Memory ordering
//! What a producer did before it committed a message *happens before* what the consumer does after it
//! received the message, across processes as between threads.
//!
//! # Panics
//! A panic that unwinds a thread drops its handles. Such a drop does not count as regular use:
//!
//! | dropped by a panic | what happens |
//! |---|---|
//! | [`Message`], [`RecvBatch`] | not released: received again, by the next call or the next consumer |
//! | [`Producer`], [`duplex::Producer`] | the stream ends, and the producer counts as died ([`RingInfo::died_producers`]) |
//! | [`Consumer`], [`duplex::Consumer`] | a broken pipe, as after any drop; an end of stream that it received last is delivered again to its successor |
//! | [`Reservation`] | discarded |
//! | [`SendBatch`] | committed: each of its messages is complete |
//! | [`duplex::Request`] | reported to the client as unanswered |
//!
//! Explicit calls (`release`, `commit`, `close`, `reply`) have their usual effect while a thread unwinds. So
//! have handles that a destructor makes and drops during the unwinding. With `panic = "abort"` the process
//! dies, as by any other signal.
//!
//! # Limits
//! Linux 5.10 or newer, 64-bit little-endian. A lane holds 4 KiB to 4 GiB, a message at most a quarter
//! of it, a ring at most 240 lanes. All processes of a ring share one IPC
//! namespace, unless pipes guard it.
#![deny(unsafe_code)]
// Models use a part of the crate only.
#![cfg_attr(semring_loom, allow(dead_code))]

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little"
)))]
compile_error!("semring needs 64-bit little-endian Linux");

mod channel;
pub mod duplex;
mod error;
mod guard;
mod layout;
mod lifecycle;
mod memory;
#[cfg(all(test, semring_loom))]
mod model;
mod os;
pub mod process;
mod ring;
mod sync;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use channel::{
    Any, Builder, Consumer, HugePages, Interrupter, Kind, Message, MessageRef, Messages, Mpsc,
    Pollable, Producer, RecvBatch, Reservation, Ring, SendBatch, Spsc, UnusedRing, WaitStats, any,
    disable_sigbus_handler, force_remove, inspect, list, mpsc, remove, reset_counts, spsc,
};
pub use error::{
    AttachError, CallError, CreateError, EndError, OpenError, OpenOrCreateError, RecvError,
    RemoveError, SendError, SigbusHandlerInstalled, SpawnError, StdioError, SystemCall,
};
pub use guard::deadline::Deadline;
pub use guard::strategy::WaitStrategy;
pub use layout::features::WhenFull;
pub use layout::superblock::{GuardKind, RingKind};
pub use layout::{Framing, Position, Tag};
pub use lifecycle::{
    GuardChoice, LaneInfo, Orphan, OrphanKind, PruneOutcome, RemoveOutcome, RingInfo, RingState,
    Unread, has_membarrier, orphans,
};
pub use memory::address::{Address, AddressError, Backend};

/// The examples of the README files, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../README.md")]
struct Readme;
