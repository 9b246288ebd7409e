//! Many messages of one size, received as one.

use std::io;
use std::os::fd::AsFd;

use super::Consumer;
use super::core::ConsumerCore;
use super::message::{MessageRef, taken_away};
use super::release::Releaser;
use crate::channel::element::{Element, size_of_element};
use crate::channel::trust;
use crate::error::RecvError;
use crate::guard::deadline::Deadline;
use crate::layout::view::Plain;
use crate::layout::{Position, Tag};
use crate::lifecycle::UnwindMark;
use crate::ring::arrays::FoundArray;
use crate::ring::consume::{Found, LaneConsumer};

/// Messages of one size that were received together, read where they lie in the shared memory.
///
/// They are what is left of an array, messages that [`Producer::send_all`](crate::Producer::send_all) sent
/// together, or one message that was sent by itself. Dropping it releases all of them, as dropping a
/// [`Message`](crate::Message) does; [`release_first`](Self::release_first) releases a part of them.
///
/// ```
/// # let ring = semring::spsc::Builder::memfd().create()?;
/// # let mut producer = ring.attach_producer()?;
/// let numbers: Vec<[u8; 8]> = (0..100u64).map(u64::to_le_bytes).collect();
/// producer.send_all(&numbers)?;
/// let mut consumer = ring.attach_consumer()?;
/// let array = consumer.recv_array()?;
/// assert_eq!((array.len(), array.message_bytes()), (100, 8));
/// assert_eq!(array.get(7).to_vec(), 7u64.to_le_bytes());
/// array.release_first(8); // the others come again
/// assert_eq!(consumer.recv()?.to_vec(), 8u64.to_le_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "messages that are dropped are released"]
pub struct ArrayRef<'a> {
    lane: &'a mut LaneConsumer,
    rest: &'a mut Releaser,
    found: FoundArray,
    mark: UnwindMark,
}

impl<'a> ArrayRef<'a> {
    #[inline(always)]
    fn new(lane: &'a mut LaneConsumer, rest: &'a mut Releaser, found: FoundArray) -> Self {
        Self {
            lane,
            rest,
            found,
            mark: UnwindMark::now(),
        }
    }

