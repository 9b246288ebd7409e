//! The consumer's role: what users call. How a message goes is in `core`.

mod backoff;
mod batch;
mod core;
mod end_of_stream;
mod message;
mod message_wait;
mod release;
mod spin;

pub use self::batch::RecvBatch;
use self::core::ConsumerCore;
pub use self::end_of_stream::EndedProducers;
pub use self::message::{Message, MessageRef};
use super::builder::HandleOptions;
use super::interrupt::Interrupter;
use super::parking::WaitStats;
use super::pollable::Pollable;
use crate::error::{RecvError, RemoveError};
use crate::guard::Seat;
use crate::guard::deadline::Deadline;
use crate::lifecycle::{ConsumerSeat, RemoveOutcome};
use crate::ring::Damage;
#[cfg(feature = "tokio")]
use crate::ring::consume::Found;
use crate::ring::consume::LaneConsumer;

/// The consumer: receives the messages of all lanes, each lane's in order.
///
/// A message is released when its [`Message`] is dropped; what was received and not released comes
/// again to the next consumer, with the same lane and position. The store that gives the bytes back to
/// the producer is made once in a quarter lap, before every sleep, on an empty ring, and by
/// [`flush_released`](Self::flush_released): until then a kill makes the messages come again.
///
/// ```
/// # let name = format!("doc-consumer-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// # let mut producer = ring.attach_producer()?;
/// # producer.send(b"one")?; producer.send(b"two")?; drop(producer);
/// let mut consumer = ring.attach_consumer()?;
/// loop {
///     match consumer.recv() {
///         Ok(message) => println!("{} bytes from lane {}", message.len(), message.lane()),
///         Err(semring::RecvError::EndOfStream) => break, // all producers are gone
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # consumer.remove_at_end()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Consumer {
    core: ConsumerCore,
}

/// A message that is there.
#[cfg(feature = "tokio")]
pub(crate) struct FoundMessage(Found);

impl Consumer {
    pub(super) fn new(
        seat: ConsumerSeat,
        lanes: Vec<LaneConsumer>,
        damaged: Vec<(usize, Damage)>,
        options: HandleOptions,
    ) -> Self {
        Self {
            core: ConsumerCore::new(seat, lanes, damaged, options),
        }
    }

