//! Pictures in SVG: lines over a size or a number, bars of latencies.

use std::fmt::Write;

use super::{escape, short, time};
use crate::plan::Row;
use crate::ways::Way;

const WIDTH: f64 = 960.0;
/// Of lines; more where the legend is longer.
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 240.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 48.0;
/// Of a line of the legend.
const ENTRY: f64 = 19.0;
/// Of a bar, with what is between it and the next one.
const BAR: f64 = 26.0;
/// What the names of bars need, and what the median between a name and its bar needs.
const NAMES: f64 = 190.0;
const MEDIAN: f64 = 70.0;

/// Each can be seen on white and on black.
const COLOURS: [&str; 14] = [
    "#e0384c", "#3f6fd8", "#2e9e4f", "#f08a24", "#9a4fd0", "#16a5a5", "#a2673f", "#e76fb1",
    "#858585", "#a8a012", "#4fb3e8", "#7cb518", "#c2185b", "#c9a66b",
];
/// Where the colours begin again, lines differ by their dashes.
const DASHES: [&str; 3] = ["", "7 4", "2 3"];

/// Which colour and dashes each way of a page has, the same in all its pictures.
pub(super) struct Looks {
    ways: Vec<Way>,
}

struct Look {
    colour: &'static str,
    dashes: &'static str,
    width: f64,
}

impl Looks {
    pub(super) fn new(rows: &[Row]) -> Self {
        Self {
            ways: ways(rows.iter()),
        }
    }

    fn of(&self, way: Way) -> Look {
        let index = self.ways.iter().position(|other| *other == way);
        let index = index.unwrap_or(0);
        Look {
            colour: COLOURS[index % COLOURS.len()],
            dashes: DASHES[index / COLOURS.len() % DASHES.len()],
            width: if way.name == "semring" { 3.5 } else { 1.8 },
        }
    }
}

/// Ways in the order of their first row.
pub(super) fn ways<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Way> {
    let mut ways = Vec::new();
    for row in rows {
        if !ways.contains(&row.way) {
            ways.push(row.way);
        }
    }
    ways
}

/// A logarithmic scale.
struct Scale {
    /// Logarithms of both ends, and where those are.
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.from) / (self.to - self.from);
        self.start + part * (self.end - self.start)
    }

    /// From the first of these figures to the last, or a little further if there is only one.
    fn between(figures: &[f64], start: f64, end: f64) -> Self {
        let (low, high) = ends(figures);
        Self {
            from: low,
            to: if high > low { high } else { low + 1.0 },
            start,
            end,
        }
    }

    /// Whole powers of ten around these figures.
    fn decades(figures: &[f64], start: f64, end: f64) -> Self {
        let (low, high) = ends(figures);
        let (from, to) = (low.floor(), high.ceil());
        Self {
            from,
            to: if to > from { to } else { from + 1.0 },
            start,
            end,
        }
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|decade| 10f64.powi(decade))
    }
}

fn ends(figures: &[f64]) -> (f64, f64) {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least.log10(), most.log10())
}

/// A round number without its zeroes behind the point.
fn round(number: &str) -> String {
    number.replace(".00", "").replace(".0", "")
}

fn open(page: &mut String, height: f64, name: &str) {
    let _ = write!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{name}\">"
    );
}

fn text(page: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(
        page,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(text)
    );
}

