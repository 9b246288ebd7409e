//! The contract of a backend (see the parent module), tested for each kind of place.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::NonNull;

use semring_testkit::{names, needs_root};

use super::*;
use crate::os::sysv::Shm;
use crate::os::testing::{self, Ended, in_child};

pub(super) const LEN: usize = 5 * 4096;

pub(super) fn request(len: usize) -> Request {
    Request {
        len,
        mode: 0o600,
        uid: None,
        gid: None,
        pages: Pages::Ordinary,
    }
}

/// The places where memory has no name.
pub(super) fn nameless() -> [Place; 2] {
    [Place::Memfd("contract".to_owned()), Place::Anonymous]
}

/// A place that no other test uses; objects made there are removed with it.
pub(super) struct Fixture {
    pub(super) place: Place,
}

impl Fixture {
    fn new(address: &str) -> Self {
        let address: Address = address.parse().unwrap();
        Self {
            place: address.place().unwrap(),
        }
    }

    pub(super) fn posix(label: &str) -> Self {
        Self::new(&names::posix(&names::unique(label)))
    }

    pub(super) fn sysv(label: &str) -> Self {
        Self::new(&names::sysv(&names::unique(label)))
    }

    /// On a disk, or wherever temporary files are.
    pub(super) fn file(label: &str) -> Self {
        let path = std::env::temp_dir().join(names::unique(label));
        Self::new(&format!("file:{}", path.display()))
    }

    fn path(&self) -> PathBuf {
        match &self.place {
            Place::Posix(path) | Place::File(path) => path.clone(),
            other => panic!("{other:?} is no path"),
        }
    }

    fn is_file(&self) -> bool {
        matches!(self.place, Place::Posix(_) | Place::File(_))
    }

    pub(super) fn create(&self) -> (Object, Segment) {
        let (new, segment) = NewObject::create(&self.place, &request(LEN)).unwrap();
        (new.publish().unwrap(), segment)
    }

    pub(super) fn open(&self) -> Result<Object> {
        Object::open(&self.place, Access::ReadWrite)
    }

