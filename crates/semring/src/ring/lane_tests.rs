//! One lane, both halves in one thread: every length, every kill point, every false value in its
//! control words.

use std::collections::VecDeque;
use std::sync::Arc;

use super::consume::{Found, LaneConsumer};
use super::produce::{LaneProducer, Mode, Need, NoSlot, Slot};
use crate::layout::record::{HEADER_BYTES, Record, Tag, decode, message_header, record_bytes};
use crate::layout::view::{LaneView, RingView};
use crate::layout::{Capacity, Framing, Geometry, Position};
use crate::memory::Segment;
use crate::sync::Ordering;

pub(super) const CAPACITY: u64 = 4096;
pub(super) const QUARTER: usize = 1024;

pub(super) fn lanes(count: usize) -> Vec<LaneView> {
    let geometry = Geometry::new(count, Capacity::exact(CAPACITY).unwrap()).unwrap();
    let segment = Arc::new(Segment::heap(geometry.segment_bytes()));
    let ring = RingView::new(segment, geometry).unwrap();
    (0..count).map(|lane| ring.lane(lane)).collect()
}

pub(super) fn lane() -> LaneView {
    lanes(1).remove(0)
}

/// Bytes that identify the message and the place in it.
pub(super) fn content(number: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (number * 31 + at * 7 + at / 256) as u8)
        .collect()
}

fn reserve(producer: &mut LaneProducer, bytes: &[u8], mode: Mode) -> Result<Slot, NoSlot> {
    let slot = producer.try_reserve(Need::Message(bytes.len()), mode)?;
    producer.view().write(slot.position(), slot.lead(), bytes);
    Ok(slot)
}

fn add(producer: &mut LaneProducer, bytes: &[u8], mode: Mode) -> Result<Position, NoSlot> {
    let slot = reserve(producer, bytes, mode)?;
    producer.commit(slot, Tag::default(), mode);
    Ok(slot.position())
}

pub(super) fn send(producer: &mut LaneProducer, bytes: &[u8]) -> Result<Position, NoSlot> {
    add(producer, bytes, Mode::Single)
}

pub(super) fn push(producer: &mut LaneProducer, bytes: &[u8]) -> Result<Position, NoSlot> {
    add(producer, bytes, Mode::Batch)
}

pub(super) fn bytes_of(view: &LaneView, found: &Found) -> Vec<u8> {
    let mut bytes = vec![0; found.header.payload() as usize];
    view.read(found.position, found.header.lead(), &mut bytes);
    bytes
}

/// The next message, found and taken, not released.
pub(super) fn take(consumer: &mut LaneConsumer) -> Option<(Position, Vec<u8>)> {
    let found = consumer.find().expect("a sound lane")?;
    let bytes = bytes_of(consumer.view(), &found);
    consumer.step_over(&found);
    consumer.take();
    Some((found.position, bytes))
}

pub(super) fn recv(consumer: &mut LaneConsumer) -> Option<Vec<u8>> {
    let (_, bytes) = take(consumer)?;
    assert!(consumer.release());
    Some(bytes)
}

pub(super) fn both(view: &LaneView) -> (LaneProducer, LaneConsumer) {
    let producer = LaneProducer::take_over(view.clone()).unwrap();
    (producer, LaneConsumer::take_over(view.clone(), 0).unwrap())
}

#[test]
fn every_length_arrives_whole_at_every_place() {
    let (mut producer, mut consumer) = both(&lane());
    for round in 0..3 {
        for len in 0..=QUARTER {
            let bytes = content(round * 10_000 + len, len);
            send(&mut producer, &bytes).unwrap();
            assert_eq!(recv(&mut consumer), Some(bytes), "length {len}");
        }
    }
    assert_eq!(recv(&mut consumer), None);
    assert_eq!(producer.sent(), 3 * 1025);
    assert_eq!(consumer.taken_messages(), 3 * 1025);
    assert_eq!(producer.tail(), consumer.position());
}

#[test]
fn meta_comes_with_the_message() {
    let (mut producer, mut consumer) = both(&lane());
    for tag in [
        Tag::default(),
        Tag::new(0xFFFF).with_framing(Framing::Unknown),
        Tag::new(7).with_framing(Framing::Line),
    ] {
        let slot = producer
            .try_reserve(Need::Message(3), Mode::Single)
            .unwrap();
        producer.commit(slot, tag, Mode::Single);
        assert_eq!(consumer.find().unwrap().unwrap().header.tag(), tag);
        recv(&mut consumer).unwrap();
    }
}

