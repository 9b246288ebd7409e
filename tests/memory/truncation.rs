//! Somebody takes memory away under its users: where that is impossible, and what is caught where it is
//! not.

use std::fs::File;

use crate::site::{Kind, Site, say_ok};
use semring::{OpenError, any};

#[test]
fn a_memfd_can_not_be_truncated_by_anybody() {
    let mut site = Site::new(Kind::Memfd, "sealed");
    let ring = site.ring(1, 1 << 20);
    let mut producer = site.producer();
    let file = File::from(ring.inheritable().unwrap());
    for len in [0, 4096, (1 << 20) - 1, 1 << 30] {
        assert!(file.set_len(len).is_err(), "{len}");
    }
    say_ok(&mut producer, "send 1 0 8 100000");
    drop((producer, ring));
    site.finish();
}

#[test]
fn a_descriptor_of_unsealed_memory_is_refused() {
    let mut site = Site::new(Kind::Posix, "unlinked");
    let ring = site.ring(1, 4096);
    let descriptor = ring.inheritable().unwrap();
    let address = format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&descriptor));
    assert!(any::open(&address).is_ok());
    // Without its name nothing says any more that it is a file that somebody keeps.
    ring.remove().unwrap();
    let refused = any::open(&address).unwrap_err();
    assert!(
        matches!(&refused, OpenError::NotARing { what, .. } if what.contains("sealed")),
        "{refused}"
    );
    drop((ring, descriptor));
    site.assert_gone(None);
}

#[test]
fn who_looks_at_or_opens_a_truncated_file_is_told() {
    for kind in [Kind::Posix, Kind::File] {
        let mut site = Site::new(kind, "truncated");
        drop(site.ring(1, 1 << 16));
        let mut producer = site.producer();
        say_ok(&mut producer, "send 1 0 100 500");
        drop(producer);
        let (set, whole) = (site.set(), std::fs::metadata(site.path()).unwrap().len());
        let file = File::options().write(true).open(site.path()).unwrap();
        for len in [whole - 1, whole / 2, 0x3000, 4096, 100, 0] {
            file.set_len(len).unwrap();
            for result in [
                semring::inspect(&site.parsed()).map(drop),
                any::open(site.address()).map(drop),
            ] {
                assert!(
                    matches!(result, Err(OpenError::NotARing { .. })),
                    "{len}: {result:?}"
                );
            }
        }
        std::fs::remove_file(site.path()).unwrap();
        set.remove().unwrap();
    }
}

/// The length is right when it is opened, and not any more when it is looked at.
#[test]
fn who_looks_while_a_file_is_truncated_does_not_fault() {
    for kind in [Kind::Posix, Kind::File] {
        let mut site = Site::new(kind, "while-looking");
        drop(site.ring(2, 1 << 16));
        let mut producer = site.producer();
        say_ok(&mut producer, "send 1 0 100 500");
        drop(producer);
        let whole = std::fs::read(site.path()).unwrap();
        let path = site.path();
        std::thread::scope(|scope| {
            let over = scope.spawn(|| {
                let file = File::options().write(true).open(path).unwrap();
                for round in 0..2000u64 {
                    file.set_len(round * 4096 % whole.len() as u64).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
                }
            });
            while !over.is_finished() {
                let _ = semring::inspect(&site.parsed());
                let _ = semring::leftovers();
            }
        });
        site.finish();
    }
}

#[test]
fn a_system_v_segment_has_a_size_for_life() {
    let mut site = Site::new(Kind::Sysv, "for-life");
    let ring = site.ring(1, 4096);
    // There is no call that shrinks it; a request for another size finds the same segment or none.
    let key = sysv_ipc::shm::list().unwrap().into_iter().find(|segment| {
        segment.stat.creator_pid == std::process::id().cast_signed()
            && segment.stat.bytes == 0x4000 + 4096
    });
    let key = key.expect("it is in the list").stat.key;
    assert!(sysv_ipc::shm::Shm::open_or_create(key, 1 << 20, 0o600).is_err());
    ring.producer().unwrap().send(&[7; 1000]).unwrap();
    assert_eq!(ring.consumer().unwrap().recv().unwrap().to_vec(), [7; 1000]);
    drop(ring);
    site.finish();
}
