//! Where the bytes live: one [`Segment`] whatever backs it, found and made through an [`Object`].
//!
//! # The contract of a backend
//! (held for each of them in `contract_tests`)
//! * A new segment is all zero, and every page of it is real: a full file system or memory answers at
//!   creation, with the size asked for, never with SIGBUS later. (A file on a disk has all its blocks.)
//! * What one mapping stores, every other sees.
//! * Mode and owner are exactly what was asked for, whatever the umask.
//! * A name that is taken answers [`MemoryError::Exists`], a missing one [`MemoryError::NotFound`].
//! * Removing takes the name away; mappings stay valid until they are dropped.
//! * A forked child does not have the pages (those of anonymous memory it has), and dropping its copy of
//!   the handle does nothing.
//! * A core dump does not have the pages.
//!
//! # Who can take the memory away under its users
//! Nobody, where its size can't change: System V segments, sealed memfds, anonymous memory. The file of a
//! `posix:` or `file:` ring can be truncated by whoever may write it, and there is no seal against that. A
//! user who touches a missing page goes on with zeros in a segment that says that it is
//! [torn](Segment::is_torn). Those who only look copy
//! what they read, with `pread` or through a pipe: nothing faults.
#![allow(unsafe_code)]

pub(crate) mod address;
#[cfg(all(test, not(semring_loom)))]
mod advice_tests;
mod anonymous;
#[cfg(all(test, not(semring_loom)))]
mod contract_tests;
mod error;
mod file;
#[cfg(test)]
mod heap;
mod memfd;
mod new_object;
mod object;
mod posix;
mod segment;
mod span;
mod sysv;

pub(crate) use address::{Address, Place};
pub(crate) use error::MemoryError;
pub(crate) use new_object::{NewObject, Pages, Request};
pub(crate) use object::{
    Access, Object, Ownership, owner_of, places, posix_places, received, sysv_key,
};
pub(crate) use posix::DIRECTORY as POSIX_DIRECTORY;
pub(crate) use segment::Segment;
pub(crate) use span::Span;

use error::Result;
use new_object::prepare;
use segment::Backing;
