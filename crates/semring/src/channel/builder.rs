//! The builder: options of a ring, and making or opening it.

mod unused;

use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use self::unused::UnusedRing;
use super::kind::{Any, Kind, Mpsc, Spsc};
use super::ring::Ring;
use crate::error::{CreateError, OpenError};
use crate::guard::strategy::WaitStrategy;
use crate::layout::features::WhenFull;
use crate::layout::{Capacity, Geometry, MAX_LANES};
use crate::lifecycle::{self, GuardChoice, Plan, SharedRing};
use crate::memory::address::AddressError;
use crate::memory::{Access, Address, Pages};

/// The default capacity of a lane, in bytes.
const DEFAULT_CAPACITY: u64 = 256 << 10;

/// How handles of a ring behave in this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandleOptions {
    pub(super) wait: WaitStrategy,
    pub(super) trusts_peers: bool,
    pub(super) asymmetric_barrier: bool,
    /// How long no producer must have been attached before the end of the stream is delivered.
    pub(super) linger: Duration,
}

/// Options of a ring, with which it is made or opened.
///
/// An option that is set must hold for an existing ring, too, or opening it fails; options that are
/// not set accept any value.
///
/// ```
/// # let name = format!("doc-builder-{}", std::process::id());
/// let ring = semring::mpsc::Builder::new(&name)
///     .capacity(1 << 20) // bytes for each producer
///     .producers(16)
///     .mode(0o660)
///     .create()?;
/// assert_eq!(ring.lanes(), 16);
/// ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder<K> {
    address: Result<Address, AddressError>,
    capacity: Option<u64>,
    producers: Option<usize>,
    mode: Option<u32>,
    guard: GuardChoice,
    auto_remove: bool,
    when_full: Option<WhenFull>,
    unused_ring: UnusedRing,
    owner: Option<u32>,
    group: Option<u32>,
    pages: Pages,
    lock_memory: bool,
    options: HandleOptions,
    kind: PhantomData<K>,
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

impl<K: Kind> Builder<K> {
    /// Options for the ring at this address: text, an [`OsStr`](std::ffi::OsStr), or an [`Address`]. A bad address is
    /// reported when it is used.
    ///
    /// ```
    /// use semring::{Address, mpsc};
    /// use std::ffi::OsStr;
    /// let by_text = mpsc::Builder::new("orders");
    /// let by_path = mpsc::Builder::new(OsStr::new("file:/var/lib/orders.ring"));
    /// let address: Address = "sysv:orders".parse()?;
    /// let by_address = mpsc::Builder::new(&address);
    /// # let _ = (by_text, by_path, by_address);
    /// # Ok::<(), semring::AddressError>(())
    /// ```
    #[must_use]
    pub fn new(address: impl TryInto<Address, Error: Into<AddressError>>) -> Self {
        Self {
            address: Address::of(address),
            capacity: None,
            producers: None,
            mode: None,
            guard: GuardChoice::Auto,
            auto_remove: false,
            when_full: None,
            unused_ring: UnusedRing::Keep,
            owner: None,
            group: None,
            pages: Pages::Ordinary,
            lock_memory: false,
            options: HandleOptions {
                wait: WaitStrategy::default(),
                trusts_peers: false,
                asymmetric_barrier: true,
                linger: Duration::ZERO,
            },
            kind: PhantomData,
        }
    }

    /// The address, or why it is not valid.
    pub(crate) fn address(&self) -> &Result<Address, AddressError> {
        &self.address
    }

