//! Message queues: what each call does, and each documented error that can be provoked.

mod support;

use libc::{E2BIG, EACCES, EAGAIN, EEXIST, EIDRM, EINTR, EINVAL, ENOENT, ENOMSG, ENOSPC, EPERM};
use support::{NOBODY, child, key, until};
use sysv_ipc::msg::{self, Created, Queue, Received, Selector, Settings};
use sysv_ipc::{Key, Subject, limits};

fn queue() -> Created {
    Created::new(Queue::create(key(), 0o600).unwrap())
}

/// Types and bytes of all messages, oldest first, which stay in the queue.
fn contents(queue: &Queue) -> Vec<(i64, Vec<u8>)> {
    let mut buffer = [0; 100];
    let count = queue.stat().unwrap().messages;
    (0..count as usize)
        .map(|position| {
            let Received { kind, len } = queue.peek(&mut buffer, position).unwrap();
            (kind, buffer[..len].to_vec())
        })
        .collect()
}

/// Receives at once and gives the type and the bytes.
fn take(queue: &Queue, selector: Selector) -> sysv_ipc::Result<(i64, Vec<u8>)> {
    let mut buffer = [0; 100];
    let Received { kind, len } = queue.try_receive(&mut buffer, selector)?;
    Ok((kind, buffer[..len].to_vec()))
}

fn message(kind: i64, bytes: &[u8]) -> (i64, Vec<u8>) {
    (kind, bytes.to_vec())
}

#[test]
fn messages_come_whole_and_in_order() {
    let queue = queue();
    queue.send(3, b"first").unwrap();
    queue.try_send(1, b"").unwrap();
    queue.send(i64::MAX, b"third").unwrap();
    assert_eq!(take(&queue, Selector::Any).unwrap(), message(3, b"first"));
    assert_eq!(take(&queue, Selector::Any).unwrap(), message(1, b""));
    assert_eq!(
        take(&queue, Selector::Any).unwrap(),
        message(i64::MAX, b"third")
    );
    assert_eq!(queue.stat().unwrap().messages, 0);
}

#[test]
fn each_selector_finds_its_message() {
    let queue = queue();
    for (kind, bytes) in [
        (5, b"a"),
        (3, b"b"),
        (5, b"c"),
        (2, b"d"),
        (3, b"e"),
        (9, b"f"),
    ] {
        queue.send(kind, bytes).unwrap();
    }
    assert_eq!(take(&queue, Selector::Type(3)).unwrap(), message(3, b"b"));
    assert_eq!(take(&queue, Selector::UpTo(4)).unwrap(), message(2, b"d"));
    assert_eq!(take(&queue, Selector::UpTo(4)).unwrap(), message(3, b"e"));
    assert_eq!(take(&queue, Selector::UpTo(4)).unwrap_err().errno(), ENOMSG);
    assert_eq!(take(&queue, Selector::Except(5)).unwrap(), message(9, b"f"));
    assert_eq!(
        take(&queue, Selector::Except(5)).unwrap_err().errno(),
        ENOMSG
    );
    assert_eq!(take(&queue, Selector::Type(3)).unwrap_err().errno(), ENOMSG);
    assert_eq!(
        take(&queue, Selector::UpTo(i64::MAX)).unwrap(),
        message(5, b"a")
    );
    assert_eq!(take(&queue, Selector::Any).unwrap(), message(5, b"c"));
    assert!(take(&queue, Selector::Any).unwrap_err().is_no_message());
}

#[test]
fn types_below_one_are_einval() {
    let queue = queue();
    queue.send(1, b"stays").unwrap();
    let mut buffer = [0; 8];
    for wrong in [0, -1, i64::MIN] {
        for error in [
            queue.send(wrong, b"").unwrap_err(),
            queue.try_send(wrong, b"").unwrap_err(),
            queue
                .try_receive(&mut buffer, Selector::Type(wrong))
                .unwrap_err(),
            queue
                .try_receive(&mut buffer, Selector::UpTo(wrong))
                .unwrap_err(),
            queue
                .receive(&mut buffer, Selector::Except(wrong))
                .unwrap_err(),
        ] {
            assert_eq!(error.errno(), EINVAL);
            assert!(!error.is_removed());
            assert!(
                error.to_string().ends_with("message types begin at 1"),
                "{error}"
            );
        }
    }
    assert_eq!(contents(&queue), [message(1, b"stays")]);
}

