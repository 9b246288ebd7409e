//! Rings as tables, as text and as JSON.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use nix::unistd::{Uid, User};
use semring::{LaneInfo, RingInfo, RingState};
use serde::Serialize;
use serde_json::Value;

use crate::units::{count, human_bytes};

/// A ring as programs get it: the fields of the contract, in its order, then further ones.
#[derive(Serialize, Debug)]
pub(crate) struct Record {
    name: String,
    address: String,
    backend: String,
    kind: String,
    uuid: String,
    mode: String,
    owner: String,
    capacity_bytes: u64,
    lanes: usize,
    producers: usize,
    consumer_pid: Option<u32>,
    used_bytes: u64,
    sent_messages: u64,
    received_messages: u64,
    lost_messages: u64,
    corrupt_lanes: usize,
    state: String,
    created: String,
    unread_messages: u64,
    segment_bytes: u64,
    guard: String,
    auto_remove: bool,
    creator_pid: u32,
    finished_producers: u64,
    died_producers: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    each_lane: Vec<LaneRecord>,
}

/// A lane as programs get it.
#[derive(Serialize, Debug)]
pub(crate) struct LaneRecord {
    lane: usize,
    producer_pid: Option<u32>,
    unread_messages: u64,
    used_bytes: u64,
    sent_messages: u64,
    received_messages: u64,
    lost_messages: u64,
    attached_producers: u64,
    finished_producers: u64,
    died_producers: u64,
    corrupt_at: Option<u64>,
}

impl Record {
    pub(crate) fn new(info: &RingInfo) -> Self {
        // Wrapping: the numbers are words of a segment that anybody may have written.
        let sum =
            |field: fn(&LaneInfo) -> u64| info.lanes.iter().map(field).fold(0, u64::wrapping_add);
        Self {
            name: info.name.clone(),
            address: info.address.to_string(),
            backend: info.backend.to_string(),
            kind: info.kind.to_string(),
            uuid: info.uuid.clone(),
            mode: format!("{:04o}", info.mode),
            owner: owner(info.uid),
            capacity_bytes: info.capacity_bytes,
            lanes: info.lanes.len(),
            producers: info.producers(),
            consumer_pid: info.consumer_pid,
            used_bytes: info.used_bytes(),
            sent_messages: sum(|lane| lane.sent_messages),
            received_messages: sum(|lane| lane.received_messages),
            lost_messages: sum(|lane| lane.lost_messages),
            corrupt_lanes: info
                .lanes
                .iter()
                .filter(|lane| lane.corrupt_at.is_some())
                .count(),
            state: info.state.to_string(),
            created: date(info.created_ns),
            unread_messages: info.unread_messages(),
            segment_bytes: info.segment_bytes,
            guard: info.guard.to_string(),
            auto_remove: info.auto_remove,
            creator_pid: info.creator_pid,
            finished_producers: info.finished_producers(),
            died_producers: info.died_producers(),
            each_lane: Vec::new(),
        }
    }
}

/// The rings of a list, the two of a pair as one record: named as the pair is, with the sums of both, the identity,
/// owner and consumer of the first.
fn records(rings: &[RingInfo]) -> Vec<Record> {
    let by_address: HashMap<String, &RingInfo> = rings
        .iter()
        .map(|info| (info.address.to_string(), info))
        .collect();
    let second_of = |up: &RingInfo| by_address.get(&down_address(up)?).copied();
    let seconds: HashSet<String> = rings
        .iter()
        .filter_map(|up| second_of(up).map(|down| down.address.to_string()))
        .collect();
    let mut found = Vec::new();
    for info in rings {
        if seconds.contains(&info.address.to_string()) {
            continue;
        }
        let mut record = Record::new(info);
        if let Some(down) = second_of(info) {
            record.add_second(info, down);
        }
        found.push(record);
    }
    found
}

