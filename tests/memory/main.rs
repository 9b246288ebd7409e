//! The memory of rings: each kind between real processes, its persistence, its permissions, the
//! effect of limits and namespaces, and the objects left when a maker is killed.
//!
//! A test for which this user lacks the rights (namespaces, other users) is left out with a reason.

mod creation;
mod fixture;
mod limits;
mod namespaces;
mod owners;
mod passing;
mod persistence;
mod pipe_semantics;
mod renewal;
#[path = "../support/rings.rs"]
mod rings;
mod surroundings;
mod truncation;