#[test]
fn a_message_longer_than_the_buffer_stays_or_is_cut() {
    let queue = queue();
    queue.send(1, b"0123456789").unwrap();
    queue.send(2, b"0123456789").unwrap();
    let mut buffer = [b'.'; 12];
    for error in [
        queue.receive(&mut buffer[..9], Selector::Any).unwrap_err(),
        queue
            .try_receive(&mut buffer[..9], Selector::Any)
            .unwrap_err(),
        queue.peek(&mut buffer[..9], 1).unwrap_err(),
        queue.receive(&mut [], Selector::Type(2)).unwrap_err(),
    ] {
        assert_eq!((error.errno(), error.call()), (E2BIG, "msgrcv"));
    }
    assert_eq!(&buffer, b"............");
    let cut = queue
        .receive_truncated(&mut buffer[..4], Selector::Any)
        .unwrap();
    assert_eq!(
        (cut, &buffer),
        (Received { kind: 1, len: 4 }, b"0123........")
    );
    let whole = queue
        .try_receive_truncated(&mut buffer, Selector::Any)
        .unwrap();
    assert_eq!(
        (whole, &buffer),
        (Received { kind: 2, len: 10 }, b"0123456789..")
    );
    let none = queue
        .try_receive_truncated(&mut buffer, Selector::Any)
        .unwrap_err();
    assert!(none.is_no_message());
}

#[test]
fn peek_leaves_the_message() {
    let queue = queue();
    queue.send(7, b"one").unwrap();
    queue.send(8, b"two").unwrap();
    let mut buffer = [0; 8];
    for _ in 0..2 {
        let seen = queue.peek(&mut buffer, 1).unwrap();
        assert_eq!(
            (seen, &buffer[..3]),
            (Received { kind: 8, len: 3 }, &b"two"[..])
        );
    }
    assert_eq!(contents(&queue), [message(7, b"one"), message(8, b"two")]);
    for position in [2, usize::MAX] {
        assert_eq!(
            queue.peek(&mut buffer, position).unwrap_err().errno(),
            ENOMSG
        );
    }
}

#[test]
fn a_full_queue_makes_senders_wait() {
    let queue = queue();
    queue.set_max_bytes(10).unwrap();
    queue.send(1, b"0123456789").unwrap();
    let error = queue.try_send(1, b"x").unwrap_err();
    assert_eq!((error.errno(), error.call()), (EAGAIN, "msgsnd"));
    assert!(error.is_would_block());
    std::thread::scope(|scope| {
        scope.spawn(|| queue.send(2, b"x").unwrap());
        let mut buffer = [0; 10];
        queue.receive(&mut buffer, Selector::Type(1)).unwrap();
        let received = queue.receive(&mut buffer, Selector::Type(2)).unwrap();
        assert_eq!(received, Received { kind: 2, len: 1 });
    });
}

#[test]
fn a_receiver_waits_for_its_type() {
    child(|arguments| {
        let queue = Queue::open(Key::new(arguments[0])).unwrap();
        let mut buffer = [0; 10];
        let asked = queue.receive(&mut buffer, Selector::Type(1)).unwrap();
        queue.send(2, &buffer[..asked.len]).unwrap();
    });
    let queue = queue();
    let peer = support::start(
        "a_receiver_waits_for_its_type",
        &[queue.stat().unwrap().key.raw()],
    );
    queue.send(3, b"not this").unwrap();
    queue.send(1, b"this").unwrap();
    let mut buffer = [0; 10];
    let answer = queue.receive(&mut buffer, Selector::Type(2)).unwrap();
    assert_eq!(&buffer[..answer.len], b"this");
    let stat = queue.stat().unwrap();
    assert_eq!(stat.last_send_pid, peer.pid());
    // SAFETY: the call takes nothing.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    let process = std::process::id().cast_signed();
    assert!(
        [thread, process].contains(&stat.last_receive_pid),
        "{stat:?}"
    );
    peer.finish();
}

