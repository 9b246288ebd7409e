//! Opening the ring and attaching, while other processes may just be removing it.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use semring::any::{Builder, Ring};
use semring::{Address, AttachError, Backend, OpenError};

use crate::args::{MannerArgs, RingArgs, ShapeArgs, Wait, default_guard};
use crate::exit::{self, Failure, attach_failure, open_failure};
use crate::report::Report;
use crate::scheduling::is_real_time;
use crate::signals::Signals;
use crate::units::count;

/// How long the process that has replaced a ring may take to make the new one.
const MADE_WITHIN: Duration = Duration::from_secs(1);

/// A builder with the options that were given; others accept any value.
pub(crate) fn builder(address: &OsStr, shape: &ShapeArgs) -> Result<Builder, Failure> {
    let mut builder = Builder::new(address);
    if let Some(capacity) = shape.capacity {
        builder = builder.capacity(capacity);
    }
    if let Some(producers) = shape.producers {
        builder = builder.producers(producers);
    }
    if let Some(mode) = shape.mode {
        builder = builder.mode(mode);
    }
    if let Some(full) = shape.full {
        builder = builder.when_full(full.into());
    }
    Ok(builder.guard(shape.guard).default_guard(default_guard()?))
}

/// Opens the ring, or makes it, and takes a role in it.
///
/// A ring that no producer has used takes the settings of the command that names them.
pub(crate) fn attach<R>(
    args: &RingArgs,
    adapt: impl FnOnce(Builder) -> Builder,
    manner: &MannerArgs,
    report: &Report,
    signals: &Signals,
    was_replaced: bool,
    take_role: impl Fn(&Ring) -> Result<R, AttachError>,
) -> Result<(Ring, R), Failure> {
    let address = Address::try_from(&*args.address)
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    if address.backend() == Backend::Anonymous {
        let why = "no other process could reach such memory";
        return Err(Failure::new(
            exit::USAGE,
            format!("{}: {why}", args.address.display()),
        ));
    }
    let builder = builder(&args.address, &args.shape)?
        .wait(args.wait.into())
        .lock_memory(args.lock_memory)
        .auto_remove(true);
    let builder = adapt(builder);
    if args.wait == Wait::Yield && is_real_time() {
        report.mention(
            "--wait yield under a real-time policy gives the CPU to no process of lower priority; \
             --wait adaptive does",
        );
    }
    let began = Instant::now();
    if was_replaced {
        await_replacement(&address, &builder, signals);
    }
    loop {
        let ring = if args.no_create || address.to_string().starts_with("fd:") {
            builder
                .open()
                .map_err(|error| differs(open_failure(&address, error)))?
        } else {
            builder.open_or_create().map_err(differs)?
        };
        // Before the role: afterwards a producer's consumer may already be reading.
        let found = found_unread(&ring);
        match take_role(&ring) {
            Ok(role) => {
                report.detail(made(&ring));
                if let Some(why) = guarded_by_pipes_because(&ring) {
                    report.detail(why);
                }
                if found > 0 {
                    let messages = count(found, "message");
                    report.mention(format_args!(
                        "found {messages} unread in {}",
                        ring.address()
                    ));
                }
                return Ok((ring, role));
            }
            // The other side was just removing or replacing it: this was the old one, the next is new. A remover
            // that is stopped keeps us here.
            Err(AttachError::Removed | AttachError::Replaced) => {
                if let Some(signal) = signals.caught() {
                    return Err(Failure::by_signal(signal));
                }
                if manner.timeout().is_some_and(|time| began.elapsed() >= time) {
                    let why = "timed out: another process is removing it and does not finish";
                    return Err(Failure::new(
                        exit::TIMED_OUT,
                        format!("{}: {why}", ring.address()),
                    ));
                }
            }
            Err(error) => return Err(attach_failure(&ring.address().to_string(), &error)),
        }
    }
}

