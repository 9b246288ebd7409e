//! The options, and reading them; errors of use have the form of all other errors: one sentence,
//! one exit code.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, ValueEnum};
use semring::{Address, GuardChoice, WaitStrategy, WhenFull};

use crate::afterwords;
use crate::exit::{self, Failure};
use crate::framing::Framing;
use crate::text::print;
use crate::units::{parse_bytes, parse_mode, parse_number, parse_time};

pub(crate) const ADDRESS_HELP: &str = "NAME or posix:NAME in POSIX shared memory; sysv:NAME, sysv:0x12340001 (a key) or \
    sysv:PATH#ID (the key of ftok) in System V shared memory; file:PATH, which survives a restart; or fd:N, an open \
    descriptor";

/// `semring-producer`
#[derive(Parser, Debug)]
#[command(
    name = "semring-producer",
    version,
    about = "Send stdin into a ring in shared memory, message by message",
    long_about = "Send stdin into a ring in shared memory, message by message. The ring is made if it is \
                  missing; it does not matter whether producer or consumer starts first. Without a consumer \
                  the producer fills the ring, then waits.",
    max_term_width = 80
)]
pub(crate) struct ProducerArgs {
    #[command(flatten)]
    pub(crate) ring: RingArgs,
    #[command(flatten)]
    pub(crate) framing: FramingArgs,
    /// What to do with a line that is longer than a message can be
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) long_lines: Option<LongLines>,
    /// Keep running when the consumer exits and wait for the next one (default: exit 141)
    #[arg(long)]
    pub(crate) wait_for_consumer: bool,
    /// End with 6 if messages were dropped or lines truncated
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

/// `semring-consumer`
#[derive(Parser, Debug)]
#[command(
    name = "semring-consumer",
    version,
    about = "Write the messages of a ring in shared memory to stdout",
    long_about = "Write the messages of a ring in shared memory to stdout, until the producers are gone and \
                  the ring is empty. The ring is made if it is missing; before the first producer the consumer \
                  waits. A ring that was made by producer or consumer because it was missing is removed at the \
                  end of the stream.",
    max_term_width = 80
)]
pub(crate) struct ConsumerArgs {
    #[command(flatten)]
    pub(crate) ring: RingArgs,
    #[command(flatten)]
    pub(crate) framing: FramingArgs,
    /// Keep running when all producers are gone and wait for new ones
    #[arg(long)]
    pub(crate) follow: bool,
    /// End after N messages; producers then end, too; unread messages stay in the ring
    #[arg(long, value_name = "N", value_parser = parse_number)]
    pub(crate) count: Option<u64>,
    /// Write messages that were sent in another framing in the one that is given
    #[arg(long, requires = "FramingArgs")]
    pub(crate) convert: bool,
    /// End only when no producer was attached for this long, such as 2s: for producers that come and go
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "follow")]
    pub(crate) linger: Option<Duration>,
    /// End with 6 if messages were dropped because the ring was full
    #[arg(long)]
    pub(crate) strict: bool,
    /// End with 0 also if a producer failed or was killed, and don't mention it
    #[arg(long)]
    pub(crate) ignore_deaths: bool,
    /// Keep the ring at the end of the stream also if it was made because it was missing
    #[arg(long)]
    pub(crate) keep: bool,
    /// Throw away the messages that are unread at the end of this consumer
    #[arg(long, conflicts_with = "keep")]
    pub(crate) discard_unread: bool,
    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

/// The ring, and the options for making it.
#[derive(Args, Debug)]
pub(crate) struct RingArgs {
    #[arg(value_name = "RING", help = ADDRESS_HELP)]
    pub(crate) address: OsString,
    /// Open only: fail with 3 if there is no such ring
    #[arg(long)]
    pub(crate) no_create: bool,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Keep the whole ring in memory, never in swap, while this runs
    #[arg(long)]
    pub(crate) lock_memory: bool,
    /// How to wait for the other side
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    pub(crate) wait: Wait,
}

impl RingArgs {
    /// The address as sentences and figures show it.
    pub(crate) fn shown_address(&self) -> String {
        match Address::try_from(&*self.address) {
            Ok(address) => address.to_string(),
            Err(_) => self.address.to_string_lossy().into_owned(),
        }
    }
}

/// Options of a new ring, which an existing one must match.
#[derive(Args, Debug)]
pub(crate) struct ShapeArgs {
    /// Bytes of each producer's part of the ring, its lane: 1 to 4G, such as 64K or 1MB, rounded up to a power of two of
    /// at least 4K [new ring: 256K]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) capacity: Option<u64>,
    /// How many producers can be attached at once, 1 to 240 [new ring: 8]
    #[arg(long, value_name = "N", value_parser = parse_lanes)]
    pub(crate) producers: Option<usize>,
    /// Permission bits, octal, as for chmod: 0660 lets the group in [new ring: 0600]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,
    /// What wakes a side that sleeps and reports that the other one is gone
    #[arg(long, value_enum, default_value_t = Guard::Auto)]
    pub(crate) guard: Guard,
    /// What a producer does when its lane, its part of the ring, is full [new ring: wait]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) full: Option<Full>,
}