/// Where the second ring is, if this is the first one of a pair.
fn down_address(up: &RingInfo) -> Option<String> {
    let pair = up.address.to_string();
    let pair = pair.strip_suffix(".up")?;
    Some(format!("{pair}.down-{}", up.uuid.get(..16)?))
}

impl Record {
    /// Makes the record of a pair's first ring that of the pair.
    fn add_second(&mut self, up: &RingInfo, down: &RingInfo) {
        let second = Self::new(down);
        let pair_of = |name: &str| name.strip_suffix(".up").unwrap_or(name).to_owned();
        self.name = pair_of(&self.name);
        self.address = pair_of(&self.address);
        self.kind = "pair".to_owned();
        self.lanes += second.lanes;
        self.producers += second.producers;
        self.used_bytes += second.used_bytes;
        self.corrupt_lanes += second.corrupt_lanes;
        self.unread_messages += second.unread_messages;
        self.segment_bytes += second.segment_bytes;
        for (sum, more) in [
            (&mut self.sent_messages, second.sent_messages),
            (&mut self.received_messages, second.received_messages),
            (&mut self.lost_messages, second.lost_messages),
            (&mut self.finished_producers, second.finished_producers),
            (&mut self.died_producers, second.died_producers),
        ] {
            *sum = sum.wrapping_add(more);
        }
        // In use if one of them is; without its guard neither is of use.
        let rank = |state| match state {
            RingState::Idle => 0,
            RingState::Active => 1,
            _ => 2,
        };
        if rank(down.state) > rank(up.state) {
            self.state = second.state;
        }
    }
}

impl LaneRecord {
    pub(crate) fn new((number, lane): (usize, &LaneInfo)) -> Self {
        Self {
            lane: number,
            producer_pid: lane.producer_pid,
            unread_messages: lane.unread_messages,
            used_bytes: lane.used_bytes,
            sent_messages: lane.sent_messages,
            received_messages: lane.received_messages,
            lost_messages: lane.lost_messages,
            attached_producers: lane.attached_producers,
            finished_producers: lane.finished_producers,
            died_producers: lane.died_producers,
            corrupt_at: lane.corrupt_at.map(|position| position.get()),
        }
    }
}

fn owner(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn date(created_ns: u64) -> String {
    // The bytes in the segment may say any time; one that can't be written as a date is left out.
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = Duration::from_nanos(created_ns).as_secs().min(LAST_SECOND);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

fn to_json(record: &Record) -> String {
    serde_json::to_string(record).expect("strings and numbers only")
}

/// One object a line.
pub(crate) fn json_lines(rings: &[RingInfo]) -> String {
    let records = records(rings);
    records
        .iter()
        .map(|record| to_json(record) + "\n")
        .collect()
}

/// One object, with its lanes.
pub(crate) fn json_with_lanes(info: &RingInfo) -> String {
    let each_lane = info.lanes.iter().enumerate().map(LaneRecord::new).collect();
    to_json(&Record {
        each_lane,
        ..Record::new(info)
    }) + "\n"
}

/// A column of the table: a field of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    field: &'static str,
    heading: &'static str,
    right: bool,
    human: bool,
}

const fn text(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: false,
        human: false,
    }
}

const fn number(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: true,
        human: false,
    }
}

const fn bytes(field: &'static str, heading: &'static str) -> Column {
    Column {
        field,
        heading,
        right: true,
        human: true,
    }
}

const COLUMNS: [Column; 25] = [
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
];

/// What fits a terminal.
const DEFAULT_COLUMNS: [&str; 10] = [
    "address",
    "kind",
    "lanes",
    "producers",
    "consumer_pid",
    "used_bytes",
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
        Value::Number(number) if column.human && !plain => number
            .as_u64()
            .map_or_else(|| number.to_string(), human_bytes),
        other => other.to_string(),
    }
}

/// What is left out first where a terminal is narrow.
const LESS_NEEDED: [&str; 4] = ["kind", "lanes", "received_messages", "used_bytes"];

