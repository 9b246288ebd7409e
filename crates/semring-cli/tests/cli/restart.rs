//! A consumer that is killed at any moment and started again at once: nothing is lost, and what comes
//! twice belonged to its last write(2).

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::support::{
    DONE, Endless, KILLED, Ring, numbers, over_both_backends, wait_until, whole_lines,
};

over_both_backends! {
    killed_consumer_repeats_its_last_write_only,
    killed_rate_limited_consumer_repeats_little,
    consumer_killed_in_write_repeats_half_a_line,
    ring_stays_between_consumers_producer_exits_0,
}

/// A stream of random numbers that a failed test can be run with again.
struct Random(u64);

impl Random {
    /// Seeded from `SEMRING_TEST_SEED`, or at random; prints the seed.
    fn new(test: &str) -> Random {
        let given = std::env::var("SEMRING_TEST_SEED").ok();
        let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("after 1970").as_nanos() as u64 ^ u64::from(std::process::id()) << 32
        });
        println!("{test}: SEMRING_TEST_SEED={seed}");
        Random(seed)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % end
    }

    /// Waits for a random time, so that the next action finds the others in any state.
    fn moment(&mut self, longest: Duration) {
        let span = Duration::from_nanos(self.below(longest.as_nanos() as u64));
        let begin = Instant::now();
        while begin.elapsed() < span {
            std::hint::spin_loop();
        }
    }
}

/// Reads the output of a process as the packets of its calls of write(2).
struct Packets {
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: JoinHandle<()>,
}

impl Packets {
    /// And the other end.
    fn new() -> (Packets, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("a pair of sockets");
        let packets = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&packets);
        let thread = thread::spawn(move || {
            let mut socket = File::from(ours);
            let mut packet = vec![0; 1 << 20];
            while let Ok(len @ 1..) = socket.read(&mut packet) {
                sink.lock().expect("no panic").push(packet[..len].to_vec());
            }
        });
        (Packets { packets, thread }, theirs)
    }

    fn count(&self) -> usize {
        self.packets.lock().expect("no panic").len()
    }

    /// All of them, after the writer has ended.
    fn all(self) -> Vec<Vec<u8>> {
        self.thread.join().expect("the reader does not panic");
        std::mem::take(&mut *self.packets.lock().expect("no panic"))
    }
}

/// The output of a sequence of consumers so far, line by line.
#[derive(Default)]
struct Ledger {
    /// The next number that has not come.
    next: u64,
    repeated: u64,
    changes_with_repeats: u64,
}

impl Ledger {
    /// A consumer wrote these lines; of the one before, the last write began with line `from`.
    #[track_caller]
    fn enter(&mut self, lines: &[u64], last_write_from: u64) {
        let Some(first) = lines.first() else { return };
        assert!(*first <= self.next, "lost: {} to {}", self.next, first - 1);
        let again = self.next - first;
        assert!(
            *first >= last_write_from,
            "{again} lines came again from {first} on, but the last write began with {last_write_from}"
        );
        assert!(
            lines.iter().copied().eq(*first..first + lines.len() as u64),
            "out of order"
        );
        self.repeated += again;
        self.changes_with_repeats += u64::from(again > 0);
        self.next = self.next.max(first + lines.len() as u64);
    }
}

fn killed_consumer_repeats_its_last_write_only(ring: &Ring) {
    storm(ring, 60, 40, &[]);
}

/// Its writes are far smaller than the amount that a consumer may keep before it must release, and the
/// ring is never empty, which would make it release, too: each write has to.
fn killed_rate_limited_consumer_repeats_little(ring: &Ring) {
    storm(ring, 8, 5, &["-L", "20K"]);
}

