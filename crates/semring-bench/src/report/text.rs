//! Tables for a terminal of 80 columns.

use crate::results::{Report, Row};
use crate::units::{exact_bytes, ratio, senders, time};
use crate::workload::Workload;

const COLUMNS: usize = 80;
/// Width of the first column: the labels of ways.
const FIRST: usize = 27;

/// All tables of a run, after the conditions under which it was made.
#[must_use]
pub fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = wrapped(&machine.origin());
    text.push_str(&wrapped(&machine.describe()));
    text.push_str(&wrapped(&format!(
        "rings in {}, waiting {}, guard {}",
        report.backend.trim_end_matches(':'),
        report.wait,
        report.guard,
    )));
    if let Some(ns) = machine.line_round_trip_ns {
        text.push_str(&format!(
            "a cache line from one CPU to the other and back: {ns:.0} ns\n"
        ));
    }
    text.push_str(&format!(
        "medians of {} interleaved rounds\n",
        report.rounds
    ));
    for warning in &report.warnings {
        text.push_str(&wrapped(&format!("warning: {warning}")));
    }
    let mut last = None;
    for row in &report.rows {
        let block = (row.workload, row.size_bytes, row.senders);
        if last != Some(block) {
            text.push('\n');
            text.push_str(&heading(row));
            last = Some(block);
        }
        text.push_str(&line(row));
    }
    text
}

/// Wrapped to the width of the terminal; lines after the first are indented.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            lines.push_str("\n   ");
            column = 3;
        }
        if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines.push('\n');
    lines
}

fn heading(row: &Row) -> String {
    let size = exact_bytes(row.size_bytes as u64);
    match row.workload {
        Workload::OneWay => rates(&format!("One way, {size}"), HEADS, "GB/s", "to pipe"),
        Workload::RoundTrip => {
            let heads = ["50 %", "90 %", "99 %", "99.9 %"];
            times(&format!("There and back, {size}"), heads, "to pipe")
        }
        Workload::WakeUp => {
            let heads = ["50 %", "90 %", "99 %", "CPU"];
            times(&format!("Sleeper woken each ms, {size}"), heads, "to pipe")
        }
        Workload::Producers => {
            let first = format!("{}, {size}", senders(row.senders));
            rates(&first, HEADS, "share", "to pipe")
        }
    }
}

const HEADS: [&str; 2] = ["M msg/s", "min – max"];

fn rates(first: &str, [rate, range]: [&str; 2], last: &str, to_pipe: &str) -> String {
    format!("{first:<FIRST$} {rate:>8}  {range:>19} {last:>10} {to_pipe:>9}\n")
}

fn times(first: &str, [p50, p90, p99, last]: [&str; 4], to_pipe: &str) -> String {
    format!("{first:<FIRST$} {p50:>9} {p90:>9} {p99:>9} {last:>9} {to_pipe:>9}\n")
}

fn line(row: &Row) -> String {
    let label = format!("  {}", row.way.label);
    if let Some(reason) = &row.unavailable {
        return format!("{label:<FIRST$} – {reason}\n");
    }
    let to_pipe = row
        .to_pipe
        .map_or_else(String::new, |of| format!("{}x", ratio(of)));
    let rate = millions(row.rate);
    let range = format!("{} – {}", millions(row.rate_min), millions(row.rate_max));
    let [p50, p90, p99, p999] = row.latency_ns.unwrap_or_default().map(time);
    match row.workload {
        Workload::OneWay => {
            let bytes = row.rate.unwrap_or_default() * row.size_bytes as f64;
            rates(
                &label,
                [&rate, &range],
                &format!("{:.2}", bytes / 1e9),
                &to_pipe,
            )
        }
        Workload::RoundTrip => times(&label, [&p50, &p90, &p99, &p999], &to_pipe),
        Workload::WakeUp => {
            let cpu = format!("{:.1} µs", row.receiver_cpu_us.unwrap_or_default());
            times(&label, [&p50, &p90, &p99, &cpu], &to_pipe)
        }
        Workload::Producers => {
            let share = row
                .spread
                .map_or_else(String::new, |spread| format!("{spread:.2}"));
            rates(&label, [&rate, &range], &share, &to_pipe)
        }
    }
}

/// Millions a second, to three digits or four.
fn millions(rate: Option<f64>) -> String {
    match rate.unwrap_or_default() / 1e6 {
        of @ 100.0.. => format!("{of:.1}"),
        of @ 10.0.. => format!("{of:.2}"),
        of => format!("{of:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::ways::Way;

    #[test]
    fn no_line_is_too_long_for_80_columns() {
        let mut rows = Vec::new();
        for workload in Workload::ALL {
            rows.extend(Way::all().into_iter().map(|way| Row {
                workload,
                way,
                size_bytes: 65536,
                senders: 16,
                rate: Some(9999.9e6),
                rate_min: Some(9999.9e6),
                rate_max: Some(9999.9e6),
                to_pipe: Some(99_999.0),
                latency_ns: Some([999_949, 999_949_000, 999_949_000, 59_000_000_000]),
                receiver_cpu_us: Some(99_999.9),
                spread: Some(9999.99),
                of_rounds: Vec::new(),
                unavailable: None,
            }));
        }
        let report = Report {
            machine: Machine::new(),
            rounds: 5,
            wait: "adaptive".into(),
            guard: "auto".into(),
            backend: "posix:".into(),
            warnings: vec!["words ".repeat(40)],
            rows,
        };
        let text = text(&report);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width <= COLUMNS), "{text}");
        assert!(text.matches("words").count() == 40 && text.contains("\n    words"));
    }
}
