//! Making the pipes of a ring: the directory before the ring has its name. The steps, and what is found after
//! each if the creator is killed there, are described in [`directory`](super::directory).

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::PipeGuard;
use super::directory::{
    COMPLETE_AT, CREATION, Failure, LOCATION_AT, LOCK, Owner, Pipe, PipeFiles, failure,
    mark_removed,
};
use crate::guard::{self, Guard};
use crate::os::fifo::{self, End};
use crate::os::fork::Private;
use crate::os::lock::{Hold, hold_byte};
use crate::os::{errno, file};

/// The pipes of a ring that is being made.
pub(crate) struct NewPipes {
    new: NewPipeFiles,
    lanes: usize,
}

impl NewPipes {
    /// In a directory of this name, or without one for related processes.
    pub(crate) fn create(
        path: Option<&Path>,
        lanes: usize,
        owner: Owner,
        location: &str,
    ) -> Result<Self, Failure> {
        let new = match path {
            Some(path) => NewPipeFiles::create(path, lanes, owner, location)?,
            None => NewPipeFiles::inherited(lanes)?,
        };
        Ok(Self { new, lanes })
    }

    /// The ring has its name. If it ends with its users, this process is the first.
    pub(crate) fn finish(self, goes_with_its_users: bool) -> guard::Result<PipeGuard> {
        let (pipe_files, creation) = self.new.finish();
        let mut guard = PipeGuard::new(pipe_files, self.lanes);
        if goes_with_its_users && let Err(error) = guard.hold() {
            // No other process has the ring yet.
            if let Some(lock) = &creation {
                let _ = mark_removed(lock.file());
            }
            let _ = guard.pipe_files.clear(self.lanes);
            return Err(error);
        }
        // Until here it kept `prune` from removing the directory as unused.
        drop(creation);
        Ok(guard)
    }
}

/// Pipes that are being made, with the creators' byte locked. If this is dropped unfinished, they are
/// removed.
pub(crate) struct NewPipeFiles {
    pipe_files: Option<PipeFiles>,
    lanes: usize,
    /// Holds the lock; children of this process don't.
    creation: Option<Private>,
}

impl NewPipeFiles {
    /// Pipes without a name: no other process can find them before they are ready.
    pub(super) fn inherited(lanes: usize) -> Result<Self, Failure> {
        Ok(Self {
            pipe_files: Some(PipeFiles::inherited(lanes)?),
            lanes,
            creation: None,
        })
    }

    /// Makes the directory, which must not exist, and all its files.
    pub(super) fn create(
        path: &Path,
        lanes: usize,
        owner: Owner,
        location: &str,
    ) -> Result<Self, Failure> {
        // Before it has its lock, a pruner can take the directory for a killed creator's.
        for _ in 0..8 {
            match Self::try_create(path, lanes, owner, location) {
                Err(failure) if failure.source.kind() == io::ErrorKind::NotFound => {}
                made => return made,
            }
        }
        Self::try_create(path, lanes, owner, location)
    }

    fn try_create(
        path: &Path,
        lanes: usize,
        owner: Owner,
        location: &str,
    ) -> Result<Self, Failure> {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder.create(path).map_err(failure("mkdir"))?;
        let directory = match file::open_directory(path) {
            Ok(directory) => directory,
            Err(source) => {
                let _ = std::fs::remove_dir(path);
                let call = "open";
                return Err(Failure { call, source });
            }
        };
        // From here on through the directory itself, even if its name leads elsewhere by then.
        let made = Self::fill(&directory, lanes, owner, location);
        if made.is_err() {
            // Removes what was made; by names, because the limit of descriptors may be the reason
            // of the failure.
            let _ = file::unlink_in(&directory, &fifo::name(LOCK));
            for pipe in Pipe::all(lanes) {
                let _ = file::unlink_in(&directory, &pipe.name());
            }
            let _ = std::fs::remove_dir(path);
        }
        let (lock, creation) = made?;
        Ok(Self {
            pipe_files: Some(PipeFiles::Directory {
                path: path.to_owned(),
                directory,
                lock,
            }),
            lanes,
            creation: Some(creation),
        })
    }

    /// Returns the lock file for checks, and the one that holds the creators' byte.
    fn fill(
        directory: &File,
        lanes: usize,
        owner: Owner,
        location: &str,
    ) -> Result<(File, Private), Failure> {
        let creation = Private::open(|| {
            let name = fifo::name(LOCK);
            // Everything that identifies it is written before other processes can see it.
            let begin = |lock: &File| {
                hold_byte(lock, CREATION, Hold::Alone)?;
                // Reserves the bytes that are written later, in case the disk is full then.
                file::write_at(lock, &[0; LOCATION_AT as usize], 0)?;
                file::write_at(lock, location.as_bytes(), LOCATION_AT)?;
                give(lock, owner)
            };
            let unnamed = match file::create_unnamed_in(directory, owner.mode) {
                Ok(lock) => file::is_linkable(&lock).then_some(lock),
                // A file system without unnamed files.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(errno::EOPNOTSUPP | errno::EISDIR | errno::EINVAL)
                    ) =>
                {
                    None
                }
                Err(error) => return Err(error),
            };
            if let Some(lock) = unnamed {
                begin(&lock)?;
                match file::link_in(&lock, directory, &name) {
                    // A file system without hard links.
                    Err(error) if file::has_no_links(&error) => {}
                    linked => return linked.map(|()| lock),
                }
            }
            let lock = file::create_named_in(directory, &name, owner.mode)?;
            begin(&lock)?;
            Ok(lock)
        })
        .map_err(failure("open (lock)"))?;
        for pipe in Pipe::all(lanes) {
            let name = pipe.name();
            fifo::make(directory, &name, pipe.mode(owner.mode)).map_err(failure("mkfifo"))?;
            fifo::open_at(directory, &name, End::Both)
                .and_then(|pipe| give(&pipe, owner))
                .map_err(failure("fchown"))?;
        }
        // Other users may enter, and only the owner changes the contents.
        let others = [0o040, 0o004].map(|read| {
            if owner.mode & read != 0 {
                read | read >> 2
            } else {
                0
            }
        });
        file::set_mode(directory, 0o700 | others[0] | others[1]).map_err(failure("fchmod"))?;
        give(directory, owner).map_err(failure("fchown"))?;
        let lock = file::open_in(directory, &fifo::name(LOCK), false).map_err(failure("openat"))?;
        let mark = file::write_at(creation.file(), &[1], COMPLETE_AT);
        mark.map_err(failure("pwrite"))?;
        Ok((lock, creation))
    }

    /// The ring has its name. The lock must be released when it is no longer needed to show that a process is
    /// at work.
    pub(super) fn finish(mut self) -> (PipeFiles, Option<Private>) {
        let pipe_files = self.pipe_files.take().expect("finished once");
        (pipe_files, self.creation.take())
    }
}

impl Drop for NewPipeFiles {
    fn drop(&mut self) {
        if let Some(pipe_files) = &self.pipe_files {
            if let Some(lock) = &self.creation {
                let _ = mark_removed(lock.file());
            }
            let _ = pipe_files.clear(self.lanes);
        }
    }
}

/// Gives a file to the ring's owner, if it is not the owner's already.
fn give(to: &File, owner: Owner) -> io::Result<()> {
    let now = to.metadata()?;
    let uid = (now.uid() != owner.uid).then_some(owner.uid);
    let gid = (now.gid() != owner.gid).then_some(owner.gid);
    if uid.is_some() || gid.is_some() {
        file::set_owner(to, uid, gid)?;
    }
    Ok(())
}