/// What becomes of a message for which there is no room.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// The producer waits for room
    Wait,
    /// The producer ends with 1
    Fail,
    /// The message is dropped and counted
    Drop,
}

impl From<Full> for WhenFull {
    fn from(full: Full) -> Self {
        match full {
            Full::Wait => Self::Wait,
            Full::Fail => Self::Fail,
            Full::Drop => Self::Drop,
        }
    }
}

/// What becomes of a line or NUL-ended message that is longer than a message of the ring.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LongLines {
    /// It is sent in parts, which the consumer joins (default; not with --full drop)
    Split,
    /// Its beginning is sent, the rest is left out
    Truncate,
    /// The producer ends with 1 (default with --full drop)
    Fail,
}

/// The framing of stdin or stdout.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct FramingArgs {
    /// Each message is a line
    #[arg(long)]
    pub(crate) lines: bool,
    /// Each message ends with a NUL byte
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// Each message follows its length in 4 bytes, the lowest first
    #[arg(long)]
    pub(crate) length_prefixed: bool,
    /// Messages are pieces of the stream, cut anywhere: for what has no records, such as tar
    #[arg(long)]
    pub(crate) raw: bool,
    /// Each message is a record of N bytes, such as 16 or 4K
    #[arg(long, value_name = "N", value_parser = parse_record)]
    pub(crate) fixed: Option<usize>,
}

impl FramingArgs {
    /// The framing given by an option.
    pub(crate) fn framing(&self) -> Option<Framing> {
        let flags = [
            (self.lines, Framing::Lines),
            (self.null, Framing::Null),
            (self.length_prefixed, Framing::LengthPrefixed),
            (self.raw, Framing::Raw),
        ];
        let flag = flags.into_iter().find(|(is_set, _)| *is_set);
        flag.map(|(_, framing)| framing)
            .or(self.fixed.map(Framing::Fixed))
    }
}

fn parse_record(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        0 => Err("a record has at least 1 byte".to_owned()),
        bytes => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
    }
}

fn parse_lanes(text: &str) -> Result<usize, String> {
    parse_number(text).map(|lanes| usize::try_from(lanes).unwrap_or(usize::MAX))
}

/// Behaviour and output of a transfer.
#[derive(Args, Debug)]
pub(crate) struct MannerArgs {
    /// End with 124 if nothing moved for this long, such as 250ms, 5s, 2m, or 5 for seconds; 0 is never
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "0")]
    timeout: Duration,
    /// At most this many bytes a second of stdin or stdout, such as 64K or 1MB; 0 is no limit
    #[arg(short = 'L', long, value_name = "SIZE", value_parser = parse_bytes, default_value = "0")]
    rate_limit: u64,
    /// Show progress on stderr if that is a terminal
    #[arg(long)]
    pub(crate) progress: bool,
    /// Show progress also if stderr is no terminal
    #[arg(short = 'f', long)]
    pub(crate) force_progress: bool,
    /// At the end, one line of figures on stderr
    #[arg(long)]
    pub(crate) stats: bool,
    /// At the end, figures and sentences as one JSON object on stderr, in place of --stats
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

impl MannerArgs {
    /// How long nothing may move.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        (!self.timeout.is_zero()).then_some(self.timeout)
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        (self.rate_limit > 0).then_some(self.rate_limit)
    }
}

/// How to wait.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Look without pause: lowest latency, uses one CPU
    Spin,
    /// Look again and again, and let other processes run in between (sched_yield); under a real-time policy only those
    /// of its own priority
    Yield,
    /// Look for some microseconds, then sleep
    Adaptive,
    /// Sleep at once
    Block,
}

impl From<Wait> for WaitStrategy {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Spin => Self::Spin,
            Wait::Yield => Self::Yield,
            Wait::Adaptive => Self::Adaptive,
            Wait::Block => Self::Block,
        }
    }
}

/// Which guard.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Guard {
    /// That of the ring; for a new one semaphores, or pipes where those can't work
    Auto,
    /// System V semaphores
    Semaphore,
    /// FIFOs and file locks
    Pipe,
}

