//! Each public item used as a user would use it: one process, every form of every call, every answer.

#[macro_use]
mod fixture;

mod arrays;
mod building;
mod calls;
mod damaged;
mod duplex;
mod errors;
mod keys;
mod looking;
mod parts;
mod pipe_guard;
mod pipes;
mod policies;
mod polling;
mod receiving;
mod removing;
#[path = "../support/rings.rs"]
mod rings;
mod sending;
mod slices;
mod typed;
mod unused;
mod unwinding;
mod waiting;