    /// Whether an object is there, according to the system and not the code under test.
    pub(super) fn exists(&self) -> bool {
        match &self.place {
            Place::Sysv(key) => Shm::open(*key).is_ok(),
            _ => self.path().symlink_metadata().is_ok(),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        match &self.place {
            Place::Sysv(key) => {
                let _ = Shm::open(*key).and_then(|shm| shm.remove());
            }
            _ => {
                let path = self.path();
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
            }
        }
    }
}

/// Runs a test of the contract over each backend.
pub(super) fn over_each(label: &str, test: impl Fn(&Fixture)) {
    test(&Fixture::posix(label));
    test(&Fixture::sysv(label));
    test(&Fixture::file(label));
}

/// The byte at an offset.
pub(super) fn get(segment: &Segment, offset: usize) -> u8 {
    assert!(offset < segment.len());
    // SAFETY: inside the segment.
    let at = unsafe { segment.base().byte_add(offset) };
    // SAFETY: mapped for as long as the segment is borrowed.
    unsafe { at.as_ptr().read_volatile() }
}

pub(super) fn set(segment: &Segment, offset: usize, value: u8) {
    assert!(offset < segment.len());
    // SAFETY: inside the segment.
    let at = unsafe { segment.base().byte_add(offset) };
    // SAFETY: mapped for as long as the segment is borrowed.
    unsafe { at.as_ptr().write_volatile(value) };
}

/// The kernel's record of the mapping at an address: the value of one field of smaps.
pub(super) fn smaps(base: NonNull<u8>, field: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let start = format!("{:x}-", base.addr());
    let mapping = text
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .skip(1);
    let mut value = mapping.filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .next()
        .unwrap_or_else(|| panic!("no {field} at {start}"))
        .trim()
        .to_owned()
}

#[test]
fn new_segment_is_zero_and_of_the_requested_size() {
    let check = |segment: &Segment| {
        assert_eq!(segment.len(), LEN);
        assert!(segment.base().addr().get().is_multiple_of(4096));
        assert!((0..LEN).all(|offset| get(segment, offset) == 0));
        assert!(!segment.is_forked());
    };
    over_each("zeroed", |fixture| {
        let (object, segment) = fixture.create();
        check(&segment);
        assert_eq!(object.len().unwrap(), LEN as u64);
    });
    for place in nameless() {
        let (new, segment) = NewObject::create(&place, &request(LEN)).unwrap();
        check(&segment);
        assert_eq!(new.publish().unwrap().len().unwrap(), LEN as u64);
    }
    check(&Segment::heap(LEN));
}

#[test]
fn every_page_is_real_at_creation() {
    let check =
        |segment: &Segment| assert_eq!(smaps(segment.base(), "Rss"), format!("{} kB", LEN / 1024));
    over_each("real", |fixture| {
        let (_object, segment) = fixture.create();
        check(&segment);
        if fixture.is_file() {
            let blocks = std::fs::metadata(fixture.path()).unwrap().blocks();
            assert!(
                blocks * 512 >= LEN as u64,
                "{blocks} blocks are on the disk"
            );
        }
    });
    for place in nameless() {
        check(&NewObject::create(&place, &request(LEN)).unwrap().1);
    }
}

#[test]
fn what_one_mapping_stores_every_other_sees() {
    over_each("shared", |fixture| {
        let (object, first) = fixture.create();
        let second = fixture.open().unwrap().map(LEN, Access::ReadWrite).unwrap();
        let looking = object.map(4096, Access::ReadOnly).unwrap();
        assert_ne!(first.base(), second.base());
        set(&first, 0, 1);
        set(&first, LEN - 1, 2);
        set(&second, 4095, 3);
        for segment in [&first, &second] {
            assert_eq!(
                [get(segment, 0), get(segment, 4095), get(segment, LEN - 1)],
                [1, 3, 2]
            );
        }
        assert_eq!([get(&looking, 0), get(&looking, 4095)], [1, 3]);
        assert_eq!(object.head().unwrap()[0], 1);
        assert_eq!(object.head().unwrap()[4095], 3);
    });
}

#[test]
fn a_mapping_for_looking_can_not_be_written() {
    over_each("read-only", |fixture| {
        let (object, segment) = fixture.create();
        let looking = object.map(4096, Access::ReadOnly).unwrap();
        let flags = |segment: &Segment| smaps(segment.base(), "VmFlags");
        assert!(flags(&segment).split(' ').any(|flag| flag == "wr"));
        assert!(!flags(&looking).split(' ').any(|flag| flag == "wr"));
    });
}

#[test]
fn mode_and_owner_ignore_the_umask() {
    over_each("mode", |fixture| {
        for (mask, mode) in [
            (0o077, 0o666),
            (0o000, 0o600),
            (0o777, 0o640),
            (0o000, 0o606),
        ] {
            // In a child: the umask belongs to the whole process.
            let created = in_child(|| {
                testing::set_umask(mask);
                let requested = Request {
                    mode,
                    ..request(LEN)
                };
                let (new, _segment) = NewObject::create(&fixture.place, &requested).unwrap();
                let object = new.publish().unwrap();
                u8::from(object.ownership().unwrap().mode != mode)
            });
            assert_eq!(created, Ended::Code(0), "mode {mode:o} under {mask:o}");
            let object = fixture.open().unwrap();
            let ownership = object.ownership().unwrap();
            assert_eq!(ownership.mode, mode, "under {mask:o}");
            assert_eq!(ownership.uid, crate::os::process::effective_uid());
            if fixture.is_file() {
                let there = std::fs::metadata(fixture.path())
                    .unwrap()
                    .permissions()
                    .mode();
                assert_eq!(there & 0o7777, mode);
            }
            object.unlink().unwrap();
        }
    });
}

#[test]
fn what_the_mode_forbids_is_denied() {
    needs_root!("to become another user");
    over_each("denied", |fixture| {
        let (_object, _segment) = fixture.create();
        let refused = in_child(|| {
            testing::become_nobody();
            let write = fixture.open();
            let read =
                Object::open(&fixture.place, Access::ReadOnly).and_then(|object| object.head());
            let denied = |error: Option<MemoryError>| matches!(error, Some(MemoryError::Denied(_)));
            // Every user can find a System V segment; reading or mapping it is refused.
            let write = write.and_then(|object| object.map(LEN, Access::ReadWrite).map(drop));
            u8::from(!denied(write.err()) || !denied(read.err()))
        });
        assert_eq!(refused, Ended::Code(0));
    });
}

#[test]
fn a_taken_name_exists_and_a_free_one_is_not_found() {
    over_each("taken", |fixture| {
        assert!(matches!(fixture.open(), Err(MemoryError::NotFound)));
        let (object, segment) = fixture.create();
        set(&segment, 0, 42);
        // POSIX finds out when it gives the name, System V when it makes the segment.
        let second = NewObject::create(&fixture.place, &request(LEN))
            .and_then(|(new, _segment)| new.publish().map(drop));
        assert!(matches!(second, Err(MemoryError::Exists)), "{second:?}");
        // The attempt has not changed the existing object.
        assert_eq!(fixture.open().unwrap().head().unwrap()[0], 42);
        object.unlink().unwrap();
        assert!(matches!(fixture.open(), Err(MemoryError::NotFound)));
    });
}

#[test]
fn removing_takes_the_name_and_leaves_the_mappings() {
    over_each("removed", |fixture| {
        let (object, first) = fixture.create();
        let second = object.map(LEN, Access::ReadWrite).unwrap();
        object.unlink().unwrap();
        assert!(!fixture.exists());
        set(&first, 1, 9);
        set(&second, LEN - 1, 8);
        assert_eq!((get(&second, 1), get(&first, LEN - 1)), (9, 8));
        // A second removal finds nothing to do.
        object.unlink().unwrap();
    });
}

#[test]
fn removing_an_object_spares_a_stranger_of_the_same_name() {
    over_each("stranger", |fixture| {
        let (old, _old_segment) = fixture.create();
        let late = fixture.open().unwrap();
        old.unlink().unwrap();
        let (_new, segment) = fixture.create();
        set(&segment, 0, 77);
        old.unlink().unwrap();
        late.unlink().unwrap();
        assert!(fixture.exists());
        assert_eq!(fixture.open().unwrap().head().unwrap()[0], 77);
    });
}

#[test]
fn an_object_that_is_never_published_leaves_nothing() {
    over_each("unpublished", |fixture| {
        let (new, segment) = NewObject::create(&fixture.place, &request(LEN)).unwrap();
        // A System V segment is visible from the first moment, a POSIX one is not.
        assert_eq!(fixture.exists(), !fixture.is_file());
        drop(new);
        assert!(!fixture.exists());
        // The mapping is good for as long as it is held.
        set(&segment, 0, 1);
    });
}

#[test]
fn the_head_of_a_short_object_is_filled_with_zeros() {
    let fixture = Fixture::posix("short");
    std::fs::write(fixture.path(), [b'x'; 100]).unwrap();
    let sysv = Fixture::sysv("short");
    let key = sysv_key(&sysv.place).unwrap();
    let shm = Shm::create(key, 100, 0o600).unwrap();
    let attached = shm.attach().unwrap();
    // SAFETY: the segment is 100 bytes long.
    unsafe { attached.as_ptr().as_ptr().write_bytes(b'x', 100) };
    for fixture in [&fixture, &sysv] {
        let object = Object::open(&fixture.place, Access::ReadOnly).unwrap();
        assert_eq!(object.len().unwrap(), 100);
        let head = object.head().unwrap();
        assert!(head[..100].iter().all(|&byte| byte == b'x'));
        assert!(head[100..].iter().all(|&byte| byte == 0));
    }
    // A System V segment can't be mapped beyond its end; of a POSIX one the opener compares the length.
    let longer = sysv.open().unwrap().map(2 * 4096, Access::ReadWrite);
    assert!(matches!(longer, Err(MemoryError::WrongType(_))));
}

#[test]
fn an_empty_object_has_a_head_of_zeros() {
    let fixture = Fixture::posix("empty");
    std::fs::write(fixture.path(), []).unwrap();
    let object = fixture.open().unwrap();
    assert_eq!(object.len().unwrap(), 0);
    assert!(object.head().unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn what_can_not_hold_a_ring_is_named() {
    let types = |fixture: &Fixture| {
        [Access::ReadOnly, Access::ReadWrite].map(|access| {
            match Object::open(&fixture.place, access) {
                Err(MemoryError::WrongType(what)) => what,
                other => panic!("{:?}", other.err()),
            }
        })
    };
    let directory = Fixture::posix("directory");
    std::fs::create_dir(directory.path()).unwrap();
    assert_eq!(types(&directory), ["a directory"; 2]);

    let fifo = Fixture::posix("fifo");
    let made = Command::new("mkfifo").arg(fifo.path()).status().unwrap();
    assert!(made.success());
    assert!(
        fifo.path()
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(types(&fifo), ["a FIFO or a socket"; 2]);

    let socket = Fixture::posix("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket.path()).unwrap();
    assert_eq!(types(&socket), ["a FIFO or a socket"; 2]);

    // A link, also to a suitable file: a process that can write to /dev/shm must not choose the
    // file.
    let target = Fixture::posix("target");
    let (_object, _segment) = target.create();
    let link = Fixture::posix("link");
    symlink(target.path(), link.path()).unwrap();
    assert_eq!(types(&link), ["a symbolic link"; 2]);
    assert!(target.exists());
}

#[test]
fn a_size_beyond_all_memory_is_refused_with_both_numbers() {
    over_each("huge", |fixture| {
        let requested = 1 << 46;
        match NewObject::create(&fixture.place, &request(requested)).map(|_| ()) {
            Err(MemoryError::NoSpace {
                requested: told,
                free: Some(free),
                hint,
            }) => {
                assert_eq!(told, requested as u64);
                assert!(free > 0 && free < told);
                assert!(hint.contains("smaller"));
            }
            other => panic!("{other:?}"),
        }
        assert!(!fixture.exists());
    });
}

/// In a mount namespace of its own, in which /dev/shm has 1 MiB: this test runs itself there.
#[test]
fn a_full_file_system_answers_at_creation() {
    const INSIDE: &str = "SEMRING_TEST_SMALL_SHM";
    if std::env::var_os(INSIDE).is_none() {
        needs_root!("for a mount namespace");
        let path = std::thread::current()
            .name()
            .expect("tests run in named threads")
            .to_owned();
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c"])
            .arg("mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"")
            .arg("sh")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &path, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let fixture = Fixture::posix("full");
    let full = |len: usize| match NewObject::create(&fixture.place, &request(len)).map(|_| ()) {
        Err(MemoryError::NoSpace {
            requested,
            free,
            hint,
        }) => {
            assert_eq!(requested, len as u64);
            assert!(hint.contains("/dev/shm") && hint.contains("sysv:"));
            free.expect("statvfs works")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(full(2 << 20), 1 << 20);
    assert!(!fixture.exists());
    // A failed attempt has freed its memory: most of the megabyte is still available.
    let (_object, segment) = {
        let (new, segment) = NewObject::create(&fixture.place, &request(900 << 10)).unwrap();
        (new.publish().unwrap(), segment)
    };
    for page in (0..segment.len()).step_by(4096) {
        set(&segment, page, 1);
    }
    assert_eq!(full(200 << 10), 124 << 10);
    // Other memory is not bound by /dev/shm.
    for other in [Fixture::sysv("full"), Fixture::file("full")] {
        let (_object, segment) = NewObject::create(&other.place, &request(2 << 20)).unwrap();
        set(&segment, (2 << 20) - 1, 1);
    }
    for place in nameless() {
        let (_object, segment) = NewObject::create(&place, &request(2 << 20)).unwrap();
        set(&segment, (2 << 20) - 1, 1);
    }
}

#[test]
fn a_listing_finds_what_is_there() {
    for fixture in [Fixture::posix("listed"), Fixture::sysv("listed")] {
        let listed = || places().contains(&fixture.place);
        assert!(!listed());
        let (object, _segment) = fixture.create();
        assert!(listed());
        object.unlink().unwrap();
        assert!(!listed());
    }
}

#[test]
fn kernel_lists_users_of_a_system_v_segment() {
    let fixture = Fixture::sysv("attached");
    let (object, segment) = fixture.create();
    assert!(object.is_attached());
    drop(segment);
    assert!(!object.is_attached());
    let looking = object.map(LEN, Access::ReadOnly).unwrap();
    assert!(object.is_attached());
    drop(looking);
}

/// A mapping beyond the end of a file that other processes could truncate, and a copy of it.
#[test]
fn inspect_of_a_truncated_file_does_not_fault() {
    for fixture in [Fixture::posix("cut"), Fixture::file("cut")] {
        let (object, segment) = fixture.create();
        set(&segment, 0, 5);
        set(&segment, LEN - 1, 6);
        let copy = object.map_for_inspection(LEN).unwrap();
        object.copy_range(&copy, 0, LEN).unwrap();
        assert_eq!((get(&copy, 0), get(&copy, LEN - 1)), (5, 6));
        let file = std::fs::File::options().write(true).open(fixture.path());
        file.unwrap().set_len(4096).unwrap();
        set(&segment, 0, 7);
        object.copy_range(&copy, 0, LEN).unwrap();
        assert_eq!(
            (get(&copy, 0), get(&copy, LEN - 1)),
            (7, 6),
            "up to its end"
        );
        // Inspecting it changes nothing.
        set(&copy, 0, 9);
        assert_eq!(get(&segment, 0), 7);
    }
}

#[test]
fn exclusive_lock_needs_all_roles_free() {
    let fixture = Fixture::file("roles");
    let (object, _segment) = fixture.create();
    let other = fixture.open().unwrap();
    assert!(object.enter().unwrap() && object.enter().unwrap());
    assert!(other.enter().unwrap(), "roles don't exclude each other");
    other.leave();
    assert!(!other.take_over().unwrap());
    object.leave();
    assert!(!other.take_over().unwrap(), "one role is left");
    object.leave();
    assert!(other.take_over().unwrap());
    assert!(!object.enter().unwrap());
    other.end_take_over();
    assert!(object.enter().unwrap());
    // A child that is killed with the lock does not keep it.
    object.leave();
    let ended = in_child(|| u8::from(!fixture.open().unwrap().take_over().unwrap()));
    assert_eq!(ended, Ended::Code(0));
    assert!(object.enter().unwrap());
}
