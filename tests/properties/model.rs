//! Random sequences of operations against one `VecDeque` for each lane.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use semring::{
    Consumer, Framing, Kind, MessageRef, Position, Producer, RecvError, Ring, SendError, Tag, mpsc,
    spsc,
};
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

mod together;

/// Bytes of the record that ends a line.
const CUT: u64 = 8;

const FRAMINGS: [Framing; 4] = [
    Framing::Plain,
    Framing::LinePart,
    Framing::Raw,
    Framing::Unknown,
];

const CAPACITY: u64 = 4096;
const MAX: usize = 1024;

#[derive(Clone, Debug)]
enum Op {
    TrySend {
        lane: usize,
        len: usize,
    },
    /// Reserves, writes in two parts, shortens, and commits or discards.
    Reserve {
        lane: usize,
        len: usize,
        keep: usize,
        tag: u8,
        commit: bool,
    },
    Batch {
        lane: usize,
        lens: Vec<usize>,
    },
    /// Messages of 8 bytes, or of 100, as one array or several.
    SendAll {
        lane: usize,
        count: usize,
        is_long: bool,
    },
    /// The same written in place, and shortened.
    ReserveArray {
        lane: usize,
        size: usize,
        count: usize,
        keep: usize,
    },
    /// Releases at most `count` messages of an array.
    RecvArray {
        waits: bool,
        count: usize,
        then: Then,
    },
    Recv {
        waits: bool,
        then: Then,
    },
    /// Takes at most this many out.
    RecvBatch {
        waits: bool,
        count: usize,
        then: Then,
    },
    Flush,
    DropProducer {
        lane: usize,
    },
    NewProducer,
    ReopenConsumer,
}

/// What to do with the received messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Release,
    PutBack,
    /// Never dropped (`mem::forget`), which puts it back as well.
    Forget,
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        4 => Just(Then::Release),
        1 => Just(Then::PutBack),
        1 => Just(Then::Forget),
    ]
}

/// Lengths of every kind: empty, small, the longest, too long, any.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0usize),
        6 => 1usize..64,
        2 => (MAX - 8)..=MAX,
        1 => (MAX + 1)..(2 * MAX),
        4 => 0usize..=MAX,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let lane = 0usize..3;
    prop_oneof![
        8 => (lane.clone(), len()).prop_map(|(lane, len)| Op::TrySend { lane, len }),
        4 => (lane.clone(), len(), 0usize..=MAX, 0u8..16, any::<bool>()).prop_map(
            |(lane, len, keep, tag, commit)| Op::Reserve { lane, len, keep, tag, commit }
        ),
        3 => (lane.clone(), vec(len(), 0..20)).prop_map(|(lane, lens)| Op::Batch { lane, lens }),
        4 => (lane.clone(), 0usize..150, any::<bool>())
            .prop_map(|(lane, count, is_long)| Op::SendAll { lane, count, is_long }),
        3 => (lane.clone(), 1usize..300, 0usize..20, 0usize..20)
            .prop_map(|(lane, size, count, keep)| Op::ReserveArray { lane, size, count, keep }),
        5 => (any::<bool>(), 0usize..100, then())
            .prop_map(|(waits, count, then)| Op::RecvArray { waits, count, then }),
        12 => (any::<bool>(), then()).prop_map(|(waits, then)| Op::Recv { waits, then }),
        4 => (any::<bool>(), 0usize..30, then())
            .prop_map(|(waits, count, then)| Op::RecvBatch { waits, count, then }),
        1 => Just(Op::Flush),
        1 => lane.prop_map(|lane| Op::DropProducer { lane }),
        2 => Just(Op::NewProducer),
        1 => Just(Op::ReopenConsumer),
    ]
}

/// Messages committed and not received.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent {
    position: Position,
    tag: Tag,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Lane {
    unread: VecDeque<Sent>,
    tail: u64,
    committed: u64,
    /// The lane ends inside a line: a new producer ends it with a record of [`CUT`] bytes.
    open_line: bool,
    /// There was no room for that record yet: it comes before the next message.
    cut_due: bool,
}

impl Lane {
    /// From the beginning of a record to its payload: a long one begins at a cache line.
    fn lead(position: u64, len: usize) -> u64 {
        if len >= 1024 { 64 - position % 64 } else { 8 }
    }

    /// Nearly full lines are filled up, unless a payload begins at one anyway.
    fn record(lead: u64, bytes: usize) -> u64 {
        let record = (lead + bytes as u64).next_multiple_of(8);
        let trail = if lead == 8 && record % 64 == 56 { 8 } else { 0 };
        record + trail
    }

