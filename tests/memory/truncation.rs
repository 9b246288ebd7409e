//! A process truncates the memory of a ring in use: kinds where that is impossible, and the handling
//! where it is not.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use semring::{AttachError, GuardChoice, OpenError, RecvError, RemoveError, SendError, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::peer::{Exit, Peer};

use crate::fixture::{Fixture, Kind, answer, ask, say_ok};

#[test]
fn memfd_can_not_be_truncated() {
    let mut fixture = Fixture::new(Kind::Memfd, "sealed");
    let ring = fixture.ring(1, 1 << 20);
    let mut producer = fixture.producer();
    let file = File::from(ring.inheritable().unwrap());
    for len in [0, 4096, (1 << 20) - 1, 1 << 30] {
        assert!(file.set_len(len).is_err(), "{len}");
    }
    say_ok(&mut producer, "send 1 0 8 100000");
    drop((producer, ring));
    fixture.finish();
}

#[test]
fn a_descriptor_of_unsealed_memory_is_refused() {
    let mut fixture = Fixture::new(Kind::Posix, "unlinked");
    let ring = fixture.ring(1, 4096);
    let descriptor = ring.inheritable().unwrap();
    let address = format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&descriptor));
    assert!(any::open(&address).is_ok());
    // Without its name nothing shows that the file is to be kept.
    ring.remove().unwrap();
    let refused = any::open(&address).unwrap_err();
    assert!(
        matches!(&refused, OpenError::NotARing { what, .. } if what.contains("sealed")),
        "{refused}"
    );
    drop((ring, descriptor));
    fixture.assert_gone(None);
}

#[test]
fn inspect_and_open_report_a_truncated_file() {
    for kind in [Kind::Posix, Kind::File] {
        let mut fixture = Fixture::new(kind, "truncated");
        drop(fixture.ring(1, 1 << 16));
        let mut producer = fixture.producer();
        say_ok(&mut producer, "send 1 0 100 500");
        drop(producer);
        let (cleanup, whole) = (
            fixture.cleanup(),
            std::fs::metadata(fixture.path()).unwrap().len(),
        );
        let file = File::options().write(true).open(fixture.path()).unwrap();
        for len in [whole - 1, whole / 2, 0x3000, 4096, 100, 0] {
            file.set_len(len).unwrap();
            for result in [
                semring::inspect(fixture.parsed()).map(drop),
                any::open(fixture.address()).map(drop),
            ] {
                assert!(
                    matches!(result, Err(OpenError::NotARing { .. })),
                    "{len}: {result:?}"
                );
            }
        }
        std::fs::remove_file(fixture.path()).unwrap();
        cleanup.remove();
    }
}

/// The length is right when it is opened, and not any more when it is looked at.
#[test]
fn inspect_during_truncation_does_not_fault() {
    for kind in [Kind::Posix, Kind::File] {
        let mut fixture = Fixture::new(kind, "while-looking");
        drop(fixture.ring(2, 1 << 16));
        let mut producer = fixture.producer();
        say_ok(&mut producer, "send 1 0 100 500");
        drop(producer);
        let whole = std::fs::read(fixture.path()).unwrap();
        let path = fixture.path();
        std::thread::scope(|scope| {
            let over = scope.spawn(|| {
                let file = File::options().write(true).open(path).unwrap();
                for round in 0..2000u64 {
                    file.set_len(round * 4096 % whole.len() as u64).unwrap();
                    std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
                }
            });
            while !over.is_finished() {
                let _ = semring::inspect(fixture.parsed());
                let _ = semring::orphans();
            }
        });
        fixture.finish();
    }
}

