//! One lane with arrays, both halves in one thread: every size at every place, consumers that end inside of an array, and
//! words that lie.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::Damage;
use super::arrays::FoundArray;
use super::consume::{Found, LaneConsumer};
use super::lane_tests::{CAPACITY, QUARTER, both, bytes_of, content, lane, recv, send};
use super::produce::{LaneProducer, Mode, Need, NoSlot};
use crate::layout::array::{array_header, array_word, partial_word};
use crate::layout::record::{HEADER_BYTES, message_header};
use crate::layout::view::LaneView;
use crate::layout::{Framing, Position, Tag};
use crate::sync::Ordering;

/// Sends messages `number`, `number + 1`, … of one size as an array.
fn send_array(
    producer: &mut LaneProducer,
    number: usize,
    size: usize,
    count: usize,
) -> Result<Position, NoSlot> {
    let bytes: Vec<u8> = (number..number + count)
        .flat_map(|number| content(number, size))
        .collect();
    let slot = producer.try_reserve(Need::Array(bytes.len()), Mode::Single)?;
    producer.view().write(slot.position(), slot.lead(), &bytes);
    producer.commit_array(slot, size as u32, count as u32, Tag::new(7));
    Ok(slot.position())
}

/// Takes the next message, and does not release it.
fn take(consumer: &mut LaneConsumer) -> Option<(Position, Vec<u8>)> {
    let found = consumer.find().expect("a sound lane")?;
    let bytes = bytes_of(consumer.view(), &found);
    if consumer.take_one(&found) {
        consumer.settle();
    }
    Some((found.position, bytes))
}

fn take_all(consumer: &mut LaneConsumer) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| take(consumer).map(|(_, bytes)| bytes)).collect()
}

fn find_array(consumer: &mut LaneConsumer) -> FoundArray {
    let first = consumer.find().unwrap().unwrap();
    consumer.array_of(first)
}

fn bytes_of_array(view: &LaneView, found: &FoundArray) -> Vec<u8> {
    let Found { position, header } = found.first;
    let mut bytes = vec![0; found.count as usize * header.payload() as usize];
    view.read(position, header.lead(), &mut bytes);
    bytes
}

#[test]
fn every_size_arrives_whole_at_every_place() {
    let (mut producer, mut consumer) = both(&lane());
    let mut number = 0;
    let mut last = None;
    for size in 1..=QUARTER {
        for count in [1, 2, 3, QUARTER / size] {
            if size * count > QUARTER || count == 0 {
                continue;
            }
            let at = send_array(&mut producer, number, size, count).unwrap();
            for index in 0..count {
                let (position, bytes) = take(&mut consumer).unwrap();
                assert_eq!(bytes, content(number + index, size), "{size} × {count}");
                assert!(
                    position > at && Some(position) > last,
                    "no other message is there"
                );
                assert!(position < producer.tail());
                last = Some(position);
                assert_eq!(consumer.is_in_array(), index + 1 < count);
            }
            assert!(consumer.release());
            number += count;
        }
    }
    assert_eq!(consumer.find(), Ok(None));
    assert_eq!(producer.sent(), number as u64);
    assert_eq!(consumer.taken_messages(), number as u64);
    assert_eq!(producer.tail(), consumer.position());
}

#[test]
fn longest_array_goes_after_padding() {
    for rest in (8..=1200).step_by(8) {
        for (size, count) in [(1024, 1), (8, 128), (1023, 1), (1, 1017)] {
            let (mut producer, mut consumer) = both(&lane());
            let mut left = CAPACITY - rest;
            while left > 0 {
                let record = if left.is_multiple_of(16) { 16 } else { 8 };
                send(&mut producer, &content(0, record as usize - 8)).unwrap();
                recv(&mut consumer).unwrap();
                left -= record;
            }
            send_array(&mut producer, 1, size, count).unwrap();
            let got = take_all(&mut consumer);
            assert_eq!(got.len(), count, "{rest}");
            assert!(
                got.iter()
                    .enumerate()
                    .all(|(index, it)| *it == content(1 + index, size))
            );
            // A successor of the producer finds its place as well.
            let tail = producer.tail();
            let successor = LaneProducer::take_over(producer.view().clone()).unwrap();
            assert_eq!(successor.tail(), tail);
        }
    }
}

#[test]
fn long_arrays_begin_at_a_line() {
    let (mut producer, mut consumer) = both(&lane());
    for round in 0..300 {
        let at = send_array(&mut producer, round, 64, 16).unwrap();
        let found = find_array(&mut consumer);
        let first = found.first.position.get() + HEADER_BYTES;
        assert!(first.is_multiple_of(64) && (16..=72).contains(&(first - at.get())));
        assert!(!consumer.take_array(&found) || !consumer.settle_array() || consumer.release());
        consumer.release();
        send(&mut producer, &content(0, round % 9 * 8)).unwrap();
        recv(&mut consumer).unwrap();
    }
}