    /// The number of messages, at least 1.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.found.count as usize
    }

    /// Bytes of each message.
    ///
    /// 0 only of a message of 0 bytes, which was sent by itself.
    #[must_use]
    #[inline]
    pub fn message_bytes(&self) -> usize {
        self.found.first.header.payload() as usize
    }

    /// Bytes of all messages together, which lie one right after the other.
    #[must_use]
    #[inline]
    pub fn total_bytes(&self) -> usize {
        self.len() * self.message_bytes()
    }

    /// One of the messages.
    ///
    /// # Panics
    /// If there is none of this index.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> MessageRef<'_> {
        assert!(index < self.len(), "the array has fewer messages");
        let found = self.found.message(index as u32);
        MessageRef::new(
            self.lane.view(),
            self.lane.number(),
            found,
            &self.rest.options,
        )
    }

    /// The messages, one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MessageRef<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The [`Tag`] that the producer gave each message: a number, and how it was cut from a byte stream.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.found.first.header.tag()
    }

    /// Which producer sent them, as the number of its lane; see [`MessageRef::lane`].
    #[must_use]
    pub fn lane(&self) -> usize {
        self.lane.number()
    }

    /// Identifies the first message among those of its lane; see [`MessageRef::position`].
    #[must_use]
    pub fn position(&self) -> Position {
        self.found.first.position
    }

    /// False if the file of the ring was truncated: bytes that were read may be zeros; see
    /// [`MessageRef::is_intact`].
    #[must_use]
    #[inline]
    pub fn is_intact(&self) -> bool {
        !self.lane.view().is_truncated()
    }

    #[inline]
    fn check(&self) -> Result<(), RecvError> {
        if self.is_intact() {
            Ok(())
        } else {
            Err(RecvError::Removed)
        }
    }

    /// Copies the bytes of all messages to the front of a buffer; returns their number.
    ///
    /// # Panics
    /// If the buffer is shorter, or the messages are not [intact](Self::is_intact).
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.total_bytes();
        if self.checked_copy(&mut to[..len]).is_err() {
            taken_away();
        }
        len
    }

    #[inline]
    fn checked_copy(&self, to: &mut [u8]) -> Result<(), RecvError> {
        let Found { position, header } = self.found.first;
        self.lane.view().read(position, header.lead(), to);
        self.check()
    }

    /// Appends the messages to a vector.
    ///
    /// # Errors
    /// [`RecvError::OtherSize`] if they have another size than `T`; [`RecvError::Removed`] if they are not
    /// [intact](Self::is_intact). Nothing was appended.
    #[inline]
    pub fn append_to<T: Element>(&self, to: &mut Vec<T>) -> Result<(), RecvError> {
        append(self.lane, &self.found, to)
    }

    /// Writes the messages from an offset in bytes on with one write(2), without a copy in between.
    ///
    /// Returns the number of bytes written.
    ///
    /// # Errors
    /// Those of [`MessageRef::write_to`].
    ///
    /// # Panics
    /// If the messages end before the offset.
    pub fn write_to(&self, offset: usize, target: impl AsFd) -> io::Result<usize> {
        assert!(offset <= self.total_bytes(), "the messages are shorter");
        let Found { position, header } = self.found.first;
        let rest = self.total_bytes() - offset;
        let within = header.lead() + offset as u64;
        let written = self
            .lane
            .view()
            .span(position, within, rest)
            .drain_to(target.as_fd());
        self.check().map_err(io::Error::other)?;
        written
    }

    /// The bytes of all messages without a copy, if this process has promised to [trust its
    /// peers](crate::Builder::trust_peers).
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let view = self.lane.view();
        if !self.rest.options.trusts_peers || view.is_forked() {
            return None;
        }
        let Found { position, header } = self.found.first;
        let len = self.total_bytes();
        Some(trust::slice(
            view.bytes_at(position, header.lead(), len),
            len,
        ))
    }

    /// Releases all messages, as dropping does; also while a panic unwinds the thread.
    #[inline]
    pub fn release(mut self) {
        self.give_back();
        // Released already.
        std::mem::forget(self);
    }

    /// Releases only the first `count` messages: the consumer's next call delivers the others.
    ///
    /// As with single messages, their room goes back to the producer later, or with
    /// [`flush_released`](Consumer::flush_released).
    ///
    /// # Panics
    /// If there are fewer messages.
    pub fn release_first(mut self, count: usize) {
        assert!(count <= self.len(), "the array has fewer messages");
        if count == self.len() {
            self.give_back();
        } else {
            self.lane.take_first(&self.found, count as u32);
        }
        // Released already.
        std::mem::forget(self);
    }

    /// Puts the messages back: the consumer's next call delivers them again.
    pub fn put_back(self) {
        // Nothing was taken yet.
        std::mem::forget(self);
    }

    #[inline(always)]
    fn give_back(&mut self) {
        if self.lane.take_array(&self.found) {
            self.rest.settle_array(self.lane);
        }
    }
}

impl std::fmt::Debug for ArrayRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArrayRef")
            .field("lane", &self.lane())
            .field("position", &self.position())
            .field("len", &self.len())
            .field("message_bytes", &self.message_bytes())
            .finish()
    }
}

impl Drop for ArrayRef<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.mark.is_interrupted() {
            self.give_back();
        }
    }
}

/// Appends messages that were found to a vector.
#[inline(always)]
fn append<T: Plain>(
    lane: &LaneConsumer,
    found: &FoundArray,
    to: &mut Vec<T>,
) -> Result<(), RecvError> {
    let Found { position, header } = found.first;
    let bytes = header.payload() as usize;
    if bytes != const { size_of_element::<T>() } {
        return Err(RecvError::OtherSize { bytes });
    }
    let (view, before) = (lane.view(), to.len());
    view.append_elements(position, header.lead(), found.count as usize, to);
    if view.is_truncated() {
        to.truncate(before);
        return Err(RecvError::Removed);
    }
    Ok(())
}

impl ConsumerCore {
    /// The next message of the array that the current lane is inside, if nothing else is to be done first.
    #[inline]
    pub(super) fn rest_of_array(&self) -> Option<Found> {
        if !self.rest.pending.is_empty() {
            return None;
        }
        let lane = self.merge.current_lane();
        if !lane.view().is_intact() {
            return None;
        }
        lane.next_of_array()
    }

    /// The fast path: the next array, as [`load_header`](Self::load_header) finds the next message.
    #[inline(always)]
    fn load_array(&self) -> Option<FoundArray> {
        if !self.rest.pending.is_empty() {
            return None;
        }
        self.merge.current_lane().load_array()
    }

