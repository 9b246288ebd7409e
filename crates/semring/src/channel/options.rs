//! What a ring is to be, and how its handles behave: one set of options for every builder.

use std::time::Duration;

use super::builder::UnusedRing;
use super::kind::Kind;
use crate::error::{CreateError, OpenError};
use crate::guard::strategy::WaitStrategy;
use crate::layout::features::WhenFull;
use crate::layout::schema::Schema;
use crate::layout::{Capacity, Geometry, MAX_LANES};
use crate::lifecycle::{self, GuardChoice, Plan, SharedRing};
use crate::memory::{Address, Pages};

/// The default capacity of a lane, in bytes.
const DEFAULT_CAPACITY: u64 = 256 << 10;

/// How handles of a ring behave in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandleOptions {
    pub(crate) wait: WaitStrategy,
    pub(crate) trusts_peers: bool,
    pub(crate) asymmetric_barrier: bool,
    /// How long no producer must have been attached before the end of the stream is delivered.
    pub(crate) linger: Duration,
}

/// Pages larger than the usual 4 KiB, which speed up rings of many megabytes (fewer TLB misses).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HugePages {
    /// Transparent huge pages, where the kernel finds free ones: for memfd, System V and anonymous
    /// rings, if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows it.
    Transparent,
    /// Pages of 2 MiB out of the pool that the machine has reserved (`vm.nr_hugepages`): for memfd and
    /// anonymous rings.
    Explicit,
}

impl From<HugePages> for Pages {
    fn from(pages: HugePages) -> Self {
        match pages {
            HugePages::Transparent => Self::Transparent,
            HugePages::Explicit => Self::Reserved,
        }
    }
}

/// The options that were set. A `None` accepts any value of an existing ring.
#[derive(Clone, Debug)]
pub(crate) struct RingOptions {
    pub(crate) capacity: Option<u64>,
    pub(super) producers: Option<usize>,
    pub(crate) mode: Option<u32>,
    pub(crate) guard: GuardChoice,
    /// What is meant by no choice of a guard, in a new ring.
    pub(crate) default_guard: GuardChoice,
    pub(super) auto_remove: bool,
    pub(super) when_full: Option<WhenFull>,
    pub(super) schema: Option<Schema>,
    pub(super) unused_ring: UnusedRing,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) pages: Pages,
    pub(crate) lock_memory: bool,
    pub(crate) handles: HandleOptions,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            capacity: None,
            producers: None,
            mode: None,
            guard: GuardChoice::Auto,
            default_guard: GuardChoice::Auto,
            auto_remove: false,
            when_full: None,
            schema: None,
            unused_ring: UnusedRing::Keep,
            owner: None,
            group: None,
            pages: Pages::Ordinary,
            lock_memory: false,
            handles: HandleOptions {
                wait: WaitStrategy::default(),
                trusts_peers: false,
                asymmetric_barrier: true,
                linger: Duration::ZERO,
            },
        }
    }
}

impl RingOptions {
    /// What a new ring of this kind is to be.
    pub(super) fn plan<K: Kind>(&self) -> Result<Plan, CreateError> {
        let bad = |what, value: String, allowed| CreateError::BadOption {
            what,
            value,
            allowed,
        };
        let requested = self.capacity.unwrap_or(DEFAULT_CAPACITY);
        let capacity = Capacity::round_up(requested).ok_or_else(|| {
            bad(
                "capacity",
                format!("{requested} bytes"),
                "1 byte to 4 GiB for each lane, rounded up to a power of two of at least 4 KiB",
            )
        })?;
        let lanes = self.producers.unwrap_or(K::DEFAULT_LANES);
        let geometry = Geometry::new(lanes, capacity)
            .ok_or_else(|| bad("producers", lanes.to_string(), "1 to 240"))?;
        let mode = self.mode.unwrap_or(0o600);
        if mode & !0o777 != 0 || mode & 0o600 != 0o600 {
            return Err(bad(
                "mode",
                format!("{mode:04o}"),
                "octal permission bits such as 0600 or 0660, at least read and write for the owner",
            ));
        }
        debug_assert!(lanes <= MAX_LANES);
        Ok(Plan {
            kind: K::of_lanes(lanes),
            geometry,
            mode,
            auto_remove: self.auto_remove,
            when_full: self.when_full.unwrap_or_default(),
            schema: self.schema,
            uid: self.owner,
            gid: self.group,
            pages: self.pages,
            locked: self.lock_memory,
            guard: match self.guard {
                GuardChoice::Auto => self.default_guard,
                requested => requested,
            },
        })
    }