#[test]
fn successor_goes_on_inside_an_array() {
    for taken in 0..=10 {
        let view = lane();
        let (mut producer, mut consumer) = both(&view);
        send(&mut producer, &content(0, 50)).unwrap();
        send_array(&mut producer, 1, 9, 8).unwrap();
        send_array(&mut producer, 9, 20, 3).unwrap();
        for number in 0..taken {
            let size = [50, 9, 20][usize::from(number > 0) + usize::from(number > 8)];
            assert_eq!(take(&mut consumer).unwrap().1, content(number, size));
            consumer.release();
        }
        let next = take(&mut consumer).unwrap();
        // Killed, with one more taken.
        let mut successor = LaneConsumer::take_over(view.clone(), 0).unwrap();
        assert_eq!(successor.taken_messages(), taken as u64);
        assert_eq!(take(&mut successor), Some(next));
        assert_eq!(take_all(&mut successor).len(), 11 - taken);
        successor.release();
        assert_eq!(view.consumer().partial.load(Ordering::Relaxed), 0);
        assert_eq!(view.consumer().received.load(Ordering::Relaxed), 12);
    }
}

#[test]
fn rest_of_an_array_is_taken_together() {
    for first in 0..8 {
        for then in 0..=8 - first {
            let view = lane();
            let (mut producer, mut consumer) = both(&view);
            send_array(&mut producer, 0, 16, 8).unwrap();
            send(&mut producer, &content(8, 16)).unwrap();
            for _ in 0..first {
                take(&mut consumer).unwrap();
            }
            let found = find_array(&mut consumer);
            assert_eq!(found.count, 8 - first as u32);
            let bytes: Vec<u8> = (first..8).flat_map(|number| content(number, 16)).collect();
            assert_eq!(bytes_of_array(&view, &found), bytes);
            let message = found.message(found.count - 1);
            assert_eq!(bytes_of(&view, &message), content(7, 16));
            if then == 8 - first {
                assert!(
                    consumer.take_array(&found),
                    "inside an array it is to be settled"
                );
                assert!(!consumer.settle_array());
            } else {
                consumer.take_first(&found, then as u32);
            }
            assert_eq!(consumer.taken_messages(), (first + then) as u64);
            assert_eq!(take(&mut consumer).unwrap().1, content(first + then, 16));
        }
    }
}

#[test]
fn fast_path_finds_arrays_and_opens_after_them() {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    for number in 0..6 {
        send_array(&mut producer, 10 * number, 8, 10).unwrap();
    }
    send(&mut producer, &content(60, 8)).unwrap();
    assert_eq!(consumer.load_array(), None, "not open yet");
    let first = find_array(&mut consumer);
    consumer.open_fast_path(u64::MAX);
    assert_eq!(consumer.load_array(), None, "not inside an array");
    assert_eq!(consumer.load_header(), None);
    assert!(consumer.take_array(&first));
    consumer.settle_array();
    for number in 1..5 {
        let found = consumer.load_array().expect("before the limit");
        assert_eq!(consumer.load_header(), None);
        let bytes: Vec<u8> = (10 * number..10 * number + 10)
            .flat_map(|number| content(number, 8))
            .collect();
        assert_eq!(bytes_of_array(&view, &found), bytes);
        assert!(!consumer.take_array(&found));
    }
    // Part of one: the rest is found one by one, and then the fast path is open again.
    let found = consumer.load_array().expect("before the limit");
    consumer.take_first(&found, 4);
    assert_eq!(
        (consumer.load_array(), consumer.load_header()),
        (None, None)
    );
    for number in 54..60 {
        assert_eq!(take(&mut consumer).unwrap().1, content(number, 8));
    }
    let last = consumer.load_header().expect("the fast path is open again");
    assert_eq!(bytes_of(&view, &last), content(60, 8));
}

