//! Removing by force objects that can't be opened as rings any more; and objects that are never
//! taken for one.

use std::os::unix::fs::FileExt;
use std::path::Path;

use semring::{GuardKind, OpenError, RemoveError, RemoveOutcome, force_remove};
use semring_testkit::names;
use semring_testkit::objects::Object;
use sysv_ipc::shm::{Attachment, Shm};

use crate::fixture::{CAPACITY, Fixture};
use crate::rings;

/// Bytes of the superblock, according to docs/layout.md, and the description of the ring when they are
/// damaged.
const DAMAGES: [(usize, &str); 6] = [
    (0x000, "magic"),
    (0x008, "version"),
    (0x018, "checksum"),
    (0x088, "checksum"),
    (0xff8, "checksum"),
    (0xffc, "state word"),
];
/// The key of the semaphores, and a byte of the identity.
const NAMES_OF_THE_GUARD: [usize; 2] = [0x058, 0x048];

fn flip_in(attachment: &Attachment, at: usize) {
    assert!(at < attachment.len());
    // SAFETY: inside the attachment.
    let byte = unsafe { attachment.as_ptr().add(at) };
    // SAFETY: mapped for as long as the attachment is borrowed; any value will do.
    let value = unsafe { byte.read_volatile() };
    // SAFETY: as above; no other code writes there.
    unsafe { byte.write_volatile(value ^ 0xff) };
}

/// Damages one byte of the ring's memory.
fn flip(fixture: &Fixture, at: usize) {
    for object in fixture.guard.objects() {
        match object {
            Object::Posix { name } if !name.starts_with('.') => {
                flip_in_file(&Path::new("/dev/shm").join(name), at);
            }
            Object::Segment { id, .. } => flip_in(&Shm::from_id(id).attach().unwrap(), at),
            _ => {}
        }
    }
}

fn flip_in_file(path: &Path, at: usize) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], at as u64).unwrap();
}

fn taken_for(outcome: RemoveOutcome) -> String {
    match outcome {
        RemoveOutcome::RemovedDamaged { what } => what,
        other => panic!("{other:?}"),
    }
}

over_each_backend! {
    fn a_damaged_ring_goes_by_force_with_its_guard(fixture) {
        let address = fixture.address.parse::<semring::Address>().unwrap();
        for guard in [GuardKind::Semaphore, GuardKind::Pipe] {
            for (at, word) in DAMAGES {
                let builder = rings::spsc(&fixture.address).capacity(CAPACITY).guard(guard);
                let mut producer = builder.create().unwrap().attach_producer().unwrap();
                flip(&fixture, at);
                let refused = semring::remove(&address).unwrap_err();
                assert!(matches!(refused, RemoveError::Open(_)), "{refused}");
                let what = taken_for(force_remove(&address).unwrap());
                assert!(what.contains(word) && what.contains("with its"), "{at:#x}: {what}");
                fixture.guard.assert_clean();
                // It had a user.
                while producer.try_send(&[0; 100]).is_ok() {}
                assert!(producer.send(&[0; 100]).is_err());
            }
        }
        let gone = force_remove(&address).unwrap_err();
        assert!(matches!(gone, RemoveError::Open(OpenError::NotFound { .. })), "{gone}");
    }

    fn a_guard_that_damaged_bytes_name_is_not_taken(fixture) {
        let other = Fixture::new("posix", "not-taken");
        let kept = other.spsc();
        for at in NAMES_OF_THE_GUARD {
            let builder = rings::spsc(&fixture.address).capacity(CAPACITY);
            drop(builder.create().unwrap());
            flip(&fixture, at);
            taken_for(force_remove(&fixture.address).unwrap());
            fixture.guard.clean();
        }
        kept.attach_producer().unwrap().send(b"still there").unwrap();
    }
}

#[test]
fn what_was_never_a_ring_is_not_taken_for_one() {
    let fixture = Fixture::new("posix", "never-a-ring");
    let address = fixture.address.parse::<semring::Address>().unwrap();
    let path = Path::new("/dev/shm").join(fixture.guard.name());
    let refused = || {
        let refused = force_remove(&address).unwrap_err();
        assert!(
            matches!(refused, RemoveError::Open(OpenError::NotARing { .. })),
            "{refused}"
        );
        assert!(std::fs::symlink_metadata(&path).is_ok());
    };
    // Too short, or of no ring's size and without the magic.
    for bytes in [&b"SEMRING\0"[..], &[1; 5000]] {
        std::fs::write(&path, bytes).unwrap();
        refused();
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::create_dir(&path).unwrap();
    refused();
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    refused();
    std::fs::remove_file(&path).unwrap();
    // Of a ring's size: one lane of 4096 bytes.
    let ring = fixture.spsc();
    let len = std::fs::metadata(&path).unwrap().len();
    ring.remove().unwrap();
    std::fs::write(&path, vec![1; len as usize]).unwrap();
    let what = taken_for(force_remove(&address).unwrap());
    assert!(what.contains("size of a ring"), "{what}");
    fixture.guard.assert_clean();
}

#[test]
fn a_path_is_taken_for_a_ring_by_its_magic_only() {
    let path = std::env::temp_dir().join(names::unique("damaged"));
    let text = format!("file:{}", path.display());
    let address = text.parse::<semring::Address>().unwrap();
    drop(rings::spsc(&text).capacity(CAPACITY).create().unwrap());
    flip_in_file(&path, 0xff8);
    let what = taken_for(force_remove(&address).unwrap());
    assert!(
        what.contains("checksum") && what.contains("with its"),
        "{what}"
    );
    assert!(!path.exists());
    drop(rings::spsc(&text).capacity(CAPACITY).create().unwrap());
    flip_in_file(&path, 0);
    let refused = force_remove(&address).unwrap_err();
    assert!(
        matches!(refused, RemoveError::Open(OpenError::NotARing { .. })),
        "{refused}"
    );
    // With the magic again it is a ring.
    flip_in_file(&path, 0);
    assert_eq!(force_remove(&address).unwrap(), RemoveOutcome::Removed);
    assert!(!path.exists());
}

#[test]
fn what_another_user_owns_is_refused_to_root() {
    if !semring_testkit::left_out::is_root("to give a ring away") {
        return;
    }
    const OTHER: u32 = 65534;
    for backend in ["posix", "sysv"] {
        let fixture = Fixture::new(backend, "not-owned");
        let builder = rings::spsc(&fixture.address)
            .capacity(CAPACITY)
            .owner(OTHER);
        drop(builder.create().unwrap());
        flip(&fixture, DAMAGES[0].0);
        let address: semring::Address = fixture.address.parse().unwrap();
        let refused = force_remove(&address).unwrap_err();
        let is_no_ring = matches!(refused, RemoveError::Open(OpenError::NotARing { .. }));
        assert!(is_no_ring, "{backend}: {refused}");
        // It is still there, and whole again it can be removed.
        flip(&fixture, DAMAGES[0].0);
        assert_eq!(force_remove(&address).unwrap(), RemoveOutcome::Removed);
        fixture.guard.assert_clean();
    }
}