/// Waits until the process that has replaced a ring has made the new one: made here first, it would be replaced as well.
/// If the new one has other settings than this process names, waits until that process is in it: otherwise the two
/// could replace each other's rings in turn.
fn await_replacement(address: &Address, builder: &Builder, signals: &Signals) {
    let began = Instant::now();
    let is_under_way = || match builder.open() {
        Err(OpenError::NotFound { .. }) => true,
        Err(OpenError::Mismatch { .. }) => !was_used(address),
        _ => false,
    };
    while began.elapsed() < MADE_WITHIN && is_under_way() && !signals.wait(Duration::from_millis(1))
    {
    }
}

/// Whether a producer has ever attached to the ring of this address.
fn was_used(address: &Address) -> bool {
    semring::inspect(address).is_ok_and(|info| {
        let mut lanes = info.lanes.iter();
        lanes.any(|lane| lane.attached_producers > 0)
    })
}

/// A ring that is in use has the settings of the command that made it.
fn differs(failure: impl Into<Failure>) -> Failure {
    let mut failure = failure.into();
    if failure.code == exit::USAGE && failure.sentence.contains("the ring has ") {
        failure.sentence +=
            " (semring rm), and give the option to the command that starts first, or to both";
    }
    failure
}

/// A description of the ring, and whether this process made it.
pub(crate) fn made(ring: &Ring) -> String {
    let verb = if ring.was_created() { "made" } else { "opened" };
    let size = crate::units::human_bytes(ring.capacity_bytes());
    let lanes = count(ring.lanes() as u64, "lane");
    format!("{verb} {}, {lanes} of {size}", ring.address())
}

/// The reason why a new ring has pipes, if they were not requested.
pub(crate) fn guarded_by_pipes_because(ring: &Ring) -> Option<String> {
    let why = ring.guard_fallback()?;
    Some(format!("{} is guarded by pipes: {why}", ring.address()))
}

/// Messages left over from before: of a ring that others are using just now nothing is left over.
fn found_unread(ring: &Ring) -> u64 {
    if ring.was_created() {
        return 0;
    }
    match ring.info() {
        Ok(info) if info.producers() == 0 && info.consumer_pid.is_none() => info.unread_messages(),
        _ => 0,
    }
}

/// The state of a ring after its user has detached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// It was removed.
    Removed,
    /// Another process uses it, or nothing is left in it.
    Kept,
    /// No process is attached, and this many messages are unread.
    Unread(u64),
}

/// Mentions the unread messages of a ring that stays, unless a producer is still in it.
pub(crate) fn mention_kept(ring: &Ring, unread: u64, report: &Report) {
    if ring.info().is_ok_and(|info| info.producers() > 0) {
        return;
    }
    let address = ring.address();
    let messages = count(unread, "unread message");
    let them = if unread == 1 { "it" } else { "them" };
    report.mention(format_args!(
        "kept {messages} in {address}; semring rm {address} removes {them}"
    ));
}

/// Looks at a ring that we have just left; removes it first if `remove` and it is done.
pub(crate) fn leave(ring: &Ring, remove: bool, report: &Report) -> Left {
    let mut others_care = false;
    if remove {
        match ring.remove_if_done() {
            Ok(outcome) if outcome.is_removed() => {
                report.detail(format_args!("removed {}", ring.address()));
                return Left::Removed;
            }
            Ok(_) => others_care = true,
            // Another user's ring: only that user may remove it.
            Err(error) => report.detail(error),
        }
    }
    match ring.info() {
        // It was not removed because other processes use it or are removing it. Messages that came
        // after the consumer had detached were not refused: they count.
        Ok(info) if others_care && info.unread_refused => Left::Kept,
        Ok(info) if info.consumer_pid.is_none() && info.unread_messages() > 0 => {
            // Our mapping outlives a removal.
            match semring::inspect(ring.address()) {
                Ok(now) if now.uuid == info.uuid => Left::Unread(info.unread_messages()),
                _ => Left::Removed,
            }
        }
        _ => Left::Kept,
    }
}