#[test]
fn batch_put_back_returns_inside_the_array() {
    let (mut producer, mut consumer) = both(&lane());
    send_array(&mut producer, 0, 8, 5).unwrap();
    send(&mut producer, &content(5, 8)).unwrap();
    send_array(&mut producer, 6, 8, 3).unwrap();
    for _ in 0..2 {
        take(&mut consumer).unwrap();
    }
    let step = |consumer: &mut LaneConsumer| {
        let found = consumer.find().unwrap().unwrap();
        consumer.step_over(&found);
        found
    };
    let found: Vec<Found> = (0..5).map(|_| step(&mut consumer)).collect();
    assert_eq!(consumer.stepped_messages(), 5);
    consumer.step_back();
    assert_eq!(consumer.find(), Ok(Some(found[0])));
    assert!((0..5).all(|index| step(&mut consumer) == found[index]));
    // From one inside the second array on, and from one inside the first.
    for back in [4, 1, 0] {
        consumer.step_back_to(found[back].position).unwrap();
        assert_eq!(consumer.stepped_messages(), back as u64);
        assert_eq!(consumer.find(), Ok(Some(found[back])));
    }
    step(&mut consumer);
    consumer.take();
    assert!(!consumer.release(), "no bytes yet");
    assert_eq!(consumer.taken_messages(), 3);
    let mut successor = LaneConsumer::take_over(consumer.view().clone(), 0).unwrap();
    assert_eq!(successor.find(), Ok(Some(found[1])));
}

#[test]
fn changed_words_of_an_open_array_are_ignored() {
    let lies = [
        0,
        u64::MAX,
        0x77,
        message_header(8, 900, Tag::default()),
        array_header(16, 1000, Tag::default()),
        array_word(1 << 20, 3),
        array_word(0, 3),
        crate::layout::record::CUT,
    ];
    for lie in lies {
        let view = lane();
        let (mut producer, mut consumer) = both(&view);
        send_array(&mut producer, 0, 10, 4).unwrap();
        send(&mut producer, &content(4, 10)).unwrap();
        take(&mut consumer).unwrap();
        consumer.open_fast_path(u64::MAX);
        for at in [0, 8] {
            view.header(Position::new(at)).store(lie, Ordering::Relaxed);
        }
        assert!(consumer.is_ready());
        assert_eq!(
            (consumer.load_header(), consumer.load_array()),
            (None, None)
        );
        assert!(!consumer.take_cut());
        for number in 1..5 {
            assert_eq!(
                take(&mut consumer).unwrap().1,
                content(number, 10),
                "{lie:#x}"
            );
        }
        assert!(consumer.release());
    }
}

#[test]
fn array_found_again_is_checked_again() {
    for (header, word, is_sound) in [
        (
            array_header(16, 40, Tag::default()),
            array_word(20, 2),
            true,
        ),
        (
            array_header(16, 40, Tag::default()),
            array_word(0, 4),
            false,
        ),
        (
            array_header(16, 41, Tag::default()),
            array_word(10, 4),
            false,
        ),
        (
            array_header(16, 10, Tag::default()),
            array_word(10, 1),
            true,
        ),
        (message_header(8, 48, Tag::default()), 0, true),
        (0x77, 0, false),
    ] {
        let view = lane();
        let (mut producer, mut consumer) = both(&view);
        send_array(&mut producer, 0, 10, 4).unwrap();
        for _ in 0..3 {
            take(&mut consumer).unwrap();
        }
        consumer.release();
        let found = consumer.find().unwrap().unwrap();
        consumer.step_over(&found);
        consumer.step_back();
        view.header(Position::new(0))
            .store(header, Ordering::Relaxed);
        view.header(Position::new(8)).store(word, Ordering::Relaxed);
        match consumer.find() {
            // Of a shorter one none is released, nor of a message.
            Ok(Some(found)) => {
                assert!(is_sound);
                assert!(found.position.get() <= 8);
                assert_eq!(view.consumer().partial.load(Ordering::Relaxed), 0);
                take(&mut consumer).unwrap();
            }
            other => {
                let position = Position::new(0);
                assert_eq!(other, Err(Damage { position }));
                assert!(!is_sound);
            }
        }
    }
}

#[test]
fn impossible_arrays_mark_the_lane_corrupt() {
    let tag = Tag::default();
    let part = tag.with_framing(Framing::LinePart);
    for (header, word) in [
        (array_header(16, 40, tag), array_word(0, 4)),
        (array_header(16, 40, tag), array_word(10, 0)),
        (array_header(16, 40, tag), array_word(10, 5)),
        (array_header(16, 40, tag), u64::MAX),
        (array_header(16, 0, tag), 0),
        (array_header(16, 1025, tag), array_word(1025, 1)),
        (array_header(16, 40, part), array_word(10, 4)),
    ] {
        let view = lane();
        let mut producer = LaneProducer::take_over(view.clone()).unwrap();
        send(&mut producer, b"sound").unwrap();
        view.header(Position::new(16))
            .store(header, Ordering::Relaxed);
        view.header(Position::new(24))
            .store(word, Ordering::Relaxed);
        let position = Position::new(16);
        let damage = Damage { position };
        let successor = LaneProducer::take_over(view.clone());
        assert_eq!(successor.err(), Some(damage), "{header:#x} {word:#x}");
        let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
        recv(&mut consumer).unwrap();
        consumer.open_fast_path(u64::MAX);
        assert_eq!(consumer.load_array(), None);
        assert_eq!(consumer.find(), Err(damage), "{header:#x} {word:#x}");
        assert_eq!(consumer.find(), Ok(None));
        assert!(!consumer.is_ready());
    }
}