#[test]
fn a_system_v_segment_has_a_size_for_life() {
    let mut fixture = Fixture::new(Kind::Sysv, "for-life");
    let ring = fixture.ring(1, 4096);
    // There is no call that shrinks it; a request for another size finds the same segment or none.
    let key = sysv_ipc::shm::list().unwrap().into_iter().find(|segment| {
        segment.stat.creator_pid == std::process::id().cast_signed()
            && segment.stat.bytes == 0x4000 + 4096
    });
    let key = key.expect("it is in the list").stat.key;
    assert!(sysv_ipc::shm::Shm::open_or_create(key, 1 << 20, 0o600).is_err());
    ring.attach_producer().unwrap().send(&[7; 1000]).unwrap();
    assert_eq!(
        ring.attach_consumer().unwrap().recv().unwrap().to_vec(),
        [7; 1000]
    );
    drop(ring);
    fixture.finish();
}

/// The kinds that can be truncated.
const TRUNCATABLE: [Kind; 2] = [Kind::Posix, Kind::File];

fn truncate(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// The ring is gone except for its name, which only the user may remove.
#[track_caller]
fn finish_truncated(fixture: Fixture, cleanup: CleanupGuard) {
    std::fs::remove_file(fixture.path()).unwrap();
    fixture.assert_gone(Some(cleanup));
}

#[test]
fn a_stream_ends_on_both_sides_when_its_file_is_truncated() {
    for kind in TRUNCATABLE {
        for share in [0, 1, 2, 3] {
            let mut fixture = Fixture::new(kind, "under-a-stream");
            drop(fixture.ring(1, 1 << 16));
            let cleanup = fixture.cleanup();
            let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
            consumer.say("drain");
            producer.say("send 1 0 1000000000 3000");
            while semring::inspect(fixture.parsed()).unwrap().lanes[0].received_messages < 1000 {}
            truncate(&fixture.path(), len(&fixture.path()) * share / 4);
            let (sent, drained) = (answer(&mut producer), answer(&mut consumer));
            assert!(
                sent.starts_with("error Removed"),
                "{kind:?} {share}: {sent}"
            );
            assert!(
                drained.starts_with("drained") && drained.ends_with("Removed"),
                "{kind:?} {share}: {drained}"
            );
            let removed = |peer: &mut Peer, command| {
                let again = ask(peer, command);
                assert!(again.starts_with("error Removed"), "{command}: {again}");
            };
            removed(&mut producer, "try-send 1 0 1 8");
            removed(&mut producer, "check");
            removed(&mut consumer, "recv");
            removed(&mut consumer, "try-recv");
            removed(&mut consumer, "flush");
            // They leave as they came.
            assert_eq!(producer.finish().0, Exit::Code(0));
            assert_eq!(consumer.finish().0, Exit::Code(0));
            finish_truncated(fixture, cleanup);
        }
    }
}

#[test]
fn producer_that_finds_truncation_wakes_consumer() {
    for kind in TRUNCATABLE {
        let mut fixture = Fixture::new(kind, "asleep");
        drop(fixture.ring(2, 1 << 16));
        let cleanup = fixture.cleanup();
        let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
        consumer.say("recv");
        consumer.wait_until_asleep_on_a_ring();
        truncate(&fixture.path(), 0);
        // Bytes that it writes before it checks are lost.
        let sent = ask(&mut producer, "send 1 0 2 100");
        assert_eq!(sent, "error Removed after 1");
        assert_eq!(answer(&mut consumer), "error Removed");
        drop((producer, consumer));
        finish_truncated(fixture, cleanup);
    }
}

#[test]
fn consumer_that_finds_truncation_wakes_producer() {
    for kind in TRUNCATABLE {
        let mut fixture = Fixture::new(kind, "blocked");
        drop(fixture.ring(1, 1 << 16));
        let cleanup = fixture.cleanup();
        let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
        let filled = ask(&mut producer, "fill 1 0 1000");
        assert!(filled.starts_with("ok "), "{filled}");
        producer.say("send 1 1000 1 1000");
        producer.wait_until_asleep_on_a_ring();
        truncate(&fixture.path(), 4096);
        assert_eq!(ask(&mut consumer, "recv"), "error Removed");
        assert_eq!(answer(&mut producer), "error Removed after 0");
        drop((producer, consumer));
        finish_truncated(fixture, cleanup);
    }
}

#[test]
fn sleepers_on_pipes_are_woken() {
    let fixture = Fixture::new(Kind::Posix, "pipes");
    let builder = fixture.builder().guard(GuardChoice::Pipe);
    drop(builder.producers(2).create().unwrap());
    let (mut consumer, mut producer) = (fixture.consumer(), fixture.producer());
    consumer.say("recv");
    consumer.wait_until_asleep_on_a_ring();
    truncate(&fixture.path(), 0);
    assert_eq!(
        ask(&mut producer, "send 1 0 2 100"),
        "error Removed after 1"
    );
    assert_eq!(answer(&mut consumer), "error Removed");
    drop((producer, consumer));
    std::fs::remove_file(fixture.path()).unwrap();
    fixture.assert_gone(None);
}

/// The descriptor of a file that has a name is not sealed either.
#[test]
fn ring_by_descriptor_is_no_different() {
    let mut fixture = Fixture::new(Kind::Posix, "descriptor");
    let ring = fixture.ring(1, 1 << 16);
    let cleanup = fixture.cleanup();
    let descriptor = ring.inheritable().unwrap();
    let mut producer = fixture.idle_peer();
    let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
    let opened = ask(&mut producer, &format!("open fd:{number}"));
    assert!(opened.starts_with("ok "), "{opened}");
    assert_eq!(ask(&mut producer, "producer"), "ok 0");
    truncate(&fixture.path(), 0);
    assert_eq!(ask(&mut producer, "send 1 0 2 8"), "error Removed after 1");
    drop((producer, ring, descriptor));
    finish_truncated(fixture, cleanup);
}

#[test]
fn every_operation_on_a_truncated_ring_is_removed() {
    for kind in TRUNCATABLE {
        let mut fixture = Fixture::new(kind, "every");
        let ring = fixture.ring(3, 1 << 16);
        let cleanup = fixture.cleanup();
        let moment = Duration::from_millis(1);
        let mut producers: Vec<_> = (0..2).map(|_| ring.attach_producer().unwrap()).collect();
        let mut consumer = ring.attach_consumer().unwrap();
        producers[0].send(b"unread").unwrap();
        truncate(&fixture.path(), 0);
        // The first to touch it. (Unread messages are in the part that is gone.)
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
        for _ in 0..2 {
            assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
            assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Removed);
            assert_eq!(
                consumer.recv_deadline(moment).unwrap_err(),
                RecvError::Removed
            );
            assert_eq!(consumer.recv_batch().unwrap_err(), RecvError::Removed);
            assert_eq!(consumer.flush_released(), Err(RecvError::Removed));
            for producer in &mut producers {
                assert_eq!(producer.send(b"x"), Err(SendError::Removed));
                assert_eq!(producer.try_send(b"x"), Err(SendError::Removed));
                assert_eq!(
                    producer.send_deadline(b"x", moment),
                    Err(SendError::Removed)
                );
                assert_eq!(producer.reserve(1).unwrap_err(), SendError::Removed);
                assert_eq!(producer.batch().push(b"x"), Err(SendError::Removed));
                assert_eq!(producer.check_consumer(), Err(SendError::Removed));
                assert_eq!(producer.accept_next_consumer(), Err(SendError::Removed));
            }
        }
        assert!(matches!(ring.attach_producer(), Err(AttachError::Removed)));
        assert!(matches!(
            ring.info(),
            Err(OpenError::NotARing { what, .. }) if what.contains("truncated")
        ));
        assert!(ring.remove_if_done().is_err());
        assert!(matches!(
            consumer.remove_at_end(),
            Err(RemoveError::Open(_))
        ));
        producers.pop().unwrap().close();
        drop((producers, consumer, ring));
        finish_truncated(fixture, cleanup);
    }
}

