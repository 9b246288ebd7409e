//! Measures message rings beside the kernel's own ways from one process to another: pipes, FIFOs, Unix
//! sockets, System V and POSIX queues, shared memory with a semaphore for each message.
//!
//! Everything that is compared is measured in one run, in interleaved rounds, by two processes that fill
//! and check every word; what counts is the ratio within the run. The second process is this program
//! again: whoever uses the crate must give [`run_child`] a chance first.
//!
//! Left out: rivals that are libraries of their own (another crate may [add](Way::add) them: each is a
//! [`Link`]), and time-outs. A way that can't carry a message of
//! some size here (a limit of the kernel) is reported as such, with the reason.
#![deny(unsafe_code)]

mod child;
mod crowd;
mod latency;
mod machine;
mod one_way;
mod pair;
mod payload;
mod plan;
mod quiet;
mod report;
mod task;
mod text;
mod threads;
mod trash;
mod ways;

pub use child::{CHILD, run_child};
pub use machine::Machine;
pub use payload::{Bytes, Message, Word, check, fill, word};
pub use plan::{Options, Progress, Report, Row, Workload, run};
pub use report::html;
pub use task::{Outcome, Task};
pub use text::text;
pub use trash::{Trash, sweep};
pub use ways::{
    End, Ends, Link, Made, Sort, Spec, Typed, Way, not_sent, nothing_known, one_sender_only,
    wrong_length,
};

/// Why something could not be measured.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What measuring gives.
pub type Result<T> = std::result::Result<T, Error>;
