//! The consumer's side: receive, batches, putting back, the end of the stream.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use semring::{AttachError, Position, RecvError, SendError};

use crate::fixture::{LONG, SOON};

over_each_backend! {
    fn each_form_of_receive_gives_the_next_message(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        assert_eq!(consumer.try_recv_batch().err(), Some(RecvError::Empty));
        assert_eq!(consumer.recv_batch_deadline(SOON).err(), Some(RecvError::TimedOut));
        for number in 0..6u8 {
            producer.send(&[number]).unwrap();
        }
        assert_eq!(consumer.recv().unwrap().to_vec(), [0]);
        assert_eq!(consumer.try_recv().unwrap().to_vec(), [1]);
        assert_eq!(consumer.recv_deadline(SOON).unwrap().to_vec(), [2]);
        assert_eq!(consumer.recv_batch().unwrap().next_message().unwrap().to_vec(), [3]);
        assert_eq!(consumer.try_recv_batch().unwrap().next_message().unwrap().to_vec(), [4]);
        let mut batch = consumer.recv_batch_deadline(SOON).unwrap();
        assert_eq!(batch.next_message().unwrap().to_vec(), [5]);
        assert!(batch.next_message().is_none());
        assert_eq!(batch.messages(), 1);
        batch.release();
        assert_eq!(consumer.received_messages(), 6);
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
    }

    fn a_batch_over_lanes_releases_each_lane_that_it_left(fixture) {
        let ring = fixture.mpsc(4);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut producers: Vec<_> = (0..4).map(|_| ring.attach_producer().unwrap()).collect();
        let used = || {
            let info = ring.info().unwrap();
            info.lanes.iter().map(|lane| lane.used_bytes).collect::<Vec<_>>()
        };
        for producer in &mut producers[1..] {
            producer.send(b"a few").unwrap();
            producer.send(b"bytes").unwrap();
        }
        assert_eq!(used(), [0, 32, 32, 32]);
        let mut batch = consumer.recv_batch().unwrap();
        let lanes: Vec<_> = std::iter::from_fn(|| Some(batch.next_message()?.lane())).collect();
        assert_eq!(lanes, [1, 1, 2, 2, 3, 3]);
        assert_eq!(used(), [0, 32, 32, 32], "nothing before the batch ends");
        batch.release();
        assert_eq!(used(), [0, 0, 0, 32], "the merge is still on the last one");
        producers[0].send(b"elsewhere").unwrap();
        consumer.recv().unwrap().release();
        assert_eq!(used(), [24, 0, 0, 0]);
    }

    fn message_has_the_generation_of_its_sender(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut first = ring.attach_producer().unwrap();
        first.send(b"a").unwrap();
        first.send(b"b").unwrap();
        assert_eq!(consumer.recv().unwrap().generation(), Some(1));
        drop(first);
        let message = consumer.recv().unwrap();
        assert_eq!(message.generation(), Some(1), "it was the last holder so far");
        let mut second = ring.attach_producer().unwrap();
        assert_eq!(message.generation(), None);
        drop(message);
        second.send(b"c").unwrap();
        assert_eq!(consumer.recv().unwrap().generation(), Some(2));
    }

    fn a_message_can_be_read_in_every_way(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        producer.send(b"some text").unwrap();
        let mut message = consumer.recv().unwrap();
        assert_eq!((message.len(), message.lane(), message.position()), (9, 0, Position::new(0)));
        assert!(!message.is_empty());
        let mut part = [0; 4];
        message.read_at(5, &mut part);
        assert_eq!(&part, b"text");
        let mut buffer = [0; 20];
        assert_eq!(message.copy_to(&mut buffer), 9);
        assert_eq!(&buffer[..10], b"some text\0");
        let view = message.as_message_ref();
        let mut bytes = b"> ".to_vec();
        view.append_to(&mut bytes);
        assert_eq!(bytes, b"> some text");
        assert_eq!((view.to_vec(), view.len(), view.tag()), (b"some text".to_vec(), 9, message.tag()));
        let mut two = [0; 2];
        assert_eq!(message.read(&mut two).unwrap(), 2);
        let mut rest = String::new();
        message.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "me text");
        assert_eq!(message.read(&mut two).unwrap(), 0);
        // Reading beyond the end is the caller's mistake.
        let view = message.as_message_ref();
        assert!(catch_unwind(AssertUnwindSafe(|| view.read_at(8, &mut [0; 2]))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| view.read_at(usize::MAX, &mut [0; 2]))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| view.copy_to(&mut [0; 8]))).is_err());
    }

    fn what_is_put_back_comes_again_with_its_position(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 0..4u8 {
            producer.send(&[number; 30]).unwrap();
        }
        for _ in 0..3 {
            let message = consumer.recv().unwrap();
            assert_eq!((message.position(), message.to_vec()), (Position::new(0), vec![0; 30]));
            message.put_back();
        }
        consumer.recv().unwrap().release();
        let mut batch = consumer.recv_batch().unwrap();
        let first: Vec<_> = std::iter::from_fn(|| Some(batch.next_message()?.position())).collect();
        assert_eq!(first.len(), 3);
        batch.put_back();
        let again: Vec<_> = (0..3).map(|_| consumer.recv().unwrap().position()).collect();
        assert_eq!(first, again);
        assert_eq!(consumer.received_messages(), 4);
    }

    fn a_batch_releases_a_part_and_puts_the_rest_back(fixture) {
        let ring = fixture.mpsc(3);
        let mut producers = [ring.attach_producer().unwrap(), ring.attach_producer().unwrap()];
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 0..4u8 {
            for producer in &mut producers {
                producer.send(&[number; 30]).unwrap();
            }
        }
        let mut batch = consumer.recv_batch().unwrap();
        let mut taken = Vec::new();
        while let Some(message) = batch.next_message() {
            taken.push((message.lane(), message.position(), message.to_vec()));
        }
        assert_eq!(taken.len(), 8);
        // Of the first lane three messages are kept, of the second one none.
        let [first, second] = [taken[0].0, taken[7].0];
        let of = |lane| taken.iter().filter(move |(of, ..)| *of == lane);
        batch.put_back_from(first, of(first).nth(3).unwrap().1);
        batch.put_back_from(second, of(second).next().unwrap().1);
        // Neither a position that no message has nor a lane that was not visited changes anything.
        batch.put_back_from(first, Position::new(1 << 40));
        batch.put_back_from(2, Position::new(0));
        batch.put_back_from(99, Position::new(0));
        assert_eq!(batch.messages(), 3);
        batch.release();
        assert_eq!(consumer.received_messages(), 3);
        let mut again = Vec::new();
        for _ in 0..5 {
            let message = consumer.recv().unwrap();
            again.push((message.lane(), message.position(), message.to_vec()));
        }
        again.sort();
        let mut expected: Vec<_> = of(second).cloned().collect();
        expected.push(of(first).nth(3).unwrap().clone());
        expected.sort();
        assert_eq!(again, expected);
        assert_eq!(consumer.received_messages(), 8);
    }

    fn what_a_consumer_took_with_it_unreleased_its_successor_gets(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 0..3u8 {
            producer.send(&[number]).unwrap();
        }
        consumer.recv().unwrap().release();
        std::mem::forget(consumer.recv().unwrap());
        drop(consumer);
        let mut successor = ring.attach_consumer().unwrap();
        assert_eq!(successor.received_messages(), 1);
        assert_eq!(successor.recv().unwrap().to_vec(), [1]);
        assert_eq!(successor.recv().unwrap().to_vec(), [2]);
    }

    fn the_stream_ends_once_with_the_last_producer(fixture) {
        let ring = fixture.mpsc(2);
        let mut consumer = ring.attach_consumer().unwrap();
        // No producer was attached: there is no end.
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        for _ in 0..3 {
            let mut first = ring.attach_producer().unwrap();
            let second = ring.attach_producer().unwrap();
            first.send(b"last").unwrap();
            drop(first);
            assert_eq!(consumer.recv().unwrap().to_vec(), b"last");
            assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
            second.close();
            assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
            consumer.resume();
            assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        }
        // A producer that sent nothing ends the stream as well, for each form.
        drop(ring.attach_producer().unwrap());
        assert!(matches!(consumer.recv_batch().err(), Some(RecvError::EndOfStream { .. })));
        consumer.resume();
        drop(ring.attach_producer().unwrap());
        let end = loop {
            match consumer.try_recv().err() {
                Some(RecvError::Empty) => std::thread::yield_now(),
                other => break other,
            }
        };
        assert!(matches!(end, Some(RecvError::EndOfStream { .. })));
        // The delivered end is recorded in the ring: a new consumer waits.
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
    }

    fn end_counts_finished_and_dead_producers(fixture) {
        let ring = fixture.mpsc(4);
        let end = |finished, died| Some(RecvError::EndOfStream { finished, died });
        // They are gone before the consumer attaches: the rest of their streams is missing all the
        // same.
        ring.attach_producer().unwrap().abort();
        ring.attach_producer().unwrap().close();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"a part").unwrap();
        let other = ring.attach_producer().unwrap();
        producer.abort();
        drop(other);
        assert_eq!(consumer.recv().unwrap().to_vec(), b"a part");
        assert_eq!(consumer.recv().err(), end(2, 2));
        consumer.resume();
        // Each stream counts its own.
        drop(ring.attach_producer().unwrap());
        assert_eq!(consumer.recv().err(), end(1, 0));
        consumer.resume();
        // An end that was not acted upon comes again to the next consumer, with its numbers.
        ring.attach_producer().unwrap().abort();
        assert_eq!(consumer.recv().err(), end(0, 1));
        let dropped = catch_unwind(AssertUnwindSafe(move || {
            let _consumer = consumer;
            panic!("before it acts on the end");
        }));
        assert!(dropped.is_err());
        let mut successor = ring.attach_consumer().unwrap();
        assert_eq!(successor.recv().err(), end(0, 1));
    }

    fn every_call_returns_the_same_end_until_resume(fixture) {
        let ring = fixture.mpsc(2);
        let mut consumer = ring.attach_consumer().unwrap();
        consumer.resume(); // nothing has ended
        ring.attach_producer().unwrap().abort();
        drop(ring.attach_producer().unwrap());
        let end = RecvError::EndOfStream { finished: 1, died: 1 };
        let each_call = |consumer: &mut semring::Consumer| {
            assert_eq!(consumer.recv().err(), Some(end));
            assert_eq!(consumer.try_recv().err(), Some(end));
            assert_eq!(consumer.recv_deadline(LONG).err(), Some(end));
            assert_eq!(consumer.recv_batch().err(), Some(end));
            assert_eq!(consumer.try_recv_batch().err(), Some(end));
            assert_eq!(consumer.recv_batch_deadline(LONG).err(), Some(end));
            assert_eq!(consumer.messages().next(), None);
            // What receives nothing is not concerned.
            assert_eq!(consumer.flush_released(), Ok(()));
        };
        each_call(&mut consumer);
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"one").unwrap();
        producer.send(b"two").unwrap();
        each_call(&mut consumer);
        producer.close();
        each_call(&mut consumer);
        consumer.resume();
        assert_eq!(consumer.try_recv().unwrap().to_vec(), b"one");
        assert_eq!(consumer.recv().unwrap().to_vec(), b"two");
        let end = RecvError::EndOfStream { finished: 1, died: 0 };
        assert_eq!(consumer.recv().err(), Some(end));
        consumer.resume();
        assert_eq!(consumer.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
    }

    fn an_end_outlives_the_ring(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        drop(ring.attach_producer().unwrap());
        let end = RecvError::EndOfStream { finished: 1, died: 0 };
        assert_eq!(consumer.recv().err(), Some(end));
        assert!(consumer.remove_at_end().unwrap().is_removed());
        assert_eq!(consumer.recv().err(), Some(end));
        assert_eq!(consumer.try_recv().err(), Some(end));
        consumer.resume();
        assert_eq!(consumer.recv().err(), Some(RecvError::Removed));
    }

    fn messages_are_an_iterator_up_to_the_end(fixture) {
        let ring = fixture.spsc();
        let mut consumer = ring.attach_consumer().unwrap();
        for sent in [&["one", "two"][..], &[], &["three"]] {
            let mut producer = ring.attach_producer().unwrap();
            sent.iter().for_each(|text| producer.send(text.as_bytes()).unwrap());
            drop(producer);
            let received: Vec<Vec<u8>> = consumer.messages().map(Result::unwrap).collect();
            assert_eq!(received, sent.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
            assert_eq!(consumer.messages().next(), None);
            consumer.resume();
        }
        assert_eq!(ring.info().unwrap().unread_messages(), 0);
        semring::force_remove(&fixture.address).unwrap();
        let mut messages = consumer.messages();
        assert_eq!(messages.next(), Some(Err(RecvError::Removed)));
        assert_eq!(messages.next(), None);
    }

    fn a_second_consumer_is_refused_with_the_pid_of_the_first(fixture) {
        let ring = fixture.spsc();
        let consumer = ring.attach_consumer().unwrap();
        let pid = std::process::id();
        let refused = ring.attach_consumer().map(drop).unwrap_err();
        assert_eq!(refused, AttachError::ConsumerPresent { pid });
        assert!(refused.to_string().contains(&pid.to_string()));
        drop(consumer);
        ring.attach_consumer().unwrap();
    }

    fn a_closed_ring_takes_nothing_more_and_keeps_what_is_in_it(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let consumer = ring.attach_consumer().unwrap();
        producer.send(b"kept").unwrap();
        consumer.close();
        assert_eq!(producer.check_consumer(), Err(SendError::Closed));
        assert!(ring.info().unwrap().consumer_closed);
        // A successor opens it again.
        let mut consumer = ring.attach_consumer().unwrap();
        assert!(!ring.info().unwrap().consumer_closed);
        assert_eq!(producer.check_consumer(), Ok(()));
        producer.send(b"more").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"kept");
        assert_eq!(consumer.recv().unwrap().to_vec(), b"more");
    }

    fn consumer_that_left_is_a_broken_pipe(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        assert_eq!(producer.check_consumer(), Ok(()), "no consumer was known");
        drop(ring.attach_consumer().unwrap());
        assert_eq!(producer.check_consumer(), Err(SendError::ConsumerGone));
        // Without `check_consumer`: within a quarter lap.
        let refused = (0..11).find_map(|_| producer.try_send(&[0; 100]).err());
        assert_eq!(refused, Some(SendError::ConsumerGone));
        producer.accept_next_consumer().unwrap();
        producer.try_send(b"kept").unwrap();
        assert_eq!(producer.check_consumer(), Ok(()));
        let mut next = ring.attach_consumer().unwrap();
        assert!(next.recv().is_ok());
        drop(next);
        assert_eq!(producer.check_consumer(), Err(SendError::ConsumerGone));
    }
}
