//! Semaphores: what each call does, and each documented error that can be provoked.

mod support;

use std::time::Duration;

use libc::{
    E2BIG, EACCES, EAGAIN, EEXIST, EFBIG, EIDRM, EINTR, EINVAL, ENOENT, ENOSPC, EPERM, ERANGE,
};
use support::{NOBODY, child, key, until};
use sysv_ipc::sem::{self, Created, MAX_VALUE, Op, SemSet};
use sysv_ipc::{Error, Key, Subject, limits};

/// Long enough never to be over in a test that works.
const LONG: Option<Duration> = Some(Duration::from_secs(100));

fn set(count: usize) -> Created {
    Created::new(SemSet::create(key(), count, 0o600).unwrap())
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

#[test]
fn a_new_set_is_all_zero() {
    let set = set(3);
    assert_eq!(set.values().unwrap(), [0, 0, 0]);
    assert_eq!(set.value(2).unwrap(), 0);
    assert_eq!(set.last_pid(0).unwrap(), 0);
}

#[test]
fn stat_has_the_settings_and_the_times() {
    let key = key();
    let set = Created::new(SemSet::create(key, 7, 0o640).unwrap());
    let stat = set.stat().unwrap();
    // SAFETY: the calls take nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    assert_eq!(
        (stat.key, stat.count, stat.mode, stat.otime),
        (key, 7, 0o640, 0)
    );
    assert_eq!(
        (stat.uid, stat.gid, stat.cuid, stat.cgid),
        (uid, gid, uid, gid)
    );
    assert!(stat.ctime > 0);
    set.op(&[Op::new(6, 1)]).unwrap();
    assert!(set.stat().unwrap().otime >= stat.ctime);
    assert_eq!(set.last_pid(6).unwrap(), own_pid());
    assert_eq!(set.last_pid(5).unwrap(), 0);
}

#[test]
fn the_listing_agrees_with_stat() {
    let set = set(4);
    set.op(&[Op::new(0, 1)]).unwrap();
    let entries = sem::list().unwrap();
    let entry = entries.iter().find(|entry| entry.id == set.id()).unwrap();
    assert_eq!(entry.stat, set.stat().unwrap());
    let id = set.id();
    drop(set);
    assert!(sem::list().unwrap().iter().all(|entry| entry.id != id));
}

#[test]
fn a_key_is_created_once() {
    let key = key();
    let created = Created::new(SemSet::create(key, 2, 0o600).unwrap());
    let error = SemSet::create(key, 2, 0o600).unwrap_err();
    assert_eq!(
        (error.errno(), error.subject()),
        (EEXIST, Subject::Key(key))
    );
    assert!(error.already_exists());
    assert_eq!(SemSet::open(key).unwrap(), *created);
    assert_eq!(SemSet::open_or_create(key, 1, 0o600).unwrap(), *created);
    let error = SemSet::open_or_create(key, 3, 0o600).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed());
}

#[test]
fn open_or_create_creates_what_is_missing() {
    let made = Created::new(SemSet::open_or_create(key(), 2, 0o600).unwrap());
    assert_eq!(made.values().unwrap(), [0, 0]);
}

#[test]
fn opening_a_missing_object_is_enoent() {
    let error = SemSet::open(key()).unwrap_err();
    assert_eq!((error.errno(), error.call()), (ENOENT, "semget"));
    assert!(error.not_found());
    assert!(SemSet::open(Key::PRIVATE).unwrap_err().not_found());
}

#[test]
fn impossible_counts_and_modes_are_einval() {
    let most = usize::try_from(limits::sem().unwrap().per_set).unwrap();
    for count in [0, most + 1, usize::MAX] {
        assert_eq!(
            SemSet::create(key(), count, 0o600).unwrap_err().errno(),
            EINVAL
        );
    }
    for mode in [0o1000, 0o1600, u32::MAX] {
        assert_eq!(SemSet::create(key(), 1, mode).unwrap_err().errno(), EINVAL);
    }
}

