//! An open ring: where producers and consumers come from.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::builder::HandleOptions;
use super::consumer::Consumer;
use super::kind::Kind;
use super::producer::Producer;
use crate::error::{AttachError, OpenError, RemoveError};
use crate::lifecycle::{
    self, ConsumerSeat, ProducerSeat, RemoveOutcome, RingInfo, SharedRing,
    consumer_left_on_purpose, has_unread, remove_idle,
};
use crate::memory::address::AddressError;
use crate::memory::{Access, Address};
use crate::os::fault;

/// An open ring. Holds no role: being open keeps nobody waiting and no ring alive.
///
/// ```
/// # let name = format!("doc-ring-{}", std::process::id());
/// let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut producer = ring.attach_producer()?;
/// producer.send(b"kept until somebody reads it")?;
/// drop(producer);
/// assert_eq!(ring.info()?.unread_messages(), 1);
/// ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ring<K> {
    core: SharedRing,
    options: HandleOptions,
    kind: PhantomData<K>,
}

impl<K> Clone for Ring<K> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            options: self.options,
            kind: PhantomData,
        }
    }
}

impl<K> std::fmt::Debug for Ring<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("address", &self.core.address)
            .field("lanes", &self.core.lanes())
            .field(
                "capacity_bytes",
                &self.core.superblock.geometry.capacity().get(),
            )
            .finish()
    }
}

impl<K: Kind> Ring<K> {
    pub(super) fn new(core: SharedRing, options: HandleOptions) -> Self {
        Self {
            core,
            options,
            kind: PhantomData,
        }
    }

    /// Becomes a producer on the lowest free lane. While every lane is taken, but a holder was just
    /// killed, waits up to a second for the kernel to certify it.
    ///
    /// # Errors
    /// [`AttachError::NoFreeLane`] while live producers have every lane, [`AttachError::Removed`],
    /// [`AttachError::Corrupt`], and the others.
    pub fn attach_producer(&self) -> Result<Producer<K>, AttachError> {
        let (seat, lane) = ProducerSeat::take(&self.core)?;
        Ok(Producer::new(seat, lane, self.options))
    }

    /// Becomes the consumer. Begins with what the predecessor released last; what it had received and
    /// not released comes again.
    ///
    /// # Errors
    /// [`AttachError::ConsumerPresent`] while there is a live one. If it was just killed, waits up to a
    /// second for the kernel to certify it.
    pub fn attach_consumer(&self) -> Result<Consumer, AttachError> {
        let (seat, lanes, damaged) = ConsumerSeat::take(&self.core)?;
        Ok(Consumer::new(seat, lanes, damaged, self.options))
    }

    /// True in a child forked since: the ring is its parent's.
    pub(crate) fn is_forked(&self) -> bool {
        self.core.is_forked()
    }

    /// Has a producer see that nobody receives, nor ever will: a consumer comes and goes, whom it has met
    /// then. To be called only if the producer waits for nobody else.
    pub(crate) fn hang_up(&self) {
        // Whoever is faster has the same effect.
        drop(self.attach_consumer());
    }

    /// Has a consumer see that nobody sends, nor ever will: a producer comes and goes, whose stream has ended
    /// then. To be called only if the consumer waits for nobody else.
    pub(crate) fn end_stream(&self) {
        drop(self.attach_producer());
    }

    /// True if the ring that is found at its address now is this one: nobody has removed it.
    pub(crate) fn has_its_address(&self) -> bool {
        lifecycle::inspect(&self.core.address)
            .is_ok_and(|now| now.uuid == lifecycle::uuid_text(&self.core.superblock))
    }

