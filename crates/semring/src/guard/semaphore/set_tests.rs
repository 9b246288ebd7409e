//! Sets of rings: made, marked, identified, and taken over under a given key.

use std::thread;
use std::time::Duration;

use semring_testkit::watchdog::Watchdog;

use super::abandoned::{SeizedSet, SetFacts};
use super::set::{NameLocation, NewSet, SetFailure, creation_ended};
use super::tests::{CHECK, HANG_TIMEOUT, I, LONG, NOT_AT_ALL, free_key, set_of, while_asleep};
use super::{C, SemaphoreGuard, count_for};
use crate::guard::{Mismatch, RemovalLock};
use crate::layout::superblock::SetIdentity;
use crate::os::sysv::{Key, Op, SemSet};
use crate::os::testing::{Ended, in_child};

/// A key whose set, if any, is removed at the end.
struct KeyGuard {
    key: Key,
    _watchdog: Watchdog,
}

impl KeyGuard {
    fn new() -> Self {
        Self::of(free_key())
    }

    fn of(key: Key) -> Self {
        Self {
            key,
            _watchdog: Watchdog::new(HANG_TIMEOUT, "a test of the creation lock"),
        }
    }

    fn lock(&self, lanes: usize, is_ring: bool) -> Result<Option<NewSet>, SetFailure> {
        NewSet::lock(self.key, lanes, 0o600, LONG, || !is_ring)
    }

    fn values(&self) -> Vec<u16> {
        set_of(self.key).values().unwrap()
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let _ = SemSet::open(self.key).and_then(|set| set.remove());
    }
}

fn locked(lanes: usize) -> Vec<u16> {
    let mut values = vec![0; count_for(lanes)];
    values[I] = 1;
    // The values of every set under a given key.
    values[6..8].copy_from_slice(&[32767, 0x5eed]);
    values
}

#[test]
fn set_under_a_free_key_is_made_and_locked() {
    let key = KeyGuard::new();
    let new = key.lock(2, false).unwrap().expect("no ring is there");
    assert_eq!(key.values(), locked(2));
    let waiting = NewSet::lock(key.key, 2, 0o600, NOT_AT_ALL, || true);
    assert!(matches!(waiting, Err(SetFailure::Busy)));
    assert!(!creation_ended(key.key, NOT_AT_ALL));
    let identity = new.identify(NameLocation::Unknown).unwrap();
    assert_eq!(key.values()[CHECK], identity.check as u16);
    let _guard = new.finish();
    assert!(SemaphoreGuard::open(&identity, 2).is_ok());
}

#[test]
fn the_lock_of_a_dead_creator_is_free() {
    let key = KeyGuard::new();
    let ended = in_child(|| {
        let new = key.lock(2, false).unwrap().unwrap();
        std::mem::forget(new);
        0
    });
    assert_eq!(ended, Ended::Code(0));
    // A fresh set was left behind: it is used as it is.
    let left = set_of(key.key).id();
    assert!(creation_ended(key.key, LONG));
    let new = key.lock(2, false).unwrap().expect("no ring is there");
    assert_eq!(set_of(key.key).id(), left);
    assert_eq!(key.values(), locked(2));
    drop(new);
    assert!(
        SemSet::open(key.key).is_err(),
        "and removed if this creation comes to nothing"
    );
}

#[test]
fn a_set_made_for_a_key_that_is_taken_goes_again() {
    let key = KeyGuard::new();
    assert!(key.lock(2, true).unwrap().is_none());
    assert!(SemSet::open(key.key).is_err());
    // A set that existed before may be the proof of a segment's creator.
    let left = SemSet::create(key.key, count_for(2), 0o600).unwrap();
    assert!(key.lock(2, true).unwrap().is_none());
    assert_eq!(set_of(key.key).id(), left.id());
}

#[test]
fn set_of_a_file_records_whether_it_has_a_name() {
    let recorded = |set: SemSet| SetFacts::of(set.id()).unwrap().location();
    let new = NewSet::create(1, 0o600).unwrap();
    let identity = new
        .identify(NameLocation::File { has_name: false })
        .unwrap();
    let set = SemSet::from_id(identity.id);
    assert_eq!(recorded(set), Some(NameLocation::File { has_name: false }));
    let guard = new.finish();
    assert_eq!(recorded(set), Some(NameLocation::File { has_name: true }));
    // Recording it twice has the same effect as once, in both directions.
    for has_name in [true, false, false, true] {
        guard.record_name(has_name);
        assert_eq!(recorded(set), Some(NameLocation::File { has_name }));
    }
    // While a remover is at work, the name can't be recorded again.
    assert!(guard.begin_removal(false).unwrap());
    guard.record_name(false);
    guard.record_name(true);
    assert_eq!(recorded(set), Some(NameLocation::File { has_name: false }));
    guard.destroy().unwrap();
    // Another set keeps its values.
    let new = NewSet::create(1, 0o600).unwrap();
    let location = NameLocation::Directory {
        device: 1,
        inode: 1,
    };
    let identity = new.identify(location).unwrap();
    let guard = new.finish();
    guard.record_name(false);
    assert_eq!(recorded(SemSet::from_id(identity.id)), Some(location));
    guard.destroy().unwrap();
}

