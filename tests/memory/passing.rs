//! Memory without a name on its way to others: by inheritance, through a socket, through fork.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use crate::fixture::{Fixture, Kind, ask, fresh_path, link_to, say_ok};
use crate::rings;
use semring::{AttachError, Builder, OpenError, RecvError, any};
use semring_testkit::cleanup::CleanupGuard;
use semring_testkit::names::RingGuard;
use semring_testkit::objects::POSIX_DIRECTORY;
use semring_testkit::peer::Exit;
use semring_testkit::watchdog::Watchdog;
use std::time::Duration;

/// Names the socket for the part of [`through_a_socket_to_another_process`] that is another process.
const SOCKET: &str = "SEMRING_TEST_SOCKET";

#[test]
fn through_a_socket_to_another_process() {
    if let Some(path) = std::env::var_os(SOCKET) {
        let socket = UnixStream::connect(path).unwrap();
        let ring = Builder::<semring::Spsc>::memfd()
            .receive_from(&socket)
            .unwrap();
        assert_eq!(ring.address().to_string(), "memfd:orders");
        ring.attach_producer().unwrap().send(b"from afar").unwrap();
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(600), "a socket");
    let path = fresh_path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "passing::through_a_socket_to_another_process"])
        .env(SOCKET, &path)
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    let ring = rings::spsc("memfd:orders").create().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    ring.send_over(&socket).unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"from afar");
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    assert!(child.wait().unwrap().success());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_comes_through_a_socket_is_looked_at() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ring = rings::mpsc("memfd:").create().unwrap();
    ring.send_over(&ours).unwrap();
    let other = rings::spsc("memfd:").receive_from(&theirs).map(drop);
    assert!(
        matches!(other, Err(OpenError::Mismatch { what: "kind", .. })),
        "{other:?}"
    );
    drop(ours);
    let ended = rings::spsc("memfd:").receive_from(&theirs).map(drop);
    assert!(matches!(ended, Err(OpenError::Os { .. })), "{ended:?}");
    let guard = RingGuard::new("no-descriptor");
    let sysv = rings::spsc(guard.sysv()).create().unwrap();
    let refused = sysv.inheritable().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn a_descriptor_of_a_file_is_the_ring_of_that_file() {
    let mut fixture = Fixture::new(Kind::File, "descriptor");
    let ring = fixture.ring(1, 4096);
    let descriptor = ring.inheritable().unwrap();
    let address = format!("fd:{}", descriptor.as_raw_fd());
    let mut peer = fixture.idle_peer();
    assert!(ask(&mut peer, &format!("open {address}")).starts_with("ok "));
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    say_ok(&mut peer, "send 1 0 3 100");
    drop(peer);
    let mut consumer = ring.attach_consumer().unwrap();
    consumer.recv().unwrap().release();
    // A descriptor has no name, so its holder can't remove the name.
    drop(consumer);
    let refused = semring::remove(&address).unwrap_err();
    assert!(refused.to_string().contains("by its name"), "{refused}");
    assert_eq!(ring.info().unwrap().unread_messages(), 2);
    drop((ring, descriptor));
    fixture.finish();
}

#[test]
fn memfd_in_flight_survives_without_openers() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ring = rings::spsc("memfd:").create().unwrap();
    let known = cleanup_behind(&ring.inheritable().unwrap());
    ring.attach_producer().unwrap().send(b"on its way").unwrap();
    ring.send_over(&ours).unwrap();
    drop(ring);
    assert!(!known.exists(), "the last one took the guard away");
    let arrived = rings::spsc("memfd:").receive_from(&theirs).unwrap();
    let mut consumer = arrived.attach_consumer().unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"on its way");
    let descriptor = arrived.inheritable().unwrap();
    let known = cleanup_behind(&descriptor);
    drop((consumer, arrived));
    assert!(!known.exists());
}

/// The guard of the memfd ring of a descriptor.
fn cleanup_behind(descriptor: &OwnedFd) -> CleanupGuard {
    CleanupGuard::of_ring(&link_to(descriptor), Path::new(POSIX_DIRECTORY))
}