/// The result of one call of a role.
type Asked<R> = fn(&mut R) -> String;

fn name<T, E: std::fmt::Debug>(answer: Result<T, E>) -> String {
    answer.map_or_else(|error| format!("{error:?}"), |_| "done".to_owned())
}

/// The lane that the consumer looks at first is there, and nothing is in it; that of the others is not.
#[test]
fn missing_lane_is_not_taken_for_an_empty_one() {
    let calls: [Asked<any::Consumer>; 5] = [
        |consumer| name(consumer.recv()),
        |consumer| name(consumer.try_recv()),
        |consumer| name(consumer.recv_deadline(Duration::from_millis(1))),
        |consumer| name(consumer.recv_batch()),
        |consumer| name(consumer.try_recv_batch()),
    ];
    for call in calls {
        for producers in [true, false] {
            let mut fixture = Fixture::new(Kind::Posix, "lanes");
            let ring = fixture.ring(2, 1 << 16);
            let cleanup = fixture.cleanup();
            let attached = (
                ring.attach_producer().unwrap(),
                ring.attach_producer().unwrap(),
            );
            let attached = producers.then_some(attached);
            let mut consumer = ring.attach_consumer().unwrap();
            truncate(&fixture.path(), len(&fixture.path()) - (1 << 16));
            assert_eq!(
                call(&mut consumer),
                "Removed",
                "with producers: {producers}"
            );
            drop((attached, consumer, ring));
            finish_truncated(fixture, cleanup);
        }
    }
}

