//! A ring as an object with the fields of the contract.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use nix::unistd::{Uid, User};
use semring::{LaneInfo, RingInfo, RingState};
use serde::Serialize;

/// A ring as programs get it: the fields of the contract, in its order, then further ones.
#[derive(Serialize, Debug)]
pub(crate) struct Record {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) backend: String,
    pub(super) kind: String,
    pub(super) uuid: String,
    pub(super) mode: String,
    pub(super) owner: String,
    pub(super) capacity_bytes: u64,
    pub(super) lanes: usize,
    pub(super) producers: usize,
    pub(super) consumer_pid: Option<u32>,
    pub(super) used_bytes: u64,
    pub(super) sent_messages: u64,
    pub(super) received_messages: u64,
    pub(super) lost_messages: u64,
    pub(super) corrupt_lanes: usize,
    pub(super) state: String,
    pub(super) created: String,
    pub(super) unread_messages: u64,
    pub(super) segment_bytes: u64,
    pub(super) guard: String,
    pub(super) auto_remove: bool,
    pub(super) creator_pid: u32,
    pub(super) finished_producers: u64,
    pub(super) died_producers: u64,
    pub(super) fullest_lane: Option<usize>,
    pub(super) fullest_lane_percent: u64,
    pub(super) waiting_producers: usize,
    pub(super) high_water_bytes: u64,
    pub(super) when_full: String,
    pub(super) schema: Option<SchemaRecord>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) each_lane: Vec<LaneRecord>,
    /// The two rings of a pair.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rings: Vec<Record>,
}

/// What the messages of a ring are, as programs get it.
#[derive(Serialize, Debug)]
pub(super) struct SchemaRecord {
    name: String,
    version: u32,
    /// Hexadecimal: not every reader of JSON keeps 64 bits of a number.
    layout: String,
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
    producer_waits: bool,
    high_water_bytes: u64,
}

impl Record {
    pub(crate) fn new(info: &RingInfo) -> Self {
        // Wrapping: the numbers are words of a segment that any process may have written.
        let sum =
            |field: fn(&LaneInfo) -> u64| info.lanes.iter().map(field).fold(0, u64::wrapping_add);
        let fullest = fullest_lane(info);
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
            fullest_lane: fullest.map(|(lane, _)| lane),
            fullest_lane_percent: fullest.map_or(0, |(_, share)| (share * 100.0).round() as u64),
            waiting_producers: waiting_producers(info),
            high_water_bytes: high_water(info),
            when_full: info.when_full.to_string(),
            schema: info.schema.map(|schema| SchemaRecord {
                name: schema.name().to_owned(),
                version: schema.version(),
                layout: format!("{:#018x}", schema.layout()),
            }),
            each_lane: Vec::new(),
            rings: Vec::new(),
        }
    }
}

/// How full a lane is, from 0 to 1.
pub(crate) fn share(used: u64, capacity: u64) -> f64 {
    if capacity == 0 {
        return 0.0;
    }
    (used as f64 / capacity as f64).clamp(0.0, 1.0)
}

/// The lane with the most unread bytes, and how full it is; none of an empty ring.
///
/// A producer has one lane: it waits for room as soon as that lane is full, however empty the others are.
pub(crate) fn fullest_lane(info: &RingInfo) -> Option<(usize, f64)> {
    let lanes = info.lanes.iter().enumerate();
    let (number, lane) = lanes
        .filter(|(_, lane)| lane.used_bytes > 0)
        .max_by_key(|(number, lane)| (lane.used_bytes, std::cmp::Reverse(*number)))?;
    Some((number, share(lane.used_bytes, info.capacity_bytes)))
}

/// Producers that sleep until there is room for their message.
pub(crate) fn waiting_producers(info: &RingInfo) -> usize {
    let lanes = info.lanes.iter();
    lanes.filter(|lane| lane.producer_sleeps).count()
}

