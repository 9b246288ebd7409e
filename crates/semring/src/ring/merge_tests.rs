//! The consumer's merge over lanes: order, fairness, release.

use super::consume::LaneConsumer;
use super::lane_tests::{bytes_of, content, lanes, send};
use super::merge::{LaneDamage, Merge, Next};
use super::produce::{LaneProducer, Mode, Need, NoSlot};
use crate::layout::record::{HEADER_BYTES, record_bytes};
use crate::layout::view::LaneView;
use crate::layout::{Capacity, Position, Tag};
use crate::sync::Ordering;

const QUARTER: u64 = 1024;

fn ring(count: usize) -> (Vec<LaneView>, Vec<LaneProducer>, Merge) {
    let views = lanes(count);
    let producers = views
        .iter()
        .map(|view| LaneProducer::take_over(view.clone()).unwrap())
        .collect();
    let consumers = views
        .iter()
        .enumerate()
        .map(|(number, view)| LaneConsumer::take_over(view.clone(), number).unwrap())
        .collect();
    (
        views,
        producers,
        Merge::new(consumers, Capacity::exact(4096).unwrap()),
    )
}

fn bytes(merge: &Merge, next: &Next) -> Vec<u8> {
    bytes_of(merge.lanes()[next.lane].view(), &next.found)
}

/// Takes and releases as the channel does: a lane is released when a quarter is due.
fn recv(merge: &mut Merge) -> Option<(usize, Vec<u8>)> {
    let next = merge.find().unwrap()?;
    let message = (next.lane, bytes(merge, &next));
    merge.lane_mut(next.lane).step_over(&next.found);
    merge.lane_mut(next.lane).take();
    if merge.lanes()[next.lane].is_due() {
        merge.lane_mut(next.lane).release();
    }
    Some(message)
}

/// The read position stays at the array's header meanwhile, before the position of its first message.
#[test]
fn turn_that_begins_with_an_array_counts_from_its_header() {
    let (_, mut producers, mut merge) = ring(2);
    let bytes: Vec<u8> = (0..4).flat_map(|number| content(number, 8)).collect();
    let need = Need::Array(bytes.len());
    let slot = producers[1].try_reserve(need, Mode::Single).unwrap();
    let view = producers[1].view();
    view.write(slot.position(), slot.lead(), &bytes);
    producers[1].commit_array(slot, 8, 4, Tag::default());
    for number in 0..4 {
        assert_eq!(recv(&mut merge), Some((1, content(number, 8))));
        if number == 1 {
            // Released inside the array, and put back there.
            merge.lane_mut(1).release();
            merge.step_back();
        }
    }
    assert_eq!(recv(&mut merge), None);
}

#[test]
fn each_lane_keeps_its_order_and_nothing_is_lost() {
    for lanes in [3, 40, 240] {
        keep_order(lanes);
    }
}

fn keep_order(lanes: usize) {
    let (_, mut producers, mut merge) = ring(lanes);
    let mut sent = vec![0; lanes];
    let mut received = vec![0; lanes];
    for round in 0..5000 * lanes {
        let lane = (round * round + round / 7) % lanes;
        // Number and length identify the message.
        let message = content(sent[lane], sent[lane] * 13 % 700);
        match send(&mut producers[lane], &message) {
            Ok(_) => sent[lane] += 1,
            Err(NoSlot::Full { .. }) => {
                let (from, got) = recv(&mut merge).expect("a full lane has messages");
                assert_eq!(got, content(received[from], received[from] * 13 % 700));
                received[from] += 1;
                for lane in 0..lanes {
                    merge.lane_mut(lane).release();
                }
            }
            Err(damage) => panic!("{damage:?}"),
        }
    }
    while let Some((from, got)) = recv(&mut merge) {
        assert_eq!(got, content(received[from], received[from] * 13 % 700));
        received[from] += 1;
    }
    assert_eq!(sent, received);
    assert!(!merge.is_ready());
}

