//! Calls that wait: for a message, for room, for the time, for an interruption; with each strategy.

use std::thread;
use std::time::{Duration, Instant};

use semring::{RecvError, SendError, WaitStrategy, spsc};
use semring_testkit::cleanup::{MESSAGES, ROOM};

use crate::fixture::{CAPACITY, Fixture, LONG, SOON, while_asleep};
use crate::rings;

const STRATEGIES: [WaitStrategy; 4] = [
    WaitStrategy::Spin,
    WaitStrategy::Yield,
    WaitStrategy::Adaptive,
    WaitStrategy::Block,
];

fn open(address: &str, strategy: WaitStrategy) -> spsc::Ring {
    rings::spsc(address)
        .capacity(CAPACITY)
        .wait(strategy)
        .open_or_create()
        .unwrap()
}

/// Runs a wait that must end with its deadline, while tokens are posted on one of the ring's wake-up
/// semaphores.
fn under_tokens(fixture: &Fixture, wakeup: usize, wait: impl FnOnce(Instant) + Send) {
    let wakeups = fixture.cleanup().wakeups();
    let deadline = Instant::now() + 10 * SOON;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            wait(deadline);
            assert!(Instant::now() >= deadline, "not before its time");
        });
        while !waiting.is_finished() {
            wakeups.post(wakeup);
            thread::yield_now();
        }
        waiting.join().unwrap();
    });
}