    /// Refuses a ring that differs from an option that was set.
    pub(super) fn compare<K: Kind>(
        &self,
        address: &Address,
        ring: &SharedRing,
    ) -> Result<(), OpenError> {
        let found = &ring.superblock;
        let differs = |what, found: String, requested: String| {
            Err(OpenError::Mismatch {
                name: address.to_string(),
                what,
                found,
                requested,
            })
        };
        if !K::accepts(found.kind) {
            return differs("kind", found.kind.to_string(), K::of_lanes(0).to_string());
        }
        if let Some(requested) = self.capacity {
            let has = found.geometry.capacity();
            let wanted = Capacity::round_up(requested).map_or(requested, Capacity::get);
            let is_enough = self.unused_ring != UnusedRing::Keep && has.get() > wanted;
            if has.get() != wanted && !is_enough {
                return differs(
                    "capacity",
                    format!("{} bytes", has.get()),
                    format!("{wanted} bytes"),
                );
            }
        }
        if let Some(requested) = self.producers
            && found.geometry.lanes() != requested
            && (self.unused_ring == UnusedRing::Keep || found.geometry.lanes() < requested)
        {
            return differs(
                "producers",
                found.geometry.lanes().to_string(),
                requested.to_string(),
            );
        }
        if let Some(requested) = self.guard.kind()
            && found.guard != requested
        {
            return differs("guard", found.guard.to_string(), requested.to_string());
        }
        if let Some(requested) = self.when_full
            && found.when_full != requested
        {
            return differs(
                "the policy when full",
                found.when_full.to_string(),
                requested.to_string(),
            );
        }
        // A ring without one may hold anything: `Ring::schema` is `None` then.
        if let (Some(requested), Some(has)) = (self.schema, found.schema)
            && has != requested
        {
            return differs("schema", has.to_string(), requested.to_string());
        }
        let ownership = || {
            let ownership = ring.object.ownership();
            ownership.map_err(|error| lifecycle::memory_error(&address.to_string(), error))
        };
        if let Some(requested) = self.mode {
            let has = ownership()?.mode;
            if has != requested {
                return differs("mode", format!("{has:04o}"), format!("{requested:04o}"));
            }
        }
        if let Some(requested) = self.owner {
            let has = ownership()?.uid;
            if has != requested {
                return differs("owner", has.to_string(), requested.to_string());
            }
        }
        if let Some(requested) = self.group {
            let has = ownership()?.gid;
            if has != requested {
                return differs("group", has.to_string(), requested.to_string());
            }
        }
        Ok(())
    }
}

