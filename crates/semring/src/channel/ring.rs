//! An open ring, through which producers and consumers attach.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::consumer::Consumer;
use super::kind::Kind;
use super::options::HandleOptions;
use super::producer::Producer;
use crate::error::{AttachError, OpenError, RemoveError, SigbusHandlerInstalled};
use crate::layout::schema::Schema;
use crate::lifecycle::{
    self, ConsumerRole, ProducerRole, RemoveOutcome, RingInfo, SharedRing,
    consumer_left_on_purpose, has_unread, remove_idle,
};
use crate::memory::address::AddressError;
use crate::memory::{Access, Address};
use crate::os::fault::{self, LeftAlone};

/// An open ring, through which this process attaches as a producer or as the consumer.
///
/// A `Ring` alone is neither: no other process waits for it, and it does not keep the ring from being removed.
///
/// ```
/// # let name = format!("doc-ring-{}", std::process::id());
/// let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut producer = ring.attach_producer()?;
/// producer.send(b"kept until a consumer reads it")?;
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

    /// Makes this process a producer of the ring: returns the handle that sends.
    ///
    /// The producer gets the lowest free lane, a buffer of its own in the ring. If every lane is taken but a
    /// holder was just killed, it waits up to a second for the kernel to free that lane.
    ///
    /// # Errors
    /// [`AttachError::NoFreeLane`] while live producers have every lane, [`AttachError::Removed`],
    /// [`AttachError::Corrupt`], and the others.
    pub fn attach_producer(&self) -> Result<Producer<K>, AttachError> {
        let taken = ProducerRole::take(&self.core);
        let (role, lane) = taken.map_err(|error| self.why_removed(error))?;
        Ok(Producer::new(role, lane, self.options))
    }

    /// Makes this process the consumer of the ring: returns the handle that receives.
    ///
    /// It starts at the first message whose room the previous consumer has not given back. If that consumer was
    /// killed, messages that it had received last may be delivered again: see [At least
    /// once](crate#at-least-once-and-deduplication).
    ///
    /// # Errors
    /// [`AttachError::ConsumerPresent`] while a live process is the consumer. If the consumer was just
    /// killed, this waits up to a second for the kernel to free the role.
    pub fn attach_consumer(&self) -> Result<Consumer, AttachError> {
        let taken = ConsumerRole::take(&self.core);
        let (role, lanes, damaged) = taken.map_err(|error| self.why_removed(error))?;
        Ok(Consumer::new(role, lanes, damaged, self.options))
    }

    /// The error of an attach, or what it means in a ring that was replaced.
    fn why_removed(&self, error: AttachError) -> AttachError {
        if error == AttachError::Removed && lifecycle::is_replaced(&self.core) {
            AttachError::Replaced
        } else {
            error
        }
    }

    /// True in a child forked since: the ring is its parent's.
    pub(crate) fn is_forked(&self) -> bool {
        self.core.is_forked()
    }

    /// Gives the producer a broken pipe: a consumer attaches and detaches, so that the producer has known
    /// one that is gone. To be called only if no other consumer is expected.
    pub(crate) fn hang_up(&self) {
        // If another consumer attaches first, the effect is the same.
        drop(self.attach_consumer());
    }

    /// Gives the consumer an end of stream: a producer attaches and detaches, so that a stream has ended. To
    /// be called only if no other producer is expected.
    pub(crate) fn end_stream(&self) {
        drop(self.attach_producer());
    }

    /// True if this ring still is the one found at its address: it was not removed.
    pub(crate) fn has_its_address(&self) -> bool {
        lifecycle::inspect(&self.core.address)
            .is_ok_and(|now| now.uuid == lifecycle::uuid_text(&self.core.superblock))
    }

    /// A descriptor of the ring's memory that programs do not inherit.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        lifecycle::descriptor(&self.core)
    }

    /// The address for a program that inherits a descriptor with this number.
    pub(crate) fn inherited_address(&self, number: i32) -> Address {
        Address::of_inherited(number, &self.core.superblock.uuid)
    }

    /// The address by which it was opened.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.core.address
    }

    /// Capacity of each producer's buffer (its lane), in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.core.superblock.geometry.capacity().get()
    }

    /// The longest message in bytes: a quarter of the capacity.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.core.superblock.geometry.capacity().max_message() as usize
    }

    /// The number of producers that can be attached at once. Each has a buffer of its own, its lane.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.core.lanes()
    }

    /// True if this process made the ring with this handle.
    #[must_use]
    pub fn was_created(&self) -> bool {
        self.core.created
    }

    /// Why this process made the ring with pipes in place of semaphores, the first choice; `None` if it did not.
    ///
    /// See [`GuardChoice::Auto`](crate::GuardChoice::Auto).
    #[must_use]
    pub fn guard_fallback(&self) -> Option<&str> {
        self.core.fallback.as_deref()
    }

    /// What the messages of the ring are, if its creator has said that ([`Builder::schema`](crate::Builder::schema)).
    #[must_use]
    pub fn schema(&self) -> Option<Schema> {
        self.core.superblock.schema
    }

    /// True if tools remove the ring when its stream has ended
    /// ([`Builder::auto_remove`](crate::Builder::auto_remove)).
    #[must_use]
    pub fn is_auto_removed(&self) -> bool {
        self.core.superblock.auto_remove
    }

    /// The ring's state at this moment: attached processes, unread messages.
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

    /// Removes the ring with everything in it, unless a process is attached.
    ///
    /// # Errors
    /// [`RemoveError::InUse`], [`RemoveError::Permission`], and the others.
    pub fn remove(&self) -> Result<(), RemoveError> {
        let adopted = lifecycle::adopt(&self.core);
        // A forked child does not have the pages of a named ring, and needs none to remove it.
        lifecycle::remove_open(adopted.as_ref().unwrap_or(&self.core))
    }

    /// A descriptor of the ring's memory, inherited by the programs that this process starts while it is open.
    ///
    /// For them the address of the ring is `fd:N`, N being its number. (Other programs can use `fd:/proc/PID/fd/N`
    /// if they have permission.)
    ///
    /// Each call makes an open file description of its own, so the descriptor keeps no producer or consumer
    /// attached.
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
    /// descriptor; errors of opening it again (that needs `/proc`, and the ring's mode must permit it).
    pub fn inheritable(&self) -> io::Result<OwnedFd> {
        lifecycle::inheritable(&self.core)
    }

    /// Passes the ring to another process through a Unix socket; that process
    /// [receives](crate::Builder::receive_from) it.
    ///
    /// What is sent is a descriptor of the ring's memory, with one byte.
    ///
    /// # Errors
    /// As [`inheritable`](Self::inheritable), and those of sendmsg(2).
    pub fn send_over(&self, socket: &UnixStream) -> io::Result<()> {
        lifecycle::send(&self.core, socket)
    }

    /// Removes the ring if no process is attached and nothing would be lost.
    ///
    /// Nothing would be lost if no message is unread, or if the last consumer [closed](crate::Consumer::close) the
    /// ring and no producer attached later.
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

