//! `semring top`: the activity of the rings, on a terminal or as JSON.
//!
//! Inspects only: rings are mapped read-only for a moment. A ring that appears or vanishes between
//! two samples is in one of them only.

mod keys;
mod terminal;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime};

use semring::{LaneInfo, RingInfo};
use serde::Serialize;

use crate::exit::{self, Failure};
use crate::listing::{LaneRecord, Record, pair_of, seconds};
use crate::text::print;

/// How often to look, and how often at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    pub(crate) interval: Duration,
    /// End after this many samples.
    pub(crate) count: Option<u64>,
}

impl Rhythm {
    /// When to look after a look that was due at this moment. Looks that were missed, while the process was
    /// stopped or the machine asleep, are not made up for. An interval that ends beyond the clock is as good as
    /// one of a century.
    fn next_after(self, due: Instant, now: Instant) -> Instant {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        due.checked_add(self.interval)
            .unwrap_or_else(|| due + CENTURY)
            .max(now)
    }
}

/// Shows the rings until the user ends it.
pub(crate) fn run(json: bool, rhythm: Rhythm) -> Result<u8, Failure> {
    if json {
        return stream(rhythm);
    }
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !terminal {
        return Err(Failure::new(
            exit::USAGE,
            "stdin and stdout must be a terminal; for programs there is semring top --json",
        ));
    }
    view::run(rhythm)
}

/// Messages a second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
struct Rates {
    /// Nothing before the second look.
    sent_per_second: Option<f64>,
    received_per_second: Option<f64>,
}