#[test]
fn the_longest_message_is_the_limit() {
    let most = usize::try_from(limits::msg().unwrap().message_bytes).unwrap();
    let queue = queue();
    let mut bytes: Vec<u8> = (0..=most).map(|n| (n * 7 + n / 256) as u8).collect();
    let error = queue.send(1, &bytes).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed(), "{error}");
    bytes.pop();
    queue.send(1, &bytes).unwrap();
    let mut buffer = vec![0; 3 * most];
    assert_eq!(queue.receive(&mut buffer, Selector::Any).unwrap().len, most);
    assert_eq!(buffer[..most], bytes);
}

#[test]
fn messages_beyond_the_buffer_on_the_stack_arrive() {
    child(|_| {
        if !support::enter_new_namespace() {
            return;
        }
        support::set_limit("msgmax", "100000");
        support::set_limit("msgmnb", "1000000");
        let queue = queue();
        for length in [8191, 8192, 8193, 8200, 8201, 65_537, 100_000] {
            let bytes: Vec<u8> = (0..length)
                .map(|n: usize| (n * 7 + n / 256) as u8)
                .collect();
            queue.send(1, &bytes).unwrap();
            let mut buffer = vec![0; length];
            let received = queue.receive(&mut buffer, Selector::Any).unwrap();
            assert_eq!(
                received,
                Received {
                    kind: 1,
                    len: length
                }
            );
            assert_eq!(buffer, bytes);
        }
    });
    if support::is_root() {
        support::run("messages_beyond_the_buffer_on_the_stack_arrive", &[]);
    }
}

#[test]
fn stat_has_the_settings_and_the_times() {
    let key = key();
    let queue = Created::new(Queue::create(key, 0o640).unwrap());
    let stat = queue.stat().unwrap();
    // SAFETY: the calls take nothing and cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    assert_eq!((stat.key, stat.mode), (key, 0o640));
    assert_eq!(
        (stat.uid, stat.gid, stat.cuid, stat.cgid),
        (uid, gid, uid, gid)
    );
    assert_eq!((stat.messages, stat.bytes), (0, 0));
    assert_eq!(stat.max_bytes, limits::msg().unwrap().queue_bytes);
    assert_eq!((stat.last_send_pid, stat.last_receive_pid), (0, 0));
    assert_eq!((stat.stime, stat.rtime), (0, 0));
    assert!(stat.ctime > 0);

    queue.send(1, b"1234").unwrap();
    queue.send(1, b"123").unwrap();
    take(&queue, Selector::Any).unwrap();
    let after = queue.stat().unwrap();
    assert_eq!((after.messages, after.bytes), (1, 3));
    let own = std::process::id().cast_signed();
    assert_eq!((after.last_send_pid, after.last_receive_pid), (own, own));
    assert!(after.stime >= stat.ctime && after.rtime >= after.stime);
}

#[test]
fn the_listing_agrees_with_stat() {
    let queue = queue();
    queue.send(1, b"1234").unwrap();
    take(&queue, Selector::Any).unwrap();
    queue.send(1, b"123").unwrap();
    let entries = msg::list().unwrap();
    let entry = entries.iter().find(|entry| entry.id == queue.id()).unwrap();
    let mut stat = queue.stat().unwrap();
    stat.max_bytes = 0;
    assert_eq!(entry.stat, stat);
}