/// Removes the ring at an address even if processes use it: their calls then return the `Removed` error.
///
/// Also removes a ring that can't be opened any more, because its header is damaged, or because it was truncated
/// or never finished: a file in `/dev/shm` or a segment of the caller's with the magic number or the size of a
/// ring; of a `file:`, one with the magic number.
///
/// Locks and flags of other processes can delay the removal by one second at most.
///
/// # Errors
/// [`RemoveError::Permission`] unless the caller is the owner or root, [`RemoveError::Open`] if there is no such
/// ring and no object that may be a damaged one.
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

/// Describes the ring at an address without changing anything.
///
/// The ring is mapped read-only, so read permission suffices.
///
/// # Errors
/// As [`Builder::open`](crate::Builder::open); a ring without its semaphores is described as
/// [`RingState::GuardMissing`](crate::RingState::GuardMissing).
pub fn inspect(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<RingInfo, OpenError> {
    lifecycle::inspect(&Address::of(address)?)
}

/// Sets the counts of producers that finished, and that died, to zero in the ring at an address.
///
/// They are [`RingInfo::finished_producers`] and [`RingInfo::died_producers`]. For supervisors that have seen a
/// death and have restarted the producer. Messages, and what a consumer receives at the end of its stream, do not
/// change. Needs write permission; attached processes go on.
///
/// # Errors
/// As [`Builder::open`](crate::Builder::open).
///
/// ```
/// # let name = format!("doc-reset-{}", std::process::id());
/// let ring = semring::spsc::Builder::new(&name).create()?;
/// ring.attach_producer()?.abort();
/// assert_eq!(ring.info()?.died_producers(), 1);
/// semring::reset_counts(ring.address())?;
/// assert_eq!(ring.info()?.died_producers(), 0);
/// # ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn reset_counts(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<(), OpenError> {
    lifecycle::reset_counts(&Address::of(address)?)
}

/// All rings that this user may inspect, in this IPC namespace and `/dev/shm`.
#[must_use]
pub fn list() -> Vec<RingInfo> {
    lifecycle::list()
}

/// Keeps semring from installing its SIGBUS handler.
///
/// To be called before any other function, by programs that want no handler of a library.
///
/// Every process that may write the file of a `posix:` or `file:` ring can truncate it, and a process
/// that then touches a missing page gets SIGBUS. So when a process opens its first such ring, semring
/// installs a handler. It turns these faults into `Removed` errors and passes all others to the previous
/// handler. Without it, truncation kills the process. Rings in other memory can't be truncated and need
/// no handler.
///
/// ```no_run
/// semring::disable_sigbus_handler()?;
/// # Ok::<(), semring::SigbusHandlerInstalled>(())
/// ```
///
/// # Errors
/// [`SigbusHandlerInstalled`] if the process has opened such a ring before: the handler stays.
pub fn disable_sigbus_handler() -> Result<(), SigbusHandlerInstalled> {
    match fault::leave_alone() {
        LeftAlone::Yes => Ok(()),
        LeftAlone::TooLate => Err(SigbusHandlerInstalled),
    }
}
