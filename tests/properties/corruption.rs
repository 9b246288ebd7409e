//! Any bytes in the segment: an error that says so, a poisoned lane, or nothing. Never a panic, a
//! signal or a hang.
//!
//! The bytes are written through the file in /dev/shm: the same pages as the mapping, reached by
//! another way, as a process would that knows nothing of the library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use semring::{
    Address, AttachError, OpenError, Position, Producer, RecvError, Ring, SendError, any, mpsc,
};
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

use crate::superblock::{
    CONSUMER_PAGE, CONSUMER_WORDS, LANE_WORDS, Memory, STATE_AT, SUPERBLOCK_BYTES, lane_word,
};

const CAPACITY: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(600);
const MOMENT: Duration = Duration::from_micros(200);

/// A ring with something in each lane, and another way to its bytes.
struct Victim {
    guard: RingGuard,
    ring: mpsc::Ring,
    memory: Memory,
}

impl Victim {
    fn new(lanes: usize) -> Self {
        let guard = RingGuard::new("victim");
        let builder = mpsc::Builder::new(guard.posix())
            .capacity(CAPACITY)
            .producers(lanes);
        let ring = builder.create().unwrap();
        // From here on the guard knows the set, whatever the superblock says.
        guard.objects();
        let memory = Memory::open(guard.name(), lanes, CAPACITY);
        Self {
            guard,
            ring,
            memory,
        }
    }

    fn filled(lanes: usize) -> Self {
        let victim = Self::new(lanes);
        let mut producers: Vec<_> = (0..lanes)
            .map(|_| victim.ring.producer().unwrap())
            .collect();
        for producer in &mut producers {
            for number in 0..5u8 {
                producer
                    .send(&vec![number; 100 * usize::from(number)])
                    .unwrap();
            }
        }
        victim
    }

    fn address(&self) -> Address {
        self.guard.posix().parse().unwrap()
    }
}

/// The most messages that a lane of 4096 bytes can seem to hold, twice over.
const MANY: usize = 2 * 512;

fn use_producer<K: semring::Kind>(producer: &mut Producer<K>) {
    let _ = producer.probe();
    for len in [0, 1, 100, 1024, 7] {
        let _ = producer.try_send(&vec![0xEE; len]);
    }
    let _ = producer.send_timeout(&[1; 1000], MOMENT);
    if let Ok(mut reservation) = producer.try_reserve(64) {
        reservation.write_at(0, &[7; 64]);
        reservation.truncate(10);
        reservation.commit();
    }
    let mut batch = producer.batch();
    for len in [0, 3, 500] {
        let _ = batch.try_push(&vec![0xBB; len]);
    }
    batch.commit();
    let _ = (
        producer.position(),
        producer.sent_messages(),
        producer.kernel_calls(),
    );
    let _ = producer.await_next_consumer();
}

/// Receives until there is nothing; gives the lanes that were reported as poisoned.
fn use_consumer<K: semring::Kind>(ring: &Ring<K>) -> Result<Vec<usize>, AttachError> {
    let mut consumer = ring.consumer()?;
    let mut poisoned = Vec::new();
    let mut messages = 0;
    let mut note = |error: RecvError| match error {
        RecvError::Poisoned { lane, .. } => poisoned.push(lane),
        RecvError::Empty | RecvError::EndOfStream | RecvError::TimedOut => {}
        other => panic!("{other}"),
    };
    // Some one by one, some put back, the rest as a batch: the batch must have an end of its own.
    for _ in 0..4 {
        match consumer.try_recv() {
            Ok(message) => {
                assert!(message.len() <= 1024);
                drop(message.to_vec());
                message.put_back();
            }
            Err(error) => note(error),
        }
        match consumer.recv_timeout(MOMENT) {
            Ok(message) => drop(message.to_vec()),
            Err(error) => note(error),
        }
    }
    let _ = consumer.flush_released();
    match consumer.try_recv_batch() {
        Ok(mut batch) => {
            while let Some(message) = batch.next_message() {
                drop(message.to_vec());
                messages += 1;
                assert!(messages <= MANY * ring.lanes(), "a batch without an end");
            }
            batch.put_back();
        }
        Err(error) => note(error),
    }
    messages = 0;
    loop {
        match consumer.try_recv() {
            Ok(message) => drop(message.to_vec()),
            Err(RecvError::Empty | RecvError::EndOfStream) => break,
            Err(error) => note(error),
        }
        messages += 1;
        assert!(messages <= MANY * ring.lanes(), "messages without an end");
    }
    let _ = (
        consumer.received_messages(),
        consumer.attached_producers(),
        consumer.kernel_calls(),
    );
    assert_eq!(consumer.poisoned_lanes(), poisoned.len());
    let _ = consumer.remove_at_end();
    Ok(poisoned)
}

