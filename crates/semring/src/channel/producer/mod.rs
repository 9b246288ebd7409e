//! The producer's public methods. The path of a message is in `core`, the checks of the consumer are in `liveness`.

mod array;
mod core;
mod gate;
mod liveness;
mod reservation;
mod room_wait;
#[cfg(feature = "zerocopy")]
mod value;

use std::marker::PhantomData;

pub use self::array::ArrayReservation;
use self::core::ProducerCore;
pub use self::reservation::{Reservation, SendBatch};
use super::interrupt::Interrupter;
use super::kind::{Any, Kind, Mpsc};
use super::options::HandleOptions;
use super::parking::WaitStats;
use super::pollable::Pollable;
use crate::error::{AttachError, SendError};
use crate::guard::Role;
use crate::guard::deadline::{Deadline, Patience};
#[cfg(feature = "tokio")]
use crate::layout::features::WhenFull;
use crate::layout::{Position, Tag};
use crate::lifecycle::ProducerRole;
use crate::ring::produce::LaneProducer;
#[cfg(feature = "tokio")]
use crate::ring::produce::Slot;

/// The sending side of a ring: sends messages to its consumer.
///
/// Each producer has a buffer of its own in the ring, its *lane*. Dropping the producer detaches it; committed
/// messages stay.
///
/// A producer that is dropped by a panic has not finished its stream: it counts as died
/// ([`RingInfo::died_producers`](crate::RingInfo::died_producers)), unless it was
/// [closed](Self::close).
///
/// Messages of one producer arrive in the order in which they were committed. One thread at a time
/// uses a producer (`&mut self`); a second producer of the same process has a lane of its own.
///
/// ```
/// # let name = format!("doc-producer-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut producer = ring.attach_producer()?;
/// producer.send(b"copied in")?;
///
/// let mut reservation = producer.reserve(8)?;   // or written in place
/// reservation.write_at(0, b"in place");
/// reservation.commit();
///
/// let mut consumer = ring.attach_consumer()?;
/// assert_eq!(consumer.recv()?.to_vec(), b"copied in");
/// assert_eq!(consumer.recv()?.to_vec(), b"in place");
/// # drop((producer, consumer)); ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer<K> {
    core: ProducerCore,
    kind: PhantomData<K>,
}

/// Room that is there.
#[cfg(feature = "tokio")]
pub(crate) struct Free(Slot);

impl<K: Kind> Producer<K> {
    pub(super) fn new(role: ProducerRole, lane: LaneProducer, options: HandleOptions) -> Self {
        Self {
            core: ProducerCore::new(role, lane, options),
            kind: PhantomData,
        }
    }