    /// Options for a new ring in memory without a name (`memfd:`), which exists as long as a process
    /// has it open. Other processes get a descriptor of it: see [`Ring::inheritable`],
    /// [`Ring::send_over`].
    ///
    /// Its size is sealed, so no process can truncate it.
    ///
    /// ```
    /// use semring::spsc::Builder;
    /// use std::os::fd::AsRawFd;
    ///
    /// let ring = Builder::memfd().capacity(1 << 20).create()?;
    /// let descriptor = ring.inheritable()?;
    /// // In a program that was started with the descriptor:
    /// let same = Builder::new(format!("fd:{}", descriptor.as_raw_fd())).open()?;
    /// assert_eq!(same.capacity_bytes(), 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn memfd() -> Self {
        Self::new("memfd:")
    }

    /// Options for a new ring in memory that this process shares only with the children that it forks
    /// later (`anonymous:`).
    ///
    /// A child attaches through the [`Ring`] that it inherited; it does not inherit the parent's roles.
    /// The ring ends with the last process that has opened it or attached, so the parent keeps its `Ring`
    /// until the children have attached.
    ///
    /// ```
    /// let ring = semring::spsc::Builder::anonymous().create()?;
    /// let mut consumer = ring.attach_consumer()?;
    /// // In a forked child: ring.attach_producer()?.send(b"from the child")?;
    /// ring.attach_producer()?.send(b"from the parent")?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"from the parent");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("anonymous:")
    }

    /// Capacity of each lane in bytes: 1 byte to 4 GiB, rounded up to a power of two of at least 4
    /// KiB. Default 256 KiB. The longest message is a quarter of the capacity.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Permission bits of segment and guard, independent of the umask. Default 0600.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// User id of a new ring's owner; the default is the caller. Only root can give a file away. The
    /// semaphores get the same owner. An existing ring must have this owner.
    ///
    /// ```no_run
    /// // A service that runs as root makes a ring for user 1000.
    /// let ring = semring::spsc::Builder::new("for-alice").owner(1000).create()?;
    /// # Ok::<(), semring::CreateError>(())
    /// ```
    #[must_use]
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Group id of a new ring. Default: the caller's group, or that of the folder if its set-group-id
    /// bit is set. With mode 0660 every member of the group can use the ring. An existing ring must have
    /// this group.
    #[must_use]
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Requests huge pages for a new ring. If there are none, [`create`](Self::create) returns an error.
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
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.pages = match pages {
            HugePages::Transparent => Pages::Transparent,
            HugePages::Explicit => Pages::Reserved,
        };
        self
    }

    /// Keeps the whole ring in memory, never in swap, for as long as this process has it open
    /// (`mlock(2)`). RLIMIT_MEMLOCK bounds what a process locks. Default: not.
    #[must_use]
    pub fn lock_memory(mut self, locked: bool) -> Self {
        self.lock_memory = locked;
        self
    }

    /// The guard of a new ring, for its whole life; an existing ring must have this guard. Default
    /// [`GuardChoice::Auto`]: semaphores, or pipes where semaphores can't work ([`Ring::guard_fallback`]
    /// then gives the reason); an existing ring may have either.
    ///
    /// ```
    /// use semring::{GuardChoice, GuardKind, spsc};
    ///
    /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
    /// assert_eq!(ring.info()?.guard, GuardKind::Pipe);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn guard(mut self, guard: impl Into<GuardChoice>) -> Self {
        self.guard = guard.into();
        self
    }

    /// How the handles of this process wait. Not a property of the ring.
    #[must_use]
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.options.wait = strategy;
        self
    }

    /// Whether producers of this process may omit the memory fence after each message while they send
    /// many. The consumer then makes the kernel run a barrier on every CPU (`membarrier(2)`, 2 to 7 µs)
    /// before it sleeps. If the kernel refuses, or either side has switched this off, each message costs
    /// the producer a full fence. Default: yes. Switch it off to compare, or for a consumer that sleeps
    /// often while several producers are busy.
    #[must_use]
    pub fn asymmetric_barrier(mut self, wanted: bool) -> Self {
        self.options.asymmetric_barrier = wanted;
        self
    }

    /// Marks a new ring as auto-removed: tools remove it when its stream has ended. Default: no.
    #[must_use]
    pub fn auto_remove(mut self, auto_remove: bool) -> Self {
        self.auto_remove = auto_remove;
        self
    }

    /// What a producer of a new ring does when its lane is full, for as long as the ring lives. Default
    /// [`WhenFull::Wait`]. An existing ring must have the requested policy.
    ///
    /// | | `Wait` | `Fail` | `Drop` |
    /// |---|---|---|---|
    /// | `send`, `push`, `send_with` on a full lane | wait | `Full` | `Ok`, dropped and counted |
    /// | `*_timeout`, `*_deadline` | `TimedOut` after the time | `Full` at once | `Ok` at once, dropped and counted |
    /// | `try_send`, `try_push` | `Full` | `Full` | `Ok`, dropped and counted |
    /// | `reserve*` | as `send*` | `Full` | `Full`: there is no message yet that could be dropped |
    /// | the consumer that was met is gone | `ConsumerGone` | `ConsumerGone` | `ConsumerGone` |
    /// | no consumer has come yet | as above | as above | as above |
    ///
    /// What a batch holds back is published before a `push` fails or drops; `try_push` publishes nothing. A message that is
    /// too long is [`TooLong`](crate::SendError::TooLong) with every policy. Dropped messages are counted for each lane
    /// ([`LaneInfo::lost_messages`](crate::LaneInfo::lost_messages)), for the producer
    /// ([`Producer::dropped_messages`](crate::Producer::dropped_messages)) and the consumer
    /// ([`Consumer::dropped_messages`](crate::Consumer::dropped_messages)).
    ///
    /// ```
    /// use semring::{WhenFull, spsc};
    /// # let name = format!("doc-full-{}", std::process::id());
    /// let ring = spsc::Builder::new(&name).when_full(WhenFull::Drop).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// while producer.dropped_messages() == 0 {
    ///     producer.send(&[0; 10_000])?; // never waits
    /// }
    /// # drop(producer); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = Some(policy);
        self
    }

    /// For a group of producers that come and go: consumers of this process deliver the end of the stream only when no
    /// producer has been attached for this long, counted from when the consumer, with everything received, finds that the
    /// last one has left. A producer that comes meanwhile goes on with the stream, and the time begins again when the last
    /// one leaves again. A ring to which nobody has attached does not end. Default zero.
    ///
    /// The end is recorded in the ring only when it is delivered, so the successor of a consumer that was killed in
    /// between waits for it as long again. Not a property of the ring. A handle with a time can't be
    /// [polled](crate::Consumer::pollable).
    #[must_use]
    pub fn linger(mut self, time: Duration) -> Self {
        self.options.linger = time;
        self
    }

    /// Lets messages and reservations of this process be slices
    /// ([`Message::as_slice`](crate::Message::as_slice),
    /// [`Reservation::as_mut_slice`](crate::Reservation::as_mut_slice)).
    ///
    /// # Safety
    /// No process that can write the ring's memory writes into bytes that are lent to this process:
    /// all such processes use semring, unmodified and without memory errors. A `&[u8]` whose bytes
    /// change while it is read is undefined behaviour.
    #[must_use]
    #[allow(unsafe_code)]
    pub unsafe fn trust_peers(mut self) -> Self {
        self.options.trusts_peers = true;
        self
    }

    /// Makes the ring; all its memory is allocated now.
    ///
    /// # Errors
    /// [`CreateError::Exists`] if an object of this name exists, [`CreateError::NoSpace`] with the
    /// requested size if memory is short, and the others of [`CreateError`].
    pub fn create(&self) -> Result<Ring<K>, CreateError> {
        let address = self.address.clone()?;
        let plan = self.plan()?;
        Ok(self.ring(lifecycle::create(&address, &plan)?))
    }

    /// Opens the ring, which must exist.
    ///
    /// # Errors
    /// [`OpenError::NotFound`], [`OpenError::Mismatch`] if it differs from the options, and the others
    /// of [`OpenError`].
    pub fn open(&self) -> Result<Ring<K>, OpenError> {
        let address = self.address.clone()?;
        let ring = lifecycle::open_with(&address, Access::ReadWrite, self.lock_memory)?;
        self.compare(&address, &ring)?;
        Ok(self.ring(ring))
    }

    /// The builder's address is not used.
    ///
    /// ```
    /// use semring::spsc::Builder;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let ring = Builder::memfd().create()?;
    /// ring.send_over(&ours)?;
    /// // In the other process:
    /// let same = Builder::memfd().receive_from(&theirs)?;
    /// assert_eq!(same.info()?.uuid, ring.info()?.uuid);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`OpenError::Os`] if the socket ends, or a message without a ring
    /// arrives.
    pub fn receive_from(&self, socket: &UnixStream) -> Result<Ring<K>, OpenError> {
        let received = lifecycle::receive(socket)?;
        self.compare(&received.address, &received)?;
        Ok(self.ring(received))
    }

    fn ring(&self, core: SharedRing) -> Ring<K> {
        Ring::new(core, self.options)
    }

    fn plan(&self) -> Result<Plan, CreateError> {
        let bad = |what, value: String, allowed| CreateError::BadOption {
            what,
            value,
            allowed,
        };
        let asked = self.capacity.unwrap_or(DEFAULT_CAPACITY);
        let capacity = Capacity::round_up(asked).ok_or_else(|| {
            bad(
                "capacity",
                format!("{asked} bytes"),
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
            uid: self.owner,
            gid: self.group,
            pages: self.pages,
            locked: self.lock_memory,
            guard: self.guard,
        })
    }

    /// Refuses a ring that differs from an option that was set.
    fn compare(&self, address: &Address, ring: &SharedRing) -> Result<(), OpenError> {
        let found = &ring.superblock;
        let differs = |what, found: String, asked: String| {
            Err(OpenError::Mismatch {
                name: address.to_string(),
                what,
                found,
                asked,
            })
        };
        if !K::accepts(found.kind) {
            return differs("kind", found.kind.to_string(), K::of_lanes(0).to_string());
        }
        if let Some(asked) = self.capacity {
            let has = found.geometry.capacity();
            let wanted = Capacity::round_up(asked).map_or(asked, Capacity::get);
            let is_enough = self.unused_ring != UnusedRing::Keep && has.get() > wanted;
            if has.get() != wanted && !is_enough {
                return differs(
                    "capacity",
                    format!("{} bytes", has.get()),
                    format!("{wanted} bytes"),
                );
            }
        }
        if let Some(asked) = self.producers
            && found.geometry.lanes() != asked
            && (self.unused_ring == UnusedRing::Keep || found.geometry.lanes() < asked)
        {
            return differs(
                "producers",
                found.geometry.lanes().to_string(),
                asked.to_string(),
            );
        }
        if let Some(asked) = self.guard.kind()
            && found.guard != asked
        {
            return differs("guard", found.guard.to_string(), asked.to_string());
        }
        if let Some(asked) = self.when_full
            && found.when_full != asked
        {
            return differs(
                "the policy when full",
                found.when_full.to_string(),
                asked.to_string(),
            );
        }
        let ownership = || {
            let ownership = ring.object.ownership();
            ownership.map_err(|error| lifecycle::memory_error(&address.to_string(), error))
        };
        if let Some(asked) = self.mode {
            let has = ownership()?.mode;
            if has != asked {
                return differs("mode", format!("{has:04o}"), format!("{asked:04o}"));
            }
        }
        if let Some(asked) = self.owner {
            let has = ownership()?.uid;
            if has != asked {
                return differs("owner", has.to_string(), asked.to_string());
            }
        }
        if let Some(asked) = self.group {
            let has = ownership()?.gid;
            if has != asked {
                return differs("group", has.to_string(), asked.to_string());
            }
        }
        Ok(())
    }
}

impl Builder<Spsc> {
    /// The same for one ring of a pair, at another address. A conversation loses nothing and has one end, so its rings wait
    /// when they are full and do not linger.
    pub(crate) fn at(&self, address: Address) -> Self {
        let mut ring = self.clone();
        ring.address = Ok(address);
        ring.when_full = None;
        ring.options.linger = Duration::ZERO;
        ring
    }
}

impl Builder<Mpsc> {
    /// The number of producers that can be attached at once: 1 to 240, default 8. Each has a lane of
    /// the ring's capacity.
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.producers = Some(lanes);
        self
    }
}

impl Builder<Any> {
    /// The number of producers that can be attached at once: 1 to 240, default 8. A new ring with
    /// one is SPSC.
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.producers = Some(lanes);
        self
    }
}
