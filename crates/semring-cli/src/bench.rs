//! `semring bench`: compares rings with the kernel's own ways, on this machine, now.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use semring::GuardChoice;
use semring_bench::{Category, Options, Report, Way, Workload};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::args::{Wait, default_guard};
use crate::exit::{self, Failure};
use crate::signals::not_ignored;
use crate::text::print;
use crate::units::parse_bytes;

/// The first argument of the second process of a measurement.
pub(crate) const CHILD: &str = semring_bench::CHILD;

/// Approximate time of a round of one way.
const ROUND: Duration = Duration::from_millis(50);
/// The same for `--trial`.
const TRIAL: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Backend {
    Posix,
    Sysv,
}

impl Backend {
    fn prefix(self) -> &'static str {
        match self {
            Self::Posix => "posix:",
            Self::Sysv => "sysv:",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Guard {
    /// Semaphores, or pipes where those can't work
    Auto,
    Semaphore,
    Pipe,
}

impl From<Guard> for GuardChoice {
    fn from(guard: Guard) -> Self {
        match guard {
            Guard::Auto => Self::Auto,
            Guard::Semaphore => Self::Semaphore,
            Guard::Pipe => Self::Pipe,
        }
    }
}

/// A workload, as an option.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Work {
    /// As many messages as possible, one way
    OneWay,
    /// One message there and back
    RoundTrip,
    /// A message each millisecond to a process that sleeps
    WakeUp,
    /// Several senders, no process pinned
    Producers,
}

impl From<Work> for Workload {
    fn from(work: Work) -> Self {
        match work {
            Work::OneWay => Self::OneWay,
            Work::RoundTrip => Self::RoundTrip,
            Work::WakeUp => Self::WakeUp,
            Work::Producers => Self::Producers,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Ways to measure, separated by commas (default: all without a * in the list below)
    #[arg(long = "peer", value_name = "WAYS", value_delimiter = ',', value_parser = parse_way)]
    peers: Vec<Way>,
    /// Workloads, separated by commas (default: all)
    #[arg(
        long = "workload",
        value_name = "WORKLOADS",
        value_delimiter = ',',
        value_enum
    )]
    workloads: Vec<Work>,
    /// Bytes of a message in the workload one-way, separated by commas; multiples of 8
    #[arg(long = "size", value_name = "SIZES", value_delimiter = ',', value_parser = parse_size,
          default_value = "8,64,256,1K,4K,64K")]
    sizes: Vec<usize>,
    /// Bytes of a message in the other workloads, separated by commas; multiples of 8
    #[arg(long = "small-size", value_name = "SIZES", value_delimiter = ',', value_parser = parse_size,
          default_value = "64")]
    small_sizes: Vec<usize>,
    /// Numbers of senders in the workload producers, separated by commas; at most 64
    #[arg(long = "senders", value_name = "NUMBERS", value_delimiter = ',', default_value = "1,4,16",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    senders: Vec<u16>,
    /// Wait strategy of both ends of a ring
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    wait: Wait,
    /// Mechanism that detects dead peers and wakes sleepers
    #[arg(long, value_enum, default_value_t = Guard::Auto)]
    guard: Guard,
    /// Shared memory of rings
    #[arg(long, value_enum, default_value_t = Backend::Posix)]
    backend: Backend,
    /// Interleaved rounds, whose median is printed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// One short round of each: tests whether all ways work, measures nothing
    #[arg(long)]
    trial: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Also write an HTML page with pictures to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The first paragraph of `--help`.
pub(crate) const ABOUT: &str = "Measure rings beside pipes, FIFOs, Unix sockets, message queues and shared memory \
    with a semaphore for each message: two processes, each on a CPU of its own, which write and check every word. \
    Rounds are interleaved and their median is printed (of an even number of rounds the mean of the two in the \
    middle). Compare ratios within a run; run it where you will use it, on a quiet machine. Takes about a minute.";

