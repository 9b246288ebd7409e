//! POSIX shared memory: a file in /dev/shm, as `shm_open` would make it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{MemoryError, Place, Result};

/// Where POSIX shared memory lives on Linux.
pub(crate) const DIRECTORY: &str = "/dev/shm";

pub(super) const NO_SPACE: &str = "enlarge it (mount -o remount,size=… /dev/shm; docker run --shm-size=…), choose a \
                                   smaller capacity, or use sysv:, memfd: or file:, which /dev/shm does not bound";

/// The owner of the file of this name; links and objects other than files are ignored.
pub(super) fn owner_of(path: &Path) -> Result<u32> {
    let metadata =
        std::fs::symlink_metadata(path).map_err(|error| MemoryError::of("lstat", error))?;
    if metadata.is_file() {
        Ok(metadata.uid())
    } else {
        Err(MemoryError::WrongType("no file"))
    }
}

/// Everything in /dev/shm that could be a ring by its size.
pub(super) fn places() -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            (metadata.is_file() && metadata.len() >= 4096).then(|| entry.path())
        })
        .collect();
    paths.sort();
    paths.into_iter().map(Place::Posix).collect()
}
