//! Tables for a terminal of 80 columns.

use crate::plan::{Report, Row, Workload};

/// All tables of a run, with what must be known about it on top.
#[must_use]
pub fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}\nrings in {}, waiting {}, guard {}\n",
        machine.describe(),
        report.backend.trim_end_matches(':'),
        report.wait,
        report.guard,
    );
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
        text.push_str(&format!("warning: {warning}\n"));
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

fn heading(row: &Row) -> String {
    let size = bytes(row.size_bytes);
    match row.workload {
        Workload::OneWay => {
            format!("One way, {size:<28} M msg/s      min – max        GB/s  to pipe\n")
        }
        Workload::RoundTrip => {
            format!("There and back, {size:<21}     50 %      90 %      99 %    99.9 %  to pipe\n")
        }
        Workload::WakeUp => {
            format!(
                "Sleeper woken each ms, {size:<14}     50 %      90 %      99 %  CPU, µs  to pipe\n"
            )
        }
        _ => {
            let senders = format!("{}, {size}", senders(row.senders));
            format!("{senders:<37} M msg/s      min – max       share  to pipe\n")
        }
    }
}

fn line(row: &Row) -> String {
    let label = row.way.label;
    if let Some(reason) = &row.unavailable {
        return format!("  {label:<34}– {reason}\n");
    }
    let ratio = row
        .to_pipe
        .map_or_else(String::new, |ratio| format!("{ratio:.1}x"));
    let millions = |rate: Option<f64>| rate.unwrap_or_default() / 1e6;
    let us = |ns: u64| match ns {
        0..1000 => format!("{ns} ns"),
        _ => format!("{:.1} µs", ns as f64 / 1e3),
    };
    let range = format!(
        "{:.3} – {:.3}",
        millions(row.rate_min),
        millions(row.rate_max)
    );
    let [p50, p90, p99, p999] = row.latency_ns.unwrap_or_default();
    let last = match row.workload {
        Workload::OneWay => format!(
            "{:.2}",
            row.rate.unwrap_or_default() * row.size_bytes as f64 / 1e9
        ),
        Workload::RoundTrip => us(p999),
        Workload::WakeUp => format!("{:.1}", row.receiver_cpu_us.unwrap_or_default()),
        _ => row
            .spread
            .map_or_else(String::new, |spread| format!("{spread:.2}")),
    };
    match row.workload {
        Workload::RoundTrip | Workload::WakeUp => format!(
            "  {label:<35}{:>9} {:>9} {:>9} {last:>9} {ratio:>8}\n",
            us(p50),
            us(p90),
            us(p99),
        ),
        _ => format!(
            "  {label:<34}{:>9.3}  {range:>17} {last:>10} {ratio:>8}\n",
            millions(row.rate),
        ),
    }
}

fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        _ if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        _ if size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        _ => format!("{size} B"),
    }
}

fn senders(count: usize) -> String {
    format!("{count} sender{}", if count == 1 { "" } else { "s" })
}
