//! Where a ring's memory is: each kind between real processes, what it outlives, who may use it, what
//! limits and namespaces do to it, and what is left when somebody makes a ring and is killed.
//!
//! What the kernel refuses here (namespaces, other users) is skipped with a printed reason.

mod creation;
mod limits;
mod manners;
mod namespaces;
mod owners;
mod passing;
mod persistence;
mod renewal;
mod site;
mod truncation;
