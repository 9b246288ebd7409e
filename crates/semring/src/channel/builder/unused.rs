//! Opening or making a ring; and replacing one that no producer has used by one with the settings that are named.

use std::time::{Duration, Instant};

use super::Builder;
use crate::channel::kind::Kind;
use crate::channel::ring::Ring;
use crate::error::{CreateError, OpenError, OpenOrCreateError};
use crate::layout::superblock::RingKind;
use crate::lifecycle::{self, GuardChoice, Replacement, SharedRing};
use crate::memory::Access;
use crate::os::clock;

/// How long two programs with contradicting settings may replace each other's unused rings.
const REPLACING: Duration = Duration::from_secs(1);
/// How long to wait for a process that is attaching to such a ring, or removing it, before the next look.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What [`Builder::open_or_create`] does with a ring of other settings that no producer has used yet.
///
/// It concerns only a ring of the caller's that was made because it was missing ([`Builder::auto_remove`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum UnusedRing {
    /// It stays, and opening it fails with [`OpenError::Mismatch`].
    #[default]
    Keep,
    /// It is replaced by a new one, also if a consumer waits in it. For producers.
    ///
    /// That consumer gets [`RecvError::Replaced`](crate::RecvError::Replaced), and opens the ring again.
    Replace,
    /// It is replaced if no process is attached. For consumers, which do not take each other's place.
    ReplaceIdle,
}

impl<K: Kind> Builder<K> {
    /// Sets what [`open_or_create`](Self::open_or_create) does with a ring of other settings that no producer has
    /// used yet.
    ///
    /// So the programs on both sides can name settings, and start in any order. Default [`UnusedRing::Keep`]. With
    /// another value, a ring of at least the capacity and as many producers as requested is accepted, used or not;
    /// all other settings must be as named. A ring that is replaced leaves its successor all settings that are not
    /// named here.
    ///
    /// Two programs with settings that contradict each other replace each other's ring until a producer attaches; the
    /// other one then gets [`OpenError::Mismatch`], as it does after a second of that.
    ///
    /// ```
    /// use semring::{RecvError, UnusedRing, spsc};
    /// # let name = format!("doc-unused-{}", std::process::id());
    /// // A consumer comes first, and names nothing.
    /// let early = spsc::Builder::new(&name).auto_remove(true).open_or_create()?;
    /// let mut consumer = early.attach_consumer()?;
    /// // The producer needs more room than there is.
    /// let builder = spsc::Builder::new(&name).auto_remove(true).capacity(1 << 20);
    /// let ring = builder.unused_ring(UnusedRing::Replace).open_or_create()?;
    /// assert_eq!(ring.capacity_bytes(), 1 << 20);
    /// assert_eq!(consumer.recv().unwrap_err(), RecvError::Replaced);
    /// let again = spsc::Builder::new(&name).auto_remove(true).open_or_create()?;
    /// assert_eq!(again.capacity_bytes(), 1 << 20);
    /// # ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unused_ring(mut self, policy: UnusedRing) -> Self {
        self.options.unused_ring = policy;
        self
    }

    /// Opens the ring, or makes it if there is none.
    ///
    /// Any number of processes may do so at once: all get the same ring.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self) -> Result<Ring<K>, OpenOrCreateError> {
        // Bad options are bad also where the ring exists.
        self.options
            .plan::<K>()
            .map_err(OpenOrCreateError::Create)?;
        let address = self.address.clone().map_err(OpenError::from)?;
        let end = clock::now() + REPLACING;
        let mut maker = None;
        loop {
            match lifecycle::open_with(&address, Access::ReadWrite, self.options.lock_memory) {
                Ok(ring) => match self.options.compare::<K>(&address, &ring) {
                    Ok(()) => return Ok(self.ring(ring)),
                    Err(differs) => {
                        self.replace(&ring, differs, end, maker.is_none())?;
                        // What is not named here stays as it was.
                        maker = Some(self.completed_by(&ring));
                        continue;
                    }
                },
                Err(OpenError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match maker.as_ref().unwrap_or(self).create() {
                Ok(ring) => return Ok(ring),
                // Another process was faster: open its ring. (Or the object is not a ring: then
                // opening fails.)
                Err(CreateError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a ring away that differs, if it may be replaced. Where it is in use for the moment, this returns as well, until
    /// the time is over. What was taken away first is replaced however long that took: the process may have been stopped.
    fn replace(
        &self,
        ring: &SharedRing,
        differs: OpenError,
        end: Instant,
        is_first: bool,
    ) -> Result<(), OpenError> {
        let also_waited_for = match self.options.unused_ring {
            UnusedRing::Keep => return Err(differs),
            UnusedRing::Replace => true,
            UnusedRing::ReplaceIdle => false,
        };
        match lifecycle::replace_unused(ring, also_waited_for) {
            Ok(Replacement::Gone) if is_first || clock::now() < end => Ok(()),
            Ok(Replacement::Busy) if clock::now() < end => {
                clock::nap(LOOK_AGAIN);
                Ok(())
            }
            // The ring is gone, and for the time being others have replaced what this one made.
            _ => Err(differs),
        }
    }

    /// The same builder, with the settings of a ring for what it does not name.
    fn completed_by(&self, ring: &SharedRing) -> Self {
        let found = &ring.superblock;
        let mut all = Self {
            address: self.address.clone(),
            options: self.options.clone(),
            ..*self
        };
        all.options.capacity = Some(
            self.options
                .capacity
                .unwrap_or(found.geometry.capacity().get()),
        );
        if K::accepts(RingKind::Mpsc) {
            all.options.producers = Some(self.options.producers.unwrap_or(found.geometry.lanes()));
        }
        all.options.schema = self.options.schema.or(found.schema);
        all.options.when_full = Some(self.options.when_full.unwrap_or(found.when_full));
        if self.options.guard == GuardChoice::Auto {
            all.options.guard = found.guard.into();
        }
        if let Ok(ownership) = ring.object.ownership() {
            all.options.mode = Some(self.options.mode.unwrap_or(ownership.mode));
            // Where the group has no permissions it does not matter which one it is.
            let has_group = ownership.mode & 0o070 != 0;
            all.options.group = self.options.group.or(has_group.then_some(ownership.gid));
        }
        all
    }
}