/// The guard of new rings that the environment names, where no option chooses it.
pub(crate) fn default_guard() -> Result<GuardChoice, Failure> {
    let said = std::env::var_os("SEMRING_GUARD").unwrap_or_default();
    match said.to_str() {
        Some("" | "auto") => Ok(GuardChoice::Auto),
        Some("semaphore") => Ok(GuardChoice::Semaphore),
        Some("pipe") => Ok(GuardChoice::Pipe),
        _ => Err(Failure::new(
            exit::USAGE,
            format!(
                "SEMRING_GUARD can't be {}: auto, semaphore or pipe",
                said.display()
            ),
        )),
    }
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

/// The long help of a program or command.
pub(crate) fn help(mut command: clap::Command) -> Result<(), Failure> {
    print_styled(&command.render_long_help())
}

fn print_styled(text: &clap::builder::StyledStr) -> Result<(), Failure> {
    if colours_wanted() {
        print(&text.ansi().to_string())
    } else {
        print(&text.to_string())
    }
}

/// The command with what follows its options, and the same for its own commands.
pub(crate) fn command<P: CommandFactory>() -> clap::Command {
    let command = P::command();
    let text = afterwords::of(command.get_name());
    command
        .mut_subcommands(|command| {
            let text = afterwords::of(&format!("semring-{}", command.get_name()));
            command.after_help(text)
        })
        .after_help(text)
}

/// Reads the command line. `Err` holds what to end with: help and version were printed by then.
pub(crate) fn parse<P: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = command::<P>();
    let invoked = invoked(&command, &arguments);
    let parsed = command
        .try_get_matches_from(arguments)
        .and_then(|matches| P::from_arg_matches(&matches));
    match parsed {
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(ended(&invoked, &error)),
    }
}

/// What the arguments call: `semring-producer`, or a command such as `semring info`.
fn invoked(command: &clap::Command, arguments: &[OsString]) -> String {
    let program = command.get_name();
    match arguments
        .get(1)
        .and_then(|word| command.find_subcommand(word))
    {
        Some(called) => format!("{program} {}", called.get_name()),
        None => program.to_owned(),
    }
}

fn ended(invoked: &str, error: &clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let printed = print_styled(&error.render());
            printed.map_or_else(|failure| failure, |()| Failure::new(exit::DONE, ""))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Failure::new(
            exit::USAGE,
            format!("missing command; see {invoked} --help"),
        ),
        kind => {
            let rendered = error.to_string();
            let (missing, _) = rendered.split_once("Usage:").unwrap_or((&rendered, ""));
            let sentence =
                if kind == ErrorKind::MissingRequiredArgument && missing.contains("<RING>") {
                    let list = match invoked {
                        "semring-producer" | "semring-consumer" | "semring create" => {
                            "any name will do, such as orders"
                        }
                        _ => "semring ls lists the rings",
                    };
                    format!("missing RING: {list}; see {invoked} --help")
                } else {
                    usage_sentence(invoked, &rendered)
                };
            Failure::new(exit::USAGE, sentence)
        }
    }
}

/// Whether stdout is a terminal with colours, and NO_COLOR does not forbid them.
fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_some_and(|term| term != "dumb")
}

/// clap's paragraphs as one sentence: the error, its tips, and where help is.
fn usage_sentence(program: &str, rendered: &str) -> String {
    let mut paragraphs = rendered.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let mut sentence = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    for tip in paragraphs.filter_map(|text| text.strip_prefix("tip: ").map(str::to_owned)) {
        sentence += &format!(" ({tip})");
    }
    sentence + &format!("; see {program} --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(arguments: &[&str]) -> Result<ProducerArgs, Failure> {
        let all = std::iter::once("semring-producer").chain(arguments.iter().copied());
        parse(all.map(OsString::from))
    }

    #[test]
    fn declarations_are_consistent() {
        command::<ProducerArgs>().debug_assert();
        command::<ConsumerArgs>().debug_assert();
    }

    #[test]
    fn wrong_use_is_one_sentence_and_2() {
        for arguments in [
            &["x", "--raw", "--lines"][..],
            &["x", "--raw", "--fixed", "3"],
            &["x", "--fixed", "0"],
            &[],
            &["x", "--capacity", "much"],
            &["x", "--mode", "999"],
            &["x", "--guard", "futex"],
            &["x", "--cap", "1"],
            &["x", "y"],
            &["x", "-q", "-v"],
        ] {
            let failure = producer(arguments).unwrap_err();
            assert_eq!(failure.code, exit::USAGE, "{arguments:?}");
            assert!(!failure.sentence.contains('\n'), "{}", failure.sentence);
            assert!(
                failure.sentence.ends_with("; see semring-producer --help"),
                "{}",
                failure.sentence
            );
        }
        let pipe = producer(&["x", "--guard", "pipe"]).unwrap();
        assert!(matches!(pipe.ring.shape.guard, Guard::Pipe));
    }

    #[test]
    fn what_is_not_said_is_left_open() {
        let args = producer(&["x"]).unwrap();
        assert_eq!(args.framing.framing(), None);
        assert!(args.ring.shape.capacity.is_none() && args.ring.shape.mode.is_none());
        assert!(args.manner.timeout().is_none() && args.manner.rate().is_none());
        let args = producer(&["-0", "-L", "1MB", "--timeout", "250ms", "x"]).unwrap();
        assert_eq!(args.framing.framing(), Some(Framing::Null));
        assert_eq!(args.manner.rate(), Some(1_000_000));
        assert_eq!(args.manner.timeout(), Some(Duration::from_millis(250)));
        let args = producer(&["--fixed", "4K", "x"]).unwrap();
        assert_eq!(args.framing.framing(), Some(Framing::Fixed(4096)));
    }
}
