//! What is measured, in which order, and what came of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use semring::{GuardChoice, WaitStrategy};
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Places, has_no_time_slice, line_round_trip_ns};
use crate::quiet::Watch;
use crate::text::{bytes, senders};
use crate::ways::{Spec, Way};
use crate::{Result, crowd, latency, one_way};

/// What the two processes do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Workload {
    /// As many messages as possible, one way.
    OneWay,
    /// One message there and back, again and again.
    RoundTrip,
    /// A message each millisecond to somebody who waits for it.
    WakeUp,
    /// Several senders, one receiver, nobody pinned.
    Producers,
}

impl Workload {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 4] = [Self::OneWay, Self::RoundTrip, Self::WakeUp, Self::Producers];

    /// As people call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OneWay => "One way",
            Self::RoundTrip => "There and back",
            Self::WakeUp => "Waking a sleeper",
            Self::Producers => "Several senders",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ways.
    pub ways: Vec<Way>,
    /// Which workloads.
    pub workloads: Vec<Workload>,
    /// Bytes of a message, one way: multiples of 8. Several senders and wake-ups are measured with 64.
    pub sizes: Vec<usize>,
    /// Bytes of a message that is answered: multiples of 8.
    pub trip_sizes: Vec<usize>,
    /// How many senders there are at once.
    pub crowds: Vec<usize>,
    /// How the ends of rings wait.
    pub wait: WaitStrategy,
    /// What rings are guarded by.
    pub guard: GuardChoice,
    /// Prefix of ring addresses: `posix:` or `sysv:`.
    pub backend: String,
    /// Interleaved rounds; the median counts.
    pub rounds: usize,
    /// About how long one round of one way takes.
    pub round: Duration,
}

impl Default for Options {
    /// What a minute is enough for.
    fn default() -> Self {
        Self {
            ways: Way::usual(),
            workloads: Workload::ALL.to_vec(),
            sizes: vec![8, 64, 256, 1024, 4096, 65536],
            trip_sizes: vec![SMALL],
            crowds: vec![1, 4, 16],
            wait: WaitStrategy::Adaptive,
            guard: GuardChoice::Auto,
            backend: "posix:".into(),
            rounds: 5,
            round: Duration::from_millis(50),
        }
    }
}

/// How far a run has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// What is measured now.
    pub what: String,
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub workload: Workload,
    /// Over which way.
    pub way: Way,
    /// Bytes of a message.
    pub size_bytes: usize,
    /// Processes that sent.
    pub senders: usize,
    /// Messages (or round trips) a second: the median of the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// The slowest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_min: Option<f64>,
    /// The fastest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<f64>,
    /// Times the pipe of the same run: of the latency's median turned round, else of the rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_pipe: Option<f64>,
    /// Latency at 50, 90, 99 and 99.9 %, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<[u64; 4]>,
    /// CPU that a message costs who receives it, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver_cpu_us: Option<f64>,
    /// The largest share of a sender against the smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// What each round brought, in their order, which is the same for all ways: a rate, or the median of a
    /// latency in nanoseconds.
    pub of_rounds: Vec<f64>,
    /// Why this way can't do it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Interleaved rounds.
    pub rounds: usize,
    /// How rings waited.
    pub wait: String,
    /// What they were guarded by: `auto`, `semaphore`, `pipe`.
    pub guard: String,
    /// Where rings were.
    pub backend: String,
    /// Why not to believe it.
    pub warnings: Vec<String>,
    /// What.
    pub rows: Vec<Row>,
}

impl Report {
    /// The line of a way, for a workload with messages of a size and so many senders.
    #[must_use]
    pub fn row(&self, workload: Workload, way: &str, size: usize, senders: usize) -> Option<&Row> {
        let same = |row: &&Row| {
            (row.workload, row.size_bytes, row.senders) == (workload, size, senders)
                && row.way.name == way
        };
        self.rows.iter().find(same)
    }
}