    /// The same of an array whose messages have `len` bytes together.
    fn array_lead(position: u64, len: usize) -> u64 {
        if len >= 1024 {
            16 + (64 - (position + 16) % 64) % 64
        } else {
            16
        }
    }

    /// The position of a message of this length: after padding if it would cross the end of the
    /// lane.
    fn place(&self, len: usize) -> u64 {
        self.place_with(len, Self::lead)
    }

    fn place_with(&self, len: usize, lead: fn(u64, usize) -> u64) -> u64 {
        let begin = self.tail + if self.cut_due { CUT } else { 0 };
        let rest = CAPACITY - begin % CAPACITY;
        if Self::record(lead(begin, len), len) > rest {
            begin + rest
        } else {
            begin
        }
    }

    /// A message for which room of this length was reserved.
    fn commit(&mut self, len: usize, tag: Tag, bytes: Vec<u8>) {
        let position = self.place(len);
        // The payload stays where it was reserved if it became shorter.
        self.tail = position + Self::record(Self::lead(position, len), bytes.len());
        self.committed += 1;
        self.open_line = tag.framing.continues();
        self.cut_due = false;
        self.unread.push_back(Sent {
            position: Position::new(position),
            tag,
            bytes,
        });
        let oldest = self.unread.front().expect("just pushed").position.get();
        assert!(
            self.tail - oldest + 8 <= CAPACITY,
            "more is unread than the lane holds"
        );
    }
}

struct World<K: Kind> {
    ring: Ring<K>,
    producers: Vec<Option<Producer<K>>>,
    consumer: Option<Consumer>,
    lanes: Vec<Lane>,
    received: u64,
    attached: u64,
    /// An end of stream was delivered, and no producer has attached since.
    ended: bool,
    number: usize,
}

type Check = Result<(), TestCaseError>;

impl<K: Kind> World<K> {
    fn new(ring: Ring<K>) -> Self {
        let lanes = ring.lanes();
        let mut world = Self {
            producers: (0..lanes).map(|_| None).collect(),
            consumer: Some(ring.attach_consumer().unwrap()),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            ring,
            received: 0,
            attached: 0,
            // A ring to which no producer ever attached has not ended.
            ended: true,
            number: 0,
        };
        (0..lanes).for_each(|_| world.new_producer());
        world
    }

    fn new_producer(&mut self) {
        let Some(lane) = self.producers.iter().position(Option::is_none) else {
            return;
        };
        let producer = self.ring.attach_producer().unwrap();
        assert_eq!(producer.lane(), lane, "the lowest free lane");
        // Padding that a predecessor published without a message after it is found as well.
        let model = &mut self.lanes[lane];
        let moved = producer.position().get() - model.tail;
        let at_end = |bytes: u64| (model.tail + bytes).is_multiple_of(CAPACITY);
        let has_cut = model.open_line && moved >= CUT && (moved == CUT || at_end(moved - CUT));
        assert!(moved == 0 || has_cut || at_end(moved), "{moved} bytes");
        model.cut_due = model.open_line && !has_cut;
        model.open_line = model.cut_due;
        assert_eq!(producer.sent_messages(), model.committed);
        model.tail += moved;
        self.producers[lane] = Some(producer);
        self.attached += 1;
        self.ended = false;
    }

    fn content(&mut self, len: usize) -> Vec<u8> {
        self.number += 1;
        let number = self.number;
        (0..len)
            .map(|at| (number * 37 + at * 11 + at / 256) as u8)
            .collect()
    }

