//! Models of the lane, run by loom over the shipped code: `RUSTFLAGS="--cfg semring_loom" cargo
//! test --release -p semring --lib model`.
//!
//! The lane is smaller than any real one (64 bytes: messages of at most 16), so that two or three
//! messages fill a lap. For each precaution of the algorithm there is a mutant without it, and a
//! model that must fail with the mutant.
#![cfg(semring_loom)]

mod arrays;
mod counts;
mod killed_consumer;
mod killed_producer;
mod parts;
mod publication;

use super::consume::LaneConsumer;
use super::produce::{LaneProducer, Mode, Need, NoSlot};
use crate::layout::view::LaneView;
use crate::layout::{Capacity, Position, Tag};

const CAPACITY: Capacity = Capacity::model(64);

/// The bytes of message `number`: every word identifies message and place, so that another message's
/// payload, a stale one, or a mixture is detected.
fn payload(number: u64, length: usize) -> Vec<u8> {
    let words = (0..length as u64)
        .step_by(8)
        .flat_map(|at| (number << 8 | at | 1).to_le_bytes());
    words.take(length).collect()
}

/// The number stored in a payload.
fn number_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("a word")) >> 8
}

/// Sends if there is room now.
fn try_send(producer: &mut LaneProducer, bytes: &[u8]) -> bool {
    match producer.try_reserve(Need::Message(bytes.len()), Mode::Single) {
        Ok(slot) => {
            producer.view().write(slot.position(), slot.lead(), bytes);
            producer.commit(slot, Tag::default(), Mode::Single);
            true
        }
        Err(NoSlot::Full { .. }) => false,
        Err(NoSlot::Damaged(damage)) => panic!("a sound lane looks damaged: {damage:?}"),
    }
}

/// Sends messages `first`, `first + 1`, … of 8 bytes as one array, if there is room now.
fn try_send_array(producer: &mut LaneProducer, first: u64, count: u32) -> bool {
    let bytes: Vec<u8> = (first..)
        .take(count as usize)
        .flat_map(|number| payload(number, 8))
        .collect();
    match producer.try_reserve(Need::Array(bytes.len()), Mode::Single) {
        Ok(slot) => {
            producer.view().write(slot.position(), slot.lead(), &bytes);
            producer.commit_array(slot, 8, count, Tag::default());
            true
        }
        Err(NoSlot::Full { .. }) => false,
        Err(NoSlot::Damaged(damage)) => panic!("a sound lane looks damaged: {damage:?}"),
    }
}

/// Sends as soon as there is room.
fn send(producer: &mut LaneProducer, bytes: &[u8]) {
    while !try_send(producer, bytes) {
        loom::thread::yield_now();
    }
}

/// Receives the next message without taking it, if there is one.
fn try_receive(consumer: &mut LaneConsumer) -> Option<(Position, Vec<u8>)> {
    let found = consumer.find().expect("a sound lane")?;
    let mut bytes = vec![0; found.header.payload() as usize];
    consumer
        .view()
        .read(found.position, found.header.lead(), &mut bytes);
    consumer.step_over(&found);
    Some((found.position, bytes))
}

/// Receives the next message without taking it as soon as there is one.
fn receive(consumer: &mut LaneConsumer) -> (Position, Vec<u8>) {
    loop {
        match try_receive(consumer) {
            Some(message) => return message,
            None => loom::thread::yield_now(),
        }
    }
}

/// A lane that was used before: messages of these lengths passed through it, so that old headers
/// and old payload follow everywhere.
fn used_lane(lengths: &[usize]) -> (LaneProducer, LaneConsumer) {
    let lane = LaneView::model(CAPACITY);
    let mut producer = LaneProducer::take_over(lane.clone()).expect("a new lane");
    let mut consumer = LaneConsumer::take_over(lane, 0).expect("a new lane");
    for &length in lengths {
        let bytes = payload(0xEE, length);
        assert!(try_send(&mut producer, &bytes));
        assert_eq!(try_receive(&mut consumer).expect("just sent").1, bytes);
        consumer.take();
        consumer.release();
    }
    (producer, consumer)
}
