//! The owner of a ring can always remove it by force, in spite of flags and locks of other processes.

use std::fs::File;
use std::path::Path;

use crate::fixture::Fixture;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use semring::RemoveError;
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::objects::Object;
use sysv_ipc::sem::{MAX_VALUE, Op};

over_both_backends! {
    a_semaphore_raised_without_undo_stops_no_forced_removal
    a_full_semaphore_stops_no_forced_removal
    a_lock_on_the_pipes_stops_no_forced_removal
    readers_lock_does_not_stop_forced_removal
}

/// One lane: eight semaphores of the ring, two of the lane.
const SEMAPHORES: u16 = 10;
/// The removal flag.
const REMOVAL: u16 = 3;

/// Locks all bytes of a file, for as long as the description is open.
fn lock_all(file: &File, kind: i32) {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).expect("no other process has a lock");
}

fn force(fixture: &Fixture) {
    semring::force_remove(fixture.address()).unwrap();
    fixture.guard.assert_clean();
}

fn raised_semaphores(fixture: Fixture, value: i16) {
    let fixture = fixture.with_semaphores();
    for index in 0..SEMAPHORES {
        fixture.ring(1);
        let CleanupGuard::Semaphores(set) = fixture.cleanup() else {
            panic!("the ring has semaphores")
        };
        let already = set.value(index).unwrap();
        // No undo; and adding nothing would be waiting for 0.
        if already < MAX_VALUE {
            let more = (value - already as i16).max(1);
            set.op(&[Op::new(index, more)]).unwrap();
        }
        if index == REMOVAL {
            let refused = semring::remove(fixture.address()).unwrap_err();
            assert!(matches!(refused, RemoveError::InUse { .. }), "{refused}");
        }
        force(&fixture);
    }
    // And the name can be used again.
    fixture.ring(1);
    fixture.finish();
}

fn a_semaphore_raised_without_undo_stops_no_forced_removal(fixture: Fixture) {
    raised_semaphores(fixture, 1);
}

fn a_full_semaphore_stops_no_forced_removal(fixture: Fixture) {
    raised_semaphores(fixture, MAX_VALUE as i16);
}

fn a_lock_on_the_pipes_stops_no_forced_removal(fixture: Fixture) {
    let fixture = fixture.with_pipes();
    for (writes, kind) in [(true, libc::F_WRLCK), (false, libc::F_RDLCK)] {
        fixture.ring(1);
        let CleanupGuard::Pipes(pipes) = fixture.cleanup() else {
            panic!("the ring has pipes")
        };
        let lock = File::options()
            .read(true)
            .write(writes)
            .open(pipes.join("lock"));
        let lock = lock.unwrap();
        lock_all(&lock, kind);
        let refused = semring::remove(fixture.address()).unwrap_err();
        assert!(matches!(refused, RemoveError::InUse { .. }), "{refused}");
        force(&fixture);
    }
    fixture.ring(1);
    fixture.finish();
}

fn readers_lock_does_not_stop_forced_removal(fixture: Fixture) {
    fixture.ring(1);
    fixture.cleanup().remove();
    let name = fixture
        .guard
        .objects()
        .into_iter()
        .find_map(|object| match object {
            Object::Posix { name } => Some(name),
            _ => None,
        });
    // A System V segment has no locks.
    let _locks = name.map(|name| {
        let path = Path::new("/dev/shm").join(name);
        let reader = File::open(&path).unwrap();
        lock_all(&reader, libc::F_RDLCK);
        let alone = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        (reader, alone)
    });
    force(&fixture);
    fixture.finish_removed();
}
