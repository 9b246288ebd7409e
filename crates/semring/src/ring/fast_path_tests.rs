//! The fast path never lets a message pass that the slow path would refuse.

use proptest::prelude::*;

use super::Damage;
use super::consume::LaneConsumer;
use super::lane_tests::{lanes, push, send};
use super::produce::{LaneProducer, Mode, Need};
use crate::layout::Position;
use crate::layout::record::{HEADER_BYTES, Tag, message_header, pad_header};
use crate::layout::view::LaneView;
use crate::sync::Ordering;

const CAPACITY: u64 = 4096;

fn put(view: &LaneView, at: u64, word: u64) {
    view.header(Position::new(at))
        .store(word, Ordering::Relaxed);
}

fn message(len: u32) -> u64 {
    message_header(HEADER_BYTES, len, Tag::default())
}

/// The merge's step after the fast path found nothing: true if there is a message, which is then found but
/// not taken.
fn find_slow(consumer: &mut LaneConsumer) -> bool {
    let Ok(Some(found)) = consumer.find() else {
        return false;
    };
    consumer.open_fast_path(u64::MAX);
    consumer.step_over(&found);
    true
}

#[test]
fn after_a_pad_stays_before_the_trusted_end() {
    let view = lanes(1).remove(0);
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    view.producer().committed.store(CAPACITY, Ordering::Relaxed);
    let pad = CAPACITY - 512;
    for at in (0..pad).step_by(512) {
        put(&view, at, message(504));
    }
    put(&view, pad, pad_header(512));
    // Found without release, as in a batch: the bytes at the beginning are not free again.
    assert_eq!(
        (0..pad)
            .step_by(512)
            .filter(|_| find_slow(&mut consumer))
            .count(),
        7
    );
    put(&view, 0, 0);
    assert_eq!(consumer.find(), Ok(None));
    put(&view, 0, message(8));
    assert_eq!(consumer.load_header(), None);
    let position = Position::new(CAPACITY);
    assert_eq!(consumer.find(), Err(Damage { position }));
}

#[test]
fn after_a_pad_finds_nothing_at_corruption() {
    let view = lanes(1).remove(0);
    let start = CAPACITY - 64;
    view.consumer().released.store(start, Ordering::Relaxed);
    view.producer().committed.store(CAPACITY, Ordering::Relaxed);
    put(&view, start, message(8));
    put(&view, start + 16, pad_header(48));
    put(&view, 0, u64::MAX);
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    assert!(find_slow(&mut consumer));
    assert!(consumer.find().is_err());
    consumer.step_back();
    // No impossible bytes up to there; bytes that are stored there later do not count.
    assert!(find_slow(&mut consumer));
    put(&view, 0, message(8));
    assert_eq!(consumer.find(), Ok(None));
    assert_eq!(consumer.load_header(), None);
}

/// An event of a lane, which may be read by a consumer, and written by a process that writes
/// anything.
#[derive(Clone, Copy, Debug)]
enum Event {
    Load,
    LoadAndTake,
    Find { at_most: u64 },
    Take,
    Release,
    StepBack,
    Message { at: u64, len: u32, gap: u64 },
    Pad { before_end: u64 },
    Clear { at: u64 },
    Anything { at: u64, word: u64 },
    Committed { word: u64 },
}

/// Not a header, or nearly one: one bit is wrong, or it is padding of which only the length is
/// right.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u32..64, 0u32..64).prop_map(|(len, bit)| message(len) ^ 1 << bit),
        (1u64..16).prop_map(|words| pad_header(8 * words)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let at = || prop_oneof![0u64..8, 496u64..512, 0u64..512].prop_map(|slot| slot * 8);
    let len = || prop_oneof![0u32..64, 0u32..1100];
    prop_oneof![
        8 => Just(Event::Load),
        8 => Just(Event::LoadAndTake),
        4 => prop_oneof![Just(u64::MAX), 0u64..2048].prop_map(|at_most| Event::Find { at_most }),
        2 => Just(Event::Take),
        2 => Just(Event::Release),
        1 => Just(Event::StepBack),
        8 => (at(), len(), 0u64..8)
            .prop_map(|(at, len, gap)| Event::Message { at, len, gap }),
        2 => (1u64..16).prop_map(|words| Event::Pad { before_end: 8 * words }),
        1 => at().prop_map(|at| Event::Clear { at }),
        2 => (at(), word()).prop_map(|(at, word)| Event::Anything { at, word }),
        1 => prop_oneof![0u64..3 * 4096, any::<u64>()].prop_map(|word| Event::Committed { word }),
    ]
}

