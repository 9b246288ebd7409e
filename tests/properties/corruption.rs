//! Any bytes in the segment: an error, a corrupt lane, or no effect. Never a panic, a signal or a
//! hang.
//!
//! The bytes are written through the file in /dev/shm: the same pages as the mapping, reached
//! another way, as by a process without the library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use semring::{
    Address, AttachError, Feature, OpenError, Position, Producer, RecvError, Ring, SendError, any,
    mpsc,
};
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

use crate::rings;
use crate::superblock::{
    CONSUMER_PAGE, CONSUMER_WORDS, LANE_WORDS, Memory, STATE_AT, SUPERBLOCK_BYTES, lane_word,
};

mod chosen;

const CAPACITY: u64 = 4096;
const HANG_TIMEOUT: Duration = Duration::from_secs(600);
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
        let builder = rings::mpsc(guard.posix())
            .capacity(CAPACITY)
            .producers(lanes);
        let ring = builder.create().unwrap();
        // From here on the guard has seen the set, independent of the superblock.
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
            .map(|_| victim.ring.attach_producer().unwrap())
            .collect();
        for producer in &mut producers {
            for number in 0..4u8 {
                producer
                    .send(&vec![number; 100 * usize::from(number)])
                    .unwrap();
            }
            producer.send_all(&[[9; 40]; 10]).unwrap();
        }
        victim
    }

    fn address(&self) -> Address {
        self.guard.posix().parse().unwrap()
    }
}

/// The most messages that a lane of 4096 bytes can seem to hold, twice over: of one byte each, in arrays.
const MANY: usize = 2 * 4096;

fn use_producer<K: semring::Kind>(producer: &mut Producer<K>) {
    let _ = producer.check_consumer();
    for len in [0, 1, 100, 1024, 7] {
        let _ = producer.try_send(&vec![0xEE; len]);
    }
    let _ = producer.send_deadline(&[1; 1000], MOMENT);
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
    let _ = producer.try_send_all(&[[5; 8]; 20]);
    if let Ok(array) = producer.try_reserve_array(3, 7) {
        array.commit(2);
    }
    let _ = (
        producer.position(),
        producer.sent_messages(),
        producer.wait_stats(),
    );
    let _ = producer.accept_next_consumer();
}

/// Receives until there is nothing; gives the lanes that were reported as corrupt.
fn use_consumer<K: semring::Kind>(ring: &Ring<K>) -> Result<Vec<usize>, AttachError> {
    let mut consumer = ring.attach_consumer()?;
    let mut corrupt = Vec::new();
    let mut messages = 0;
    let mut note = |error: RecvError| match error {
        RecvError::Corrupt { lane, .. } => corrupt.push(lane),
        RecvError::Empty | RecvError::EndOfStream { .. } | RecvError::TimedOut => {}
        other => panic!("{other}"),
    };
    // Some one by one, some put back, the rest as a batch: the batch must end.
    for _ in 0..4 {
        match consumer.try_recv() {
            Ok(message) => {
                assert!(message.len() <= 1024);
                drop(message.to_vec());
                message.put_back();
            }
            Err(error) => note(error),
        }
        match consumer.recv_deadline(MOMENT) {
            Ok(message) => drop(message.to_vec()),
            Err(error) => note(error),
        }
    }
    for count in [1, 2, usize::MAX] {
        match consumer.try_recv_array() {
            Ok(array) => {
                assert!(array.total_bytes() <= 1024);
                let mut bytes = vec![0; array.total_bytes()];
                array.copy_to(&mut bytes);
                let count = count.min(array.len());
                array.release_first(count);
            }
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
            Err(RecvError::Empty | RecvError::EndOfStream { .. }) => break,
            Err(error) => note(error),
        }
        messages += 1;
        assert!(messages <= MANY * ring.lanes(), "messages without an end");
    }
    let _ = (
        consumer.received_messages(),
        consumer.attached_producers(),
        consumer.wait_stats(),
    );
    assert_eq!(consumer.corrupt_lanes(), corrupt.len());
    let _ = consumer.remove_at_end();
    Ok(corrupt)
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
            .map_while(|_| ring.attach_producer().ok())
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
    // An obstacle for this name is an error at once, or a ring.
    let _ = rings::any(victim.guard.posix())
        .capacity(CAPACITY)
        .producers(2)
        .open_or_create();
    let _ = semring::remove(&address);
    let _ = semring::force_remove(&address);
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

/// The bytes to be written: any, or plausible ones.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => any::<u64>(),
        2 => (0..WORDS.len()).prop_map(|word| WORDS[word]),
        2 => (0u64..1200).prop_map(|len| 0xA5 << 56 | len),
        2 => (0u64..1 << 8, 0u64..1200).prop_map(|(fields, len)| 0xA7 << 56 | fields << 48 | len),
        2 => (0u64..40, 0u64..40).prop_map(|(stride, count)| count << 32 | stride),
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
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "any bytes anywhere");
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
            // While processes are attached.
            let mut producer = victim.ring.attach_producer().unwrap();
            let mut consumer = victim.ring.attach_consumer().unwrap();
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
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "signed superblocks");
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
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a live vandal");
    for seed in 0..8u64 {
        let victim = Victim::new(2);
        let done = AtomicBool::new(false);
        let mut producer = victim.ring.attach_producer().unwrap();
        let mut consumer = victim.ring.attach_consumer().unwrap();
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
    let info = semring::inspect(victim.address()).unwrap();
    assert_eq!(info.unread_messages(), 28);
    assert!(semring::list().iter().any(|ring| ring.uuid == info.uuid));
    any::open(victim.guard.posix()).unwrap().info().unwrap();
    assert_eq!(victim.memory.read(), before);
    assert_eq!(
        victim.memory.read_word(0),
        u64::from_le_bytes(*b"SEMRING\0")
    );
}
