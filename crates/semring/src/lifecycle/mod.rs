//! Who is attached: making, opening, attaching, detaching and removing, one transition a file, each
//! with the windows in which a process may die and what the next one then finds.

mod attach;
mod create;
mod inspect;
mod leftovers;
mod open;
mod remove;

use std::sync::Arc;

pub(crate) use attach::{ConsumerFate, ConsumerSeat, ProducerSeat, generation_at, note_count};
pub(crate) use create::create;
pub use inspect::{LaneInfo, RingInfo, RingState, has_membarrier};
pub(crate) use inspect::{inspect, list, observe};
pub use leftovers::{Leftover, LeftoverKind, Pruned, leftovers};
pub(crate) use open::{memory_error, open};
pub(crate) use remove::{Removal, consumer_left_on_purpose, has_unread, remove_idle, remove_now};

use crate::guard::Guard;
use crate::layout::superblock::Superblock;
use crate::layout::view::RingView;
use crate::memory::{Address, Object};

/// A ring that this process has open: everything that its handles share.
pub(crate) struct RingCore {
    pub(crate) address: Address,
    pub(crate) superblock: Superblock,
    pub(crate) view: RingView,
    pub(crate) guard: Box<dyn Guard>,
    /// For taking the name away.
    pub(crate) object: Object,
    /// True if this process made the ring just now.
    pub(crate) created: bool,
}

impl RingCore {
    /// True in a child forked since: it must open the ring itself.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.view.segment().is_forked()
    }

    pub(crate) fn lanes(&self) -> usize {
        self.superblock.geometry.lanes()
    }
}

/// What a new ring is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: crate::layout::superblock::RingKind,
    pub(crate) geometry: crate::layout::Geometry,
    /// Permission bits of segment and semaphores, umask or not.
    pub(crate) mode: u32,
    /// Made because it was missing, not because somebody asked for it.
    pub(crate) implicit: bool,
}

pub(crate) type SharedRing = Arc<RingCore>;
