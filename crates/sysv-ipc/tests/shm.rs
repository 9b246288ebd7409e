//! Shared memory: what each call does, and each documented error that can be provoked.

mod support;

use std::mem::ManuallyDrop;
use std::os::unix::process::ExitStatusExt;
use std::ptr::NonNull;

use libc::{EACCES, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM};
use support::{NOBODY, child, key};
use sysv_ipc::shm::{self, CreateOptions, Created, HugePages, Shm};
use sysv_ipc::{Key, Subject};
use tests_left_out::leave_out;

const PAGE: usize = 4096;

fn segment(bytes: usize, mode: u32) -> Created {
    Created::new(Shm::create(key(), bytes, mode).unwrap())
}

fn write(pointer: NonNull<u8>, value: u8) {
    // SAFETY: the callers give a pointer to a writable attachment, used by one thread only.
    unsafe { pointer.write_volatile(value) };
}

fn read(pointer: NonNull<u8>) -> u8 {
    // SAFETY: the callers give a pointer to a live attachment, used by one thread only.
    unsafe { pointer.read_volatile() }
}

#[test]
fn a_new_segment_is_full_of_zeros() {
    let attachment = segment(3 * PAGE, 0o600).attach().unwrap();
    for offset in 0..attachment.len() {
        // SAFETY: the offset lies inside the attachment.
        assert_eq!(read(unsafe { attachment.as_ptr().add(offset) }), 0);
    }
}

#[test]
fn what_one_process_writes_another_reads() {
    child(|arguments| {
        let attachment = Shm::open(Key::new(arguments[0])).unwrap().attach().unwrap();
        assert_eq!(read(attachment.as_ptr()), 7);
        write(attachment.as_ptr(), 8);
    });
    let segment = segment(1, 0o600);
    let attachment = segment.attach().unwrap();
    write(attachment.as_ptr(), 7);
    support::run(
        "what_one_process_writes_another_reads",
        &[segment.stat().unwrap().key.raw()],
    );
    assert_eq!(read(attachment.as_ptr()), 8);
}

#[test]
fn stat_has_the_settings_and_the_times() {
    let key = key();
    let segment = Created::new(Shm::create(key, 5000, 0o640).unwrap());
    let stat = segment.stat().unwrap();
    // SAFETY: the calls take nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    assert_eq!((stat.key, stat.bytes, stat.mode), (key, 5000, 0o640));
    assert_eq!(
        (stat.uid, stat.gid, stat.cuid, stat.cgid),
        (uid, gid, uid, gid)
    );
    let own = std::process::id().cast_signed();
    assert_eq!(
        (stat.creator_pid, stat.last_pid, stat.attached),
        (own, 0, 0)
    );
    assert_eq!((stat.atime, stat.dtime), (0, 0));
    assert!(stat.ctime > 0);
    assert!(!stat.marked_for_removal && !stat.locked);

    let first = segment.attach().unwrap();
    let second = segment.attach().unwrap();
    assert_eq!((first.len(), first.id()), (5000, segment.id()));
    assert_ne!(first.as_ptr(), second.as_ptr());
    let stat = segment.stat().unwrap();
    assert_eq!((stat.attached, stat.last_pid, stat.dtime), (2, own, 0));
    assert!(stat.atime >= stat.ctime);

    drop(first);
    assert_eq!(segment.stat().unwrap().attached, 1);
    second.detach().unwrap();
    let stat = segment.stat().unwrap();
    assert_eq!(stat.attached, 0);
    assert!(stat.dtime >= stat.atime);
}

