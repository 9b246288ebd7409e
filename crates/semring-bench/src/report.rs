//! One page with everything in it, to look at and pass on: no script, nothing fetched.

use std::fmt::Write;

use crate::plan::{Report, Row, Workload};
use crate::ways::Way;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 40.0;

/// Told apart also by those who see few colours: the order alternates light and dark.
const COLOURS: [&str; 14] = [
    "#d1495b", "#30638e", "#66a182", "#8d5a97", "#b07d12", "#2e4057", "#5fb0b7", "#9c3848",
    "#5b6c5d", "#c98bb9", "#777777", "#3f8f3f", "#e07a5f", "#1f4fbf",
];

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #222; --faint: #bbb; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --faint: #555; --paper: #181818 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--faint) }
td:first-child, th:first-child { text-align: left }
.warning { border-left: .3rem solid #d1495b; padding-left: .7rem }
.none { color: gray; text-align: left }
svg { max-width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
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
    for workload in Workload::ALL {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.workload == workload)
            .collect();
        if !rows.is_empty() {
            section(&mut page, workload, &rows);
        }
    }
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, workload: Workload, rows: &[&Row]) {
    let (title, about) = match workload {
        Workload::OneWay => (
            "One way",
            "Messages a second over the size of a message; both scales are logarithmic.",
        ),
        Workload::RoundTrip => (
            "There and back",
            "Latency of a round trip of 64 bytes, at 50, 90, 99 and 99.9 %.",
        ),
        Workload::WakeUp => (
            "Waking a sleeper",
            "From the clock of the sender to the receiver, with a message of 64 bytes each millisecond, and the CPU \
             that each costs the receiver.",
        ),
        Workload::Producers => (
            "Several senders",
            "All on the same CPUs, nobody pinned; 64 bytes. Share: the largest of any sender against the smallest.",
        ),
    };
    let _ = write!(page, "<h2>{title}</h2><p>{about}</p>");
    match workload {
        Workload::OneWay => lines(page, rows, "bytes of a message", |row| {
            row.size_bytes as f64
        }),
        Workload::Producers => lines(page, rows, "senders", |row| row.senders as f64),
        Workload::RoundTrip | Workload::WakeUp => bars(page, rows),
    }
    table(page, workload, rows);
}

/// The ways that have something to show, in the order of their first row.
fn ways(rows: &[&Row], shows: impl Fn(&Row) -> bool) -> Vec<Way> {
    let mut ways = Vec::new();
    for row in rows.iter().filter(|row| shows(row)) {
        if !ways.contains(&row.way) {
            ways.push(row.way);
        }
    }
    ways
}

fn colour(way: Way) -> &'static str {
    let all = Way::all();
    let index = all.iter().position(|other| *other == way).unwrap_or(0);
    COLOURS[index % COLOURS.len()]
}

/// Powers of ten around these figures.
fn decades(figures: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = figures
        .clone()
        .fold(f64::INFINITY, f64::min)
        .log10()
        .floor();
    let high = figures.fold(f64::NEG_INFINITY, f64::max).log10().ceil();
    (low, if high > low { high } else { low + 1.0 })
}

fn lines(page: &mut String, rows: &[&Row], axis: &str, at: impl Fn(&Row) -> f64) {
    let shown: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| row.rate.is_some())
        .collect();
    if shown.is_empty() {
        return;
    }
    let (low, high) = decades(shown.iter().filter_map(|row| row.rate));
    let left = shown
        .iter()
        .map(|row| at(row))
        .fold(f64::INFINITY, f64::min)
        .log2();
    let right = shown
        .iter()
        .map(|row| at(row))
        .fold(0.0, f64::max)
        .log2()
        .max(left + 1.0);
    let x = |value: f64| LEFT + (value.log2() - left) / (right - left) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    open_picture(page);
    for decade in low as i32..=high as i32 {
        let value = 10f64.powi(decade);
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{1:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}/s</text>",
            WIDTH - RIGHT,
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            short(value),
        );
    }
    let mut marks: Vec<f64> = shown.iter().map(|row| at(row)).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark}</text>",
            x(mark),
            HEIGHT - BOTTOM + 16.0,
        );
    }
    let _ = write!(
        page,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{axis}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
    );
    for (index, way) in ways(&shown, |row| row.rate.is_some())
        .into_iter()
        .enumerate()
    {
        let mut path = String::new();
        let colour = colour(way);
        for row in shown.iter().filter(|row| row.way == way) {
            let rate = row.rate.unwrap_or_default();
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {:.1}", x(at(row)), y(rate));
            let _ = write!(
                page,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {}/s</title></circle>",
                x(at(row)),
                y(rate),
                way.label,
                short(rate),
            );
        }
        let _ = write!(
            page,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        legend(page, index, colour, way.label);
    }
    page.push_str("</svg>");
}

