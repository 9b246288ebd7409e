//! Making, opening, attaching, detaching and removing, one transition a file. Each file lists the
//! points at which a process may die and what its successor then finds.

mod attach;
mod create;
mod damaged;
mod force;
mod guards;
mod holder;
#[cfg(all(test, not(semring_loom)))]
mod holder_model_tests;
mod identity;
mod inspect;
mod key_lock;
mod limits;
mod open;
mod orphans;
pub(crate) mod pairs;
mod pass;
mod remove;
mod renew;
mod replace;
#[cfg(all(test, not(semring_loom)))]
mod replace_model_tests;
mod truncated;
mod under_key;
mod unwinding;

use std::sync::Arc;

pub(crate) use attach::{
    ConsumerFate, ConsumerRole, ProducerRole, StreamEnd, generation_at, record_count,
};
pub(crate) use create::create;
pub use force::RemoveOutcome;
pub(crate) use force::force_remove;
pub use guards::GuardChoice;
pub use inspect::{LaneInfo, RingInfo, RingState, has_membarrier};
pub(crate) use inspect::{inspect, list, observe, reset_counts, uuid_text};
use open::open_received;
pub(crate) use open::{memory_error, open, open_with};
pub use orphans::{Orphan, OrphanKind, PruneOutcome, Unread, orphans};
pub(crate) use pass::{descriptor, inheritable, receive, send};
pub(crate) use remove::{
    consumer_left_on_purpose, has_unread, remove_idle, remove_open, remove_unless_used,
};
pub(crate) use replace::{Replacement, is_replaced, replace_unused};
pub(crate) use unwinding::UnwindMark;

use crate::error::AttachError;
use crate::guard::semaphore::SemaphoreGuard;
use crate::guard::{Guard, GuardError};
use crate::layout::features::WhenFull;
use crate::layout::schema::Schema;
use crate::layout::superblock::Superblock;
use crate::layout::view::RingView;
use crate::memory::{Address, Object, Pages};

/// A ring that this process has open: the state shared by all its handles.
pub(crate) struct RingCore {
    pub(crate) address: Address,
    pub(crate) superblock: Superblock,
    pub(crate) view: RingView,
    pub(crate) guard: Box<dyn Guard>,
    /// For removing the name.
    pub(crate) object: Object,
    /// True if this process made the ring just now.
    pub(crate) created: bool,
    /// Why it was made with pipes although semaphores would have been better, if so.
    pub(crate) fallback: Option<String>,
}

impl RingCore {
    /// True in a child forked since: it must open the ring itself.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.view.segment().is_forked()
    }

    /// True while the pages are those of the ring: not in a forked child, and not after a truncation.
    #[inline(always)]
    pub(crate) fn is_intact(&self) -> bool {
        self.view.segment().is_intact()
    }

    /// To be called before using any result that may come from [truncated](self::truncated) pages: that there
    /// is no message, that no process is attached, that bytes are impossible.
    pub(crate) fn check(&self) -> Result<(), GuardError> {
        if self.view.segment().is_truncated() {
            truncated::tell(self);
            return Err(GuardError::Removed);
        }
        Ok(())
    }

    pub(crate) fn lanes(&self) -> usize {
        self.superblock.geometry.lanes()
    }
}

/// The ring for the present process: itself, or in a forked child, which has none of the parent's
/// roles, a new handle to memory that has no name. A child opens named memory by its name.
pub(crate) fn adopt(ring: &SharedRing) -> Result<SharedRing, AttachError> {
    if !ring.is_forked() {
        return Ok(ring.clone());
    }
    let adopted = ring.object.adopt(ring.view.segment());
    // Missing memory was removed, or the process has closed its descriptor.
    let Some((object, segment)) = adopted.map_err(|_| AttachError::Removed)? else {
        return Err(AttachError::Forked);
    };
    let superblock = &ring.superblock;
    let mut guard = match ring.guard.reopen() {
        Some(guard) => guard,
        None => Box::new(
            SemaphoreGuard::open(&superblock.set, ring.lanes())
                .map_err(|_| AttachError::Removed)?,
        ),
    };
    if object.goes_with_its_users() {
        guard.hold().map_err(|error| match error {
            GuardError::Removed => AttachError::Removed,
            GuardError::Os { call, errno } => AttachError::Os { call, errno },
        })?;
    }
    let view = RingView::new(Arc::new(segment), superblock.geometry).ok_or(AttachError::Removed)?;
    Ok(Arc::new(RingCore {
        address: ring.address.clone(),
        superblock: superblock.clone(),
        view,
        guard,
        object,
        created: false,
        fallback: None,
    }))
}

/// The properties of a new ring.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: crate::layout::superblock::RingKind,
    pub(crate) geometry: crate::layout::Geometry,
    /// Permission bits of segment and guard, independent of the umask.
    pub(crate) mode: u32,
    /// Auto-removed: made because it was missing.
    pub(crate) auto_remove: bool,
    pub(crate) when_full: WhenFull,
    pub(crate) schema: Option<Schema>,
    /// The owner, if not the caller.
    pub(crate) uid: Option<u32>,
    /// The group, if not the usual one.
    pub(crate) gid: Option<u32>,
    pub(crate) pages: Pages,
    /// Every page must stay in memory while this process has the ring open.
    pub(crate) locked: bool,
    pub(crate) guard: GuardChoice,
}

pub(crate) type SharedRing = Arc<RingCore>;
