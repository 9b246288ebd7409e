//! Every public error, one enum for each operation. Errors of the data path are small and `Copy`;
//! errors of creating, opening and removing keep the name and the cause.

mod advice;
mod call;
#[cfg(feature = "zerocopy")]
mod value;

use std::io;

use self::advice::{refusal, refusal_of};
pub use self::call::SystemCall;
#[cfg(feature = "zerocopy")]
pub use self::value::ValueError;
use crate::layout::Position;
use crate::memory::address::AddressError;

/// Why a ring could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The address can't be understood.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A size or number is outside the range that the format allows.
    #[error("{what} can't be {value}: {allowed}")]
    BadOption {
        /// Which option.
        what: &'static str,
        /// The rejected value.
        value: String,
        /// The allowed values.
        allowed: &'static str,
    },
    /// Something of this name exists.
    #[error("{name}: it exists already; open it, or remove it first")]
    Exists {
        /// The address.
        name: String,
    },
    /// The place is taken by something that is not a ring.
    #[error("{name}: {what}; choose another name, or remove it yourself if it is not needed")]
    NotARing {
        /// The address.
        name: String,
        /// A description of the object that was found.
        what: String,
    },
    /// The memory can't be had.
    #[error("{name}: no room for {requested} bytes{}: {hint}", free_text(*.free))]
    NoSpace {
        /// The address.
        name: String,
        /// The number of bytes requested.
        requested: u64,
        /// Bytes that were free, where that is known.
        free: Option<u64>,
        /// The way out.
        hint: &'static str,
    },
    /// A limit on memory is in the way: of System V segments, huge pages, locked memory, file sizes, inodes, address
    /// space, or of the memory control group of this process.
    #[error("{name}: {limit}")]
    MemoryLimit {
        /// The address.
        name: String,
        /// Which limit, its value, and how to raise it.
        limit: String,
    },
    /// A limit of System V semaphores is reached.
    #[error("{name}: {limit}")]
    SemaphoreLimit {
        /// The address.
        name: String,
        /// Which limit, its value, and how to raise it.
        limit: String,
    },
    /// Not allowed.
    #[error("{name}: permission denied{}", denied_text(.source))]
    Permission {
        /// The address.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Another process has been making or removing the ring for too long.
    #[error(
        "{name}: another process is making or removing it and does not finish; try again, or look for a stopped process"
    )]
    Busy {
        /// The address.
        name: String,
    },
    /// Any other refusal by the system.
    #[error("{name}: {}", refusal(.call, .source))]
    Os {
        /// The address.
        name: String,
        /// The call that failed.
        call: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

fn free_text(free: Option<u64>) -> String {
    free.map_or_else(String::new, |free| format!(" ({free} bytes are free)"))
}

/// The kernel's error, unless its text is just "permission denied".
fn denied_text(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => String::new(),
        _ => format!(" ({source})"),
    }
}

