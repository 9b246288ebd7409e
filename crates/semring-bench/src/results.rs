//! The results of a run: a row for each way, workload, size and number of senders.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::Result;
use crate::machine::Machine;
use crate::ways::Way;
use crate::workload::Workload;

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload.
    pub workload: Workload,
    /// The way.
    pub way: Way,
    /// Bytes of a message.
    pub size_bytes: usize,
    /// Processes that sent.
    pub senders: usize,
    /// Messages (or round trips) a second: the median of the rounds, which for an even number of them is the
    /// mean of the two in the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// The slowest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_min: Option<f64>,
    /// The fastest round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<f64>,
    /// Ratio to the pipe of the same run, where more is better: the pipe's median latency divided by this one,
    /// or, without latencies, this rate divided by the pipe's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_pipe: Option<f64>,
    /// Latency at 50, 90, 99 and 99.9 %, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<[u64; 4]>,
    /// CPU time of the receiver for each message, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver_cpu_us: Option<f64>,
    /// The largest share of a sender divided by the smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// The figure of each round, in the order of the rounds, which is the same for all ways: a rate, or a
    /// median latency in nanoseconds.
    pub of_rounds: Vec<f64>,
    /// Why this way can't do it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Interleaved rounds.
    pub rounds: usize,
    /// The wait strategy of rings.
    pub wait: String,
    /// How rings detect deaths and wake sleepers: `auto`, `semaphore`, `pipe`.
    pub guard: String,
    /// Prefix of the addresses of rings.
    pub backend: String,
    /// Reasons not to trust the figures.
    pub warnings: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Report {
    /// The row of a way for a workload, a message size and a number of senders.
    #[must_use]
    pub fn row(&self, workload: Workload, way: &str, size: usize, senders: usize) -> Option<&Row> {
        let same = |row: &&Row| {
            (row.workload, row.size_bytes, row.senders) == (workload, size, senders)
                && row.way.name == way
        };
        self.rows.iter().find(same)
    }
}

/// One comparison: all ways do the same.
pub(crate) struct Block {
    pub(crate) workload: Workload,
    pub(crate) size: usize,
    pub(crate) senders: usize,
}

/// The rounds of one way in a block.
pub(crate) struct Column {
    pub(crate) way: Way,
    /// Messages or round trips of a round.
    pub(crate) count: u64,
    pub(crate) rates: Vec<f64>,
    pub(crate) spreads: Vec<f64>,
    pub(crate) cpu_us: Vec<f64>,
    /// The median latency of each round.
    medians: Vec<f64>,
    /// The latencies of all rounds.
    latencies: Option<Histogram<u64>>,
    /// Why the way can't do it.
    pub(crate) obstacle: Option<String>,
}

impl Column {
    pub(crate) fn new(way: Way, obstacle: Option<String>) -> Self {
        Self {
            way,
            count: 0,
            rates: Vec::new(),
            spreads: Vec::new(),
            cpu_us: Vec::new(),
            medians: Vec::new(),
            latencies: None,
            obstacle,
        }
    }

    /// Adds the latencies of a round.
    pub(crate) fn add(&mut self, latencies: Histogram<u64>) -> Result<()> {
        self.medians.push(latencies.value_at_quantile(0.5) as f64);
        match &mut self.latencies {
            Some(all) => all.add(latencies)?,
            none => *none = Some(latencies),
        }
        Ok(())
    }
}

/// The median; of an even number of figures the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

/// The rows of a block.
pub(crate) fn rows(block: &Block, columns: Vec<Column>) -> Vec<Row> {
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
                .latencies
                .map(|all| [0.5, 0.9, 0.99, 0.999].map(|part| all.value_at_quantile(part))),
            receiver_cpu_us: median(&column.cpu_us),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_row_has_the_median_of_its_rounds() {
        let way = Way::named("pipe").expect("a way of this crate");
        let mut column = Column::new(way, None);
        column.rates = vec![40.0, 10.0, 30.0, 20.0];
        let block = Block {
            workload: Workload::OneWay,
            size: 64,
            senders: 1,
        };
        let rows = rows(&block, vec![column]);
        let row = &rows[0];
        assert_eq!((row.rate, row.to_pipe), (Some(25.0), Some(1.0)));
        assert_eq!((row.rate_min, row.rate_max), (Some(10.0), Some(40.0)));
        assert_eq!(row.of_rounds, [40.0, 10.0, 30.0, 20.0]);
    }
}
