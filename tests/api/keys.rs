//! Rings under a System V key that `ftok` makes of a file, which other files may share.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::rings;
use semring::{Address, CreateError, OpenError, OpenOrCreateError, RemoveError};
use semring_testkit::{leave_out, names};

/// A folder in shared memory, where numbers of inodes follow each other. Removed with the test, and the ring of
/// its first file as well.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Self {
        let folder = Path::new("/dev/shm").join(names::unique(label));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        File::create(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = semring::force_remove(address(&self.0.join("first")));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(path: &Path) -> Address {
    format!("sysv:{}#1", path.display()).parse().unwrap()
}

/// The part of the key that comes from an inode.
fn in_key(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino() & 0xffff
}

/// Another file whose key is that of the first one; nothing if the file system has other ways with its numbers.
fn sharing_the_key(folder: &Folder, first: &Path) -> Option<PathBuf> {
    (0..4 * 0x1_0000).find_map(|_| {
        let path = folder.file("second");
        if in_key(&path) == in_key(first) {
            return Some(path);
        }
        fs::remove_file(&path).unwrap();
        None
    })
}

#[test]
fn a_file_does_not_get_the_ring_of_another_one() {
    let folder = Folder::new("ftok-shared");
    let first = folder.file("first");
    let Some(second) = sharing_the_key(&folder, &first) else {
        leave_out!(
            "needs a file system whose inode numbers grow: no two files share a key of ftok"
        );
    };
    let ring = rings::spsc(address(&first).to_string()).create().unwrap();
    ring.attach_producer().unwrap().send(b"kept").unwrap();
    let name = address(&second).to_string();
    let named = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        assert!(text.contains("first#1") && text.contains("ftok"), "{text}");
    };
    let builder = rings::spsc(&name);
    match builder.open() {
        Err(error @ OpenError::NotARing { .. }) => named(&error),
        other => panic!("{other:?}"),
    }
    match builder.create() {
        Err(error @ CreateError::NotARing { .. }) => named(&error),
        other => panic!("{other:?}"),
    }
    match builder.open_or_create() {
        Err(OpenOrCreateError::Open(error)) => named(&error),
        other => panic!("{other:?}"),
    }
    named(&semring::inspect(address(&second)).unwrap_err());
    let second = address(&second);
    let removals = [
        semring::remove(&second),
        semring::force_remove(&second).map(drop),
    ];
    for removed in removals {
        match removed {
            Err(RemoveError::Open(error)) => named(&error),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ring.info().unwrap().unread_messages(), 1);
}

#[test]
fn a_file_has_one_ring_whatever_its_name_is() {
    let folder = Folder::new("ftok-linked");
    let first = folder.file("first");
    let linked = folder.0.join("linked");
    fs::hard_link(&first, &linked).unwrap();
    let ring = rings::spsc(address(&first).to_string()).create().unwrap();
    let uuid = ring.info().unwrap().uuid;
    let roundabout = folder.0.join(".").join("linked");
    for path in [&linked, &roundabout] {
        assert_eq!(semring::inspect(address(path)).unwrap().uuid, uuid);
    }
}

#[test]
fn path_and_key_name_the_same_ring() {
    let folder = Folder::new("ftok-number");
    let first = folder.file("first");
    let key = sysv_ipc::ftok(&first, 1).unwrap();
    let (by_path, by_key) = (address(&first).to_string(), format!("sysv:{key}"));
    for (made, opened) in [(&by_path, &by_key), (&by_key, &by_path)] {
        let ring = rings::spsc(made).create().unwrap();
        let found = semring::inspect(opened).unwrap();
        assert_eq!(found.uuid, ring.info().unwrap().uuid);
        ring.remove().unwrap();
    }
}
