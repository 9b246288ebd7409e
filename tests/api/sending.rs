//! The producer's side: send, reserve, batches, roles.

use std::io::Write;

use semring::{Framing, Producer, SendError, Spsc, Tag, any, mpsc};

use crate::fixture::{CAPACITY, MAX, SOON};

/// Fills the lane with messages of 100 bytes; gives how many.
fn fill(producer: &mut Producer<Spsc>) -> usize {
    let mut sent = 0;
    while producer.try_send(&[7; 100]).is_ok() {
        sent += 1;
    }
    sent
}

over_each_backend! {
    fn each_form_of_send_arrives_in_order(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let tag = Tag::new(3).with_framing(Framing::Fixed);
        producer.send(b"send").unwrap();
        producer.send_with(b"send_with", tag).unwrap();
        producer.try_send(b"try_send").unwrap();
        producer.send_deadline(b"send_timeout", SOON).unwrap();
        producer.send(b"").unwrap();
        let mut reservation = producer.reserve(7).unwrap();
        reservation.write_at(0, b"reserve");
        reservation.set_tag(tag);
        reservation.commit();
        let mut reservation = producer.try_reserve(20).unwrap();
        let what = "reserve";
        write!(reservation, "try_{what}").unwrap();
        assert_eq!(reservation.written(), 11);
        reservation.truncate(11);
        reservation.commit();
        let mut reservation = producer.reserve_deadline(4, SOON).unwrap();
        assert_eq!(reservation.write(b"timed out").unwrap(), 4, "the excess is not written");
        assert_eq!(reservation.write(b"more").unwrap(), 0);
        assert!(reservation.write_all(b"more").is_err());
        reservation.flush().unwrap();
        reservation.commit();
        assert_eq!(producer.sent_messages(), 8);
        let mut consumer = ring.attach_consumer().unwrap();
        let none = Tag::default();
        for (text, expected) in [
            ("send", none), ("send_with", tag), ("try_send", none), ("send_timeout", none),
            ("", none), ("reserve", tag), ("try_reserve", none), ("time", none),
        ] {
            let message = consumer.recv().unwrap();
            assert_eq!(message.to_vec(), text.as_bytes());
            assert_eq!(message.tag(), expected);
            assert_eq!(message.is_empty(), text.is_empty());
        }
    }

    fn a_reservation_is_discarded_unless_it_is_committed(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let position = producer.position();
        let mut reservation = producer.reserve(10).unwrap();
        assert_eq!((reservation.len(), reservation.is_empty()), (10, false));
        assert_eq!(reservation.position(), position);
        reservation.write_at(0, b"never seen");
        drop(reservation);
        producer.reserve(5).unwrap().discard();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut reservation = producer.reserve(5).unwrap();
            reservation.write_at(0, b"half");
            panic!("this panic belongs to the test");
        }));
        assert!(panicked.is_err());
        assert!(consumer.try_recv().is_err());
        assert_eq!((producer.position(), producer.sent_messages()), (position, 0));
        producer.send(b"seen").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"seen");
    }

    fn full_lane_is_reported_in_each_form(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        // 4096 bytes hold 36 records of 112, and one word stays free.
        assert_eq!(fill(&mut producer), 36);
        assert_eq!(producer.try_send(&[0; 100]), Err(SendError::Full));
        assert_eq!(producer.send_deadline(&[0; 100], SOON), Err(SendError::TimedOut));
        assert_eq!(producer.try_reserve(100).err(), Some(SendError::Full));
        assert_eq!(producer.reserve_deadline(100, SOON).err(), Some(SendError::TimedOut));
        assert_eq!(producer.batch().try_push(&[0; 100]), Err(SendError::Full));
        assert_eq!(producer.sent_messages(), 36);
        // Room comes back when the consumer gives it back.
        let mut consumer = ring.attach_consumer().unwrap();
        consumer.recv().unwrap().release();
        consumer.flush_released().unwrap();
        producer.send(&[1; 50]).unwrap();
    }

    fn the_longest_message_is_a_quarter_of_the_capacity(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!((producer.max_message_bytes(), ring.max_message_bytes()), (MAX, MAX));
        assert_eq!(ring.capacity_bytes(), CAPACITY);
        for _ in 0..20 {
            producer.send(&[9; MAX]).unwrap();
            assert_eq!(consumer.recv().unwrap().len(), MAX);
        }
        let too_long = SendError::TooLong { max: MAX };
        let long = vec![0; MAX + 1];
        assert_eq!(producer.send(&long), Err(too_long));
        assert_eq!(producer.try_send(&long), Err(too_long));
        assert_eq!(producer.send_deadline(&long, SOON), Err(too_long));
        assert_eq!(producer.reserve(MAX + 1).err(), Some(too_long));
        assert_eq!(producer.try_reserve(usize::MAX).err(), Some(too_long));
        assert_eq!(producer.batch().push(&long), Err(too_long));
        assert_eq!(producer.sent_messages(), 20);
    }

    fn a_batch_appears_at_once_also_when_it_is_dropped(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for commit in [true, false] {
            let mut batch = producer.batch();
            assert!(batch.is_empty());
            batch.push(b"one").unwrap();
            batch.push_with(b"two", Tag::new(2).with_framing(Framing::LinePart)).unwrap();
            batch.try_push(b"three").unwrap();
            assert!(!batch.is_empty());
            assert!(consumer.try_recv().is_err());
            if commit { batch.commit() } else { drop(batch) }
            for (text, kind) in [("one", 0), ("two", 2), ("three", 0)] {
                let message = consumer.try_recv().unwrap();
                assert_eq!((message.to_vec(), message.tag().kind), (text.into(), kind));
            }
        }
        drop(producer.batch());
        assert!(consumer.try_recv().is_err());
    }

    fn a_batch_that_is_leaked_holds_nothing_back(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let leak = |producer: &mut Producer<Spsc>| {
            let mut batch = producer.batch();
            batch.push(b"leaked").unwrap();
            std::mem::forget(batch);
        };
        leak(&mut producer);
        producer.send(b"sent").unwrap();
        leak(&mut producer);
        producer.reserve(0).unwrap().commit();
        leak(&mut producer);
        let mut batch = producer.batch();
        batch.push(b"batch").unwrap();
        batch.commit();
        for text in ["leaked", "sent", "leaked", "", "leaked", "batch"] {
            assert_eq!(consumer.try_recv().unwrap().to_vec(), text.as_bytes());
        }
    }

    fn a_batch_longer_than_the_lane_waits_for_room(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut batch = producer.batch();
                for number in 0..1000u32 {
                    batch.push(&number.to_le_bytes().repeat(25)).unwrap();
                }
            });
            for number in 0..1000u32 {
                assert_eq!(consumer.recv().unwrap().to_vec(), number.to_le_bytes().repeat(25));
            }
        });
    }

    fn producers_have_a_lane_each_and_the_lowest_free_one(fixture) {
        let ring = fixture.mpsc(3);
        assert_eq!(ring.lanes(), 3);
        let first = ring.attach_producer().unwrap();
        let mut second = first.try_clone().unwrap();
        let third = mpsc::open(&fixture.address).unwrap().attach_producer().unwrap();
        assert_eq!([first.lane(), second.lane(), third.lane()], [0, 1, 2]);
        let refused = ring.attach_producer().unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refused.contains("3 lanes") && refused.contains(&pid.to_string()), "{refused}");
        second.send(b"from lane 1").unwrap();
        drop(first);
        let fourth = second.try_clone().unwrap();
        assert_eq!(fourth.lane(), 0);
        let mut consumer = ring.attach_consumer().unwrap();
        assert_eq!(consumer.attached_producers(), 4);
        assert_eq!(consumer.recv().unwrap().lane(), 1);
        let any = any::open(&fixture.address).unwrap();
        drop(third);
        let more = any.attach_producer().unwrap();
        assert_eq!(more.lane(), 2);
        drop(more);
        assert_eq!(any.attach_producer().unwrap().try_clone().err().map(|error| error.to_string()), Some(refused));
    }

    fn a_successor_goes_on_where_its_predecessor_stopped(fixture) {
        let ring = fixture.spsc();
        let mut position = None;
        for number in 1..=100u64 {
            let mut producer = ring.attach_producer().unwrap();
            if let Some(position) = position {
                assert_eq!(producer.position(), position);
            }
            producer.send(&[number as u8; 10]).unwrap();
            assert_eq!(producer.sent_messages(), number);
            position = Some(producer.position());
            if number % 2 == 0 { producer.close() } else { drop(producer) }
        }
        let mut consumer = ring.attach_consumer().unwrap();
        for number in 1..=100u8 {
            assert_eq!(consumer.recv().unwrap().to_vec(), [number; 10]);
        }
    }
}

