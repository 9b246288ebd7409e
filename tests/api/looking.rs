//! Inspection from outside: its results, its lack of effects, the permission it needs.

use std::thread;

use semring::{
    Address, CreateError, GuardKind, OpenError, Position, RemoveError, RingInfo, RingKind,
    RingState, any, spsc,
};
use semring_testkit::objects::Object;
use sysv_ipc::shm::Shm;

use crate::fixture::{CAPACITY, Fixture, while_asleep};
use crate::rings;

/// The bytes of the ring's segment and all that can be seen of its guard, as the system has them.
fn everything(fixture: &Fixture) -> (Vec<u8>, Vec<String>) {
    let mut bytes = Vec::new();
    let values = fixture.cleanup().everything();
    for object in fixture.guard.objects() {
        match object {
            Object::Posix { name } if name.starts_with('.') => {} // a directory of pipes
            Object::Posix { name } => bytes = std::fs::read(format!("/dev/shm/{name}")).unwrap(),
            Object::Segment { id, .. } => {
                let attachment = Shm::from_id(id).attach_read_only().unwrap();
                bytes = (0..attachment.len())
                    .map(|at| byte(&attachment, at))
                    .collect();
            }
            Object::Semaphores { .. } | Object::Queue { .. } => {}
        }
    }
    assert!(!bytes.is_empty() && !values.is_empty());
    (bytes, values)
}

fn byte(attachment: &sysv_ipc::shm::Attachment, at: usize) -> u8 {
    assert!(at < attachment.len());
    // SAFETY: inside the attachment.
    let byte = unsafe { attachment.as_ptr().add(at) };
    // SAFETY: mapped for as long as the attachment is borrowed; any value will do.
    unsafe { byte.read_volatile() }
}

fn listed(ring: &RingInfo) -> Option<RingInfo> {
    semring::list()
        .into_iter()
        .find(|listed| listed.uuid == ring.uuid)
}

/// Runs a function as another user, in a thread of its own: the kernel keeps credentials for each.
fn as_nobody<R: Send>(run: impl FnOnce() -> R + Send) -> Option<R> {
    if !semring_testkit::left_out::is_root("to become another user") {
        return None;
    }
    const NOBODY: u32 = 65534;
    let result = thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: drops the groups of this thread only; no memory is read for 0 groups.
                let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
                // SAFETY: changes the credentials of this thread only.
                let group = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
                // SAFETY: as above.
                let user = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
                assert_eq!((groups, group, user), (0, 0, 0));
                run()
            })
            .join()
            .unwrap()
    });
    Some(result)
}