/// Rates over what `at` says of a row, whose marks are called as `mark` says.
pub(super) fn lines(
    page: &mut String,
    looks: &Looks,
    rows: &[&Row],
    axis: &str,
    at: fn(&Row) -> usize,
    mark: fn(usize) -> String,
) {
    let figures: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((*row, row.rate.filter(|rate| *rate > 0.0)?)))
        .collect();
    if figures.is_empty() {
        return;
    }
    let shown = ways(figures.iter().map(|(row, _)| *row));
    let height = HEIGHT.max(TOP + ENTRY * shown.len() as f64 + BOTTOM);
    let mut marks: Vec<usize> = figures.iter().map(|(row, _)| at(row)).collect();
    marks.sort_unstable();
    marks.dedup();
    let places: Vec<f64> = marks.iter().map(|mark| *mark as f64).collect();
    let rates: Vec<f64> = figures.iter().map(|(_, rate)| *rate).collect();
    let x = Scale::between(&places, LEFT, WIDTH - RIGHT);
    let y = Scale::decades(&rates, height - BOTTOM, TOP);
    open(page, height, axis);
    for decade in y.marks() {
        let at = y.at(decade);
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            WIDTH - RIGHT,
        );
        text(
            page,
            LEFT - 8.0,
            at + 4.0,
            "end",
            &format!("{}/s", round(&short(decade))),
        );
    }
    for (value, place) in marks.iter().zip(&places) {
        let under = height - BOTTOM + 18.0;
        text(page, x.at(*place), under, "middle", &mark(*value));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    text(page, middle, height - 8.0, "middle", axis);
    // What is thickest lies on top.
    let mut shown: Vec<(usize, Way)> = shown.into_iter().enumerate().collect();
    shown.sort_by(|(_, one), (_, other)| looks.of(*one).width.total_cmp(&looks.of(*other).width));
    for (index, way) in shown {
        let Look {
            colour,
            dashes,
            width,
        } = looks.of(way);
        let _ = write!(page, "<g class=\"way\" fill=\"{colour}\">");
        let mut path = String::new();
        for (row, rate) in figures.iter().filter(|(row, _)| row.way == way) {
            let (x, y) = (x.at(at(row) as f64), y.at(*rate));
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{x:.1} {y:.1}");
            let _ = write!(
                page,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\"><title>{}, {}: {}/s</title></circle>",
                width + 1.5,
                way.label,
                mark(at(row)),
                short(*rate),
            );
        }
        let entry = TOP + ENTRY * index as f64 + 6.0;
        let left = WIDTH - RIGHT + 16.0;
        let _ = write!(path, "M{left:.1} {entry:.1}L{:.1} {entry:.1}", left + 30.0);
        let _ = write!(
            page,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dashes}\"><title>{}</title></path>",
            way.label,
        );
        text(page, left + 38.0, entry + 4.0, "start", way.label);
        page.push_str("</g>");
    }
    page.push_str("</svg>");
}

/// Latencies on a logarithmic scale: for each way its median as a number, a bar from there to 99 %, and a
/// line to 99.9 %.
pub(super) fn bars(page: &mut String, looks: &Looks, rows: &[&Row]) {
    let shown: Vec<(&Row, [u64; 4])> = rows
        .iter()
        .filter_map(|row| Some((*row, row.latency_ns?)))
        .collect();
    if shown.is_empty() {
        return;
    }
    let figure = |ns: u64| ns.max(1) as f64;
    let figures: Vec<f64> = shown.iter().flat_map(|(_, ns)| ns.map(figure)).collect();
    let scale = Scale::decades(&figures, NAMES + MEDIAN, WIDTH - 30.0);
    let x = |ns| scale.at(figure(ns));
    let height = 40.0 + BAR * shown.len() as f64;
    open(page, height, "latency");
    for decade in scale.marks() {
        let at = scale.at(decade);
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\"/>",
            height - 26.0,
        );
        text(
            page,
            at,
            height - 8.0,
            "middle",
            &round(&time(decade as u64)),
        );
    }
    for (index, (row, [p50, p90, p99, p999])) in shown.iter().enumerate() {
        let top = 12.0 + BAR * index as f64;
        let middle = top + 7.0;
        let colour = looks.of(row.way).colour;
        let (start, end, last) = (x(*p50), x(*p99), x(*p999));
        let _ = write!(
            page,
            "<g class=\"way\"><title>{}: 50 % {}, 90 % {}, 99 % {}, 99.9 % {}</title>\
             <line x1=\"{start:.1}\" x2=\"{last:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"{colour}\"/>\
             <rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\" opacity=\".55\"/>\
             <rect x=\"{:.1}\" y=\"{top:.1}\" width=\"3\" height=\"14\" fill=\"{colour}\"/>",
            row.way.label,
            time(*p50),
            time(*p90),
            time(*p99),
            time(*p999),
            (end - start).max(1.0),
            start - 1.0,
        );
        text(page, NAMES - 10.0, middle + 4.0, "end", row.way.label);
        text(page, start - 7.0, middle + 4.0, "end", &time(*p50));
        page.push_str("</g>");
    }
    page.push_str("</svg>");
}
