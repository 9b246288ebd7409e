//! The spin before a wait: it finds a message that comes soon with the fast path alone.

use super::backoff::Backoff;
use crate::channel::parking::Parking;
use crate::ring::consume::Found;
use crate::ring::merge::Merge;
use crate::sync::spin_hint;

/// How often a consumer of one lane looks for the next header before it looks at everything: for a microsecond or
/// less.
const LOOKS: u32 = 32;

/// The next message of the only lane, if it comes within a moment.
pub(super) fn spin(merge: &Merge, parking: &mut Parking, backoff: &mut Backoff) -> Option<Found> {
    let [lane] = merge.lanes() else {
        return None;
    };
    if !parking.spins() {
        return None;
    }
    let records_are_long = lane.mean_record_is_longer_than_a_line();
    for _ in 0..backoff.pauses(lane.taken_messages()) {
        spin_hint();
    }
    for looks in 0..LOOKS {
        if let Some(next) = merge.load_header() {
            parking.spun_well();
            backoff.found(looks);
            return Some(next);
        }
        // Something else than a message, such as an array: the caller looks at everything before it sleeps.
        if lane.is_ready() {
            parking.spun_well();
            backoff.found(looks);
            return None;
        }
        if records_are_long {
            lane.prefetch_second_line();
        }
        spin_hint();
    }
    backoff.found(LOOKS);
    None
}
