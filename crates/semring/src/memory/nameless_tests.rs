//! Memory without a name: it can't shrink, it is inherited, and it alone can have huge pages.

use semring_testkit::needs_root;

use super::contract_tests::{Fixture, LEN, get, nameless, request, set, smaps};
use super::*;
use crate::os::errno;
use crate::os::testing::{self, Ended, in_child};

/// The three ways to take memory away from under its users: to shrink it, to grow it, to unseal it.
#[test]
fn unshrinkable_memory_can_not_be_taken_away() {
    let (new, segment) = NewObject::create(&nameless()[0], &request(LEN)).unwrap();
    let object = new.publish().unwrap();
    let file = std::fs::File::from(object.descriptor().unwrap().unwrap());
    for len in [0, 4096, LEN as u64 - 1, LEN as u64 + 1] {
        let refused = file.set_len(len).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(errno::EPERM), "{len}");
    }
    set(&segment, LEN - 1, 1);
    let other = received(&file).unwrap();
    assert_eq!(other.len().unwrap(), LEN as u64);
    let mapped = other.map(LEN, Access::ReadWrite).unwrap();
    assert_eq!(get(&mapped, LEN - 1), 1);
    // A System V segment has no call for it.
}

#[test]
fn memory_that_could_shrink_and_has_no_name_is_refused() {
    let unsealed = crate::os::memfd::create(c"unsealed", 0o600, None).unwrap();
    crate::os::file::allocate(&unsealed, LEN as u64).unwrap();
    let refused = received(&unsealed).map(drop);
    assert!(
        matches!(refused, Err(MemoryError::WrongType(what)) if what.contains("SHRINK")),
        "{refused:?}"
    );
    crate::os::memfd::seal(&unsealed).unwrap();
    received(&unsealed).unwrap();

    // A file that has a name is a file, and one that lost it is nothing.
    for fixture in [Fixture::posix("named"), Fixture::file("named")] {
        let (object, _segment) = fixture.create();
        let descriptor = || std::fs::File::from(object.descriptor().unwrap().unwrap());
        let same = received(&descriptor()).unwrap();
        assert!(same.outlives_its_guard() && !same.goes_with_its_users());
        assert!(same.unlink().is_err(), "its name is not known");
        object.unlink().unwrap();
        let refused = received(&descriptor()).map(drop);
        assert!(
            matches!(refused, Err(MemoryError::WrongType(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn anonymous_memory_stays_with_forked_children() {
    let (object, segment) = NewObject::create(&Place::Anonymous, &request(LEN)).unwrap();
    let object = object.publish().unwrap();
    let ended = in_child(|| {
        assert!(segment.is_forked());
        let (_object, mine) = object
            .adopt(&segment)
            .unwrap()
            .expect("a handle of its own");
        assert!(!mine.is_forked());
        set(&mine, 3, get(&mine, 2) + 1);
        drop(mine);
        0
    });
    assert_eq!(ended, Ended::Code(0));
    assert_eq!(get(&segment, 3), 1);
}

#[test]
fn a_forked_child_has_the_descriptor_of_memory_without_a_name() {
    let (object, segment) = NewObject::create(&nameless()[0], &request(LEN)).unwrap();
    let object = object.publish().unwrap();
    let ended = in_child(|| {
        let (_object, mine) = object
            .adopt(&segment)
            .unwrap()
            .expect("a handle of its own");
        set(&mine, 3, 8);
        0
    });
    assert_eq!(ended, Ended::Code(0));
    assert_eq!(get(&segment, 3), 8);
    let fixture = Fixture::posix("adopted");
    let (named, segment) = fixture.create();
    assert!(named.adopt(&segment).unwrap().is_none());
}

#[test]
fn huge_pages_and_locked_memory_or_the_limit() {
    let limit = |result: Result<()>| match result {
        Ok(()) => None,
        Err(MemoryError::Limit(limit)) => Some(limit),
        Err(other) => panic!("{other:?}"),
    };
    let requested = |pages| Request {
        pages,
        ..request(LEN)
    };
    for place in nameless() {
        let made = NewObject::create(&place, &requested(Pages::Transparent));
        let flags = made
            .as_ref()
            .ok()
            .map(|(_, made)| smaps(made.base(), "VmFlags"));
        match limit(made.map(drop)) {
            None => assert!(flags.unwrap().split(' ').any(|flag| flag == "hg")),
            Some(limit) => assert!(limit.contains("shmem_enabled is"), "{limit}"),
        }
    }
    let made = NewObject::create(&nameless()[0], &requested(Pages::Reserved));
    let len = made.as_ref().ok().map(|(_, made)| made.len());
    match limit(made.map(drop)) {
        None => assert_eq!(len, Some(2 << 20), "a whole page"),
        Some(limit) => assert!(limit.contains("vm.nr_hugepages"), "{limit}"),
    }
    for fixture in [
        Fixture::posix("huge-pages"),
        Fixture::file("huge-pages"),
        Fixture::sysv("huge-pages"),
    ] {
        let made = NewObject::create(&fixture.place, &requested(Pages::Reserved)).map(drop);
        assert!(limit(made).unwrap().contains("memfd:"));
        assert!(!fixture.exists());
    }

    let (_object, segment) = NewObject::create(&Place::Anonymous, &request(LEN)).unwrap();
    segment.lock().unwrap();
    assert_eq!(
        smaps(segment.base(), "Locked"),
        format!("{} kB", LEN / 1024)
    );
    needs_root!("to become another user, to which the limit applies");
    let (_object, segment) = NewObject::create(&Place::Anonymous, &request(LEN)).unwrap();
    let ended = in_child(|| {
        testing::limit_locked_memory(8192);
        testing::become_nobody();
        let (_object, mine) = NewObject::create(&Place::Anonymous, &request(LEN)).unwrap();
        let told = limit(mine.lock()).unwrap();
        u8::from(!told.contains("RLIMIT_MEMLOCK is 8192 bytes"))
    });
    assert_eq!(ended, Ended::Code(0));
    drop(segment);
}
