//! The consumer's public methods. The path of a message is in `core`.

mod array;
mod backoff;
mod batch;
mod core;
mod end_of_stream;
mod message;
mod message_wait;
mod messages;
mod parts;
mod release;
mod spin;
#[cfg(feature = "zerocopy")]
mod value;

pub use self::array::ArrayRef;
pub use self::batch::RecvBatch;
use self::core::ConsumerCore;
pub use self::message::{Message, MessageRef};
pub use self::messages::Messages;
use super::interrupt::Interrupter;
use super::options::HandleOptions;
use super::parking::WaitStats;
use super::pollable::Pollable;
use crate::error::{RecvError, RemoveError};
use crate::guard::Role;
use crate::guard::deadline::Deadline;
use crate::lifecycle::{ConsumerRole, RemoveOutcome};
use crate::ring::Damage;
#[cfg(feature = "tokio")]
use crate::ring::consume::Found;
use crate::ring::consume::LaneConsumer;

/// The receiving side of a ring: receives the messages of all its producers, those of each producer in order.
///
/// A message is taken when its [`Message`] is dropped. Its room goes back to the producer later: after a quarter
/// of the producer's buffer was taken, before each sleep, on an empty ring, or with
/// [`flush_released`](Self::flush_released). If this process is killed before that, the next consumer receives the
/// message again, with the same lane and position: see [At least once](crate#at-least-once-and-deduplication).
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
///         Err(semring::RecvError::EndOfStream { .. }) => break, // all producers are gone
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
        role: ConsumerRole,
        lanes: Vec<LaneConsumer>,
        damaged: Vec<(usize, Damage)>,
        options: HandleOptions,
    ) -> Self {
        Self {
            core: ConsumerCore::new(role, lanes, damaged, options),
        }
    }

    /// Receives the next message; waits until there is one.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when all producers are gone and everything was received; every further call
    /// returns the same until [`resume`](Self::resume). (If no producer has attached since the last end of stream, of
    /// this consumer or another one, the call waits.) [`Corrupt`](RecvError::Corrupt) once for each damaged lane,
    /// [`Removed`](RecvError::Removed).
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.core.next_message(Deadline::NEVER)
    }

    /// Receives the next message if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv`](Self::recv); end of stream may be reported up to
    /// 50 µs late, because the guard is not checked more often.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.core.try_next_message()
    }

    /// The search of [`try_recv`](Self::try_recv); [`found`](Self::found) makes a message of its result.
    /// In two steps, so that nothing is borrowed while a task waits.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_find(&mut self) -> Result<FoundMessage, RecvError> {
        self.core.try_next().map(FoundMessage)
    }

    /// The message that was found; nothing must have been called in between.
    #[cfg(feature = "tokio")]
    pub(crate) fn found(&mut self, found: FoundMessage) -> Message<'_> {
        self.core.message(found.0)
    }

    /// As [`recv`](Self::recv), but waits no longer than until a [`Deadline`].
    ///
    /// That is a [`Duration`] from now on, or an [`Instant`], which several calls can share. A message that is
    /// there is received also after the deadline.
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
    ///     messages.push(message.to_vec()); // everything that comes within 20 ms
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

    /// Receives the next message of one producer, given by its lane; waits until there is one.
    ///
    /// For messages that belong together, such as [parts of a line](crate::Framing::LinePart). Lanes are numbered
    /// from 0 ([`Message::lane`]). The messages of other lanes stay where they are meanwhile, and their producers
    /// wait when their lanes are full: a producer that is stopped holds them all back for as long. After a
    /// [part](crate::Framing::continues), a message of another producer than the part's is never given: there
    /// `LaneEnded` comes first.
    ///
    /// What was received is released as always. Released with [`Message::release_part`], a message leaves a note that the
    /// lane's next one continues it; see [`continued_lane`](Self::continued_lane).
    ///
    /// ```
    /// use semring::{Framing, RecvError, Tag};
    /// # let name = format!("doc-recv-from-{}", std::process::id());
    /// # let ring = semring::mpsc::Builder::new(&name).create()?;
    /// let mut long = ring.attach_producer()?;
    /// let mut short = ring.attach_producer()?;
    /// long.send_with(b"a line in ", Tag::default().with_framing(Framing::LinePart))?;
    /// short.send(b"another line")?;
    /// long.send_with(b"two parts", Tag::default().with_framing(Framing::Line))?;
    /// let mut consumer = ring.attach_consumer()?;
    /// let mut line = Vec::new();
    /// let part = consumer.recv()?;
    /// let (mut lane, mut continues) = (part.lane(), part.tag().framing.continues());
    /// part.append_to(&mut line);
    /// part.release_part();
    /// while continues {
    ///     let part = match consumer.recv_from(lane) {
    ///         Err(RecvError::LaneEnded) => break, // the producer is gone: the line is cut
    ///         part => part?,
    ///     };
    ///     continues = part.tag().framing.continues();
    ///     part.append_to(&mut line);
    ///     if continues { part.release_part() } else { part.release() }
    /// }
    /// assert_eq!(line, b"a line in two parts");
    /// # drop((long, short, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError::LaneEnded`] when the lane's producer is gone and everything that it sent was received, when another one
    /// has taken its place inside what it had begun, and when the lane is corrupt (which is reported first); those of
    /// [`recv`](Self::recv) but for the end of the stream, which `recv` gives next.
    ///
    /// # Panics
    /// If the ring has no such lane.
    pub fn recv_from(&mut self, lane: usize) -> Result<Message<'_>, RecvError> {
        self.core.next_from(lane, Some(Deadline::NEVER))
    }

    /// As [`recv_from`](Self::recv_from), but never waits.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv_from`](Self::recv_from).
    ///
    /// # Panics
    /// If the ring has no such lane.
    pub fn try_recv_from(&mut self, lane: usize) -> Result<Message<'_>, RecvError> {
        self.core.next_from(lane, None)
    }

    /// As [`recv_from`](Self::recv_from), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv_from`](Self::recv_from).
    ///
    /// # Panics
    /// If the ring has no such lane.
    pub fn recv_from_deadline(
        &mut self,
        lane: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<Message<'_>, RecvError> {
        self.core.next_from(lane, Some(deadline.into()))
    }

    /// The lane of a long line of which the previous consumer received only a part; `None` if there is none.
    ///
    /// That consumer had released a [part](Message::release_part), and the next message of this lane continues it.
    /// [`recv_from`](Self::recv_from) gives that message.
    ///
    /// A predecessor that received parts of several lanes in turn may have left several: the lowest is given, and after a
    /// call of `recv_from` for it the next one. Other calls do not change it.
    #[must_use]
    pub fn continued_lane(&self) -> Option<usize> {
        self.core.continued.first().copied()
    }

    /// Waits until there is at least one message, then returns all that are available, to be released together.
    ///
    /// If a panic drops the batch, or it is [put back](RecvBatch::put_back), all of them are delivered again.
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

    /// An iterator over the messages up to the end of the stream, each copied into a vector and released.
    ///
    /// It waits for each message. A loop over [`recv`](Self::recv) in its place lends messages and copies nothing.
    ///
    /// It ends at the end of the stream, and stays there until [`resume`](Self::resume). An error is one item; after
    /// one that stays ([`RecvError::Removed`], [`RecvError::Forked`]) it ends.
    ///
    /// ```
    /// # let ring = semring::spsc::Builder::memfd().create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # producer.send(b"one")?; producer.send(b"two")?; drop(producer);
    /// let mut consumer = ring.attach_consumer()?;
    /// let messages: Result<Vec<_>, _> = consumer.messages().collect();
    /// assert_eq!(messages?, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn messages(&mut self) -> Messages<'_> {
        Messages::new(self)
    }

    /// As [`recv_batch`](Self::recv_batch), but never waits.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_batch(&mut self) -> Result<RecvBatch<'_>, RecvError> {
        self.core.try_next()?;
        Ok(RecvBatch::new(&mut self.core))
    }

    /// Makes sure that the messages dropped so far are not delivered again, even if this process is killed.
    ///
    /// Gives their room back to the producers now. It has taken effect when the call has returned.
    ///
    /// # Errors
    /// [`RecvError::Removed`], [`RecvError::Forked`].
    pub fn flush_released(&mut self) -> Result<(), RecvError> {
        self.core.begin()?;
        let released = self.core.release_all();
        let check = self.core.rest.role.ring().check();
        released.and_then(|()| check.map_err(|error| self.core.failed(error)))
    }

    /// Closes the ring: its producers get [`SendError::Closed`](crate::SendError::Closed), at once if they wait
    /// for room.
    ///
    /// The consumer detaches. Unread messages stay in the ring.
    pub fn close(mut self) {
        if self.core.rest.role.ring().is_forked() {
            return;
        }
        let _ = self.flush_released();
        let _ = self.core.rest.role.close();
    }

    /// Goes on after the end of the stream: the next call waits for the next producer.
    ///
    /// Returns at once, and the next call does if a producer already attached after the end that was delivered. No
    /// message is skipped: what such a producer sent waits in the ring, also if it has left again. Does nothing if
    /// the stream has not ended.
    ///
    /// ```
    /// use semring::{RecvError, spsc};
    /// let ring = spsc::Builder::memfd().create()?;
    /// let mut consumer = ring.attach_consumer()?;
    /// ring.attach_producer()?.send(b"one")?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"one");
    /// let end = RecvError::EndOfStream { finished: 1, died: 0 };
    /// assert_eq!(consumer.recv().unwrap_err(), end);
    ///
    /// ring.attach_producer()?.send(b"two")?;
    /// assert_eq!(consumer.recv().unwrap_err(), end);
    /// consumer.resume();
    /// assert_eq!(consumer.recv()?.to_vec(), b"two");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&mut self) {
        self.core.resume();
    }

    /// Removes the ring if its stream has ended: no producer is attached and nothing is unread.
    ///
    /// Otherwise ([`RemoveOutcome::InUse`], [`RemoveOutcome::Unread`]) the consumer is [resumed](Self::resume): go
    /// on receiving.
    ///
    /// # Errors
    /// [`RemoveError::Permission`] if the ring is another user's, and the others.
    pub fn remove_at_end(&mut self) -> Result<RemoveOutcome, RemoveError> {
        if self.core.rest.role.ring().is_forked() {
            return Err(RemoveError::Forked);
        }
        self.core.remove_at_end()
    }

    /// The number of producers that have ever attached to the ring.
    ///
    /// The difference between two moments shows whether a stream had several producers. 0 in a forked child, in
    /// which the ring's pages are not mapped.
    #[must_use]
    pub fn attached_producers(&self) -> u64 {
        if self.core.rest.role.ring().is_forked() {
            return 0;
        }
        self.core.rest.role.attachments()
    }

    /// The number of messages received since the ring was made, by this consumer and earlier ones.
    ///
    /// A message counts when it is dropped or released.
    #[must_use]
    pub fn received_messages(&self) -> u64 {
        self.core
            .merge
            .lanes()
            .iter()
            .map(LaneConsumer::taken_messages)
            .fold(0, u64::wrapping_add)
    }

    /// The number of messages that producers dropped because their buffers were full, since the ring was made.
    ///
    /// Of all lanes. Only on rings made with [`WhenFull::Drop`](crate::WhenFull::Drop). 0 in a forked child.
    #[must_use]
    pub fn dropped_messages(&self) -> u64 {
        if self.core.rest.role.ring().is_forked() {
            return 0;
        }
        let lanes = self.core.merge.lanes().iter();
        lanes
            .map(LaneConsumer::dropped_messages)
            .fold(0, u64::wrapping_add)
    }

    /// The number of producers' buffers (lanes) that are skipped because they are corrupt.
    #[must_use]
    pub fn corrupt_lanes(&self) -> usize {
        self.core
            .merge
            .lanes()
            .iter()
            .filter(|lane| lane.is_corrupt())
            .count()
    }

    /// A descriptor for `poll(2)`, `epoll(7)` and event loops: see [`Pollable`].
    ///
    /// It is readable when [`try_recv`](Self::try_recv) may return something other than `Empty`: a message, the
    /// end of stream, an error. Request it once. From then on a `try_recv` that returns
    /// [`Empty`](RecvError::Empty) costs a few system calls; one that finds a message still costs none.
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
    ///         Err(RecvError::EndOfStream { .. }) => break,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// assert_eq!(received, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](std::io::ErrorKind::Unsupported) if the ring is guarded by semaphores, which can't
    /// be polled (make it with [`GuardChoice::Pipe`](crate::GuardChoice::Pipe)), in a forked child, or if the consumer
    /// [lingers](crate::Builder::linger).
    pub fn pollable(&mut self) -> std::io::Result<Pollable> {
        let core = &mut self.core;
        if !core.rest.options.linger.is_zero() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                "a consumer that lingers can't be polled: nothing makes its descriptor readable when the time is over",
            ));
        }
        core.parking.pollable(core.rest.role.ring(), Role::Consumer)
    }

    /// A handle that ends a blocking call of this consumer from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.core.parking.interrupter(self.core.rest.role.ring())
    }

    /// Counts how often this consumer slept in the kernel, and how often it woke a producer there.
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
        if core.rest.role.ring().is_forked() || core.rest.pending.removed {
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
            .field("address", &self.core.rest.role.ring().address)
            .finish_non_exhaustive()
    }
}