/// The room that a consumer made is written in a page that is missing.
#[test]
fn a_producer_does_not_take_missing_words_for_no_room() {
    let calls: [Asked<any::Producer>; 6] = [
        |producer| name(producer.send(&[1; 1000])),
        |producer| name(producer.try_send(&[1; 1000])),
        |producer| name(producer.send_deadline(&[1; 1000], Duration::from_millis(1))),
        |producer| name(producer.reserve(1000)),
        |producer| name(producer.batch().push(&[1; 1000])),
        |producer| name(producer.check_consumer()),
    ];
    for call in calls {
        for consumed in [0, 10] {
            let mut fixture = Fixture::new(Kind::Posix, "room");
            let ring = fixture.ring(1, 1 << 16);
            let cleanup = fixture.cleanup();
            let (mut consumer, mut producer) = (
                ring.attach_consumer().unwrap(),
                ring.attach_producer().unwrap(),
            );
            let mut fill = || while producer.try_send(&[1; 1000]).is_ok() {};
            fill();
            for _ in 0..consumed {
                drop(consumer.recv().unwrap());
            }
            consumer.flush_released().unwrap();
            fill();
            truncate(&fixture.path(), 0);
            assert_eq!(call(&mut producer), "Removed", "{consumed}");
            drop((consumer, producer, ring));
            finish_truncated(fixture, cleanup);
        }
    }
}

/// The handle that attaches is the first to touch the missing pages.
#[test]
fn truncated_ring_refuses_an_attach() {
    for kind in TRUNCATABLE {
        for (len, as_consumer) in [(0, false), (0, true), (4096, false), (4096, true)] {
            let mut fixture = Fixture::new(kind, "attach");
            let ring = fixture.ring(2, 1 << 16);
            let cleanup = fixture.cleanup();
            truncate(&fixture.path(), len);
            let attached = if as_consumer {
                ring.attach_consumer().map(drop)
            } else {
                ring.attach_producer().map(drop)
            };
            assert!(
                matches!(attached, Err(AttachError::Removed)),
                "{kind:?} {len} {as_consumer}: {attached:?}"
            );
            drop(ring);
            if cleanup.exists() {
                // It noticed before it touched the pages, and did not remove the guard.
                cleanup.remove();
            }
            finish_truncated(fixture, cleanup);
        }
    }
}

