//! Memory without a name or a descriptor, shared by a process and the children that it forks.
//!
//! The pages stay mapped in a child. The roles of the parent's handles are the parent's, though: the
//! child takes a [`Segment`] of its own over the same pages.

use std::sync::Arc;

use super::new_object::{check_available, check_huge_pages};
use super::{Backing, MemoryError, Ownership, Pages, Request, Result, Segment, prepare};
use crate::os::mapping::Mapping;
use crate::os::memfd::{HUGE_PAGE_BYTES, Huge};
use crate::os::process;

const NO_SPACE: &str = "choose a smaller capacity or fewer producers";

#[derive(Clone)]
pub(crate) struct AnonymousObject {
    len: usize,
    ownership: Ownership,
}

impl AnonymousObject {
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            len: 0,
            ownership: Ownership {
                uid: 0,
                gid: 0,
                mode: 0,
            },
        }
    }

    pub(super) fn create(request: &Request) -> Result<(Self, Segment)> {
        if request.uid.is_some() || request.gid.is_some() {
            return Err(MemoryError::Limit(
                "anonymous memory has no owner: it is shared by forking".to_owned(),
            ));
        }
        let huge = request.pages == Pages::Reserved;
        let len = if huge {
            check_huge_pages(request.len)?;
            request.len.next_multiple_of(HUGE_PAGE_BYTES)
        } else {
            check_available(request.len as u64)?;
            request.len
        };
        let pages = Mapping::anonymous(len, huge.then_some(Huge))
            .map_err(|error| MemoryError::of_mapping("mmap", len as u64, error))?;
        let segment = Segment::new(Backing::Anonymous(Arc::new(pages)))?;
        prepare(&segment, request, NO_SPACE)?;
        let new = Self {
            len: request.len,
            ownership: Ownership {
                uid: process::effective_uid(),
                gid: process::effective_gid(),
                mode: request.mode,
            },
        };
        Ok((new, segment))
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    pub(super) fn ownership(&self) -> Ownership {
        self.ownership
    }
}
