//! A self-contained HTML page: no script, nothing fetched. It fits windows from 360 pixels on.

use std::fmt::Write;

use super::escape::escape;
use super::picture::{Styles, bars, lines};
use super::table::{overview, table};
use crate::results::{Report, Row};
use crate::units::{exact_bytes, senders};
use crate::workload::Workload;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #ccc; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #444; --paper: #181818 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
.scrolls { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; white-space: nowrap }
td, th { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--faint) }
td:first-child, th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--paper) }
tr.first td { border-top: 2px solid var(--ink) }
small { display: inline-block; min-width: 3.2em; opacity: .7 }
summary { cursor: pointer }
.warning { border-left: .3rem solid #d1495b; padding-left: .7rem }
.none { color: gray }
td[colspan] { text-align: left }
svg { display: block; max-width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg:has(.way:hover) .way:not(:hover) { opacity: .15 }
.axis { stroke: var(--faint); stroke-width: 1 }
h2 { margin-top: 2.5rem }
svg.narrow { display: none; width: 100%; max-width: 30rem }
@media (max-width: 50rem) {
  svg.wide { display: none } svg.narrow { display: block }
  body { margin: 1rem auto; padding: 0 .8rem } h1 { font-size: 1.5rem; line-height: 1.25 }
  table { font-size: 13px } td, th { padding: .15rem .4rem }
}";

/// The report as a page of HTML.
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
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>semring bench</title>\
         <style>{STYLE}</style><h1>Messages from one process to another</h1>\
         <p>{}.</p><p>{}; {line}. Medians of {} interleaved rounds in one run; rings in {} memory, \
         waiting: {}, guard: {}. Every word of every message was written and checked. Compare ratios within a run; figures \
         of another machine, or of another hour, differ.</p>",
        escape(&machine.origin()),
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
    let styles = Styles::new(&report.rows);
    for workload in Workload::ALL {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.workload == workload)
            .collect();
        if workload == Workload::OneWay {
            section(&mut page, &styles, workload, &rows);
            continue;
        }
        let mut sizes: Vec<usize> = rows.iter().map(|row| row.size_bytes).collect();
        sizes.dedup();
        for size in sizes {
            let rows = rows.iter().filter(|row| row.size_bytes == size);
            section(
                &mut page,
                &styles,
                workload,
                &rows.copied().collect::<Vec<_>>(),
            );
        }
    }
    let _ = writeln!(
        page,
        "<p>Made by <code>semring bench</code>. Point at a line of a picture to highlight it.</p></html>",
    );
    page
}

fn section(page: &mut String, styles: &Styles, workload: Workload, rows: &[&Row]) {
    let Some(first) = rows.first() else { return };
    let size = exact_bytes(first.size_bytes as u64);
    let heading = match workload {
        Workload::OneWay => workload.title().to_owned(),
        _ => format!("{}, {size}", workload.title()),
    };
    let about = match workload {
        Workload::OneWay => {
            "Messages a second over the size of a message; both scales are logarithmic."
        }
        Workload::RoundTrip => {
            "Latency of a round trip: the median as a number, a bar from there to 99 %, a line to 99.9 %. \
             The scale is logarithmic."
        }
        Workload::WakeUp => {
            "From the clock of the sender to the receiver, with a message each millisecond: the median as a \
             number, a bar from there to 99 %, a line to 99.9 %; and the CPU that each costs the receiver."
        }
        Workload::Producers => {
            "All on the same CPUs, no process pinned. Share: the largest of any sender divided by the smallest."
        }
    };
    let _ = write!(page, "<h2>{heading}</h2><p>{about}</p>");
    match workload {
        Workload::OneWay => {
            let size = |row: &Row| row.size_bytes;
            let bytes = |size: usize| exact_bytes(size as u64);
            lines(page, styles, rows, "size of a message", size, bytes);
            overview(page, rows, size, bytes);
        }
        Workload::Producers => {
            let crowd = |row: &Row| row.senders;
            let count = |count: usize| count.to_string();
            lines(page, styles, rows, "senders", crowd, count);
            overview(page, rows, crowd, senders);
        }
        Workload::RoundTrip | Workload::WakeUp => {
            bars(page, styles, rows);
            table(page, workload, rows);
            return;
        }
    }
    page.push_str("<details><summary>All figures</summary>");
    table(page, workload, rows);
    page.push_str("</details>");
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
    fn a_page_has_every_workload_and_every_reason() {
        let mut rows: Vec<Row> = Workload::ALL
            .iter()
            .flat_map(|&workload| [named("semring"), named("pipe")].map(|way| row(workload, way)))
            .collect();
        rows[1].rate = None;
        rows[1].unavailable = Some("a \"limit\" of <8192>".into());
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
        assert!(page.contains("a &quot;limit&quot; of &lt;8192&gt;") && page.contains("3.0 ms"));
        assert!(page.contains("Warning: &lt;others&gt; were busy."));
        assert!(!page.contains("NaN") && !page.contains("inf"));
        assert!(page.contains(&escape(&report.machine.origin())));
        assert_eq!(page.matches("<svg class=\"wide\"").count(), 4);
        assert_eq!(page.matches("<svg class=\"narrow\"").count(), 4);
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}
