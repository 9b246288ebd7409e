//! The memory of a ring: one [`Segment`] type for all backends, found and made through an
//! [`Object`].
//!
//! # The contract of a backend
//! (tested for each of them in `contract_tests`)
//! * A new segment is all zero, and every page of it is allocated: if the file system or memory is
//!   full, creation fails with the requested size; there is no SIGBUS later. (A file on a disk has all
//!   its blocks.)
//! * A store through one mapping is visible in all others.
//! * Mode and owner are exactly the requested ones, independent of the umask.
//! * Making a name that exists returns [`MemoryError::Exists`], opening a missing one
//!   [`MemoryError::NotFound`].
//! * Removing deletes the name; mappings stay valid until they are dropped.
//! * In a forked child the pages are not mapped (except those of anonymous memory), and dropping its
//!   copy of the handle does nothing.
//! * A core dump does not contain the pages.
//!
//! # Truncation
//! System V segments, sealed memfds and anonymous memory have a fixed size. The file of a `posix:` or
//! `file:` ring can be truncated by every process that may write it, and there is no seal against that. If
//! a user of the ring then touches a missing page, the whole segment is replaced by zeros and marked as
//! [truncated](Segment::is_truncated). Code that only inspects a ring copies its bytes, with `pread` or through
//! a pipe, which never faults.
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
#[cfg(all(test, not(semring_loom)))]
mod nameless_tests;
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