/// Kills this many consumers, each after at most this many writes.
fn storm(ring: &Ring, rounds: usize, writes: u64, to_consumer: &[&str]) {
    let mut random = Random::new(ring.name());
    let endless = Endless::new();
    // With so small a lane no write is longer than a packet may be.
    let producer = ring
        .producer(&[
            "--capacity",
            "64K",
            "--producers",
            "1",
            "--wait-for-consumer",
        ])
        .feed(endless.clone().feed())
        .start();
    ring.wait_for_producers(1);
    let mut ledger = Ledger {
        next: 1,
        ..Ledger::default()
    };
    let mut last_write_from = 1;
    let mut dead = None;
    for round in 0..=rounds {
        let (packets, theirs) = Packets::new();
        let consumer = ring
            .consumer(if round == rounds { &[] } else { to_consumer })
            .stdout(theirs)
            .start();
        // The one before is reaped only now: its successor is started while it dies.
        if let Some((tool, packets)) = dead.take() {
            last_write_from = settle(tool, packets, &mut ledger, last_write_from);
        }
        if round == rounds {
            endless.stop();
            consumer.finish().quietly(DONE);
            enter(packets, &mut ledger, last_write_from);
            break;
        }
        if random.below(4) > 0 {
            let count = 1 + random.below(writes) as usize;
            wait_until("the consumer writes", || packets.count() >= count);
            random.moment(Duration::from_micros(300));
        } else {
            // Perhaps before it has become the consumer.
            random.moment(Duration::from_millis(6));
        }
        consumer.signal(Signal::SIGKILL);
        dead = Some((consumer, packets));
    }
    producer.finish().quietly(DONE);
    assert_eq!(
        ledger.next,
        endless.last() + 1,
        "the last lines are missing"
    );
    println!(
        "{} lines over {rounds} kills, {} lines came again after {} of them",
        endless.last(),
        ledger.repeated,
        ledger.changes_with_repeats
    );
    ring.assert_gone();
}

/// Reaps a killed consumer and records its output; returns the line with which its last write began.
#[track_caller]
fn settle(tool: crate::support::Tool, packets: Packets, ledger: &mut Ledger, from: u64) -> u64 {
    tool.finish().quietly(KILLED);
    enter(packets, ledger, from)
}

#[track_caller]
fn enter(packets: Packets, ledger: &mut Ledger, last_write_from: u64) -> u64 {
    let packets = packets.all();
    for packet in &packets {
        assert_eq!(
            packet.last(),
            Some(&b'\n'),
            "a write ends with a whole line"
        );
    }
    ledger.enter(&numbers(&packets.concat()), last_write_from);
    // One that wrote nothing leaves it as it was.
    packets
        .last()
        .map_or(last_write_from, |packet| numbers(packet)[0])
}

fn consumer_killed_in_write_repeats_half_a_line(ring: &Ring) {
    let mut random = Random::new("pipe");
    let endless = Endless::new();
    let capacity = 64 << 10;
    let producer = ring
        .producer(&["--wait-for-consumer", "--capacity", "64K"])
        .feed(endless.clone().feed())
        .start();
    ring.wait_for_producers(1);
    let mut ledger = Ledger {
        next: 1,
        ..Ledger::default()
    };
    let mut half_lines = 0;
    for round in 0..=20 {
        let mut consumer = ring.consumer(&[]).start();
        if round == 20 {
            endless.stop();
            let output = consumer.finish().quietly(DONE);
            ledger.enter(&numbers(&output.stdout), 0);
            break;
        }
        consumer.wait_for_bytes(1 + random.below(300_000) as usize);
        random.moment(Duration::from_micros(200));
        let output = consumer.kill().quietly(KILLED);
        let before = ledger.repeated;
        ledger.enter(&numbers(&output.stdout), 0);
        // A write never holds more than was in the ring.
        assert!(
            ledger.repeated - before <= capacity / 16,
            "more than a ring full came again"
        );
        let (whole, _) = whole_lines(&output.stdout);
        let half = &output.stdout[whole..];
        if !half.is_empty() {
            half_lines += 1;
            let next = ledger.next.to_string();
            assert!(
                next.as_bytes().starts_with(half),
                "the half of line {next}: {half:?}"
            );
        }
    }
    producer.finish().quietly(DONE);
    assert_eq!(
        ledger.next,
        endless.last() + 1,
        "the last lines are missing"
    );
    println!(
        "{} lines came again, {half_lines} half lines",
        ledger.repeated
    );
    ring.assert_gone();
}

fn ring_stays_between_consumers_producer_exits_0(ring: &Ring) {
    let mut producer = ring.producer(&["--wait-for-consumer"]).stdin_open().start();
    producer.write("1\n");
    let one = ring.consumer(&["--count", "1"]).run().quietly(DONE);
    assert_eq!(one.text(), "1\n");
    // There is no consumer at the moment.
    ring.assert_kept();
    producer.write("2\n3\n");
    ring.wait_for_sent(3);
    let two = ring.consumer(&["--count", "1"]).run().quietly(DONE);
    assert_eq!(two.text(), "2\n");
    assert!(producer.is_alive());
    let three = ring.consumer(&[]).start();
    ring.wait_for_consumer(&three);
    producer.finish().quietly(DONE);
    three.finish().quietly(DONE).wrote("3\n");
    ring.assert_gone();
}
