//! Where a ring's memory is: each kind between real processes, what it outlives, who may use it, what
//! limits and namespaces do to it, and what is left when somebody makes a ring and is killed.
//!
//! A test for which this user lacks the rights (namespaces, other users) is left out with a reason.

mod creation;
mod limits;
mod manners;
mod namespaces;
mod owners;
mod passing;
mod persistence;
mod renewal;
mod site;
mod surroundings;
mod truncation;