/// Everything that a user can do with a ring of this name.
fn use_everything(victim: &Victim) {
    let address = victim.address();
    let _ = semring::inspect(&address);
    let listed = semring::list();
    assert!(listed.iter().all(|info| !info.uuid.is_empty()));
    let ring = any::open(victim.guard.posix());
    if let Ok(ring) = &ring {
        let info = ring.info().unwrap();
        assert!(info.unread_messages() <= (MANY * ring.lanes()) as u64);
        let mut producers: Vec<_> = (0..ring.lanes())
            .map_while(|_| ring.producer().ok())
            .collect();
        producers.iter_mut().for_each(use_producer);
        let reported = use_consumer(ring);
        producers.iter_mut().for_each(use_producer);
        drop(producers);
        if let Ok(mut reported) = reported {
            let lanes = reported.len();
            reported.sort_unstable();
            reported.dedup();
            assert_eq!(reported.len(), lanes, "a lane is reported once");
        }
        let _ = use_consumer(ring);
        let _ = ring.remove_if_done();
    }
    // What is in the way of this name is an error at once, or a ring.
    let _ = any::Builder::new(victim.guard.posix())
        .capacity(CAPACITY)
        .producers(2)
        .open_or_create();
    let _ = semring::remove(&address, false);
    let _ = semring::remove(&address, true);
}

const WORDS: [u64; 16] = [
    0,
    1,
    4,
    7,
    8,
    1 << 12,
    (1 << 12) + 8,
    1 << 20,
    1 << 31,
    1 << 32,
    1 << 63,
    u64::MAX,
    u64::MAX - 7,
    0xA5 << 56,
    0xA5 << 56 | 1 << 31,
    0x5A5A_5A5A_5A5A_5A5A,
];

fn control_words(memory: &Memory) -> Vec<(&'static str, u64)> {
    let consumer = CONSUMER_WORDS.map(|(name, at)| (name, CONSUMER_PAGE + at));
    let lane = LANE_WORDS.map(|(name, at)| (name, memory.lane(0) + at));
    consumer.into_iter().chain(lane).collect()
}

#[test]
fn no_control_word_can_hold_what_breaks_an_opener() {
    let _watchdog = Watchdog::new(PATIENCE, "control words before attaching");
    let words = control_words(&Victim::new(1).memory);
    for (name, at) in words {
        for word in WORDS {
            let victim = Victim::filled(2);
            victim.memory.write_word(at, word);
            eprintln!("{name} = {word:#x}");
            use_everything(&victim);
        }
    }
}

#[test]
fn no_control_word_can_hold_what_breaks_those_who_are_attached() {
    let _watchdog = Watchdog::new(PATIENCE, "control words while attached");
    let words = control_words(&Victim::new(1).memory);
    for (name, at) in words {
        for word in WORDS {
            let victim = Victim::filled(1);
            let mut producer = victim.ring.producer().unwrap();
            let mut consumer = victim.ring.consumer().unwrap();
            consumer.recv().unwrap().release();
            eprintln!("{name} = {word:#x}");
            victim.memory.write_word(at, word);
            use_producer(&mut producer);
            let mut messages = 0;
            loop {
                match consumer.try_recv() {
                    Ok(message) => drop(message.to_vec()),
                    Err(RecvError::Poisoned { lane, .. }) => assert_eq!(lane, 0),
                    Err(_) => break,
                }
                messages += 1;
                assert!(messages <= MANY);
            }
            let _ = victim.ring.info();
            use_producer(&mut producer);
            drop(consumer);
            let _ = use_consumer(&victim.ring);
            producer.close();
            use_everything(&victim);
        }
    }
}

