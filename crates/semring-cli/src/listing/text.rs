//! One ring as text, lane by lane.

use std::fmt::Write;

use semring::{RingInfo, RingState};

use super::record::{Record, fullest_lane, waiting_producers};
use super::table::aligned;
use crate::units::{count, human_bytes};

/// A pair for people: what `ls` shows of it, then its rings.
pub(crate) fn describe_pair(first: &RingInfo, second: &RingInfo) -> String {
    let record = Record::of(first, Some(second));
    let mut text = format!(
        "{}\n\
         \x20 state     {}\n\
         \x20 kind      pair: a ring from client to server, and one back\n\
         \x20 memory    {}, {}\n\
         \x20 unread    {}, {}\n\
         \x20 sent      {}\n\
         \x20 received  {}\n\
         \x20 lost      {}\n",
        record.address,
        record.state,
        record.backend,
        human_bytes(record.segment_bytes),
        count(record.unread_messages, "message"),
        human_bytes(record.used_bytes),
        count(record.sent_messages, "message"),
        count(record.received_messages, "message"),
        count(record.lost_messages, "message"),
    );
    for ring in [first, second] {
        text.push('\n');
        text += &describe(ring);
    }
    text
}

/// A ring for people.
pub(crate) fn describe(info: &RingInfo) -> String {
    let record = Record::new(info);
    let guard_missing = info.state == RingState::GuardMissing;
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
    // The kernel keeps this number, so without semaphores it is unknown.
    let producers = if guard_missing {
        "unknown".to_owned()
    } else {
        format!(
            "{} attached, {} finished, {} died",
            record.producers, record.finished_producers, record.died_producers
        )
    };
    let waiting = match waiting_producers(info) {
        0 => String::new(),
        1 => "; 1 producer waits for room".to_owned(),
        more => format!("; {more} producers wait for room"),
    };
    let fullest = match fullest_lane(info) {
        Some((lane, share)) => format!("lane {lane}, {:.0}%{waiting}", share * 100.0),
        None => "none: the ring is empty".to_owned(),
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
         \x20 fullest   {fullest}\n\
         \x20 at most   {} in a lane\n\
         \x20 full      {}\n\
         \x20 messages  {}\n\
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
        human_bytes(record.high_water_bytes),
        match &record.when_full[..] {
            "drop" => "producers drop messages",
            "fail" => "producers fail",
            _ => "producers wait",
        },
        match info.schema {
            Some(schema) => schema.to_string(),
            None => "of any kind".to_owned(),
        },
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