#[test]
fn create_only_and_open_only_addresses_are_checked() {
    for address in ["memfd:", "anonymous:"] {
        assert!(matches!(
            any::open(address),
            Err(OpenError::NotFound { .. })
        ));
        rings::any(address).open_or_create().unwrap();
    }
    let refused = rings::any("fd:0").create().unwrap_err();
    assert!(refused.to_string().contains("can be opened"), "{refused}");
    assert!(matches!(
        any::open("fd:1000000"),
        Err(OpenError::NotFound { .. })
    ));
}

/// Runs a part in a forked child; the child uses the handles that the part does, and ends at once.
fn in_a_child(part: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child allocates (which glibc makes safe), uses handles that no other thread has, and
    // ends without running anything of the parent's.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part)).is_ok();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    pid
}

fn ended(pid: libc::pid_t) -> Exit {
    let mut status = 0;
    // SAFETY: waits for our own child; status is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

#[test]
fn forked_children_attach_through_inherited_ring() {
    let _watchdog = Watchdog::new(Duration::from_secs(600), "anonymous");
    for ring in [
        rings::mpsc("anonymous:").producers(4).create().unwrap(),
        rings::mpsc("memfd:").producers(4).create().unwrap(),
    ] {
        let mut consumer = ring.attach_consumer().unwrap();
        let mut parents = ring.attach_producer().unwrap();
        let children: Vec<_> = (1..4u8)
            .map(|number| {
                in_a_child(|| {
                    // The parent's roles stay the parent's.
                    assert!(parents.send(b"no").is_err());
                    assert!(consumer.try_recv().is_err());
                    let mut producer = ring.attach_producer().unwrap();
                    assert!(matches!(
                        ring.attach_consumer().map(drop),
                        Err(AttachError::ConsumerPresent { .. })
                    ));
                    for _ in 0..100 {
                        producer.send(&[number; 50]).unwrap();
                    }
                })
            })
            .collect();
        parents.send(&[0; 50]).unwrap();
        drop(parents);
        let mut counts = [0; 4];
        loop {
            let received = consumer.recv().map(|message| message.to_vec()[0]);
            match received {
                Ok(number) => counts[usize::from(number)] += 1,
                Err(RecvError::EndOfStream { .. }) if counts.iter().sum::<usize>() == 301 => break,
                // Some child may not have attached yet.
                Err(RecvError::EndOfStream { .. }) => consumer.resume(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(counts, [1, 100, 100, 100]);
        for child in children {
            assert_eq!(ended(child), Exit::Code(0));
        }
        assert_eq!(ring.info().unwrap().unread_messages(), 0);
        drop(consumer);
        ring.remove().unwrap();
    }
}

#[test]
fn a_killed_child_is_an_end_of_stream_and_a_broken_pipe() {
    let _watchdog = Watchdog::new(Duration::from_secs(600), "anonymous, killed");
    let kill = || {
        let this = nix::unistd::Pid::this();
        nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let ring = rings::spsc("anonymous:").capacity(4096).create().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let child = in_a_child(|| {
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"last words").unwrap();
        std::mem::forget(producer);
        kill();
    });
    assert_eq!(consumer.recv().unwrap().to_vec(), b"last words");
    assert!(matches!(
        consumer.recv().unwrap_err(),
        RecvError::EndOfStream { .. }
    ));
    assert_eq!(ended(child), Exit::Signal(libc::SIGKILL));
    drop(consumer);

    let mut producer = ring.attach_producer().unwrap();
    let child = in_a_child(|| {
        let mut consumer = ring.attach_consumer().unwrap();
        consumer.recv().unwrap().release();
        std::mem::forget(consumer);
        kill();
    });
    let gone = loop {
        if let Err(error) = producer.send(&[0; 1000]) {
            break error;
        }
    };
    assert_eq!(gone, semring::SendError::ConsumerGone);
    assert_eq!(ended(child), Exit::Signal(libc::SIGKILL));
}

#[test]
fn a_named_ring_is_not_inherited() {
    let guard = RingGuard::new("not-inherited");
    let ring = rings::spsc(guard.posix()).create().unwrap();
    let child = in_a_child(|| {
        assert_eq!(ring.attach_producer().map(drop), Err(AttachError::Forked));
    });
    assert_eq!(ended(child), Exit::Code(0));
}