/// A message was found, and its bytes go before they are read.
#[test]
fn a_message_of_zeros_is_never_given_out_as_good() {
    for kind in TRUNCATABLE {
        let mut fixture = Fixture::new(kind, "held");
        let ring = fixture.ring(1, 1 << 16);
        let cleanup = fixture.cleanup();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(&[7; 10_000]).unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut message = consumer.recv().unwrap();
        let mut bytes = [0; 100];
        message.read_at(0, &mut bytes);
        assert!(message.is_intact() && bytes == [7; 100]);
        // The header's page stays.
        truncate(&fixture.path(), 0x5000);
        message.read_at(0, &mut bytes);
        assert!(message.is_intact() && bytes == [7; 100]);
        let mut tail = b"before".to_vec();
        let torn = message.checked_append_to(&mut tail);
        assert_eq!((torn, &*tail), (Err(RecvError::Removed), &b"before"[..]));
        assert!(!message.is_intact());
        let torn = message.checked_read_at(0, &mut bytes);
        assert_eq!(torn, Err(RecvError::Removed));
        let torn = message.read(&mut bytes).unwrap_err();
        assert_eq!(torn.to_string(), RecvError::Removed.to_string());
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| message.to_vec()));
        assert!(caught.is_err());
        drop(message);
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
        drop((producer, consumer, ring));
        finish_truncated(fixture, cleanup);
    }
}

/// Where the program would get SIGBUS, a system call fails.
#[test]
fn kernel_finds_a_missing_page() {
    for kind in TRUNCATABLE {
        for reserve in [true, false] {
            let mut fixture = Fixture::new(kind, "kernel");
            let ring = fixture.ring(1, 1 << 16);
            let cleanup = fixture.cleanup();
            let mut producer = ring.attach_producer().unwrap();
            producer.send(&[7; 10_000]).unwrap();
            let mut consumer = ring.attach_consumer().unwrap();
            let error = if reserve {
                let mut reservation = producer.reserve(10_000).unwrap();
                truncate(&fixture.path(), 0);
                let zero = File::open("/dev/zero").unwrap();
                reservation.fill_from(zero.as_fd()).unwrap_err()
            } else {
                let message = consumer.recv().unwrap();
                truncate(&fixture.path(), 0);
                let (_reader, writer) = std::io::pipe().unwrap();
                message.write_to(0, writer.as_fd()).unwrap_err()
            };
            let inner = error.get_ref().expect("semring's own error");
            assert!(
                inner.downcast_ref() == Some(&SendError::Removed)
                    || inner.downcast_ref() == Some(&RecvError::Removed),
                "{error:?}"
            );
            assert_eq!(producer.send(b"x"), Err(SendError::Removed));
            assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
            drop((producer, consumer, ring));
            finish_truncated(fixture, cleanup);
        }
    }
}

#[test]
fn any_number_of_mappings_is_caught() {
    let mut fixture = Fixture::new(Kind::Posix, "many");
    let ring = fixture.ring(1, 4096);
    let cleanup = fixture.cleanup();
    let more: Vec<_> = (0..150)
        .map(|_| any::open(fixture.address()).unwrap())
        .collect();
    truncate(&fixture.path(), 0);
    for ring in &more {
        assert!(ring.info().is_err());
    }
    assert!(matches!(ring.attach_consumer(), Err(AttachError::Removed)));
    drop((ring, more));
    finish_truncated(fixture, cleanup);
}

/// A page can be missing for other reasons, and then only the processes that touch it are affected.
#[test]
fn the_others_go_on_in_a_file_that_is_as_long_as_ever() {
    let mut fixture = Fixture::new(Kind::Posix, "again");
    let ring = fixture.ring(1, 1 << 16);
    let whole = len(&fixture.path());
    let mut producer = fixture.producer();
    say_ok(&mut producer, "send 1 0 1 10000");
    let mut consumer = ring.attach_consumer().unwrap();
    let message = consumer.recv().unwrap();
    truncate(&fixture.path(), 0x5000);
    let torn = message.checked_read_at(0, &mut [0; 10_000]);
    assert_eq!(torn, Err(RecvError::Removed));
    truncate(&fixture.path(), whole);
    drop(message);
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
    drop(consumer);
    assert_eq!(ask(&mut producer, "check"), "error ConsumerGone");
    drop((producer, ring));
    fixture.finish();
}

