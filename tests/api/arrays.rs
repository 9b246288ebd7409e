//! Arrays: many messages of one size, sent and received together.

use std::time::Duration;

use crate::rings;
use semring::{Framing, RecvError, SendError, Tag, WhenFull, spsc};
use semring_testkit::names::RingGuard;

fn numbers(count: u64) -> Vec<[u8; 8]> {
    (0..count).map(u64::to_le_bytes).collect()
}

#[test]
fn array_longer_than_a_message_is_split() {
    let ring = spsc::Builder::memfd().capacity(4096).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let all = numbers(300);
    producer.send_all(&all).unwrap();
    assert_eq!(producer.sent_messages(), 300);
    let mut got: Vec<[u8; 8]> = Vec::new();
    for count in [128, 128, 44] {
        assert_eq!(consumer.recv_all(&mut got).unwrap(), count);
    }
    assert_eq!(got, all);
    assert_eq!(consumer.received_messages(), 300);
}

#[test]
fn nothing_to_send_sends_nothing() {
    let ring = spsc::Builder::memfd().capacity(4096).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    producer.send_all::<[u8; 8]>(&[]).unwrap();
    assert_eq!(producer.try_send_all::<[u8; 8]>(&[]), Ok(0));
    producer.reserve_array(8, 10).unwrap().commit(0);
    producer.reserve_array(8, 10).unwrap().discard();
    let empty = producer.reserve_array(8, 0).unwrap();
    assert!(empty.is_empty());
    empty.commit(0);
    assert_eq!(
        (producer.sent_messages(), producer.position().get()),
        (0, 0)
    );
}

#[test]
fn too_long_is_an_error_whatever_the_product() {
    let ring = spsc::Builder::memfd().capacity(4096).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let too_long = SendError::TooLong { max: 1024 };
    assert_eq!(producer.send_all(&[[0; 1025]]), Err(too_long));
    assert_eq!(producer.try_send_all(&[[0; 1025]]), Err(too_long));
    for (bytes, count) in [(1025, 1), (513, 2), (usize::MAX, 2), (1 << 32, 1 << 32)] {
        let refused = producer.reserve_array(bytes, count).err();
        assert_eq!(refused, Some(too_long), "{bytes} × {count}");
    }
    producer.send_all(&[[0; 1024]]).unwrap();
}

#[test]
#[should_panic(expected = "at least one byte")]
fn messages_without_bytes_are_refused() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let _ = ring.attach_producer().unwrap().reserve_array(0, 1);
}

#[test]
#[should_panic(expected = "a part of a line")]
fn parts_of_lines_are_refused() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let part = Tag::default().with_framing(Framing::LinePart);
    let _ = ring
        .attach_producer()
        .unwrap()
        .send_all_with(&[[0; 8]], part);
}

#[test]
fn try_send_all_sends_whole_arrays_only() {
    let ring = spsc::Builder::memfd().capacity(4096).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    // Three arrays of 1040 bytes; of the lane 976 are left.
    assert_eq!(producer.try_send_all(&numbers(1000)), Ok(3 * 128));
    assert_eq!(producer.try_send_all(&numbers(128)), Err(SendError::Full));
    assert_eq!(producer.try_send_all(&numbers(100)), Ok(100));
    for count in [128, 128, 128, 100] {
        assert_eq!(consumer.recv_array().unwrap().len(), count);
    }
    assert_eq!(consumer.try_recv_array().err(), Some(RecvError::Empty));
    let deadline = Duration::from_millis(1);
    let full = producer.send_all_deadline(&numbers(1000), deadline);
    assert_eq!(full, Err(SendError::TimedOut));
    assert_eq!(producer.sent_messages(), 484 + 3 * 128);
    let mut got: Vec<[u8; 8]> = Vec::new();
    for _ in 0..3 {
        consumer.recv_all(&mut got).unwrap();
    }
    let none = consumer.recv_all_deadline(&mut got, deadline);
    assert_eq!(none, Err(RecvError::TimedOut));
    assert_eq!(
        consumer.recv_array_deadline(deadline).err(),
        Some(RecvError::TimedOut)
    );
}

#[test]
fn dropped_arrays_are_counted_by_message() {
    let builder = spsc::Builder::memfd().capacity(4096);
    let ring = builder.when_full(WhenFull::Drop).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    producer.send_all(&numbers(128 * 5)).unwrap();
    assert_eq!(producer.sent_messages(), 128 * 3);
    assert_eq!(producer.dropped_messages(), 128 * 2);
}

