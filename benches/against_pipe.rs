//! Rings against pipes: two processes, each on a CPU of its own, ratios side by side in one run.
//!
//! ```sh
//! cargo bench --bench against_pipe
//! ```
//! The producer fills every message, the consumer copies it out and compares every word. Before a way
//! is measured it must bring 2000 scrambled messages in order. Rounds are interleaved, so that a busy
//! moment of the machine hits every way. Figures of different machines, or of different hours, can't
//! be compared; the ratios of one run can.
//!
//! Without `--bench` (as under `cargo test --benches`) it checks and does not measure.

mod support;

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use semring::{WaitStrategy, spsc};
use support::{Name, PEER, Payload, Peer, Result, Rounds, cpus, machine, pin};

/// Interleaved rounds; the median counts.
const ROUNDS: usize = 7;
/// How long one round of one way shall take.
const ROUND: Duration = Duration::from_millis(80);
/// Messages of the checking pass.
const CHECKED: u64 = 2000;
/// Round trips of the checking pass: fewer, because spinners are slow where others want the CPU.
const CHECKED_TRIPS: u64 = 200;
/// After this long without a first message, something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, job)) if first == PEER => peer(job),
        _ => bench(arguments.iter().any(|argument| argument == "--bench")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = if support::interrupted() {
                "interrupted".into()
            } else {
                error
            };
            eprintln!("against_pipe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(measured: bool) -> Result<()> {
    support::end_in_order()?;
    let [mine, peers] = cpus();
    println!(
        "{}; consumer on CPU {mine}, producer on CPU {peers}",
        machine()
    );
    if mine == peers {
        println!("only one CPU: what follows says nothing about two");
    }
    one_way(measured)?;
    round_trip(measured)
}

/// What the second process is to do.
fn peer(job: &[String]) -> Result<()> {
    nix::sys::signal::SigSet::all().thread_unblock()?;
    let [cpu, job, way, name, size, count, payload] = job else {
        return Err("unknown job".into());
    };
    pin(&[cpu.parse()?]);
    let size = size.parse()?;
    let count = count.parse()?;
    let payload = if payload == "scrambled" {
        Payload::Scrambled
    } else {
        Payload::Numbered
    };
    if job == "send" {
        Way::from_code(way)?.send(name, size, count, payload)
    } else {
        Hands::from_code(way)?.echo(name, size, count)
    }
}

fn payload_code(payload: Payload) -> String {
    if payload == Payload::Scrambled {
        "scrambled"
    } else {
        "numbered"
    }
    .into()
}

// ---------------------------------------------------------------------------------------------
// One way.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `send` and `recv`, one message at a time.
    Ring,
    /// The same, with a fence of the producer's own after each message.
    RingFenced,
    /// Batches of 32 on both sides.
    RingBatch,
    /// Filled and checked in the ring itself, through slices.
    RingInPlace,
    /// One write(2) and one read(2) for each message.
    Pipe,
    /// As `Pipe`, with 1 MiB of pipe.
    PipeLong,
    /// As many messages as go into 64 KiB for each write(2) and read(2).
    PipePacked,
}

const WAYS: [(Way, &str, &str); 7] = [
    (Way::Ring, "ring", "ring, send and recv"),
    (Way::RingFenced, "fenced", "the same, always a fence"),
    (Way::RingBatch, "batch", "ring, batches of 32"),
    (Way::RingInPlace, "in-place", "ring, in place (trusted)"),
    (Way::Pipe, "pipe", "pipe, a call per message"),
    (Way::PipeLong, "pipe-long", "the same, 1 MiB of pipe"),
    (Way::PipePacked, "packed", "pipe, 64 KiB per call"),
];

const BATCH: u64 = 32;
const PACK: usize = 64 << 10;