    /// The next message; waits until there is one.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when all producers are gone and everything was received (a ring to
    /// which nobody attached since the last end-of-stream has not ended: the call waits),
    /// [`Corrupt`](RecvError::Corrupt) once for each damaged lane, [`Removed`](RecvError::Removed).
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.core.next_message(Deadline::NEVER)
    }

    /// The next message if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv`](Self::recv); end-of-stream may be seen up to 50 µs
    /// late, because the kernel is not asked more often.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.core.try_next_message()
    }

    /// What [`try_recv`](Self::try_recv) would give; [`found`](Self::found) makes a message of it. In two
    /// steps, so that nothing is borrowed while a task waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_find(&mut self) -> Result<FoundMessage, RecvError> {
        self.core.try_next().map(FoundMessage)
    }

    /// The message that was found; nothing must have been called in between.
    #[cfg(feature = "tokio")]
    pub(crate) fn found(&mut self, found: FoundMessage) -> Message<'_> {
        self.core.message(found.0)
    }

    /// As [`recv`](Self::recv), but waits no longer than until a [`Deadline`]: a [`Duration`] from now on, or an
    /// [`Instant`], which several calls can share. A message that is there is received also after the deadline.
    ///
    /// [`Duration`]: std::time::Duration
    /// [`Instant`]: std::time::Instant
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// # let name = format!("doc-deadline-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # let mut consumer = ring.attach_consumer()?;
    /// # producer.send(b"one")?; producer.send(b"two")?;
    /// let deadline = Instant::now() + Duration::from_millis(20);
    /// let mut messages = Vec::new();
    /// while let Ok(message) = consumer.recv_deadline(deadline) {
    ///     messages.push(message.to_vec()); // whatever comes in 20 ms
    /// }
    /// assert_eq!(messages, [b"one", b"two"]);
    /// # drop((producer, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Message<'_>, RecvError> {
        self.core.next_message(deadline.into())
    }

    /// Waits until there is at least one message, then gives all that can be had as a batch that is
    /// released as one. Dropped by a panic, or [put back](RecvBatch::put_back), all come again.
    ///
    /// ```
    /// # let name = format!("doc-recv-batch-{}", std::process::id());
    /// # let ring = semring::spsc::Builder::new(&name).create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # for _ in 0..3 { producer.send(b"x")?; }
    /// let mut consumer = ring.attach_consumer()?;
    /// let mut batch = consumer.recv_batch()?;
    /// let mut bytes = Vec::new();
    /// while let Some(message) = batch.next_message() {
    ///     message.append_to(&mut bytes);
    /// }
    /// batch.release();
    /// assert_eq!(bytes, b"xxx");
    /// # drop((producer, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_batch(&mut self) -> Result<RecvBatch<'_>, RecvError> {
        self.core.next(Deadline::NEVER)?;
        Ok(RecvBatch::new(&mut self.core))
    }

    /// As [`recv_batch`](Self::recv_batch), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_batch_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<RecvBatch<'_>, RecvError> {
        self.core.next(deadline.into())?;
        Ok(RecvBatch::new(&mut self.core))
    }

    /// As [`recv_batch`](Self::recv_batch), but never waits.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_batch(&mut self) -> Result<RecvBatch<'_>, RecvError> {
        self.core.try_next()?;
        Ok(RecvBatch::new(&mut self.core))
    }

    /// Gives the bytes of every released message back to the producers now: a consumer killed after
    /// this gets none of them again.
    ///
    /// # Errors
    /// [`RecvError::Removed`], [`RecvError::Forked`].
    pub fn flush_released(&mut self) -> Result<(), RecvError> {
        self.core.begin()?;
        let released = self.core.release_all();
        let check = self.core.rest.seat.ring().check();
        released.and_then(|()| check.map_err(|error| self.core.failed(error)))
    }

    /// Takes nothing more, on purpose: producers see [`SendError::Closed`](crate::SendError::Closed),
    /// at once if they wait for room. Detaches. What is unread stays in the ring.
    pub fn close(mut self) {
        if self.core.rest.seat.ring().is_forked() {
            return;
        }
        let _ = self.flush_released();
        let _ = self.core.rest.seat.close();
    }

    /// Removes the ring if its stream has ended: no producer is attached and nothing is unread. Otherwise
    /// ([`RemoveOutcome::InUse`], [`RemoveOutcome::Unread`]) go on receiving.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] if the ring is another user's, and the others.
    pub fn remove_at_end(&mut self) -> Result<RemoveOutcome, RemoveError> {
        if self.core.rest.seat.ring().is_forked() {
            return Err(RemoveError::Forked);
        }
        self.core.remove_at_end()
    }

    /// How many producers ever attached to the ring. The difference between two moments tells whether
    /// a stream had several writers. 0 in a forked child, which does not have the ring's pages.
    #[must_use]
    pub fn attached_producers(&self) -> u64 {
        if self.core.rest.seat.ring().is_forked() {
            return 0;
        }
        self.core.rest.seat.attachments()
    }

    /// The producers of the stream whose end this consumer received last; `None` before the first
    /// [`RecvError::EndOfStream`].
    ///
    /// ```
    /// # let name = format!("doc-ended-{}", std::process::id());
    /// # let ring = semring::mpsc::Builder::new(&name).create()?;
    /// let mut consumer = ring.attach_consumer()?;
    /// drop(ring.attach_producer()?);
    /// ring.attach_producer()?.abort();
    /// assert_eq!(consumer.recv().unwrap_err(), semring::RecvError::EndOfStream);
    /// let ended = consumer.ended_producers().unwrap();
    /// assert_eq!((ended.finished, ended.died), (1, 1)); // the stream is incomplete
    /// # consumer.remove_at_end()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ended_producers(&self) -> Option<EndedProducers> {
        self.core.rest.pending.end.last_counts()
    }

    /// Messages released since the ring was made, those of predecessors included.
    #[must_use]
    pub fn received_messages(&self) -> u64 {
        self.core
            .merge
            .lanes()
            .iter()
            .map(LaneConsumer::taken_messages)
            .fold(0, u64::wrapping_add)
    }

    /// Lanes that are skipped because of impossible bytes.
    #[must_use]
    pub fn corrupt_lanes(&self) -> usize {
        self.core
            .merge
            .lanes()
            .iter()
            .filter(|lane| lane.is_corrupt())
            .count()
    }

    /// A descriptor for `poll(2)`, `epoll(7)` and event loops: see [`Pollable`]. It is readable when
    /// [`try_recv`](Self::try_recv) may have something to say: a message, the end of the stream, an
    /// error. To be asked for once; from then on a `try_recv` that gives
    /// [`Empty`](RecvError::Empty) costs a few system calls, and one that finds a message none, as before.
    ///
    /// ```
    /// use semring::{GuardChoice, RecvError, spsc};
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use std::os::fd::AsFd;
    ///
    /// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
    /// let mut consumer = ring.attach_consumer()?;
    /// let mut producer = ring.attach_producer()?;
    /// let descriptor = consumer.pollable()?;
    /// producer.send(b"one")?;
    /// producer.send(b"two")?;
    /// drop(producer);
    /// let mut received = Vec::new();
    /// loop {
    ///     match consumer.try_recv() {
    ///         Ok(message) => received.push(message.to_vec()),
    ///         // Sockets and timers can be in the same call.
    ///         Err(RecvError::Empty) => {
    ///             let mut set = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    ///             poll(&mut set, PollTimeout::NONE)?;
    ///         }
    ///         Err(RecvError::EndOfStream) => break,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// assert_eq!(received, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](std::io::ErrorKind::Unsupported) if the ring is guarded by semaphores, which can't
    /// be polled (make it with [`GuardChoice::Pipe`](crate::GuardChoice::Pipe)), or in a forked child.
    pub fn pollable(&mut self) -> std::io::Result<Pollable> {
        let core = &mut self.core;
        core.parking.pollable(core.rest.seat.ring(), Seat::Consumer)
    }

    /// For ending a blocking call of this consumer from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.core.parking.interrupter(self.core.rest.seat.ring())
    }

    /// How often this consumer slept in the kernel, and how often it woke a producer there.
    #[must_use]
    pub fn wait_stats(&self) -> WaitStats {
        WaitStats {
            sleeps: self.core.parking.sleeps(),
            wakeups: self.core.rest.room_wakers.posts(),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let core = &mut self.core;
        if core.rest.seat.ring().is_forked() || core.rest.pending.removed {
            return;
        }
        core.rest
            .pending
            .change(|pending| pending.end.forget_if_interrupted());
        core.record_end();
        let _ = core.release_all();
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("address", &self.core.rest.seat.ring().address)
            .finish_non_exhaustive()
    }
}
