//! Regressions that a review found: guards that are forgotten, handles in a forked child, a ring that
//! was closed and used again, and a creation that fails at its last step.

use std::time::Duration;

use semring::{RecvError, SendError, any, mpsc, spsc};
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs `child` in a forked copy of this process; true if it ended with true.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses memory of its own and the handles under test, and exits at once.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!fine.unwrap_or(false))) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; status is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[test]
fn forgotten_send_batch_published_by_next_call() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a forgotten batch of messages to send");
    let guard = RingGuard::new("review-forget-send");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let mut batch = producer.batch();
    batch.push(b"first").unwrap();
    batch.push(b"second").unwrap();
    std::mem::forget(batch);
    producer.send(b"third").unwrap();
    for expected in [&b"first"[..], b"second", b"third"] {
        assert_eq!(consumer.try_recv().unwrap().to_vec(), expected);
    }
}

#[test]
fn forgotten_send_batch_published_by_next_batch() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a forgotten batch before another one");
    let guard = RingGuard::new("review-forget-batch");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let mut batch = producer.batch();
    batch.push(b"first").unwrap();
    std::mem::forget(batch);
    let mut batch = producer.batch();
    batch.push(b"second").unwrap();
    batch.commit();
    for expected in [&b"first"[..], b"second"] {
        assert_eq!(consumer.try_recv().unwrap().to_vec(), expected);
    }
}

#[test]
fn forgotten_send_batch_is_published_at_detach() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a forgotten batch of a producer that leaves");
    let guard = RingGuard::new("review-forget-leave");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    for close in [false, true] {
        let mut producer = ring.attach_producer().unwrap();
        let mut batch = producer.batch();
        batch.push(b"only").unwrap();
        std::mem::forget(batch);
        if close {
            producer.close();
        } else {
            drop(producer);
        }
        assert_eq!(consumer.recv().unwrap().to_vec(), b"only");
        assert!(matches!(
            consumer.recv().unwrap_err(),
            RecvError::EndOfStream { .. }
        ));
        consumer.resume();
    }
}

#[test]
fn a_forgotten_receive_batch_is_delivered_again() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a forgotten batch of received messages");
    let guard = RingGuard::new("review-forget-recv");
    let ring = mpsc::Builder::new(guard.posix())
        .capacity(4096)
        .producers(2)
        .create()
        .unwrap();
    let mut producers = [
        ring.attach_producer().unwrap(),
        ring.attach_producer().unwrap(),
    ];
    let mut consumer = ring.attach_consumer().unwrap();
    for producer in &mut producers {
        while producer.try_send(&[7; 500]).is_ok() {}
    }
    let mut batch = consumer.recv_batch().unwrap();
    while batch.next_message().is_some() {}
    let messages = batch.messages();
    assert!(messages >= 14, "{messages}");
    std::mem::forget(batch);
    for _ in 0..messages {
        assert_eq!(consumer.try_recv().unwrap().len(), 500);
    }
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
    // All of it was released, so there is room.
    assert_eq!(producers[0].try_send(&[7; 500]), Ok(()));
}

#[test]
fn a_ring_with_a_forgotten_receive_batch_is_not_at_its_end() {
    let guard = RingGuard::new("review-forget-end");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    producer.send(b"unread").unwrap();
    drop(producer);
    let mut consumer = ring.attach_consumer().unwrap();
    let mut batch = consumer.recv_batch().unwrap();
    assert!(batch.next_message().is_some());
    std::mem::forget(batch);
    assert!(!consumer.remove_at_end().unwrap().is_removed());
    assert_eq!(consumer.recv().unwrap().to_vec(), b"unread");
}

#[test]
fn a_forked_child_looks_at_an_inherited_ring_without_harm() {
    for address in [
        |guard: &RingGuard| guard.posix(),
        |guard: &RingGuard| guard.sysv(),
    ] {
        let guard = RingGuard::new("review-fork");
        let ring = spsc::Builder::new(address(&guard)).create().unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"unread").unwrap();
        assert!(
            in_child(|| ring.info().is_ok_and(|info| info.unread_messages() == 1)),
            "info"
        );
        let consumer = ring.attach_consumer().unwrap();
        assert!(
            in_child(|| consumer.attached_producers() == 0),
            "attached_producers"
        );
        drop((producer, consumer));
        assert!(
            in_child(|| matches!(ring.remove_if_done(), Ok(semring::RemoveOutcome::Unread))),
            "remove_if_done"
        );
        assert!(in_child(|| ring.remove().is_ok()), "remove");
        assert!(any::open(address(&guard)).is_err());
    }
}

