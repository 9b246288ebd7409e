//! `semring bench`: rings beside what the kernel offers, on this machine, now.

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

use crate::args::Wait;
use crate::exit::{self, Failure};
use crate::output::print;
use crate::signals::not_ignored;
use crate::units::parse_bytes;

/// The first argument of the second process of a measurement.
pub(crate) const CHILD: &str = semring_bench::CHILD;

/// About how long a round of one way takes.
const ROUND: Duration = Duration::from_millis(50);
/// In the time of a round that is only there to see whether everything works.
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

/// A workload as it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Work {
    /// As many messages as possible, one way
    OneWay,
    /// One message there and back
    RoundTrip,
    /// A message each millisecond to somebody who sleeps
    WakeUp,
    /// 1, 4 and 16 senders, nobody pinned
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
    /// Which ways, separated by commas; all if nothing is said
    #[arg(long = "peer", value_name = "WAYS", value_delimiter = ',', value_parser = parse_way)]
    peers: Vec<Way>,
    /// Which workloads, separated by commas; all if nothing is said
    #[arg(
        long = "workload",
        value_name = "WORKLOADS",
        value_delimiter = ',',
        value_enum
    )]
    workloads: Vec<Work>,
    /// Bytes of a message, one way, separated by commas; at least 8
    #[arg(long = "size", value_name = "SIZES", value_delimiter = ',', value_parser = parse_size,
          default_value = "8,64,256,1K,4K,64K")]
    sizes: Vec<usize>,
    /// How the ends of a ring wait
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    wait: Wait,
    /// What rings are guarded by
    #[arg(long, value_enum, default_value_t = Guard::Auto)]
    guard: Guard,
    /// Where rings are
    #[arg(long, value_enum, default_value_t = Backend::Posix)]
    backend: Backend,
    /// Interleaved rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// One round of very few messages: whether everything works, not how fast
    #[arg(long)]
    trial: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Also write a page with pictures to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Ways by name, for the help.
pub(crate) fn ways_help() -> String {
    let mut help = String::from(
        "Measures rings beside pipes, FIFOs, Unix sockets, message queues and shared memory with a semaphore \
         for each message: two processes, each on a CPU of its own, which write and check every word. Rounds are \
         interleaved, so only the ratios of one run mean something; run it where you will use it, on a quiet \
         machine. About a minute.\n\nWays for --peer:",
    );
    for way in Way::all() {
        let asked = if matches!(way.category, Category::Variant | Category::Limit) {
            "* "
        } else {
            "  "
        };
        help.push_str(&format!(
            "\n{asked}{:17}{}",
            way.name,
            way.about.replace('`', "")
        ));
    }
    help.push_str("\n\nThose with a * only if they are named.");
    help
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

/// Measures, and says what came of it.
pub(crate) fn run(args: BenchArgs) -> Result<u8, Failure> {
    sweep_on_signals()?;
    if let Some(path) = &args.report {
        // Before a minute of work, not after it.
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
        wait: args.wait.into(),
        guard: args.guard.into(),
        backend: args.backend.prefix().to_owned(),
        rounds: if args.trial {
            1
        } else {
            usize::from(args.rounds)
        },
        round: if args.trial { TRIAL } else { ROUND },
        ..Options::default()
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

/// A signal removes what the run has made, and ends it; what the parent had us ignore stays ignored.
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
    // They come to that thread alone: a call of the one that measures would end with `EINTR`. The other
    // processes inherit it, so that a Ctrl-C in the terminal does not end them before the rest is swept;
    // they die with this one.
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