proptest! {
    #[test]
    fn finds_what_the_slow_path_finds(
        start in prop_oneof![Just(0u64), 0u64..1024],
        len in 0u32..200,
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let view = lanes(1).remove(0);
        view.consumer().released.store(start * 8, Ordering::Relaxed);
        view.producer().committed.store(start * 8, Ordering::Relaxed);
        // A plausible header nearly everywhere.
        for at in (0..CAPACITY).step_by(8) {
            put(&view, at, message(len));
        }
        let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
        for event in events {
            match event {
                Event::Load => {
                    if let Some(found) = consumer.load_header() {
                        prop_assert_eq!(consumer.find(), Ok(Some(found)));
                        consumer.step_over(&found);
                    }
                }
                Event::LoadAndTake => {
                    if let Some(found) = consumer.load_header() {
                        prop_assert_eq!(consumer.find(), Ok(Some(found)));
                        // As the channel does: a single message is taken when no batch is open.
                        consumer.take();
                        let taken = consumer.taken_messages();
                        let to_settle = consumer.take_one(&found);
                        prop_assert_eq!(consumer.taken_messages(), taken.wrapping_add(1));
                        prop_assert_eq!(to_settle, consumer.is_due());
                        prop_assert_eq!(consumer.position(), found.position.advance(found.header.bytes()));
                    }
                }
                Event::Find { at_most } => {
                    if let Ok(Some(found)) = consumer.find() {
                        consumer.open_fast_path(at_most);
                        consumer.step_over(&found);
                    }
                }
                Event::Take => consumer.take(),
                Event::Release => {
                    let _ = consumer.release();
                },
                Event::StepBack => {
                    let stepped = consumer.stepped_messages();
                    let read = consumer.position();
                    consumer.step_back();
                    prop_assert!(stepped > 0 || consumer.position() == read);
                    prop_assert_eq!(consumer.stepped_messages(), 0);
                }
                Event::Message { at, len, gap } => {
                    put(&view, at, message_header(8 + gap * 8, len, Tag::default()));
                }
                Event::Pad { before_end } => {
                    put(&view, CAPACITY - before_end, pad_header(before_end));
                }
                Event::Clear { at } => put(&view, at, 0),
                Event::Anything { at, word } => put(&view, at, word),
                Event::Committed { word } => view.producer().committed.store(word, Ordering::Relaxed),
            }
        }
    }

    #[test]
    fn gives_slots_that_the_slow_path_gives(
        sends in proptest::collection::vec((0usize..=1024, 0u8..8, any::<u64>()), 1..400),
    ) {
        let view = lanes(1).remove(0);
        let mut producer = LaneProducer::take_over(view.clone()).unwrap();
        let mut in_batch = false;
        for (len, what, word) in sends {
            match what {
                // The consumer follows, or stores a false value.
                0 => view.consumer().released.store(producer.tail().get(), Ordering::Relaxed),
                1 => view.consumer().released.store(word, Ordering::Relaxed),
                2 => producer.open_fast_path(word % 2048),
                3 => {
                    let _ = if in_batch { push(&mut producer, &vec![7; len]) } else { send(&mut producer, &vec![7; len]) };
                }
                4 => {
                    let _ = producer.end_batch();
                    in_batch = !in_batch;
                }
                _ => {
                    let len = if what == 5 { len } else { len % 32 };
                    if let Some(slot) = producer.fast_slot(len) {
                        let tail = producer.tail();
                        let mode = if in_batch { Mode::Batch } else { Mode::Single };
                        let asked = producer.try_reserve(Need::Message(len), mode);
                        prop_assert_eq!(asked.map(|asked| (asked.position(), asked.len())), Ok((slot.position(), len)));
                        prop_assert_eq!(producer.tail(), tail, "padding was needed");
                        producer.commit(slot.shortened(len - len / 2), Tag::default(), mode);
                    }
                }
            }
        }
    }
}
