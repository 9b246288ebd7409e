//! Many producer processes and one consumer on two CPUs, nobody pinned to one: does the ring hold its
//! rate, and does everybody get a share?
//!
//! ```sh
//! cargo bench --bench many_producers
//! ```
//! Producers send as fast as they can until the consumer closes; counted is what arrives within a window
//! that begins when every producer was heard. The consumer checks the numbers and bytes of each producer's
//! messages. Rounds with different numbers of producers are interleaved. Without `--bench` it checks and
//! does not measure.

mod support;

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use semring::{SendError, WaitStrategy, mpsc};
use support::{Name, PEER, Payload, Peer, Result, Rounds, cpus, machine, pin};

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_millis(400);
const CHECK_WINDOW: Duration = Duration::from_millis(5);
/// What is measured beside what: the first is what the others are compared with.
const CROWDS: [usize; 5] = [1, 2, 4, 8, 16];
const SIZES: [usize; 2] = [64, 1024];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ring(WaitStrategy),
    /// One pipe for all, a write(2) for each message, as much as there is for each read(2).
    Pipe,
}

const WAYS: [(Way, &str, &str); 3] = [
    (
        Way::Ring(WaitStrategy::Adaptive),
        "adaptive",
        "ring, Adaptive",
    ),
    (Way::Ring(WaitStrategy::Block), "block", "ring, Block"),
    (Way::Pipe, "pipe", "pipe"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, job)) if first == PEER => peer(job),
        _ => bench(arguments.iter().any(|argument| argument == "--bench")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("many_producers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What came in one window.
struct Count {
    /// Of each producer; of a pipe: of all together.
    messages: Vec<u64>,
    took: Duration,
}

impl Count {
    fn between(before: &[u64], after: &[u64], took: Duration) -> Self {
        let messages = after.iter().zip(before).map(|(now, then)| now - then);
        Self {
            messages: messages.collect(),
            took,
        }
    }

    fn rate(&self) -> f64 {
        self.messages.iter().sum::<u64>() as f64 / self.took.as_secs_f64() / 1e6
    }

    /// The largest share against the smallest.
    fn spread(&self) -> f64 {
        let most = self.messages.iter().max().copied().unwrap_or(0) as f64;
        let least = self.messages.iter().min().copied().unwrap_or(0) as f64;
        most / least
    }
}

fn bench(measured: bool) -> Result<()> {
    support::end_in_order()?;
    println!("{}; nobody pinned to one CPU", machine());
    let window = if measured { WINDOW } else { CHECK_WINDOW };
    let rounds = if measured { ROUNDS } else { 1 };
    if measured {
        println!(
            "\n{ROUNDS} interleaved rounds of {} ms, median (min – max); share: the largest of any producer to the smallest",
            WINDOW.as_millis()
        );
        println!(
            "  {:>5}  {:16}{:>9}  {:>8}  {:>15}{:>9}{:>9}",
            "bytes", "", "producers", "M msg/s", "min – max", "to one", "share"
        );
    }
    for size in SIZES {
        for (way, _, label) in WAYS {
            let mut rates: Vec<Rounds> = CROWDS.iter().map(|_| Rounds::default()).collect();
            let mut spreads: Vec<Rounds> = CROWDS.iter().map(|_| Rounds::default()).collect();
            for _ in 0..rounds {
                for (crowd, (rates, spreads)) in
                    CROWDS.iter().zip(rates.iter_mut().zip(&mut spreads))
                {
                    let count = way.run(*crowd, size, window)?;
                    rates.add(count.rate());
                    spreads.add(count.spread());
                }
            }
            if !measured {
                continue;
            }
            for (crowd, (rate, spread)) in CROWDS.iter().zip(rates.iter().zip(&spreads)) {
                let (low, high) = rate.range();
                let share = match way {
                    Way::Pipe => "-".to_string(),
                    Way::Ring(_) => format!("{:.2}", spread.median()),
                };
                println!(
                    "  {size:>5}  {label:16}{crowd:>9}  {:>8.3}  {:>15}{:>8.0}%{share:>9}",
                    rate.median(),
                    format!("{low:.3} – {high:.3}"),
                    100.0 * rate.median() / rates[0].median(),
                );
            }
        }
    }
    if !measured {
        println!("every producer was heard, whole and in order; not measured");
    }
    Ok(())
}

impl Way {
    fn code(self) -> &'static str {
        let found = WAYS.iter().find(|(way, ..)| *way == self);
        found.expect("each way is listed").1
    }

    fn run(self, crowd: usize, size: usize, window: Duration) -> Result<Count> {
        match self {
            Self::Ring(strategy) => self.ring(strategy, crowd, size, window),
            Self::Pipe => self.pipe(crowd, size, window),
        }
    }

    fn start(
        self,
        crowd: usize,
        name: &str,
        size: usize,
        mut stdout: impl FnMut() -> io::Result<Stdio>,
    ) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for number in 0..crowd {
            let job = [
                self.code().to_string(),
                name.to_string(),
                size.to_string(),
                number.to_string(),
            ];
            peers.push(Peer::start(&job, Stdio::null(), stdout()?)?);
        }
        pin(&cpus());
        Ok(peers)
    }

    fn ring(
        self,
        strategy: WaitStrategy,
        crowd: usize,
        size: usize,
        window: Duration,
    ) -> Result<Count> {
        let name = Name::new("crowd");
        let ring = mpsc::Builder::new(&name.0)
            .producers(crowd)
            .wait(strategy)
            .create()?;
        let mut consumer = ring.consumer()?;
        let peers = self.start(crowd, &name.0, size, || Ok(Stdio::null()))?;
        let mut expected = vec![0u64; crowd];
        let mut buffer = vec![0; size];
        let mut receive = |expected: &mut Vec<u64>| -> Result<()> {
            let message = consumer.recv_timeout(Duration::from_secs(10))?;
            let lane = message.lane();
            let whole = message.len() == size && message.copy_to(&mut buffer) == size;
            if !whole || !Payload::Numbered.check(&buffer, expected[lane]) {
                return Err(format!("lane {lane}: not message {}", expected[lane]).into());
            }
            expected[lane] += 1;
            Ok(())
        };
        while expected.contains(&0) {
            receive(&mut expected)?;
        }
        let before = expected.clone();
        let start = Instant::now();
        while start.elapsed() < window {
            for _ in 0..64 {
                receive(&mut expected)?;
            }
        }
        let took = start.elapsed();
        consumer.close();
        for peer in peers {
            peer.end()?;
        }
        Ok(Count::between(&before, &expected, took))
    }

    fn pipe(self, crowd: usize, size: usize, window: Duration) -> Result<Count> {
        let (mut reader, writer) = io::pipe()?;
        let peers = self.start(crowd, "-", size, || {
            Ok(writer.as_fd().try_clone_to_owned()?.into())
        })?;
        drop(writer);
        let mut expected = vec![0u64; crowd];
        let mut buffer = vec![0; 64 << 10];
        let mut held = 0;
        while expected.contains(&0) {
            take(&mut reader, &mut buffer, &mut held, size, &mut expected)?;
        }
        let before = expected.clone();
        let start = Instant::now();
        while start.elapsed() < window {
            take(&mut reader, &mut buffer, &mut held, size, &mut expected)?;
        }
        let took = start.elapsed();
        drop(reader);
        for peer in peers {
            peer.end()?;
        }
        Ok(Count::between(&before, &expected, took))
    }
}