#[test]
fn a_list_of_operations_is_done_as_a_whole_or_not_at_all() {
    let set = set(3);
    set.op(&[Op::new(0, 5), Op::new(1, 1), Op::new(2, 2)])
        .unwrap();
    let cannot = [Op::new(0, 3), Op::new(1, -1), Op::new(2, -3).no_wait()];
    assert_eq!(set.op(&cannot).unwrap_err().errno(), EAGAIN);
    assert_eq!(set.values().unwrap(), [5, 1, 2]);
    set.op(&[Op::new(0, 3), Op::new(1, -1), Op::new(2, -2).no_wait()])
        .unwrap();
    assert_eq!(set.values().unwrap(), [8, 0, 0]);
}

#[test]
fn each_operation_sees_those_before_it() {
    let set = set(1);
    set.op(&[
        Op::new(0, 2),
        Op::new(0, -2).no_wait(),
        Op::new(0, 0).no_wait(),
        Op::new(0, 1),
    ])
    .unwrap();
    assert_eq!(set.value(0).unwrap(), 1);
    let zero_comes_too_early = [Op::new(0, 0).no_wait(), Op::new(0, -1)];
    assert!(set.op(&zero_comes_too_early).unwrap_err().is_would_block());
}

#[test]
fn no_wait_fails_where_it_would_wait() {
    let set = set(2);
    let error = set.op(&[Op::new(0, -1).no_wait()]).unwrap_err();
    assert_eq!((error.errno(), error.call()), (EAGAIN, "semop"));
    assert!(error.is_would_block());
    set.op(&[Op::new(1, 1)]).unwrap();
    assert!(
        set.op(&[Op::new(1, 0).no_wait()])
            .unwrap_err()
            .is_would_block()
    );
}

#[test]
fn a_time_out_ends_the_wait() {
    let set = set(1);
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(20),
    ] {
        let error = set
            .op_timeout(&[Op::new(0, -1)], Some(timeout))
            .unwrap_err();
        assert_eq!((error.errno(), error.call()), (EAGAIN, "semtimedop"));
        assert_eq!(error.subject(), Subject::Id(set.id()));
    }
    assert_eq!(set.value(0).unwrap(), 0);
}

#[test]
fn what_can_be_done_at_once_needs_no_time() {
    let set = set(1);
    set.op_timeout(&[Op::new(0, 1)], Some(Duration::ZERO))
        .unwrap();
    set.op_timeout(&[Op::new(0, 1)], None).unwrap();
    // The kernel refuses a time whose nanoseconds are a second or more.
    set.op_timeout(&[Op::new(0, 1)], Some(Duration::new(1, 999_999_999)))
        .unwrap();
    assert_eq!(set.value(0).unwrap(), 3);
}

#[test]
fn every_form_of_waiting_is_woken() {
    let set = set(1);
    for timeout in [None, LONG, Some(Duration::MAX)] {
        std::thread::scope(|scope| {
            scope.spawn(|| set.op_timeout(&[Op::new(0, -1)], timeout).unwrap());
            until(|| set.waiting_for_increase(0).unwrap() == 1);
            set.op(&[Op::new(0, 1)]).unwrap();
        });
        assert_eq!(set.value(0).unwrap(), 0);
    }
}

#[test]
fn waiters_are_counted() {
    let set = set(2);
    set.op(&[Op::new(1, 1)]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| set.op_timeout(&[Op::new(0, -1)], LONG).unwrap());
        }
        scope.spawn(|| set.op_timeout(&[Op::new(1, 0)], LONG).unwrap());
        until(|| set.waiting_for_increase(0).unwrap() == 3);
        until(|| set.waiting_for_zero(1).unwrap() == 1);
        assert_eq!(
            (
                set.waiting_for_zero(0).unwrap(),
                set.waiting_for_increase(1).unwrap()
            ),
            (0, 0)
        );
        set.op(&[Op::new(0, 3), Op::new(1, -1)]).unwrap();
    });
    assert_eq!(set.values().unwrap(), [0, 0]);
    assert_eq!(
        (
            set.waiting_for_increase(0).unwrap(),
            set.waiting_for_zero(1).unwrap()
        ),
        (0, 0)
    );
}

