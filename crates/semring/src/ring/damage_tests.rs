//! One lane with impossible control words and headers: both halves refuse them, and neither loops for ever.

use proptest::prelude::*;

use super::Damage;
use super::consume::LaneConsumer;
use super::lane_tests::{CAPACITY, QUARTER, both, bytes_of, content, lane, recv, send};
use super::produce::{LaneProducer, Need, NoSlot};
use crate::layout::Position;
use crate::layout::record::{CUT, HEADER_BYTES, Tag, message_header};
use crate::layout::view::LaneView;
use crate::sync::{AtomicU64, Ordering};

/// A full lane whose producer has to look at `released` for the next message.
fn full() -> (LaneView, LaneProducer, LaneConsumer) {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    for _ in 0..5 {
        send(&mut producer, &content(0, 1000)).unwrap();
        recv(&mut consumer).unwrap();
    }
    while send(&mut producer, &content(1, 96)).is_ok() {}
    (view, producer, consumer)
}

#[test]
fn lane_full_of_cuts_is_damage() {
    let view = lane();
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    for at in (0..CAPACITY).step_by(8) {
        view.header(Position::new(at)).store(CUT, Ordering::Relaxed);
    }
    assert!(consumer.find().is_err());
    assert!(consumer.is_corrupt());
    // And it stays so.
    assert_eq!(consumer.find(), Ok(None));
}

#[test]
fn impossible_released_is_damage_to_the_producer() {
    fn released(view: &LaneView) -> &AtomicU64 {
        &view.consumer().released
    }
    let sound = released(&full().0).load(Ordering::Relaxed);
    let tail = full().1.tail().get();
    for lie in [
        0,
        sound - 8,
        sound + 1,
        sound + 4,
        tail + 8,
        tail + CAPACITY,
        1 << 63,
        u64::MAX,
        u64::MAX - 7,
    ] {
        let (view, mut producer, _consumer) = full();
        released(&view).store(lie, Ordering::Relaxed);
        let damage = Damage {
            position: Position::new(lie),
        };
        assert_eq!(
            producer.has_room_for(Need::Message(96)),
            Err(damage),
            "{lie:#x}"
        );
        assert_eq!(
            send(&mut producer, &content(2, 96)).unwrap_err(),
            NoSlot::Damaged(damage)
        );
        // It is refused again, and by a successor as well. (A value that is too small by less than
        // the slack can't be detected.)
        assert_eq!(
            send(&mut producer, &content(2, 96)).unwrap_err(),
            NoSlot::Damaged(damage)
        );
        if lie != sound - 8 {
            assert_eq!(
                LaneProducer::take_over(view).err(),
                Some(damage),
                "{lie:#x}"
            );
        }
    }
    // The true value, stored in between, is accepted.
    let (view, mut producer, _consumer) = full();
    released(&view).store(tail, Ordering::Relaxed);
    assert!(send(&mut producer, &content(2, 96)).is_ok());
}

#[test]
fn impossible_committed_is_damage_to_a_successor() {
    for lie in [1, 7, 4, CAPACITY + 8, 2 * CAPACITY, u64::MAX, 1 << 63] {
        let view = lane();
        view.producer().committed.store(lie, Ordering::Relaxed);
        assert!(LaneProducer::take_over(view).is_err(), "{lie:#x}");
    }
}

#[test]
fn impossible_released_is_damage_to_a_new_consumer() {
    for (released, committed) in [
        (4, 0),
        (u64::MAX, 0),
        (CAPACITY + 8, 0),
        (0, CAPACITY + 8),
        (1 << 63, 0),
        (8, 1 << 40),
    ] {
        let view = lane();
        view.consumer().released.store(released, Ordering::Relaxed);
        view.producer()
            .committed
            .store(committed, Ordering::Relaxed);
        assert_eq!(
            LaneConsumer::take_over(view, 0).err(),
            Some(Damage {
                position: Position::new(released)
            }),
            "{released:#x} {committed:#x}"
        );
    }
}

#[test]
fn a_lane_at_the_end_of_all_positions_goes_on() {
    // 2^64 bytes are never sent, but a hostile word can claim it.
    let view = lane();
    let start = u64::MAX - 4095;
    view.producer().committed.store(start, Ordering::Relaxed);
    view.consumer().released.store(start, Ordering::Relaxed);
    let (mut producer, mut consumer) = both(&view);
    for number in 0..100 {
        send(&mut producer, &content(number, 100)).unwrap();
        assert_eq!(recv(&mut consumer), Some(content(number, 100)));
    }
}

#[test]
fn counters_full_of_anything_are_only_counters() {
    let view = lane();
    view.producer().sent.store(u64::MAX, Ordering::Relaxed);
    view.consumer().received.store(u64::MAX, Ordering::Relaxed);
    let (mut producer, mut consumer) = both(&view);
    send(&mut producer, b"x").unwrap();
    assert_eq!(recv(&mut consumer).as_deref(), Some(&b"x"[..]));
    assert_eq!((producer.sent(), consumer.taken_messages()), (0, 0));
}