#[test]
fn the_listing_agrees_with_stat() {
    let segment = segment(10 * PAGE, 0o604);
    let attachment = segment.attach().unwrap();
    write(attachment.as_ptr(), 1);
    let entries = shm::list().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry.id == segment.id())
        .unwrap();
    assert_eq!(entry.stat, segment.stat().unwrap());
    assert_eq!(entry.resident_bytes + entry.swapped_bytes, PAGE as u64);

    segment.remove().unwrap();
    let entries = shm::list().unwrap();
    let entry = entries
        .iter()
        .find(|entry| entry.id == attachment.id())
        .unwrap();
    assert!(entry.stat.marked_for_removal);
    drop(attachment);
    assert!(
        shm::list()
            .unwrap()
            .iter()
            .all(|entry| entry.stat.cuid != u32::MAX)
    );
}

#[test]
fn a_key_is_created_once() {
    let key = key();
    let created = Created::new(Shm::create(key, 1, 0o600).unwrap());
    let error = Shm::create(key, 1, 0o600).unwrap_err();
    assert_eq!(
        (error.errno(), error.subject()),
        (EEXIST, Subject::Key(key))
    );
    assert!(error.already_exists());
    assert_eq!(Shm::open(key).unwrap(), *created);
    assert_eq!(Shm::open_or_create(key, 1, 0o600).unwrap(), *created);
}

#[test]
fn open_or_create_creates_what_is_missing() {
    let key = key();
    let made = Created::new(Shm::open_or_create(key, PAGE, 0o600).unwrap());
    assert_eq!(made.stat().unwrap().bytes, PAGE);
    let error = Shm::open_or_create(key, PAGE + 1, 0o600).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed());
}

#[test]
fn opening_a_missing_object_is_enoent() {
    let error = Shm::open(key()).unwrap_err();
    assert_eq!((error.errno(), error.call()), (ENOENT, "shmget"));
    assert!(error.not_found());
    assert!(Shm::open(Key::PRIVATE).unwrap_err().not_found());
}

#[test]
fn the_private_key_gives_a_new_segment_each_time() {
    let first = Created::new(Shm::create(Key::PRIVATE, 1, 0o600).unwrap());
    let second = Created::new(Shm::open_or_create(Key::PRIVATE, 1, 0o600).unwrap());
    assert_ne!(*first, *second);
}

#[test]
fn impossible_sizes_and_modes_are_einval() {
    assert_eq!(Shm::create(key(), 0, 0o600).unwrap_err().errno(), EINVAL);
    assert_eq!(
        Shm::create(key(), usize::MAX, 0o600).unwrap_err().errno(),
        EINVAL
    );
    // 0o4600 would be taken for SHM_HUGETLB.
    for mode in [0o1000, 0o4600, u32::MAX] {
        let error = Shm::create(key(), 1, mode).unwrap_err();
        assert_eq!(error.errno(), EINVAL);
        assert!(
            error
                .to_string()
                .ends_with("the mode has bits outside 0o777"),
            "{error}"
        );
    }
}

#[test]
fn segment_larger_than_memory_is_enomem() {
    // With overcommit allowed always (1), the kernel does not refuse.
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .unwrap()
        .trim()
        == "1"
    {
        leave_out!("needs a kernel that refuses memory: vm.overcommit_memory is 1");
    }
    let bytes = 1 << 50;
    assert_eq!(
        Shm::create(key(), bytes, 0o600).unwrap_err().errno(),
        ENOMEM
    );
    let options = CreateOptions {
        no_reserve: true,
        ..CreateOptions::new(0o600)
    };
    let lazy = Shm::create_with(key(), bytes, options).map(Created::new);
    // Strict accounting (2) ignores the wish.
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .unwrap()
        .trim()
        == "0"
    {
        assert_eq!(lazy.unwrap().stat().unwrap().bytes, bytes);
    }
}

