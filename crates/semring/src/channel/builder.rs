//! Making or opening a ring.

mod unused;

use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use self::unused::UnusedRing;
use super::kind::{Any, Kind, Mpsc, Spsc};
use super::options::{RingOptions, ring_options};
use super::ring::Ring;
use crate::error::{CreateError, OpenError};
use crate::layout::features::WhenFull;
use crate::layout::schema::Schema;
use crate::lifecycle::{self, SharedRing};
use crate::memory::address::AddressError;
use crate::memory::{Access, Address};

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
    options: RingOptions,
    kind: PhantomData<K>,
}

impl<K: Kind> Builder<K> {
    /// Options for the ring at this address: text, an [`OsStr`](std::ffi::OsStr), or an [`Address`].
    ///
    /// A bad address is reported when it is used.
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
            options: RingOptions::default(),
            kind: PhantomData,
        }
    }

    /// What the ring is to be.
    pub(crate) fn options(&mut self) -> &mut RingOptions {
        &mut self.options
    }

    ring_options!();

    /// The address, or why it is not valid.
    pub(crate) fn address(&self) -> &Result<Address, AddressError> {
        &self.address
    }

    /// Options for a new ring in memory without a name (`memfd:`), which exists as long as a process has it open.
    ///
    /// Other processes get a descriptor of it: see [`Ring::inheritable`], [`Ring::send_over`].
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
    /// A child attaches through the [`Ring`] that it inherited; the parent's producers and consumer stay the
    /// parent's. The ring ends with the last process that has opened it or attached, so the parent keeps its
    /// `Ring` until the children have attached.
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

    /// Lets tools remove a new ring when its stream has ended (an *auto-removed* ring). Default: no.
    #[must_use]
    pub fn auto_remove(mut self, auto_remove: bool) -> Self {
        self.options.auto_remove = auto_remove;
        self
    }

    /// Sets what a producer does when its buffer in the ring is full: wait, fail, or drop the message.
    ///
    /// A new ring has this policy for as long as it lives; default [`WhenFull::Wait`]. An existing ring must have
    /// the requested policy.
    ///
    /// | | `Wait` | `Fail` | `Drop` |
    /// |---|---|---|---|
    /// | `send`, `push`, `send_with` on a full lane | wait | `Full` | `Ok`, dropped and counted |
    /// | `*_timeout`, `*_deadline` | `TimedOut` after the time | `Full` at once | `Ok` at once, dropped and counted |
    /// | `try_send`, `try_push` | `Full` | `Full` | `Ok`, dropped and counted |
    /// | `reserve*` | as `send*` | `Full` | `Full`: there is no message yet that could be dropped |
    /// | the consumer of this producer is gone | `ConsumerGone` | `ConsumerGone` | `ConsumerGone` |
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
        self.options.when_full = Some(policy);
        self
    }

    /// Names what the messages of a ring are, so that a program that expects something else can't open it.
    ///
    /// A new ring has this schema for as long as it lives. An existing ring that has another one is refused with
    /// the names of both ([`OpenError::Mismatch`]); one that has none is opened, and [`Ring::schema`] is `None`.
    /// Default: none; a ring with a schema is opened all the same.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.options.schema = Some(schema);
        self
    }

    /// Delays the end of the stream until no producer has been attached for this long. Default: zero.
    ///
    /// For a group of producers that come and go. The time counts from when the consumer, with everything
    /// received, finds that the last producer has left. A producer that comes meanwhile goes on with the stream,
    /// and the time begins again when the last one leaves again. A ring to which no producer has attached does not
    /// end.
    ///
    /// Holds for the consumers of this process; it is not a property of the ring. The end is recorded in the ring
    /// only when it is delivered, so the successor of a consumer that was killed in between waits for it as long
    /// again. A handle with a time can't be [polled](crate::Consumer::pollable).
    #[must_use]
    pub fn linger(mut self, time: Duration) -> Self {
        self.options.handles.linger = time;
        self
    }

    /// Allows access to messages as slices, without a copy, on the promise that no other process changes them.
    ///
    /// [`Message::as_slice`](crate::Message::as_slice),
    /// [`Reservation::as_mut_slice`](crate::Reservation::as_mut_slice) and the others then return slices in place
    /// of `None`. Holds for the handles of this process.
    ///
    /// # Safety
    /// No process that can write the ring's memory writes into bytes that are lent to this process:
    /// all such processes use semring, unmodified and without memory errors. A `&[u8]` whose bytes
    /// change while it is read is undefined behaviour.
    #[must_use]
    #[allow(unsafe_code)]
    pub unsafe fn trust_peers(mut self) -> Self {
        self.options.handles.trusts_peers = true;
        self
    }

    /// Makes the ring; all its memory is allocated now.
    ///
    /// # Errors
    /// [`CreateError::Exists`] if an object of this name exists, [`CreateError::NoSpace`] with the
    /// requested size if memory is short, and the others of [`CreateError`].
    pub fn create(&self) -> Result<Ring<K>, CreateError> {
        let address = self.address.clone()?;
        let plan = self.options.plan::<K>()?;
        Ok(self.ring(lifecycle::create(&address, &plan)?))
    }

    /// Opens the ring, which must exist.
    ///
    /// # Errors
    /// [`OpenError::NotFound`], [`OpenError::Mismatch`] if it differs from the options, and the others
    /// of [`OpenError`].
    pub fn open(&self) -> Result<Ring<K>, OpenError> {
        let address = self.address.clone()?;
        let ring = lifecycle::open_with(&address, Access::ReadWrite, self.options.lock_memory)?;
        self.options.compare::<K>(&address, &ring)?;
        Ok(self.ring(ring))
    }

    /// Opens the ring that another process [sends](Ring::send_over) through a Unix socket; waits for it.
    ///
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
        self.options.compare::<K>(&received.address, &received)?;
        Ok(self.ring(received))
    }

    fn ring(&self, core: SharedRing) -> Ring<K> {
        Ring::new(core, self.options.handles)
    }
}

impl Builder<Spsc> {
    /// The same for one ring of a pair, at another address. A conversation loses nothing and has one end, so its rings wait
    /// when they are full and do not linger.
    pub(crate) fn at(&self, address: Address) -> Self {
        let mut ring = self.clone();
        ring.address = Ok(address);
        ring.options.when_full = None;
        ring.options.handles.linger = Duration::ZERO;
        ring
    }
}

impl Builder<Mpsc> {
    /// Sets the number of producers that can be attached at once: 1 to 240, default 8.
    ///
    /// Each has a buffer of its own in the ring, its lane, of the ring's [capacity](Self::capacity).
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.options.producers = Some(lanes);
        self
    }
}

impl Builder<Any> {
    /// Sets the number of producers that can be attached at once: 1 to 240, default 8.
    ///
    /// A new ring with one is SPSC.
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.options.producers = Some(lanes);
        self
    }
}
