//! The state after a panic, and the use of a ring by a destructor while the thread unwinds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use semring::{RecvError, SendError, spsc};

use crate::fixture::SOON;

/// Runs an action when it is dropped.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs an action in a destructor, while a panic unwinds the thread.
fn while_unwinding(action: impl FnMut()) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _at_drop = AtDrop(action);
        panic!("this panic belongs to the test");
    }));
    assert!(panicked.is_err());
}

/// Panics while a handle is held.
fn panic_with<T>(handle: T) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = handle;
        panic!("this panic belongs to the test");
    }));
    assert!(panicked.is_err());
}

/// Three messages, and no producer that sends more.
fn send_three(ring: &spsc::Ring) {
    let mut producer = ring.attach_producer().unwrap();
    for number in 0..3u8 {
        producer.send(&[number]).unwrap();
    }
    producer.close();
}

/// How many producers finished, and how many died.
fn ended(ring: &spsc::Ring) -> (u64, u64) {
    let info = ring.info().unwrap();
    (info.finished_producers(), info.died_producers())
}

over_each_backend! {
    fn a_message_held_by_a_panic_comes_again(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 0..3u8 {
            producer.send(&[number]).unwrap();
        }
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let message = consumer.recv().unwrap();
            assert_eq!(message.to_vec(), [9], "this panic belongs to the test");
        }));
        assert!(panicked.is_err());
        assert_eq!(consumer.recv().unwrap().to_vec(), [0]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut batch = consumer.recv_batch().unwrap();
            while batch.next_message().is_some() {}
            panic!("this panic belongs to the test");
        }));
        assert!(panicked.is_err());
        assert_eq!(consumer.recv().unwrap().to_vec(), [1]);
        assert_eq!(consumer.recv().unwrap().to_vec(), [2]);
    }

    fn a_destructor_drains_a_ring_by_release(fixture) {
        let ring = fixture.spsc();
        send_three(&ring);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut received = Vec::new();
        while_unwinding(|| {
            while let Ok(message) = consumer.try_recv() {
                received.push(message.to_vec()[0]);
                message.release();
                if received.len() > 3 {
                    break; // it came again
                }
            }
        });
        drop(consumer);
        assert_eq!(received, [0, 1, 2]);
        assert_eq!(ring.info().unwrap().unread_messages(), 0);
    }

    fn a_destructor_drains_a_ring_by_drop(fixture) {
        let ring = fixture.spsc();
        send_three(&ring);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut received = Vec::new();
        let mut end = None;
        while_unwinding(|| {
            while end.is_none() {
                match consumer.recv() {
                    Ok(message) => received.push(message.to_vec()[0]),
                    Err(error) => end = Some(error),
                }
                if received.len() > 3 {
                    break; // it came again
                }
            }
        });
        drop(consumer);
        assert_eq!(received, [0, 1, 2]);
        assert!(matches!(end, Some(RecvError::EndOfStream { .. })));
        assert_eq!(ring.info().unwrap().unread_messages(), 0);
    }

    fn a_destructor_drains_a_ring_in_batches(fixture) {
        for by_release in [true, false] {
            let ring = fixture.spsc();
            send_three(&ring);
            let mut consumer = ring.attach_consumer().unwrap();
            let mut received = Vec::new();
            while_unwinding(|| {
                while let Ok(mut batch) = consumer.try_recv_batch() {
                    while let Some(message) = batch.next_message() {
                        received.push(message.to_vec()[0]);
                    }
                    if by_release {
                        batch.release();
                    }
                    if received.len() > 3 {
                    break; // it came again
                }
                }
            });
            drop(consumer);
            assert_eq!(received, [0, 1, 2]);
            assert_eq!(ring.info().unwrap().unread_messages(), 0);
            ring.remove().unwrap();
        }
    }

    fn release_counts_for_what_was_received_before_the_panic(fixture) {
        let ring = fixture.spsc();
        send_three(&ring);
        let mut consumer = ring.attach_consumer().unwrap();
        {
            let mut message = Some(consumer.recv().unwrap());
            while_unwinding(|| message.take().unwrap().release());
        }
        {
            let mut batch = consumer.recv_batch().unwrap();
            assert_eq!(batch.next_message().unwrap().to_vec(), [1]);
            let mut batch = Some(batch);
            while_unwinding(|| batch.take().unwrap().release());
        }
        assert_eq!(consumer.recv().unwrap().to_vec(), [2]);
    }

    fn a_panic_in_a_destructor_brings_the_message_again(fixture) {
        let ring = fixture.spsc();
        send_three(&ring);
        let mut consumer = ring.attach_consumer().unwrap();
        let taken = catch_unwind(AssertUnwindSafe(|| drop(AtDrop(|| {
            let message = consumer.recv().unwrap();
            assert_eq!(message.to_vec(), [9], "this panic belongs to the test");
        }))));
        assert!(taken.is_err());
        assert_eq!(consumer.recv().unwrap().to_vec(), [0]);
    }

    fn a_producer_dropped_by_a_panic_died(fixture) {
        let ring = fixture.spsc();
        panic_with(ring.attach_producer().unwrap());
        assert_eq!(ended(&ring), (0, 1));
        // Its stream ends all the same.
        assert!(matches!(ring.attach_consumer().unwrap().recv().err(), Some(RecvError::EndOfStream { .. })));
    }

    fn a_batch_dropped_by_a_panic_is_committed(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut batch = producer.batch();
        batch.push(b"a").unwrap();
        batch.push(b"b").unwrap();
        panic_with(batch);
        assert_eq!(ring.info().unwrap().unread_messages(), 2);
    }

    fn a_producer_closed_while_unwinding_finished(fixture) {
        let ring = fixture.spsc();
        let mut older = Some(ring.attach_producer().unwrap());
        while_unwinding(|| {
            let mut producer = older.take().unwrap();
            producer.send(b"the last").unwrap();
            producer.close();
        });
        assert_eq!(ended(&ring), (1, 0));
        assert_eq!(ring.info().unwrap().unread_messages(), 1);
    }

    fn a_producer_made_while_unwinding_finishes(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        for (close, finished) in [(true, 1), (false, 2)] {
            while_unwinding(|| {
                let mut producer = ring.attach_producer().unwrap();
                producer.send(b"last words").unwrap();
                if close {
                    producer.close();
                }
            });
            assert_eq!(consumer.recv().unwrap().to_vec(), b"last words");
            assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
            consumer.resume();
            assert_eq!(ended(&ring), (finished, 0));
        }
    }

    fn a_reservation_can_be_committed_while_unwinding(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        while_unwinding(|| {
            let mut reservation = producer.reserve(3).unwrap();
            reservation.write_at(0, b"abc");
            reservation.commit();
            let mut batch = producer.batch();
            batch.push(b"d").unwrap();
            batch.commit();
        });
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"abc");
        assert_eq!(consumer.recv().unwrap().to_vec(), b"d");
    }

    fn a_consumer_closed_while_unwinding_closed(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = Some(ring.attach_consumer().unwrap());
        while_unwinding(|| consumer.take().unwrap().close());
        assert_eq!(producer.check_consumer(), Err(SendError::Closed));
        producer.accept_next_consumer().unwrap();
        panic_with(ring.attach_consumer().unwrap());
        assert_eq!(producer.check_consumer(), Err(SendError::ConsumerGone));
    }

    fn an_end_of_stream_that_a_panic_cut_off_comes_again(fixture) {
        let ring = fixture.spsc();
        drop(ring.attach_producer().unwrap());
        let mut consumer = ring.attach_consumer().unwrap();
        assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
        panic_with(consumer);
        let mut successor = Some(ring.attach_consumer().unwrap());
        assert!(matches!(successor.as_mut().unwrap().recv().err(), Some(RecvError::EndOfStream { .. })));
        drop(successor.take());
        // Received and dropped in one destructor, it was acted on.
        drop(ring.attach_producer().unwrap());
        while_unwinding(|| {
            let mut consumer = ring.attach_consumer().unwrap();
            assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
        });
        let mut successor = ring.attach_consumer().unwrap();
        assert_eq!(successor.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
    }
}
