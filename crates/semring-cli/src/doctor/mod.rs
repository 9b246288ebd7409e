//! `semring doctor`: whether rings can be made and used here, what prevents it, and what helps.
//!
//! `limits` checks numbers of the kernel, `surroundings` everything else. The trial decides: the other
//! checks explain its result, or warn of later problems.

mod limits;
mod surroundings;

use std::fmt::Write;

use semring::{Backend, OrphanKind, RingState};
use serde::Serialize;

use crate::exit::{self, Failure};
use crate::text::print;
use crate::units::count;

/// The meaning of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Rings work, but something will be in the way sooner or later.
    Warning,
    /// Rings of the default size can't be made or used.
    Problem,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    finding: String,
    fix: Option<String>,
}

impl Check {
    fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Ok,
            finding: finding.into(),
            fix: None,
        }
    }

    fn not_ok(
        check: &'static str,
        state: State,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state,
            finding: finding.into(),
            fix: Some(fix.into()),
        }
    }
}

/// The default number of lanes.
const DEFAULT_LANES: u64 = 8;
/// Bytes of such a ring: two pages, and for each lane two pages and 256 KiB.
const DEFAULT_RING_BYTES: u64 = 0x2000 + DEFAULT_LANES * (0x2000 + (256 << 10));

/// Looks at everything; 1 if there is a problem.
pub(crate) fn run(json: bool) -> Result<u8, Failure> {
    let checks = [
        limits::kernel(),
        limits::semaphores(),
        limits::segments(),
        surroundings::dev_shm(),
        limits::locked_memory(),
        surroundings::namespaces(),
        surroundings::remove_ipc(),
        surroundings::filter(),
        membarrier(),
        elsewhere(),
        orphans(),
        trial(Backend::Posix),
        trial(Backend::Sysv),
    ];
    let text = if json {
        checks.iter().map(as_json).collect()
    } else {
        for_people(&checks)
    };
    print(&text)?;
    let problem = checks.iter().any(|check| check.state == State::Problem);
    Ok(if problem { exit::FAILED } else { exit::DONE })
}

fn as_json(check: &Check) -> String {
    serde_json::to_string(check).expect("strings only") + "\n"
}

/// Columns of a terminal that is not wide.
const WIDTH: usize = 80;
/// Where findings begin.
const INDENT: usize = 25;

fn for_people(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let head = format!("{:<8} {:<15} ", check.state.word(), check.check);
        for (number, line) in wrapped(&check.finding).iter().enumerate() {
            let head = if number == 0 { head.as_str() } else { "" };
            let _ = writeln!(text, "{head:<INDENT$}{line}");
        }
        if let Some(fix) = &check.fix {
            for (number, line) in wrapped(fix).iter().enumerate() {
                let head = if number == 0 { "fix:" } else { "" };
                let _ = writeln!(text, "{head:>24} {line}");
            }
        }
    }
    let with = |state| checks.iter().filter(|check| check.state == state).count() as u64;
    let _ = match (with(State::Problem), with(State::Warning)) {
        (0, 0) => writeln!(text, "\nAll is well."),
        (0, warnings) => writeln!(text, "\nRings work; {}.", count(warnings, "warning")),
        (problems, warnings) => writeln!(
            text,
            "\n{}, {}.",
            count(problems, "problem"),
            count(warnings, "warning")
        ),
    };
    text
}

/// Lines that fit beside the heads; a longer word has a line of its own.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH - INDENT {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn membarrier() -> Check {
    const NAME: &str = "membarrier";
    if semring::has_membarrier() {
        Check::ok(
            NAME,
            "permitted: streams run without a fence for each message",
        )
    } else {
        Check::not_ok(
            NAME,
            State::Warning,
            "refused by the kernel or a filter: every message costs a fence, up to half the rate",
            "permit membarrier(2) in the seccomp profile of the container",
        )
    }
}

/// Rings whose semaphores are not in this namespace, or whose pipes not in this /dev/shm.
fn elsewhere() -> Check {
    const NAME: &str = "rings";
    let rings = semring::list();
    let lost: Vec<String> = rings
        .iter()
        .filter(|ring| ring.state == RingState::GuardMissing)
        .map(|ring| ring.address.to_string())
        .collect();
    let all = count(rings.len() as u64, "ring");
    if lost.is_empty() {
        return Check::ok(NAME, format!("{all} that you may look at"));
    }
    Check::not_ok(
        NAME,
        State::Warning,
        format!("{all}; no semaphores or pipes here for {}", lost.join(", ")),
        "share the IPC namespace and /dev/shm with the programs that use them (docker run --ipc=…); if there \
         are none: semring rm --force RING",
    )
}