/// Why a ring could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address can't be understood.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no ring of this name.
    #[error("{name}: no such ring")]
    NotFound {
        /// The address.
        name: String,
    },
    /// Something is there, but it is not a ring.
    #[error("{name}: not a ring: {what}")]
    NotARing {
        /// The address.
        name: String,
        /// A description of the object that was found.
        what: String,
    },
    /// The ring was made by another version of the format.
    #[error(
        "{name}: the ring was made by format {found}, this build reads {expected}; use the program that made it, or remove the ring"
    )]
    OtherVersion {
        /// The address.
        name: String,
        /// The ring's format version.
        found: u32,
        /// This build's.
        expected: u32,
    },
    /// The ring needs a feature that this build does not have.
    #[error(
        "{name}: the ring needs what this build does not have: {}; use a newer one", crate::layout::features::feature_names(*.bits)
    )]
    UnknownFeatures {
        /// The address.
        name: String,
        /// The unknown bits.
        bits: u64,
    },
    /// The ring is there, but its semaphores are not to be found.
    #[error("{name}: {why}")]
    GuardMissing {
        /// The address.
        name: String,
        /// What is missing, the likely reason, and what to do.
        why: String,
    },
    /// The ring differs from the options given.
    #[error(
        "{name}: the ring has {what} {found}, not {requested}; use that value, or remove the ring first"
    )]
    Mismatch {
        /// The address.
        name: String,
        /// Which property.
        what: &'static str,
        /// The ring's.
        found: String,
        /// The value given in the options.
        requested: String,
    },
    /// A limit is in the way: of locked memory, or of semaphores if the ring needs a new set.
    #[error("{name}: {limit}")]
    MemoryLimit {
        /// The address.
        name: String,
        /// Which limit, its value, and how to raise it.
        limit: String,
    },
    /// Another process is still making the ring.
    #[error("{name}: another process is still making it; try again, or look for a stopped process")]
    Busy {
        /// The address.
        name: String,
    },
    /// Not allowed.
    #[error("{name}: permission denied{}; the owner can give access by its mode", denied_text(.source))]
    Permission {
        /// The address.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Any other refusal by the system.
    #[error("{name}: {}", refusal(.call, .source))]
    Os {
        /// The address.
        name: String,
        /// The call that failed.
        call: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Why open-or-create failed: an existing ring could not be opened, or a missing one not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenOrCreateError {
    /// The existing object could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing was there and nothing could be made.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// Why a process did not become a producer or the consumer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The ring has a live consumer.
    #[error("the ring has a consumer already (pid {pid}); a ring has one")]
    ConsumerPresent {
        /// Its process id.
        pid: u32,
    },
    /// The ring has as many live producers as it allows.
    #[error(
        "all {lanes} lanes have a producer (the first is pid {pid}); make the ring with more lanes"
    )]
    NoFreeLane {
        /// How many lanes the ring has.
        lanes: usize,
        /// Process id of the producer of the first lane.
        pid: u32,
    },
    /// The ring was or is being removed, or its file was truncated: open it again.
    #[error("the ring was removed or truncated")]
    Removed,
    /// Another process named other settings and has replaced the ring, which no producer had used: open it again.
    #[error("the ring was replaced by one with other settings: open it again")]
    Replaced,
    /// The producer's buffer (lane) is damaged: a process wrote where it must not.
    #[error(
        "lane {lane} is damaged at position {position}: a process wrote where it must not; remove the ring and make it again"
    )]
    Corrupt {
        /// The lane.
        lane: usize,
        /// Where the damaged bytes are.
        position: Position,
    },
    /// The ring was opened by the parent of this process: a forked child must open it itself.
    #[error("this handle belongs to the parent process; a forked child must open the ring itself")]
    Forked,
    /// Not allowed.
    #[error("permission denied: the semaphores of the ring are not writable for this user")]
    Permission,
    /// A limit or any other refusal by the system.
    #[error("{}", refusal_of(.call, *.errno))]
    Os {
        /// The call that failed.
        call: &'static str,
        /// The kernel's error number.
        errno: i32,
    },
}

/// Why an end of a pair was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// A live process has it.
    #[error("this end of the pair is taken (pid {pid})")]
    Taken {
        /// Its process id.
        pid: u32,
    },
    /// It was taken before, and given up: a pair is for one conversation.
    #[error(
        "this end of the pair was taken before, and a pair is for one conversation: make a new one"
    )]
    Spent,
    /// Attaching to one of the rings failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The state of one of the rings could not be read.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a program was not started with rings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A ring could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Attaching to a new ring failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The memory of a ring could not be passed on.
    #[error("{}", refusal("a descriptor for the child", .0))]
    Descriptor(io::Error),
    /// There can be no thread that waits for the child.
    #[error("a thread to wait for the child: {0}")]
    Thread(io::Error),
    /// The program could not be started.
    #[error("{program}: {source}")]
    Program {
        /// The program.
        program: String,
        /// The error of starting it.
        source: io::Error,
    },
}

