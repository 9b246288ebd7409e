//! Typed messages and the schema of a ring.

use crate::rings;
use semring::{OpenError, RecvError, Schema, UnusedRing, ValueError, layout_of, spsc};
use semring_testkit::names::RingGuard;
use zerocopy::{FromBytes, Immutable, IntoBytes, TryFromBytes};

/// A struct of 64 bytes.
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy, PartialEq, Debug)]
#[repr(C)]
struct Order {
    id: u64,
    price: f64,
    text: [u8; 48],
}

const ORDER: Schema = Schema::new("order", 1, layout_of!(Order { id, price, text }));

fn order(id: u64) -> Order {
    Order {
        id,
        price: id as f64 / 4.0,
        text: [id as u8; 48],
    }
}

/// Only some bytes are one.
#[derive(TryFromBytes, IntoBytes, Immutable, PartialEq, Debug)]
#[repr(C)]
struct Flagged {
    urgent: bool,
    side: Side,
}

#[derive(TryFromBytes, IntoBytes, Immutable, PartialEq, Debug)]
#[repr(u8)]
enum Side {
    Buy = 1,
    Sell = 2,
}

#[test]
fn values_arrive_as_they_were_sent() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    producer.send_value(&order(1)).unwrap();
    producer.try_send_value(&order(2)).unwrap();
    let mut batch = producer.batch();
    batch.push_value(&order(3)).unwrap();
    batch.commit();
    producer.send_values(&[order(4), order(5)]).unwrap();
    assert_eq!(producer.try_send_values(&[order(6)]), Ok(1));
    for id in 1..=4 {
        let message = consumer.recv().unwrap();
        assert_eq!(message.len(), 64);
        assert_eq!(message.read_value(), Ok(order(id)));
        assert_eq!(message.try_read_value(), Ok(order(id)));
    }
    let mut rest: Vec<Order> = Vec::new();
    assert_eq!(consumer.recv_values(&mut rest).unwrap(), 1);
    assert_eq!(consumer.try_recv_values(&mut rest).unwrap(), 1);
    assert_eq!(
        consumer.try_recv_values(&mut rest),
        Err(RecvError::Empty),
        "nothing is left"
    );
    assert_eq!(rest, [order(5), order(6)]);
}

#[test]
fn message_of_another_size_is_no_value() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    producer.send(&[0; 63]).unwrap();
    let message = consumer.recv().unwrap();
    let (short, value) = (63, 64);
    let other_size = ValueError::OtherSize {
        message: short,
        value,
    };
    assert_eq!(message.read_value::<Order>(), Err(other_size));
    assert_eq!(message.try_read_value::<Order>(), Err(other_size));
    message.put_back();
    // As what it is, it can still be read.
    assert_eq!(consumer.recv().unwrap().read_value(), Ok([0u8; 63]));
}

#[test]
fn bytes_that_are_no_value_are_an_error() {
    let ring = spsc::Builder::memfd().create().unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let mut consumer = ring.attach_consumer().unwrap();
    for urgent in 0..=255 {
        for side in 0..=255 {
            producer.send(&[urgent, side]).unwrap();
            let read = consumer.recv().unwrap().try_read_value::<Flagged>();
            let expected = match (urgent, side) {
                (0 | 1, 1) => Ok(Side::Buy),
                (0 | 1, 2) => Ok(Side::Sell),
                _ => Err(ValueError::Invalid),
            };
            let expected = expected.map(|side| Flagged {
                urgent: urgent == 1,
                side,
            });
            assert_eq!(read, expected, "{urgent}, {side}");
        }
    }
}

#[test]
fn ring_of_another_schema_is_refused_with_both() {
    let guard = RingGuard::new("other-schema");
    let named = guard.name();
    let _ring = rings::spsc(named).schema(ORDER).create().unwrap();
    let others = [
        Schema::new("tick", 1, ORDER.layout()),
        Schema::new("order", 2, ORDER.layout()),
        Schema::new("order", 1, ORDER.layout() ^ 1),
    ];
    for other in others {
        let error = rings::spsc(named).schema(other).open().unwrap_err();
        assert!(matches!(error, OpenError::Mismatch { what: "schema", .. }));
        let text = error.to_string();
        for schema in [ORDER, other] {
            assert!(text.contains(&schema.to_string()), "{text}");
        }
    }
    let same = rings::spsc(named).schema(ORDER).open().unwrap();
    assert_eq!(same.schema(), Some(ORDER));
    assert_eq!(same.info().unwrap().schema, Some(ORDER));
}

#[test]
fn ring_without_schema_is_opened_and_says_so() {
    let guard = RingGuard::new("no-schema");
    let named = guard.name();
    let _ring = rings::spsc(named).create().unwrap();
    let opened = rings::spsc(named).schema(ORDER).open().unwrap();
    assert_eq!(opened.schema(), None);
    assert_eq!(opened.info().unwrap().schema, None);
}

#[test]
fn who_names_no_schema_opens_any_ring() {
    let guard = RingGuard::new("any-schema");
    let named = guard.name();
    let _ring = rings::spsc(named).schema(ORDER).create().unwrap();
    let opened = spsc::open(named).unwrap();
    assert_eq!(opened.schema(), Some(ORDER));
}

#[test]
fn unused_ring_of_another_schema_is_replaced() {
    let guard = RingGuard::new("replaced-schema");
    let implicit = || rings::spsc(guard.name()).auto_remove(true);
    let replacing = |schema| implicit().schema(schema).unused_ring(UnusedRing::Replace);
    drop(implicit().schema(ORDER).create().unwrap());
    let newer = Schema::new("order", 2, ORDER.layout());
    let ring = replacing(newer).open_or_create().unwrap();
    assert_eq!(ring.schema(), Some(newer));
    // What is not named stays as it was.
    let larger = implicit().capacity(1 << 20);
    let larger = larger.unused_ring(UnusedRing::Replace).open_or_create();
    let larger = larger.unwrap();
    assert_eq!(
        (larger.schema(), larger.capacity_bytes()),
        (Some(newer), 1 << 20)
    );
    // A ring that has been used is not replaced.
    drop(larger.attach_producer().unwrap());
    assert!(replacing(ORDER).open_or_create().is_err());
}
