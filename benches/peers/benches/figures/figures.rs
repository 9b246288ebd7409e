//! From rows of a run to figures with a verdict.

use std::fmt;

use semring_bench::{Report, Result, Row, Category, Workload};

use crate::streams::Streams;

/// The results of the measurements.
pub struct Source {
    pub one_way: Report,
    pub trips: Report,
    pub wake_ups: Report,
    pub crowds: Report,
    pub streams: Streams,
}

impl Source {
    pub fn reports(&self) -> [&Report; 4] {
        [&self.one_way, &self.trips, &self.wake_ups, &self.crowds]
    }

    fn one_way(&self, way: &str, size: usize) -> Result<&Row> {
        find(&self.one_way, Workload::OneWay, way, size, 1)
    }

    fn trip(&self, way: &str, size: usize) -> Result<&Row> {
        find(&self.trips, Workload::RoundTrip, way, size, 1)
    }

    fn wake_up(&self, way: &str) -> Result<&Row> {
        find(&self.wake_ups, Workload::WakeUp, way, SMALL, 1)
    }

    fn crowd(&self, way: &str, senders: usize) -> Result<&Row> {
        find(&self.crowds, Workload::Producers, way, SMALL, senders)
    }
}

const SMALL: usize = 64;

fn find<'a>(
    report: &'a Report,
    workload: Workload,
    way: &str,
    size: usize,
    senders: usize,
) -> Result<&'a Row> {
    let row = report.row(workload, way, size, senders);
    Ok(row.ok_or_else(|| format!("{way} was not measured"))?)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios of each round.
fn ratio_of(figures: &[f64], others: &[f64]) -> f64 {
    median(figures.iter().zip(others).map(|(a, b)| a / b).collect())
}

fn ratio(row: &Row, other: &Row) -> f64 {
    ratio_of(&row.of_rounds, &other.of_rounds)
}

/// The row of the highest rate among those of one block that are wanted.
fn fastest<'a>(report: &'a Report, like: &Row, wanted: impl Fn(&Row) -> bool) -> Result<&'a Row> {
    let block = |row: &&Row| {
        (row.workload, row.size_bytes, row.senders)
            == (like.workload, like.size_bytes, like.senders)
    };
    let rows = report.rows.iter().filter(block).filter(|row| wanted(row));
    let rate = |row: &&Row| row.rate.unwrap_or_default();
    let best = rows.max_by(|a, b| rate(a).total_cmp(&rate(b)));
    Ok(best.ok_or("nothing to compare with")?)
}

/// Whether it carries messages between processes, and is not this library's.
fn is_peer(row: &Row) -> bool {
    let ours = row.way.name.starts_with("semring");
    !ours && matches!(row.way.category, Category::Usual | Category::Variant | Category::Library)
}

/// The same, with a call for each message.
fn sends_singly(row: &Row) -> bool {
    let packs = ["pipe-4k", "pipe-packed", "pipe-long", "pipe-vmsplice"];
    is_peer(row) && !packs.contains(&row.way.name) && !row.way.name.ends_with("-batch")
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// For information.
    None,
}

struct Figure {
    what: String,
    ratio: f64,
    bound: Bound,
    /// The two sides of the ratio.
    sides: String,
}

impl Figure {
    fn met(&self) -> Option<bool> {
        if self.ratio.is_nan() {
            // One side can't be measured here: the tables have the reason.
            return None;
        }
        match self.bound {
            Bound::AtLeast(bound) => Some(self.ratio >= bound),
            Bound::AtMost(bound) => Some(self.ratio <= bound),
            Bound::None => None,
        }
    }
}

/// All of them, to be printed.
pub struct Figures<'a> {
    source: &'a Source,
    figures: Vec<Figure>,
}

impl<'a> Figures<'a> {
    pub fn of(source: &'a Source) -> Result<Self> {
        let mut all = Self {
            source,
            figures: Vec::new(),
        };
        all.one_way()?;
        all.barrier()?;
        all.trips()?;
        all.wake_ups()?;
        all.crowds()?;
        all.streams();
        Ok(all)
    }

    fn add(&mut self, what: impl Into<String>, ratio: f64, bound: Bound, sides: String) {
        self.figures.push(Figure {
            what: what.into(),
            ratio,
            bound,
            sides,
        });
    }

    fn rates(&mut self, what: impl Into<String>, row: &Row, other: &Row, bound: Bound) {
        let sides = format!(
            "{} : {} {}",
            millions(row),
            millions(other),
            other.way.label
        );
        self.add(what, ratio(row, other), bound, sides);
    }

