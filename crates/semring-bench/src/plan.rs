//! The measurements and their order.

use std::time::Duration;

use semring::{GuardChoice, WaitStrategy};

use crate::error::Result;
use crate::machine::{Cpus, Disturbance, Machine, has_no_time_slice, line_round_trip_ns};
use crate::results::{Block, Column, Report, Row, median, rows};
use crate::runner;
use crate::units::{exact_bytes, senders};
use crate::ways::{Category, Spec, Way};
use crate::workload::{SMALL_BYTES, WAKE_INTERVAL, WAKE_UPS, Workload};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The ways.
    pub ways: Vec<Way>,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Bytes of a message, one way: multiples of 8.
    pub sizes: Vec<usize>,
    /// Bytes of a message in the other workloads: multiples of 8.
    pub small_sizes: Vec<usize>,
    /// Numbers of senders at once.
    pub sender_counts: Vec<usize>,
    /// The wait strategy of rings.
    pub wait: WaitStrategy,
    /// How rings detect deaths and wake sleepers: by semaphores or pipes.
    pub guard: GuardChoice,
    /// Prefix of ring addresses: `posix:` or `sysv:`.
    pub backend: String,
    /// Interleaved rounds; the median counts.
    pub rounds: usize,
    /// About how long one round of one way takes.
    pub round: Duration,
}

impl Default for Options {
    /// A run of about a minute.
    fn default() -> Self {
        Self {
            ways: Way::usual(),
            workloads: Workload::ALL.to_vec(),
            sizes: vec![8, 64, 256, 1024, 4096, 65536],
            small_sizes: vec![SMALL_BYTES],
            sender_counts: vec![1, 4, 16],
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
    /// The present measurement.
    pub what: String,
}

/// A run in progress.
struct Run<'a> {
    options: &'a Options,
    cpus: Cpus,
    machine: Machine,
    /// The distance between the CPUs in each round, in nanoseconds.
    lines: Vec<f64>,
    /// Number of the last way that was made, for unique names.
    number: usize,
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
}

/// Measures what the options name, and returns the figures.
///
/// # Errors
/// If a process can't be started, or a message differs from the one sent. A way that can't run a workload
/// here is not an error: its row has the reason.
pub fn run(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    let sizes = options.sizes.iter().chain(&options.small_sizes);
    if let Some(odd) = sizes.copied().find(|size| *size == 0 || size % 8 != 0) {
        return Err(format!("messages are whole words of 8 bytes, and not {odd} bytes").into());
    }
    let blocks = blocks(options);
    let mut run = Run {
        cpus: Cpus::find()?,
        machine: Machine::new(),
        lines: Vec::new(),
        number: 0,
        done: 0,
        total: blocks.len() * options.ways.len() * (options.rounds + 1),
        options,
        progress,
    };
    if run.cpus.are_two() {
        run.machine.pinned = Some([run.cpus.own, run.cpus.peer]);
    }
    let disturbance = Disturbance::begin();
    let mut rows = Vec::new();
    for block in &blocks {
        rows.extend(run.block(block)?);
    }
    run.cpus.unpin()?;
    let warnings = disturbance.warnings(&run.machine, &run.lines);
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

/// The comparisons of a run, in their order.
fn blocks(options: &Options) -> Vec<Block> {
    let mut blocks = Vec::new();
    for &workload in &options.workloads {
        let sizes = match workload {
            Workload::OneWay => &options.sizes,
            _ => &options.small_sizes,
        };
        let sender_counts = match workload {
            Workload::Producers => &options.sender_counts[..],
            _ => &[1],
        };
        for &size in sizes {
            blocks.extend(sender_counts.iter().map(|&senders| Block {
                workload,
                size,
                senders,
            }));
        }
    }
    blocks
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
        let what = format!("{doing}, {}, {}", exact_bytes(block.size as u64), way.label);
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
            self.lines.extend(line_round_trip_ns(&self.cpus));
            for column in &mut columns {
                self.step(block, column.way);
                if column.obstacle.is_none() {
                    self.round(column, block)?;
                }
            }
        }
        Ok(rows(block, columns))
    }

    /// Checks whether a way can do it, and how many messages make a round.
    fn prepare(&mut self, way: Way, block: &Block) -> Result<Column> {
        let mut column = Column::new(way, self.obstacle(way, block));
        if column.obstacle.is_some() {
            return Ok(column);
        }
        let spec = self.spec(way, block);
        match block.workload {
            Workload::OneWay => {
                if way.category != Category::Limit {
                    runner::verify(spec.clone(), &self.cpus)?;
                }
                let spec = self.spec(way, block);
                column.count = runner::count_for(&spec, &self.cpus, self.options.round)?;
            }
            Workload::RoundTrip => {
                let latencies = runner::latencies(spec, &self.cpus, 200)?;
                let seconds = latencies.mean() / 1e9;
                let count = self.options.round.as_secs_f64() / seconds;
                column.count = (count as u64).clamp(500, 200_000);
            }
            Workload::WakeUp | Workload::Producers => {}
        }
        Ok(column)
    }

    /// Why it can't be measured here, if that is found before a round.
    fn obstacle(&mut self, way: Way, block: &Block) -> Option<String> {
        let spec = self.spec(way, block);
        if block.workload == Workload::Producers && has_no_time_slice() {
            return Some(
                "not under a real-time policy: a sender that spins would never end".into(),
            );
        }
        if let Some(obstacle) = (way.obstacle)(&spec) {
            return Some(obstacle);
        }
        // Other reasons are found by making it.
        spec.make().err().map(|error| error.to_string())
    }

    fn round(&mut self, column: &mut Column, block: &Block) -> Result<()> {
        let spec = self.spec(column.way, block);
        match block.workload {
            Workload::OneWay => {
                let rate = runner::rate(spec, &self.cpus, column.count)?;
                column.rates.push(rate);
            }
            Workload::RoundTrip => {
                let latencies = runner::latencies(spec, &self.cpus, column.count)?;
                column.rates.push(1e9 / latencies.mean());
                column.add(latencies)?;
            }
            Workload::WakeUp => {
                let (latencies, cpu) = runner::wake_ups(spec, &self.cpus, WAKE_UPS, WAKE_INTERVAL)?;
                column.cpu_us.push(cpu.as_secs_f64() * 1e6);
                column.add(latencies)?;
            }
            Workload::Producers => {
                let count = runner::producers(spec, &self.cpus, self.options.round * 2)?;
                column.rates.push(count.rate);
                column.spreads.extend(count.spread);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_senders_make_blocks() {
        let options = Options {
            sizes: vec![8, 64],
            small_sizes: vec![64, 1024],
            sender_counts: vec![1, 4],
            ..Options::default()
        };
        let blocks = blocks(&options);
        let of = |workload| {
            let blocks = blocks.iter().filter(|block| block.workload == workload);
            blocks
                .map(|block| (block.size, block.senders))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Workload::OneWay), [(8, 1), (64, 1)]);
        assert_eq!(of(Workload::RoundTrip), [(64, 1), (1024, 1)]);
        assert_eq!(of(Workload::WakeUp), [(64, 1), (1024, 1)]);
        let producers = [(64, 1), (64, 4), (1024, 1), (1024, 4)];
        assert_eq!(of(Workload::Producers), producers);
    }
}