#[test]
fn partial_that_fits_nothing_is_cleared() {
    let at = Position::new(0);
    for (partial, first) in [
        (0, 0),
        (partial_word(at, 1), 1),
        (partial_word(at, 3), 3),
        (partial_word(at, 4), 0),
        (partial_word(at, u32::MAX), 0),
        (partial_word(Position::new(8), 2), 0),
        (partial_word(Position::new(4 << 30), 2), 0),
        (u64::MAX, 0),
        (1 << 32, 0),
    ] {
        let view = lane();
        let mut producer = LaneProducer::take_over(view.clone()).unwrap();
        send_array(&mut producer, 0, 10, 4).unwrap();
        let word = &view.consumer().partial;
        word.store(partial, Ordering::Relaxed);
        let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
        assert_eq!(
            take(&mut consumer).unwrap().1,
            content(first, 10),
            "{partial:#x}"
        );
        let kept = if first == 0 { 0 } else { partial };
        assert_eq!(word.load(Ordering::Relaxed), kept, "{partial:#x}");
        assert_eq!(take_all(&mut consumer).len(), 3 - first);
        consumer.release();
        assert_eq!(word.load(Ordering::Relaxed), 0);
    }
}

/// A hostile word that fits a cut: no message of the array behind the cut is skipped.
#[test]
fn partial_that_fits_a_cut_is_cleared() {
    let view = lane();
    let mut producer = LaneProducer::take_over(view.clone()).unwrap();
    let tag = Tag::default().with_framing(Framing::LinePart);
    let slot = producer
        .try_reserve(Need::Message(8), Mode::Single)
        .unwrap();
    producer.commit(slot, tag, Mode::Single);
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    let part = consumer.find().unwrap().unwrap();
    consumer.take_part(&part);
    consumer.release();
    let mut producer = LaneProducer::take_over(view.clone()).unwrap();
    send_array(&mut producer, 0, 10, 4).unwrap();
    let word = &view.consumer().partial;
    word.store(partial_word(consumer.position(), 2), Ordering::Relaxed);
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    assert!(consumer.take_cut());
    assert_eq!(take_all(&mut consumer).len(), 4);
    assert_eq!(word.load(Ordering::Relaxed), 0);
}

/// Each store of the publication undone from the last on: the state that a killed producer leaves.
#[test]
fn successor_counts_messages_of_a_published_array() {
    let view = lane();
    let mut producer = LaneProducer::take_over(view.clone()).unwrap();
    send(&mut producer, b"before").unwrap();
    let page = view.producer();
    let committed = page.committed.load(Ordering::Relaxed);
    send_array(&mut producer, 0, 8, 5).unwrap();
    let tail = producer.tail();
    page.committed.store(committed, Ordering::Relaxed);
    page.sent.store(1, Ordering::Relaxed);
    let successor = LaneProducer::take_over(view.clone()).unwrap();
    assert_eq!((successor.tail(), successor.sent()), (tail, 6));
    // Not published: nothing of it.
    page.committed.store(committed, Ordering::Relaxed);
    page.sent.store(1, Ordering::Relaxed);
    view.header(Position::new(committed))
        .store(0, Ordering::Relaxed);
    let successor = LaneProducer::take_over(view).unwrap();
    assert_eq!((successor.tail().get(), successor.sent()), (committed, 1));
}

#[derive(Clone, Debug)]
enum Op {
    Send {
        size: usize,
    },
    SendArray {
        size: usize,
        count: usize,
    },
    Take {
        count: usize,
    },
    /// At most this number of messages of an array.
    TakeArray {
        count: usize,
    },
    Step {
        count: usize,
        then: u8,
    },
    Release,
    /// The consumer is killed, and has a successor.
    Kill,
    KillProducer,
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![1usize..20, 1usize..200, Just(1024)];
    prop_oneof![
        3 => (0usize..200).prop_map(|size| Op::Send { size }),
        4 => (size(), 1usize..40).prop_map(|(size, count)| Op::SendArray { size, count }),
        4 => (1usize..30).prop_map(|count| Op::Take { count }),
        3 => (0usize..40).prop_map(|count| Op::TakeArray { count }),
        2 => (0usize..30, 0u8..3).prop_map(|(count, then)| Op::Step { count, then }),
        3 => Just(Op::Release),
        2 => Just(Op::Kill),
        1 => Just(Op::KillProducer),
    ]
}

