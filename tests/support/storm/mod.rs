//! The storm: producers and a consumer are killed, stopped and started again at random moments, and
//! every message is accounted for. `examples/audit.rs` is it for users, the program `storm` for
//! tests/storm.
//!
//! One process of one thread forks all others, a tenth of a millisecond each. It goes in rounds: a
//! ring is made, processes are killed and stopped, then all run undisturbed; the committed messages
//! are compared with those that arrived, the ring is removed, and nothing may be left of it.

mod crowd;
mod options;
mod random;
#[path = "../rings.rs"]
mod rings;
mod roles;
mod round;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use semring_testkit::audit::Report;

use options::Options;
use round::{Round, Weather};

/// The sums over all rounds.
#[derive(Default)]
struct Sums {
    rounds: u64,
    weather: Weather,
    audit: Report,
    problems: Vec<String>,
}

/// Runs the storm with the options in the arguments.
pub fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}; see --help");
            return ExitCode::from(2);
        }
    };
    if let Some(crowd) = &options.crowd {
        return crowd.run();
    }
    round::stop_at_signals();
    println!("storm: --seed {} --kills {}", options.seed, options.kills);
    let begin = Instant::now();
    let mut sums = Sums::default();
    let mut told = begin;
    let mut number = options.first_round;
    while sums.weather.kills < options.kills && sums.problems.is_empty() && !round::is_stopped() {
        let round = Round::new(&options, number, options.kills - sums.weather.kills);
        let variant = round.variant();
        let outcome = round.run(|weather, arrivals| {
            if told.elapsed() >= Duration::from_secs(options.progress) {
                told = Instant::now();
                let kills = sums.weather.kills + weather.kills;
                eprintln!(
                    "{:5} s, round {number}: {kills} kills, {} stops, {} messages",
                    begin.elapsed().as_secs(),
                    sums.weather.stops + weather.stops,
                    sums.audit.received + arrivals,
                );
            }
        });
        sums.rounds += 1;
        sums.weather.add(&outcome.weather);
        sums.audit.add(&outcome.audit);
        let unclean = !outcome.audit.is_clean(true);
        if unclean {
            sums.problems.push(format!("the audit: {}", outcome.audit));
        }
        sums.problems.extend(outcome.problems);
        if !sums.problems.is_empty() {
            eprintln!(
                "round {number} failed ({variant}); again: --seed {} --round {number}",
                options.seed
            );
        }
        number += 1;
    }
    table(&sums, begin.elapsed());
    for problem in &sums.problems {
        println!("FAILED: {problem}");
    }
    if sums.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("seed: --seed {}", options.seed);
        ExitCode::FAILURE
    }
}

fn table(sums: &Sums, time: Duration) {
    let Sums {
        rounds,
        weather,
        audit,
        ..
    } = sums;
    let rows: [(&str, u64); 23] = [
        ("seconds", time.as_secs()),
        ("rounds", *rounds),
        ("kills", weather.kills),
        ("  of consumers", weather.consumer_kills),
        ("  of stopped processes", weather.stopped_kills),
        ("  all at once", weather.massacres),
        ("  missed by all", weather.bereavements),
        ("stops", weather.stops),
        ("calms", weather.calms),
        ("attachments refused", weather.refused),
        ("broken pipes", weather.broken_pipes),
        ("ends of stream", weather.ends),
        ("committed", audit.committed),
        ("received", audit.received),
        ("redelivered", audit.redelivered),
        ("committed, unrecorded", audit.unrecorded),
        ("lost", audit.lost),
        ("torn", audit.torn),
        ("reordered", audit.reordered),
        ("duplicated", audit.duplicated),
        ("unexpected", audit.unexpected),
        ("leaked objects", audit.leaked),
        ("problems", sums.problems.len() as u64),
    ];
    for (what, number) in rows {
        println!("{what:<24}{number:>14}");
    }
}