#[test]
fn messages_after_close_are_not_removed() {
    let guard = RingGuard::new("review-closed");
    let ring = mpsc::Builder::new(guard.posix()).create().unwrap();
    let mut first = ring.attach_producer().unwrap();
    let consumer = ring.attach_consumer().unwrap();
    first.send(b"not wanted").unwrap();
    consumer.close();
    // A second producer attaches: it has known no consumer, and its messages wait for the next one.
    let mut second = ring.attach_producer().unwrap();
    second.send(b"for the next one").unwrap();
    assert_eq!(first.check_consumer(), Err(SendError::Closed));
    drop(first);
    drop(second);
    assert!(
        !ring.remove_if_done().unwrap().is_removed(),
        "the ring was removed with a message that was not refused"
    );
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"not wanted");
    assert_eq!(consumer.recv().unwrap().to_vec(), b"for the next one");
}

#[test]
fn what_the_consumer_refused_is_no_reason_to_keep_the_ring() {
    let guard = RingGuard::new("review-refused");
    let ring = mpsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let consumer = ring.attach_consumer().unwrap();
    producer.send(b"not wanted").unwrap();
    consumer.close();
    drop(producer);
    assert!(ring.remove_if_done().unwrap().is_removed());
}

#[test]
fn a_creation_without_a_descriptor_left_leaves_nothing() {
    let guard = RingGuard::new("review-descriptors");
    let refused = in_child(|| {
        // All descriptors but one: enough to make the file, and not for a second handle of it. Those that
        // tests beside this one have open are no part of it.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let highest = numbers.max().unwrap();
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the structure is ours.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        limit.rlim_cur = highest + 64;
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        for free in 0..32 {
            let created = spsc::Builder::new(guard.posix()).create();
            match created {
                Ok(ring) => {
                    drop(files.pop());
                    drop(ring.remove());
                    return free > 0;
                }
                Err(_) if std::path::Path::new("/dev/shm").join(guard.name()).exists() => {
                    return false;
                }
                Err(_) => drop(files.pop()),
            }
        }
        false
    });
    assert!(refused);
}

#[test]
fn headers_beyond_the_last_position_have_an_end() {
    use std::os::unix::fs::FileExt;

    let _watchdog = Watchdog::new(HANG_TIMEOUT, "positions at the end of their numbers");
    let guard = RingGuard::new("review-wrap");
    let ring = spsc::Builder::new(guard.posix())
        .capacity(4096)
        .create()
        .unwrap();
    let path = std::path::Path::new("/dev/shm").join(guard.name());
    let memory = std::fs::File::options().write(true).open(path).unwrap();
    let put = |at: u64, word: u64| memory.write_all_at(&word.to_le_bytes(), at).unwrap();
    let start = u64::MAX - 4095;
    put(0x2000, start); // committed
    put(0x3000, start); // released
    for offset in (0..4096).step_by(8) {
        // Empty messages; the last one takes two words, and so passes the end of the quarter that is
        // due.
        put(
            0x4000 + offset,
            (0xa5 << 56) | (u64::from(offset == 4080) * 8),
        );
    }
    let mut consumer = ring.attach_consumer().unwrap();
    let mut messages = 0;
    while consumer.try_recv().is_ok() {
        messages += 1;
        assert!(messages < 10_000, "there is no end to it");
    }
}

#[test]
fn removal_of_a_copied_ring_is_harmless() {
    let original = RingGuard::new("review-original");
    let copy = RingGuard::new("review-copy");
    let ring = spsc::Builder::new(original.posix()).create().unwrap();
    ring.attach_producer().unwrap().send(b"precious").unwrap();
    let memory = std::path::Path::new("/dev/shm");
    std::fs::copy(memory.join(original.name()), memory.join(copy.name())).unwrap();
    let address = copy.posix().parse::<semring::Address>().unwrap();
    assert!(semring::remove(&address).is_err());
    let error = any::open(copy.posix()).unwrap_err();
    assert!(error.to_string().contains(original.name()), "{error}");
    // By force the copy goes, and nothing of the original.
    semring::force_remove(&address).unwrap();
    assert!(!memory.join(copy.name()).exists());
    assert_eq!(
        ring.attach_consumer().unwrap().recv().unwrap().to_vec(),
        b"precious"
    );
}

#[test]
fn a_broken_pipe_stays_broken() {
    let guard = RingGuard::new("review-sticky");
    let ring = spsc::Builder::new(guard.posix())
        .capacity(4096)
        .create()
        .unwrap();
    let mut producer = ring.attach_producer().unwrap();
    drop(ring.attach_consumer().unwrap());
    assert_eq!(producer.check_consumer(), Err(SendError::ConsumerGone));
    for _ in 0..10 {
        assert_eq!(producer.send(b"too late"), Err(SendError::ConsumerGone));
    }
    producer.accept_next_consumer().unwrap();
    producer.send(b"to the next one").unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"to the next one");
}

