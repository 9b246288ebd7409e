//! One page with everything in it, to look at and pass on: no script, nothing fetched.

mod picture;

use std::fmt::Write;

use crate::plan::{Report, Row, Workload};
use crate::text::{bytes, ratio, senders, time};
use crate::ways::Sort;
use picture::{Looks, bars, lines, ways};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #ccc; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #444; --paper: #181818 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; white-space: nowrap }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--faint) }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
tr.first td { border-top: 2px solid var(--ink) }
small { display: inline-block; min-width: 3.2em; opacity: .7 }
summary { cursor: pointer }
.warning { border-left: .3rem solid #d1495b; padding-left: .7rem }
.none { color: gray }
td[colspan] { text-align: left }
svg { max-width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg:has(.way:hover) .way:not(:hover) { opacity: .15 }
.axis { stroke: var(--faint); stroke-width: 1 }
h2 { margin-top: 2.5rem }";

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    let machine = &report.machine;
    let line = machine.line_round_trip_ns.map_or_else(
        || "one CPU only".to_string(),
        |ns| format!("a cache line there and back: {ns:.0} ns"),
    );
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>semring bench</title>\
         <style>{STYLE}</style><h1>Messages from one process to another</h1>\
         <p>{}; {line}. Medians of {} interleaved rounds in one run; rings in {} memory, \
         waiting: {}, guard: {}. Every word of every message was written and checked. Figures of other machines, or of \
         another hour, can't be compared with these; the ratios can.</p>",
        escape(&machine.describe()),
        report.rounds,
        escape(report.backend.trim_end_matches(':')),
        escape(&report.wait),
        escape(&report.guard),
    );
    for warning in &report.warnings {
        let _ = write!(
            page,
            "<p class=\"warning\">Warning: {}.</p>",
            escape(warning)
        );
    }
    let looks = Looks::new(&report.rows);
    for workload in Workload::ALL {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.workload == workload)
            .collect();
        if !rows.is_empty() {
            section(&mut page, &looks, workload, &rows);
        }
    }
    let _ = writeln!(
        page,
        "<p>Made by <code>semring bench</code> {}. A line of a picture stands out under the mouse.</p></html>",
        env!("CARGO_PKG_VERSION"),
    );
    page
}

fn section(page: &mut String, looks: &Looks, workload: Workload, rows: &[&Row]) {
    let about = match workload {
        Workload::OneWay => {
            "Messages a second over the size of a message; both scales are logarithmic."
        }
        Workload::RoundTrip => {
            "Latency of a round trip of 64 bytes: the median as a number, a bar from there to 99 %, a line to 99.9 %. \
             The scale is logarithmic."
        }
        Workload::WakeUp => {
            "From the clock of the sender to the receiver, with a message of 64 bytes each millisecond: the median as a \
             number, a bar from there to 99 %, a line to 99.9 %; and the CPU that each costs the receiver."
        }
        Workload::Producers => {
            "All on the same CPUs, nobody pinned; 64 bytes. Share: the largest of any sender against the smallest."
        }
    };
    let _ = write!(page, "<h2>{}</h2><p>{about}</p>", workload.title());
    match workload {
        Workload::OneWay => {
            let size = |row: &Row| row.size_bytes;
            lines(page, looks, rows, "size of a message", size, bytes);
            overview(page, rows, size, bytes);
        }
        Workload::Producers => {
            let crowd = |row: &Row| row.senders;
            let count = |count: usize| count.to_string();
            lines(page, looks, rows, "senders", crowd, count);
            overview(page, rows, crowd, senders);
        }
        Workload::RoundTrip | Workload::WakeUp => {
            bars(page, looks, rows);
            table(page, workload, rows);
            return;
        }
    }
    page.push_str("<details><summary>All figures</summary>");
    table(page, workload, rows);
    page.push_str("</details>");
}