/// The methods of a builder that set options, for each builder that has a method `options`.
macro_rules! ring_options {
    () => {
        /// Sets the capacity of each producer's buffer (its lane), in bytes. Default: 256 KiB.
        ///
        /// 1 byte to 4 GiB, rounded up to a power of two of at least 4 KiB. The longest message is a quarter of
        /// the capacity.
        #[must_use]
        pub fn capacity(mut self, bytes: u64) -> Self {
            self.options().capacity = Some(bytes);
            self
        }

        /// Sets the permission bits of the ring, independent of the umask. Default: 0600.
        ///
        /// They are those of its memory and of its semaphores or pipes.
        #[must_use]
        pub fn mode(mut self, mode: u32) -> Self {
            self.options().mode = Some(mode);
            self
        }

        /// Sets the owner of a new ring, by user id. Default: the caller.
        ///
        /// Only root can give a file away. The semaphores get the same owner. An existing ring must have this
        /// owner.
        ///
        /// ```no_run
        /// // A service that runs as root makes a ring for user 1000.
        /// let ring = semring::spsc::Builder::new("for-alice").owner(1000).create()?;
        /// # Ok::<(), semring::CreateError>(())
        /// ```
        #[must_use]
        pub fn owner(mut self, uid: u32) -> Self {
            self.options().owner = Some(uid);
            self
        }

        /// Sets the group of a new ring, by group id. With mode 0660 every member of the group can use the ring.
        ///
        /// Default: the caller's group, or that of the folder if its set-group-id bit is set. An existing ring
        /// must have this group.
        #[must_use]
        pub fn group(mut self, gid: u32) -> Self {
            self.options().group = Some(gid);
            self
        }

        /// Requests huge pages for a new ring, which speed up rings of many megabytes.
        ///
        /// If there are none, making it fails with [`CreateError::MemoryLimit`](crate::CreateError::MemoryLimit).
        ///
        /// ```
        /// use semring::{CreateError, HugePages, spsc};
        /// match spsc::Builder::memfd().huge_pages(HugePages::Explicit).create() {
        ///     Ok(ring) => drop(ring),
        ///     // "the ring needs 1 reserved huge pages of 2 MiB, and 0 are free: …"
        ///     Err(CreateError::MemoryLimit { limit, .. }) => println!("{limit}"),
        ///     Err(error) => return Err(error),
        /// }
        /// # Ok::<(), CreateError>(())
        /// ```
        #[must_use]
        pub fn huge_pages(mut self, pages: $crate::channel::HugePages) -> Self {
            self.options().pages = pages.into();
            self
        }

        /// Keeps the whole ring in memory, never in swap, for as long as this process has it open. Default: no.
        ///
        /// The call is `mlock(2)`; RLIMIT_MEMLOCK bounds what a process locks.
        #[must_use]
        pub fn lock_memory(mut self, locked: bool) -> Self {
            self.options().lock_memory = locked;
            self
        }

        /// Sets how deaths are detected and sleepers woken: by semaphores (the default, where they work) or by
        /// pipes.
        ///
        /// A new ring has this guard for its whole life; an existing ring must have it. Default
        /// [`GuardChoice::Auto`](crate::GuardChoice::Auto): semaphores, or pipes where semaphores can't work
        /// ([`Ring::guard_fallback`](crate::Ring::guard_fallback) then gives the reason); an existing ring may
        /// have either.
        ///
        /// ```
        /// use semring::{GuardChoice, GuardKind, spsc};
        ///
        /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
        /// assert_eq!(ring.info()?.guard, GuardKind::Pipe);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use]
        pub fn guard(mut self, guard: impl Into<$crate::lifecycle::GuardChoice>) -> Self {
            self.options().guard = guard.into();
            self
        }

        /// Sets what [`GuardChoice::Auto`](crate::GuardChoice::Auto) means for a new ring: semaphores or pipes.
        ///
        /// For programs that let their environment or their settings choose. An existing ring may have either all
        /// the same.
        ///
        /// ```
        /// use semring::{GuardChoice, GuardKind, spsc};
        ///
        /// let setting = GuardChoice::Pipe; // read from a file, or the environment
        /// let ring = spsc::Builder::memfd().default_guard(setting).create()?;
        /// assert_eq!(ring.info()?.guard, GuardKind::Pipe);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[must_use]
        pub fn default_guard(mut self, guard: impl Into<$crate::lifecycle::GuardChoice>) -> Self {
            self.options().default_guard = guard.into();
            self
        }

        /// Sets how blocking calls of this process wait: sleep, poll, or poll for a moment and then sleep (the
        /// default).
        ///
        /// Not a property of the ring: each side chooses for itself.
        #[must_use]
        pub fn wait(mut self, strategy: $crate::guard::strategy::WaitStrategy) -> Self {
            self.options().handles.wait = strategy;
            self
        }

        /// Makes sending many messages cheaper, and a consumer's sleep dearer. Default: yes.
        ///
        /// Producers omit the memory fence after each message. The consumer then makes the kernel run a barrier on
        /// every CPU (`membarrier(2)`, 2 to 7 µs) before it sleeps. If the kernel refuses, or either side has
        /// switched this off, each message costs the producer a full fence. Switch it off to compare, or for a
        /// consumer that sleeps often while several producers are busy.
        #[must_use]
        pub fn asymmetric_barrier(mut self, wanted: bool) -> Self {
            self.options().handles.asymmetric_barrier = wanted;
            self
        }
    };
}

pub(crate) use ring_options;
