//! Rings as a table: each column is a field of the record.

use std::fmt::Write;

use nix::unistd::Uid;
use semring::RingInfo;
use serde_json::Value;

use super::record::records;
use crate::units::human_bytes;

/// A column of the table: a field of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    pub(super) field: &'static str,
    heading: &'static str,
    right: bool,
    unit: Unit,
}

/// The unit of a number, in the form for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    One,
    Bytes,
    Percent,
}

const fn text(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: false,
        unit: Unit::One,
    }
}

const fn number(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: true,
        unit: Unit::One,
    }
}

const fn bytes(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: true,
        unit: Unit::Bytes,
    }
}

const fn percent(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: true,
        unit: Unit::Percent,
    }
}

pub(super) const COLUMNS: [Column; 31] = [
    text("name", "NAME"),
    text("address", "RING"),
    text("backend", "BACKEND"),
    text("kind", "KIND"),
    text("uuid", "UUID"),
    text("mode", "MODE"),
    text("owner", "OWNER"),
    bytes("capacity_bytes", "CAPACITY"),
    number("lanes", "LANES"),
    number("producers", "PRODUCERS"),
    number("consumer_pid", "CONSUMER"),
    bytes("used_bytes", "USED"),
    number("sent_messages", "SENT"),
    number("received_messages", "RECEIVED"),
    number("lost_messages", "LOST"),
    number("corrupt_lanes", "CORRUPT"),
    text("state", "STATE"),
    text("created", "CREATED"),
    number("unread_messages", "UNREAD"),
    bytes("segment_bytes", "SEGMENT"),
    text("guard", "GUARD"),
    text("auto_remove", "AUTO_REMOVE"),
    number("creator_pid", "CREATOR"),
    number("finished_producers", "FINISHED"),
    number("died_producers", "DIED"),
    number("fullest_lane", "FULLEST"),
    percent("fullest_lane_percent", "FULL"),
    number("waiting_producers", "WAITING"),
    bytes("high_water_bytes", "HIGH_WATER"),
    text("when_full", "WHEN_FULL"),
    text("schema", "SCHEMA"),
];

/// The columns that fit a terminal.
pub(super) const DEFAULT_COLUMNS: [&str; 12] = [
    "address",
    "owner",
    "kind",
    "lanes",
    "producers",
    "consumer_pid",
    "fullest_lane_percent",
    "waiting_producers",
    "unread_messages",
    "sent_messages",
    "received_messages",
    "state",
];

impl std::str::FromStr for Column {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = COLUMNS.iter().find(|column| column.field == name);
        found
            .copied()
            .ok_or_else(|| format!("the columns are {}", names()))
    }
}

fn names() -> String {
    COLUMNS.map(|column| column.field).join(", ")
}

/// The help of `-o`.
pub(crate) fn columns_help() -> String {
    format!(
        "Which columns, separated by commas; numbers are then plain. There are: {}",
        names()
    )
}

fn cell(record: &Value, column: Column, plain: bool) -> String {
    match &record[column.field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match (column.unit, number.as_u64()) {
            (Unit::Bytes, Some(bytes)) if !plain => human_bytes(bytes),
            (Unit::Percent, _) if !plain => format!("{number}%"),
            _ => number.to_string(),
        },
        // A schema: `order:1`.
        Value::Object(schema) => {
            let name = schema["name"].as_str().unwrap_or_default();
            format!("{name}:{}", schema["version"])
        }
        other => other.to_string(),
    }
}

/// The columns that are left out first where a terminal is narrow.
const LESS_NEEDED: [&str; 6] = [
    "kind",
    "lanes",
    "received_messages",
    "waiting_producers",
    "sent_messages",
    "owner",
];

/// The table within the width of the terminal, if possible: otherwise each row would take two
/// lines.
pub(crate) fn table_within(rings: &[RingInfo], width: usize, headings: bool) -> String {
    let mut columns: Vec<Column> = default_columns(rings);
    let mut text = table(rings, &[], headings);
    for field in LESS_NEEDED {
        if text.lines().all(|line| line.chars().count() <= width) {
            break;
        }
        columns.retain(|column| column.field != field);
        text = with_columns(rings, &columns, headings, false);
    }
    text
}

/// The owner is of interest where there are others.
fn default_columns(rings: &[RingInfo]) -> Vec<Column> {
    let user = Uid::effective();
    let owners = user.is_root() || rings.iter().any(|ring| ring.uid != user.as_raw());
    let columns = DEFAULT_COLUMNS.iter().filter_map(|name| name.parse().ok());
    columns
        .filter(|column: &Column| owners || column.field != "owner")
        .collect()
}

/// Lines of cells, with the requested columns.
pub(crate) fn table(rings: &[RingInfo], columns: &[Column], headings: bool) -> String {
    if columns.is_empty() {
        with_columns(rings, &default_columns(rings), headings, false)
    } else {
        with_columns(rings, columns, headings, true)
    }
}

fn with_columns(rings: &[RingInfo], columns: &[Column], headings: bool, plain: bool) -> String {
    let records = records(rings);
    let rows = records.iter().map(|record| {
        let record = serde_json::to_value(record).expect("strings and numbers only");
        columns
            .iter()
            .map(|&column| cell(&record, column, plain))
            .collect()
    });
    let head = headings.then(|| {
        columns
            .iter()
            .map(|column| column.heading.to_owned())
            .collect()
    });
    let right: Vec<bool> = columns.iter().map(|column| column.right).collect();
    aligned(head.into_iter().chain(rows).collect(), &right)
}

/// Cells under each other, numbers to the right.
pub(super) fn aligned(rows: Vec<Vec<String>>, right: &[bool]) -> String {
    let width = |at: usize| {
        rows.iter()
            .map(|row| row[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let mut output = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let gap = if at == 0 { "" } else { "  " };
            let width = widths[at];
            let _ = if right[at] {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
        }
        output += line.trim_end();
        output.push('\n');
    }
    output
}