#[test]
fn a_key_is_created_once() {
    let key = key();
    let created = Created::new(Queue::create(key, 0o600).unwrap());
    let error = Queue::create(key, 0o600).unwrap_err();
    assert_eq!(
        (error.errno(), error.subject()),
        (EEXIST, Subject::Key(key))
    );
    assert!(error.already_exists());
    assert_eq!(Queue::open(key).unwrap(), *created);
    assert_eq!(Queue::open_or_create(key, 0o600).unwrap(), *created);
}

#[test]
fn open_or_create_creates_what_is_missing() {
    let made = Created::new(Queue::open_or_create(key(), 0o600).unwrap());
    assert_eq!(made.stat().unwrap().messages, 0);
}

#[test]
fn opening_a_missing_object_is_enoent() {
    let error = Queue::open(key()).unwrap_err();
    assert_eq!((error.errno(), error.call()), (ENOENT, "msgget"));
    assert!(Queue::open(Key::PRIVATE).unwrap_err().not_found());
}

#[test]
fn opening_with_the_private_key_creates_nothing() {
    // As `msgget` itself would, without any rights.
    child(|_| {
        if support::enter_new_namespace() {
            assert!(Queue::open(Key::PRIVATE).unwrap_err().not_found());
            assert!(msg::list().unwrap().is_empty());
        }
    });
    if support::is_root() {
        support::run("opening_with_the_private_key_creates_nothing", &[]);
    }
}

#[test]
fn modes_with_other_bits_are_einval() {
    for mode in [0o1000, 0o2600, u32::MAX] {
        assert_eq!(Queue::create(key(), mode).unwrap_err().errno(), EINVAL);
    }
    let queue = queue();
    let error = queue.set_permissions(0, 0, 0o1000).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed());
}

#[test]
fn settings_can_be_changed() {
    let queue = queue();
    let before = queue.stat().unwrap();
    queue.set_max_bytes(100).unwrap();
    queue
        .set_permissions(before.uid, before.gid, 0o440)
        .unwrap();
    let after = queue.stat().unwrap();
    assert_eq!((after.max_bytes, after.mode), (100, 0o440));
    queue.set_max_bytes(200).unwrap();
    let after = queue.stat().unwrap();
    assert_eq!(
        (after.max_bytes, after.mode, after.uid),
        (200, 0o440, before.uid)
    );
    let settings = Settings {
        uid: u32::MAX,
        gid: 0,
        mode: 0o600,
        max_bytes: 1,
    };
    let error = queue.set(settings).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(!error.is_removed());
    if support::is_root() {
        queue
            .set(Settings {
                uid: NOBODY,
                gid: NOBODY,
                mode: 0o600,
                max_bytes: 1,
            })
            .unwrap();
        let after = queue.stat().unwrap();
        assert_eq!((after.uid, after.gid, after.max_bytes), (NOBODY, NOBODY, 1));
        assert_eq!((after.cuid, after.cgid), (before.cuid, before.cgid));
    }
}

#[test]
fn a_signal_ends_the_wait() {
    let queue = queue();
    queue.set_max_bytes(1).unwrap();
    queue.send(1, b"x").unwrap();
    let mut buffer = [0; 1];
    for error in [
        support::interrupt(|| queue.send(1, b"y")).unwrap_err(),
        support::interrupt(|| queue.receive(&mut buffer, Selector::Type(2))).unwrap_err(),
    ] {
        assert_eq!(error.errno(), EINTR);
        assert!(error.is_interrupted());
    }
    assert_eq!(contents(&queue), [message(1, b"x")]);
}