/// The table as wide as the terminal, as far as it can be: otherwise each line would take two.
pub(crate) fn table_within(rings: &[RingInfo], width: usize, headings: bool) -> String {
    let mut columns: Vec<Column> = default_columns();
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

fn default_columns() -> Vec<Column> {
    let columns = DEFAULT_COLUMNS.iter().filter_map(|name| name.parse().ok());
    columns.collect()
}

/// Lines of cells, with the columns asked for.
pub(crate) fn table(rings: &[RingInfo], columns: &[Column], headings: bool) -> String {
    if columns.is_empty() {
        with_columns(rings, &default_columns(), headings, false)
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
fn aligned(rows: Vec<Vec<String>>, right: &[bool]) -> String {
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

/// A ring for people.
pub(crate) fn describe(info: &RingInfo) -> String {
    let record = Record::new(info);
    let guard_missing = info.state == semring::RingState::GuardMissing;
    let asleep = |sleeps: bool| if sleeps { ", sleeping" } else { "" };
    let consumer = match info.consumer_pid {
        Some(pid) => format!("pid {pid}{}", asleep(info.consumer_sleeps)),
        None if guard_missing => "unknown".to_owned(),
        None if info.consumer_closed => "none; the last one left on purpose".to_owned(),
        None => "none".to_owned(),
    };
    let removal = if info.auto_remove {
        "when its stream has ended"
    } else {
        "by semring rm only"
    };
    let lanes = count(record.lanes as u64, "lane");
    // By the kernel's word, so without semaphores nobody knows.
    let producers = if guard_missing {
        "unknown".to_owned()
    } else {
        format!(
            "{} attached, {} finished, {} died",
            record.producers, record.finished_producers, record.died_producers
        )
    };
    let mut text = format!(
        "{}\n\
         \x20 state     {}\n\
         \x20 kind      {}, {lanes} of {}\n\
         \x20 memory    {}, {}\n\
         \x20 owner     {}, mode {}\n\
         \x20 guard     {}\n\
         \x20 uuid      {}\n\
         \x20 created   {} by pid {}\n\
         \x20 removed   {removal}\n\
         \x20 producers {producers}\n\
         \x20 consumer  {consumer}\n\
         \x20 unread    {}, {}\n\
         \x20 sent      {}\n\
         \x20 received  {}\n\
         \x20 lost      {}\n",
        record.address,
        record.state,
        record.kind,
        human_bytes(record.capacity_bytes),
        record.backend,
        human_bytes(record.segment_bytes),
        record.owner,
        record.mode,
        record.guard,
        record.uuid,
        record.created,
        record.creator_pid,
        count(record.unread_messages, "message"),
        human_bytes(record.used_bytes),
        count(record.sent_messages, "message"),
        count(record.received_messages, "message"),
        count(record.lost_messages, "message"),
    );
    if info.lanes.is_empty() {
        return text;
    }
    let head = [
        "LANE", "PRODUCER", "UNREAD", "USED", "SENT", "RECEIVED", "FINISHED", "DIED", "NOTE",
    ]
    .map(str::to_owned);
    let rows = info.lanes.iter().enumerate().map(|(number, lane)| {
        let note = match lane.corrupt_at {
            Some(position) => format!("damaged at {position}"),
            None if lane.producer_sleeps => "waits for room".to_owned(),
            None => String::new(),
        };
        vec![
            number.to_string(),
            lane.producer_pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            lane.unread_messages.to_string(),
            human_bytes(lane.used_bytes),
            lane.sent_messages.to_string(),
            lane.received_messages.to_string(),
            lane.finished_producers.to_string(),
            lane.died_producers.to_string(),
            note,
        ]
    });
    let right = [true, true, true, true, true, true, true, true, false];
    text.push('\n');
    for line in aligned(std::iter::once(head.to_vec()).chain(rows).collect(), &right).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ring(label: &str, look: impl FnOnce(&RingInfo)) {
        let name = format!("cli-listing-{label}-{}", std::process::id());
        let ring = semring::mpsc::Builder::new(&name)
            .producers(2)
            .mode(0o640)
            .create()
            .unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"twelve bytes").unwrap();
        let info = ring.info();
        drop(producer);
        ring.remove().unwrap();
        look(&info.unwrap());
    }

    #[test]
    fn json_has_the_fields_of_the_contract_in_its_order() {
        const CONTRACT: &str = "name address backend kind uuid mode owner capacity_bytes lanes producers \
                                consumer_pid used_bytes sent_messages received_messages lost_messages \
                                corrupt_lanes state created";
        with_ring("json", |info| {
            let line = json_lines(std::slice::from_ref(info));
            assert_eq!(line.matches('\n').count(), 1);
            let mut rest = &line[..];
            for field in CONTRACT.split_whitespace() {
                let key = format!("\"{field}\":");
                let at = rest
                    .find(&key)
                    .unwrap_or_else(|| panic!("{field} is missing or out of order"));
                rest = &rest[at + key.len()..];
            }
            let object: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(object["mode"], "0640");
            assert_eq!(object["lanes"], 2);
            assert_eq!(object["producers"], 1);
            assert_eq!(object["consumer_pid"], Value::Null);
            assert_eq!(object["sent_messages"], 1);
            assert_eq!(object["state"], "active");
            assert!(humantime::parse_rfc3339(object["created"].as_str().unwrap()).is_ok());
            let lanes: Value = serde_json::from_str(&json_with_lanes(info)).unwrap();
            assert_eq!(lanes["each_lane"][0]["unread_messages"], 1);
        });
    }

    #[test]
    fn each_column_is_a_field_and_each_field_a_column() {
        with_ring("columns", |info| {
            let record = serde_json::to_value(Record::new(info)).unwrap();
            let mut fields: Vec<_> = record.as_object().unwrap().keys().cloned().collect();
            let mut columns = COLUMNS.map(|column| column.field.to_owned()).to_vec();
            fields.sort();
            columns.sort();
            assert_eq!(fields, columns);
            assert!(
                DEFAULT_COLUMNS
                    .iter()
                    .all(|name| name.parse::<Column>().is_ok())
            );
            assert!("colour".parse::<Column>().is_err());
        });
    }

    #[test]
    fn cells_stand_under_their_headings() {
        with_ring("table", |info| {
            let columns = ["address", "used_bytes"].map(|name| name.parse().unwrap());
            let text = table(std::slice::from_ref(info), &columns, true);
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[0].find("USED").unwrap() + "USED".len();
            assert_eq!(&lines[1][end - 3..], " 24");
            let bare = table(std::slice::from_ref(info), &columns, false);
            assert_eq!(bare, format!("{}  24\n", info.address));
            assert!(table(&[], &[], false).is_empty());
        });
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        with_ring("narrow", |info| {
            let rings = std::slice::from_ref(info);
            assert_eq!(table_within(rings, 200, true), table(rings, &[], true));
            let narrow = table_within(rings, 80, true);
            assert!(
                narrow.lines().all(|line| line.chars().count() <= 80),
                "{narrow}"
            );
            assert!(
                !narrow.contains("KIND") && narrow.contains("UNREAD"),
                "{narrow}"
            );
            // As few as there are.
            assert!(table_within(rings, 1, false).contains("active"));
        });
    }

    #[test]
    fn a_description_names_producer_and_lanes() {
        with_ring("describe", |info| {
            let text = describe(info);
            assert!(
                text.contains("mpsc, 2 lanes of 256 KiB") && text.contains("by semring rm only")
            );
            let pid = std::process::id().to_string();
            assert!(
                text.lines()
                    .any(|line| line.split_whitespace().nth(1) == Some(&pid))
            );
        });
    }

    #[test]
    fn dates_are_rfc_3339_whatever_the_segment_says() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_790_000_000_999_999_999), "2026-09-21T14:13:20Z");
        assert!(date(u64::MAX).ends_with('Z'));
    }
}