    /// Full is right only if something is in the way: a lane in which everything was released takes
    /// any message.
    fn check_full(&mut self, lane: usize) -> Check {
        let flushed = self
            .consumer
            .as_mut()
            .map(|consumer| consumer.flush_released());
        prop_assert!(matches!(flushed, None | Some(Ok(()))));
        // Padding may have been published on the way.
        let producer = self.producers[lane].as_mut().expect("it was used");
        let model = &mut self.lanes[lane];
        let tail = producer.position().get();
        if tail > model.tail && model.cut_due {
            (model.cut_due, model.open_line) = (false, false);
        }
        model.tail = tail;
        if model.unread.is_empty() {
            prop_assert!(
                producer.try_reserve(MAX).is_ok(),
                "full, and nothing is in it"
            );
            model.tail = producer.position().get();
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Check {
        match op {
            Op::TrySend { lane, len } => self.try_send(lane % self.lanes.len(), len),
            Op::Reserve {
                lane,
                len,
                keep,
                tag,
                commit,
            } => {
                let framing = FRAMINGS[usize::from(tag) % FRAMINGS.len()];
                let tag = Tag::new(u16::from(tag) * 4099).with_framing(framing);
                self.reserve(lane % self.lanes.len(), len, keep, tag, commit)
            }
            Op::Batch { lane, lens } => self.batch(lane % self.lanes.len(), &lens),
            Op::SendAll {
                lane,
                count,
                is_long,
            } => {
                let lane = lane % self.lanes.len();
                if is_long {
                    self.send_all::<100>(lane, count)
                } else {
                    self.send_all::<8>(lane, count)
                }
            }
            Op::ReserveArray {
                lane,
                size,
                count,
                keep,
            } => self.reserve_array(lane % self.lanes.len(), size, count, keep),
            Op::RecvArray { waits, count, then } => self.recv_array(waits, count, then),
            Op::Recv { waits, then } => self.recv(waits, then),
            Op::RecvBatch { waits, count, then } => self.recv_batch(waits, count, then),
            Op::Flush => {
                self.consumer
                    .as_mut()
                    .expect("there is one")
                    .flush_released()
                    .unwrap();
                self.check_counts()
            }
            Op::DropProducer { lane } => {
                let lane = lane % self.lanes.len();
                self.producers[lane] = None;
                Ok(())
            }
            Op::NewProducer => {
                self.new_producer();
                Ok(())
            }
            Op::ReopenConsumer => {
                self.consumer = None;
                self.check_counts()?;
                self.consumer = Some(self.ring.attach_consumer().unwrap());
                // Producers of the old one get the error once, from the call that checks
                // first.
                for producer in self.producers.iter_mut().flatten() {
                    prop_assert_eq!(producer.accept_next_consumer(), Ok(()));
                }
                Ok(())
            }
        }
    }

    fn try_send(&mut self, lane: usize, len: usize) -> Check {
        let bytes = self.content(len);
        let Some(producer) = &mut self.producers[lane] else {
            return Ok(());
        };
        match producer.try_send(&bytes) {
            Ok(()) => {
                self.lanes[lane].commit(len, Tag::default(), bytes);
                let tail = self.lanes[lane].tail;
                prop_assert_eq!(producer.position(), Position::new(tail));
                Ok(())
            }
            Err(SendError::TooLong { max }) => {
                prop_assert!(max == MAX && len > MAX);
                Ok(())
            }
            Err(SendError::Full) => self.check_full(lane),
            Err(other) => Err(TestCaseError::fail(format!("try_send: {other}"))),
        }
    }

    fn reserve(&mut self, lane: usize, len: usize, keep: usize, tag: Tag, commit: bool) -> Check {
        let mut bytes = self.content(len);
        let Some(producer) = &mut self.producers[lane] else {
            return Ok(());
        };
        let mut reservation = match producer.try_reserve(len) {
            Ok(reservation) => reservation,
            Err(SendError::TooLong { .. }) => {
                prop_assert!(len > MAX);
                return Ok(());
            }
            Err(SendError::Full) => return self.check_full(lane),
            Err(other) => return Err(TestCaseError::fail(format!("try_reserve: {other}"))),
        };
        let model = &mut self.lanes[lane];
        prop_assert_eq!(reservation.position().get(), model.place(len));
        prop_assert_eq!(reservation.len(), len);
        let middle = len / 3;
        reservation.write_at(middle, &bytes[middle..]);
        reservation.write_at(0, &bytes[..middle]);
        let keep = keep.min(len);
        reservation.truncate(keep);
        bytes.truncate(keep);
        reservation.set_tag(tag);
        // The cut and the padding before it are there, even if the reservation is dropped.
        model.tail = model.place(len);
        if std::mem::take(&mut model.cut_due) {
            model.open_line = false;
        }
        if commit {
            reservation.commit();
            model.commit(len, tag, bytes);
        } else {
            reservation.discard();
        }
        prop_assert_eq!(producer.position().get(), model.tail);
        Ok(())
    }

    fn check_message(&mut self, lane: usize, seen: &Sent) -> Check {
        prop_assert_eq!(Some(seen), self.lanes[lane].unread.front(), "lane {}", lane);
        Ok(())
    }

    fn seen(view: &MessageRef<'_>) -> (usize, Sent) {
        let sent = Sent {
            position: view.position(),
            tag: view.tag(),
            bytes: view.to_vec(),
        };
        assert_eq!(sent.bytes.len(), view.len());
        (view.lane(), sent)
    }

    fn check_none(&mut self, error: RecvError) -> Check {
        let unread: usize = self.lanes.iter().map(|lane| lane.unread.len()).sum();
        prop_assert_eq!(unread, 0, "{}", error);
        match error {
            RecvError::Empty | RecvError::TimedOut => {}
            RecvError::EndOfStream { .. } => {
                prop_assert!(self.producers.iter().all(Option::is_none));
                prop_assert!(!self.ended, "the same end twice");
                self.ended = true;
                let consumer = self.consumer.as_mut().expect("there is one");
                prop_assert_eq!(consumer.try_recv().err(), Some(error));
                consumer.resume();
            }
            other => prop_assert!(false, "{}", other),
        }
        Ok(())
    }

    fn recv(&mut self, waits: bool, then: Then) -> Check {
        let consumer = self.consumer.as_mut().expect("there is one");
        let received = if waits {
            consumer.recv_deadline(Duration::ZERO)
        } else {
            consumer.try_recv()
        };
        let received = received.map(|message| {
            let seen = Self::seen(&message.as_message_ref());
            match then {
                Then::Release => message.release(),
                Then::PutBack => message.put_back(),
                Then::Forget => std::mem::forget(message),
            }
            seen
        });
        let (lane, sent) = match received {
            Ok(seen) => seen,
            Err(error) => return self.check_none(error),
        };
        self.check_message(lane, &sent)?;
        if then == Then::Release {
            self.lanes[lane].unread.pop_front();
            self.received += 1;
        }
        Ok(())
    }

    /// After everything taken was released: the state seen from outside.
    fn check_counts(&mut self) -> Check {
        let info = self.ring.info().unwrap();
        let received: u64 = info.lanes.iter().map(|lane| lane.received_messages).sum();
        prop_assert_eq!(received, self.received);
        for (lane, (info, model)) in info.lanes.iter().zip(&self.lanes).enumerate() {
            prop_assert_eq!(
                info.unread_messages,
                model.unread.len() as u64,
                "lane {}",
                lane
            );
            prop_assert_eq!(info.sent_messages, model.committed);
            prop_assert_eq!(info.producer_pid.is_some(), self.producers[lane].is_some());
            prop_assert_eq!((info.lost_messages, info.corrupt_at), (0, None));
        }
        prop_assert_eq!(info.consumer_pid.is_some(), self.consumer.is_some());
        let attached: u64 = info.lanes.iter().map(|lane| lane.attached_producers).sum();
        prop_assert_eq!(attached, self.attached);
        Ok(())
    }

    /// Everything that is left arrives, then the end, then nothing.
    fn finish(mut self) -> Check {
        self.producers
            .iter_mut()
            .for_each(|producer| drop(producer.take()));
        let mut consumer = self.consumer.take().expect("there is one");
        for _ in 0..self.lanes.iter().map(|lane| lane.unread.len()).sum() {
            let message = consumer
                .recv()
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let (lane, sent) = Self::seen(&message.as_message_ref());
            drop(message);
            prop_assert_eq!(Some(sent), self.lanes[lane].unread.pop_front());
            self.received += 1;
            self.ended = false;
        }
        if !self.ended {
            let end = consumer.recv().err();
            let is_end = matches!(end, Some(RecvError::EndOfStream { .. }));
            prop_assert!(is_end, "{:?}", end);
            prop_assert_eq!(consumer.recv().err(), end);
            consumer.resume();
        }
        let after = consumer.recv_deadline(Duration::from_micros(1));
        prop_assert_eq!(after.err(), Some(RecvError::TimedOut));
        prop_assert_eq!(consumer.received_messages(), self.received);
        prop_assert!(consumer.remove_at_end().unwrap().is_removed());
        Ok(())
    }
}

fn run<K: Kind>(ring: Ring<K>, guard: &RingGuard, ops: Vec<Op>) -> Check {
    let mut world = World::new(ring);
    guard.objects();
    for op in ops {
        world.apply(op)?;
    }
    world.finish()?;
    prop_assert_eq!(guard.objects(), []);
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const HANG_TIMEOUT: Duration = Duration::from_secs(600);

macro_rules! against_a_queue {
    ($test:ident, $kind:ident, $backend:ident $(, $producers:literal)?) => {
        #[test]
        fn $test() {
            let _watchdog = Watchdog::new(HANG_TIMEOUT, stringify!($test));
            proptest!(config(), |(ops in vec(op(), 1..120))| {
                let guard = RingGuard::new(stringify!($test));
                let builder = $kind::Builder::new(guard.$backend()).capacity(CAPACITY);
                $(let builder = builder.producers($producers);)?
                run(builder.create().unwrap(), &guard, ops)?;
            });
        }
    };
}

against_a_queue!(an_spsc_ring_in_posix_memory_is_a_queue, spsc, posix);
against_a_queue!(an_spsc_ring_in_sysv_memory_is_a_queue, spsc, sysv);
against_a_queue!(
    an_mpsc_ring_in_posix_memory_is_a_queue_for_each_lane,
    mpsc,
    posix,
    3
);
against_a_queue!(
    an_mpsc_ring_in_sysv_memory_is_a_queue_for_each_lane,
    mpsc,
    sysv,
    3
);