#[test]
fn huge_pages_are_requested() {
    let Ok(free) =
        std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
    else {
        leave_out!("needs a kernel with huge pages of 2 MiB");
    };
    child(|_| {
        support::become_nobody();
        let options = CreateOptions {
            huge_pages: Some(HugePages::Default),
            ..CreateOptions::new(0o600)
        };
        let refused = Shm::create_with(Key::PRIVATE, 1, options)
            .map(Created::new)
            .unwrap_err();
        assert_eq!(refused.errno(), EPERM);
    });
    let create = |pages| {
        let options = CreateOptions {
            huge_pages: Some(pages),
            ..CreateOptions::new(0o600)
        };
        Shm::create_with(Key::PRIVATE, 1, options).map(Created::new)
    };
    if !support::is_root() {
        return;
    }
    let impossible = create(HugePages::Log2(13)).unwrap_err();
    assert_eq!(impossible.errno(), EINVAL);
    let many = CreateOptions {
        huge_pages: Some(HugePages::Size2MiB),
        ..CreateOptions::new(0o600)
    };
    let error = Shm::create_with(Key::PRIVATE, 1 << 45, many)
        .map(Created::new)
        .unwrap_err();
    assert_eq!(error.errno(), ENOMEM);
    if free.trim() != "0" {
        let segment = create(HugePages::Size2MiB).unwrap();
        let attachment = segment.attach().unwrap();
        assert_eq!(attachment.as_ptr().addr().get() % (2 << 20), 0);
    }
    support::run("huge_pages_are_requested", &[]);
}

#[test]
fn a_removed_segment_lives_on_for_those_attached() {
    let key = key();
    let segment = Shm::create(key, PAGE, 0o600).unwrap();
    let attachment = segment.attach().unwrap();
    segment.remove().unwrap();
    assert!(Shm::open(key).unwrap_err().not_found());
    let stat = segment.stat().unwrap();
    assert!(stat.marked_for_removal);
    assert_eq!(stat.key, Key::PRIVATE);
    write(attachment.as_ptr(), 1);
    assert_eq!(read(attachment.as_ptr()), 1);
    // The key is free for another one, with another id.
    let next = Created::new(Shm::create(key, PAGE, 0o600).unwrap());
    assert_ne!(*next, segment);

    drop(attachment);
    let calls = [
        segment.stat().map(drop),
        segment.attach().map(drop),
        segment.attach_at(0x1000_0000_0000).map(drop),
        segment.set_permissions(0, 0, 0o600),
        segment.lock(),
        segment.unlock(),
        segment.remove(),
    ];
    for result in calls {
        let error = result.unwrap_err();
        assert!(error.is_removed(), "{error}");
        assert_eq!(error.subject(), Subject::Id(segment.id()));
    }
}

#[test]
fn an_id_that_never_was_counts_as_removed() {
    for id in [-1, i32::MAX] {
        assert!(Shm::from_id(id).attach().unwrap_err().is_removed());
        assert!(Shm::from_id(id).stat().unwrap_err().is_removed());
    }
}

#[test]
fn a_write_through_a_read_only_attachment_is_sigsegv() {
    child(|arguments| {
        support::set_rlimit(libc::RLIMIT_CORE, 0);
        let attachment = Shm::from_id(arguments[0]).attach_read_only().unwrap();
        assert_eq!(read(attachment.as_ptr()), 5);
        write(attachment.as_ptr(), 6);
    });
    let segment = segment(PAGE, 0o600);
    let ours = segment.attach().unwrap();
    write(ours.as_ptr(), 5);
    let name = "a_write_through_a_read_only_attachment_is_sigsegv";
    let status = support::start(name, &[segment.id()]).wait();
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
    assert_eq!(read(ours.as_ptr()), 5);
}