/// The comparisons: message size in bytes and the ways that make sense for it. The first is compared
/// with the second.
const SIZES: [(usize, &[Way]); 6] = [
    (
        8,
        &[
            Way::Ring,
            Way::Pipe,
            Way::RingFenced,
            Way::RingBatch,
            Way::PipePacked,
        ],
    ),
    (
        64,
        &[
            Way::Ring,
            Way::Pipe,
            Way::RingFenced,
            Way::RingBatch,
            Way::PipePacked,
        ],
    ),
    (
        256,
        &[Way::Ring, Way::Pipe, Way::RingBatch, Way::PipePacked],
    ),
    (
        1024,
        &[Way::Ring, Way::Pipe, Way::RingInPlace, Way::PipePacked],
    ),
    (
        4096,
        &[Way::Ring, Way::Pipe, Way::RingInPlace, Way::PipePacked],
    ),
    (
        65536,
        &[Way::Ring, Way::Pipe, Way::RingInPlace, Way::PipeLong],
    ),
];

fn one_way(measured: bool) -> Result<()> {
    let mut lines = Rounds::default();
    println!("\none way; {ROUNDS} interleaved rounds, median (min – max)");
    println!(
        "  {:>5}  {:26}{:>9}  {:>17}{:>8}{:>8}",
        "bytes", "", "M msg/s", "min – max", "GB/s", "to pipe"
    );
    let mut verdicts = Vec::new();
    for (size, ways) in SIZES {
        let mut counts = Vec::new();
        for &way in ways {
            let took = way.run(size, CHECKED, Payload::Scrambled)?;
            if !measured {
                continue;
            }
            let first_guess = rate(CHECKED, took);
            // A second look for the speed: so few messages say little.
            let count = (first_guess * 0.02) as u64 + CHECKED;
            let rate = rate(count, way.run(size, count, Payload::Numbered)?);
            counts.push((rate * ROUND.as_secs_f64()) as u64 + CHECKED);
        }
        if !measured {
            continue;
        }
        let mut rounds: Vec<Rounds> = ways.iter().map(|_| Rounds::default()).collect();
        for _ in 0..ROUNDS {
            lines.add(support::line_round_trip_ns(cpus()));
            for ((way, &count), rounds) in ways.iter().zip(&counts).zip(&mut rounds) {
                rounds.add(rate(count, way.run(size, count, Payload::Numbered)?) / 1e6);
            }
        }
        let pipe = rounds[1].median();
        for (way, rounds) in ways.iter().zip(&rounds) {
            let rate = rounds.median();
            let (low, high) = rounds.range();
            println!(
                "  {size:>5}  {:26}{rate:>9.3}  {:>17}{:>8.2}{:>7.1}x",
                way.label(),
                format!("{low:.3} – {high:.3}"),
                rate * size as f64 / 1e3,
                rate / pipe,
            );
        }
        let ratio = rounds[0].median() / pipe;
        match size {
            64 => verdicts.push(verdict("64 B messages", ratio, 10.0)),
            65536 => verdicts.push(verdict("64 KiB chunks", ratio, 1.5)),
            _ => {}
        }
    }
    if measured {
        let (low, high) = lines.range();
        println!(
            "  (a cache line from one CPU to the other and back: {:.0} ns, {low:.0} – {high:.0})",
            lines.median()
        );
    } else {
        println!("  every way brought {CHECKED} messages, whole and in order; not measured");
    }
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    Ok(())
}

