//! The target figures of rings, each with the measured value and whether it was reached: ratios within this
//! run.
//!
//! ```sh
//! cargo bench --bench figures [-- --rounds N]
//! ```
//! A ratio is the median over the rounds of the ratio within a round: the rounds of all ways are
//! interleaved, and a change of the machine's speed for a second affects both sides of it.
#![forbid(unsafe_code)]

mod figures;
mod streams;

use std::process::ExitCode;
use std::time::Duration;

use semring_bench::{Options, Report, Result, Way, Workload, run, text};

use figures::{Figures, Source};

fn main() -> ExitCode {
    semring_peers::bench("figures", measure)
}

fn measure(arguments: &[String]) -> Result<()> {
    let (mut rounds, mut round) = (7, Duration::from_millis(50));
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Under `cargo test --benches`: whether everything works, not how fast.
        (rounds, round) = (1, Duration::from_millis(2));
    }
    let mut tables = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--bench" => {}
            "--tables" => tables = true,
            "--rounds" => rounds = rest.next().ok_or("--rounds how many?")?.parse()?,
            other => return Err(format!("{other}: --rounds N, --tables").into()),
        }
    }
    let options = |workload, names: &[&str]| -> Result<Options> {
        let way = |name: &&str| Way::named(name).ok_or_else(|| format!("no way {name}"));
        let ways: std::result::Result<_, String> = names.iter().map(way).collect();
        Ok(Options {
            ways: ways?,
            workloads: vec![workload],
            rounds,
            round,
            ..Options::default()
        })
    };
    let source = Source {
        one_way: go(&options(Workload::OneWay, &ONE_WAY)?)?,
        trips: go(&Options {
            small_sizes: vec![48, 64],
            ..options(Workload::RoundTrip, &TRIPS)?
        })?,
        wake_ups: go(&options(Workload::WakeUp, &WAKE_UPS)?)?,
        crowds: go(&options(Workload::Producers, &CROWDS)?)?,
        streams: streams::measure(rounds)?,
    };
    eprintln!();
    if tables {
        for report in source.reports() {
            println!("{}", text(report));
        }
    }
    print!("{}", Figures::of(&source)?);
    Ok(())
}

/// Without those that are slower than a pipe at every size.
const ONE_WAY: [&str; 19] = [
    "semring",
    "semring-spin",
    "semring-fenced",
    "semring-batch",
    "semring-in-place",
    "pipe",
    "pipe-packed",
    "pipe-long",
    "pipe-vmsplice",
    "shaq",
    "shaq-batch",
    "shaq-mpmc",
    "shmem-ipc",
    "shmem-ipc-batch",
    "iceoryx2",
    "ipmpsc",
    "rtrb",
    "array-queue",
    "limit-blocks",
];

const TRIPS: [&str; 11] = [
    "limit-line",
    "semring-spin",
    "semring-adaptive",
    "semring-block",
    "pipe",
    "eventfd",
    "futex",
    "shared-semaphore",
    "shaq",
    "shmem-ipc",
    "iceoryx2",
];

const WAKE_UPS: [&str; 10] = [
    "semring-adaptive",
    "semring-block",
    "semring-pipes",
    "pipe",
    "eventfd",
    "futex",
    "shared-semaphore",
    "shmem-ipc",
    "ipmpsc",
    "iceoryx2",
];

const CROWDS: [&str; 11] = [
    "semring-adaptive",
    "semring-block",
    "pipe",
    "pipe-4k",
    "unix-seqpacket",
    "posix-queue",
    "iceoryx2",
    "ipmpsc",
    "ipc-channel",
    "shaq-mpmc",
    "array-queue",
];

fn go(options: &Options) -> Result<Report> {
    run(options, &mut |progress| {
        let percent = 100 * progress.done / progress.total.max(1);
        eprint!("\r{percent:>3} % {:<60}", progress.what);
    })
}
