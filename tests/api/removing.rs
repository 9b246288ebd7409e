//! Removing a ring: when it is done, when it is idle, by force; and what its users then see.

use semring::{AttachError, OpenError, RecvError, RemoveError, RingState, SendError, any};

use nix::fcntl::{FcntlArg, fcntl};
use semring_testkit::cleanup::CleanupGuard;
use std::fs::File;
use sysv_ipc::sem::{Op, SemSet};

use crate::fixture::{LONG, SOON, while_asleep};

/// The semaphore that counts producers.
const PRODUCERS: u16 = 1;

/// A process that holds a producer's role slot, and has not become a producer.
enum Visitor {
    Set(SemSet),
    /// It has the life of lane 0 open and locked.
    Pipes(#[expect(dead_code, reason = "held until it goes")] File),
}

impl Visitor {
    fn come(cleanup: &CleanupGuard) -> Self {
        match cleanup {
            CleanupGuard::Semaphores(set) => {
                set.op(&[Op::new(PRODUCERS, 1)]).unwrap();
                Self::Set(*set)
            }
            CleanupGuard::Pipes(path) => {
                let life = path.join("producer.0");
                let life = File::options().read(true).write(true).open(life).unwrap();
                let lock = libc::flock {
                    l_type: libc::F_WRLCK as libc::c_short,
                    l_whence: libc::SEEK_SET as libc::c_short,
                    l_start: 0,
                    l_len: 1,
                    l_pid: 0,
                };
                fcntl(&life, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
                Self::Pipes(life)
            }
        }
    }

    fn go(self) {
        if let Self::Set(set) = self {
            set.op(&[Op::new(PRODUCERS, -1)]).unwrap();
        }
    }
}

over_each_backend! {
    fn removed_ring_leaves_nothing(fixture) {
        let ring = fixture.spsc();
        assert_eq!(fixture.guard.objects().len(), 2);
        ring.remove().unwrap();
        fixture.guard.assert_clean();
        let open = any::open(&fixture.address).map(drop);
        assert!(matches!(open, Err(OpenError::NotFound { .. })));
        // The open handle returns that; a second removal has nothing to do.
        assert_eq!(ring.attach_producer().map(drop), Err(AttachError::Removed));
        assert_eq!(ring.attach_consumer().map(drop), Err(AttachError::Removed));
        ring.remove().unwrap();
        // And the name is free.
        fixture.spsc();
    }

    fn a_ring_in_use_is_kept_and_its_users_named(fixture) {
        let ring = fixture.mpsc(2);
        let producer = ring.attach_producer().unwrap();
        let consumer = ring.attach_consumer().unwrap();
        let pid = std::process::id();
        let address = fixture.address.parse::<semring::Address>().unwrap();
        for refused in [ring.remove(), semring::remove(&address)] {
            let error = refused.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&fixture.address) && text.contains(&format!("consumer (pid {pid})")), "{text}");
            assert!(text.contains(&format!("producers (pid {pid})")) && text.contains("by force"), "{text}");
            assert!(matches!(error, RemoveError::InUse { .. }));
        }
        assert!(!ring.remove_if_done().unwrap().is_removed());
        drop(consumer);
        let text = ring.remove().unwrap_err().to_string();
        assert!(!text.contains("consumer") && text.contains("producers"), "{text}");
        drop(producer);
        let consumer = ring.attach_consumer().unwrap();
        let text = ring.remove().unwrap_err().to_string();
        assert!(text.contains("consumer") && !text.contains("producers"), "{text}");
        assert!(!ring.remove_if_done().unwrap().is_removed());
        drop(consumer);
        ring.remove().unwrap();
    }