#[test]
fn a_reservation_is_invisible_and_leaves_no_trace() {
    let (mut producer, mut consumer) = both(&lane());
    let before = producer.tail();
    for len in [0, 1, 500, QUARTER] {
        let slot = reserve(&mut producer, &content(1, len), Mode::Single).unwrap();
        assert_eq!((slot.position(), slot.len()), (before, len));
        assert_eq!(consumer.find().unwrap(), None);
        assert!(!consumer.is_ready());
    }
    send(&mut producer, b"kept").unwrap();
    assert_eq!(recv(&mut consumer).as_deref(), Some(&b"kept"[..]));
    assert_eq!((producer.sent(), recv(&mut consumer)), (1, None));
}

#[test]
fn a_shortened_reservation_takes_only_what_it_needs() {
    let (mut producer, mut consumer) = both(&lane());
    for (len, shorter) in [(100, 0), (100, 99), (1024, 1), (8, 8)] {
        let before = producer.tail();
        let slot = reserve(&mut producer, &content(len, len), Mode::Single)
            .unwrap()
            .shortened(shorter);
        producer.commit(slot, Tag::default(), Mode::Single);
        assert_eq!(
            producer.tail().distance_from(before),
            record_bytes(HEADER_BYTES, shorter as u64)
        );
        assert_eq!(recv(&mut consumer).unwrap(), content(len, len)[..shorter]);
    }
}

#[test]
fn records_that_nearly_fill_lines_fill_them() {
    let (mut producer, mut consumer) = both(&lane());
    for len in 0..1024 {
        let before = producer.tail();
        send(&mut producer, &content(1, len)).unwrap();
        let record = producer.tail().distance_from(before) % CAPACITY;
        let bare = (8 + len as u64).next_multiple_of(8);
        // Padding before it is not counted.
        if before.get() / CAPACITY == producer.tail().get() / CAPACITY {
            assert_eq!(record, bare + if bare % 64 == 56 { 8 } else { 0 }, "{len}");
        }
        assert_eq!(recv(&mut consumer).unwrap(), content(1, len));
        consumer.release();
    }
}

/// Sends and takes messages that have this many bytes together, headers included.
fn go_on(producer: &mut LaneProducer, consumer: &mut LaneConsumer, bytes: u64) {
    let mut left = bytes;
    while left > 0 {
        let record = if left.is_multiple_of(16) { 16 } else { 8 };
        send(producer, &content(0, record as usize - 8)).unwrap();
        recv(consumer).unwrap();
        left -= record;
    }
}

#[test]
fn longest_message_follows_padding_at_any_offset() {
    for rest in (8..=1200).step_by(8) {
        let (mut producer, mut consumer) = both(&lane());
        go_on(&mut producer, &mut consumer, CAPACITY - rest);
        consumer.release();
        send(&mut producer, &content(1, 1024)).unwrap();
        assert_eq!(recv(&mut consumer).unwrap(), content(1, 1024), "{rest}");
    }
}

#[test]
fn long_payloads_begin_at_a_line_wherever_the_record_does() {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    for round in 0..300 {
        // Lengths on both sides of the limit for alignment, and records that begin at every word of a
        // line.
        for len in [round % 70, 1016 + round % 9, 1023, 1024] {
            let bytes = content(round, len);
            let at = send(&mut producer, &bytes).unwrap();
            let found = consumer.find().unwrap().unwrap();
            assert_eq!(found.position, at);
            let payload = at.get() + found.header.lead();
            if len >= 1024 {
                assert!(payload.is_multiple_of(64) && (8..=64).contains(&found.header.lead()));
            } else {
                assert_eq!(found.header.lead(), HEADER_BYTES);
            }
            assert_eq!(recv(&mut consumer).unwrap(), bytes);
            consumer.release();
        }
    }
}

#[test]
fn shortened_reservation_stays_in_place() {
    let (mut producer, mut consumer) = both(&lane());
    for len in [0, 1, 300, 1023, 1024] {
        for _ in 0..9 {
            let bytes = content(len, 1024);
            let slot = reserve(&mut producer, &bytes, Mode::Single)
                .unwrap()
                .shortened(len);
            producer.commit(slot, Tag::default(), Mode::Single);
            assert_eq!(recv(&mut consumer).unwrap(), bytes[..len]);
            consumer.release();
            send(&mut producer, b"").unwrap();
            recv(&mut consumer).unwrap();
        }
    }
}