#[test]
fn the_producer_of_a_corrupt_lane_does_not_wait_for_room() {
    use std::os::unix::fs::FileExt;
    let guard = RingGuard::new("review-corrupt");
    let ring = spsc::Builder::new(guard.posix())
        .capacity(4096)
        .create()
        .unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let path = std::path::Path::new("/dev/shm").join(guard.name());
    let memory = std::fs::File::options().write(true).open(path).unwrap();
    memory.write_all_at(&[0xff; 8], 0x4000).unwrap();
    assert!(matches!(
        consumer.try_recv().err(),
        Some(RecvError::Corrupt { lane: 0, .. })
    ));
    assert_eq!(producer.check_consumer(), Err(SendError::Corrupt));
    let long = std::time::Duration::from_secs(60);
    let refused = (0..1000).find_map(|_| producer.send_deadline(&[0; 100], long).err());
    assert_eq!(refused, Some(SendError::Corrupt));
}

/// Where the flags of the first lane's producer lie in a segment.
const FLAGS: u64 = 0x2000 + 0x20;

fn word_at(guard: &RingGuard, offset: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(format!("/dev/shm/{}", guard.name())).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset).unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn asymmetric_mode_needs_a_consumer_with_barriers() {
    let guard = RingGuard::new("review-burst");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    for _ in 0..100 {
        producer.send(b"no consumer").unwrap();
    }
    assert_eq!(word_at(&guard, FLAGS), 0, "there never was a consumer");
    let careful = spsc::Builder::new(guard.posix()).asymmetric_barrier(false);
    let consumer = careful.open().unwrap().attach_consumer().unwrap();
    for _ in 0..100 {
        producer.send(b"no barrier").unwrap();
    }
    assert_eq!(word_at(&guard, FLAGS), 0, "it makes no barriers");
    drop(consumer);
    let _consumer = ring.attach_consumer().unwrap();
    producer.accept_next_consumer().unwrap();
    for _ in 0..100 {
        producer.send(b"a barrier").unwrap();
    }
    // 0 also where the kernel has no such barrier: then nothing can be checked.
    let burst = word_at(&guard, FLAGS);
    assert!(burst == 2 || word_at(&guard, 0x10a0) == 0, "{burst}");
    producer.close();
    assert_eq!(
        word_at(&guard, FLAGS),
        1,
        "the last word of a producer that closed"
    );
}

#[test]
fn sleeping_producer_is_woken_by_corruption() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a producer asleep on a lane that is corrupt");
    for at_takeover in [false, true] {
        let guard = RingGuard::new("review-corrupt");
        let ring = spsc::Builder::new(guard.posix())
            .capacity(4096)
            .wait(semring::WaitStrategy::Block)
            .create()
            .unwrap();
        let mut producer = ring.attach_producer().unwrap();
        while producer.try_send(&[7; 500]).is_ok() {}
        let before = (!at_takeover).then(|| ring.attach_consumer().unwrap());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| producer.send(&[7; 500]));
            while !ring.info().unwrap().lanes[0].producer_sleeps {
                std::thread::yield_now();
            }
            let offset = if at_takeover { 0x3000 } else { 0x4000 };
            overwrite(&guard, offset, u64::MAX << 40);
            let mut consumer = before.unwrap_or_else(|| ring.attach_consumer().unwrap());
            assert!(matches!(
                consumer.recv(),
                Err(RecvError::Corrupt { lane: 0, .. })
            ));
            assert_eq!(sender.join().unwrap(), Err(SendError::Corrupt));
        });
    }
}

fn overwrite(guard: &RingGuard, offset: u64, word: u64) {
    use std::os::unix::fs::FileExt;
    let path = format!("/dev/shm/{}", guard.name());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&word.to_le_bytes(), offset).unwrap();
}

#[test]
fn batch_put_back_after_damage_comes_again() {
    let guard = RingGuard::new("review-damaged-batch");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    for message in [b"first", b"next!", b"third"] {
        producer.send(message).unwrap();
    }
    overwrite(&guard, 0x4000 + 32, u64::MAX);
    let mut batch = consumer.try_recv_batch().unwrap();
    while batch.next_message().is_some() {}
    assert_eq!(batch.messages(), 2);
    batch.put_back();
    let corrupt = consumer.try_recv().unwrap_err();
    assert!(
        matches!(corrupt, RecvError::Corrupt { lane: 0, .. }),
        "{corrupt:?}"
    );
    assert_eq!(consumer.try_recv().unwrap().to_vec(), b"first");
    assert_eq!(consumer.try_recv().unwrap().to_vec(), b"next!");
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
}