proptest! {
    #[test]
    fn any_mix_redelivers_what_was_not_released(
        ops in proptest::collection::vec(op(), 1..150), start in 0u64..512,
    ) {
        let view = lane();
        let at = start * 8 + (32 << 30) - 4096;
        view.consumer().released.store(at, Ordering::Relaxed);
        view.producer().committed.store(at, Ordering::Relaxed);
        let (mut producer, mut consumer) = both(&view);
        let mut sent = 0;
        // Not released: with their positions once they were seen. The first `taken` of them are taken.
        let mut queue: VecDeque<(Option<Position>, Vec<u8>)> = VecDeque::new();
        let mut taken = 0;
        let mut released = 0u64;
        for op in ops {
            match op {
                Op::Send { size } => {
                    if send(&mut producer, &content(sent, size)).is_ok() {
                        queue.push_back((None, content(sent, size)));
                        sent += 1;
                    }
                }
                Op::SendArray { size, count } => {
                    let count = count.min(1024 / size);
                    if send_array(&mut producer, sent, size, count).is_ok() {
                        queue.extend((sent..sent + count).map(|number| (None, content(number, size))));
                        sent += count;
                    }
                }
                Op::Take { count } => for _ in 0..count {
                    let got = take(&mut consumer);
                    let Some(expected) = queue.get_mut(taken) else {
                        prop_assert_eq!(got, None);
                        break;
                    };
                    let (position, bytes) = got.expect("a message that was sent");
                    prop_assert_eq!(&bytes, &expected.1);
                    prop_assert_eq!(expected.0.unwrap_or(position), position);
                    expected.0 = Some(position);
                    taken += 1;
                    if taken % 3 == 0 {
                        consumer.open_fast_path(u64::MAX);
                    }
                },
                Op::TakeArray { count } => {
                    let found = consumer.load_array();
                    let found = found.or_else(|| {
                        let first = consumer.find().unwrap()?;
                        Some(consumer.array_of(first))
                    });
                    let Some(found) = found else {
                        prop_assert_eq!(taken, queue.len());
                        continue;
                    };
                    let count = count.min(found.count as usize);
                    let all: Vec<u8> = queue.range(taken..taken + found.count as usize).flat_map(|it| it.1.clone()).collect();
                    prop_assert_eq!(bytes_of_array(&view, &found), all);
                    if count == found.count as usize {
                        if consumer.take_array(&found) {
                            consumer.settle_array();
                        }
                    } else {
                        consumer.take_first(&found, count as u32);
                    }
                    for index in 0..count {
                        let position = found.message(index as u32).position;
                        let expected = &mut queue[taken + index].0;
                        prop_assert_eq!(expected.unwrap_or(position), position);
                        *expected = Some(position);
                    }
                    taken += count;
                }
                Op::Step { count, then } => {
                    let mut places = Vec::new();
                    while places.len() < count && let Some(found) = consumer.find().unwrap() {
                        prop_assert_eq!(&bytes_of(&view, &found), &queue[taken + places.len()].1);
                        consumer.step_over(&found);
                        places.push(found.position);
                    }
                    prop_assert_eq!(places.len(), count.min(queue.len() - taken));
                    match then {
                        0 => consumer.step_back(),
                        1 if !places.is_empty() => {
                            let keep = count / 2 % places.len();
                            consumer.step_back_to(places[keep]).unwrap();
                            consumer.take();
                            taken += keep;
                        }
                        _ => {
                            consumer.take();
                            taken += places.len();
                        }
                    }
                }
                Op::Release => {
                    consumer.release();
                    queue.drain(..taken);
                    released += taken as u64;
                    taken = 0;
                    prop_assert_eq!(view.consumer().received.load(Ordering::Relaxed), released);
                }
                Op::Kill => {
                    consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
                    taken = 0;
                    prop_assert_eq!(consumer.taken_messages(), released);
                }
                Op::KillProducer => {
                    producer = LaneProducer::take_over(view.clone()).unwrap();
                    prop_assert_eq!(producer.sent(), sent as u64);
                }
            }
        }
        let rest = take_all(&mut consumer);
        let expected: Vec<Vec<u8>> = queue.range(taken..).map(|it| it.1.clone()).collect();
        prop_assert_eq!(rest, expected);
        prop_assert_eq!(consumer.position(), producer.tail());
    }
}