#[test]
#[should_panic(expected = "only become shorter")]
fn a_reservation_does_not_grow() {
    let mut producer = LaneProducer::take_over(lane()).unwrap();
    let _ = producer
        .try_reserve(Need::Message(10), Mode::Single)
        .unwrap()
        .shortened(11);
}

#[test]
fn the_slack_word_stays_free() {
    // The smallest records: one less than would fit, so that the next header is never a word in
    // use.
    let (mut producer, mut consumer) = both(&lane());
    for _ in 0..CAPACITY / 8 - 1 {
        send(&mut producer, b"").unwrap();
    }
    assert_eq!(
        send(&mut producer, b"").unwrap_err(),
        NoSlot::Full { padded: false }
    );
    assert_eq!(producer.has_room_for(Need::Message(0)), Ok(false));
    let mut taken = 0;
    while take(&mut consumer).is_some() {
        taken += 1;
    }
    assert_eq!(taken, CAPACITY / 8 - 1);
    assert_eq!(
        producer.has_room_for(Need::Message(0)),
        Ok(false),
        "taken is not released"
    );
    assert!(consumer.release());
    assert!(!consumer.release(), "nothing more to give");
    assert_eq!(producer.has_room_for(Need::Message(0)), Ok(true));
    send(&mut producer, b"").unwrap();
}

#[test]
fn message_wraps_after_padding() {
    for rest in (8..=QUARTER as u64).step_by(8) {
        let view = lane();
        let (mut producer, mut consumer) = both(&view);
        // Up to `rest` bytes before the end, with nothing left unread.
        go_on(&mut producer, &mut consumer, CAPACITY - rest);
        let pad = producer.tail();
        let bytes = content(rest as usize, rest as usize);
        assert_eq!(
            send(&mut producer, &bytes).unwrap(),
            Position::new(CAPACITY)
        );
        let word = view.header(pad).load(Ordering::Relaxed);
        assert_eq!(
            decode(word, pad, view.capacity()),
            Ok(Record::Pad { bytes: rest })
        );
        let (position, got) = take(&mut consumer).unwrap();
        assert_eq!((position, got), (Position::new(CAPACITY), bytes));
    }
}

#[test]
fn padding_without_room_after_it_is_reported() {
    let (mut producer, mut consumer) = both(&lane());
    for _ in 0..3 {
        send(&mut producer, &content(1, 1000)).unwrap();
    }
    recv(&mut consumer).unwrap();
    // 1072 bytes to the end: another 1024 do not fit after 800, nor at the beginning.
    send(&mut producer, &content(2, 800)).unwrap();
    assert_eq!(
        send(&mut producer, &content(3, 1024)).unwrap_err(),
        NoSlot::Full { padded: true }
    );
    // The padding is there: the next attempt does not make another, and `padded` is false.
    assert_eq!(producer.tail(), Position::new(CAPACITY));
    assert_eq!(
        send(&mut producer, &content(3, 1024)).unwrap_err(),
        NoSlot::Full { padded: false }
    );
    recv(&mut consumer).unwrap();
    send(&mut producer, &content(3, 1024)).unwrap();
    for (number, len) in [(1, 1000), (2, 800), (3, 1024)] {
        assert_eq!(recv(&mut consumer), Some(content(number, len)));
    }
    assert_eq!(recv(&mut consumer), None);
}

#[test]
fn a_batch_appears_at_once() {
    // Begun at every place of the lap, so that padding comes first, in the middle and last.
    let (mut producer, mut consumer) = both(&lane());
    for round in 0..300 {
        let sizes = [round % 200, 3, 500, 0, 300 + round % 9];
        assert!(producer.batch_is_empty());
        for (number, len) in sizes.into_iter().enumerate() {
            push(&mut producer, &content(round + number, len)).unwrap();
            assert!(!producer.batch_is_empty());
            assert!(!consumer.is_ready());
            assert_eq!(
                consumer.find().unwrap(),
                None,
                "nothing is seen before the end"
            );
        }
        let committed = consumer.view().producer().committed.load(Ordering::Relaxed);
        assert_eq!(committed, consumer.position().get());
        assert!(producer.end_batch().is_some());
        for (number, len) in sizes.into_iter().enumerate() {
            assert_eq!(recv(&mut consumer), Some(content(round + number, len)));
        }
        assert_eq!(recv(&mut consumer), None);
    }
    assert_eq!(
        producer.end_batch(),
        None,
        "an empty batch publishes nothing"
    );
    assert_eq!(producer.sent(), 1500);
}