#[test]
fn nothing_is_sent_after_a_removal() {
    let guard = RingGuard::new("review-removed-await");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    producer.send(b"there is room for more").unwrap();
    semring::force_remove(guard.posix()).unwrap();
    assert_eq!(producer.accept_next_consumer(), Err(SendError::Removed));
    assert_eq!(producer.send(b"too late"), Err(SendError::Removed));
}

#[test]
fn damage_in_a_batch_is_reported_before_next_message() {
    let guard = RingGuard::new("review-damage-first");
    let ring = mpsc::Builder::new(guard.posix())
        .producers(2)
        .create()
        .unwrap();
    let mut producers = [
        ring.attach_producer().unwrap(),
        ring.attach_producer().unwrap(),
    ];
    let mut consumer = ring.attach_consumer().unwrap();
    for producer in &mut producers {
        for message in [b"first", b"next!", b"third"] {
            producer.send(message).unwrap();
        }
    }
    overwrite(&guard, 0x6000 + 32, u64::MAX);
    let mut batch = consumer.recv_batch().unwrap();
    while batch.next_message().is_some() {}
    // The other lane goes on.
    assert!(batch.next_message().is_some());
    assert_eq!(batch.messages(), 3);
    batch.release();
    assert!(matches!(
        consumer.recv(),
        Err(RecvError::Corrupt { lane: 0, .. })
    ));
    assert_eq!(consumer.recv().unwrap().to_vec(), b"next!");
}

#[test]
fn message_in_a_forked_child_has_no_sender() {
    let guard = RingGuard::new("review-forked-message");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    ring.attach_producer()
        .unwrap()
        .send(b"of the parent")
        .unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let message = consumer.recv().unwrap();
    assert_eq!(message.generation(), Some(1));
    assert!(in_child(
        || message.generation().is_none() && message.len() == 13
    ));
}

#[test]
fn old_handle_does_not_attach_without_a_name() {
    let _watchdog = Watchdog::new(
        HANG_TIMEOUT,
        "a remover killed between the name and the semaphores",
    );
    // The state that a remover leaves when it is killed after it removed the name.
    let guard = RingGuard::new("review-nameless");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    guard.objects();
    std::fs::remove_file(format!("/dev/shm/{}", guard.name())).unwrap();
    attach_is_refused(&ring);
    // No role was left taken: another ring can have the name.
    another_ring_can_be_made(&guard.posix());

    let guard = RingGuard::new("review-nameless-sysv");
    let ring = spsc::Builder::new(guard.sysv()).create().unwrap();
    let segment = guard.objects().into_iter().find_map(|object| match object {
        semring_testkit::objects::Object::Segment { id, .. } => Some(id),
        _ => None,
    });
    sysv_ipc::shm::Shm::from_id(segment.unwrap())
        .remove()
        .unwrap();
    attach_is_refused(&ring);
    // The set that is left is taken over by the next creator.
    another_ring_can_be_made(&guard.sysv());
}

fn attach_is_refused(ring: &spsc::Ring) {
    // Twice: the first refusal must not keep the role.
    for _ in 0..2 {
        let producer = ring.attach_producer().map(drop);
        assert!(matches!(producer, Err(semring::AttachError::Removed)));
        let consumer = ring.attach_consumer().map(drop);
        assert!(matches!(consumer, Err(semring::AttachError::Removed)));
    }
}

fn another_ring_can_be_made(address: &str) {
    let other = spsc::Builder::new(address).create().unwrap();
    drop((
        other.attach_producer().unwrap(),
        other.attach_consumer().unwrap(),
    ));
    other.remove().unwrap();
}

#[test]
fn named_ring_in_state_removed_is_damaged() {
    use std::os::unix::fs::FileExt;
    let _watchdog = Watchdog::new(
        HANG_TIMEOUT,
        "a ring whose state word is that of a removed one",
    );
    let guard = RingGuard::new("review-removed-state");
    let ring = spsc::Builder::new(guard.posix()).create().unwrap();
    let path = format!("/dev/shm/{}", guard.name());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&3u32.to_le_bytes(), 0xffc).unwrap();
    let opened = spsc::open(guard.posix()).map(drop).unwrap_err().to_string();
    assert!(opened.contains("state word"), "{opened}");
    let made = spsc::Builder::new(guard.posix()).open_or_create();
    assert!(
        made.map(drop)
            .unwrap_err()
            .to_string()
            .contains("state word")
    );
    drop(ring);
}
