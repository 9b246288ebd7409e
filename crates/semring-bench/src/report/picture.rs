//! Pictures in SVG: lines over a size or a number, bars of latencies.

use std::fmt::Write;

use super::escape::escape;
use super::frame::{FRAMES, Frame, TOP};
use crate::results::Row;
use crate::units::{short, time};
use crate::ways::Way;

/// Visible on white and on black.
const COLOURS: [&str; 14] = [
    "#e0384c", "#3f6fd8", "#2e9e4f", "#f08a24", "#9a4fd0", "#16a5a5", "#a2673f", "#e76fb1",
    "#858585", "#a8a012", "#4fb3e8", "#7cb518", "#c2185b", "#c9a66b",
];
/// Lines with the same colour differ by their dashes.
const DASHES: [&str; 3] = ["", "7 4", "2 3"];

/// The colour and dashes of each way, the same in all pictures of a page.
pub(super) struct Styles {
    ways: Vec<Way>,
}

struct Style {
    colour: &'static str,
    dashes: &'static str,
    width: f64,
}

impl Styles {
    pub(super) fn new(rows: &[Row]) -> Self {
        Self {
            ways: ways(rows.iter()),
        }
    }

    fn of(&self, way: Way) -> Style {
        let index = self.ways.iter().position(|other| *other == way);
        let index = index.unwrap_or(0);
        Style {
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
    /// The logarithms of both ends, and their positions.
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

    /// From the smallest figure to the largest; a decade if there is only one.
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

/// A round number without its zeroes after the point.
fn round(number: &str) -> String {
    number.replace(".00", "").replace(".0", "")
}

fn open(page: &mut String, frame: &Frame, height: f64, name: &str) {
    let _ = write!(
        page,
        "<svg class=\"{}\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"{}\">",
        frame.class,
        frame.width,
        escape(name),
    );
}

fn text(page: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(
        page,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(text)
    );
}

/// Rates over the value that `at` returns for a row; `mark` is its name on the axis.
pub(super) fn lines(
    page: &mut String,
    styles: &Styles,
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
    for frame in &FRAMES {
        let lines = Lines {
            frame,
            styles,
            figures: &figures,
            at,
            mark,
        };
        lines.draw(page, axis);
    }
}

struct Lines<'a> {
    frame: &'a Frame,
    styles: &'a Styles,
    /// Rows and their rates.
    figures: &'a [(&'a Row, f64)],
    at: fn(&Row) -> usize,
    mark: fn(usize) -> String,
}

impl Lines<'_> {
    fn draw(&self, page: &mut String, axis: &str) {
        let frame = self.frame;
        let mut shown: Vec<(usize, Way)> = ways(self.figures.iter().map(|(row, _)| *row))
            .into_iter()
            .enumerate()
            .collect();
        let (height, bottom) = frame.lines_height(shown.len());
        let mut marks: Vec<usize> = self.figures.iter().map(|(row, _)| (self.at)(row)).collect();
        marks.sort_unstable();
        marks.dedup();
        let places: Vec<f64> = marks.iter().map(|mark| *mark as f64).collect();
        let rates: Vec<f64> = self.figures.iter().map(|(_, rate)| *rate).collect();
        let x = Scale::between(&places, frame.left, frame.right);
        let y = Scale::decades(&rates, bottom, TOP);
        open(page, frame, height, axis);
        for decade in y.marks() {
            let at = y.at(decade);
            let _ = write!(
                page,
                "<line class=\"axis\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                frame.left, frame.right,
            );
            let rate = format!("{}/s", round(&short(decade)));
            text(page, frame.left - 8.0, at + 4.0, "end", &rate);
        }
        for (value, place) in marks.iter().zip(&places) {
            text(
                page,
                x.at(*place),
                bottom + 18.0,
                "middle",
                &(self.mark)(*value),
            );
        }
        let middle = f64::midpoint(frame.left, frame.right);
        text(page, middle, bottom + 38.0, "middle", axis);
        // The thickest line is drawn last, on top.
        shown.sort_by(|(_, one), (_, other)| {
            let width = |way| self.styles.of(way).width;
            width(*one).total_cmp(&width(*other))
        });
        for (index, way) in shown {
            self.way(page, way, (&x, &y), frame.entry(index, bottom));
        }
        page.push_str("</svg>");
    }

    /// The line of a way, and its entry in the legend.
    fn way(&self, page: &mut String, way: Way, (x, y): (&Scale, &Scale), (left, down): (f64, f64)) {
        let Style {
            colour,
            dashes,
            width,
        } = self.styles.of(way);
        let label = escape(way.label);
        let _ = write!(page, "<g class=\"way\" fill=\"{colour}\">");
        let mut path = String::new();
        for (row, rate) in self.figures.iter().filter(|(row, _)| row.way == way) {
            let value = (self.at)(row);
            let (x, y) = (x.at(value as f64), y.at(*rate));
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{step}{x:.1} {y:.1}");
            let _ = write!(
                page,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\"><title>{label}, {}: {}/s</title></circle>",
                width + 1.5,
                (self.mark)(value),
                short(*rate),
            );
        }
        let _ = write!(path, "M{left:.1} {down:.1}L{:.1} {down:.1}", left + 30.0);
        let _ = write!(
            page,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dashes}\"><title>{label}</title></path>",
        );
        text(page, left + 38.0, down + 4.0, "start", way.label);
        page.push_str("</g>");
    }
}