#[test]
fn a_batch_that_is_longer_than_the_lane_goes_out_in_parts() {
    let (mut producer, mut consumer) = both(&lane());
    let mut expected = VecDeque::new();
    let mut parts = 0;
    for number in 0..100 {
        let bytes = content(number, 200);
        while let Err(no_slot) = push(&mut producer, &bytes) {
            assert_eq!(
                no_slot,
                NoSlot::Full { padded: false },
                "in a batch padding is held back, too"
            );
            // As the channel does before it waits for room: no message stays held back.
            if producer.end_batch().is_some() {
                parts += 1;
            }
            while let Some(bytes) = recv(&mut consumer) {
                assert_eq!(Some(bytes), expected.pop_front());
            }
        }
        expected.push_back(bytes);
    }
    assert!(producer.end_batch().is_some());
    assert!(parts >= 4, "{parts}");
    while let Some(bytes) = recv(&mut consumer) {
        assert_eq!(Some(bytes), expected.pop_front());
    }
    assert!(expected.is_empty());
}

/// The stores of one publication, to be reverted one by one from the last: the rest is the state
/// that a producer leaves when it is killed there.
struct Before {
    committed: u64,
    sent: u64,
    tail: Position,
}

impl Before {
    fn of(producer: &LaneProducer) -> Self {
        let page = producer.view().producer();
        Self {
            committed: page.committed.load(Ordering::Relaxed),
            sent: page.sent.load(Ordering::Relaxed),
            tail: producer.tail(),
        }
    }

    fn without_k4(&self, view: &LaneView) {
        view.producer()
            .committed
            .store(self.committed, Ordering::Relaxed);
        view.producer().sent.store(self.sent, Ordering::Relaxed);
    }

    fn without_k3(&self, view: &LaneView) {
        self.without_k4(view);
        view.header(self.tail).store(0, Ordering::Relaxed);
    }
}

/// Bytes that look like a message, where an older lap left them.
fn old_header() -> u64 {
    message_header(HEADER_BYTES, 16, Tag::new(0xDEAD))
}

/// Runs `publish` on a lane whose tail is `lead` bytes into the lap, kills the producer at one of
/// the points, and lets a successor and the consumer take the rest.
fn kill_and_take_over(lead: usize, point: usize, messages: &[Vec<u8>], batch: bool) {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    for _ in 0..lead {
        send(&mut producer, &content(9, 24)).unwrap();
        recv(&mut consumer).unwrap();
    }
    let before = Before::of(&producer);
    let mode = if batch { Mode::Batch } else { Mode::Single };
    let tell = |message: &Vec<u8>| (message.len(), message.clone());
    for (index, message) in messages.iter().enumerate() {
        if point == 0 && index + 1 == messages.len() {
            // Reserved and filled, nothing cleared yet: an old header follows the reservation.
            let slot = reserve(&mut producer, message, mode).unwrap();
            let next = slot
                .position()
                .advance(record_bytes(HEADER_BYTES, message.len() as u64));
            view.header(next).store(old_header(), Ordering::Relaxed);
        } else {
            add(&mut producer, message, mode).unwrap();
        }
    }
    let mut survivors: Vec<_> = messages.iter().map(tell).collect();
    match point {
        // Before K1 of the last one. A batch is not published at all.
        0 => {
            survivors.pop();
            if batch {
                survivors.clear();
            }
        }
        // Between K1 and K3 of the first store that publishes.
        1 if batch => survivors.clear(),
        1 => {
            before.without_k3(&view);
            survivors.clear();
        }
        // Between K3 and K4.
        2 => {
            producer.end_batch();
            before.without_k4(&view);
        }
        // After K4, before K5.
        _ => {
            producer.end_batch();
        }
    }
    drop(producer);
    let mut successor = LaneProducer::take_over(view.clone()).unwrap();
    assert_eq!(
        successor.sent(),
        (lead + survivors.len()) as u64,
        "point {point}"
    );
    let committed = view.producer().committed.load(Ordering::Relaxed);
    assert_eq!(committed, successor.tail().get());
    send(&mut successor, b"successor").unwrap();
    for (_, bytes) in survivors {
        assert_eq!(recv(&mut consumer), Some(bytes), "point {point}");
    }
    assert_eq!(
        recv(&mut consumer).as_deref(),
        Some(&b"successor"[..]),
        "point {point}"
    );
    assert_eq!(recv(&mut consumer), None);
}

