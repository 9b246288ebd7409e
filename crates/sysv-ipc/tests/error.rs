//! Errors as text and as `io::Error`, the limits against the kernel's own answer, and the guard.

mod support;

use std::io::{self, ErrorKind};

use support::key;
use sysv_ipc::msg::{Queue, Selector};
use sysv_ipc::sem::{Op, SemSet};
use sysv_ipc::shm::Shm;
use sysv_ipc::{Created, Error, Key, limits};

#[test]
fn the_text_names_the_call_its_subject_and_the_meaning() {
    let key = key();
    let error = SemSet::open(key).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "semget(key {key}): No such file or directory (os error 2): \
             nothing has this key in this IPC namespace"
        )
    );
    let set = Created::new(SemSet::create(key, 1, 0o600).unwrap());
    let error = set.value(1).unwrap_err();
    let id = set.id();
    assert_eq!(
        error.to_string(),
        format!(
            "semctl(id {id}, GETVAL): Invalid argument (os error 22): \
             the object exists, but has nothing with this index"
        )
    );
    assert_eq!((error.call(), error.command()), ("semctl", Some("GETVAL")));
    let error = set
        .op(&[Op::new(0, 0), Op::new(0, -1).no_wait()])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "semop(id {id}): Resource temporarily unavailable (os error 11): \
             the operations would have to wait"
        )
    );
    assert_eq!((error.call(), error.command()), ("semop", None));
    let removed = *set;
    drop(set);
    assert_eq!(
        removed.op(&[Op::new(0, 1)]).unwrap_err().to_string(),
        format!(
            "semop(id {id}): Invalid argument (os error 22): \
             the object has been removed, or was never there in this IPC namespace"
        )
    );
    let error = Shm::create(Key::PRIVATE, 0, 0o600).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("shmget(private key): Invalid argument"),
        "{error}"
    );
    assert_eq!(
        format!("{:?}", Queue::from_id(-1).remove().unwrap_err()),
        r#"Error { call: "msgctl", command: "IPC_RMID", subject: Id(-1), errno: 22 }"#
    );
}

#[test]
fn an_io_error_keeps_the_kind_and_carries_the_error() {
    let key = key();
    let queue = Created::new(Queue::create(key, 0o600).unwrap());
    let cases = [
        (
            Queue::create(key, 0o600).map(drop),
            ErrorKind::AlreadyExists,
        ),
        (Queue::open(Key::PRIVATE).map(drop), ErrorKind::NotFound),
        (queue.send(0, b""), ErrorKind::InvalidInput),
    ];
    for (result, kind) in cases {
        let error = result.unwrap_err();
        let io_error = io::Error::from(error);
        assert_eq!((error.kind(), io_error.kind()), (kind, kind));
        assert_eq!(io_error.to_string(), error.to_string());
        assert_eq!(io_error.raw_os_error(), None);
        assert_eq!(io_error.downcast::<Error>().unwrap(), error);
    }
    // A number that has no kind of its own passes, too.
    let error = queue.try_receive(&mut [], Selector::Any).unwrap_err();
    assert_eq!(
        io::Error::from(error).downcast::<Error>().unwrap().errno(),
        libc::ENOMSG
    );
}

#[test]
fn each_question_is_about_its_number() {
    let answers = |error: &Error| {
        [
            error.is_would_block(),
            error.is_interrupted(),
            error.is_removed(),
            error.is_overflow(),
            error.already_exists(),
            error.not_found(),
            error.no_space(),
            error.permission_denied(),
            error.is_no_message(),
        ]
    };
    let key = key();
    let set = Created::new(SemSet::create(key, 1, 0o600).unwrap());
    let queue = Created::new(Queue::create(key, 0o600).unwrap());
    let cases = [
        (set.op(&[Op::new(0, -1).no_wait()]), Some(0)),
        (Shm::from_id(-1).remove(), Some(2)),
        (set.set_value(0, 40_000), Some(3)),
        (SemSet::create(key, 1, 0o600).map(drop), Some(4)),
        (Shm::open(key).map(drop), Some(5)),
        (queue.try_receive(&mut [], Selector::Any).map(drop), Some(8)),
        (set.op(&[Op::new(1, 1)]), None),
    ];
    for (result, yes) in cases {
        let error = result.unwrap_err();
        let mut expected = [false; 9];
        if let Some(yes) = yes {
            expected[yes] = true;
        }
        assert_eq!(answers(&error), expected, "{error}");
    }
}

/// The kernel's `seminfo`, which the libc crate declares for glibc only.
#[repr(C)]
#[derive(Default)]
struct SemInfo {
    semmap: i32,
    semmni: i32,
    semmns: i32,
    semmnu: i32,
    semmsl: i32,
    semopm: i32,
    semume: i32,
    semusz: i32,
    semvmx: i32,
    semaem: i32,
}

#[test]
fn limits_are_those_the_kernel_reports() {
    let mut info = SemInfo::default();
    // SAFETY: IPC_INFO writes a `seminfo`.
    assert!(unsafe { libc::semctl(0, 0, libc::IPC_INFO, &raw mut info) } >= 0);
    let sem = limits::sem().unwrap();
    assert_eq!(
        [sem.per_set, sem.in_all, sem.ops_per_call, sem.sets],
        [info.semmsl, info.semmns, info.semopm, info.semmni].map(|n| n as u64)
    );
    assert_eq!(u64::from(sysv_ipc::sem::MAX_VALUE), info.semvmx as u64);

    // SAFETY: zero bytes are a valid `msginfo`.
    let mut info = unsafe { std::mem::zeroed::<libc::msginfo>() };
    let into = (&raw mut info).cast();
    // SAFETY: IPC_INFO writes a `msginfo`.
    assert!(unsafe { libc::msgctl(0, libc::IPC_INFO, into) } >= 0);
    let msg = limits::msg().unwrap();
    assert_eq!(
        [msg.message_bytes, msg.queue_bytes, msg.queues],
        [info.msgmax, info.msgmnb, info.msgmni].map(|n| n as u64)
    );

    // struct shminfo: shmmax, shmmin, shmmni, shmseg, shmall, and four without meaning.
    let mut info = [0u64; 9];
    let into = info.as_mut_ptr().cast();
    // SAFETY: IPC_INFO writes a `shminfo`, which is nine numbers of this size.
    assert!(unsafe { libc::shmctl(0, libc::IPC_INFO, into) } >= 0);
    let shm = limits::shm().unwrap();
    assert_eq!(
        [shm.max_bytes, shm.segments, shm.pages_in_all],
        [info[0], info[2], info[4]]
    );
    assert!(!shm.removed_when_unattached);
}

#[test]
fn guard_removes_unless_kept() {
    let key = key();
    drop(Created::new(SemSet::create(key, 1, 0o600).unwrap()));
    assert!(SemSet::open(key).unwrap_err().not_found());

    let kept = Created::new(SemSet::create(key, 1, 0o600).unwrap()).keep();
    assert_eq!(SemSet::open(key).unwrap(), kept);

    let guard = Created::new(kept);
    let panicked = std::panic::catch_unwind(move || {
        let _guard = guard;
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(panicked.is_err());
    assert!(SemSet::open(key).unwrap_err().not_found());

    let guard = Created::new(Queue::create(key, 0o600).unwrap());
    let queue = *guard;
    queue.remove().unwrap();
    assert!(guard.remove().unwrap_err().is_removed());
}