/// Lane 0 is never empty; returns the bytes of it that come before the one message of lane 1.
fn bytes_before_the_other(others: usize, len: usize) -> Vec<u64> {
    let (_, mut producers, mut merge) = ring(others + 1);
    let fill = |producers: &mut Vec<LaneProducer>| {
        for producer in &mut producers[..others] {
            while send(producer, &content(0, len)).is_ok() {}
        }
    };
    fill(&mut producers);
    send(&mut producers[others], b"the one").unwrap();
    let mut taken = vec![0; others];
    loop {
        let (lane, message) = recv(&mut merge).unwrap();
        if lane == others {
            assert_eq!(message, b"the one");
            return taken;
        }
        taken[lane] += record_bytes(HEADER_BYTES, len as u64);
        for lane in 0..others {
            merge.lane_mut(lane).release();
        }
        fill(&mut producers);
    }
}

#[test]
fn lane_waits_at_most_a_quarter_lap_of_each_other() {
    for others in [1, 2, 7] {
        // Records that divide a quarter: exactly a quarter.
        for len in [0, 8, 24, 56, 120, 248, 504] {
            assert_eq!(
                bytes_before_the_other(others, len),
                vec![QUARTER; others],
                "length {len}"
            );
        }
        // Others: the message that passes the quarter is the last.
        for len in [1, 100, 333, 700, 1023, 1024] {
            for taken in bytes_before_the_other(others, len) {
                let record = record_bytes(HEADER_BYTES, len as u64);
                assert!(
                    taken >= QUARTER && taken < QUARTER + record,
                    "length {len}: {taken}"
                );
            }
        }
    }
}

#[test]
fn among_many_lanes_it_waits_for_some_turns_more() {
    for others in [16, 39, 239] {
        for len in [0, 120, 504] {
            let taken = bytes_before_the_other(others, len);
            let turns = taken.iter().sum::<u64>().div_ceil(QUARTER);
            assert!(turns <= 32 + others as u64, "{others} others: {turns}");
        }
    }
    // One lane that is never empty, and another one that becomes active after the first has had
    // many turns.
    let (_, mut producers, mut merge) = ring(100);
    let mut turns_before = |woken: usize, merge: &mut Merge| {
        let mut taken = 0;
        for round in 0.. {
            while send(&mut producers[7], &content(0, 120)).is_ok() {}
            if round == 1000 {
                send(&mut producers[woken], b"awake").unwrap();
            }
            assert!(round < 100_000, "lane {woken} starves");
            let (lane, _) = recv(merge).unwrap();
            merge.lane_mut(7).release();
            if lane == woken {
                break;
            }
            taken += if round >= 1000 { 128 } else { 0 };
        }
        taken / QUARTER
    };
    for woken in [0, 6, 8, 63, 64, 99] {
        let turns = turns_before(woken, &mut merge);
        assert!((1..=33).contains(&turns), "lane {woken}: {turns}");
    }
}

#[test]
fn what_is_there_is_found_on_every_lane() {
    for count in [1, 16, 17, 64, 65, 128, 240] {
        let (_, mut producers, mut merge) = ring(count);
        assert!(merge.find().unwrap().is_none() && !merge.is_ready());
        for lane in (0..count).chain((0..count).rev()) {
            send(&mut producers[lane], b"here").unwrap();
            assert!(merge.is_ready());
            assert_eq!(recv(&mut merge), Some((lane, b"here".to_vec())));
            assert!(merge.find().unwrap().is_none() && !merge.is_ready_lately());
        }
    }
}

#[test]
fn a_lane_alone_is_not_left() {
    for count in [1, 4] {
        let (_, mut producers, mut merge) = ring(count);
        let last = count - 1;
        for number in 0..1000 {
            send(&mut producers[last], &content(number, 500)).unwrap();
            assert_eq!(recv(&mut merge), Some((last, content(number, 500))));
        }
    }
}

