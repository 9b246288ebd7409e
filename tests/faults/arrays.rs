//! Killed while it sends or takes an array: a producer, whose array comes whole or not at all; a consumer, whose successor
//! gets what was not released, from inside of the array on.

use crate::consumers::{Receiving, killed_receiver};
use crate::fixture::Fixture;
use crate::producers::{SEND, Sending, WRAPPING_SEND, killed_sender};
use semring::any;
use semring_testkit::message;

traced_over_both_backends! {
    producer_killed_in_send_all
    producer_killed_in_wrapping_send_all
    producer_killed_in_reserve_array
    consumer_killed_in_receive_array
    consumer_killed_in_part_of_array
    consumer_killed_inside_array
    consumer_killed_in_last_of_array
    consumer_killed_in_rest_of_array
    consumer_killed_in_batch_over_arrays
}

fn producer_killed_in_send_all(fixture: Fixture) {
    let sending = Sending {
        name: "send-all",
        what: "send-all 1 5 3",
        doubt: 3,
        ..SEND
    };
    killed_sender(fixture, &sending);
}

/// 912 bytes are left to the end of the lane: the array has 16 more.
fn producer_killed_in_wrapping_send_all(fixture: Fixture) {
    let sending = Sending {
        name: "wrapping-send-all",
        what: "send-all 1 5 9",
        doubt: 9,
        ..WRAPPING_SEND
    };
    killed_sender(fixture, &sending);
}

fn producer_killed_in_reserve_array(fixture: Fixture) {
    let sending = Sending {
        name: "reserve-array",
        what: "reserve-array 1 5 3",
        doubt: 3,
        ..SEND
    };
    killed_sender(fixture, &sending);
}

/// Messages 0 to 4 as one array, then 5 and 6 as another, and 7 by itself.
fn sent(ring: &any::Ring) {
    let mut producer = ring.attach_producer().unwrap();
    let message = |number| {
        let mut bytes = Vec::new();
        message::encode(1, number, 100, &mut bytes);
        <[u8; 100]>::try_from(bytes).expect("so long it is")
    };
    producer.send_all(&[0, 1, 2, 3, 4].map(message)).unwrap();
    producer.send_all(&[5, 6].map(message)).unwrap();
    producer.send(&message(7)).unwrap();
}

/// The records have 520, 216 and 112 bytes.
const POSITIONS: &[u64] = &[8, 108, 208, 308, 408, 528, 628, 736];

const RECEIVING: Receiving = Receiving {
    name: "",
    send: sent,
    prepare: &["consumer"],
    what: "",
    positions: POSITIONS,
    before: 0,
    most: 0,
};

fn consumer_killed_in_receive_array(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-array",
        what: "recv-array 5",
        most: 5,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}

fn consumer_killed_in_part_of_array(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-part-of-array",
        what: "recv-array 3",
        most: 3,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}

/// Two of it were released before: `partial` is stored for the second time.
fn consumer_killed_inside_array(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-inside-array",
        prepare: &["consumer", "skip 2", "flush"],
        what: "recv",
        before: 2,
        most: 1,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}

/// `released` moves past the array, and then `partial` is cleared.
fn consumer_killed_in_last_of_array(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-last-of-array",
        prepare: &["consumer", "skip 4", "flush"],
        what: "recv",
        before: 4,
        most: 1,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}

/// What is left of it, all together.
fn consumer_killed_in_rest_of_array(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-rest-of-array",
        prepare: &["consumer", "skip 2", "flush"],
        what: "recv-array 3",
        before: 2,
        most: 3,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}

/// From inside of the first array to the end: one store of `released`.
fn consumer_killed_in_batch_over_arrays(fixture: Fixture) {
    let receiving = Receiving {
        name: "receive-batch-over-arrays",
        prepare: &["consumer", "skip 1", "flush"],
        what: "recv-batch",
        before: 1,
        most: 7,
        ..RECEIVING
    };
    killed_receiver(fixture, &receiving);
}
