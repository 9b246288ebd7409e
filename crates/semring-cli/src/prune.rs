//! `semring prune`: removes objects that killed programs left behind, with a line for each.

use semring::{GuardKind, Orphan, OrphanKind, PruneOutcome, Unread};

use crate::exit::{self, Failure};
use crate::report;
use crate::text::print;
use crate::units::count;

/// Removes orphans, or prints what would be removed.
pub(crate) fn run(dry_run: bool, discard_unread: bool) -> Result<u8, Failure> {
    let found = semring::orphans();
    let outcomes = if dry_run {
        let forecast = |orphan| Ok(forecast(orphan, discard_unread));
        found.iter().map(forecast).collect()
    } else {
        let unread = if discard_unread {
            Unread::Discard
        } else {
            Unread::Keep
        };
        Orphan::remove_all(&found, unread)
    };
    let mut failed = None;
    for (orphan, outcome) in found.iter().zip(outcomes) {
        match outcome {
            // Not ours, so not undone work either: it is named, and nothing failed.
            Ok(PruneOutcome::Foreign) => report::say("semring", stays(orphan)),
            Ok(pruned) => print(&line(orphan, pruned, dry_run))?,
            // The others can still go.
            Err(error) => {
                let failure = Failure::from(error);
                report::say("semring", &failure);
                failed.get_or_insert(failure.code);
            }
        }
    }
    Ok(failed.unwrap_or(exit::DONE))
}

fn forecast(orphan: &Orphan, discard_unread: bool) -> PruneOutcome {
    if orphan.kind() == OrphanKind::Foreign {
        PruneOutcome::Foreign
    } else if orphan.is_unread() && !discard_unread {
        PruneOutcome::Unread {
            messages: orphan.unread_messages(),
        }
    } else {
        PruneOutcome::Removed
    }
}

fn stays(orphan: &Orphan) -> String {
    let why = orphan.why_it_stays().unwrap_or("it changed meanwhile");
    format!("left {} alone: {why}", orphan.name())
}

/// Why it is a leftover.
pub(crate) fn reason(orphan: &Orphan) -> &'static str {
    match orphan.kind() {
        OrphanKind::Ring => "no process is attached",
        OrphanKind::GuardMissing if orphan.lost_guard() == Some(GuardKind::Pipe) => {
            "its pipes are gone"
        }
        OrphanKind::GuardMissing => "its semaphores are gone",
        OrphanKind::Unfinished => "its creator died before it was ready",
        OrphanKind::Semaphores | OrphanKind::Pipes => "no ring goes with them",
        _ => "left behind",
    }
}

/// The text about its unread messages; `None` if there are none.
fn unread(orphan: &Orphan) -> Option<String> {
    orphan.is_unread().then(|| {
        let damaged = orphan.unread_messages() == 0;
        if damaged {
            "damaged bytes".to_owned()
        } else {
            count(orphan.unread_messages(), "unread message")
        }
    })
}

fn line(orphan: &Orphan, pruned: PruneOutcome, dry_run: bool) -> String {
    let (name, reason) = (orphan.name(), reason(orphan));
    match pruned {
        PruneOutcome::Removed => {
            let verb = if dry_run { "would remove" } else { "removed" };
            let lost = unread(orphan).map_or_else(String::new, |what| format!(", with {what}"));
            format!("{verb} {name}: {reason}{lost}\n")
        }
        PruneOutcome::Unread { messages } => {
            let verb = if dry_run { "would keep" } else { "kept" };
            let what = if messages == 0 {
                "damaged bytes".to_owned()
            } else {
                count(messages, "unread message")
            };
            format!("{verb} {name}: {what} (--discard-unread removes it)\n")
        }
        _ => format!("kept {name}: in use again\n"),
    }
}
