//! Rings between real processes: ends, broken pipes, roles, creation, removal, fork, signals, full
//! wake-up semaphores, the hand-over race, restarts. Each behaviour is written once and run over
//! each backend.
//!
//! The peers are processes of tests/support/peer.rs. `SEMRING_SEED` repeats a random run; `SEMRING_HANDOVERS`
//! and `SEMRING_KILLS` make the races longer, `SEMRING_IDLE_MS` the sleep of waiting processes.

#[allow(dead_code)] // each of the two test programs uses a part
#[macro_use]
#[path = "../support/fixture.rs"]
mod fixture;

mod asymmetric;
mod broken_pipe;
mod coprocesses;
mod creation;
mod end_of_stream;
mod force;
mod fork;
mod full_wakeups;
mod hand_over;
mod idle;
mod lines;
mod privileges;
mod removal;
mod restarts;
#[path = "../support/rings.rs"]
mod rings;
mod roles;
mod signals;
