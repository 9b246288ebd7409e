//! What a full lane does to its producer, how long a consumer lingers, counts that start again.

use std::time::Duration;

use semring::{OpenError, RecvError, SendError, WhenFull, mpsc, spsc};

use crate::fixture::{CAPACITY, LONG, MAX, SOON};

fn ring(fixture: &crate::fixture::Fixture, policy: WhenFull) -> spsc::Ring {
    let builder = spsc::Builder::new(&fixture.address)
        .capacity(CAPACITY)
        .when_full(policy);
    let ring = builder.create().unwrap();
    fixture.guard.objects();
    ring
}

over_each_backend! {
    fn each_policy_decides_what_a_full_lane_does(fixture) {
        for policy in [WhenFull::Wait, WhenFull::Fail, WhenFull::Drop] {
            let ring = ring(&fixture, policy);
            assert_eq!(ring.info().unwrap().when_full, policy);
            let mut producer = ring.attach_producer().unwrap();
            // Also before a consumer has come.
            let mut consumer = ring.attach_consumer().unwrap();
            while producer.try_reserve(MAX).map(|room| room.commit()).is_ok() {}
            let full = match policy {
                WhenFull::Drop => Ok(()),
                _ => Err(SendError::Full),
            };
            let late = match policy {
                WhenFull::Wait => Err(SendError::TimedOut),
                _ => full,
            };
            let bytes = [1; MAX];
            let now = std::time::Instant::now();
            assert_eq!(producer.try_send(&bytes), full);
            assert_eq!(producer.send_deadline(&bytes, SOON), late);
            assert_eq!(producer.send_deadline(&bytes, now), late);
            if policy != WhenFull::Wait {
                assert_eq!(producer.send(&bytes), full);
                assert_eq!(producer.reserve(MAX).err(), Some(SendError::Full));
                assert_eq!(producer.reserve_deadline(MAX, LONG).err(), Some(SendError::Full));
                assert_eq!(producer.send_deadline(&bytes, LONG), full);
            }
            assert_eq!(producer.try_reserve(MAX).err(), Some(SendError::Full));
            assert!(matches!(producer.send(&[0; MAX + 1]), Err(SendError::TooLong { .. })));
            let dropped = if policy == WhenFull::Drop { 5 } else { 0 };
            assert_eq!(producer.dropped_messages(), dropped);
            assert_eq!(consumer.dropped_messages(), dropped);
            assert_eq!(ring.info().unwrap().lost_messages(), dropped);
            // There is room again: the policy does not matter.
            consumer.recv().unwrap().release();
            consumer.flush_released().unwrap();
            producer.send(b"fits").unwrap();
            // The successor goes on counting.
            drop(producer);
            let mut producer = ring.attach_producer().unwrap();
            assert_eq!(producer.dropped_messages(), dropped);
            drop(consumer);
            while producer.try_reserve(MAX).map(|room| room.commit()).is_ok() {}
            let gone = ring.attach_consumer().unwrap();
            assert!(producer.check_consumer().is_ok());
            drop(gone);
            assert_eq!(producer.send(&bytes), Err(SendError::ConsumerGone));
            drop(producer);
            ring.remove().unwrap();
        }
    }

    fn full_lane_publishes_batch_before_push_fails(fixture) {
        for policy in [WhenFull::Fail, WhenFull::Drop] {
            let ring = ring(&fixture, policy);
            let mut producer = ring.attach_producer().unwrap();
            let mut consumer = ring.attach_consumer().unwrap();
            let mut batch = producer.batch();
            let mut pushed = 0;
            while batch.try_push(&[2; MAX]).is_ok() && pushed < 3 {
                pushed += 1;
            }
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
            let mut answer = Ok(());
            while answer.is_ok() && consumer.try_recv().is_err() {
                answer = batch.push(&[2; MAX]);
            }
            let full = policy == WhenFull::Fail;
            assert_eq!(answer.err(), full.then_some(SendError::Full));
            batch.commit();
            assert!(full || producer.dropped_messages() > 0);
            drop((producer, consumer));
            ring.remove().unwrap();
        }
    }

    fn a_ring_with_another_policy_is_refused(fixture) {
        let ring = ring(&fixture, WhenFull::Fail);
        let open = |policy| spsc::Builder::new(&fixture.address).when_full(policy).open();
        assert!(open(WhenFull::Fail).is_ok());
        assert!(spsc::Builder::new(&fixture.address).open().is_ok());
        let refused = open(WhenFull::Drop).unwrap_err();
        assert!(matches!(refused, OpenError::Mismatch { .. }), "{refused}");
        ring.remove().unwrap();
    }

    fn the_highest_mark_stays(fixture) {
        let ring = fixture.mpsc(2);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(ring.info().unwrap().high_water_bytes(), 0);
        let mut sent = 0;
        while producer.try_send(&[3; 500]).is_ok() {
            sent += 1;
        }
        let used = ring.info().unwrap().used_bytes();
        assert_eq!(ring.info().unwrap().high_water_bytes(), used, "what is there now");
        for _ in 0..sent {
            consumer.recv().unwrap().release();
        }
        consumer.flush_released().unwrap();
        let info = ring.info().unwrap();
        assert_eq!(info.used_bytes(), 0);
        assert!(info.high_water_bytes() <= used);
        assert!(info.high_water_bytes() > used - CAPACITY / 4, "{info:?}");
        producer.send(b"little").unwrap();
        consumer.recv().unwrap().release();
        consumer.flush_released().unwrap();
        assert_eq!(ring.info().unwrap().high_water_bytes(), info.high_water_bytes());
    }

    fn counts_can_be_set_to_zero(fixture) {
        let ring = fixture.mpsc(2);
        let counts = || {
            let info = ring.info().unwrap();
            (info.finished_producers(), info.died_producers())
        };
        let mut consumer = ring.attach_consumer().unwrap();
        ring.attach_producer().unwrap().abort();
        ring.attach_producer().unwrap().close();
        let stays = ring.attach_producer().unwrap();
        assert_eq!(counts(), (1, 1));
        for _ in 0..2 {
            semring::reset_counts(ring.address()).unwrap();
            assert_eq!(counts(), (0, 0));
        }
        stays.abort();
        ring.attach_producer().unwrap().close();
        assert_eq!(counts(), (1, 1));
        // The consumer's stream has its own.
        assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream { finished: 2, died: 2 }));
        let missing = fixture.address.replace(':', ":no-");
        let error = semring::reset_counts(&missing).unwrap_err();
        assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
    }

    /// The time is never long enough to pass by itself, or long past.
    fn a_consumer_lingers_for_the_next_producer(fixture) {
        let ring = fixture.mpsc(2);
        let lingering = |time| {
            let builder = mpsc::Builder::new(&fixture.address).linger(time);
            builder.open().unwrap().attach_consumer().unwrap()
        };
        let mut consumer = lingering(LONG);
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        for text in [b"one", b"two"] {
            let mut producer = ring.attach_producer().unwrap();
            producer.send(text).unwrap();
            drop(producer);
            assert_eq!(consumer.recv().unwrap().to_vec(), text);
            assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
        }
        // It has delivered nothing: the end is its successor's, after as long a time.
        drop(consumer);
        let mut consumer = lingering(Duration::from_millis(20));
        assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream { finished: 2, died: 0 }));
        consumer.resume();
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        // The time belongs to each end.
        drop(ring.attach_producer().unwrap());
        assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream { finished: 1, died: 0 }));
        consumer.resume();
        drop(ring.attach_producer().unwrap());
        let end = loop {
            match consumer.try_recv().err() {
                Some(RecvError::Empty) => std::thread::yield_now(),
                other => break other,
            }
        };
        assert_eq!(end, Some(RecvError::EndOfStream { finished: 1, died: 0 }));
        assert!(consumer.pollable().is_err());
    }
}