#[test]
fn successor_finds_exactly_what_was_committed() {
    // 32-byte records: 128 places of the lap, the end of the data among them.
    for lead in 0..260 {
        for point in 0..4 {
            kill_and_take_over(lead, point, &[content(1, 50)], false);
            let batch = [
                content(1, 50),
                content(2, 0),
                content(3, 300),
                content(4, 7),
            ];
            kill_and_take_over(lead, point, &batch, true);
        }
    }
}

#[test]
fn producer_killed_after_padding_leaves_it() {
    for committed_too in [false, true] {
        let view = lane();
        let (mut producer, mut consumer) = both(&view);
        for number in 0..3 {
            send(&mut producer, &content(number, 1000)).unwrap();
        }
        recv(&mut consumer).unwrap();
        send(&mut producer, &content(3, 800)).unwrap();
        let before = Before::of(&producer);
        assert_eq!(
            send(&mut producer, &content(4, 1024)).unwrap_err(),
            NoSlot::Full { padded: true }
        );
        if !committed_too {
            before.without_k4(&view);
        }
        drop(producer);
        let mut successor = LaneProducer::take_over(view.clone()).unwrap();
        assert_eq!(successor.tail(), Position::new(CAPACITY));
        assert_eq!(successor.sent(), 4, "padding is not a message");
        for number in 1..3 {
            assert_eq!(recv(&mut consumer), Some(content(number, 1000)));
        }
        send(&mut successor, b"on").unwrap();
        assert_eq!(recv(&mut consumer), Some(content(3, 800)));
        assert_eq!(recv(&mut consumer).as_deref(), Some(&b"on"[..]));
    }
}

#[test]
fn released_may_exceed_committed_after_a_batch() {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    let before = Before::of(&producer);
    for number in 0..9 {
        push(&mut producer, &content(number, 400)).unwrap();
    }
    producer.end_batch();
    before.without_k4(&view);
    drop(producer);
    for number in 0..8 {
        assert_eq!(recv(&mut consumer), Some(content(number, 400)));
    }
    // Both sides are replaced while `committed` lags.
    drop(consumer);
    let mut consumer = LaneConsumer::take_over(view.clone(), 0).unwrap();
    let mut successor = LaneProducer::take_over(view).unwrap();
    assert_eq!(successor.sent(), 9);
    assert_eq!(recv(&mut consumer), Some(content(8, 400)));
    send(&mut successor, b"on").unwrap();
    assert_eq!(recv(&mut consumer).as_deref(), Some(&b"on"[..]));
}

#[test]
fn a_new_consumer_gets_again_what_was_not_released() {
    let view = lane();
    let (mut producer, mut consumer) = both(&view);
    let positions: Vec<_> = (0..6)
        .map(|number| send(&mut producer, &content(number, 100)).unwrap())
        .collect();
    recv(&mut consumer).unwrap();
    recv(&mut consumer).unwrap();
    take(&mut consumer).unwrap();
    let found = consumer.find().unwrap().unwrap();
    consumer.step_over(&found);
    drop(consumer);
    let mut successor = LaneConsumer::take_over(view, 0).unwrap();
    assert_eq!(successor.taken_messages(), 2);
    for (number, position) in positions.into_iter().enumerate().skip(2) {
        assert_eq!(take(&mut successor), Some((position, content(number, 100))));
    }
    assert_eq!(take(&mut successor), None);
}

#[test]
fn stepping_back_redelivers_unreleased_messages() {
    let (mut producer, mut consumer) = both(&lane());
    // The lap ends among the messages, so padding is passed in both directions, too.
    for number in 0..11 {
        send(&mut producer, &content(number, 300)).unwrap();
        recv(&mut consumer).unwrap();
    }
    let sent: Vec<_> = (0..5)
        .map(|number| (send(&mut producer, &content(number, 280)).unwrap(), number))
        .collect();
    take(&mut consumer).unwrap();
    for _ in 0..3 {
        for (position, number) in &sent[1..] {
            let found = consumer.find().unwrap().unwrap();
            assert_eq!(found.position, *position);
            assert_eq!(bytes_of(consumer.view(), &found), content(*number, 280));
            consumer.step_over(&found);
        }
        assert_eq!(consumer.find().unwrap(), None);
        consumer.step_back();
        assert_eq!(consumer.taken_messages(), 12);
    }
    for (position, number) in &sent[1..] {
        assert_eq!(
            take(&mut consumer),
            Some((*position, content(*number, 280)))
        );
    }
}