fn send_until_refused(producer: &mut mpsc::Producer) -> SendError {
    (0..100)
        .find_map(|_| producer.try_send(&[0; 100]).err())
        .expect("a lane of 4096 bytes fills")
}

#[test]
fn a_lie_about_what_was_released_poisons_the_producers_lane() {
    let _watchdog = Watchdog::new(PATIENCE, "released");
    for lie in [u64::MAX, 1 << 40, 4097, 1, 1 << 63] {
        let victim = Victim::new(2);
        let mut producer = victim.ring.producer().unwrap();
        let released = victim.memory.lane(0) + lane_word("released");
        victim.memory.write_word(released, lie);
        assert_eq!(
            send_until_refused(&mut producer),
            SendError::Poisoned,
            "{lie:#x}"
        );
        assert_eq!(
            producer.send(&[0; 1024]),
            Err(SendError::Poisoned),
            "and it does not wait"
        );
        drop(producer);
        // The lane has no more producers; the other one has.
        assert_eq!(victim.ring.producer().unwrap().lane(), 1);
        let second = victim.ring.producer().unwrap();
        let refused = victim.ring.producer().map(|producer| producer.lane());
        assert!(
            matches!(refused, Err(AttachError::Poisoned { lane: 0, .. })),
            "{refused:?}"
        );
        drop(second);
    }
}

#[test]
fn a_lie_about_what_was_committed_is_told_to_a_successor() {
    let _watchdog = Watchdog::new(PATIENCE, "committed");
    for lie in [1, 4, 4095, u64::MAX, 1 << 62] {
        let victim = Victim::new(1);
        victim
            .memory
            .write_word(victim.memory.lane(0) + lane_word("committed"), lie);
        let refused = victim.ring.producer().map(drop).unwrap_err();
        assert!(
            matches!(refused, AttachError::Poisoned { lane: 0, .. }),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(
            text.contains("lane 0") && text.contains("remove the ring"),
            "{text}"
        );
        // The seat was given back.
        assert!(victim.ring.info().unwrap().lanes[0].producer_pid.is_none());
    }
}

#[test]
fn headers_that_lead_from_one_to_the_next_for_ever_have_an_end() {
    let _watchdog = Watchdog::new(PATIENCE, "header loops");
    let message = |len: u64| 0xA5 << 56 | len;
    for (step, header) in [
        (8, message(0)),
        (16, message(8)),
        (64, message(50)),
        (1024, message(1016)),
    ] {
        let victim = Victim::new(1);
        for at in (0..CAPACITY).step_by(step) {
            victim.memory.write_word(victim.memory.data(0) + at, header);
        }
        assert!(matches!(
            victim.ring.producer(),
            Err(AttachError::Poisoned { .. })
        ));
        assert_eq!(use_consumer(&victim.ring).unwrap(), [0], "step {step}");
        use_everything(&victim);
    }
}

#[test]
fn a_message_across_the_end_of_the_lane_is_damage() {
    let _watchdog = Watchdog::new(PATIENCE, "across the end");
    for (rest, len) in [(8, 1), (16, 100), (512, 505), (1024, 1017)] {
        let victim = Victim::new(1);
        let start = CAPACITY - rest;
        for word in ["committed", "released"] {
            let at = victim.memory.lane(0) + lane_word(word);
            victim.memory.write_word(at, start);
        }
        let at = victim.memory.data(0) + start;
        victim.memory.write_word(at, 0xA5 << 56 | len);
        let refused = victim.ring.producer().map(drop);
        let position = Position::new(start);
        assert_eq!(refused, Err(AttachError::Poisoned { lane: 0, position }));
        assert_eq!(use_consumer(&victim.ring).unwrap(), [0]);
        use_everything(&victim);
    }
}

#[test]
fn pads_everywhere_are_damage() {
    let _watchdog = Watchdog::new(PATIENCE, "pads");
    let pad = |bytes: u64| 0xA5 << 56 | 1 << 31 | (bytes - 8);
    // Each pad reaches to the end, as a sound one does, and one that reaches round the whole lane.
    let victim = Victim::new(1);
    for at in (0..CAPACITY).step_by(8) {
        victim
            .memory
            .write_word(victim.memory.data(0) + at, pad(CAPACITY - at));
    }
    let refused = victim.ring.producer().map(drop);
    assert_eq!(
        refused,
        Err(AttachError::Poisoned {
            lane: 0,
            position: Position::new(0)
        })
    );
    assert_eq!(use_consumer(&victim.ring).unwrap(), [0]);
    use_everything(&victim);
}

#[test]
fn garbage_in_the_wait_words_costs_a_wake_up_and_no_more() {
    let _watchdog = Watchdog::new(PATIENCE, "wait words");
    let victim = Victim::new(1);
    let mut producer = victim.ring.producer().unwrap();
    let mut consumer = victim.ring.consumer().unwrap();
    for word in [1, u64::MAX, 1 << 63] {
        victim.memory.write_word(CONSUMER_PAGE, word);
        victim
            .memory
            .write_word(victim.memory.lane(0) + lane_word("wait word"), word);
        for number in 0..200u32 {
            producer.send(&number.to_le_bytes()).unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), number.to_le_bytes());
            consumer.flush_released().unwrap();
        }
    }
    // And a sleeper is woken as ever.
    thread::scope(|scope| {
        let waiting = scope.spawn(move || consumer.recv().map(|message| message.to_vec()));
        producer.send(b"on").unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), b"on");
    });
}