/// The section of the help and of the man page with the ways: a name and a description in each
/// line.
pub(crate) fn ways_section() -> String {
    /// A man page indents by five columns more than this text.
    const COLUMNS: usize = 75;
    const NAMES: usize = 22;
    let mut section =
        String::from("Ways:\n  Those with a * are measured only if --peer names them.\n\n");
    for way in Way::all() {
        let is_optional = matches!(way.category, Category::Variant | Category::Limit);
        let name = format!("  {} {}", if is_optional { '*' } else { ' ' }, way.name);
        let mut line = format!("{name:<NAMES$}");
        let mut is_empty = true;
        for word in way.about.replace('`', "").split(' ') {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                section.push_str(&line);
                section.push('\n');
                line = " ".repeat(NAMES);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        section.push_str(&line);
        section.push('\n');
    }
    section.push('\n');
    section
}

fn parse_way(text: &str) -> Result<Way, String> {
    Way::named(text).ok_or_else(|| {
        let names: Vec<&str> = Way::all().iter().map(|way| way.name).collect();
        format!("the ways are {}", names.join(", "))
    })
}

fn parse_size(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        size @ 8..=1_048_576 if size % 8 == 0 => Ok(size as usize),
        _ => Err("write a multiple of 8 bytes, from 8 to 1M".to_owned()),
    }
}

/// The second process of a measurement.
pub(crate) fn child(assignment: &str) -> Result<u8, Failure> {
    semring_bench::run_child(assignment)
        .map(|()| exit::DONE)
        .map_err(|error| Failure::run_time(format!("bench: the other process: {error}")))
}

/// Measures, and prints the result.
pub(crate) fn run(args: BenchArgs) -> Result<u8, Failure> {
    sweep_on_signals()?;
    if let Some(path) = &args.report {
        // Fails here if the file can't be written, and not after a minute of work.
        write(path, "")?;
    }
    let workloads: Vec<Workload> = if args.workloads.is_empty() {
        Workload::ALL.to_vec()
    } else {
        args.workloads.into_iter().map(Workload::from).collect()
    };
    let options = Options {
        ways: if args.peers.is_empty() {
            Way::usual()
        } else {
            args.peers
        },
        workloads,
        sizes: args.sizes,
        small_sizes: args.small_sizes,
        sender_counts: args.senders.into_iter().map(usize::from).collect(),
        wait: args.wait.into(),
        guard: match args.guard {
            Guard::Auto => default_guard()?,
            chosen => chosen.into(),
        },
        backend: args.backend.prefix().to_owned(),
        rounds: if args.trial {
            1
        } else {
            usize::from(args.rounds)
        },
        round: if args.trial { TRIAL } else { ROUND },
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg:44}") {
        bar.set_style(style);
    }
    let result = semring_bench::run(&options, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(progress.what);
    });
    bar.finish_and_clear();
    let report = result.map_err(|error| Failure::run_time(format!("bench: {error}")))?;
    print(&if args.json {
        json(&report)?
    } else {
        semring_bench::text(&report)
    })?;
    if let Some(path) = &args.report {
        write(path, &semring_bench::html(&report))?;
    }
    Ok(exit::DONE)
}

fn write(path: &Path, page: &str) -> Result<(), Failure> {
    fs::write(path, page)
        .map_err(|error| Failure::run_time(format!("bench: {}: {error}", path.display())))
}

/// A signal removes what the run has made, and ends the process. Signals that the parent had ignored stay
/// ignored.
fn sweep_on_signals() -> Result<(), Failure> {
    let wanted = not_ignored(&[SIGINT, SIGTERM, SIGHUP]);
    let failed = |error| Failure::run_time(format!("bench: signals: {error}"));
    let mut signals = Signals::new(&wanted).map_err(failed)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            semring_bench::sweep();
            let _ = emulate_default_handler(signal);
        }
    });
    // The signals are blocked in this thread, so they are delivered to the other one only: otherwise a system
    // call of this thread would fail with EINTR. The other processes inherit the mask, so that a Ctrl-C in the
    // terminal does not end them before their objects are removed; they are killed when this process ends.
    let mut here = SigSet::empty();
    for signal in wanted {
        here.add(Signal::try_from(signal).map_err(|error| failed(error.into()))?);
    }
    here.thread_block().map_err(|error| failed(error.into()))
}

fn json(report: &Report) -> Result<String, Failure> {
    let line = |value: serde_json::Result<String>| {
        value.map_err(|error| Failure::run_time(format!("bench: {error}")))
    };
    let mut text = line(serde_json::to_string(&report.machine))?;
    text.push('\n');
    for row in &report.rows {
        text.push_str(&line(serde_json::to_string(row))?);
        text.push('\n');
    }
    Ok(text)
}