    fn force_ends_all_users(fixture) {
        let ring = fixture.mpsc(2);
        let mut sleeping = ring.attach_producer().unwrap();
        let mut awake = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let address: semring::Address = fixture.address.parse().unwrap();
        while sleeping.try_send(&[0; 1000]).is_ok() {}
        let ended = while_asleep(
            || sleeping.send(&[0; 1000]),
            || drop(semring::force_remove(&address).unwrap()),
        );
        assert_eq!(ended, Err(SendError::Removed));
        for _ in 0..2 {
            assert_eq!(awake.check_consumer(), Err(SendError::Removed));
            let refused = (0..20).find_map(|_| awake.try_send(&[0; 1000]).err());
            assert_eq!(refused, Some(SendError::Removed));
        }
        // Published messages are still received; then each call returns the error.
        while consumer.recv().is_ok() {}
        assert_eq!(consumer.recv().err(), Some(RecvError::Removed));
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Removed));
        assert_eq!(consumer.recv_deadline(LONG).err(), Some(RecvError::Removed));
        fixture.guard.assert_clean();
    }

    fn sleeping_consumer_wakes_when_ring_is_removed(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        let address: semring::Address = fixture.address.parse().unwrap();
        let ended = while_asleep(
            || consumer.recv().map(drop),
            || drop(semring::force_remove(&address).unwrap()),
        );
        assert_eq!(ended, Err(RecvError::Removed));
    }

    fn the_consumer_removes_the_ring_at_the_end_of_its_stream(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        producer.send(b"late").unwrap();
        assert!(!consumer.remove_at_end().unwrap().is_removed(), "a producer is there");
        drop(producer);
        assert!(!consumer.remove_at_end().unwrap().is_removed(), "something is unread");
        assert_eq!(consumer.recv().unwrap().to_vec(), b"late");
        assert!(consumer.remove_at_end().unwrap().is_removed());
        fixture.guard.assert_clean();
        assert_eq!(consumer.recv().err(), Some(RecvError::Removed));
        assert!(consumer.remove_at_end().unwrap().is_removed(), "it is gone already");
    }

    /// A process killed between taking its role slot and the store of its generation: it counts as
    /// attached while it lives, and not at all afterwards.
    fn an_end_that_could_not_be_acted_on_is_due_again(fixture) {
        let ring = fixture.spsc();
        drop(ring.attach_producer().unwrap());
        let mut consumer = ring.attach_consumer().unwrap();
        assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
        let visitor = Visitor::come(&fixture.cleanup());
        assert!(!consumer.remove_at_end().unwrap().is_removed());
        visitor.go();
        assert!(matches!(consumer.recv_deadline(SOON).err(), Some(RecvError::EndOfStream { .. })));
        assert!(consumer.remove_at_end().unwrap().is_removed());
    }

    fn a_ring_is_done_when_nothing_is_lost_by_its_removal(fixture) {
        let ring = fixture.spsc();
        ring.attach_producer().unwrap().send(b"unread").unwrap();
        assert!(!ring.remove_if_done().unwrap().is_removed());
        // Read and done.
        ring.attach_consumer().unwrap().recv().unwrap().release();
        assert!(ring.remove_if_done().unwrap().is_removed());
        fixture.guard.assert_clean();
        // Unread, but the consumer left on purpose.
        let ring = fixture.spsc();
        ring.attach_producer().unwrap().send(b"unread").unwrap();
        ring.attach_consumer().unwrap().close();
        assert!(ring.remove_if_done().unwrap().is_removed());
        fixture.guard.assert_clean();
    }

    fn ring_without_guard_is_described_and_removed(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        fixture.cleanup().remove();
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::Removed));
        drop(consumer);
        let error = any::open(&fixture.address).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::GuardMissing { .. }));
        let text = error.to_string();
        assert!(text.contains("semaphores") || text.contains("pipes"), "{text}");
        assert!(text.contains("by force"), "{text}");
        let address = fixture.address.parse::<semring::Address>().unwrap();
        let info = semring::inspect(&address).unwrap();
        assert_eq!((info.state, info.state.to_string().as_str()), (RingState::GuardMissing, "guard_missing"));
        assert!(semring::list().iter().any(|listed| listed.uuid == info.uuid));
        assert!(semring::remove(&address).is_err());
        semring::force_remove(&address).unwrap();
        fixture.guard.assert_clean();
    }
}