fn orphans() -> Check {
    const NAME: &str = "leftovers";
    let mut found = semring::orphans();
    // Objects that are not semring's stay in any case.
    found.retain(|orphan| orphan.kind() != OrphanKind::Foreign);
    if found.is_empty() {
        return Check::ok(NAME, "none");
    }
    let of = |kind| found.iter().filter(|orphan| orphan.kind() == kind).count() as u64;
    let kinds = [
        (OrphanKind::Ring, "abandoned ring"),
        (OrphanKind::GuardMissing, "ring without its guard"),
        (OrphanKind::Unfinished, "unfinished ring"),
        (OrphanKind::Semaphores, "semaphore set"),
        (OrphanKind::Pipes, "directory of pipes"),
    ];
    let counts: Vec<String> = kinds
        .into_iter()
        .filter(|&(kind, _)| of(kind) > 0)
        .map(|(kind, noun)| count_of(of(kind), noun))
        .collect();
    let unread = found.iter().any(semring::Orphan::is_unread);
    let fix = if unread {
        "semring prune --dry-run shows them, semring prune removes them; --discard-unread also those in \
         which messages are unread"
    } else {
        "semring prune --dry-run shows them, semring prune removes them"
    };
    Check::not_ok(NAME, State::Warning, counts.join(", "), fix)
}

/// `1 ring without its guard`, `2 rings without their guard`.
fn count_of(number: u64, noun: &str) -> String {
    match noun.split_once(' ') {
        Some(("ring", _)) if number != 1 => {
            format!("{} without their guard", count(number, "ring"))
        }
        Some(("ring", rest)) => format!("{} {rest}", count(number, "ring")),
        Some(("directory", rest)) if number != 1 => format!("{number} directories {rest}"),
        _ => count(number, noun),
    }
}

/// Makes a small ring, uses it, removes it.
fn trial(backend: Backend) -> Check {
    let name = match backend {
        Backend::Sysv => "trial sysv:",
        _ => "trial posix:",
    };
    match try_out(&format!("{backend}:semring-doctor-{}", std::process::id())) {
        Ok(None) => Check::ok(name, "a ring was made, used and removed"),
        Ok(Some(why)) => Check::ok(
            name,
            format!(
                "a ring was made with pipes, used and removed; without semaphores, because: {why}"
            ),
        ),
        Err(sentence) => Check::not_ok(
            name,
            State::Problem,
            sentence,
            "see the lines above; docs/operations.md explains them",
        ),
    }
}

/// Gives why it has no semaphores, if that was not wished.
fn try_out(address: &str) -> Result<Option<String>, String> {
    let builder = semring::spsc::Builder::new(address).capacity(4096);
    // Killed in between, it is a leftover and can be pruned.
    let ring = builder
        .auto_remove(true)
        .create()
        .map_err(|error| error.to_string())?;
    let used = (|| {
        let mut consumer = ring.attach_consumer().map_err(|error| error.to_string())?;
        let mut producer = ring.attach_producer().map_err(|error| error.to_string())?;
        producer.send(b"ping").map_err(|error| error.to_string())?;
        drop(producer);
        let message = consumer.recv().map_err(|error| error.to_string())?;
        if message.to_vec() == b"ping" {
            Ok(())
        } else {
            Err("a message came out as another one".to_owned())
        }
    })();
    let fallback = ring.guard_fallback().map(str::to_owned);
    used.and(ring.remove().map_err(|error| error.to_string()))
        .map(|()| fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_wrapped_beside_their_heads() {
        let fix = "word ".repeat(30);
        let check = Check::not_ok("name", State::Warning, "short", fix.trim_end());
        let text = for_people(&[check]);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
        assert!(
            text.starts_with("warning  name            short\n"),
            "{text}"
        );
        assert!(
            text.lines()
                .nth(1)
                .is_some_and(|line| line.contains("fix: word word"))
        );
        assert!(text.ends_with("\nRings work; 1 warning.\n"));
        assert_eq!(wrapped(&"x".repeat(100)).len(), 1);
    }

    #[test]
    fn default_ring_has_the_assumed_size() {
        let name = format!("cli-doctor-{}", std::process::id());
        let ring = semring::mpsc::Builder::new(&name).create().unwrap();
        let info = ring.info();
        ring.remove().unwrap();
        let info = info.unwrap();
        assert_eq!(info.segment_bytes, DEFAULT_RING_BYTES);
        assert_eq!(info.lanes.len() as u64, DEFAULT_LANES);
    }
}
