//! Message queues in shared memory for Linux processes, which behave like pipes.
//!
//! When the last producer exits, the consumer reads what is left and then gets end of stream; when the consumer
//! exits, its producers get a broken-pipe error. This also holds when a process is killed with SIGKILL, and without
//! delay: there is no daemon, heartbeat or time-out, because the kernel reports the death. A process may be killed at
//! any instruction without stopping the others or losing a message that it had sent.
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
//! # Which ring
//! A ring has one consumer and 1 to 240 producers. Each producer has a *lane*: a circular buffer of its own.
//!
//! | you have | use |
//! |---|---|
//! | one producer, one consumer | [`spsc`] |
//! | up to 240 producers, one consumer | [`mpsc`]; no order between messages of different producers |
//! | requests and replies, or both directions | [`duplex`]: two rings as a connection, and calls over it |
//! | a program started with rings in place of stdin and stdout | [`process`] |
//! | tasks of tokio | the module `tokio` (a feature) |
//! | a tool that accepts any ring | [`any`] |
//!
//! The [`Address`] chooses the memory, and with it what the ring outlives:
//!
//! | address | the ring lives until |
//! |---|---|
//! | `NAME`, `posix:NAME`, `sysv:NAME` | it is removed, or the machine restarts |
//! | `file:PATH` | it is removed; a restart keeps it |
//! | `memfd:`, then `fd:N` | the last process closes it |
//! | `anonymous:` | no process has it open or is attached |
//!
//! A ring is guarded by a System V semaphore set, or by pipes ([`GuardChoice`]): both report deaths alike. Pipes can be
//! waited for with `epoll` and tokio, and need no System V IPC.
//!
//! # Life of a ring
//! ```text
//! Builder ── create, open, open_or_create ──► Ring ── attach_producer ──► Producer ── send, reserve, batch ──► drop, close
//!                                              │───── attach_consumer ──► Consumer ── recv, recv_batch ──► end of stream
//!                                              └───── remove, or the consumer's remove_at_end
//! ```
//! A [`Ring`] has no role: other processes do not notice it. A ring is not removed when its handles are dropped, except memory
//! without a name. Remove it with [`Consumer::remove_at_end`], [`remove`], or [`force_remove`], which ends the calls of all users
//! with `Removed`. [`list`], [`inspect`] and [`orphans`] are for administration: `orphans` finds what killed programs left.
//!
//! # End of stream
//! [`RecvError::EndOfStream`] means that all producers are gone and everything was received. It holds how many of them
//! finished and how many died. Every further call returns it again, until [`Consumer::resume`]: then the consumer waits for a
//! producer that attached after that end, and returns at once if one already did. No message is skipped. A ring to which no
//! producer has attached yet is not at its end: `recv` waits. Where producers come and go, [`Builder::linger`] delays the end.
//!
//! # Broken pipe
//! A producer gets [`SendError::ConsumerGone`] when its consumer has detached or died, and [`SendError::Closed`] when the
//! consumer has closed the ring. Its consumer is the one that was attached when the producer attached, or any later one. A
//! producer that has had no consumer fills its lane and waits. A producer that runs on notices a death after at most half a lap
//! of its lane; [`Producer::check_consumer`] checks at once, and [`Producer::accept_next_consumer`] goes on with the next one.
//!
//! # At least once and deduplication
//! A message is sent exactly once: when `send` or `commit` has returned, it survives all processes. It is received at least once.
//! Dropping a [`Message`] takes it: the consumer goes on to the next one. Its bytes go back to the producer later, after a
//! quarter lap, on an empty ring, before a sleep, or with [`Consumer::flush_released`]. If the consumer is killed before,
//! its successor gets the message again, with the same [`lane`](Message::lane) and [`position`](Message::position).
//!
//! | wanted | do |
//! |---|---|
//! | few duplicates | call [`flush_released`](Consumer::flush_released) after each unit of work: nothing that was taken before it comes again |
//! | no duplicates | store lane and position with the results, in one transaction, and skip what is not beyond them |
//! | several messages or none | receive them in a [`RecvBatch`]: until it is dropped all of it comes again |
//!
//! # Back pressure
//! A producer whose lane is full waits, or fails, or drops the message and counts it: [`Builder::when_full`]. A stopped consumer
//! stops its producers when their lanes are full; a stopped producer delays only its own messages. Choose
//! [`capacity`](Builder::capacity) for the longest pause of the consumer: a larger ring is no faster.
//! [`RingInfo::high_water_bytes`] shows how full the fullest lane has been.
//!
//! # Waiting
//! A waiting call sleeps in the kernel and uses no CPU time, or polls for a moment before: [`WaitStrategy`], chosen for each
//! handle. An [`Interrupter`] ends the wait from another thread; [`Consumer::pollable`] and [`Producer::pollable`] give a
//! descriptor for an event loop.
//!
//! Every call that waits has a `try_` form, which never waits, and a `_deadline` form, which takes a [`Deadline`], a
//! duration or a moment. Both report "not now" as an error:
//!
//! | calls | `try_…` | `…_deadline` |
//! |---|---|---|
//! | send, reserve, push, `reserve_array`; [`duplex::Request::reply`] | [`SendError::Full`] | [`SendError::TimedOut`] |
//! | recv, `recv_batch`, `recv_array`; [`duplex::Server::next_request`] | [`RecvError::Empty`] | [`RecvError::TimedOut`] |
//! | [`duplex::Client::start`] | [`CallError::Full`] | [`CallError::TimedOut`] |
//! | [`duplex::Client::wait`] | [`CallError::Empty`] | [`CallError::TimedOut`] |
//! | [`duplex::Client::call`], [`next_reply`](duplex::Client::next_reply) | | [`CallError::TimedOut`] |
//! | [`process::Child::wait`] | [`WouldBlock`](std::io::ErrorKind::WouldBlock) | [`TimedOut`](std::io::ErrorKind::TimedOut) |
//!
//! # Errors
//! | | send, reserve, push | recv | attach | calls of a client |
//! |---|---|---|---|---|
//! | the other side is gone | [`ConsumerGone`](SendError::ConsumerGone), [`Closed`](SendError::Closed) | [`EndOfStream`](RecvError::EndOfStream) | | [`PeerGone`](CallError::PeerGone) |
//! | the message is too long | [`TooLong`](SendError::TooLong) | | | [`TooLong`](CallError::TooLong) |
//! | a lane is full | [`Full`](SendError::Full) (`try_`, or the policy `Fail`) | | | [`Full`](CallError::Full) |
//! | the producer is gone within a part | | [`LaneEnded`](RecvError::LaneEnded) (`recv_from`) | | |
//! | the role is taken | | | [`NoFreeLane`](AttachError::NoFreeLane), [`ConsumerPresent`](AttachError::ConsumerPresent) | |
//! | another thread interrupted the wait | `Interrupted` | `Interrupted` | | `Interrupted` |
//! | the ring was removed or truncated | `Removed` | `Removed` | `Removed` | `Removed` |
//! | an unused ring was replaced: open it again | | [`Replaced`](RecvError::Replaced) | [`Replaced`](AttachError::Replaced) | |
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
//! # Typed messages
//! With the feature `zerocopy`, `Producer::send_value` takes any value whose bytes are
//! all initialised, and `Message::read_value` and `try_read_value` give one back, checked on a private copy. [`Builder::schema`] names
//! what the messages of a ring are, so that a program that expects something else is refused when it opens it. Without
//! the feature messages are bytes; the schema is there all the same.
//!
//! # Threads
//! Every handle is `Send`: a thread can take it over. One thread at a time uses a role (`&mut self`). [`Ring`],
//! [`Builder`], [`Address`], [`Interrupter`] and [`Pollable`] are `Send` and `Sync`.
//!
//! # Fork
//! One rule holds for all handles that a forked child inherits. A role stays the parent's: in the child every call on
//! a [`Producer`], a [`Consumer`], an end of a pair, a [`Client`](duplex::Client) or a [`Server`](duplex::Server) has no
//! effect and returns the `Forked` error of its error type ([`Unsupported`](std::io::ErrorKind::Unsupported) where that is
//! an [`io::Error`](std::io::Error)); a count is 0, a slice `None`; and dropping or closing the handle does nothing. A
//! [`Ring`] or a [`Pair`](duplex::Pair) has no role: the child attaches through it, as any other process, if the ring is
//! `anonymous:`; other rings it opens itself ([`AttachError::Forked`]).
//!
//! # Trust
//! Nothing in the memory of a ring is trusted: any bytes there lead to an error or a corrupt lane, never to undefined behaviour. A process
//! with write permission can destroy the stream, and can keep a peer asleep by writing into its wait word, but nothing else of its peers. So
//! the permissions of a ring ([`Builder::mode`]) decide which users can send. Payloads are copied out, because a peer could change
//! them while they are read; [`Builder::trust_peers`] is an `unsafe` promise that no peer does, and gives slices.
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
//! | [`Message`], [`RecvBatch`], [`ArrayRef`] | not released: received again, by the next call or the next consumer |
//! | [`Producer`], [`duplex::Producer`] | the stream ends, and the producer counts as died ([`RingInfo::died_producers`]) |
//! | [`Consumer`], [`duplex::Consumer`] | a broken pipe, as after any drop; an end of stream that it received last is delivered again to its successor |
//! | [`Reservation`], [`ArrayReservation`] | discarded |
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
    Any, ArrayRef, ArrayReservation, Builder, Consumer, Element, HugePages, Interrupter, Kind,
    Message, MessageRef, Messages, Mpsc, Pollable, Producer, RecvBatch, Reservation, Ring,
    SendBatch, Spsc, UnusedRing, WaitStats, any, disable_sigbus_handler, force_remove, inspect,
    list, mpsc, remove, reset_counts, spsc,
};
#[cfg(feature = "zerocopy")]
pub use error::ValueError;
pub use error::{
    AttachError, CallError, CreateError, EndError, Feature, OpenError, OpenOrCreateError,
    RecvError, RemoveError, SendError, SigbusHandlerInstalled, SpawnError, StdioError, SystemCall,
};
pub use guard::deadline::Deadline;
pub use guard::strategy::WaitStrategy;
pub use layout::features::WhenFull;
pub use layout::schema::Schema;
#[doc(hidden)]
pub use layout::schema::layout_hash;
pub use layout::superblock::{GuardKind, RingKind};
pub use layout::{Framing, Position, Tag};
pub use lifecycle::{
    GuardChoice, LaneInfo, Orphan, OrphanKind, PruneOutcome, RemoveOutcome, RingInfo, RingState,
    Unread, has_membarrier, orphans,
};
pub use memory::address::{Address, AddressError, Backend};

/// The examples of the README files, compiled with the other examples.
#[cfg(all(doctest, feature = "zerocopy"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../README.md")]
struct Readme;
