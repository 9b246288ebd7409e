//! Settings on either side, in any order, while no producer has used the ring.

use semring::{
    AttachError, GuardChoice, OpenError, OpenOrCreateError, RecvError, UnusedRing, WhenFull, mpsc,
};

use crate::fixture::{CAPACITY, Fixture, SOON};

fn builder(fixture: &Fixture) -> mpsc::Builder {
    mpsc::Builder::new(&fixture.address)
        .auto_remove(true)
        .unused_ring(UnusedRing::Replace)
}

fn opened(fixture: &Fixture, builder: &mpsc::Builder) -> mpsc::Ring {
    let ring = builder.open_or_create().unwrap();
    fixture.guard.objects();
    ring
}

fn is_mismatch(result: Result<mpsc::Ring, OpenOrCreateError>) -> bool {
    matches!(
        result,
        Err(OpenOrCreateError::Open(OpenError::Mismatch { .. }))
    )
}

over_each_backend! {
    fn newcomer_replaces_an_unused_ring(fixture) {
        for guard in [GuardChoice::Semaphore, GuardChoice::Pipe] {
            let first = opened(&fixture, &builder(&fixture).capacity(CAPACITY).guard(guard).mode(0o640));
            let mut consumer = first.attach_consumer().unwrap();
            assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
            let asleep = std::thread::spawn(move || (consumer.recv().err(), consumer));
            let second = opened(&fixture, &builder(&fixture).capacity(4 * CAPACITY).producers(3));
            let (error, mut consumer) = asleep.join().unwrap();
            assert_eq!(error, Some(RecvError::Replaced));
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Replaced), "it stays so");
            assert!(consumer.remove_at_end().is_ok());
            drop(consumer);
            // What was not named stays as it was.
            let info = second.info().unwrap();
            assert_eq!((second.capacity_bytes(), second.lanes()), (4 * CAPACITY, 3));
            assert_eq!((info.mode, Some(info.guard)), (0o640, guard_kind(guard)));
            // The old ring is of no use to processes that have it open.
            assert_eq!(first.attach_producer().err(), Some(AttachError::Replaced));
            assert_eq!(first.attach_consumer().err(), Some(AttachError::Replaced));
            // The consumer comes again with what it had named: there is enough.
            let again = opened(&fixture, &builder(&fixture).capacity(CAPACITY).guard(guard));
            assert_eq!(again.info().unwrap().uuid, info.uuid);
            let mut consumer = again.attach_consumer().unwrap();
            let mut producer = second.attach_producer().unwrap();
            producer.send(b"arrives").unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), b"arrives");
            drop((producer, consumer));
            second.remove().unwrap();
        }
    }

    fn a_ring_that_was_used_is_left(fixture) {
        let ring = opened(&fixture, &builder(&fixture).capacity(CAPACITY).producers(2));
        let producer = ring.attach_producer().unwrap();
        for gone in [false, true] {
            assert!(is_mismatch(builder(&fixture).capacity(2 * CAPACITY).open_or_create()));
            assert!(is_mismatch(builder(&fixture).producers(3).open_or_create()));
            assert!(is_mismatch(builder(&fixture).mode(0o666).open_or_create()));
            assert!(is_mismatch(builder(&fixture).when_full(WhenFull::Drop).open_or_create()));
            // As much as requested, or more.
            for enough in [builder(&fixture).capacity(1), builder(&fixture).producers(1)] {
                assert_eq!(opened(&fixture, &enough).info().unwrap().uuid, ring.info().unwrap().uuid);
            }
            if gone {
                break;
            }
        }
        drop(producer);
        assert!(is_mismatch(builder(&fixture).producers(3).open_or_create()));
        ring.remove().unwrap();
    }

    fn only_auto_removed_rings_are_replaced(fixture) {
        let kept = mpsc::Builder::new(&fixture.address).capacity(CAPACITY).create().unwrap();
        fixture.guard.objects();
        assert!(is_mismatch(builder(&fixture).capacity(2 * CAPACITY).open_or_create()));
        kept.remove().unwrap();
        let ring = opened(&fixture, &builder(&fixture).capacity(CAPACITY));
        let keeps = mpsc::Builder::new(&fixture.address).auto_remove(true).capacity(2 * CAPACITY);
        assert!(is_mismatch(keeps.open_or_create()));
        let idle = builder(&fixture).capacity(2 * CAPACITY).unused_ring(UnusedRing::ReplaceIdle);
        let consumer = ring.attach_consumer().unwrap();
        assert!(is_mismatch(idle.open_or_create()), "a consumer waits in it");
        drop(consumer);
        let second = opened(&fixture, &idle);
        assert_eq!(second.capacity_bytes(), 2 * CAPACITY);
        second.remove().unwrap();
    }

    /// A forced removal is final.
    fn a_forced_removal_is_no_replacement(fixture) {
        let ring = opened(&fixture, &builder(&fixture));
        let mut consumer = ring.attach_consumer().unwrap();
        semring::force_remove(&fixture.address).unwrap();
        assert_eq!(consumer.recv().err(), Some(RecvError::Removed));
        assert_eq!(ring.attach_producer().err(), Some(AttachError::Removed));
    }

    fn newcomers_at_once_come_together(fixture) {
        let address = fixture.address.clone();
        let _early = opened(&fixture, &builder(&fixture).capacity(CAPACITY).producers(1));
        let newcomers: Vec<_> = (2..6)
            .map(|lanes| {
                let builder = mpsc::Builder::new(&address)
                    .auto_remove(true)
                    .unused_ring(UnusedRing::Replace)
                    .producers(lanes);
                std::thread::spawn(move || loop {
                    match builder.open_or_create() {
                        Ok(ring) => match ring.attach_producer() {
                            Ok(mut producer) => {
                                producer.send(b"one").unwrap();
                                return true;
                            }
                            Err(AttachError::Replaced | AttachError::Removed) => {}
                            Err(error) => panic!("{error}"),
                        },
                        Err(OpenOrCreateError::Open(OpenError::Mismatch { .. })) => return false,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let came: Vec<bool> = newcomers.into_iter().map(|one| one.join().unwrap()).collect();
        fixture.guard.objects();
        let ring = mpsc::Builder::new(&fixture.address).open().unwrap();
        let sent = came.iter().filter(|&&came| came).count();
        assert!(sent > 0);
        assert_eq!(ring.info().unwrap().unread_messages(), sent as u64);
    }
}

fn guard_kind(choice: GuardChoice) -> Option<semring::GuardKind> {
    match choice {
        GuardChoice::Semaphore => Some(semring::GuardKind::Semaphore),
        GuardChoice::Pipe => Some(semring::GuardKind::Pipe),
        _ => None,
    }
}