#[test]
fn a_signal_ends_the_wait() {
    let set = set(1);
    let take = [Op::new(0, -1)];
    for error in [
        support::interrupt(|| set.op(&take)).unwrap_err(),
        support::interrupt(|| set.op_timeout(&take, LONG)).unwrap_err(),
    ] {
        assert_eq!(error.errno(), EINTR);
        assert!(error.is_interrupted() && !error.is_would_block());
    }
    assert_eq!(set.values().unwrap(), [0]);
}

#[test]
fn removal_wakes_waiters_and_refuses_later_calls() {
    let set = SemSet::create(key(), 2, 0o600).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| set.op_timeout(&[Op::new(0, -1)], LONG));
        until(|| set.waiting_for_increase(0).unwrap() == 1);
        set.remove().unwrap();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.errno(), EIDRM);
        assert!(error.is_removed());
    });
    let calls: [Result<(), Error>; 14] = [
        set.op(&[Op::new(0, 1)]),
        set.op(&[]),
        set.op_timeout(&[Op::new(0, 1)], None),
        set.value(0).map(drop),
        set.values().map(drop),
        set.set_value(0, 1),
        set.set_values(&[1, 1]),
        set.waiting_for_increase(0).map(drop),
        set.waiting_for_zero(0).map(drop),
        set.last_pid(0).map(drop),
        set.stat().map(drop),
        set.set_permissions(0, 0, 0o600),
        set.remove(),
        SemSet::from_id(-1).op(&[Op::new(0, 1)]),
    ];
    for result in calls {
        let error = result.unwrap_err();
        assert_eq!(error.errno(), EINVAL);
        assert!(error.is_removed(), "{error}");
    }
}

#[test]
fn wrong_arguments_are_not_taken_for_a_removed_set() {
    let set = set(2);
    let errors = [
        set.op(&[]).unwrap_err(),
        set.op_timeout(&[], None).unwrap_err(),
        set.value(2).unwrap_err(),
        set.set_value(2, 0).unwrap_err(),
        set.set_values(&[1]).unwrap_err(),
        set.set_values(&[1, 2, 3]).unwrap_err(),
        set.waiting_for_increase(2).unwrap_err(),
        set.waiting_for_zero(u16::MAX).unwrap_err(),
        set.last_pid(2).unwrap_err(),
        set.set_permissions(u32::MAX, 0, 0o600).unwrap_err(),
        set.set_permissions(0, 0, 0o1000).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.errno(), EINVAL);
        assert!(!error.is_removed(), "{error}");
    }
    assert_eq!(set.values().unwrap(), [0, 0]);
}

#[test]
fn an_index_outside_the_set_is_efbig() {
    let set = set(2);
    assert_eq!(
        set.op(&[Op::new(0, 1), Op::new(2, 1)]).unwrap_err().errno(),
        EFBIG
    );
    assert_eq!(set.values().unwrap(), [0, 0]);
}

#[test]
fn as_many_operations_as_the_limit_says() {
    let most = usize::try_from(limits::sem().unwrap().ops_per_call).unwrap();
    let set = set(1);
    set.op(&vec![Op::new(0, 1); most]).unwrap();
    assert_eq!(usize::from(set.value(0).unwrap()), most);
    assert_eq!(
        set.op(&vec![Op::new(0, 1); most + 1]).unwrap_err().errno(),
        E2BIG
    );
    assert_eq!(usize::from(set.value(0).unwrap()), most);
}