over_each_backend! {
    fn a_sleeping_consumer_is_woken_by_a_message_and_by_the_end(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let got = while_asleep(
            || consumer.recv().map(|message| message.to_vec()),
            || producer.send(b"wake up").unwrap(),
        );
        assert_eq!(got.unwrap(), b"wake up");
        let got = while_asleep(|| consumer.recv_deadline(LONG).map(drop), || drop(producer));
        assert!(matches!(got, Err(RecvError::EndOfStream { .. })));
        assert!(consumer.wait_stats().sleeps >= 2);
    }

    fn a_sleeping_producer_is_woken_by_room_and_by_the_end(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        while producer.try_send(&[1; 1000]).is_ok() {}
        let sent = while_asleep(|| producer.send(&[2; 1000]), || {
            // Two: padding takes the rest of the lap.
            consumer.recv().unwrap().release();
            consumer.recv().unwrap().release();
            consumer.flush_released().unwrap();
        });
        assert_eq!(sent, Ok(()));
        let timed = while_asleep(|| producer.send_deadline(&[3; 1000], LONG), || drop(consumer));
        assert_eq!(timed, Err(SendError::ConsumerGone));
        let consumer = ring.attach_consumer().unwrap();
        let closed = while_asleep(|| producer.send(&[4; 1000]), || consumer.close());
        assert_eq!(closed, Err(SendError::Closed));
        assert!(producer.wait_stats().sleeps >= 3);
    }

    fn a_wait_ends_with_its_time_and_nothing_is_lost_by_it(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), SOON] {
            assert_eq!(consumer.recv_deadline(timeout).err(), Some(RecvError::TimedOut));
            producer.send(b"x").unwrap();
            assert_eq!(consumer.recv_deadline(timeout).unwrap().to_vec(), b"x");
        }
        while producer.try_send(&[0; 100]).is_ok() {}
        for timeout in [Duration::ZERO, Duration::from_nanos(1), SOON] {
            assert_eq!(producer.send_deadline(&[0; 100], timeout), Err(SendError::TimedOut));
        }
        // A time beyond the end of time is no limit.
        consumer.recv_deadline(Duration::MAX).unwrap().release();
        consumer.flush_released().unwrap();
        producer.send_deadline(&[0; 10], Duration::MAX).unwrap();
    }

    fn a_time_beyond_the_clock_is_no_limit(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        // The longest, the longest that the kernel's clock has a number for, and one in between.
        let nanoseconds = Duration::from_nanos(i64::MAX as u64);
        for time in [Duration::MAX, Duration::from_secs(i64::MAX as u64), nanoseconds] {
            let received = while_asleep(
                || consumer.recv_deadline(time).map(|message| message.to_vec()),
                || producer.send(b"one").unwrap(),
            );
            assert_eq!(received.unwrap(), b"one");
            let batch = while_asleep(
                || consumer.recv_batch_deadline(time).map(drop),
                || producer.send(b"two").unwrap(),
            );
            batch.unwrap();
            consumer.recv().unwrap().release();
            while producer.try_send(&[0; 1000]).is_ok() {}
            let mut empty = || {
                while consumer.try_recv().is_ok() {}
                consumer.flush_released().unwrap();
            };
            while_asleep(|| producer.send_deadline(&[0; 1000], time), &mut empty).unwrap();
            while producer.try_send(&[0; 1000]).is_ok() {}
            let reserve = || producer.reserve_deadline(1000, time).map(|room| room.commit());
            while_asleep(reserve, &mut empty).unwrap();
            while producer.try_send(&[0; 1000]).is_ok() {}
            let push = || producer.batch().push_deadline(&[0; 1000], time);
            while_asleep(push, &mut empty).unwrap();
            empty();
        }
    }

    fn a_deadline_ends_each_wait_and_not_before(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let waited = |wait: &mut dyn FnMut(Instant) -> bool| {
            let deadline = Instant::now() + SOON;
            assert!(wait(deadline), "it timed out");
            assert!(Instant::now() >= deadline, "and not before its time");
        };
        waited(&mut |end| consumer.recv_deadline(end).err() == Some(RecvError::TimedOut));
        waited(&mut |end| consumer.recv_batch_deadline(end).err() == Some(RecvError::TimedOut));
        while producer.try_send(&[0; 100]).is_ok() {}
        let full = producer.sent_messages();
        waited(&mut |end| producer.send_deadline(&[0; 100], end) == Err(SendError::TimedOut));
        waited(&mut |end| producer.reserve_deadline(100, end).err() == Some(SendError::TimedOut));
        waited(&mut |end| producer.batch().push_deadline(&[0; 100], end) == Err(SendError::TimedOut));
        assert_eq!(producer.batch().push_deadline(&[0; 100], SOON), Err(SendError::TimedOut));
        assert_eq!(producer.sent_messages(), full, "nothing of them was sent");
    }

    fn what_is_there_is_taken_also_after_the_deadline(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let past = Instant::now();
        producer.send_deadline(b"a", past).unwrap();
        producer.reserve_deadline(1, past).unwrap().commit();
        producer.batch().push_deadline(b"c", past).unwrap();
        producer.batch().push_deadline(b"d", Duration::ZERO).unwrap();
        assert_eq!(consumer.recv_deadline(past).unwrap().to_vec(), b"a");
        consumer.recv_deadline(past).unwrap().release();
        let mut batch = consumer.recv_batch_deadline(past).unwrap();
        assert_eq!(batch.next_message().unwrap().to_vec(), b"c");
        assert_eq!(batch.next_message().unwrap().to_vec(), b"d");
        drop(batch);
        // And so is the end.
        drop(producer);
        assert!(matches!(consumer.recv_deadline(past).err(), Some(RecvError::EndOfStream { .. })));
        consumer.resume();
        assert_eq!(consumer.recv_deadline(past).err(), Some(RecvError::TimedOut));
    }

    fn tokens_that_mean_nothing_do_not_end_a_wait(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        // The consumer's wake-up semaphore and that of lane 0, according to docs/layout.md.
        under_tokens(&fixture, MESSAGES, |deadline| {
            assert_eq!(consumer.recv_deadline(deadline).err(), Some(RecvError::TimedOut));
        });
        while producer.try_send(&[0; 100]).is_ok() {}
        under_tokens(&fixture, ROOM, |deadline| {
            assert_eq!(producer.send_deadline(&[0; 100], deadline), Err(SendError::TimedOut));
        });
    }

    fn an_interruption_ends_a_wait_on_each_side(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let interrupter = consumer.interrupter();
        let ended = while_asleep(|| consumer.recv().map(drop), || interrupter.interrupt());
        assert_eq!(ended, Err(RecvError::Interrupted));
        let ended = while_asleep(|| consumer.recv_batch().map(drop), || interrupter.clone().interrupt());
        assert_eq!(ended, Err(RecvError::Interrupted));
        // Once for each interruption: the next wait is a wait.
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        while producer.try_send(&[1; 1000]).is_ok() {}
        let interrupter = producer.interrupter();
        let ended = while_asleep(|| producer.send(&[2; 1000]), || interrupter.interrupt());
        assert_eq!(ended, Err(SendError::Interrupted));
        assert_eq!(producer.send_deadline(&[2; 1000], SOON), Err(SendError::TimedOut));
        // Nothing of the interrupted message was sent.
        let mut received = 0;
        while let Ok(message) = consumer.try_recv() {
            assert_eq!(message.to_vec(), [1; 1000]);
            received += 1;
        }
        assert_eq!(received, producer.sent_messages());
    }

    fn an_interruption_before_a_wait_ends_the_next_one(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let interrupter = consumer.interrupter();
        interrupter.interrupt();
        interrupter.interrupt();
        // A call that need not wait is not disturbed.
        producer.send(b"x").unwrap();
        consumer.recv().unwrap().release();
        assert_eq!(consumer.recv().err(), Some(RecvError::Interrupted));
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        interrupter.interrupt();
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Interrupted));
        let interrupter = producer.interrupter();
        interrupter.interrupt();
        producer.send(b"not disturbed").unwrap();
        let mut sent = 0;
        let ended = loop {
            match producer.send(&[0; 500]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((ended, sent > 0), (SendError::Interrupted, true));
        // An interrupter that outlives its handle does no harm.
        drop((producer, consumer));
        interrupter.interrupt();
    }

    fn a_consumer_and_a_producer_wait_with_every_strategy(fixture) {
        const COUNT: u32 = 2000;
        for producing in STRATEGIES {
            for consuming in STRATEGIES {
                let mut producer = open(&fixture.address, producing).attach_producer().unwrap();
                fixture.guard.objects();
                let mut consumer = open(&fixture.address, consuming).attach_consumer().unwrap();
                thread::scope(|scope| {
                    scope.spawn(move || {
                        for number in 0..COUNT {
                            let len = number as usize % 250;
                            producer.send(&number.to_le_bytes().repeat(len)).unwrap();
                        }
                    });
                    for number in 0..COUNT {
                        let message = consumer.recv().unwrap();
                        assert_eq!(message.to_vec(), number.to_le_bytes().repeat(number as usize % 250));
                    }
                    let end = consumer.recv().err();
                    assert!(matches!(end, Some(RecvError::EndOfStream { .. })), "{producing:?} {consuming:?}");
                });
            }
        }
    }

    fn many_producers_keep_their_order(fixture) {
        const COUNT: u64 = 5000;
        let ring = fixture.mpsc(4);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut received = [0; 4];
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut producer = ring.attach_producer().unwrap();
                scope.spawn(move || {
                    for number in 0..COUNT {
                        producer.send(&number.to_le_bytes().repeat(1 + number as usize % 20)).unwrap();
                    }
                });
            }
            loop {
                match consumer.recv() {
                    Ok(message) => {
                        let next: &mut u64 = &mut received[message.lane()];
                        assert_eq!(message.to_vec(), next.to_le_bytes().repeat(1 + *next as usize % 20));
                        *next += 1;
                    }
                    Err(RecvError::EndOfStream { .. }) => break,
                    Err(other) => panic!("{other}"),
                }
            }
        });
        assert_eq!(received, [COUNT; 4]);
    }
}