#[test]
fn generations_at_their_end_begin_again() {
    let _watchdog = Watchdog::new(PATIENCE, "generations");
    let victim = Victim::new(1);
    victim.memory.write_word(CONSUMER_PAGE + 0x80, u64::MAX);
    victim.memory.write_word(
        victim.memory.lane(0) + lane_word("generation"),
        u64::MAX - 1,
    );
    for round in 0..4u8 {
        let mut consumer = victim.ring.consumer().unwrap();
        let mut producer = victim.ring.producer().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let first = consumer.recv().map(|message| message.to_vec());
                (first, consumer.recv().map(|message| message.to_vec()))
            });
            producer.send(&[round]).unwrap();
            drop(producer);
            let (message, end) = waiting.join().unwrap();
            assert_eq!(message.unwrap(), [round]);
            assert_eq!(end, Err(RecvError::EndOfStream));
        });
    }
}

#[test]
fn garbage_about_the_last_end_of_stream_spoils_no_message() {
    let _watchdog = Watchdog::new(PATIENCE, "end of stream");
    for word in WORDS {
        let victim = Victim::new(1);
        victim.memory.write_word(CONSUMER_PAGE + 0x100, word);
        let mut producer = victim.ring.producer().unwrap();
        let mut consumer = victim.ring.consumer().unwrap();
        producer.send(b"one").unwrap();
        drop(producer);
        assert_eq!(consumer.recv().unwrap().to_vec(), b"one");
        // After a message the end is due, whatever was noted before.
        assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream));
    }
}