impl Rates {
    fn between(before: Counts, now: Counts, seconds: f64) -> Self {
        // Wrapping, and bounded if a process wrote arbitrary words: a rate is never negative.
        let rate = |from: u64, to: u64| {
            let moved = to.checked_sub(from)? as f64;
            Some((moved / seconds * 10.0).round() / 10.0)
        };
        Self {
            sent_per_second: rate(before.sent, now.sent),
            received_per_second: rate(before.received, now.received),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Counts {
    sent: u64,
    received: u64,
}

impl Counts {
    fn of(lane: &LaneInfo) -> Self {
        Self {
            sent: lane.sent_messages,
            received: lane.received_messages,
        }
    }

    fn sum(lanes: &[Self]) -> Self {
        let add = |all: Self, lane: &Self| Self {
            sent: all.sent.wrapping_add(lane.sent),
            received: all.received.wrapping_add(lane.received),
        };
        lanes.iter().fold(Self::default(), add)
    }
}

/// A ring, or a pair of them, at one look.
#[derive(Debug)]
struct Sample {
    info: RingInfo,
    /// The second ring of a pair, of which `info` is the first.
    second: Option<RingInfo>,
    /// Of both rings together.
    rates: Rates,
    /// For each lane, those of the second ring last.
    lanes: Vec<Rates>,
}

impl Sample {
    fn address(&self) -> String {
        let address = self.info.address.to_string();
        match &self.second {
            Some(_) => pair_of(&address).to_owned(),
            None => address,
        }
    }

    fn rings(&self) -> impl Iterator<Item = &RingInfo> {
        std::iter::once(&self.info).chain(&self.second)
    }

    fn each_lane(&self) -> impl Iterator<Item = (usize, &LaneInfo)> {
        self.rings().flat_map(|ring| &ring.lanes).enumerate()
    }

    fn sum<T: std::iter::Sum>(&self, field: impl Fn(&RingInfo) -> T) -> T {
        self.rings().map(field).sum()
    }

    fn consumer_sleeps(&self) -> bool {
        self.rings().any(|ring| ring.consumer_sleeps)
    }

    /// Makes the sample of a pair's first ring that of the pair.
    fn add_second(&mut self, second: Self) {
        self.rates.sent_per_second = sum(self.rates.sent_per_second, second.rates.sent_per_second);
        self.rates.received_per_second = sum(
            self.rates.received_per_second,
            second.rates.received_per_second,
        );
        self.lanes.extend(second.lanes);
        self.second = Some(second.info);
    }
}

fn sum(first: Option<f64>, second: Option<f64>) -> Option<f64> {
    Some(first? + second?)
}

/// The two rings of each pair as one.
fn together(samples: Vec<Sample>) -> Vec<Sample> {
    let rings: Vec<&RingInfo> = samples.iter().map(|sample| &sample.info).collect();
    let seconds = seconds(&rings);
    let mut samples: BTreeMap<usize, Sample> = samples.into_iter().enumerate().collect();
    for (first, second) in seconds {
        let second = samples.remove(&second);
        if let Some((first, second)) = samples.get_mut(&first).zip(second) {
            first.add_second(second);
        }
    }
    samples.into_values().collect()
}

/// Takes samples, and keeps the last one.
#[derive(Default)]
struct Sampler {
    /// By the ring's identity: a new ring of an old name starts again.
    last: HashMap<String, (Instant, Vec<Counts>)>,
}

impl Sampler {
    fn look(&mut self) -> Vec<Sample> {
        let rings = semring::list();
        self.compare(rings, Instant::now())
    }

    fn compare(&mut self, rings: Vec<RingInfo>, now: Instant) -> Vec<Sample> {
        let mut seen = HashMap::new();
        let samples = rings
            .into_iter()
            .map(|info| {
                let counts: Vec<Counts> = info.lanes.iter().map(Counts::of).collect();
                let mut sample = Sample {
                    rates: Rates::default(),
                    lanes: vec![Rates::default(); counts.len()],
                    info,
                    second: None,
                };
                if let Some((then, before)) = self.last.get(&sample.info.uuid)
                    && before.len() == counts.len()
                {
                    let seconds = (now - *then).as_secs_f64().max(1e-9);
                    let (from, to) = (Counts::sum(before), Counts::sum(&counts));
                    sample.rates = Rates::between(from, to, seconds);
                    sample.lanes = before
                        .iter()
                        .zip(&counts)
                        .map(|(&from, &to)| Rates::between(from, to, seconds))
                        .collect();
                }
                seen.insert(sample.info.uuid.clone(), (now, counts));
                sample
            })
            .collect();
        self.last = seen;
        together(samples)
    }
}

/// A ring at one look as programs get it: the fields of `info`, and what moves.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    #[serde(flatten)]
    record: Record,
    #[serde(flatten)]
    rates: Rates,
    consumer_sleeps: bool,
    each_lane: Vec<LaneRow<'a>>,
}

#[derive(Serialize)]
struct LaneRow<'a> {
    #[serde(flatten)]
    record: LaneRecord,
    #[serde(flatten)]
    rates: &'a Rates,
}

fn json_line(sample: &Sample, time: SystemTime) -> String {
    let lanes = sample.each_lane().zip(&sample.lanes);
    let row = Row {
        time: humantime::format_rfc3339_millis(time).to_string(),
        record: Record::of(&sample.info, sample.second.as_ref()),
        rates: sample.rates,
        consumer_sleeps: sample.consumer_sleeps(),
        each_lane: lanes
            .map(|((number, lane), rates)| LaneRow {
                record: LaneRecord::new((number, lane)),
                rates,
            })
            .collect(),
    };
    serde_json::to_string(&row).expect("strings and numbers only") + "\n"
}

/// One object for each ring at the end of each interval.
fn stream(rhythm: Rhythm) -> Result<u8, Failure> {
    let mut sampler = Sampler::default();
    sampler.look();
    let mut next = Instant::now();
    let mut looks = 0;
    while rhythm.count.is_none_or(|count| looks < count) {
        next = rhythm.next_after(next, Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let time = SystemTime::now();
        let samples = sampler.look();
        let lines: String = samples
            .iter()
            .map(|sample| json_line(sample, time))
            .collect();
        print(&lines)?;
        looks += 1;
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ring(label: &str, body: impl FnOnce(&mut dyn FnMut(u64) -> RingInfo)) {
        let name = format!("cli-top-{label}-{}", std::process::id());
        let ring = semring::mpsc::Builder::new(&name)
            .producers(2)
            .create()
            .unwrap();
        let mut producer = ring.attach_producer().unwrap();
        let mut send = |messages: u64| {
            (0..messages).for_each(|_| producer.send(b"x").unwrap());
            ring.info().unwrap()
        };
        body(&mut send);
        drop(producer);
        ring.remove().unwrap();
    }

    #[test]
    fn an_interval_beyond_the_clock_is_a_long_one() {
        let now = Instant::now();
        for interval in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            let rhythm = Rhythm {
                interval,
                count: None,
            };
            let next = rhythm.next_after(now, now);
            assert!(next > now + Duration::from_secs(1 << 30));
            assert!(rhythm.next_after(next, now) > next);
        }
    }

    #[test]
    fn rates_are_what_moved_between_two_looks() {
        with_ring("rates", |send| {
            let mut sampler = Sampler::default();
            let then = Instant::now();
            let first = sampler.compare(vec![send(7)], then);
            assert_eq!(first[0].rates, Rates::default());
            let later = then + Duration::from_secs(2);
            let second = sampler.compare(vec![send(10)], later);
            assert_eq!(second[0].rates.sent_per_second, Some(5.0));
            assert_eq!(second[0].rates.received_per_second, Some(0.0));
            assert_eq!(second[0].lanes[0].sent_per_second, Some(5.0));
            assert_eq!(second[0].lanes[1].sent_per_second, Some(0.0));
            // A ring that is gone is forgotten; a new one starts again.
            assert!(sampler.compare(Vec::new(), later).is_empty());
            let again = sampler.compare(vec![send(1)], later + Duration::from_secs(1));
            assert_eq!(again[0].rates, Rates::default());
        });
    }

    #[test]
    fn missed_looks_are_not_made_up_for() {
        let rhythm = Rhythm {
            interval: Duration::from_secs(1),
            count: None,
        };
        let due = Instant::now();
        let late = due + Duration::from_millis(1500);
        assert_eq!(rhythm.next_after(due, due), due + rhythm.interval);
        assert_eq!(rhythm.next_after(due, late), late);
        assert_eq!(rhythm.next_after(late, late), late + rhythm.interval);
    }

    #[test]
    fn a_pair_is_one_thing_with_the_rates_of_both_rings() {
        let name = format!("cli-top-pair-{}", std::process::id());
        let pair = semring::duplex::Builder::new(&name).create().unwrap();
        let mut up = pair.to_server().attach_producer().unwrap();
        let mut down = pair.to_client().attach_producer().unwrap();
        // The rest of a list, in any order.
        let look = || {
            vec![
                pair.to_client().info().unwrap(),
                pair.to_server().info().unwrap(),
            ]
        };
        let mut sampler = Sampler::default();
        let then = Instant::now();
        sampler.compare(look(), then);
        (0..2).for_each(|_| up.send(b"x").unwrap());
        (0..3).for_each(|_| down.send(b"x").unwrap());
        let samples = sampler.compare(look(), then + Duration::from_secs(1));
        let half = sampler.compare(look()[1..].to_vec(), then);
        drop((up, down));
        pair.remove().unwrap();
        let [sample] = &samples[..] else {
            panic!("{samples:?}")
        };
        assert_eq!(sample.address(), format!("posix:{name}"));
        assert_eq!(sample.rates.sent_per_second, Some(5.0));
        let lanes = sample.lanes.iter().map(|lane| lane.sent_per_second);
        assert_eq!(lanes.collect::<Vec<_>>(), [Some(2.0), Some(3.0)]);
        let row: serde_json::Value =
            serde_json::from_str(&json_line(sample, SystemTime::now())).unwrap();
        assert_eq!(row["kind"], "pair");
        assert_eq!(row["sent_messages"], 5);
        assert_eq!(row["each_lane"][1]["sent_messages"], 3);
        assert_eq!(half[0].address(), format!("posix:{name}.up"));
    }

    #[test]
    fn nonsense_in_the_counters_gives_no_rate() {
        let counts = |sent| Counts { sent, received: 0 };
        let rates = Rates::between(counts(u64::MAX), counts(3), 1.0);
        assert_eq!(rates.sent_per_second, None);
        let rates = Rates::between(counts(0), counts(u64::MAX), 1.0);
        assert!(rates.sent_per_second.is_some_and(f64::is_finite));
        let lanes = [counts(u64::MAX), counts(u64::MAX)];
        assert_eq!(Counts::sum(&lanes).sent, u64::MAX - 1);
    }
}