fn verdict(what: &str, ratio: f64, expected: f64) -> String {
    let holds = if ratio >= expected {
        "holds"
    } else {
        "DOES NOT HOLD"
    };
    format!("{what}: {ratio:.1} times the pipe; expected at least {expected}: {holds}")
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Enough for a message of 64 KiB, and no more than a cache holds.
fn builder(name: &str, size: usize) -> spsc::Builder {
    spsc::Builder::new(name).capacity(if size > 16 << 10 { 1 << 20 } else { 256 << 10 })
}

#[allow(unsafe_code)]
fn trusting(name: &str, size: usize) -> spsc::Builder {
    // SAFETY: both processes of a bench run this program, and the ring's name is their secret.
    unsafe { builder(name, size).trust_peers() }
}

impl Way {
    fn code(self) -> &'static str {
        WAYS.iter()
            .find(|(way, ..)| *way == self)
            .expect("each way is listed")
            .1
    }

    fn label(self) -> &'static str {
        WAYS.iter()
            .find(|(way, ..)| *way == self)
            .expect("each way is listed")
            .2
    }

    fn from_code(code: &str) -> Result<Self> {
        let found = WAYS.iter().find(|(_, its, _)| *its == code);
        Ok(found.ok_or("unknown way")?.0)
    }

    fn is_ring(self) -> bool {
        matches!(
            self,
            Self::Ring | Self::RingFenced | Self::RingBatch | Self::RingInPlace
        )
    }

    /// Receives `count` messages from a peer that sends them; gives the time from behind a tenth of
    /// them, by when both sides are awake, to the last, scaled up to all.
    fn run(self, size: usize, count: u64, payload: Payload) -> Result<Duration> {
        let name = Name::new("one-way");
        let job = [
            "send".into(),
            self.code().into(),
            name.0.clone(),
            size.to_string(),
            count.to_string(),
            payload_code(payload),
        ];
        let warm_up = count / 10;
        let start;
        let ended;
        if self.is_ring() {
            let ring = trusting(&name.0, size).create()?;
            let mut consumer = ring.consumer()?;
            let peer = Peer::start(&job, Stdio::null(), Stdio::null())?;
            // Whoever never attached can't be missed: only the first message needs a time-out.
            consumer.recv_timeout(PATIENCE)?.put_back();
            self.receive(&mut consumer, size, 0..warm_up, payload)?;
            start = Instant::now();
            self.receive(&mut consumer, size, warm_up..count, payload)?;
            ended = start.elapsed();
            peer.end()?;
        } else {
            let (mut reader, writer) = io::pipe()?;
            if self == Self::PipeLong {
                fcntl(&reader, FcntlArg::F_SETPIPE_SZ(1 << 20))?;
            }
            let peer = Peer::start(&job, Stdio::null(), writer.into())?;
            self.read(&mut reader, size, 0..warm_up, payload)?;
            start = Instant::now();
            self.read(&mut reader, size, warm_up..count, payload)?;
            ended = start.elapsed();
            peer.end()?;
        }
        Ok(ended.mul_f64(count as f64 / (count - warm_up) as f64))
    }

    fn receive(
        self,
        consumer: &mut spsc::Consumer,
        size: usize,
        numbers: std::ops::Range<u64>,
        payload: Payload,
    ) -> Result<()> {
        let mut buffer = vec![0; size];
        let mut number = numbers.start;
        let wrong = |number| format!("message {number} is not what was sent");
        while number < numbers.end {
            if self == Self::RingBatch {
                let mut batch = consumer.recv_batch()?;
                while let Some(message) = batch.next_message() {
                    if message.copy_to(&mut buffer) != size || !payload.check(&buffer, number) {
                        return Err(wrong(number).into());
                    }
                    number += 1;
                    // What is behind the range belongs to the next one.
                    if number == numbers.end || batch.messages() as u64 == BATCH {
                        break;
                    }
                }
                continue;
            }
            let message = consumer.recv()?;
            let right = if self == Self::RingInPlace {
                let bytes = message.as_slice().expect("this ring is trusted");
                bytes.len() == size && payload.check(bytes, number)
            } else {
                message.copy_to(&mut buffer) == size && payload.check(&buffer, number)
            };
            if !right {
                return Err(wrong(number).into());
            }
            number += 1;
        }
        Ok(())
    }

    fn read(
        self,
        pipe: &mut PipeReader,
        size: usize,
        numbers: std::ops::Range<u64>,
        payload: Payload,
    ) -> Result<()> {
        let at_once = if self == Self::PipePacked {
            PACK / size
        } else {
            1
        };
        let mut buffer = vec![0; size * at_once];
        let mut number = numbers.start;
        while number < numbers.end {
            let messages = at_once.min((numbers.end - number) as usize);
            let buffer = &mut buffer[..size * messages];
            pipe.read_exact(buffer)?;
            for message in buffer.chunks_exact(size) {
                if !payload.check(message, number) {
                    return Err(format!("message {number} is not what was sent").into());
                }
                number += 1;
            }
        }
        Ok(())
    }

    /// The peer's part.
    fn send(self, name: &str, size: usize, count: u64, payload: Payload) -> Result<()> {
        let mut buffer = vec![0; size];
        if !self.is_ring() {
            return self.write(size, count, payload);
        }
        let habits = trusting(name, size).asymmetric_barrier(self != Self::RingFenced);
        let mut producer = habits.open()?.producer()?;
        let mut number = 0;
        while number < count {
            match self {
                Self::RingBatch => {
                    let mut batch = producer.batch();
                    for number in number..count.min(number + BATCH) {
                        payload.fill(&mut buffer, number);
                        batch.push(&buffer)?;
                    }
                    batch.commit();
                    number += BATCH;
                }
                Self::RingInPlace => {
                    let mut reservation = producer.reserve(size)?;
                    payload.fill(reservation.as_mut_slice().expect("trusted"), number);
                    reservation.commit();
                    number += 1;
                }
                _ => {
                    payload.fill(&mut buffer, number);
                    producer.send(&buffer)?;
                    number += 1;
                }
            }
        }
        Ok(())
    }

    fn write(self, size: usize, count: u64, payload: Payload) -> Result<()> {
        let mut pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let at_once = if self == Self::PipePacked {
            PACK / size
        } else {
            1
        };
        let mut buffer = vec![0; size * at_once];
        let mut number = 0;
        while number < count {
            let messages = at_once.min((count - number) as usize);
            let buffer = &mut buffer[..size * messages];
            for message in buffer.chunks_exact_mut(size) {
                payload.fill(message, number);
                number += 1;
            }
            pipe.write_all(buffer)?;
        }
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------
// There and back.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hands {
    Ring(WaitStrategy),
    Pipe,
}