    /// Sends a copy of these bytes as one message; waits while there is no room for it.
    ///
    /// On a ring that was made with [another policy](crate::Builder::when_full) it does not wait.
    ///
    /// # When a death is noticed
    /// A call that waits for room, or that wakes a sleeping consumer, reports at once that the consumer is gone. A
    /// consumer that is killed while it is awake is noticed after at most 16 messages or 4 KiB, whichever comes first.
    /// While many messages in a row are published without a fence (see
    /// [`asymmetric_barrier`](crate::Builder::asymmetric_barrier)) it takes up to 8 KiB, and up to half a lap of the lane
    /// if the consumer was busy. [`check_consumer`](Self::check_consumer) checks at any time.
    ///
    /// # Errors
    /// [`SendError::TooLong`], [`ConsumerGone`](SendError::ConsumerGone) or
    /// [`Closed`](SendError::Closed) once its consumer has detached or died,
    /// [`Removed`](SendError::Removed), and the others; the message was then not sent. A problem
    /// found after the commit is reported by the next call.
    #[inline(always)]
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core.send(bytes, Tag::default(), Patience::FOREVER)
    }

    /// As [`send`](Self::send), with a [`Tag`] for the consumer: a kind and a framing.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_with(&mut self, bytes: &[u8], tag: Tag) -> Result<(), SendError> {
        self.core.send(bytes, tag, Patience::FOREVER)
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    /// [`SendError::Full`] while there is no room, and those of [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core.send(bytes, Tag::default(), Patience::Try)
    }

    /// As [`send`](Self::send), but waits no longer than until a [`Deadline`], such as a [`Duration`] from now on.
    ///
    /// If there is room the message is sent also after the deadline.
    ///
    /// [`Duration`]: std::time::Duration
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send`](Self::send).
    pub fn send_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.core
            .send(bytes, Tag::default(), Patience::until(deadline))
    }

    /// Reserves room for a message of `len` bytes, to be written in place; waits while there is none.
    ///
    /// Nothing is visible to the consumer before [`Reservation::commit`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        let slot = self.core.reserve(len, Patience::FOREVER)?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// As [`reserve`](Self::reserve), but never waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        let slot = self.core.reserve(len, Patience::Try)?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// The search of [`try_reserve`](Self::try_reserve); [`free`](Self::free) makes a reservation of its
    /// result. In two steps, so that nothing is borrowed while a task waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_find_room(&mut self, len: usize) -> Result<Free, SendError> {
        self.core.reserve(len, Patience::Try).map(Free)
    }

    /// The reservation of the room that was found; nothing must have been called in between.
    #[cfg(feature = "tokio")]
    pub(crate) fn free(&mut self, free: Free) -> Reservation<'_> {
        Reservation::new(&mut self.core, free.0)
    }

    /// As [`reserve`](Self::reserve), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline).
    pub fn reserve_deadline(
        &mut self,
        len: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<Reservation<'_>, SendError> {
        let slot = self.core.reserve(len, Patience::until(deadline))?;
        Ok(Reservation::new(&mut self.core, slot))
    }

    /// Begins a batch: messages that the consumer sees all at once, when the batch is committed.
    ///
    /// One store publishes them, in place of one for each message.
    ///
    /// ```
    /// # let name = format!("doc-batch-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// let mut batch = producer.batch();
    /// for number in 0..100u32 {
    ///     batch.push(&number.to_le_bytes())?;
    /// }
    /// batch.commit();
    /// assert_eq!(ring.info()?.unread_messages(), 100);
    /// # drop(producer); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&mut self) -> SendBatch<'_> {
        SendBatch::new(&mut self.core)
    }

    /// Checks with the kernel whether the consumer is still attached: one call, about 0.2 µs.
    ///
    /// [`send`](Self::send) makes such checks itself; see its documentation.
    ///
    /// # Errors
    /// [`SendError::ConsumerGone`] or [`SendError::Closed`] if the consumer of this producer
    /// is gone, [`SendError::Removed`].
    pub fn check_consumer(&mut self) -> Result<(), SendError> {
        if self.core.role.ring().is_forked() {
            return Err(SendError::Forked);
        }
        self.core.gate.change(|pending| pending.forget_error());
        self.core.check_consumer()
    }

    /// Goes on after a broken pipe ([`SendError::ConsumerGone`]), with the next consumer.
    ///
    /// Does not wait for it: the producer accepts the next consumer as it accepted the first one. No committed
    /// message is lost by the change.
    ///
    /// # Errors
    /// [`SendError::Removed`].
    pub fn accept_next_consumer(&mut self) -> Result<(), SendError> {
        if self.core.role.ring().is_forked() {
            return Err(SendError::Forked);
        }
        self.core.gate.change(|pending| pending.forget_error());
        let forgotten = self.core.role.forget_consumer();
        forgotten.map_err(|error| self.core.failed(error))?;
        self.core.check_memory()
    }

    /// Ends this producer's stream, as dropping does.
    ///
    /// A producer that was closed has finished its stream, even if a panic is unwinding the thread. It detaches.
    pub fn close(mut self) {
        if !self.core.role.ring().is_forked() {
            let core = &mut self.core;
            core.end_leaked_batch();
            // Before the mark, which stands where the flag does.
            core.waker.end_asymmetric(core.gate.lane.view());
            core.gate.lane.mark_finished();
            core.role.finish();
        }
    }

    /// Ends this producer's stream as incomplete, so that the consumer sees that something is missing.
    ///
    /// For a producer that failed. It detaches and counts as died, as if it had been killed
    /// ([`RingInfo::died_producers`](crate::RingInfo::died_producers)), and the consumer sees that at the end of
    /// the stream. Committed messages are delivered; the lane is free at once.
    ///
    /// ```
    /// # let name = format!("doc-abort-{}", std::process::id());
    /// let ring = semring::spsc::Builder::new(&name).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// producer.send(b"the first half")?;
    /// producer.abort(); // the second one can't be had
    /// let info = ring.info()?;
    /// assert_eq!((info.finished_producers(), info.died_producers()), (0, 1));
    /// assert_eq!((info.producers(), info.unread_messages()), (0, 1));
    /// # ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(mut self) {
        self.core.role.abort();
    }

    /// The longest message in bytes: a quarter of the ring's capacity.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.core.gate.lane.capacity().max_message() as usize
    }

    /// The number of its buffer in the ring (its lane), from 0.
    #[must_use]
    pub fn lane(&self) -> usize {
        self.core.role.lane()
    }

    /// The number of bytes written to its lane so far, headers included, by this producer and earlier ones.
    ///
    /// The next record begins here. Messages that are sent later have this [position](crate::MessageRef::position)
    /// or a higher one.
    #[must_use]
    pub fn position(&self) -> Position {
        self.core.gate.lane.tail()
    }

    /// The number of messages sent on its lane since the ring was made, by this producer and earlier ones.
    #[must_use]
    pub fn sent_messages(&self) -> u64 {
        self.core.gate.lane.sent()
    }

    /// A descriptor for `poll(2)`, `epoll(7)` and event loops: see [`Pollable`].
    ///
    /// It is *readable* when [`try_send`](Self::try_send) may succeed, or return an error other than `Full`: poll
    /// for POLLIN. Request it once. From then on a `try_send` that returns [`Full`](SendError::Full) costs a few
    /// system calls.
    ///
    /// ```
    /// use semring::{GuardChoice, SendError, spsc};
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// let descriptor = producer.pollable()?;
    /// while producer.try_send(&[0; 1000]).is_ok() {}
    /// assert_eq!(producer.try_send(&[0; 1000]), Err(SendError::Full));
    /// let now = PollTimeout::ZERO;
    /// let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    /// assert_eq!(poll(&mut set, now)?, 0);
    /// let mut consumer = ring.attach_consumer()?;
    /// while consumer.try_recv().is_ok() {}
    /// assert_eq!(poll(&mut set, now)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Consumer::pollable`](crate::Consumer::pollable).
    pub fn pollable(&mut self) -> std::io::Result<Pollable> {
        let core = &mut self.core;
        let lane = core.role.lane();
        core.parking
            .pollable(core.role.ring(), Role::Producer { lane })
    }

    /// A handle that ends a blocking call of this producer from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.core.parking.interrupter(self.core.role.ring())
    }

    /// Counts how often this producer slept in the kernel, and how often it woke the consumer
    /// there.
    #[must_use]
    pub fn wait_stats(&self) -> WaitStats {
        WaitStats {
            sleeps: self.core.parking.sleeps(),
            wakeups: self.core.posts,
        }
    }

    /// The number of messages that were dropped on its lane because it was full.
    ///
    /// By this producer and earlier ones, since the ring was made; only on rings made with
    /// [`WhenFull::Drop`](crate::WhenFull::Drop).
    #[must_use]
    pub fn dropped_messages(&self) -> u64 {
        if self.core.role.ring().is_forked() {
            return 0;
        }
        self.core.gate.lane.dropped()
    }

    /// Whether a call that finds its lane full may wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn waits_when_full(&self) -> bool {
        self.core.when_full == WhenFull::Wait
    }

    /// What the policy makes of a message for which there is no room.
    #[cfg(feature = "tokio")]
    pub(crate) fn drop_or_fail(&mut self) -> Result<(), SendError> {
        self.core.drop_or_fail(1)
    }

    fn another(&self) -> Result<Self, AttachError> {
        let (role, lane) = ProducerRole::take(self.core.role.ring())?;
        Ok(Self::new(role, lane, self.core.options))
    }
}

impl Producer<Mpsc> {
    /// Attaches another producer to the same ring; it has a buffer of its own there.
    ///
    /// # Errors
    /// As [`Ring::attach_producer`](crate::Ring::attach_producer).
    pub fn try_clone(&self) -> Result<Self, AttachError> {
        self.another()
    }
}

impl Producer<Any> {
    /// Attaches another producer to the same ring; it has a buffer of its own there.
    ///
    /// # Errors
    /// As [`Ring::attach_producer`](crate::Ring::attach_producer).
    pub fn try_clone(&self) -> Result<Self, AttachError> {
        self.another()
    }
}

impl<K> std::fmt::Debug for Producer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("address", &self.core.role.ring().address)
            .field("lane", &self.core.role.lane())
            .finish_non_exhaustive()
    }
}
