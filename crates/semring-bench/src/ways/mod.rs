//! The ways from one process to another. Each is a [`Link`]: both ends can send and receive.

mod queues;
mod ring;
mod shared;
mod stream;

use std::process::Stdio;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};
pub(crate) use ring::Wait;

/// One end of a way.
pub(crate) trait Link {
    /// Sends one message.
    fn send(&mut self, bytes: &[u8]) -> Result<()>;
    /// Receives one message of exactly this length.
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()>;
    /// Hands over what is still held back.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Something to do with a link, whatever it is made of: so that nothing on the way is called through a
/// table.
pub(crate) trait Job {
    type Outcome;
    fn run<L: Link>(self, link: L) -> Result<Self::Outcome>;
}

macro_rules! ways {
    ($($way:ident $name:literal $label:literal $about:literal)*) => {
        /// A way from one process to another.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Way {
            $(#[doc = $about] $way,)*
        }

        impl Way {
            /// All of them, in the order of the tables.
            pub const ALL: &[Way] = &[$(Way::$way,)*];

            /// As it is called in options and in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Way::$way => $name,)* }
            }

            /// As it is called in tables.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Way::$way => $label,)* }
            }

            /// What it does for each message.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Way::$way => $about,)* }
            }
        }
    };
}

ways! {
    Semring "semring" "semring" "A ring: one `send` and one `recv` for each message."
    Pipe "pipe" "pipe" "A pipe: one write(2) and one read(2) for each message."
    PipePacked "pipe-packed" "pipe, 64 KiB writes" "A pipe: as many messages as go into 64 KiB for each write(2)."
    PipeLong "pipe-long" "pipe of 1 MiB, packed" "The same through a pipe of 1 MiB (F_SETPIPE_SZ)."
    PipeVmsplice "pipe-vmsplice" "pipe of 1 MiB, vmsplice" "The same, its pages lent to the pipe instead of copied (vmsplice(2))."
    Fifo "fifo" "FIFO" "A named pipe: one write(2) and one read(2) for each message."
    UnixStream "unix-stream" "Unix stream socket" "A Unix stream socket: one write(2) and one read(2) for each message."
    UnixSeqpacket "unix-seqpacket" "Unix seqpacket" "A Unix socket that keeps messages apart: one send(2) and one recv(2) for each."
    SysvQueue "sysv-queue" "System V queue" "A System V message queue: msgsnd(2) and msgrcv(2)."
    PosixQueue "posix-queue" "POSIX queue" "A POSIX message queue: mq_send(3) and mq_receive(3)."
    SharedSemaphore "shared-semaphore" "shm + semaphores" "One slot of shared memory, two semop(2) for each message on each side."
}

impl Way {
    /// Messages leave in bulk: no way to answer one.
    pub(crate) fn one_way_only(self) -> bool {
        matches!(self, Self::PipePacked | Self::PipeLong | Self::PipeVmsplice)
    }

    /// Several processes can write into it, a message each without mixing.
    pub(crate) fn many_writers(self, size: usize) -> bool {
        match self {
            Self::Semring | Self::UnixSeqpacket | Self::SysvQueue | Self::PosixQueue => true,
            // PIPE_BUF: up to there writes are not mixed.
            Self::Pipe | Self::Fifo => size <= 4096,
            _ => false,
        }
    }
}

/// What both ends must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) way: Way,
    /// Of what has a name; unique in the run.
    pub(crate) name: String,
    /// `posix:` or `sysv:`, for rings.
    pub(crate) backend: String,
    pub(crate) size: usize,
    pub(crate) wait: Wait,
    /// How many processes send.
    pub(crate) senders: usize,
    /// Identifiers of kernel objects that have no name.
    pub(crate) ids: Vec<i32>,
}

/// This side of a way, and what each child gets as stdin and stdout.
pub(crate) struct Made {
    pub(crate) spec: Spec,
    pub(crate) stdio: Vec<(Stdio, Stdio)>,
    pub(crate) end: End,
}

/// An end of any way. One exists at a time, and it is moved twice.
#[allow(clippy::large_enum_variant)]
pub(crate) enum End {
    Ring(ring::RingLink),
    Stream(stream::StreamLink),
    Packet(stream::PacketLink),
    Queue(queues::SysvLink),
    PosixQueue(queues::PosixLink),
    Shared(shared::SharedLink),
}

impl End {
    pub(crate) fn give<J: Job>(self, job: J) -> Result<J::Outcome> {
        match self {
            Self::Ring(link) => job.run(link),
            Self::Stream(link) => job.run(link),
            Self::Packet(link) => job.run(link),
            Self::Queue(link) => job.run(link),
            Self::PosixQueue(link) => job.run(link),
            Self::Shared(link) => job.run(link),
        }
    }
}

/// For each sender a stdin and a stdout that are not needed.
fn no_stdio(senders: usize) -> Vec<(Stdio, Stdio)> {
    (0..senders)
        .map(|_| (Stdio::null(), Stdio::null()))
        .collect()
}

/// Makes a way and opens the end of the process that measures.
pub(crate) fn make(spec: Spec) -> Result<Made> {
    match spec.way {
        Way::Semring => ring::make(spec),
        Way::Pipe | Way::PipePacked | Way::PipeLong | Way::PipeVmsplice => stream::make_pipe(spec),
        Way::Fifo => stream::make_fifo(spec),
        Way::UnixStream => stream::make_socket(spec),
        Way::UnixSeqpacket => stream::make_seqpacket(spec),
        Way::SysvQueue => queues::make_sysv(spec),
        Way::PosixQueue => queues::make_posix(spec),
        Way::SharedSemaphore => shared::make(spec),
    }
}

/// Opens the end of the other process, which has what `make` gave it as stdin and stdout.
pub(crate) fn open(spec: &Spec) -> Result<End> {
    match spec.way {
        Way::Semring => ring::open(spec),
        Way::Pipe | Way::PipePacked | Way::PipeLong | Way::PipeVmsplice => stream::open_pipe(spec),
        Way::Fifo => stream::open_fifo(spec),
        Way::UnixStream => stream::open_socket(),
        Way::UnixSeqpacket => stream::open_seqpacket(),
        Way::SysvQueue => queues::open_sysv(spec),
        Way::PosixQueue => queues::open_posix(spec),
        Way::SharedSemaphore => shared::open(spec),
    }
}

/// A message was not as long as it had to be.
fn wrong_length(found: usize, expected: usize) -> Error {
    format!("a message of {found} bytes, not {expected}").into()
}