/// Why [`process::stdin`](crate::process::stdin) or [`process::stdout`](crate::process::stdout) gave no handle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StdioError {
    /// There is no such ring: this process was not started by [`process::spawn`](crate::process::spawn), or
    /// without this ring.
    #[error("no ring was given to this program: {variable} is not set")]
    NotGiven {
        /// The environment variable.
        variable: &'static str,
    },
    /// This process inherited the variable, but not the ring: the process that started it took the ring, or
    /// closed its descriptor.
    #[error(
        "no ring was given to this program: {variable} ({address}) was meant for the one that started it, which took that ring"
    )]
    NotInherited {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        address: String,
    },
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Attaching to the ring failed.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server is gone, or takes no more calls, or answers no more.
    #[error("the server is gone")]
    PeerGone,
    /// The server dropped the request without a reply.
    #[error("the server has not answered")]
    Unanswered,
    /// The time is over. The server may have received the request all the same, unless it was to be
    /// [started](crate::duplex::Client::start) only.
    #[error("timed out")]
    TimedOut,
    /// There is no room for the request now (only from `try_start`).
    #[error("the ring is full")]
    Full,
    /// The reply has not come yet (only from `try_wait`).
    #[error("the reply has not come yet")]
    Empty,
    /// The request is longer than the ring takes.
    #[error("the request is longer than {max} bytes")]
    TooLong {
        /// The longest request, in bytes.
        max: usize,
    },
    /// The call is over, or never began, or is another client's.
    #[error("there is no such call in flight")]
    NotInFlight,
    /// The wait was [interrupted](crate::duplex::Client::interrupter).
    #[error("interrupted")]
    Interrupted,
    /// The pair was removed.
    #[error("the pair was removed")]
    Removed,
    /// A ring of the pair is damaged: a process wrote where it must not.
    #[error("the pair is damaged: a process wrote where it must not; make a new one")]
    Corrupt,
    /// The client belongs to the parent of this forked process.
    #[error("this client belongs to the parent process")]
    Forked,
    /// Any other refusal by the system.
    #[error("{}", refusal_of(.call.name(), *.errno))]
    Os {
        /// The call that failed.
        call: SystemCall,
        /// The kernel's error number.
        errno: i32,
    },
}

/// Why a message was not sent.
///
/// With the feature `tokio` also why a sink was not completely flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room now: from `try_` calls, and on rings whose producers do
    /// [not wait](crate::Builder::when_full).
    #[error("the lane is full")]
    Full,
    /// The message is longer than a quarter of the ring's capacity.
    #[error("the message is longer than {max} bytes, a quarter of the lane's capacity")]
    TooLong {
        /// The longest message, in bytes.
        max: usize,
    },
    /// The ring lacks what the call needs: it was made by another version or with other options.
    #[error("the ring was made without {0}, which this call needs; make it again")]
    MissingFeature(Feature),
    /// Broken pipe: the consumer that was there has detached or died.
    #[error("the consumer is gone")]
    ConsumerGone,
    /// The consumer was [closed](crate::Consumer::close), or (of the feature `tokio`) this sink was
    /// closed.
    #[error("the ring is closed: nothing more is taken, or nothing more was to be sent")]
    Closed,
    /// The ring was removed, or its file was truncated.
    #[error("the ring was removed or truncated")]
    Removed,
    /// The producer's buffer (lane) is damaged: a process wrote where it must not.
    #[error(
        "the lane is damaged: a process wrote where it must not; remove the ring and make it again"
    )]
    Corrupt,
    /// The time is over; nothing was sent.
    #[error("timed out")]
    TimedOut,
    /// [`Interrupter::interrupt`](crate::Interrupter::interrupt) was called.
    #[error("interrupted")]
    Interrupted,
    /// The handle belongs to the parent of this forked process.
    #[error("this handle belongs to the parent process; a forked child must attach itself")]
    Forked,
    /// Any other refusal by the system.
    #[error("{}", refusal_of(.call.name(), *.errno))]
    Os {
        /// The call that failed.
        call: SystemCall,
        /// The kernel's error number.
        errno: i32,
    },
}