const HANDS: [(Hands, &str, &str, u64); 4] = [
    (
        Hands::Ring(WaitStrategy::Spin),
        "spin",
        "two rings, Spin",
        20_000,
    ),
    (
        Hands::Ring(WaitStrategy::Adaptive),
        "adaptive",
        "two rings, Adaptive",
        20_000,
    ),
    (
        Hands::Ring(WaitStrategy::Block),
        "block",
        "two rings, Block",
        5_000,
    ),
    (Hands::Pipe, "pipe", "two pipes", 10_000),
];

const TRIP_BYTES: usize = 64;

fn round_trip(measured: bool) -> Result<()> {
    println!("\nround trip of {TRIP_BYTES} B; {ROUNDS} interleaved rounds, median (min – max)");
    for (hands, ..) in HANDS {
        hands.run(CHECKED_TRIPS, Payload::Scrambled)?;
    }
    if !measured {
        println!("  every way brought {CHECKED_TRIPS} messages back; not measured");
        return Ok(());
    }
    let mut rounds: Vec<Rounds> = HANDS.iter().map(|_| Rounds::default()).collect();
    for _ in 0..ROUNDS {
        for ((hands, .., count), rounds) in HANDS.iter().zip(&mut rounds) {
            let took = hands.run(*count, Payload::Numbered)?;
            rounds.add(took.as_secs_f64() * 1e6 / *count as f64);
        }
    }
    println!(
        "  {:26}{:>9}  {:>17}  {:>10}",
        "", "µs", "min – max", "pipe takes"
    );
    let pipe = rounds[HANDS.len() - 1].median();
    for ((.., label, _), rounds) in HANDS.iter().zip(&rounds) {
        let (low, high) = rounds.range();
        println!(
            "  {label:26}{:>9.3}  {:>17}  {:>9.1}x",
            rounds.median(),
            format!("{low:.3} – {high:.3}"),
            pipe / rounds.median()
        );
    }
    Ok(())
}

