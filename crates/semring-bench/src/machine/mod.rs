//! The machine: its properties, its CPUs, and other users of them during a run.

mod cgroup;
mod cpus;
mod description;
mod disturbance;

pub(crate) use cpus::{Cpus, has_no_time_slice, line_round_trip_ns, pin};
pub use description::Machine;
pub(crate) use disturbance::Disturbance;