#[test]
fn impossible_bytes_mark_the_lane_corrupt_once() {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    send(&mut producer, b"sound").unwrap();
    view.header(Position::new(16))
        .store(0x77, Ordering::Relaxed);
    assert_eq!(recv(&mut consumer).as_deref(), Some(&b"sound"[..]));
    assert!(consumer.is_ready() && !consumer.is_corrupt());
    assert_eq!(
        consumer.find(),
        Err(Damage {
            position: Position::new(16)
        })
    );
    assert!(consumer.is_corrupt() && !consumer.is_ready());
    assert_eq!(consumer.find(), Ok(None));
    assert_eq!(view.consumer().corrupt_at.load(Ordering::Relaxed), 17);
}

#[test]
fn a_message_across_the_end_of_the_lane_is_damage() {
    for (rest, len) in [
        (8, 1),
        (16, 9),
        (16, 100),
        (512, 505),
        (1024, 1017),
        (1032, 1025),
    ] {
        let view = lane();
        let start = Position::new(CAPACITY - rest);
        view.producer()
            .committed
            .store(start.get(), Ordering::Relaxed);
        view.consumer()
            .released
            .store(start.get(), Ordering::Relaxed);
        view.header(start).store(
            message_header(HEADER_BYTES, len, Tag::default()),
            Ordering::Relaxed,
        );
        let damage = Damage { position: start };
        assert_eq!(LaneProducer::take_over(view.clone()).err(), Some(damage));
        let mut consumer = LaneConsumer::take_over(view, 0).unwrap();
        assert_eq!(
            consumer.find(),
            Err(damage),
            "{len} bytes, {rest} before the end"
        );
    }
}

/// Every header word of a lane is that of a message of no bytes.
fn endless() -> LaneView {
    let view = lane();
    for at in (0..CAPACITY).step_by(8) {
        view.header(Position::new(at)).store(
            message_header(HEADER_BYTES, 0, Tag::default()),
            Ordering::Relaxed,
        );
    }
    view
}

#[test]
fn a_walk_over_headers_without_an_end_ends() {
    assert!(LaneProducer::take_over(endless()).is_err());
    // Found without release, as in a batch: a capacity and no more.
    let mut consumer = LaneConsumer::take_over(endless(), 0).unwrap();
    let mut steps = 0;
    let damage = loop {
        match consumer.find() {
            Ok(Some(found)) => consumer.step_over(&found),
            Ok(None) => panic!("it has no end"),
            Err(damage) => break damage,
        }
        steps += 1;
        assert!(steps <= CAPACITY / 8);
    };
    assert!(damage.position.get() <= CAPACITY);
    assert!(consumer.is_corrupt());
    // And released one by one: `committed` limits the number.
    let mut consumer = LaneConsumer::take_over(endless(), 0).unwrap();
    let mut steps = 0;
    while let Ok(Some(found)) = consumer.find() {
        consumer.step_over(&found);
        consumer.take();
        consumer.release();
        steps += 1;
        assert!(steps <= 2 * CAPACITY / 8);
    }
    assert!(consumer.is_corrupt());
}

proptest! {
    #[test]
    fn any_bytes_in_a_lane_end_in_messages_or_damage(
        words in proptest::collection::vec((0u64..512, any::<u64>()), 0..64),
        likely in proptest::collection::vec((0u64..512, 0u32..1100), 0..64),
        pads in any::<bool>(),
        (committed, released) in (any::<u64>(), any::<u64>()),
        control in 0u8..8,
        first in proptest::option::of(0u32..1100),
    ) {
        let view = lane();
        let put = |at: u64, word| view.header(Position::new(at * 8)).store(word, Ordering::Relaxed);
        for (at, len) in likely {
            put(at, message_header(HEADER_BYTES, len, Tag::default()));
        }
        for at in (0..512).filter(|_| pads) {
            if 512 - at <= 128 {
                put(at, crate::layout::record::pad_header((512 - at) * 8));
            }
        }
        for (at, word) in words {
            put(at, word);
        }
        let lie = |bit: u8, word: u64| if control & bit == 0 { word % 1024 * 8 } else { word };
        view.producer().committed.store(lie(1, committed), Ordering::Relaxed);
        view.consumer().released.store(lie(2, released), Ordering::Relaxed);
        // A value that can pass where the walks begin, or they end there.
        let place = view.consumer().released.load(Ordering::Relaxed) & !7;
        if let Some(first) = first {
            view.header(Position::new(place)).store(message_header(HEADER_BYTES, first, Tag::default()), Ordering::Relaxed);
        }
        if let Ok(mut producer) = LaneProducer::take_over(view.clone()) {
            for number in 0..50 {
                if send(&mut producer, &content(number, number * 20)).is_err() {
                    break;
                }
            }
        }
        if let Ok(mut consumer) = LaneConsumer::take_over(view, 0) {
            let mut messages = 0;
            while let Ok(Some(found)) = consumer.find() {
                let bytes = bytes_of(consumer.view(), &found);
                prop_assert!(bytes.len() <= QUARTER);
                consumer.step_over(&found);
                if control & 4 != 0 {
                    consumer.take();
                    consumer.release();
                }
                messages += 1;
                prop_assert!(messages <= 2 * 512, "a lane of 512 words has no end");
            }
        }
    }
}
