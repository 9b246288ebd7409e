//! Both rings of a pair as one orphan.

use super::super::inspect::uuid_digits;
use super::super::pairs::{down_of, first_of, pair_of_up, superblock_at};
use super::super::remove::take_away_or_leave;
use super::ring::{Begun, begin, end};
use super::{Orphan, PruneOutcome, Unread, What};
use crate::error::RemoveError;
use crate::memory::Address;

/// Combines the rings of pairs. A second ring whose first one is there, and stays, is not an orphan: without it
/// the pair could not be used any more, nor made again.
pub(super) fn together(found: Vec<Orphan>) -> Vec<Orphan> {
    let (mut seconds, mut others): (Vec<Orphan>, Vec<Orphan>) =
        found.into_iter().partition(|orphan| {
            orphan
                .ring()
                .is_some_and(|(down, _)| first_of(down).is_some())
        });
    for orphan in &mut others {
        let Some((up, uuid)) = orphan.ring().map(|(up, uuid)| (up.clone(), *uuid)) else {
            continue;
        };
        let Some(down) = down_of(&up, &uuid_digits(&uuid)) else {
            continue;
        };
        let is_second = |second: &Orphan| second.ring().is_some_and(|(other, _)| *other == down);
        if let Some(at) = seconds.iter().position(is_second) {
            let second = seconds.swap_remove(at);
            orphan.name = pair_of_up(&up).map_or_else(String::new, |pair| pair.to_string());
            orphan.unread_messages += second.unread_messages;
            orphan.unread |= second.unread;
            orphan.what = What::Pair { up, uuid, down };
        }
    }
    // A first ring whose second one is in use, or can't be inspected, stays as well.
    others.retain(|orphan| {
        let second = orphan
            .ring()
            .and_then(|(up, uuid)| down_of(up, &uuid_digits(uuid)));
        second.is_none_or(|down| superblock_at(&down).is_none())
    });
    others
}

impl Orphan {
    fn ring(&self) -> Option<(&Address, &[u8; 16])> {
        match &self.what {
            What::Ring { address, uuid } => Some((address, uuid)),
            _ => None,
        }
    }
}

/// Removes both, once no process can attach to either. If this process is killed between the two, the second ring
/// belongs to no first one any more.
pub(super) fn remove(
    up: &Address,
    uuid: &[u8; 16],
    down: &Address,
    policy: Unread,
) -> Result<PruneOutcome, RemoveError> {
    let first = match begin(up, uuid, policy)? {
        Begun::Yes(ring) => ring,
        Begun::No(outcome) => return Ok(outcome),
    };
    let second = superblock_at(down).map(|found| found.uuid);
    let second = match second.map(|uuid| begin(down, &uuid, policy)) {
        Some(Ok(Begun::Yes(ring))) => Some(ring),
        None | Some(Ok(Begun::No(PruneOutcome::Removed))) => None,
        Some(Ok(Begun::No(outcome))) => {
            end(&first)?;
            return Ok(outcome);
        }
        Some(Err(error)) => {
            end(&first)?;
            return Err(error);
        }
    };
    let mut removed = take_away_or_leave(&first);
    if let Some(second) = second {
        removed = match removed {
            Ok(()) => take_away_or_leave(&second),
            Err(error) => end(&second).and(Err(error)),
        };
    }
    removed.map(|()| PruneOutcome::Removed)
}
