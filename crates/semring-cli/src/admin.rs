//! `semring`: rings made, listed, looked at and removed.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::unistd::{Group, User};
use semring::{Address, Backend, HugePages, OpenError, RemoveOutcome, RingInfo, duplex};

use crate::args::{self, ShapeArgs};
use crate::attach::{builder, guarded_by_pipes_because, made};
use crate::bench::{self, BenchArgs};
use crate::completions;
use crate::doctor;
use crate::exit::{self, Failure, open_failure};
use crate::listing::{self, Column};
use crate::output::refuse_closed_stdout;
use crate::pages::{self, Program};
use crate::prune;
use crate::report;
use crate::signals;
use crate::text::print;
use crate::top::{self, Rhythm};
use crate::units::{parse_number, parse_time};

const PROGRAM: &str = "semring";

/// `semring`
#[derive(Parser, Debug)]
#[command(
    name = "semring",
    version,
    about = "Make, list, show and remove message rings in shared memory",
    long_about = "Make, list, show and remove message rings in shared memory. semring-producer and \
                  semring-consumer move messages through them.",
    disable_help_subcommand = true,
    max_term_width = 80
)]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a ring that stays until it is removed
    Create {
        #[arg(value_name = "RING", help = args::ADDRESS_HELP)]
        address: OsString,
        #[command(flatten)]
        shape: ShapeArgs,
        /// Owner of the new ring, name or uid [default: you]
        #[arg(long, value_name = "USER", value_parser = parse_user)]
        owner: Option<u32>,
        /// Group of the new ring (can use it with mode 0660), name or gid [default: yours]
        #[arg(long, value_name = "GROUP", value_parser = parse_group)]
        group: Option<u32>,
        /// Use huge pages: for sysv: rings, if the kernel allows them
        #[arg(long)]
        huge_pages: bool,
        /// Print what was made, and the reason if it got pipes by default
        #[arg(short, long)]
        verbose: bool,
    },
    /// List the rings that you may look at
    Ls {
        /// Print one JSON object a line
        #[arg(long, conflicts_with_all = ["noheadings", "columns"])]
        json: bool,
        /// Print no line of headings
        #[arg(long)]
        noheadings: bool,
        /// Which columns, separated by commas; numbers are then plain
        #[arg(short = 'o', long, value_name = "COLS", value_delimiter = ',', long_help = listing::columns_help())]
        columns: Vec<Column>,
    },
    /// Show one ring, lane by lane
    Info {
        #[arg(value_name = "RING", help = args::ADDRESS_HELP)]
        address: OsString,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove a ring, or a pair of rings, with everything in it
    Rm {
        #[arg(value_name = "RING", help = args::ADDRESS_HELP)]
        address: OsString,
        /// Remove it also while it is in use (all users get an error), or your own ring that is damaged
        #[arg(long)]
        force: bool,
    },
    /// Set the counts of finished and died producers to zero
    #[command(
        long_about = "Set the counts of finished and died producers to zero: for supervisors that have seen that a producer \
                      failed or was killed, and have restarted it. Messages do not change, and a consumer still reports at the \
                      end of its stream that a producer of it died."
    )]
    ResetCounts {
        #[arg(value_name = "RING", help = args::ADDRESS_HELP)]
        address: OsString,
    },
    /// Remove what killed programs left behind
    #[command(
        long_about = "Remove what killed programs left behind, of all users for root: rings that a \
                      program made because they were missing, if no process is attached and nothing is \
                      unread; rings that were never finished; semaphores and pipes whose ring is gone. The \
                      kernel's locks are checked, so nothing in use is touched. Rings made by semring create \
                      are never removed."
    )]
    Prune {
        /// Only print what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Also remove rings in which messages are unread
        #[arg(long)]
        discard_unread: bool,
    },
    /// Watch the rings: rates, sleeping and dead processes, fill levels
    #[command(
        long_about = "Watch the rings that you may look at: messages a second, how full each lane (a producer's part of the \
                      ring) is, which processes sleep, how many producers failed or were killed. On a terminal q ends it and the arrows choose the ring \
                      whose lanes are shown; --json writes one object for each ring and interval."
    )]
    Top {
        /// Print one JSON object a line for each ring and interval
        #[arg(long)]
        json: bool,
        /// Look once in this time, such as 250ms or 5s
        #[arg(short, long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
        interval: Duration,
        /// End after N looks
        #[arg(short = 'n', long, value_name = "N", value_parser = parse_number)]
        count: Option<u64>,
    },
    /// Check whether rings work here, what prevents it, and what helps
    #[command(
        long_about = "Check whether rings work here, what prevents it, and what helps: limits of the \
                      kernel, /dev/shm, namespaces, systemd's RemoveIPC, filters of system calls, and \
                      what killed programs left behind. Ends with 1 if there is a problem; warnings are \
                      none."
    )]
    Doctor {
        /// Print one JSON object a line for each check
        #[arg(long)]
        json: bool,
    },
    /// Measure rings beside pipes, sockets and queues, on this machine
    #[command(long_about = bench::ABOUT)]
    Bench(#[command(flatten)] BenchArgs),
    /// Print completions for a shell: source <(semring completions bash)
    Completions {
        shell: clap_complete::Shell,
        /// For one program only [all three]
        #[arg(value_enum)]
        program: Option<Program>,
    },
    /// Print the help of a command or program
    Help {
        /// A command of semring, or semring-producer or semring-consumer
        #[arg(value_name = "COMMAND", default_value = "semring")]
        command: String,
    },
    /// Print a man page, or show it if stdout is a terminal
    Man {
        /// A command of semring, or semring-producer or semring-consumer
        #[arg(value_name = "COMMAND", default_value = "semring")]
        command: String,
    },
}

