//! Runs a way: starts the processes or threads of the other side, gives both sides their tasks, and
//! returns the results.

mod measure;
mod pair;
mod processes;
mod threads;

pub(crate) use measure::{count_for, latencies, producers, rate, verify, wake_ups};
pub use processes::{CHILD, run_child};