#[test]
fn kernel_maps_as_requested() {
    let segment = segment(PAGE, 0o600);
    let writable = segment.attach().unwrap();
    let read_only = segment.attach_read_only().unwrap();
    assert!(!writable.is_read_only() && read_only.is_read_only());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rights = |pointer: NonNull<u8>| {
        let start = format!("{:x}-", pointer.addr());
        let line = maps
            .lines()
            .find(|line| line.trim_start_matches('0').starts_with(&start));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(rights(writable.as_ptr()), "rw-s");
    assert_eq!(rights(read_only.as_ptr()), "r--s");
}

#[test]
fn a_chosen_address_is_taken_or_refused() {
    let segment = segment(2 * PAGE, 0o600);
    let address = 0x1234_5678_0000;
    let attachment = segment.attach_at(address).unwrap();
    assert_eq!(attachment.as_ptr().addr().get(), address);
    for taken in [address, address + PAGE, address + (8 * PAGE) + 1] {
        let error = segment.attach_at(taken).unwrap_err();
        assert_eq!((error.errno(), error.call()), (EINVAL, "shmat"));
        assert!(!error.is_removed());
    }
    assert_eq!(segment.stat().unwrap().attached, 1);
}

#[test]
fn raw_parts_stay_attached_until_they_are_detached() {
    let segment = segment(PAGE, 0o600);
    let (pointer, bytes) = segment.attach().unwrap().into_raw();
    assert_eq!(bytes, PAGE);
    assert_eq!(segment.stat().unwrap().attached, 1);
    write(pointer, 1);
    // SAFETY: the pointer comes from `into_raw` and is not used any more.
    unsafe { shm::detach_raw(pointer) }.unwrap();
    assert_eq!(segment.stat().unwrap().attached, 0);
    let local = 0u64;
    // SAFETY: nothing is attached on the stack, so this only fails.
    let error = unsafe { shm::detach_raw(NonNull::from(&local).cast()) }.unwrap_err();
    assert_eq!(
        (error.errno(), error.call(), error.subject()),
        (EINVAL, "shmdt", Subject::None)
    );
    assert!(!error.is_removed());
}

#[test]
fn an_attachment_crosses_threads() {
    let segment = segment(PAGE, 0o600);
    let attachment = segment.attach().unwrap();
    let attachment = std::thread::spawn(move || {
        write(attachment.as_ptr(), 9);
        attachment
    })
    .join()
    .unwrap();
    std::thread::scope(|scope| {
        let shared = &attachment;
        scope.spawn(move || assert_eq!(read(shared.as_ptr()), 9));
    });
}

#[test]
fn a_forked_copy_of_the_guards_leaves_the_parent_alone() {
    // In a process of its own: a fork attaches to all segments of this one, which others count.
    child(|_| {
        let segment = segment(PAGE, 0o600);
        let attachment = segment.attach().unwrap();
        // SAFETY: a bitwise copy, dropped in the fork only: that is the fork's copy of the value.
        let segment_copy = ManuallyDrop::new(unsafe { std::ptr::read(&segment) });
        // SAFETY: as above.
        let attachment_copy = ManuallyDrop::new(unsafe { std::ptr::read(&attachment) });
        support::fork(
            || drop(ManuallyDrop::into_inner(segment_copy)),
            || assert_eq!(segment.stat().unwrap().attached, 2),
        );
        support::fork(
            || drop(ManuallyDrop::into_inner(attachment_copy)),
            || assert_eq!(segment.stat().unwrap().attached, 1),
        );
        write(attachment.as_ptr(), 1);
        assert!(!segment.stat().unwrap().marked_for_removal);
    });
    support::run("a_forked_copy_of_the_guards_leaves_the_parent_alone", &[]);
}

#[test]
fn permissions_can_be_changed() {
    let segment = segment(PAGE, 0o600);
    let before = segment.stat().unwrap();
    segment
        .set_permissions(before.uid, before.gid, 0o444)
        .unwrap();
    assert_eq!(segment.stat().unwrap().mode, 0o444);
    for mode in [0o1600, 0o2600] {
        let error = segment
            .set_permissions(before.uid, before.gid, mode)
            .unwrap_err();
        assert_eq!(error.errno(), EINVAL);
        assert!(!error.is_removed());
    }
    let error = segment
        .set_permissions(u32::MAX, before.gid, 0o600)
        .unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed(), "{error}");
    if support::is_root() {
        segment.set_permissions(NOBODY, NOBODY, 0o600).unwrap();
        let after = segment.stat().unwrap();
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
        let closed = Shm::from_id(closed);
        let readable = Shm::from_id(readable);
        let errnos = |errno, results: &[sysv_ipc::Result<()>]| {
            for result in results {
                let error = result.unwrap_err();
                assert_eq!(error.errno(), errno, "{error}");
                assert!(error.permission_denied() && !error.is_removed());
            }
        };
        let closed_key = Key::new(closed_key);
        assert_eq!(Shm::open(closed_key).unwrap(), closed);
        errnos(
            EACCES,
            &[
                Shm::open_or_create(closed_key, 1, 0o600).map(drop),
                closed.attach().map(drop),
                closed.attach_read_only().map(drop),
                closed.attach_at(0x1000_0000_0000).map(drop),
                closed.stat().map(drop),
                readable.attach().map(drop),
            ],
        );
        readable.stat().unwrap();
        let attachment = readable.attach_read_only().unwrap();
        assert_eq!(attachment.len(), PAGE);
        errnos(
            EPERM,
            &[
                readable.set_permissions(NOBODY, NOBODY, 0o666),
                readable.remove(),
                readable.lock(),
                readable.unlock(),
            ],
        );
        assert!(
            shm::list()
                .unwrap()
                .iter()
                .any(|entry| entry.id == closed.id())
        );
    });
    if support::is_root() {
        let closed = segment(PAGE, 0o600);
        let readable = segment(PAGE, 0o604);
        support::run(
            "others_may_do_what_the_mode_allows",
            &[closed.id(), readable.id(), closed.stat().unwrap().key.raw()],
        );
    }
}

