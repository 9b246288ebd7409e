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
//! assert!(matches!(consumer.recv(), Err(semring::RecvError::EndOfStream)));
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
//! | [`Producer`], [`duplex::Sender`] | the stream ends, and the producer counts as died ([`RingInfo::died_producers`]) |
//! | [`Consumer`], [`duplex::Receiver`] | a broken pipe, as after any drop; an end of stream that it received last is delivered again to its successor |
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
    Any, Builder, Consumer, EndedProducers, HugePages, Interrupter, Kind, Message, MessageRef,
    Mpsc, Pollable, Producer, RecvBatch, Reservation, Ring, SendBatch, Spsc, UnusedRing, WaitStats,
    any, disable_sigbus_handler, force_remove, inspect, list, mpsc, remove, reset_counts, spsc,
};
pub use error::{
    AttachError, CallError, CreateError, EndError, OpenError, OpenOrCreateError, RecvError,
    RemoveError, SendError, SpawnError, StdioError, SystemCall,
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

/// The example of the README, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