impl Command {
    /// Whether it is of no use without a stdout.
    fn prints(&self) -> bool {
        !matches!(
            self,
            Self::Create { .. } | Self::Rm { .. } | Self::ResetCounts { .. }
        )
    }
}

/// Runs the command.
pub fn main() -> ExitCode {
    signals::keep_file_size_signal_away();
    report::end(PROGRAM, run())
}

fn run() -> Result<u8, Failure> {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == completions::ASK)
    {
        print(&completions::rings())?;
        return Ok(exit::DONE);
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == bench::CHILD) {
        let assignment = words.next().unwrap_or_default();
        return bench::child(&assignment.to_string_lossy());
    }
    let args: AdminArgs = args::parse(std::env::args_os())?;
    if args.command.prints() {
        refuse_closed_stdout()?;
    }
    match args.command {
        Command::Create {
            address,
            shape,
            owner,
            group,
            huge_pages,
            verbose,
        } => {
            let nameless = match parse(&address)?.backend() {
                Backend::Memfd => Some("a ring without a name goes when this command ends"),
                Backend::Anonymous => Some("only the program that makes it has such memory"),
                _ => None,
            };
            if let Some(why) = nameless {
                let address = address.display();
                return Err(Failure::new(exit::USAGE, format!("{address}: {why}")));
            }
            let mut builder = builder(&address, &shape)?;
            if let Some(owner) = owner {
                builder = builder.owner(owner);
            }
            if let Some(group) = group {
                builder = builder.group(group);
            }
            if huge_pages {
                builder = builder.huge_pages(HugePages::Transparent);
            }
            let ring = builder.create()?;
            if verbose {
                report::say(PROGRAM, made(&ring));
                if let Some(why) = guarded_by_pipes_because(&ring) {
                    report::say(PROGRAM, why);
                }
            }
        }
        Command::Ls { json: true, .. } => {
            print(&listing::json_lines(&semring::list()))?;
        }
        Command::Ls {
            noheadings,
            columns,
            ..
        } => {
            let rings = semring::list();
            let width = terminal_width().filter(|_| columns.is_empty());
            print(&match width {
                Some(width) => listing::table_within(&rings, width, !noheadings),
                None => listing::table(&rings, &columns, !noheadings),
            })?;
        }
        Command::Info { address, json } => {
            let address = parse(&address)?;
            let (info, second) =
                inspect(&address).map_err(|error| open_failure(&address, error))?;
            print(&match &second {
                _ if json => listing::json_with_lanes(&info, second.as_ref()),
                Some(second) => listing::describe_pair(&info, second),
                None => listing::describe(&info),
            })?;
        }
        Command::Rm { address, force } => {
            let address = parse(&address)?;
            match duplex::pair_at(&address) {
                // One ring of a pair without the other is of no use.
                Some(pair) if force => duplex::force_remove(&pair)?,
                Some(pair) => duplex::remove(&pair)?,
                None if force => {
                    if let RemoveOutcome::RemovedDamaged { what } = semring::force_remove(&address)?
                    {
                        report::say(
                            PROGRAM,
                            format!("removed {address}: it was taken for {what}"),
                        );
                    }
                }
                None => semring::remove(&address)?,
            }
        }
        Command::ResetCounts { address } => {
            let address = parse(&address)?;
            semring::reset_counts(&address).map_err(|error| open_failure(&address, error))?;
        }
        Command::Prune {
            dry_run,
            discard_unread,
        } => return prune::run(dry_run, discard_unread),
        Command::Top {
            json,
            interval,
            count,
        } => return top::run(json, Rhythm { interval, count }),
        Command::Doctor { json } => return doctor::run(json),
        Command::Bench(args) => return bench::run(args),
        Command::Completions { shell, program } => print(&match program {
            Some(program) => pages::completions(shell, program),
            None => pages::all_completions(shell),
        })?,
        Command::Help { command } => args::help(pages::named(&command)?)?,
        Command::Man { command } => pages::show(&pages::man(&command)?)?,
    }
    Ok(exit::DONE)
}