/// Latencies on a logarithmic scale: for each way its median as a number, a bar from there to 99 %, and a
/// line to 99.9 %.
pub(super) fn bars(page: &mut String, styles: &Styles, rows: &[&Row]) {
    let shown: Vec<(&Row, [u64; 4])> = rows
        .iter()
        .filter_map(|row| Some((*row, row.latency_ns?)))
        .collect();
    if shown.is_empty() {
        return;
    }
    for frame in &FRAMES {
        draw_bars(page, frame, styles, &shown);
    }
}

fn draw_bars(page: &mut String, frame: &Frame, styles: &Styles, shown: &[(&Row, [u64; 4])]) {
    let figure = |ns: u64| ns.max(1) as f64;
    let figures: Vec<f64> = shown.iter().flat_map(|(_, ns)| ns.map(figure)).collect();
    let scale = Scale::decades(&figures, frame.bars_left, frame.width - 24.0);
    let x = |ns| scale.at(figure(ns));
    let height = 40.0 + frame.bar_step * shown.len() as f64;
    open(page, frame, height, "latency");
    for decade in scale.marks() {
        let at = scale.at(decade);
        let _ = write!(
            page,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\"/>",
            height - 26.0,
        );
        let mark = round(&time(decade as u64));
        text(page, at, height - 8.0, "middle", &mark);
    }
    for (index, (row, [p50, p90, p99, p999])) in shown.iter().enumerate() {
        let top = frame.bar_step * (index + 1) as f64 - 14.0;
        let middle = top + 7.0;
        let colour = styles.of(row.way).colour;
        let (start, end, last) = (x(*p50), x(*p99), x(*p999));
        let _ = write!(
            page,
            "<g class=\"way\"><title>{}: 50 % {}, 90 % {}, 99 % {}, 99.9 % {}</title>\
             <line x1=\"{start:.1}\" x2=\"{last:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"{colour}\"/>\
             <rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\" opacity=\".55\"/>\
             <rect x=\"{:.1}\" y=\"{top:.1}\" width=\"3\" height=\"14\" fill=\"{colour}\"/>",
            escape(row.way.label),
            time(*p50),
            time(*p90),
            time(*p99),
            time(*p999),
            (end - start).max(1.0),
            start - 1.0,
        );
        if frame.is_narrow {
            text(page, 8.0, top - 6.0, "start", row.way.label);
        } else {
            text(
                page,
                frame.bars_left - 80.0,
                middle + 4.0,
                "end",
                row.way.label,
            );
        }
        text(page, start - 7.0, middle + 4.0, "end", &time(*p50));
        page.push_str("</g>");
    }
    page.push_str("</svg>");
}
