//! Measures message rings beside the kernel's own ways from one process to another: pipes, FIFOs, Unix
//! sockets, System V and POSIX queues, shared memory with a semaphore for each message.
//!
//! All ways of a comparison are measured in one run, in interleaved rounds, by two processes that fill and
//! check every word; compare the ratios within a run. The second process is this program again: a program
//! that uses the crate calls [`run_child`] at its beginning if its first argument is [`CHILD`].
//!
//! Layers, from the top; `tests/tidy` holds their order:
//!
//! ```text
//! report      tables and pages
//! plan        the measurements and their order → results
//! runner      processes and threads of a round
//! ways        pipes, queues, rings, …: both ends of each are a `Link`
//! work        the task of an end: sending and receiving halves of the workloads
//! link, payload, workload, machine, units, cleanup, error
//! ```
//!
//! Left out: rivals that are libraries of their own (another crate may [add](Way::add) them), and time-outs. If
//! a limit of the kernel keeps a way from carrying a message, the report has the reason.
#![deny(unsafe_code)]

mod cleanup;
mod error;
mod link;
mod machine;
mod payload;
mod plan;
mod report;
mod results;
mod runner;
mod units;
mod ways;
mod work;
mod workload;

pub use cleanup::{CleanupGuard, sweep};
pub use error::{Error, Result, wrong_content, wrong_length};
pub use link::Link;
pub use machine::Machine;
pub use payload::{Bytes, Message, Word, check, fill, word};
pub use plan::{Options, Progress, run};
pub use report::{html, text};
pub use results::{Report, Row};
pub use runner::{CHILD, run_child};
pub use units::{exact_bytes, human_bytes};
pub use ways::{Category, End, Setup, Spec, ThreadEnds, Typed, Way, no_obstacle, one_sender_only};
pub use work::{Outcome, Task};
pub use workload::Workload;

/// The example of the README, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