#[test]
fn every_message_has_the_tag() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let tag = Tag::new(77).with_framing(Framing::Fixed);
    producer.send_all_with(&numbers(3), tag).unwrap();
    let mut array = producer.reserve_array(4, 5).unwrap();
    array.set_tag(tag);
    array.write(0, &[0, 0, 0, 0, 1, 1, 1, 1]);
    array.commit(2);
    let first = consumer.recv().unwrap();
    assert_eq!((first.tag(), first.len()), (tag, 8));
    let first_position = first.position();
    first.release();
    let rest = consumer.recv_array().unwrap();
    assert_eq!((rest.tag(), rest.len(), rest.get(1).tag()), (tag, 2, tag));
    assert!(rest.position() > first_position);
    rest.release();
    let second = consumer.recv_array().unwrap();
    assert_eq!((second.tag(), second.get(1).to_vec()), (tag, vec![1; 4]));
}

#[test]
fn another_size_is_an_error_that_leaves_the_message() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    producer.send_all(&numbers(3)).unwrap();
    producer.send(b"").unwrap();
    let mut words: Vec<[u8; 4]> = vec![[1; 4]];
    let other = RecvError::OtherSize { bytes: 8 };
    for _ in 0..2 {
        assert_eq!(consumer.recv_all(&mut words), Err(other));
        assert_eq!(consumer.try_recv_all(&mut words), Err(other));
    }
    assert_eq!(words, [[1; 4]]);
    assert!(other.to_string().contains("8 bytes"));
    assert_eq!(consumer.recv_array().unwrap().len(), 3);
    let empty = RecvError::OtherSize { bytes: 0 };
    assert_eq!(consumer.recv_all(&mut words), Err(empty));
    let array = consumer.recv_array().unwrap();
    assert_eq!(
        (array.len(), array.message_bytes(), array.total_bytes()),
        (1, 0, 0)
    );
}

#[test]
fn single_messages_are_arrays_of_one() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    for len in [1000, 2000] {
        producer.send(&vec![9; len]).unwrap();
        let array = consumer.recv_array().unwrap();
        assert_eq!((array.len(), array.message_bytes()), (1, len));
        let position = array.position();
        assert_eq!(array.get(0).position(), position);
        array.put_back();
        assert_eq!(consumer.recv().unwrap().position(), position);
    }
}

#[test]
fn trusted_peers_get_slices_of_arrays() {
    let builder = spsc::Builder::memfd();
    // SAFETY: both handles are in this process, which changes no byte of a message that it has.
    let ring = unsafe { builder.trust_peers() }.create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    let mut array = producer.reserve_array(3, 5).unwrap();
    array
        .as_mut_slice()
        .unwrap()
        .copy_from_slice(b"onetwosix......");
    array.commit(3);
    let array = consumer.recv_array().unwrap();
    assert_eq!(array.as_slice(), Some(&b"onetwosix"[..]));
    assert_eq!(array.get(1).as_slice(), Some(&b"two"[..]));
    array.release_first(1);
    assert_eq!(
        consumer.recv_array().unwrap().as_slice(),
        Some(&b"twosix"[..])
    );
}

/// What a flush has returned for does not come again, to the message.
#[test]
fn successor_goes_on_inside_an_array() {
    let guard = RingGuard::new("arrays");
    let ring = rings::spsc(guard.posix()).create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    producer.send_all(&numbers(10)).unwrap();
    for first in 0..10u64 {
        let mut consumer = ring.attach_consumer().unwrap();
        producer.accept_next_consumer().unwrap();
        assert_eq!(ring.info().unwrap().unread_messages(), 10 - first);
        let message = consumer.recv().unwrap();
        assert_eq!(message.to_vec(), first.to_le_bytes());
        message.release();
        consumer.flush_released().unwrap();
        let info = ring.info().unwrap();
        assert_eq!(info.unread_messages(), 9 - first);
        assert_eq!(info.lanes[0].received_messages, first + 1);
    }
    drop(producer);
    let mut consumer = ring.attach_consumer().unwrap();
    assert!(matches!(
        consumer.recv().err(),
        Some(RecvError::EndOfStream { .. })
    ));
    assert!(consumer.remove_at_end().unwrap().is_removed());
}

#[test]
fn ring_with_messages_of_an_array_left_is_unread() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    producer.send_all(&numbers(2)).unwrap();
    drop(producer);
    consumer.recv().unwrap().release();
    assert!(!consumer.remove_at_end().unwrap().is_removed());
    consumer.recv().unwrap().release();
    assert!(matches!(
        consumer.recv().err(),
        Some(RecvError::EndOfStream { .. })
    ));
}