#[test]
fn a_process_keeps_its_own_handler_of_sigbus() {
    let mut fixture = Fixture::new(Kind::Posix, "handler");
    drop(fixture.ring(1, 1 << 16));
    let cleanup = fixture.cleanup();
    let mut peer = fixture.idle_peer();
    say_ok(&mut peer, "handle-sigbus");
    assert_eq!(ask(&mut peer, "fault"), "ok 1");
    let opened = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    assert_eq!(ask(&mut peer, "fault"), "ok 2");
    assert_eq!(ask(&mut peer, "raise-sigbus"), "ok 3");
    truncate(&fixture.path(), 0);
    assert_eq!(ask(&mut peer, "send 1 0 2 8"), "error Removed after 1");
    // That one was not in a mapping of its own.
    assert_eq!(ask(&mut peer, "fault"), "ok 4");
    drop(peer);
    finish_truncated(fixture, cleanup);
}

#[test]
fn a_fault_elsewhere_or_a_sigbus_that_was_sent_kills_as_ever() {
    let mut fixture = Fixture::new(Kind::Posix, "elsewhere");
    drop(fixture.ring(1, 1 << 16));
    for command in ["fault", "raise-sigbus"] {
        let mut peer = fixture.producer();
        peer.say(command);
        if command == "raise-sigbus" {
            // The standard library's handler lets one go by that is no fault.
            peer.say(command);
        }
        assert_eq!(peer.wait(), Exit::Signal(libc::SIGBUS), "{command}");
    }
    // Without the standard library's.
    let mut peer = fixture.idle_peer();
    say_ok(&mut peer, "default-sigbus");
    let opened = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    peer.say("raise-sigbus");
    assert_eq!(peer.wait(), Exit::Signal(libc::SIGBUS));
    fixture.finish();
}

#[test]
fn ignored_sigbus_is_ignored_except_for_faults() {
    let mut fixture = Fixture::new(Kind::Posix, "ignored");
    drop(fixture.ring(1, 1 << 16));
    let cleanup = fixture.cleanup();
    let mut peer = fixture.idle_peer();
    say_ok(&mut peer, "ignore-sigbus");
    let opened = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    assert_eq!(ask(&mut peer, "raise-sigbus"), "ok 0");
    truncate(&fixture.path(), 0);
    assert_eq!(ask(&mut peer, "send 1 0 2 8"), "error Removed after 1");
    peer.say("fault");
    assert_eq!(peer.wait(), Exit::Signal(libc::SIGBUS));
    finish_truncated(fixture, cleanup);
}

#[test]
fn disabled_handler_lets_sigbus_kill() {
    let mut fixture = Fixture::new(Kind::Posix, "no-handler");
    drop(fixture.ring(1, 1 << 16));
    let cleanup = fixture.cleanup();
    let mut peer = fixture.idle_peer();
    assert_eq!(ask(&mut peer, "leave-sigbus"), "ok true");
    let opened = ask(&mut peer, &format!("open {}", fixture.address()));
    assert!(opened.starts_with("ok "), "{opened}");
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    let mut other = fixture.peer();
    assert_eq!(ask(&mut other, "leave-sigbus"), "ok false");
    truncate(&fixture.path(), 0);
    peer.say("send 1 0 2 8");
    assert_eq!(peer.wait(), Exit::Signal(libc::SIGBUS));
    // The other one does not.
    assert_eq!(ask(&mut other, "consumer"), "error Removed");
    drop(other);
    finish_truncated(fixture, cleanup);
}