#[test]
fn a_value_stays_within_its_range() {
    let set = set(1);
    set.op(&[Op::new(0, i16::MAX)]).unwrap();
    assert_eq!(set.value(0).unwrap(), MAX_VALUE);
    for error in [
        set.op(&[Op::new(0, 1)]).unwrap_err(),
        set.op_timeout(&[Op::new(0, 1)], LONG).unwrap_err(),
        set.set_value(0, MAX_VALUE + 1).unwrap_err(),
        set.set_values(&[u16::MAX]).unwrap_err(),
    ] {
        assert_eq!(error.errno(), ERANGE);
        assert!(error.is_overflow());
    }
    set.op(&[Op::new(0, -i16::MAX)]).unwrap();
    assert_eq!(set.value(0).unwrap(), 0);
}

#[test]
fn what_is_to_be_undone_stays_within_its_range() {
    let set = set(1);
    for _ in 0..2 {
        // Owed: 32766 after the first round, and 32767 more would be too much in the second.
        let owed = set.op(&[Op::new(0, i16::MAX - 1).undo()]);
        if let Err(error) = owed {
            assert_eq!(error.errno(), ERANGE);
            assert_eq!(set.value(0).unwrap(), 0);
            return;
        }
        set.op(&[Op::new(0, -(i16::MAX - 1))]).unwrap();
    }
    panic!("the amount to undo is not limited");
}

#[test]
fn values_can_be_set() {
    let set = set(3);
    set.set_value(1, MAX_VALUE).unwrap();
    assert_eq!(set.values().unwrap(), [0, MAX_VALUE, 0]);
    set.set_values(&[1, 2, 3]).unwrap();
    assert_eq!(set.values().unwrap(), [1, 2, 3]);
}

/// In a child: takes with undo, signals that at semaphore 1, and waits to be killed.
fn take_and_wait(id: i32) {
    let set = SemSet::from_id(id);
    set.op(&[Op::new(0, 3).undo(), Op::new(0, -1), Op::new(1, 1)])
        .unwrap();
    set.op(&[Op::new(1, -2)]).unwrap();
}

#[test]
fn a_killed_process_is_undone() {
    child(|arguments| take_and_wait(arguments[0]));
    let set = set(2);
    let peer = support::start("a_killed_process_is_undone", &[set.id()]);
    set.op_timeout(&[Op::new(1, -1)], LONG).unwrap();
    assert_eq!(set.value(0).unwrap(), 2);
    set.op(&[Op::new(0, 4)]).unwrap();
    assert_eq!(set.last_pid(0).unwrap(), own_pid());
    let pid = peer.pid();
    peer.kill();
    // Undone before the parent can reap, so there is nothing to wait for.
    assert_eq!(set.value(0).unwrap(), 3);
    assert_eq!(set.last_pid(0).unwrap(), pid);
}

#[test]
fn undo_wakes_waiters() {
    child(|arguments| take_and_wait(arguments[0]));
    let set = set(2);
    let peer = support::start("undo_wakes_waiters", &[set.id()]);
    set.op_timeout(&[Op::new(1, -1)], LONG).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| set.op_timeout(&[Op::new(0, 0)], LONG).unwrap());
        until(|| set.waiting_for_zero(0).unwrap() == 1);
        // The kernel does not take a value below 0: 2 - 3 gives 0.
        peer.kill();
    });
    assert_eq!(set.value(0).unwrap(), 0);
}

#[test]
fn a_finished_process_is_undone() {
    child(|arguments| {
        SemSet::from_id(arguments[0])
            .op(&[Op::new(0, 1).undo()])
            .unwrap()
    });
    let set = set(1);
    support::run("a_finished_process_is_undone", &[set.id()]);
    assert_eq!(set.value(0).unwrap(), 0);
    assert_ne!(set.last_pid(0).unwrap(), 0);
}

#[test]
fn an_operation_without_undo_stays() {
    child(|arguments| SemSet::from_id(arguments[0]).op(&[Op::new(0, 1)]).unwrap());
    let set = set(1);
    support::run("an_operation_without_undo_stays", &[set.id()]);
    assert_eq!(set.value(0).unwrap(), 1);
}

