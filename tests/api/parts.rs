//! Messages that belong together: parts of a line on one lane, among the messages of others.

use semring::{Consumer, Framing, Message, RecvError, Tag};

use crate::fixture::{MAX, SOON};

fn part() -> Tag {
    Tag::default().with_framing(Framing::LinePart)
}

fn line() -> Tag {
    Tag::default().with_framing(Framing::Line)
}

/// The bytes of a message, which is released as what it is.
fn taken(message: Message<'_>) -> Vec<u8> {
    let bytes = message.to_vec();
    if message.tag().framing.continues() {
        message.release_part();
    } else {
        message.release();
    }
    bytes
}

fn from(consumer: &mut Consumer, lane: usize) -> Vec<u8> {
    taken(consumer.recv_from(lane).unwrap())
}

over_each_backend! {
    fn a_line_in_parts_is_received_whole_among_others(fixture) {
        let ring = fixture.mpsc(3);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut long = ring.attach_producer().unwrap();
        let mut short = ring.attach_producer().unwrap();
        for _ in 0..3 {
            long.send_with(b"one", part()).unwrap();
            let first = consumer.recv().unwrap();
            assert_eq!(first.lane(), 0);
            assert_eq!(taken(first), b"one");
            short.send(b"short").unwrap();
            // Nothing there: the other lane is left alone.
            assert_eq!(consumer.try_recv_from(0).err(), Some(RecvError::Empty));
            assert_eq!(consumer.recv_from_deadline(0, SOON).err(), Some(RecvError::TimedOut));
            let now = std::time::Instant::now();
            assert_eq!(consumer.recv_from_deadline(0, now).err(), Some(RecvError::TimedOut));
            long.send_with(b"two", part()).unwrap();
            // What is put back comes again.
            consumer.recv_from(0).unwrap().put_back();
            assert_eq!(taken(consumer.try_recv_from(0).unwrap()), b"two");
            long.send_with(b"three", line()).unwrap();
            assert_eq!(from(&mut consumer, 0), b"three");
            assert_eq!(taken(consumer.recv().unwrap()), b"short");
        }
    }

    fn the_other_lanes_room_is_not_given_back(fixture) {
        let ring = fixture.mpsc(2);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut long = ring.attach_producer().unwrap();
        let mut short = ring.attach_producer().unwrap();
        while short.try_send(&[7; MAX]).is_ok() {}
        long.send_with(b"begun", part()).unwrap();
        assert_eq!(from(&mut consumer, 0), b"begun");
        for _ in 0..100 {
            long.send_with(&[1; 500], part()).unwrap();
            assert_eq!(from(&mut consumer, 0).len(), 500);
        }
        assert!(short.try_send(&[7; MAX]).is_err());
        long.send_with(b"", line()).unwrap();
        assert_eq!(from(&mut consumer, 0), b"");
        while consumer.try_recv().is_ok() {}
        short.try_send(&[7; MAX]).unwrap();
    }

    fn a_producer_that_leaves_inside_a_line_has_ended_it(fixture) {
        let ring = fixture.mpsc(2);
        let mut consumer = ring.attach_consumer().unwrap();
        let _other = ring.attach_producer().unwrap();
        for successor_first in [false, true] {
            let mut long = ring.attach_producer().unwrap();
            let lane = long.lane();
            long.send_with(b"one", part()).unwrap();
            long.send_with(b"two", part()).unwrap();
            long.abort();
            if successor_first {
                let mut successor = ring.attach_producer().unwrap();
                assert_eq!(successor.lane(), lane);
                successor.send(b"the next one's").unwrap();
                successor.send_with(b"its part", part()).unwrap();
            }
            assert_eq!(taken(consumer.recv().unwrap()), b"one");
            assert_eq!(from(&mut consumer, lane), b"two");
            assert_eq!(consumer.recv_from(lane).err(), Some(RecvError::LaneEnded));
            if successor_first {
                assert_eq!(taken(consumer.recv().unwrap()), b"the next one's");
                assert_eq!(taken(consumer.recv().unwrap()), b"its part");
            }
            assert_eq!(consumer.try_recv_from(lane).err(), Some(RecvError::LaneEnded));
        }
    }

    /// Many come and go unread; each line is ended where its producer was.
    fn no_message_of_a_successor_continues_a_line(fixture) {
        let ring = fixture.mpsc(1);
        const COUNT: u8 = 90;
        for number in 0..COUNT {
            let mut producer = ring.attach_producer().unwrap();
            producer.send_with(&[number], part()).unwrap();
            match number % 3 {
                0 => producer.abort(),
                1 => producer.send_with(&[number], line()).unwrap(),
                _ => producer.send_with(&[number], part()).unwrap(),
            }
        }
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 0..COUNT {
            assert_eq!(taken(consumer.recv().unwrap()), [number]);
            if number % 3 != 0 {
                assert_eq!(from(&mut consumer, 0), [number]);
            }
            if number % 3 != 1 {
                assert_eq!(consumer.recv_from(0).err(), Some(RecvError::LaneEnded));
            }
        }
        assert!(matches!(consumer.recv().err(), Some(RecvError::EndOfStream { .. })));
    }

    /// The lane was too full for the record that ends the line: the successor has not come to it.
    fn an_idle_successor_on_a_full_lane_has_ended_the_line(fixture) {
        let ring = fixture.mpsc(1);
        let mut consumer = ring.attach_consumer().unwrap();
        let mut long = ring.attach_producer().unwrap();
        let mut sent = 0;
        let mut size = MAX;
        while size > 0 {
            if long.try_reserve(size).map(|mut room| { room.set_tag(part()); room.commit(); }).is_ok() {
                sent += 1;
            } else {
                size /= 2;
            }
        }
        while long.try_reserve(0).map(|mut room| { room.set_tag(part()); room.commit(); }).is_ok() {
            sent += 1;
        }
        long.abort();
        let mut successor = ring.attach_producer().unwrap();
        for _ in 0..sent {
            taken(consumer.recv_from(0).unwrap());
        }
        assert_eq!(consumer.recv_from(0).err(), Some(RecvError::LaneEnded));
        successor.send(b"mine").unwrap();
        assert_eq!(taken(consumer.recv().unwrap()), b"mine");
    }

    /// The producer publishes padding after a part, and nothing after it.
    fn padding_is_no_end_of_a_line(fixture) {
        let ring = fixture.mpsc(1);
        let capacity = ring.capacity_bytes();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut long = ring.attach_producer().unwrap();
        while capacity - long.position().get() % capacity > MAX as u64 {
            long.send_with(&[0; MAX / 2], part()).unwrap();
            taken(consumer.recv_from(0).unwrap());
        }
        drop(long.try_reserve(MAX).unwrap());
        assert_eq!(long.position().get(), capacity, "padding was published");
        // A consumer that has stepped over it leaves the line to its successor.
        assert_eq!(consumer.try_recv_from(0).err(), Some(RecvError::Empty));
        consumer.flush_released().unwrap();
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), Some(0));
        assert_eq!(consumer.try_recv_from(0).err(), Some(RecvError::Empty));
        // The next producer does not go on with it.
        long.abort();
        let _idle = ring.attach_producer().unwrap();
        assert_eq!(consumer.try_recv_from(0).err(), Some(RecvError::LaneEnded));
    }

    fn consumers_successor_finds_where_a_line_goes_on(fixture) {
        let ring = fixture.mpsc(2);
        let mut short = ring.attach_producer().unwrap();
        let mut long = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), None);
        long.send_with(b"one", part()).unwrap();
        long.send_with(b"two", part()).unwrap();
        taken(consumer.recv().unwrap());
        short.send(b"short").unwrap();
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), Some(1));
        // Received and not released: it is known to its successor, too.
        consumer.recv_from(1).unwrap().put_back();
        assert_eq!(consumer.continued_lane(), None);
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), Some(1));
        assert_eq!(from(&mut consumer, 1), b"two");
        long.send_with(b"three", line()).unwrap();
        assert_eq!(from(&mut consumer, 1), b"three");
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), None, "the line has ended");
        assert_eq!(taken(consumer.recv().unwrap()), b"short");
    }

    fn several_continued_lanes_come_one_after_another(fixture) {
        let ring = fixture.mpsc(3);
        let mut producers = [(); 3].map(|()| ring.attach_producer().unwrap());
        let mut consumer = ring.attach_consumer().unwrap();
        for lane in [1, 2] {
            producers[lane].send_with(b"one", part()).unwrap();
            assert_eq!(from(&mut consumer, lane), b"one");
        }
        drop(consumer);
        for producer in &mut producers {
            producer.send_with(b"two", line()).unwrap();
        }
        let mut consumer = ring.attach_consumer().unwrap();
        // Both stay until they are received from, in whatever order.
        for order in [[1, 2], [2, 1]] {
            let mut consumer_again = consumer;
            assert_eq!(consumer_again.continued_lane(), Some(1));
            consumer_again.recv_from(order[0]).unwrap().put_back();
            assert_eq!(consumer_again.continued_lane(), Some(order[1]));
            consumer_again.recv_from(order[1]).unwrap().put_back();
            assert_eq!(consumer_again.continued_lane(), None);
            drop(consumer_again);
            consumer = ring.attach_consumer().unwrap();
        }
        assert_eq!(from(&mut consumer, 1), b"two");
        assert_eq!(from(&mut consumer, 2), b"two");
        assert_eq!(taken(consumer.recv().unwrap()), b"two");
    }

    fn first_message_of_an_array_ends_the_line(fixture) {
        let ring = fixture.mpsc(1);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        producer.send_with(b"one", part()).unwrap();
        producer.send_all(&[*b"two", *b"new", *b"old"]).unwrap();
        assert_eq!(from(&mut consumer, 0), b"one");
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), Some(0));
        assert_eq!(from(&mut consumer, 0), b"two");
        // `released` is where it was: only `partial` has moved.
        drop(consumer);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.continued_lane(), None);
        assert_eq!(taken(consumer.recv().unwrap()), b"new");
        assert_eq!(taken(consumer.recv().unwrap()), b"old");
    }
}

#[test]
#[should_panic(expected = "no such lane")]
fn a_lane_that_the_ring_does_not_have_panics() {
    let fixture = crate::fixture::Fixture::new("posix", "no-lane");
    let ring = fixture.mpsc(2);
    let _ = ring.attach_consumer().unwrap().try_recv_from(2);
}