/// Rates, a row for each way and a column for each size or number, with the ratio to the pipe; the fastest
/// of each column stands out.
fn overview(page: &mut String, rows: &[&Row], at: fn(&Row) -> usize, head: fn(usize) -> String) {
    let mut columns: Vec<usize> = rows.iter().map(|row| at(row)).collect();
    columns.sort_unstable();
    columns.dedup();
    let fastest = |column| {
        let here = rows.iter().filter(|row| at(row) == column);
        let rates = here
            .filter(|row| row.way.sort != Sort::Limit)
            .filter_map(|row| row.rate);
        rates.reduce(f64::max)
    };
    let fastest: Vec<Option<f64>> = columns.iter().map(|column| fastest(*column)).collect();
    page.push_str("<div class=\"wide\"><table><tr><th>messages/s, <small>to pipe</small></th>");
    for column in &columns {
        let _ = write!(page, "<th>{}</th>", head(*column));
    }
    page.push_str("</tr>");
    for way in ways(rows.iter().copied()) {
        let cells: Vec<Option<&Row>> = columns
            .iter()
            .map(|column| {
                rows.iter()
                    .copied()
                    .find(|row| row.way == way && at(row) == *column)
            })
            .collect();
        let _ = write!(page, "<tr><td>{}</td>", way.label);
        let reasons = cells
            .iter()
            .flatten()
            .filter_map(|row| row.unavailable.as_ref());
        let reasons: Vec<&String> = reasons.collect();
        if let [reason, rest @ ..] = &reasons[..]
            && reasons.len() == columns.len()
            && rest.iter().all(|other| other == reason)
        {
            let _ = write!(
                page,
                "<td class=\"none\" colspan=\"{}\">{}</td></tr>",
                columns.len(),
                escape(reason)
            );
            continue;
        }
        for (row, fastest) in cells.iter().zip(&fastest) {
            cell(page, *row, *fastest);
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
}

fn cell(page: &mut String, row: Option<&Row>, fastest: Option<f64>) {
    let Some((row, rate)) = row.and_then(|row| Some((row, row.rate?))) else {
        let reason = row.and_then(|row| row.unavailable.as_deref());
        let reason = escape(reason.unwrap_or_default());
        let _ = write!(page, "<td class=\"none\" title=\"{reason}\">–</td>");
        return;
    };
    let name = if Some(rate) == fastest { "b" } else { "span" };
    let _ = write!(
        page,
        "<td title=\"{}\"><{name}>{}</{name}> <small>{}</small></td>",
        range(row),
        short(rate),
        row.to_pipe.map_or_else(String::new, times),
    );
}

fn range(row: &Row) -> String {
    format!(
        "{} – {}",
        short(row.rate_min.unwrap_or_default()),
        short(row.rate_max.unwrap_or_default())
    )
}

/// So many times something else.
fn times(of: f64) -> String {
    format!("{}×", ratio(of))
}

fn table(page: &mut String, workload: Workload, rows: &[&Row]) {
    let heads: &[&str] = match workload {
        Workload::OneWay => &["", "size", "messages/s", "min – max", "bytes/s", "to pipe"],
        Workload::RoundTrip => &[
            "",
            "50 %",
            "90 %",
            "99 %",
            "99.9 %",
            "round trips/s",
            "to pipe",
        ],
        Workload::WakeUp => &[
            "",
            "50 %",
            "90 %",
            "99 %",
            "99.9 %",
            "receiver's CPU",
            "to pipe",
        ],
        Workload::Producers => &["", "senders", "messages/s", "min – max", "share", "to pipe"],
    };
    page.push_str("<div class=\"wide\"><table><tr>");
    for head in heads {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("</tr>");
    let ratio = |row: &Row| row.to_pipe.map_or_else(|| "–".to_string(), times);
    let mut last = None;
    for row in rows {
        let block = (row.size_bytes, row.senders);
        let first = last.replace(block).is_some_and(|last| last != block);
        let class = if first { " class=\"first\"" } else { "" };
        let _ = write!(page, "<tr{class}><td>{}</td>", row.way.label);
        if let Some(reason) = &row.unavailable {
            let what = match workload {
                Workload::OneWay => Some(bytes(row.size_bytes)),
                Workload::Producers => Some(row.senders.to_string()),
                Workload::RoundTrip | Workload::WakeUp => None,
            };
            let columns = heads.len() - 1 - usize::from(what.is_some());
            let what = what.map_or_else(String::new, |what| format!("<td>{what}</td>"));
            let _ = write!(
                page,
                "{what}<td class=\"none\" colspan=\"{columns}\">{}</td></tr>",
                escape(reason)
            );
            continue;
        }
        let rate = row.rate.unwrap_or_default();
        let cells = match workload {
            Workload::OneWay => vec![
                bytes(row.size_bytes),
                short(rate),
                range(row),
                format!("{}B", short(rate * row.size_bytes as f64)),
                ratio(row),
            ],
            Workload::Producers => vec![
                row.senders.to_string(),
                short(rate),
                range(row),
                row.spread
                    .map_or_else(String::new, |spread| format!("{spread:.2}")),
                ratio(row),
            ],
            Workload::RoundTrip | Workload::WakeUp => {
                let mut cells: Vec<String> = row.latency_ns.unwrap_or_default().map(time).to_vec();
                cells.push(match row.receiver_cpu_us {
                    Some(us) => format!("{us:.1} µs"),
                    None => short(rate),
                });
                cells.push(ratio(row));
                cells
            }
        };
        for cell in cells {
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
}

/// A number with three digits and a letter.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e3 => (v / 1e3, " k"),
        v => (v, ""),
    };
    let digits = match scaled {
        s if s >= 100.0 || unit.is_empty() => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::ways::Way;

    fn named(name: &str) -> Way {
        Way::named(name).expect("a way of this crate")
    }

    fn row(workload: Workload, way: Way) -> Row {
        Row {
            workload,
            way,
            size_bytes: 64,
            senders: 1,
            rate: Some(1.5e6),
            rate_min: Some(1e6),
            rate_max: Some(2e6),
            to_pipe: Some(1.0),
            latency_ns: Some([900, 1_500, 20_000, 3_000_000]),
            receiver_cpu_us: None,
            spread: None,
            of_rounds: vec![1.5e6, 1e6, 2e6],
            unavailable: None,
        }
    }

    #[test]
    fn a_page_shows_every_workload_and_says_what_can_not_be_done() {
        let mut rows: Vec<Row> = Workload::ALL
            .iter()
            .flat_map(|&workload| [named("semring"), named("pipe")].map(|way| row(workload, way)))
            .collect();
        rows[1].rate = None;
        rows[1].unavailable = Some("a limit of <8192>".into());
        let report = Report {
            machine: Machine::new(),
            rounds: 1,
            wait: "adaptive".into(),
            guard: "auto".into(),
            backend: "posix:".into(),
            warnings: vec!["<others> were busy".into()],
            rows,
        };
        let page = html(&report);
        assert_eq!(page.matches("<h2>").count(), 4);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("a limit of &lt;8192&gt;") && page.contains("3.0 ms"));
        assert!(page.contains("Warning: &lt;others&gt; were busy."));
        assert!(!page.contains("NaN") && !page.contains("inf"));
        assert!(!page.contains("http") && !page.contains("<script"));
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [short(0.0), short(999.0), short(1500.0)],
            ["0", "999", "1.50 k"]
        );
        assert_eq!([short(23.44e6), short(123.4e6)], ["23.4 M", "123 M"]);
        assert_eq!([time(999), time(1_500)], ["999 ns", "1.5 µs"]);
    }
}