#[test]
fn set_value_erases_what_is_to_be_undone() {
    child(|arguments| take_and_wait(arguments[0]));
    let set = set(2);
    for by_set_values in [false, true] {
        set.set_values(&[0, 0]).unwrap();
        let peer = support::start("set_value_erases_what_is_to_be_undone", &[set.id()]);
        set.op_timeout(&[Op::new(1, -1)], LONG).unwrap();
        if by_set_values {
            set.set_values(&[9, 0]).unwrap();
        } else {
            set.set_value(0, 9).unwrap();
        }
        peer.kill();
        assert_eq!(set.value(0).unwrap(), 9);
    }
}

#[test]
fn exec_keeps_what_is_to_be_undone() {
    let name = "exec_keeps_what_is_to_be_undone";
    child(|arguments| {
        let set = SemSet::from_id(arguments[0]);
        if arguments.len() == 1 {
            set.op(&[Op::new(0, 1).undo()]).unwrap();
            support::exec(name, &[set.id(), 2]);
        }
        set.op(&[Op::new(1, 1)]).unwrap();
        set.op(&[Op::new(1, -2)]).unwrap();
    });
    let set = set(2);
    let peer = support::start(name, &[set.id()]);
    set.op_timeout(&[Op::new(1, -1)], LONG).unwrap();
    assert_eq!(set.value(0).unwrap(), 1);
    peer.kill();
    assert_eq!(set.value(0).unwrap(), 0);
}

#[test]
fn a_fork_has_no_share_in_the_undo() {
    let set = set(1);
    set.op(&[Op::new(0, 1).undo()]).unwrap();
    let id = set.id();
    let add_five = move || {
        let _ = SemSet::from_id(id).op(&[Op::new(0, 5).undo()]);
    };
    support::fork(add_five, || assert_eq!(set.value(0).unwrap(), 6));
    // Its own is undone, ours is not.
    assert_eq!(set.value(0).unwrap(), 1);
}

#[test]
fn threads_share_the_undo() {
    let set = set(1);
    std::thread::scope(|scope| {
        scope.spawn(|| set.op(&[Op::new(0, 1).undo()]).unwrap());
    });
    assert_eq!(set.value(0).unwrap(), 1);
}

#[test]
fn leaving_the_namespace_undoes_with_the_last_thread() {
    child(|arguments| {
        let set = SemSet::from_id(arguments[0]);
        set.op(&[Op::new(0, 1).undo()]).unwrap();
        let left = std::thread::scope(|scope| {
            let leave = || {
                let left = support::enter_new_namespace();
                // Here, the id means nothing.
                left && set.op(&[Op::new(0, 1)]).unwrap_err().is_removed()
            };
            scope.spawn(leave).join().unwrap()
        });
        if !left {
            return;
        }
        assert_eq!(set.value(0).unwrap(), 1);
        let id = set.id();
        let add_five_and_leave = move || {
            if SemSet::from_id(id).op(&[Op::new(0, 5).undo()]).is_ok() {
                drop(support::leave_namespace());
            }
        };
        support::fork(add_five_and_leave, || assert_eq!(set.value(0).unwrap(), 1));
    });
    if support::is_root() {
        let set = set(1);
        let name = "leaving_the_namespace_undoes_with_the_last_thread";
        support::run(name, &[set.id()]);
    }
}

#[test]
fn permissions_can_be_changed() {
    let set = set(1);
    let before = set.stat().unwrap();
    set.set_permissions(before.uid, before.gid, 0o440).unwrap();
    assert_eq!(set.stat().unwrap().mode, 0o440);
    if support::is_root() {
        set.set_permissions(NOBODY, NOBODY, 0o600).unwrap();
        let after = set.stat().unwrap();
        assert_eq!((after.uid, after.gid), (NOBODY, NOBODY));
        assert_eq!((after.cuid, after.cgid), (before.cuid, before.cgid));
    }
}