fn parse(address: &OsStr) -> Result<Address, Failure> {
    Address::try_from(address).map_err(|error| Failure::new(exit::USAGE, error.to_string()))
}

fn parse_user(text: &str) -> Result<u32, String> {
    match (text.parse(), User::from_name(text)) {
        (Ok(uid), _) => Ok(uid),
        (_, Ok(Some(user))) => Ok(user.uid.as_raw()),
        _ => Err("there is no such user".to_owned()),
    }
}

fn parse_group(text: &str) -> Result<u32, String> {
    match (text.parse(), Group::from_name(text)) {
        (Ok(gid), _) => Ok(gid),
        (_, Ok(Some(group))) => Ok(group.gid.as_raw()),
        _ => Err("there is no such group".to_owned()),
    }
}

/// The ring at an address; if it is one of a pair, or the pair, both rings.
fn inspect(address: &Address) -> Result<(RingInfo, Option<RingInfo>), OpenError> {
    let Some(pair) = duplex::pair_at(address) else {
        return Ok((semring::inspect(address)?, None));
    };
    let look = |address: String| {
        let address = address.parse::<Address>()?;
        semring::inspect(&address)
    };
    let first = look(format!("{pair}.up"))?;
    let second = listing::down_address(&first).map(look);
    match second.transpose() {
        // A creator was killed between the two, or a remover has taken one of them.
        Err(OpenError::NotFound { .. }) => Ok((first, None)),
        second => Ok((first, second?)),
    }
}

/// A time between two looks.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        interval if interval >= Duration::from_millis(10) => Ok(interval),
        _ => Err("write at least 10ms".to_owned()),
    }
}

/// Columns of the terminal that stdout is.
fn terminal_width() -> Option<usize> {
    let size = std::io::stdout()
        .is_terminal()
        .then(ratatui::crossterm::terminal::size);
    let (width, _) = size?.ok()?;
    (width > 0).then_some(usize::from(width))
}