#[test]
fn locked_segment_is_reported() {
    child(|_| {
        support::set_rlimit(libc::RLIMIT_MEMLOCK, PAGE as u64);
        // The limit holds for all processes of the user together.
        support::become_user(0x4000_0000 + std::process::id());
        let small = segment(PAGE, 0o600);
        small.lock().unwrap();
        assert!(small.stat().unwrap().locked);
        let large = segment(2 * PAGE, 0o600);
        assert_eq!(large.lock().unwrap_err().errno(), ENOMEM);
        support::set_rlimit(libc::RLIMIT_MEMLOCK, 0);
        assert_eq!(large.lock().unwrap_err().errno(), EPERM);
    });
    if support::is_root() {
        let segment = segment(PAGE, 0o600);
        segment.lock().unwrap();
        assert!(segment.stat().unwrap().locked);
        assert_eq!(segment.stat().unwrap().mode, 0o600);
        segment.unlock().unwrap();
        assert!(!segment.stat().unwrap().locked);
        support::run("locked_segment_is_reported", &[]);
    }
}

#[test]
fn a_full_namespace_is_enospc() {
    child(|_| {
        if !support::enter_new_namespace() {
            return;
        }
        support::set_limit("shmmni", "1");
        let only = Created::new(Shm::create(key(), PAGE, 0o600).unwrap());
        let error = Shm::create(key(), PAGE, 0o600).unwrap_err();
        assert_eq!(error.errno(), ENOSPC);
        assert!(error.no_space());
        drop(only);

        support::set_limit("shmmni", "4096");
        support::set_limit("shmall", "2");
        assert_eq!(
            Shm::create(key(), 3 * PAGE, 0o600).unwrap_err().errno(),
            ENOSPC
        );
        drop(Created::new(Shm::create(key(), 2 * PAGE, 0o600).unwrap()));

        support::set_limit("shmmax", "4096");
        assert_eq!(
            Shm::create(key(), PAGE + 1, 0o600).unwrap_err().errno(),
            EINVAL
        );
        assert!(shm::list().unwrap().is_empty());
    });
    if support::is_root() {
        support::run("a_full_namespace_is_enospc", &[]);
    }
}
