//! Operations on standard streams and signals that the programs of semring need and that can't be
//! written in safe code.
//!
//! * [`is_closed`]: whether a standard stream was closed when the process began. The standard library
//!   opens `/dev/null` in the place of a closed one before `main`, and afterwards the two can't be
//!   distinguished: supervisors give a `/dev/null` that is open for reading and writing, too.
//! * [`Breaker`]: ends a transfer that blocks, on any descriptor, without changing the descriptor. The
//!   flag `O_NONBLOCK` belongs to the open file, which other processes share.
//! * [`stop_by`]: stops the process as a signal such as `SIGTSTP` does without a handler.
//! * [`is_ignored`]: whether a signal is ignored, also without `/proc`.
//!
//! Left out: the contents of transfers, and when to give up. The programs decide that.
#![deny(unsafe_code)]

mod breaker;
mod closed;
mod stop;

pub use breaker::Breaker;
pub use closed::{Stream, is_closed};
pub use stop::{Target, is_ignored, stop_by};

/// The example of the README, compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