#[test]
fn a_poisoned_lane_is_reported_once_and_the_others_go_on() {
    let _watchdog = Watchdog::new(PATIENCE, "a poisoned lane");
    let victim = Victim::new(3);
    let mut producers: Vec<_> = (0..3).map(|_| victim.ring.producer().unwrap()).collect();
    let mut consumer = victim.ring.consumer().unwrap();
    for producer in &mut producers {
        producer.send(b"first").unwrap();
        producer.send(b"second").unwrap();
    }
    victim.memory.write_word(victim.memory.data(1) + 16, 0xBAD);
    let mut received = [0; 3];
    let mut reports = Vec::new();
    let mut receive_all = |received: &mut [i32; 3]| loop {
        match consumer.try_recv() {
            Ok(message) => received[message.lane()] += 1,
            Err(RecvError::Poisoned { lane, position }) => reports.push((lane, position.get())),
            Err(RecvError::Empty) => break,
            Err(other) => panic!("{other}"),
        }
    };
    receive_all(&mut received);
    assert_eq!(received, [2, 1, 2]);
    for producer in &mut producers {
        producer.send(b"third").unwrap();
    }
    receive_all(&mut received);
    assert_eq!(received, [3, 1, 3]);
    assert_eq!(reports, [(1, 16)]);
    let info = victim.ring.info().unwrap();
    let poisoned: Vec<_> = info.lanes.iter().map(|lane| lane.poisoned).collect();
    assert_eq!(poisoned, [None, Some(Position::new(16)), None]);
    // The end comes all the same.
    drop(producers);
    assert_eq!(consumer.recv().err(), Some(RecvError::EndOfStream));
    assert_eq!(consumer.poisoned_lanes(), 1);
    drop(consumer);
    assert_eq!(
        use_consumer(&victim.ring).unwrap(),
        [1],
        "a new consumer is told, too"
    );
}

#[test]
fn a_lane_that_a_batch_finds_damaged_is_reported_by_the_next_call() {
    let victim = Victim::new(1);
    let mut producer = victim.ring.producer().unwrap();
    let mut consumer = victim.ring.consumer().unwrap();
    producer.send(b"sound").unwrap();
    victim.memory.write_word(victim.memory.data(0) + 16, 0xBAD);
    let mut batch = consumer.recv_batch().unwrap();
    assert_eq!(batch.next_message().unwrap().to_vec(), b"sound");
    assert!(batch.next_message().is_none());
    drop(batch);
    let position = Position::new(16);
    assert_eq!(
        consumer.recv().err(),
        Some(RecvError::Poisoned { lane: 0, position })
    );
    assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
}