#[test]
fn a_quarter_of_a_lap_is_released_at_once() {
    let (views, mut producers, mut merge) = ring(2);
    let released = |lane: usize| views[lane].consumer().released.load(Ordering::Relaxed);
    for _ in 0..9 {
        send(&mut producers[1], &content(0, 120)).unwrap();
    }
    for taken in 1..8 {
        recv(&mut merge).unwrap();
        assert_eq!(released(1), 0, "after {taken} messages");
    }
    recv(&mut merge).unwrap();
    assert_eq!(released(1), QUARTER);
    recv(&mut merge).unwrap();
    assert_eq!(released(1), QUARTER);
    assert!(
        merge.lane_mut(1).release() && !merge.lane_mut(1).release() && !merge.lane_mut(0).release()
    );
    assert_eq!(released(1), QUARTER + 128);
    assert_eq!(views[1].consumer().received.load(Ordering::Relaxed), 9);
}

#[test]
fn stepping_back_delivers_again_on_every_lane() {
    let (_, mut producers, mut merge) = ring(3);
    for number in 0..6 {
        for (lane, producer) in producers.iter_mut().enumerate() {
            send(producer, &content(lane * 100 + number, 50)).unwrap();
        }
    }
    let (first, _) = recv(&mut merge).unwrap();
    let mut attempts = [Vec::new(), Vec::new()];
    for attempt in &mut attempts {
        while let Some(next) = merge.find().unwrap() {
            attempt.push((next.lane, next.found.position, bytes(&merge, &next)));
            merge.lane_mut(next.lane).step_over(&next.found);
        }
        merge.step_back();
        assert!(merge.is_ready());
    }
    let [mut once, mut again] = attempts;
    assert_eq!(once.len(), 17);
    // The lanes may come in another order; the order within each lane is the same.
    once.sort_by_key(|(lane, position, _)| (*lane, *position));
    again.sort_by_key(|(lane, position, _)| (*lane, *position));
    assert_eq!(once, again);
    let of_first = once.iter().filter(|(lane, ..)| *lane == first).count();
    assert_eq!(of_first, 5, "taken messages do not come back");
}

#[test]
fn lane_stepped_back_often_keeps_none_waiting() {
    let (_, mut producers, mut merge) = ring(2);
    for producer in &mut producers {
        for number in 0..4 {
            send(producer, &content(number, 120)).unwrap();
        }
    }
    let first = merge.find().unwrap().expect("a message").lane;
    let mut turns = 0;
    while merge.find().unwrap().expect("a message").lane == first {
        let next = merge.find().unwrap().expect("a message");
        merge.lane_mut(first).step_over(&next.found);
        merge.step_back();
        turns += 1;
        assert!(turns * 128 <= QUARTER, "the other lane waits");
    }
}

#[test]
fn a_damaged_lane_is_reported_once_and_the_others_go_on() {
    let (views, mut producers, mut merge) = ring(3);
    for (lane, producer) in producers.iter_mut().enumerate() {
        send(producer, &content(lane, 40)).unwrap();
        send(producer, &content(lane, 40)).unwrap();
    }
    views[1]
        .header(Position::new(48))
        .store(u64::MAX, Ordering::Relaxed);
    let mut received = [0; 3];
    let mut damages = Vec::new();
    loop {
        match merge.find() {
            Ok(Some(next)) => {
                received[next.lane] += 1;
                merge.lane_mut(next.lane).step_over(&next.found);
                merge.lane_mut(next.lane).take();
            }
            Ok(None) => break,
            Err(damage) => damages.push(damage),
        }
    }
    assert_eq!(
        damages,
        [LaneDamage {
            lane: 1,
            position: Position::new(48)
        }]
    );
    assert_eq!(received, [2, 1, 2]);
    assert!(!merge.is_ready());
}