/// One read(2), and what came whole with it. A message begins with who and which.
fn take(
    reader: &mut PipeReader,
    buffer: &mut [u8],
    held: &mut usize,
    size: usize,
    expected: &mut [u64],
) -> Result<()> {
    let got = reader.read(&mut buffer[*held..])?;
    if got == 0 {
        return Err("the pipe ended".into());
    }
    *held += got;
    let whole = *held / size * size;
    for message in buffer[..whole].chunks_exact(size) {
        let words = message.as_chunks::<8>().0;
        let who = u64::from_le_bytes(words[0]) as usize;
        let count = expected.get_mut(who).ok_or("nobody's message")?;
        if !Payload::Numbered.check(&message[8..], *count) {
            return Err(format!("producer {who}: not message {count}").into());
        }
        *count += 1;
    }
    buffer.copy_within(whole..*held, 0);
    *held -= whole;
    Ok(())
}

/// What a producer process does: sends until nobody takes it any more.
fn peer(job: &[String]) -> Result<()> {
    nix::sys::signal::SigSet::all().thread_unblock()?;
    let [_, way, name, size, number] = job else {
        return Err("unknown job".into());
    };
    pin(&cpus());
    let mut buffer = vec![0; size.parse()?];
    let found = WAYS.iter().find(|(_, code, _)| code == way);
    match found.ok_or("unknown way")?.0 {
        Way::Ring(strategy) => {
            let ring = mpsc::Builder::new(name).wait(strategy).open()?;
            let mut producer = ring.producer()?;
            for message in 0.. {
                Payload::Numbered.fill(&mut buffer, message);
                match producer.send(&buffer) {
                    Ok(()) => {}
                    Err(SendError::Closed) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Way::Pipe => {
            let mut pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            let who = number.parse::<u64>()?.to_le_bytes();
            for message in 0.. {
                buffer[..8].copy_from_slice(&who);
                Payload::Numbered.fill(&mut buffer[8..], message);
                match pipe.write_all(&buffer) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}