#[test]
fn removal_wakes_waiters_and_refuses_later_calls() {
    let queue = Queue::create(key(), 0o600).unwrap();
    queue.set_max_bytes(1).unwrap();
    queue.send(1, b"x").unwrap();
    let asleep = |tid: &std::sync::atomic::AtomicI32| {
        let tid = tid.load(std::sync::atomic::Ordering::Relaxed);
        // The system call that a thread sleeps in, or "running".
        let call = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall"));
        let number = |call: String| call.split(' ').next().map(str::parse::<libc::c_long>);
        matches!(
            call.map(number),
            Ok(Some(Ok(libc::SYS_msgsnd | libc::SYS_msgrcv)))
        )
    };
    let tids = [const { std::sync::atomic::AtomicI32::new(0) }; 2];
    let enter = |index: usize| {
        // SAFETY: the call takes nothing.
        let own = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
        tids[index].store(own, std::sync::atomic::Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            enter(0);
            queue.send(1, b"y")
        });
        let receiver = scope.spawn(|| {
            enter(1);
            queue.receive(&mut [0; 1], Selector::Type(2)).map(drop)
        });
        until(|| tids.iter().all(asleep));
        queue.remove().unwrap();
        for waiter in [sender, receiver] {
            let error = waiter.join().unwrap().unwrap_err();
            assert_eq!(error.errno(), EIDRM);
            assert!(error.is_removed());
        }
    });
    let calls = [
        queue.send(1, b""),
        queue.try_send(1, b""),
        queue.receive(&mut [], Selector::Any).map(drop),
        queue.try_receive(&mut [], Selector::Any).map(drop),
        queue.receive_truncated(&mut [], Selector::Any).map(drop),
        queue.peek(&mut [], 0).map(drop),
        queue.stat().map(drop),
        queue.set(Settings {
            uid: 0,
            gid: 0,
            mode: 0o600,
            max_bytes: 1,
        }),
        queue.set_permissions(0, 0, 0o600),
        queue.set_max_bytes(1),
        queue.remove(),
        Queue::from_id(-1).send(1, b""),
    ];
    for result in calls {
        let error = result.unwrap_err();
        assert_eq!(error.errno(), EINVAL);
        assert!(error.is_removed(), "{error}");
    }
}

#[test]
fn others_may_do_what_the_mode_allows() {
    child(|arguments| {
        support::become_nobody();
        let &[closed, readable, own, closed_key] = arguments else {
            panic!()
        };
        let [closed, readable, own] = [closed, readable, own].map(Queue::from_id);
        let closed_key = Key::new(closed_key);
        assert_eq!(Queue::open(closed_key).unwrap(), closed);
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
                Queue::open_or_create(closed_key, 0o600).map(drop),
                closed.send(1, b""),
                closed.try_send(1, b""),
                closed.receive(&mut [], Selector::Any).map(drop),
                closed.peek(&mut [], 0).map(drop),
                closed.stat().map(drop),
                readable.send(1, b""),
            ],
        );
        assert_eq!(readable.receive(&mut [], Selector::Any).unwrap().kind, 4);
        errnos(
            EPERM,
            &[
                readable.set_permissions(NOBODY, NOBODY, 0o666),
                readable.set_max_bytes(1),
                readable.remove(),
                // More than the limit needs a privilege, also for the owner.
                own.set_max_bytes(limits::msg().unwrap().queue_bytes + 1),
            ],
        );
        own.set_max_bytes(1).unwrap();
        assert!(
            msg::list()
                .unwrap()
                .iter()
                .any(|entry| entry.id == closed.id())
        );
    });
    if support::is_root() {
        let (closed, own) = (queue(), queue());
        own.set_permissions(NOBODY, NOBODY, 0o600).unwrap();
        let readable = Created::new(Queue::create(key(), 0o604).unwrap());
        readable.send(4, b"").unwrap();
        support::run(
            "others_may_do_what_the_mode_allows",
            &[
                closed.id(),
                readable.id(),
                own.id(),
                closed.stat().unwrap().key.raw(),
            ],
        );
    }
}

#[test]
fn a_full_namespace_is_enospc() {
    child(|_| {
        if !support::enter_new_namespace() {
            return;
        }
        support::set_limit("msgmni", "1");
        let only = queue();
        let error = Queue::create(key(), 0o600).unwrap_err();
        assert_eq!(error.errno(), ENOSPC);
        assert!(error.no_space());
        assert_eq!(msg::list().unwrap()[0].id, only.id());
    });
    if support::is_root() {
        support::run("a_full_namespace_is_enospc", &[]);
    }
}
