//! Random SIGKILL, SIGSTOP and SIGCONT of eight producers and a consumer, with an audit of every message;
//! the limits of semaphores, reached on purpose; deaths that take long; full rings whose users all died.
//!
//! `SEMRING_KILLS` is the number of kills of all storms together, `SEMRING_SEED` repeats one. A failure
//! prints its seed, and its round: `storm --seed … --round …` begins with that round.

#[allow(dead_code)] // each of the test programs uses a part
#[macro_use]
#[path = "../support/fixture.rs"]
mod fixture;

mod conditions;
mod deaths;
mod limits;
#[path = "../support/rings.rs"]
mod rings;
mod storms;