#[test]
fn check_of_a_creation_leaves_no_trace() {
    let key = KeyGuard::new();
    // As a creator leaves it that is killed right after semget.
    let left = SemSet::create(key.key, count_for(2), 0o600).unwrap();
    assert!(creation_ended(key.key, LONG));
    assert_eq!(left.stat().unwrap().otime, 0);
    drop(key.lock(2, false).unwrap().expect("no ring is there"));
}

#[test]
fn orphan_set_with_a_check_value_is_replaced() {
    let key = KeyGuard::new();
    let ended = in_child(|| {
        let new = key.lock(2, false).unwrap().unwrap();
        new.identify(NameLocation::Unknown).unwrap();
        std::mem::forget(new);
        0
    });
    assert_eq!(ended, Ended::Code(0));
    let left = set_of(key.key);
    assert_ne!(left.value(CHECK as u16).unwrap(), 0);
    let new = key.lock(2, false).unwrap().expect("no ring is there");
    assert_ne!(set_of(key.key).id(), left.id());
    assert_eq!(key.values(), locked(2));
    drop(new);
}

#[test]
fn orphan_set_of_another_size_or_mode_is_replaced() {
    for (lanes, mode) in [(1, 0o600), (5, 0o600), (2, 0o666)] {
        let key = KeyGuard::new();
        let left = SemSet::create(key.key, count_for(lanes), mode).unwrap();
        let new = key.lock(2, false).unwrap().expect("no ring is there");
        assert_ne!(set_of(key.key).id(), left.id());
        assert_eq!(set_of(key.key).stat().unwrap().mode, 0o600);
        assert_eq!(key.values(), locked(2));
        drop(new);
    }
}

#[test]
fn a_foreign_set_is_refused_and_left_as_it_was() {
    // Too small, odd, a value where rings have none, a slot taken.
    for values in [
        vec![3],
        vec![0, 0, 0, 0],
        vec![0; 11],
        vec![1, 2, 3, 0, 0, 0, 0, 0, 0, 0],
        vec![0, 0, 0, 0, 0, 0, 7, 0, 0, 0],
        vec![0, 1, 0, 0, 0, 9, 0, 0, 1, 0],
    ] {
        let key = KeyGuard::new();
        let set = SemSet::create(key.key, values.len(), 0o600).unwrap();
        set.set_values(&values).unwrap();
        let refused = key.lock(2, false).map(drop);
        assert!(
            matches!(refused, Err(SetFailure::Foreign)),
            "{values:?}: {refused:?}"
        );
        assert_eq!(set_of(key.key).id(), set.id());
        assert_eq!(key.values(), values);
    }
}

/// As after the death of a process that was replacing an unused ring, between its segment and its set.
#[test]
fn set_whose_consumer_leaves_is_waited_for() {
    let key = KeyGuard::new();
    let new = key.lock(2, false).unwrap().unwrap();
    new.identify(NameLocation::Key).unwrap();
    new.finish();
    let left = set_of(key.key);
    let add = |value| left.op(&[Op::new(C, value)]).unwrap();
    add(1);
    let refused = key.lock(2, false).map(drop);
    assert!(matches!(refused, Err(SetFailure::Foreign)), "it stays");
    let new = while_asleep(|| key.lock(2, false), |_| add(-1));
    let new = new.unwrap().expect("no ring is there");
    assert_ne!(set_of(key.key).id(), left.id());
    assert_eq!(key.values(), locked(2));
    drop(new);
}

#[test]
fn used_set_of_zeros_is_not_taken_over() {
    let key = KeyGuard::new();
    let set = SemSet::create(key.key, count_for(2), 0o600).unwrap();
    let refused = || matches!(key.lock(2, false).map(drop), Err(SetFailure::Foreign));
    // A process sleeps on it, and no operation was ever done.
    let slept = while_asleep(
        || set.op(&[Op::new(1, -1)]),
        |_| {
            let noticed = refused();
            set.op(&[Op::new(1, 1)]).unwrap();
            assert!(noticed);
        },
    );
    slept.unwrap();
    assert_eq!(key.values(), vec![0; count_for(2)]);
    assert!(refused(), "used once");
    assert_eq!(set_of(key.key).id(), set.id());
    assert_eq!(key.values(), vec![0; count_for(2)], "and not touched");
}

#[test]
fn under_a_ring_the_lock_is_only_looked_through() {
    let key = KeyGuard::new();
    let new = key.lock(2, false).unwrap().unwrap();
    let identity = new.identify(NameLocation::Unknown).unwrap();
    let _guard = new.finish();
    let before = key.values();
    assert!(key.lock(2, true).unwrap().is_none());
    assert_eq!(key.values(), before);
    assert!(SemaphoreGuard::open(&identity, 2).is_ok());
}