/// Bytes of a message where the size is not what is looked at.
const SMALL: usize = 64;
/// How often a sleeper is woken in a round.
pub(crate) const WAKE_UPS: u64 = 200;
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// One comparison: all ways do the same.
struct Block {
    workload: Workload,
    size: usize,
    senders: usize,
}

/// What one way brought in the rounds of a block.
struct Column {
    way: Way,
    count: u64,
    rates: Vec<f64>,
    spreads: Vec<f64>,
    cpu: Vec<f64>,
    /// The median of each round.
    medians: Vec<f64>,
    times: Option<Histogram<u64>>,
    obstacle: Option<String>,
}

struct Run<'a> {
    options: &'a Options,
    places: Places,
    machine: Machine,
    lines: Vec<f64>,
    number: usize,
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
}

/// Measures.
///
/// # Errors
/// If a process can't be started, or a message is not what was sent. A way that can't carry something here
/// is no error.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    let sizes = options.sizes.iter().chain(&options.trip_sizes);
    if let Some(odd) = sizes.copied().find(|size| *size == 0 || size % 8 != 0) {
        return Err(format!("messages are whole words of 8 bytes, and not {odd} bytes").into());
    }
    let mut blocks = Vec::new();
    for &workload in &options.workloads {
        match workload {
            Workload::OneWay => blocks.extend(options.sizes.iter().map(|&size| Block {
                workload,
                size,
                senders: 1,
            })),
            Workload::RoundTrip => blocks.extend(options.trip_sizes.iter().map(|&size| Block {
                workload,
                size,
                senders: 1,
            })),
            Workload::Producers => blocks.extend(options.crowds.iter().map(|&senders| Block {
                workload,
                size: SMALL,
                senders,
            })),
            Workload::WakeUp => blocks.push(Block {
                workload,
                size: SMALL,
                senders: 1,
            }),
        }
    }
    let mut run = Run {
        places: Places::find()?,
        machine: Machine::new(),
        lines: Vec::new(),
        number: 0,
        done: 0,
        total: blocks.len() * options.ways.len() * (options.rounds + 1),
        options,
        progress,
    };
    if run.places.two() {
        run.machine.pinned = Some([run.places.mine, run.places.peers]);
    }
    let watch = Watch::begin();
    let mut rows = Vec::new();
    for block in &blocks {
        rows.extend(run.block(block)?);
    }
    run.places.unpin()?;
    let warnings = watch.warnings(&run.machine, &run.lines);
    run.machine.line_round_trip_ns = median(&run.lines);
    Ok(Report {
        machine: run.machine,
        rounds: options.rounds,
        wait: format!("{:?}", options.wait).to_lowercase(),
        guard: format!("{:?}", options.guard).to_lowercase(),
        backend: options.backend.clone(),
        warnings,
        rows,
    })
}