#[test]
fn others_may_do_what_the_mode_allows() {
    child(|arguments| {
        support::become_nobody();
        let &[closed, readable, closed_key] = arguments else {
            panic!()
        };
        let closed = SemSet::from_id(closed);
        let readable = SemSet::from_id(readable);
        let closed_key = Key::new(closed_key);
        assert_eq!(SemSet::open(closed_key).unwrap(), closed);
        let errnos = |errno, results: &[sysv_ipc::Result<()>]| {
            for result in results {
                let error = result.unwrap_err();
                assert_eq!(error.errno(), errno, "{error}");
                assert!(error.permission_denied() && !error.is_removed());
            }
        };
        errnos(
            EACCES,
            &[
                SemSet::open_or_create(closed_key, 1, 0o600).map(drop),
                closed.op(&[Op::new(0, 1)]),
                closed.op_timeout(&[Op::new(0, 0)], LONG),
                closed.value(0).map(drop),
                closed.values().map(drop),
                closed.waiting_for_increase(0).map(drop),
                closed.waiting_for_zero(0).map(drop),
                closed.last_pid(0).map(drop),
                closed.stat().map(drop),
                closed.set_value(0, 1),
                closed.set_values(&[1]),
                readable.op(&[Op::new(0, 1)]),
                readable.set_value(0, 1),
                readable.set_values(&[1]),
            ],
        );
        readable.op(&[Op::new(0, 0)]).unwrap();
        assert_eq!(readable.values().unwrap(), [0]);
        errnos(
            EPERM,
            &[
                readable.set_permissions(NOBODY, NOBODY, 0o666),
                readable.remove(),
            ],
        );
        assert!(
            sem::list()
                .unwrap()
                .iter()
                .any(|entry| entry.id == closed.id())
        );
    });
    if support::is_root() {
        let closed = set(1);
        let readable = Created::new(SemSet::create(key(), 1, 0o604).unwrap());
        support::run(
            "others_may_do_what_the_mode_allows",
            &[closed.id(), readable.id(), closed.stat().unwrap().key.raw()],
        );
        assert_eq!(closed.value(0).unwrap(), 0);
    }
}

#[test]
fn a_full_namespace_is_enospc() {
    child(|_| {
        if !support::enter_new_namespace() {
            return;
        }
        support::set_limit("sem", "10 4 5 2");
        let first = Created::new(SemSet::create(key(), 3, 0o600).unwrap());
        assert_eq!(SemSet::create(key(), 2, 0o600).unwrap_err().errno(), ENOSPC);
        let second = Created::new(SemSet::create(key(), 1, 0o600).unwrap());
        drop(first);
        support::set_limit("sem", "10 4 5 1");
        let error = SemSet::create(key(), 1, 0o600).unwrap_err();
        assert!(error.no_space());
        assert_eq!(
            SemSet::create(key(), 11, 0o600).unwrap_err().errno(),
            EINVAL
        );
        assert_eq!(second.op(&[Op::new(0, 1); 6]).unwrap_err().errno(), E2BIG);
    });
    if support::is_root() {
        support::run("a_full_namespace_is_enospc", &[]);
    }
}

#[test]
fn operations_have_their_names() {
    let op = Op::new(3, -2);
    assert_eq!(
        (op.index(), op.delta(), op.is_undo(), op.is_no_wait()),
        (3, -2, false, false)
    );
    let op = op.undo().no_wait();
    assert_eq!(
        (op.index(), op.delta(), op.is_undo(), op.is_no_wait()),
        (3, -2, true, true)
    );
    assert_eq!(format!("{op:?}"), "Op(3, -2, undo, no_wait)");
    assert_eq!(format!("{:?}", Op::new(0, 1)), "Op(0, +1)");
    assert_ne!(op, Op::new(3, -2).undo());
}