    fn one_way(&mut self) -> Result<()> {
        let source = self.source;
        for size in [64, 256, 1024] {
            let ring = source.one_way("semring", size)?;
            let peer = fastest(&source.one_way, ring, is_peer)?;
            let threads = fastest(&source.one_way, ring, |row| row.way.category == Category::Threads)?;
            let limit = source.one_way("limit-blocks", size)?;
            // The machine's limit counts in place of what would be above it.
            let rate = |row: &Row| row.rate.unwrap_or_default();
            let capped = |bound: f64, other: &Row| {
                let cap = 0.95 * rate(limit) / rate(other);
                Bound::AtLeast(bound.min(cap))
            };
            let what = |than: &str| format!("{size} B, single, to the fastest {than}");
            self.rates(what("peer"), ring, peer, capped(1.3, peer));
            self.rates(what("thread queue"), ring, threads, capped(1.0, threads));
            let what = format!("{size} B, single, to fill and check");
            self.rates(what, ring, limit, Bound::None);
        }
        let batch = source.one_way("semring-batch", 8)?;
        let peer = fastest(&source.one_way, batch, is_peer)?;
        self.rates(
            "8 B, batches, to the fastest peer",
            batch,
            peer,
            Bound::AtLeast(1.5),
        );
        for size in [4096, 65536] {
            let ring = source.one_way("semring-in-place", size)?;
            let limit = source.one_way("limit-blocks", size)?;
            let what = format!("{} KiB, in place, to fill and check", size >> 10);
            self.rates(what, ring, limit, Bound::AtLeast(0.95));
        }
        for (size, bound) in [(64, 30.0), (4096, 4.0), (65536, 5.0)] {
            let ring = source.one_way("semring", size)?;
            let pipe = source.one_way("pipe", size)?;
            let what = format!("{size} B, to a pipe");
            self.rates(what, ring, pipe, Bound::AtLeast(bound));
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<()> {
        let source = self.source;
        let ring = source.one_way("semring", SMALL)?;
        let spin = source.one_way("semring-spin", SMALL)?;
        self.rates(
            "64 B, default to spinning only",
            ring,
            spin,
            Bound::AtLeast(0.95),
        );
        for size in [8, 64] {
            let ring = source.one_way("semring", size)?;
            let fenced = source.one_way("semring-fenced", size)?;
            let what = format!("{size} B, asymmetric barrier to a fence");
            self.rates(what, ring, fenced, Bound::None);
        }
        Ok(())
    }

    fn times(&mut self, what: impl Into<String>, row: &Row, other: &Row, bound: Bound) {
        let sides = format!("{} : {} {}", half(row), half(other), other.way.label);
        self.add(what, ratio(row, other), bound, sides);
    }

    fn trips(&mut self) -> Result<()> {
        let source = self.source;
        for (size, bound) in [(48, 1.15), (64, 1.3)] {
            let spin = source.trip("semring-spin", size)?;
            let line = source.trip("limit-line", size)?;
            let what = format!("there and back, {size} B, Spin");
            self.times(what, spin, line, Bound::AtMost(bound));
        }
        let mut best = source.trip("pipe", SMALL)?;
        for way in ["futex", "eventfd"] {
            let other = source.trip(way, SMALL)?;
            if median(other.of_rounds.clone()) < median(best.of_rounds.clone()) {
                best = other;
            }
        }
        let block = source.trip("semring-block", SMALL)?;
        self.times(
            "there and back, 64 B, Block",
            block,
            best,
            Bound::AtMost(1.25),
        );
        let adaptive = source.trip("semring-adaptive", SMALL)?;
        let spin = source.trip("semring-spin", SMALL)?;
        // As fast, to the digit that a median of rounds has.
        self.times(
            "there and back, 64 B, Adaptive",
            adaptive,
            spin,
            Bound::AtMost(1.1),
        );
        Ok(())
    }

    fn wake_ups(&mut self) -> Result<()> {
        let source = self.source;
        let pipe = source.wake_up("pipe")?;
        let cpu = |row: &Row| row.receiver_cpu_us.unwrap_or(f64::NAN);
        for (way, strategy) in [("semring-adaptive", "Adaptive"), ("semring-block", "Block")] {
            let ring = source.wake_up(way)?;
            let what = format!("sleeper woken each ms, {strategy}, 50 %");
            self.times(what, ring, pipe, Bound::AtMost(1.0));
            let what = format!("sleeper woken each ms, {strategy}, CPU");
            let sides = format!("{:.1} µs : {:.1} µs pipe", cpu(ring), cpu(pipe));
            self.add(what, cpu(ring) / cpu(pipe), Bound::AtMost(1.0), sides);
        }
        Ok(())
    }

    fn crowds(&mut self) -> Result<()> {
        let source = self.source;
        let ring = source.crowd("semring-adaptive", 4)?;
        let peer = fastest(&source.crowds, ring, sends_singly)?;
        self.rates(
            "4 senders, to the fastest single",
            ring,
            peer,
            Bound::AtLeast(2.0),
        );
        let packed = source.crowd("pipe-4k", 4)?;
        self.rates(
            "4 senders, to 4 KiB writes",
            ring,
            packed,
            Bound::AtLeast(1.0),
        );
        let threads = source.crowd("array-queue", 4)?;
        self.rates("4 senders, to a thread queue", ring, threads, Bound::None);
        let one = source.crowd("semring-adaptive", 1)?;
        for senders in [4, 16] {
            let many = source.crowd("semring-adaptive", senders)?;
            let sides = format!("{} : {} one sender", millions(many), millions(one));
            let what = format!("{senders} senders, to one");
            self.add(what, ratio(many, one), Bound::AtLeast(0.7), sides);
        }
        Ok(())
    }

    fn streams(&mut self) {
        let streams = &self.source.streams;
        let others = [
            ("cat | cat", &streams.cat, 1.5),
            ("dd bs=64k", &streams.dd, 2.0),
        ];
        for (name, other, bound) in others {
            let rate = |figures: &[f64]| format!("{:.2} GB/s", median(figures.to_vec()) / 1e9);
            let sides = format!("{} : {} {name}", rate(&streams.ring), rate(other));
            let what = format!("a file, --raw, to {name}");
            let ratio = ratio_of(&streams.ring, other);
            self.figures.push(Figure {
                what,
                ratio,
                bound: Bound::AtLeast(bound),
                sides,
            });
        }
    }
}

fn millions(row: &Row) -> String {
    let millions = row.rate.unwrap_or_default() / 1e6;
    match millions {
        10.0.. => format!("{millions:.1} M/s"),
        1.0.. => format!("{millions:.2} M/s"),
        _ => format!("{millions:.3} M/s"),
    }
}

/// The median of a latency.
fn half(row: &Row) -> String {
    let ns = median(row.of_rounds.clone());
    if ns < 1000.0 {
        format!("{ns:.0} ns")
    } else {
        format!("{:.1} µs", ns / 1e3)
    }
}

impl fmt::Display for Figures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.source.one_way;
        writeln!(f, "{}", report.machine.describe())?;
        let lines: Vec<String> = self
            .source
            .reports()
            .iter()
            .filter_map(|report| Some(format!("{:.0}", report.machine.line_round_trip_ns?)))
            .collect();
        writeln!(
            f,
            "a cache line there and back: {} ns in the parts of the run",
            lines.join(", ")
        )?;
        writeln!(f, "medians of {} interleaved rounds", report.rounds)?;
        let mut warnings: Vec<&String> = Vec::new();
        for warning in self
            .source
            .reports()
            .iter()
            .flat_map(|report| &report.warnings)
        {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        for warning in warnings {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(
            f,
            "\n{:<42}{:>7}  {:<7} {:<8} sides",
            "figure", "ratio", "bound", ""
        )?;
        for figure in &self.figures {
            let bound = match figure.bound {
                Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
                Bound::AtMost(bound) => format!("≤ {bound:.2}"),
                Bound::None => "–".into(),
            };
            let verdict = match figure.met() {
                Some(true) => "met",
                Some(false) => "NOT MET",
                None => "",
            };
            let Figure {
                what, ratio, sides, ..
            } = figure;
            writeln!(f, "{what:<42}{ratio:>7.2}  {bound:<7} {verdict:<8} {sides}")?;
        }
        writeln!(
            f,
            "\n{:<24}{:>11}{:>11}{:>10}",
            "sleeper woken each ms", "50 %", "99 %", "CPU, µs"
        )?;
        for row in &self.source.wake_ups.rows {
            let [half, _, most, _] = row.latency_ns.unwrap_or_default();
            let us = |ns: u64| format!("{:.1} µs", ns as f64 / 1e3);
            let cpu = row.receiver_cpu_us.unwrap_or_default();
            writeln!(
                f,
                "{:<24}{:>11}{:>11}{cpu:>10.1}",
                row.way.label,
                us(half),
                us(most)
            )?;
        }
        Ok(())
    }
}
