//! Tables of a page.

use std::fmt::Write;

use super::escape::escape;
use super::picture::ways;
use crate::results::Row;
use crate::units::{exact_bytes, ratio, short, time};
use crate::ways::Category;
use crate::workload::Workload;

/// Rates: a row for each way and a column for each size or number, with the ratio to the pipe. The fastest of
/// each column is bold.
pub(super) fn overview(
    page: &mut String,
    rows: &[&Row],
    at: fn(&Row) -> usize,
    head: fn(usize) -> String,
) {
    let mut columns: Vec<usize> = rows.iter().map(|row| at(row)).collect();
    columns.sort_unstable();
    columns.dedup();
    let fastest = |column| {
        let here = rows.iter().filter(|row| at(row) == column);
        let rates = here
            .filter(|row| row.way.category != Category::Limit)
            .filter_map(|row| row.rate);
        rates.reduce(f64::max)
    };
    let fastest: Vec<Option<f64>> = columns.iter().map(|column| fastest(*column)).collect();
    page.push_str("<div class=\"scrolls\"><table><tr><th>messages/s, <small>to pipe</small></th>");
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
        let _ = write!(page, "<tr><td>{}</td>", escape(way.label));
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

/// A ratio as a factor.
fn times(of: f64) -> String {
    format!("{}×", ratio(of))
}

/// All figures of a workload.
pub(super) fn table(page: &mut String, workload: Workload, rows: &[&Row]) {
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
    page.push_str("<div class=\"scrolls\"><table><tr>");
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
        let _ = write!(page, "<tr{class}><td>{}</td>", escape(row.way.label));
        if let Some(reason) = &row.unavailable {
            let what = match workload {
                Workload::OneWay => Some(exact_bytes(row.size_bytes as u64)),
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
                exact_bytes(row.size_bytes as u64),
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