#[test]
fn creator_waits_for_a_remover_then_creates() {
    let key = KeyGuard::new();
    let new = key.lock(2, false).unwrap().unwrap();
    new.identify(NameLocation::Unknown).unwrap();
    let guard = new.finish();
    let left = set_of(key.key).id();
    assert_eq!(guard.begin_removal(false), Ok(true));
    let impatient = NewSet::lock(key.key, 2, 0o600, Duration::from_millis(20), || true);
    assert!(matches!(impatient, Err(SetFailure::Busy)));
    let made = while_asleep(
        || key.lock(2, false).unwrap().map(|new| (new, key.values())),
        |_| guard.destroy().unwrap(),
    );
    let (new, values) = made.expect("no ring is there");
    assert_eq!(values, locked(2));
    assert_ne!(set_of(key.key).id(), left);
    drop(new);
}

#[test]
fn a_creator_waits_for_another_and_takes_what_it_left() {
    let key = KeyGuard::new();
    let first = key.lock(2, false).unwrap().unwrap();
    first.identify(NameLocation::Unknown).unwrap();
    // The first gives up and removes its set, which wakes the second.
    let made = while_asleep(
        || key.lock(2, false).unwrap().map(|new| (new, key.values())),
        |_| drop(first),
    );
    assert_eq!(made.expect("no ring is there").1, locked(2));
}

#[test]
fn creator_survives_the_loss_of_its_set() {
    use crate::sync::{AtomicU32, Ordering};
    // A number of lanes that no other test uses.
    const LANES: usize = 177;
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "creators and pruners");
    let over = AtomicU32::new(0);
    let taken = thread::scope(|scope| {
        let clearing = scope.spawn(|| {
            let mut taken = 0u32;
            while over.load(Ordering::Relaxed) == 0 {
                for entry in crate::os::sysv::sem::list().unwrap() {
                    let ours = entry.stat.count == count_for(LANES) && entry.stat.otime == 0;
                    // Between semget and the first operation it looks like one left behind.
                    if ours && let Some(held) = SeizedSet::seize(entry.id).unwrap() {
                        held.remove().unwrap();
                        taken += 1;
                    }
                }
            }
            taken
        });
        for _ in 0..10_000 {
            let made = NewSet::create(LANES, 0o600);
            if made.is_err() {
                over.store(1, Ordering::Relaxed);
            }
            // With the lock held no other process can take it; dropping it removes the set.
            drop(made.unwrap());
        }
        over.store(1, Ordering::Relaxed);
        clearing.join().unwrap()
    });
    println!("{taken} of 10000 were taken in the moment between the two calls");
}

#[test]
fn a_set_is_known_by_key_id_size_and_check_value() {
    let new = NewSet::create(3, 0o640).map_err(|_| "no set").unwrap();
    let identity = new.identify(NameLocation::Unknown).unwrap();
    let _clean_up = KeyGuard::of(Key::new(identity.key));
    let set = set_of(Key::new(identity.key));
    let guard = new.finish();
    assert_eq!(identity.key as u32 >> 16, 0x5eed);
    assert_eq!(set.stat().unwrap().mode, 0o640);
    assert_eq!(set.value(CHECK as u16).unwrap(), identity.check as u16);
    assert!((1..=32767).contains(&identity.check));
    let open = |identity: &SetIdentity, lanes| SemaphoreGuard::open(identity, lanes).map(drop);
    assert!(open(&identity, 3).is_ok());
    let other = |result| matches!(result, Err(Mismatch::Other));
    assert!(other(open(&identity, 4)));
    assert!(other(open(
        &SetIdentity {
            id: identity.id + 1,
            ..identity
        },
        3
    )));
    assert!(other(open(
        &SetIdentity {
            check: identity.check ^ 1,
            ..identity
        },
        3
    )));
    let free = SetIdentity {
        key: free_key().raw(),
        ..identity
    };
    assert!(matches!(open(&free, 3), Err(Mismatch::Missing)));
    guard.destroy().unwrap();
    assert!(matches!(open(&identity, 3), Err(Mismatch::Missing)));
}

#[test]
fn set_too_small_for_a_check_value_is_foreign() {
    let key = free_key();
    let set = SemSet::create(key, 1, 0o600).unwrap();
    let identity = SetIdentity {
        key: key.raw(),
        id: set.id(),
        ctime: 0,
        check: 1,
    };
    let opened = SemaphoreGuard::open(&identity, 1).map(drop);
    set.remove().unwrap();
    assert!(
        matches!(opened, Err(Mismatch::Other | Mismatch::Failed(_))),
        "{opened:?}"
    );
}

#[test]
fn a_set_that_is_dropped_unfinished_is_removed() {
    let new = NewSet::create(1, 0o600).map_err(|_| "no set").unwrap();
    let key = Key::new(new.identify(NameLocation::Unknown).unwrap().key);
    assert_eq!(
        set_of(key).value(I as u16).unwrap(),
        1,
        "the lock is held meanwhile"
    );
    drop(new);
    assert!(SemSet::open(key).is_err());
}