#[test]
fn a_superblock_that_was_never_finished_is_no_ring_and_says_so() {
    let _watchdog = Watchdog::new(PATIENCE, "an unfinished superblock");
    for state in [0u32, 1] {
        for zeros in [false, true] {
            let victim = Victim::new(2);
            if zeros {
                victim.memory.write(0, &[0; SUPERBLOCK_BYTES]);
            }
            victim.memory.write(STATE_AT as u64, &state.to_le_bytes());
            let opened = any::open(victim.guard.posix()).map(drop).unwrap_err();
            assert!(matches!(opened, OpenError::NotARing { .. }), "{opened}");
            let made = any::Builder::new(victim.guard.posix())
                .open_or_create()
                .map(drop);
            assert!(made.unwrap_err().to_string().contains("not a ring"));
            assert!(semring::inspect(&victim.address()).is_err());
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_no_ring() {
    let victim = Victim::new(2);
    let path = format!("/dev/shm/{}", victim.guard.name());
    for len in [victim.memory.len() - 1, 8192, 4096, 100, 0] {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // The mapping of the test's own handle is not touched from here on.
        file.set_len(len).unwrap();
        let refused = any::open(victim.guard.posix()).map(drop).unwrap_err();
        assert!(
            matches!(refused, OpenError::NotARing { .. }),
            "{len}: {refused}"
        );
        assert!(semring::inspect(&victim.address()).is_err());
        assert!(
            semring::list()
                .iter()
                .all(|info| info.address != victim.address())
        );
    }
}

/// Where bytes are written: anywhere, or where they matter.
fn place() -> impl Strategy<Value = u64> {
    let memory_len = 0x2000 + 2 * 0x2000 + 2 * CAPACITY;
    prop_oneof![
        1 => 0..memory_len - 8,
        2 => 0u64..0x160,
        1 => 0xff0u64..0x1000 - 8,
        2 => (0..CONSUMER_WORDS.len()).prop_map(|word| CONSUMER_PAGE + CONSUMER_WORDS[word].1),
        4 => (0u64..2, 0..LANE_WORDS.len()).prop_map(|(lane, word)| 0x2000 + lane * 0x2000 + LANE_WORDS[word].1),
        4 => (0u64..1024).prop_map(|word| 0x6000 + word * 8),
    ]
}

/// What is written: anything, or what could pass.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => any::<u64>(),
        2 => (0..WORDS.len()).prop_map(|word| WORDS[word]),
        2 => (0u64..1200).prop_map(|len| 0xA5 << 56 | len),
        2 => (0u64..1 << 8, 0u64..1200).prop_map(|(fields, len)| 0xA5 << 56 | fields << 48 | len),
        1 => (0u64..1024).prop_map(|len| 0xA5 << 56 | 1 << 31 | len),
        2 => (0u64..2048).prop_map(|position| position * 8),
        1 => 0u64..300,
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn any_bytes_anywhere_are_survived() {
    let _watchdog = Watchdog::new(PATIENCE, "any bytes anywhere");
    let writes = vec((place(), word()), 1..12);
    proptest!(config(300), |(writes in writes, sign: bool, before: bool)| {
        let victim = Victim::filled(2);
        if before {
            for &(at, word) in &writes {
                victim.memory.write_word(at, word);
            }
            if sign {
                victim.memory.sign();
            }
        } else {
            // Under the hands of those who are attached.
            let mut producer = victim.ring.producer().unwrap();
            let mut consumer = victim.ring.consumer().unwrap();
            for &(at, word) in &writes {
                victim.memory.write_word(at, word);
                use_producer(&mut producer);
                for _ in 0..20 {
                    let _ = consumer.try_recv().map(|message| message.to_vec());
                }
            }
        }
        use_everything(&victim);
    });
}

#[test]
fn a_superblock_of_any_fields_and_a_right_checksum_is_survived() {
    let _watchdog = Watchdog::new(PATIENCE, "signed superblocks");
    let fields = vec((0u64..0x90, prop_oneof![any::<u8>(), 0u8..4]), 1..6);
    proptest!(config(500), |(fields in fields)| {
        let victim = Victim::filled(2);
        for (at, byte) in fields {
            victim.memory.write(at, &[byte]);
        }
        victim.memory.sign();
        use_everything(&victim);
    });
}

#[test]
fn bytes_that_change_under_the_hands_are_survived() {
    let _watchdog = Watchdog::new(PATIENCE, "a live vandal");
    for seed in 0..8u64 {
        let victim = Victim::new(2);
        let done = AtomicBool::new(false);
        let mut producer = victim.ring.producer().unwrap();
        let mut consumer = victim.ring.consumer().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = seed << 32 | 0x9E37_79B9;
                for _ in 0..3000 {
                    // xorshift64
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let at = 0x1000 + random % (victim.memory.len() - 0x1000) / 8 * 8;
                    let word = WORDS[(random >> 40) as usize % WORDS.len()];
                    victim.memory.write_word(at, word);
                }
                done.store(true, Ordering::Release);
            });
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    use_producer(&mut producer);
                }
            });
            while !done.load(Ordering::Acquire) {
                let _ = consumer.try_recv().map(|message| message.to_vec());
                if let Ok(mut batch) = consumer.try_recv_batch() {
                    for _ in 0..MANY {
                        let Some(message) = batch.next_message() else {
                            break;
                        };
                        drop(message.to_vec());
                    }
                }
            }
        });
        drop((producer, consumer));
        use_everything(&victim);
    }
}

#[test]
fn looking_changes_nothing() {
    let victim = Victim::filled(2);
    let before = victim.memory.read();
    let info = semring::inspect(&victim.address()).unwrap();
    assert_eq!(info.unread_messages(), 10);
    assert!(semring::list().iter().any(|ring| ring.uuid == info.uuid));
    any::open(victim.guard.posix()).unwrap().info().unwrap();
    assert_eq!(victim.memory.read(), before);
    assert_eq!(
        victim.memory.read_word(0),
        u64::from_le_bytes(*b"SEMRING\0")
    );
}