#[test]
#[should_panic(expected = "don't fit the reservation")]
fn writing_beyond_a_reservation_panics() {
    let fixture = crate::fixture::Fixture::new("posix", "beyond");
    let ring = fixture.spsc();
    let mut producer = ring.attach_producer().unwrap();
    producer.reserve(4).unwrap().write_at(usize::MAX, b"12");
}

/// Every framing arrives as it was sent, on the fast path and in a batch.
#[test]
fn framing_arrives_with_each_message() {
    let all = [
        Framing::Plain,
        Framing::Line,
        Framing::LineWithoutEnd,
        Framing::LinePart,
        Framing::Nul,
        Framing::NulWithoutEnd,
        Framing::NulPart,
        Framing::LengthPrefixed,
        Framing::Raw,
        Framing::Fixed,
        Framing::Unknown,
    ];
    let fixture = crate::fixture::Fixture::new("posix", "framing");
    let ring = fixture.spsc();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    for framing in all {
        let tag = Tag::new(framing as u16).with_framing(framing);
        producer.send_with(b"x", tag).unwrap();
        let mut batch = producer.batch();
        batch.push_with(b"x", tag).unwrap();
        batch.commit();
        for _ in 0..2 {
            assert_eq!(consumer.recv().unwrap().tag(), tag);
        }
    }
}

#[test]
fn handles_can_be_moved_to_other_threads() {
    fn can_be_sent<T: Send + 'static>() {}
    fn can_be_shared<T: Sync>() {}
    can_be_sent::<semring::spsc::Producer>();
    can_be_sent::<semring::mpsc::Producer>();
    can_be_sent::<semring::spsc::Consumer>();
    can_be_sent::<semring::mpsc::Consumer>();
    can_be_sent::<semring::any::Ring>();
    can_be_sent::<semring::Interrupter>();
    can_be_shared::<semring::any::Ring>();
    can_be_shared::<semring::Interrupter>();
    can_be_sent::<semring::SendError>();
    can_be_sent::<semring::CreateError>();
}