impl Run<'_> {
    fn spec(&mut self, way: Way, block: &Block) -> Spec {
        self.number += 1;
        Spec {
            way,
            workload: block.workload,
            name: format!("semring-bench-{}-{}", std::process::id(), self.number),
            backend: self.options.backend.clone(),
            size: block.size,
            wait: self.options.wait,
            guard: self.options.guard,
            senders: block.senders,
            ids: Vec::new(),
            names: Vec::new(),
        }
    }

    fn step(&mut self, block: &Block, way: Way) {
        let doing = match block.workload {
            Workload::Producers => senders(block.senders),
            other => other.title().into(),
        };
        let what = format!("{doing}, {}, {}", bytes(block.size), way.label);
        (self.progress)(Progress {
            done: self.done,
            total: self.total,
            what,
        });
        self.done += 1;
    }

    fn block(&mut self, block: &Block) -> Result<Vec<Row>> {
        let mut columns = Vec::new();
        for &way in &self.options.ways {
            self.step(block, way);
            columns.push(self.prepare(way, block)?);
        }
        for _ in 0..self.options.rounds {
            self.lines.extend(line_round_trip_ns(&self.places));
            for column in &mut columns {
                self.step(block, column.way);
                if column.obstacle.is_none() {
                    self.round(column, block)?;
                }
            }
        }
        Ok(rows(block, columns))
    }

    /// Finds out whether a way can do it, and how often makes a round.
    fn prepare(&mut self, way: Way, block: &Block) -> Result<Column> {
        let mut column = Column {
            way,
            count: 0,
            rates: Vec::new(),
            spreads: Vec::new(),
            cpu: Vec::new(),
            medians: Vec::new(),
            times: None,
            obstacle: self.obstacle(way, block),
        };
        if column.obstacle.is_some() {
            return Ok(column);
        }
        let spec = self.spec(way, block);
        match block.workload {
            Workload::OneWay => {
                column.count = one_way::count_for(&spec, &self.places, self.options.round)?;
            }
            Workload::RoundTrip => {
                let times = latency::round_trips(spec, &self.places, 200)?;
                let seconds = times.mean() / 1e9;
                let count = self.options.round.as_secs_f64() / seconds;
                column.count = (count as u64).clamp(500, 200_000);
            }
            Workload::WakeUp | Workload::Producers => {}
        }
        Ok(column)
    }

    /// Why it can't be done here, as far as can be known before.
    fn obstacle(&mut self, way: Way, block: &Block) -> Option<String> {
        let spec = self.spec(way, block);
        if block.workload == Workload::Producers && has_no_time_slice() {
            return Some("not under a real-time policy: who spins would never end".into());
        }
        if let Some(obstacle) = (way.obstacle)(&spec) {
            return Some(obstacle);
        }
        // The rest is found by making it.
        let made = crate::ways::make(spec);
        made.err().map(|error| error.to_string())
    }

    fn round(&mut self, column: &mut Column, block: &Block) -> Result<()> {
        let spec = self.spec(column.way, block);
        match block.workload {
            Workload::OneWay => {
                let rate = one_way::rate(spec, &self.places, column.count)?;
                column.rates.push(rate);
            }
            Workload::RoundTrip => {
                let times = latency::round_trips(spec, &self.places, column.count)?;
                column.rates.push(1e9 / times.mean());
                column.collect(times)?;
            }
            Workload::WakeUp => {
                let (times, cpu) = latency::wake_ups(spec, &self.places, WAKE_UPS, WAKE_INTERVAL)?;
                column.cpu.push(cpu.as_secs_f64() * 1e6);
                column.collect(times)?;
            }
            Workload::Producers => {
                let count = crowd::count(spec, &self.places, self.options.round * 2)?;
                column.rates.push(count.rate);
                column.spreads.extend(count.spread);
            }
        }
        Ok(())
    }
}

impl Column {
    fn collect(&mut self, times: Histogram<u64>) -> Result<()> {
        self.medians.push(times.value_at_quantile(0.5) as f64);
        match &mut self.times {
            Some(all) => all.add(times)?,
            none => *none = Some(times),
        }
        Ok(())
    }
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn rows(block: &Block, columns: Vec<Column>) -> Vec<Row> {
    let mut rows: Vec<Row> = columns
        .into_iter()
        .map(|column| Row {
            workload: block.workload,
            way: column.way,
            size_bytes: block.size,
            senders: block.senders,
            rate: median(&column.rates),
            rate_min: column.rates.iter().copied().reduce(f64::min),
            rate_max: column.rates.iter().copied().reduce(f64::max),
            to_pipe: None,
            latency_ns: column
                .times
                .map(|times| [0.5, 0.9, 0.99, 0.999].map(|part| times.value_at_quantile(part))),
            receiver_cpu_us: median(&column.cpu),
            spread: median(&column.spreads),
            of_rounds: if column.medians.is_empty() {
                column.rates
            } else {
                column.medians
            },
            unavailable: column.obstacle,
        })
        .collect();
    let pipe = rows.iter().find(|row| row.way.name == "pipe").cloned();
    for row in &mut rows {
        let Some(pipe) = &pipe else { continue };
        row.to_pipe = match (row.latency_ns, pipe.latency_ns) {
            (Some([mine, ..]), Some([pipe, ..])) => Some(pipe as f64 / mine as f64),
            _ => row.rate.zip(pipe.rate).map(|(rate, pipe)| rate / pipe),
        };
    }
    rows
}
