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
use round::{Disturbances, Round};

/// The sums over all rounds.
#[derive(Default)]
struct Sums {
    rounds: u64,
    disturbances: Disturbances,
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
    while sums.disturbances.kills < options.kills
        && sums.problems.is_empty()
        && !round::is_stopped()
    {
        let round = Round::new(&options, number, options.kills - sums.disturbances.kills);
        let variant = round.variant();
        let outcome = round.run(|disturbances, arrivals| {
            if told.elapsed() >= Duration::from_secs(options.progress) {
                told = Instant::now();
                let kills = sums.disturbances.kills + disturbances.kills;
                eprintln!(
                    "{:5} s, round {number}: {kills} kills, {} stops, {} messages",
                    begin.elapsed().as_secs(),
                    sums.disturbances.stops + disturbances.stops,
                    sums.audit.received + arrivals,
                );
            }
        });
        sums.rounds += 1;
        sums.disturbances.add(&outcome.disturbances);
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
        disturbances,
        audit,
        ..
    } = sums;
    let rows: [(&str, u64); 23] = [
        ("seconds", time.as_secs()),
        ("rounds", *rounds),
        ("kills", disturbances.kills),
        ("  of consumers", disturbances.consumer_kills),
        ("  of stopped processes", disturbances.stopped_kills),
        ("  all at once", disturbances.mass_kills),
        ("  missed by all", disturbances.lone_deaths),
        ("stops", disturbances.stops),
        ("quiet phases", disturbances.quiet_phases),
        ("attachments refused", disturbances.refused),
        ("broken pipes", disturbances.broken_pipes),
        ("ends of stream", disturbances.ends),
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