/// For each ring of a list that is the first of a pair, where the second one is.
pub(crate) fn seconds(rings: &[&RingInfo]) -> HashMap<usize, usize> {
    let by_address: HashMap<String, usize> = rings
        .iter()
        .enumerate()
        .map(|(at, info)| (info.address.to_string(), at))
        .collect();
    let second_of = |up: &RingInfo| by_address.get(&down_address(up)?).copied();
    let pairs = rings.iter().enumerate();
    pairs
        .filter_map(|(at, up)| Some((at, second_of(up)?)))
        .collect()
}

/// The most bytes that any lane ever held.
fn high_water(info: &RingInfo) -> u64 {
    let lanes = info.lanes.iter().map(|lane| lane.high_water_bytes);
    lanes.max().unwrap_or(0)
}

/// The rings of a list, the two of a pair as one record.
pub(super) fn records(rings: &[RingInfo]) -> Vec<Record> {
    let seconds = seconds(&rings.iter().collect::<Vec<_>>());
    let is_second: HashSet<usize> = seconds.values().copied().collect();
    let rings_or_pairs = (0..rings.len()).filter(|at| !is_second.contains(at));
    rings_or_pairs
        .map(|at| Record::of(&rings[at], seconds.get(&at).map(|&second| &rings[second])))
        .collect()
}

/// Where the second ring is, if this is the first one of a pair.
pub(crate) fn down_address(up: &RingInfo) -> Option<String> {
    let pair = up.address.to_string();
    let pair = pair.strip_suffix(".up")?;
    Some(format!("{pair}.down-{}", up.uuid.get(..16)?))
}

/// The name of the pair whose first ring has this name.
pub(crate) fn pair_of(up: &str) -> &str {
    up.strip_suffix(".up").unwrap_or(up)
}

impl Record {
    /// A ring, or a pair: named as the pair is, with the sums of both, the identity, owner and consumer of the first.
    pub(crate) fn of(info: &RingInfo, second: Option<&RingInfo>) -> Self {
        let mut record = Self::new(info);
        if let Some(second) = second {
            record.add_second(info, second);
        }
        record
    }

    /// Makes the record of a pair's first ring that of the pair.
    fn add_second(&mut self, up: &RingInfo, down: &RingInfo) {
        let second = Self::new(down);
        self.name = pair_of(&self.name).to_owned();
        self.address = pair_of(&self.address).to_owned();
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
        self.waiting_producers += second.waiting_producers;
        self.high_water_bytes = self.high_water_bytes.max(second.high_water_bytes);
        if second.fullest_lane_percent > self.fullest_lane_percent {
            // Lanes of the second ring are numbered after those of the first one.
            self.fullest_lane = second.fullest_lane.map(|lane| up.lanes.len() + lane);
            self.fullest_lane_percent = second.fullest_lane_percent;
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
            producer_waits: lane.producer_sleeps,
            high_water_bytes: lane.high_water_bytes,
        }
    }
}

fn owner(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

pub(super) fn date(created_ns: u64) -> String {
    // The bytes in the segment may hold any time; one that can't be written as a date is left out.
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

/// One object, with its lanes; for a pair with both rings and the lanes of both.
pub(crate) fn json_with_lanes(info: &RingInfo, second: Option<&RingInfo>) -> String {
    let mut record = Record::of(info, second);
    record.each_lane = each_lane(info, second);
    if let Some(second) = second {
        record.rings = [info, second]
            .map(|ring| Record {
                each_lane: each_lane(ring, None),
                ..Record::new(ring)
            })
            .into();
    }
    to_json(&record) + "\n"
}

fn each_lane(info: &RingInfo, second: Option<&RingInfo>) -> Vec<LaneRecord> {
    let more = second.map_or(&[][..], |second| &second.lanes);
    let lanes = info.lanes.iter().chain(more);
    lanes.enumerate().map(LaneRecord::new).collect()
}
