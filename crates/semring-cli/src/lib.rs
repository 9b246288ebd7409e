//! Code shared by `semring`, `semring-producer` and `semring-consumer`: options, framings, waiting
//! for stdin and stdout together with signals, exit codes and reports.
//!
//! The commands are the modules [`admin`], [`producer`] and [`consumer`]; each has a `main` that ends
//! with a documented exit code and never panics because of its surroundings.
#![forbid(unsafe_code)]

pub mod admin;
pub mod consumer;
pub mod producer;

mod afterwords;
mod args;
mod attach;
mod bench;
mod completions;
mod doctor;
mod exit;
mod framing;
mod input;
mod joining;
mod listing;
mod output;
mod pages;
mod prune;
mod rate_limiter;
mod report;
mod scheduling;
mod signals;
mod sink;
mod text;
mod top;
mod transfers;
mod units;