/// Latencies: for each way a bar from its median to 99 %, on a logarithmic scale.
fn bars(page: &mut String, rows: &[&Row]) {
    let shown: Vec<(&Row, [u64; 4])> = rows
        .iter()
        .filter_map(|row| Some((*row, row.latency_ns?)))
        .collect();
    if shown.is_empty() {
        return;
    }
    let figures = shown
        .iter()
        .flat_map(|(_, ns)| ns.map(|ns| ns.max(1) as f64));
    let (low, high) = decades(figures);
    let left = 190.0;
    let x =
        |ns: u64| left + ((ns.max(1) as f64).log10() - low) / (high - low) * (WIDTH - left - 40.0);
    let height = 40.0 + 26.0 * shown.len() as f64;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for decade in low as i32..=high as i32 {
        let at = x(10f64.powi(decade) as u64);
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height - 26.0,
            height - 8.0,
            time(10f64.powi(decade) as u64),
        );
    }
    for (index, (row, [p50, p90, p99, p999])) in shown.iter().enumerate() {
        let y = 12.0 + 26.0 * index as f64;
        let colour = colour(row.way);
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{mid:.1}\" y2=\"{mid:.1}\" stroke=\"{colour}\"/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\" opacity=\".55\"/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"14\" fill=\"{colour}\"><title>{}: 50 % {}, 90 % {}, 99 % {}, 99.9 % {}</title></rect>",
            left - 8.0,
            y + 11.0,
            row.way.label,
            x(*p50),
            x(*p999),
            x(*p50),
            y,
            (x(*p99) - x(*p50)).max(1.0),
            x(*p50) - 1.0,
            y,
            row.way.label,
            time(*p50),
            time(*p90),
            time(*p99),
            time(*p999),
            mid = y + 7.0,
        );
    }
    page.push_str("</svg>");
}

fn open_picture(page: &mut String) {
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
}

fn legend(page: &mut String, index: usize, colour: &str, label: &str) {
    let y = TOP + 18.0 * index as f64;
    let x = WIDTH - RIGHT + 16.0;
    let _ = write!(
        page,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
        x + 18.0,
        y + 10.0,
    );
}

fn table(page: &mut String, workload: Workload, rows: &[&Row]) {
    let heads: &[&str] = match workload {
        Workload::OneWay => &["", "bytes", "messages/s", "min – max", "bytes/s", "to pipe"],
        Workload::RoundTrip => &["", "50 %", "90 %", "99 %", "99.9 %", "round trips/s"],
        Workload::WakeUp => &["", "50 %", "90 %", "99 %", "99.9 %", "receiver's CPU"],
        Workload::Producers => &["", "senders", "messages/s", "min – max", "share", "to pipe"],
    };
    page.push_str("<table><tr>");
    for head in heads {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("</tr>");
    let ratio = |row: &Row| {
        row.to_pipe
            .map_or_else(|| "–".to_string(), |ratio| format!("{ratio:.1}×"))
    };
    for row in rows {
        let _ = write!(page, "<tr><td>{}</td>", row.way.label);
        if let Some(reason) = &row.unavailable {
            let what = match workload {
                Workload::OneWay => row.size_bytes.to_string(),
                Workload::Producers => row.senders.to_string(),
                _ => String::new(),
            };
            let _ = write!(
                page,
                "<td>{what}</td><td class=\"none\" colspan=\"4\">{}</td></tr>",
                escape(reason)
            );
            continue;
        }
        let rate = row.rate.unwrap_or_default();
        let range = format!(
            "{} – {}",
            short(row.rate_min.unwrap_or_default()),
            short(row.rate_max.unwrap_or_default())
        );
        let cells = match workload {
            Workload::OneWay => vec![
                row.size_bytes.to_string(),
                short(rate),
                range,
                format!("{}B", short(rate * row.size_bytes as f64)),
                ratio(row),
            ],
            Workload::Producers => vec![
                row.senders.to_string(),
                short(rate),
                range,
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
                cells
            }
        };
        for cell in cells {
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
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

fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
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