impl Hands {
    fn code(self) -> &'static str {
        HANDS
            .iter()
            .find(|(hands, ..)| *hands == self)
            .expect("all are listed")
            .1
    }

    fn from_code(code: &str) -> Result<Self> {
        let found = HANDS.iter().find(|(_, its, ..)| *its == code);
        Ok(found.ok_or("unknown way")?.0)
    }

    fn run(self, count: u64, payload: Payload) -> Result<Duration> {
        let there = Name::new("there");
        let back = Name::new("back");
        let name = format!("{} {}", there.0, back.0);
        let code = self.code().into();
        let size = TRIP_BYTES.to_string();
        let job = [
            "echo".into(),
            code,
            name,
            size,
            count.to_string(),
            payload_code(payload),
        ];
        match self {
            Self::Ring(wait) => {
                let there = spsc::Builder::new(&there.0).wait(wait).create()?;
                let back = spsc::Builder::new(&back.0).wait(wait).create()?;
                let mut producer = there.producer()?;
                let mut consumer = back.consumer()?;
                let peer = Peer::start(&job, Stdio::null(), Stdio::null())?;
                let mut first = true;
                let took = trips(count, payload, |bytes| {
                    producer.send(bytes)?;
                    // Whoever never attached can't be missed: only the first needs a time-out.
                    let message = if std::mem::take(&mut first) {
                        consumer.recv_timeout(PATIENCE)?
                    } else {
                        consumer.recv()?
                    };
                    if message.copy_to(bytes) == TRIP_BYTES {
                        Ok(())
                    } else {
                        Err("cut".into())
                    }
                })?;
                drop(producer);
                peer.end()?;
                Ok(took)
            }
            Self::Pipe => {
                let (their_input, mut input) = io::pipe()?;
                let (mut output, their_output) = io::pipe()?;
                let peer = Peer::start(&job, their_input.into(), their_output.into())?;
                let took = trips(count, payload, |bytes| {
                    input.write_all(bytes)?;
                    Ok(output.read_exact(bytes)?)
                })?;
                peer.end()?;
                Ok(took)
            }
        }
    }

    /// The peer's part: sends back what comes.
    fn echo(self, names: &str, size: usize, count: u64) -> Result<()> {
        // One more than is measured: the first.
        let mut bytes = vec![0; size];
        let Self::Ring(wait) = self else {
            let mut input = PipeReader::from(io::stdin().as_fd().try_clone_to_owned()?);
            let mut output = PipeWriter::from(io::stdout().as_fd().try_clone_to_owned()?);
            for _ in 0..=count {
                input.read_exact(&mut bytes)?;
                output.write_all(&bytes)?;
            }
            return Ok(());
        };
        let (there, back) = names.split_once(' ').ok_or("two rings are needed")?;
        let mut consumer = spsc::Builder::new(there).wait(wait).open()?.consumer()?;
        let mut producer = spsc::Builder::new(back).wait(wait).open()?.producer()?;
        for _ in 0..=count {
            consumer.recv()?.copy_to(&mut bytes);
            producer.send(&bytes)?;
        }
        Ok(())
    }
}

/// One trip to wake everybody, then `count` that are measured.
fn trips(
    count: u64,
    payload: Payload,
    mut trip: impl FnMut(&mut [u8]) -> Result<()>,
) -> Result<Duration> {
    let mut bytes = vec![0; TRIP_BYTES];
    payload.fill(&mut bytes, 0);
    trip(&mut bytes)?;
    let start = Instant::now();
    for number in 1..=count {
        payload.fill(&mut bytes, number);
        trip(&mut bytes)?;
        if !payload.check(&bytes, number) {
            return Err(format!("what came back is not message {number}").into());
        }
    }
    Ok(start.elapsed())
}