/// A capability that a ring has or lacks, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Sending many messages of one size together: [`Producer::send_all`](crate::Producer::send_all).
    Arrays,
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Arrays => "arrays",
        })
    }
}

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing is there now (only from `try_` calls).
    #[error("the ring is empty")]
    Empty,
    /// All producers are gone and everything was received.
    ///
    /// Every further call reports the same, until [`Consumer::resume`](crate::Consumer::resume). The producers
    /// that are counted attached since the end before this one, or since the ring was made.
    #[error("end of stream{}", died_text(*.died))]
    EndOfStream {
        /// How many left on purpose: dropped or [closed](crate::Producer::close).
        finished: u32,
        /// How many were killed, crashed, dropped by a panic, or [aborted](crate::Producer::abort): what each of
        /// them meant to send after its last message is missing.
        died: u32,
    },
    /// The producer of which [`recv_from`](crate::Consumer::recv_from) awaited a message is gone, and everything that it sent was
    /// received.
    #[error("the producer on this lane is gone, and everything that it sent was received")]
    LaneEnded,
    /// A producer's buffer (lane) is damaged and is skipped from now on. Reported once for each lane.
    #[error("lane {lane} is damaged at position {position} and is skipped from now on")]
    Corrupt {
        /// The lane.
        lane: usize,
        /// Where.
        position: Position,
    },
    /// The ring was removed, or its file was truncated.
    #[error("the ring was removed or truncated")]
    Removed,
    /// Another process named other settings and has replaced the ring, in which no producer had ever been: nothing is lost.
    /// Open the ring again.
    #[error(
        "the ring was replaced by one with other settings before a producer had attached: open it again"
    )]
    Replaced,
    /// The time is over.
    #[error("timed out")]
    TimedOut,
    /// [`Interrupter::interrupt`](crate::Interrupter::interrupt) was called.
    #[error("interrupted")]
    Interrupted,
    /// The handle belongs to the parent of this forked process.
    #[error("this handle belongs to the parent process; a forked child must attach itself")]
    Forked,
    /// Any other refusal by the system.
    #[error("{}", refusal_of(.call.name(), *.errno))]
    Os {
        /// The call that failed.
        call: SystemCall,
        /// The kernel's error number.
        errno: i32,
    },
    /// The next message has another size than those that were to be received
    /// ([`recv_all`](crate::Consumer::recv_all)). It stays where it is.
    #[error("the next message has {bytes} bytes, not as many as those that were to be received")]
    OtherSize {
        /// Its size in bytes.
        bytes: usize,
    },
}

fn died_text(died: u32) -> String {
    match died {
        0 => String::new(),
        1 => ": 1 producer died, and the stream may be truncated".to_owned(),
        _ => format!(": {died} producers died, and the stream may be truncated"),
    }
}

/// Why a ring was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// A producer or a consumer is attached.
    #[error("{name}: in use{}; stop them, or remove it by force", users_text(.producers, *.consumer))]
    InUse {
        /// The address.
        name: String,
        /// Process ids of the producers.
        producers: Vec<u32>,
        /// Process id of the consumer.
        consumer: Option<u32>,
    },
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The handle belongs to the parent of this forked process.
    #[error("this handle belongs to the parent process; a forked child must open the ring itself")]
    Forked,
    /// Not allowed: only the owner or root removes.
    #[error("{name}: permission denied{}; only the owner or root may remove it", denied_text(.source))]
    Permission {
        /// The address.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Any other refusal by the system.
    #[error("{name}: {}", refusal(.call, .source))]
    Os {
        /// The address.
        name: String,
        /// The call that failed.
        call: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Why the SIGBUS handler was not [disabled](crate::disable_sigbus_handler): it is installed already, and stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the SIGBUS handler is installed already, since this process opened a ring whose file can be truncated"
)]
#[non_exhaustive]
pub struct SigbusHandlerInstalled;

fn users_text(producers: &[u32], consumer: Option<u32>) -> String {
    let mut text = String::new();
    if producers.is_empty() && consumer.is_none() {
        text += " (or marked as used) by an unknown process";
    }
    if let Some(pid) = consumer {
        text += &format!(" by the consumer (pid {pid})");
    }
    if !producers.is_empty() {
        let list: Vec<String> = producers.iter().map(u32::to_string).collect();
        text += if text.is_empty() { " by " } else { " and " };
        text += &format!("producers (pid {})", list.join(", "));
    }
    text
}

const _: () = {
    // The data path passes these by value.
    assert!(size_of::<SendError>() <= 16);
    assert!(size_of::<RecvError>() <= 24);
};