    /// A descriptor of the ring's memory that programs do not inherit.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        lifecycle::descriptor(&self.core)
    }

    /// The address it was opened by.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.core.address
    }

    /// Bytes that each lane holds.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.core.superblock.geometry.capacity().get()
    }

    /// The longest message in bytes: a quarter of the capacity.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.core.superblock.geometry.capacity().max_message() as usize
    }

    /// How many producers can be attached at once.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.core.lanes()
    }

    /// True if this process made the ring with this handle.
    #[must_use]
    pub fn was_created(&self) -> bool {
        self.core.created
    }

    /// Why this process made the ring with pipes although semaphores are the first choice
    /// ([`GuardChoice::Auto`](crate::GuardChoice::Auto)); `None` if it did not.
    #[must_use]
    pub fn guard_fallback(&self) -> Option<&str> {
        self.core.fallback.as_deref()
    }

    /// True if the ring was made only because it was missing ([`Builder::auto_remove`](crate::Builder::auto_remove)).
    #[must_use]
    pub fn is_auto_removed(&self) -> bool {
        self.core.superblock.auto_remove
    }

    /// The ring at this moment: who is attached, what is in it.
    ///
    /// # Errors
    /// If the object's owner and mode can't be read.
    pub fn info(&self) -> Result<RingInfo, OpenError> {
        match lifecycle::adopt(&self.core) {
            Ok(core) => lifecycle::observe(&core),
            // A forked child does not have the pages: it looks as a stranger does.
            Err(_) => lifecycle::inspect(&self.core.address),
        }
    }

    /// Removes the ring with everything in it, unless somebody is attached.
    ///
    /// # Errors
    /// [`RemoveError::InUse`], [`RemoveError::Permission`], and the others.
    pub fn remove(&self) -> Result<(), RemoveError> {
        let adopted = lifecycle::adopt(&self.core);
        // A forked child does not have the pages of a named ring, and needs none to remove it.
        lifecycle::remove_open(adopted.as_ref().unwrap_or(&self.core))
    }

    /// A descriptor of the ring's memory that the programs inherit which this process starts while it is
    /// open. Their address of the ring is `fd:N`, N being its number. (For a program on its own the
    /// descriptor is also at `fd:/proc/PID/fd/N`, if it may look there.)
    ///
    /// Each has an open file description of its own, so it says nothing about who uses the ring.
    ///
    /// ```no_run
    /// use std::os::fd::AsRawFd;
    /// let ring = semring::spsc::Builder::memfd().create()?;
    /// let descriptor = ring.inheritable()?;
    /// std::process::Command::new("semring-consumer")
    ///     .arg(format!("fd:{}", descriptor.as_raw_fd()))
    ///     .spawn()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) for System V and anonymous rings, which have no
    /// descriptor; what opening it anew gives (it needs `/proc`, and the permission that the mode gives).
    pub fn inheritable(&self) -> io::Result<OwnedFd> {
        lifecycle::inheritable(&self.core)
    }

    /// Sends the ring through a Unix socket, to be [received](crate::Builder::receive_from) by another
    /// process: a descriptor of its memory, with one byte.
    ///
    /// # Errors
    /// As [`inheritable`](Self::inheritable), and what sending gives.
    pub fn send_over(&self, socket: &UnixStream) -> io::Result<()> {
        lifecycle::send(&self.core, socket)
    }

    /// Removes the ring if nobody is attached and nothing is lost by it: no message is unread, or the
    /// last consumer [left on purpose](crate::Consumer::close) and no producer came after it.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] and the others; a ring that stays ([`RemoveOutcome::InUse`],
    /// [`RemoveOutcome::Unread`]) is no error.
    pub fn remove_if_done(&self) -> Result<RemoveOutcome, RemoveError> {
        let opened;
        let core = if let Ok(adopted) = lifecycle::adopt(&self.core) {
            opened = adopted;
            &opened
        } else {
            opened = match lifecycle::open(&self.core.address, Access::ReadWrite) {
                Ok(opened) if opened.superblock.uuid == self.core.superblock.uuid => opened,
                // Gone, or another one by now.
                Ok(_) | Err(OpenError::NotFound { .. }) => {
                    return Ok(RemoveOutcome::Removed);
                }
                Err(error) => return Err(error.into()),
            };
            &opened
        };
        let done = || consumer_left_on_purpose(core) || !has_unread(core);
        remove_idle(core, false, done)
    }
}

/// Removes the ring at an address, with everything in it, unless a process is attached.
///
/// # Errors
/// [`RemoveError::InUse`], [`RemoveError::Open`] if there is no such ring.
///
/// ```
/// # let name = format!("doc-remove-{}", std::process::id());
/// semring::spsc::Builder::new(&name).create()?;
/// semring::remove(&name)?;
/// assert!(semring::spsc::open(&name).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn remove(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<(), RemoveError> {
    lifecycle::remove_unless_used(&Address::of(address).map_err(OpenError::from)?)
}

/// Removes the ring at an address, whoever is attached: everybody ends with the `Removed` error. Also one that can't be
/// opened any more, because its superblock is damaged, it was truncated or never finished: a file in `/dev/shm` or a
/// segment of the caller's with the magic or the size of a ring; of a `file:`, one with the magic.
///
/// Other processes that may use the ring can hold it up for a second, by what they hold or have set, and no longer.
///
/// # Errors
/// [`RemoveError::Permission`] to others than the owner and root, [`RemoveError::Open`] if there is no such ring, or
/// nothing that may be taken for one.
///
/// ```
/// # let name = format!("doc-force-{}", std::process::id());
/// use semring::RemoveOutcome;
///
/// semring::spsc::Builder::new(&name).create()?;
/// match semring::force_remove(&name)? {
///     RemoveOutcome::RemovedDamaged { what } => println!("removed {what}"),
///     _ => println!("removed"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn force_remove(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<RemoveOutcome, RemoveError> {
    lifecycle::force_remove(&Address::of(address).map_err(OpenError::from)?)
}

/// Looks at the ring at an address without taking part: mapped read-only, nothing changes. Needs read
/// permission.
///
/// # Errors
/// As [`Builder::open`](crate::Builder::open); a ring whose semaphores are gone is described as
/// [`RingState::GuardMissing`](crate::RingState::GuardMissing).
pub fn inspect(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<RingInfo, OpenError> {
    lifecycle::inspect(&Address::of(address)?)
}

/// Every ring that this user may look at, in this IPC namespace and /dev/shm.
#[must_use]
pub fn list() -> Vec<RingInfo> {
    lifecycle::list()
}

/// From now on semring leaves the action of SIGBUS alone. To be called before anything else, by programs
/// that want no handler of a library; false if there is one already.
///
/// Whoever may write the file of a `posix:` or `file:` ring can truncate it, and who then touches a page
/// that is missing gets SIGBUS. So with the first such ring that a process opens comes a handler, which
/// turns that into `Removed` errors, and everything else over to whoever had the signal before. Without
/// it, truncation kills the process. Rings in other memory can't be truncated and need none.
///
/// ```no_run
/// assert!(semring::disable_sigbus_handler());
/// ```
pub fn disable_sigbus_handler() -> bool {
    fault::leave_alone()
}
