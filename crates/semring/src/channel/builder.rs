//! Making or opening a ring.

use std::marker::PhantomData;
use std::os::unix::net::UnixStream;

use super::kind::{Any, Kind, Mpsc, Spsc};
use super::options::{RingOptions, ring_options};
use super::ring::Ring;
use crate::error::{CreateError, OpenError, OpenOrCreateError};
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

    /// Marks a new ring as auto-removed: tools remove it when its stream has ended. Default: no.
    #[must_use]
    pub fn auto_remove(mut self, auto_remove: bool) -> Self {
        self.options.auto_remove = auto_remove;
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

    /// Opens the ring, or makes it if there is none. Any number of processes may do so at once: all
    /// get the same ring.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self) -> Result<Ring<K>, OpenOrCreateError> {
        // Bad options are bad also where the ring exists.
        self.options
            .plan::<K>()
            .map_err(OpenOrCreateError::Create)?;
        loop {
            match self.open() {
                Ok(ring) => return Ok(ring),
                Err(OpenError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            match self.create() {
                Ok(ring) => return Ok(ring),
                // Another process was faster: open its ring. (Or the object is not a ring: then
                // opening fails.)
                Err(CreateError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ring(&self, core: SharedRing) -> Ring<K> {
        Ring::new(core, self.options.handles)
    }
}

impl Builder<Spsc> {
    /// The same for a ring at another address.
    pub(crate) fn at(&self, address: Address) -> Self {
        Self {
            address: Ok(address),
            ..self.clone()
        }
    }
}

impl Builder<Mpsc> {
    /// The number of producers that can be attached at once: 1 to 240, default 8. Each has a lane of
    /// the ring's capacity.
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.options.producers = Some(lanes);
        self
    }
}

impl Builder<Any> {
    /// The number of producers that can be attached at once: 1 to 240, default 8. A new ring with
    /// one is SPSC.
    #[must_use]
    pub fn producers(mut self, lanes: usize) -> Self {
        self.options.producers = Some(lanes);
        self
    }
}