    #[inline(always)]
    fn find_array(&mut self, deadline: Deadline) -> Result<FoundArray, RecvError> {
        match self.load_array() {
            Some(found) => Ok(found),
            None => {
                let first = self.next(deadline)?;
                Ok(self.merge.current_lane().array_of(first))
            }
        }
    }

    #[inline(always)]
    fn try_find_array(&mut self) -> Result<FoundArray, RecvError> {
        match self.load_array() {
            Some(found) => Ok(found),
            None => {
                let first = self.try_next()?;
                Ok(self.merge.current_lane().array_of(first))
            }
        }
    }

    #[inline(always)]
    pub(super) fn recv_all<T: Plain>(
        &mut self,
        to: &mut Vec<T>,
        deadline: Deadline,
    ) -> Result<usize, RecvError> {
        let found = self.find_array(deadline)?;
        self.receive_all(&found, to)
    }

    #[inline(always)]
    pub(super) fn try_recv_all<T: Plain>(&mut self, to: &mut Vec<T>) -> Result<usize, RecvError> {
        let found = self.try_find_array()?;
        self.receive_all(&found, to)
    }

    /// Appends messages that were found to a vector, and takes them.
    #[inline(always)]
    fn receive_all<T: Plain>(
        &mut self,
        found: &FoundArray,
        to: &mut Vec<T>,
    ) -> Result<usize, RecvError> {
        let lane = self.merge.current_mut();
        append(lane, found, to)?;
        if lane.take_array(found) {
            self.rest.settle_array(lane);
        }
        Ok(found.count as usize)
    }

    #[inline(always)]
    fn array(&mut self, found: FoundArray) -> ArrayRef<'_> {
        ArrayRef::new(self.merge.current_mut(), &mut self.rest, found)
    }
}

impl Consumer {
    /// Receives messages that were sent together ([`Producer::send_all`](crate::Producer::send_all)); waits until
    /// there are some.
    ///
    /// They are all that is left of an array. A message that was sent by itself is given as an array of one.
    ///
    /// [`recv`](Self::recv) and batches give the same messages one by one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn recv_array(&mut self) -> Result<ArrayRef<'_>, RecvError> {
        let found = self.core.find_array(Deadline::NEVER)?;
        Ok(self.core.array(found))
    }

    /// As [`recv_array`](Self::recv_array), but never waits.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_array(&mut self) -> Result<ArrayRef<'_>, RecvError> {
        let found = self.core.try_find_array()?;
        Ok(self.core.array(found))
    }

    /// As [`recv_array`](Self::recv_array), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_array_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<ArrayRef<'_>, RecvError> {
        let found = self.core.find_array(deadline.into())?;
        Ok(self.core.array(found))
    }

    /// Receives messages of one size that were sent together into a vector; waits until there are some.
    ///
    /// They are the messages of the next array ([`Producer::send_all`](crate::Producer::send_all)), what is left
    /// of it, or one message that was sent by itself. They are released. Returns their number.
    ///
    /// ```
    /// # let ring = semring::spsc::Builder::memfd().create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # let mut consumer = ring.attach_consumer()?;
    /// producer.send_all(&[*b"first", *b"other"])?;
    /// producer.send(b"third")?;
    /// let mut words: Vec<[u8; 5]> = Vec::new();
    /// assert_eq!(consumer.recv_all(&mut words)?, 2);
    /// assert_eq!(consumer.recv_all(&mut words)?, 1);
    /// assert_eq!(words, [*b"first", *b"other", *b"third"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvError::OtherSize`] if the next message has another size than `T`: it stays where it is, and every further
    /// call returns the same; [`recv`](Self::recv) receives it. Those of [`recv`](Self::recv).
    #[inline]
    pub fn recv_all<T: Element>(&mut self, to: &mut Vec<T>) -> Result<usize, RecvError> {
        self.core.recv_all(to, Deadline::NEVER)
    }

    /// As [`recv_all`](Self::recv_all), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv_all`](Self::recv_all).
    pub fn recv_all_deadline<T: Element>(
        &mut self,
        to: &mut Vec<T>,
        deadline: impl Into<Deadline>,
    ) -> Result<usize, RecvError> {
        self.core.recv_all(to, deadline.into())
    }

    /// As [`recv_all`](Self::recv_all), but never waits.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv_all`](Self::recv_all).
    #[inline]
    pub fn try_recv_all<T: Element>(&mut self, to: &mut Vec<T>) -> Result<usize, RecvError> {
        self.core.try_recv_all(to)
    }
}
