//! Memory of a descriptor (`memfd_create`), sealed: no process can shrink or grow it, so a process that
//! has it mapped never touches a missing page.

use std::ffi::CString;
use std::fs::File;

use super::file::NewFile;
use super::new_object::check_huge_pages;
use super::{MemoryError, Pages, Request, Result, Segment};
use crate::os::memfd::{self, Huge, Seals};

pub(super) const NO_SPACE: &str =
    "the machine, or the limit of this container, has no more memory: choose a smaller capacity";

/// The beginning of a ring's label in /proc/PID/fd.
const LABEL: &str = "semring";

pub(super) fn create(name: &str, request: &Request) -> Result<(NewFile, Segment)> {
    let huge = (request.pages == Pages::Reserved).then_some(Huge);
    if huge.is_some() {
        check_huge_pages(request.len)?;
    }
    let label = if name.is_empty() {
        LABEL.to_owned()
    } else {
        format!("{LABEL}:{name}")
    };
    let label = CString::new(label).expect("a name has no zero byte");
    let file = memfd::create(&label, request.mode, huge)
        .map_err(|error| MemoryError::of("memfd_create", error))?;
    NewFile::nameless(file, request)
}

pub(super) fn seal(file: &File) -> Result<()> {
    memfd::seal(file).map_err(|error| MemoryError::of("fcntl(F_ADD_SEALS)", error))
}

/// Refuses memory whose size another process could change.
pub(super) fn check_seals(file: &File) -> Result<()> {
    match memfd::seals(file) {
        Seals::Sized => Ok(()),
        Seals::Missing => Err(MemoryError::WrongType(
            "memory without a name whose size is not sealed (SHRINK, GROW and SEAL), so that others could take it away",
        )),
    }
}