over_each_backend! {
    fn inspecting_reports_all_and_changes_nothing(fixture) {
        let ring = fixture.mpsc(3);
        let mut first = ring.attach_producer().unwrap();
        let mut second = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for _ in 0..5 {
            first.send(&[1; 100]).unwrap();
        }
        second.send(&[2; 10]).unwrap();
        second.close();
        consumer.recv().unwrap().release();
        consumer.recv().unwrap().release();
        consumer.flush_released().unwrap();
        let before = everything(&fixture);
        let address: Address = fixture.address.parse().unwrap();
        let info = semring::inspect(&address).unwrap();
        let pid = std::process::id();
        assert_eq!((&info.name, &info.address), (&fixture.guard.name().to_owned(), &address));
        assert_eq!((info.backend, info.kind), (address.backend(), RingKind::Mpsc));
        assert_eq!((info.capacity_bytes, info.lanes.len()), (CAPACITY, 3));
        assert_eq!(info.segment_bytes, 8192 + 3 * 8192 + 3 * CAPACITY);
        assert_eq!(info.uuid.len(), 32);
        assert_eq!((info.mode, info.uid), (0o600, nix::unistd::geteuid().as_raw()));
        assert_eq!(info.gid, nix::unistd::getegid().as_raw());
        assert_eq!((info.creator_pid, info.auto_remove), (pid, false));
        assert!(info.created_ns > 1_700_000_000_000_000_000);
        assert_eq!((info.state, info.consumer_pid), (RingState::Active, Some(pid)));
        assert_eq!((info.consumer_sleeps, info.consumer_closed), (false, false));
        assert_eq!((info.producers(), info.unread_messages()), (1, 4));
        assert_eq!(info.used_bytes(), 3 * 112 + 24);
        let [one, two, three] = &info.lanes[..] else { panic!("3 lanes") };
        assert_eq!((one.producer_pid, two.producer_pid), (Some(pid), None));
        assert_eq!((one.sent_messages, one.received_messages, one.unread_messages), (5, 2, 3));
        assert_eq!((two.sent_messages, two.received_messages, two.unread_messages), (1, 0, 1));
        assert_eq!((one.attached_producers, one.finished_producers), (1, 0));
        assert_eq!((two.attached_producers, two.finished_producers), (1, 1));
        assert_eq!((three.attached_producers, three.used_bytes), (0, 0));
        assert_eq!((one.producer_sleeps, one.lost_messages, one.corrupt_at), (false, 0, None));
        assert_eq!(listed(&info).unwrap().unread_messages(), 4);
        assert_eq!(ring.info().unwrap().uuid, info.uuid);
        assert_eq!(any::open(&fixture.address).unwrap().info().unwrap().producers(), 1);
        assert_eq!(everything(&fixture), before);
        drop((first, consumer));
        let idle = semring::inspect(&address).unwrap();
        assert_eq!((idle.state, idle.state.to_string().as_str()), (RingState::Idle, "idle"));
        assert_eq!((idle.consumer_pid, idle.producers()), (None, 0));
    }

    fn sleepers_are_seen(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut seen = false;
        while_asleep(|| consumer.recv().map(drop).unwrap(), || {
            seen = ring.info().unwrap().consumer_sleeps;
            producer.send(b"x").unwrap();
        });
        assert!(seen && !ring.info().unwrap().consumer_sleeps);
        while producer.try_send(&[0; 1000]).is_ok() {}
        seen = false;
        while_asleep(|| producer.send(&[0; 1000]).unwrap(), || {
            seen = ring.info().unwrap().lanes[0].producer_sleeps;
            consumer.recv().unwrap().release();
            consumer.flush_released().unwrap();
        });
        assert!(seen && !ring.info().unwrap().lanes[0].producer_sleeps);
    }

    fn user_with_read_permission_only_looks(fixture) {
        let ring = rings::spsc(&fixture.address).mode(0o644).capacity(CAPACITY).create().unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"private").unwrap();
        let before = everything(&fixture);
        let address: Address = fixture.address.parse().unwrap();
        as_nobody(|| {
            let info = semring::inspect(&address).unwrap();
            assert_eq!((info.state, info.producers(), info.unread_messages()), (RingState::Active, 1, 1));
            assert!(listed(&info).is_some());
            let open = any::open(&fixture.address).map(drop).unwrap_err();
            assert!(matches!(open, OpenError::Permission { .. }), "{open}");
            let text = open.to_string();
            assert!(text.starts_with(&fixture.address) && text.contains("permission denied"), "{text}");
            let removed = semring::force_remove(&address).unwrap_err();
            assert!(matches!(removed, RemoveError::Open(OpenError::Permission { .. })), "{removed}");
        });
        assert_eq!(everything(&fixture), before);
    }

    fn user_without_read_permission_sees_nothing(fixture) {
        let ring = fixture.spsc();
        let info = ring.info().unwrap();
        let address: Address = fixture.address.parse().unwrap();
        as_nobody(|| {
            let looked = semring::inspect(&address).map(drop).unwrap_err();
            assert!(matches!(looked, OpenError::Permission { .. }), "{looked}");
            assert!(listed(&info).is_none());
            let made = rings::any(&fixture.address).create().map(drop).unwrap_err();
            assert!(matches!(made, CreateError::Exists { .. } | CreateError::Permission { .. }), "{made}");
            let either = rings::any(&fixture.address).open_or_create().map(drop).unwrap_err();
            assert!(either.to_string().contains("permission denied"), "{either}");
        });
    }

    fn another_user_takes_part_but_does_not_remove(fixture) {
        let ring = rings::spsc(&fixture.address).mode(0o666).capacity(CAPACITY).create().unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"for all").unwrap();
        drop(producer);
        as_nobody(|| {
            let theirs = spsc::open(&fixture.address).unwrap();
            let mut consumer = theirs.attach_consumer().unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), b"for all");
            let refused = consumer.remove_at_end().unwrap_err();
            assert!(matches!(refused, RemoveError::Permission { .. }), "{refused}");
            assert!(refused.to_string().contains("only the owner or root"), "{refused}");
            drop(consumer);
            assert!(matches!(theirs.remove(), Err(RemoveError::Permission { .. })));
        });
        // The refused removals left no removal flag.
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        producer.send(b"on").unwrap();
        while consumer.recv().unwrap().to_vec() != b"on" {}
    }

    fn positions_are_counted_in_bytes(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        assert_eq!(producer.position(), Position::default());
        producer.send(&[0; 9]).unwrap();
        assert_eq!(producer.position(), Position::new(24));
        assert_eq!((producer.position().get(), producer.position().to_string()), (24, "24".to_owned()));
        assert!(Position::new(8) < Position::new(16));
    }
}

#[test]
fn kinds_and_guards_have_names() {
    let fixture = Fixture::new("posix", "names");
    let ring = [
        (GuardKind::Pipe, "pipe"),
        (GuardKind::Semaphore, "semaphore"),
    ]
    .map(|(kind, name)| {
        let _ = semring::remove(&fixture.address);
        let builder = rings::mpsc(&fixture.address).producers(2).guard(kind);
        let ring = builder.create().unwrap();
        assert_eq!(ring.guard_fallback(), None);
        let info = ring.info().unwrap();
        assert_eq!(
            [info.kind.to_string(), info.guard.to_string()],
            ["mpsc", name]
        );
        ring
    });
    let [_, ring] = ring;
    assert_eq!(RingKind::Spsc.to_string(), "spsc");
    assert_eq!(RingState::Active.to_string(), "active");
    let producer = ring.attach_producer().unwrap();
    let consumer = ring.attach_consumer().unwrap();
    for text in [format!("{producer:?}"), format!("{consumer:?}")] {
        assert!(text.contains(fixture.guard.name()), "{text}");
    }
}
