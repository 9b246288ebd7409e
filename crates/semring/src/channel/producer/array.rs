//! Many messages of one size, sent as one.

use std::io;
use std::os::fd::AsFd;

use super::Producer;
use super::core::ProducerCore;
use crate::channel::element::{Element, size_of_element};
use crate::channel::kind::Kind;
use crate::channel::trust;
use crate::error::{Feature, SendError};
use crate::guard::deadline::{Deadline, Patience};
use crate::layout::Tag;
use crate::ring::produce::{Mode, Need, Slot};
use crate::sync::mutant::{self, Mutant};

impl<K: Kind> Producer<K> {
    /// Sends copies of all these messages, which have one size, together. Waits as [`send`](Self::send) does.
    ///
    /// They are one record, an *array*, with one header and one store that publishes all of them, as long as they
    /// have no more bytes together than [`max_message_bytes`](Self::max_message_bytes); else several arrays, one
    /// after the other. If nothing is to be sent, it does nothing.
    ///
    /// Each message is received like any other, and [`Consumer::recv_array`](crate::Consumer::recv_array) receives those of
    /// an array together. For many small messages this is several times faster than [`batch`](Self::batch): see
    /// `docs/performance.md`.
    ///
    /// ```
    /// # let ring = semring::spsc::Builder::memfd().create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # let mut consumer = ring.attach_consumer()?;
    /// producer.send_all(&[*b"buy ", *b"sell"])?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"buy ");
    /// assert_eq!(consumer.recv()?.to_vec(), b"sell");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`send`](Self::send). Each array was sent whole or not at all; where there were several, the difference of
    /// [`sent_messages`](Self::sent_messages) is the number of messages that were sent.
    /// [`SendError::MissingFeature`] if the ring was made without arrays.
    #[inline]
    pub fn send_all<T: Element>(&mut self, messages: &[T]) -> Result<(), SendError> {
        let tag = Tag::default();
        self.core
            .send_all::<T>(T::bytes_of(messages), tag, Patience::FOREVER)
            .1
    }

    /// As [`send_all`](Self::send_all), with a [`Tag`] for each of the messages.
    ///
    /// # Errors
    /// As [`send_all`](Self::send_all).
    ///
    /// # Panics
    /// If the framing is that of a [part](crate::Framing::continues).
    #[inline]
    pub fn send_all_with<T: Element>(&mut self, messages: &[T], tag: Tag) -> Result<(), SendError> {
        self.core
            .send_all::<T>(T::bytes_of(messages), tag, Patience::FOREVER)
            .1
    }

    /// As [`send_all`](Self::send_all), but waits no longer than until a [`Deadline`].
    ///
    /// If there is room the messages are sent also after the deadline.
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send_all`](Self::send_all).
    pub fn send_all_deadline<T: Element>(
        &mut self,
        messages: &[T],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        let patience = Patience::until(deadline);
        self.core
            .send_all::<T>(T::bytes_of(messages), Tag::default(), patience)
            .1
    }

    /// As [`send_all`](Self::send_all), but never waits. Returns the number of messages that were sent.
    ///
    /// Fewer than all were sent if there was room for the first arrays only.
    ///
    /// # Errors
    /// [`SendError::Full`] if there was no room for the first array, and those of [`send_all`](Self::send_all), if nothing
    /// was sent.
    #[inline]
    pub fn try_send_all<T: Element>(&mut self, messages: &[T]) -> Result<usize, SendError> {
        self.core.try_send_all::<T>(T::bytes_of(messages))
    }

    /// Reserves room for `count` messages of `message_bytes` bytes each, to be written in place and sent together.
    ///
    /// Waits while there is no room. Nothing is visible to the consumer before [`ArrayReservation::commit`], which
    /// sends them as one array.
    ///
    /// ```
    /// # let ring = semring::spsc::Builder::memfd().create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # let mut consumer = ring.attach_consumer()?;
    /// let mut array = producer.reserve_array(8, 100)?;
    /// for index in 0..50 {
    ///     array.write(index, &index.to_le_bytes());
    /// }
    /// array.commit(50); // the rest is not needed
    /// assert_eq!(consumer.recv_array()?.len(), 50);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send): [`SendError::TooLong`] if they are too long together.
    /// [`SendError::MissingFeature`] if the ring was made without arrays.
    ///
    /// # Panics
    /// If the messages have 0 bytes.
    #[inline]
    pub fn reserve_array(
        &mut self,
        message_bytes: usize,
        count: usize,
    ) -> Result<ArrayReservation<'_>, SendError> {
        self.core
            .reserve_array(message_bytes, count, Patience::FOREVER)
    }

    /// As [`reserve_array`](Self::reserve_array), but never waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), and [`reserve_array`](Self::reserve_array).
    ///
    /// # Panics
    /// If the messages have 0 bytes.
    #[inline]
    pub fn try_reserve_array(
        &mut self,
        message_bytes: usize,
        count: usize,
    ) -> Result<ArrayReservation<'_>, SendError> {
        self.core.reserve_array(message_bytes, count, Patience::Try)
    }

    /// As [`reserve_array`](Self::reserve_array), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline), and [`reserve_array`](Self::reserve_array).
    ///
    /// # Panics
    /// If the messages have 0 bytes.
    pub fn reserve_array_deadline(
        &mut self,
        message_bytes: usize,
        count: usize,
        deadline: impl Into<Deadline>,
    ) -> Result<ArrayReservation<'_>, SendError> {
        let patience = Patience::until(deadline);
        self.core.reserve_array(message_bytes, count, patience)
    }
}

impl ProducerCore {
    /// Sends the bytes of messages of type `T` as arrays, until all is sent or one is not. The number of messages sent, or
    /// dropped by the ring's policy.
    #[inline(always)]
    pub(super) fn send_all<T>(
        &mut self,
        bytes: &[u8],
        tag: Tag,
        patience: Patience,
    ) -> (usize, Result<(), SendError>) {
        let size = const { size_of_element::<T>() };
        assert_not_part(tag);
        if !bytes.is_empty()
            && let Some(slot) = self.fast_array_slot(bytes.len())
        {
            self.fill_and_publish(slot, bytes, size, tag);
            return (bytes.len() / size, Ok(()));
        }
        self.send_all_slow(bytes, size, tag, patience)
    }

    /// The same without waiting: an error only if nothing was sent.
    #[inline(always)]
    pub(super) fn try_send_all<T>(&mut self, bytes: &[u8]) -> Result<usize, SendError> {
        let (sent, result) = self.send_all::<T>(bytes, Tag::default(), Patience::Try);
        if sent == 0 {
            result?;
        }
        Ok(sent)
    }

    #[inline(never)]
    fn send_all_slow(
        &mut self,
        bytes: &[u8],
        size: usize,
        tag: Tag,
        patience: Patience,
    ) -> (usize, Result<(), SendError>) {
        let mut sent = 0;
        let max = self.gate.lane.capacity().max_message() as usize;
        // At least one: a single one that is too long is an error.
        let most = (max / size).max(1) * size;
        for part in bytes.chunks(most) {
            if let Err(error) = self.send_array(part, size, tag, patience) {
                return (sent, Err(error));
            }
            sent += part.len() / size;
        }
        (sent, Ok(()))
    }

    /// Sends one array of messages of this size. `bytes` is a multiple of it.
    fn send_array(
        &mut self,
        bytes: &[u8],
        size: usize,
        tag: Tag,
        patience: Patience,
    ) -> Result<(), SendError> {
        match self.array_slot(bytes.len(), patience) {
            Ok(slot) => self.fill_and_publish(slot, bytes, size, tag),
            Err(SendError::Full) => return self.drop_or_fail((bytes.len() / size) as u64),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// K1 to K5 for an array whose slot was just found: so the pages are there.
    #[inline(always)]
    fn fill_and_publish(&mut self, slot: Slot, bytes: &[u8], size: usize, tag: Tag) {
        let view = self.gate.lane.view();
        view.write_unchecked(slot.position(), slot.lead(), bytes);
        let count = (bytes.len() / size) as u32;
        self.publish_array(slot, size, count, tag);
    }

    #[inline(always)]
    fn fast_array_slot(&self, bytes: usize) -> Option<Slot> {
        let slot = self.gate.fast_array_slot(bytes)?;
        self.has_arrays.then_some(slot)
    }

    #[inline(always)]
    fn array_slot(&mut self, bytes: usize, patience: Patience) -> Result<Slot, SendError> {
        match self.fast_array_slot(bytes) {
            Some(slot) => Ok(slot),
            None => self.array_slot_slow(bytes, patience),
        }
    }

    #[inline(never)]
    fn array_slot_slow(&mut self, bytes: usize, patience: Patience) -> Result<Slot, SendError> {
        if !self.has_arrays {
            return Err(SendError::MissingFeature(Feature::Arrays));
        }
        self.reserve_slow(Need::Array(bytes), patience, Mode::Single)
    }

    /// K1, the rest of K2, K3 to K5.
    #[inline(always)]
    fn publish_array(&mut self, slot: Slot, size: usize, count: u32, tag: Tag) {
        self.gate.lane.commit_array(slot, size as u32, count, tag);
        if !mutant::is(Mutant::NoWakeAfterArray) {
            self.wake_consumer_unchecked(count);
        }
    }

    #[inline(always)]
    fn reserve_array(
        &mut self,
        message_bytes: usize,
        count: usize,
        patience: Patience,
    ) -> Result<ArrayReservation<'_>, SendError> {
        assert!(
            message_bytes > 0,
            "a message of an array has at least one byte"
        );
        let max = self.gate.lane.capacity().max_message() as usize;
        let bytes = message_bytes
            .checked_mul(count)
            .filter(|&bytes| bytes <= max);
        let Some(bytes) = bytes else {
            return Err(SendError::TooLong { max });
        };
        let slot = self.array_slot(bytes, patience)?;
        Ok(ArrayReservation {
            core: self,
            slot,
            message_bytes,
            tag: Tag::default(),
            written: 0,
        })
    }
}

fn assert_not_part(tag: Tag) {
    assert!(
        !tag.framing.continues(),
        "a part of a line is not a message of an array"
    );
}

/// Room for messages of one size, which are written in place: see [`Producer::reserve_array`].
///
/// The consumer does not see them before [`commit`](Self::commit); a reservation that is dropped without commit,
/// also by a panic, is discarded.
///
/// Bytes that were not written have any value.
#[derive(Debug)]
#[must_use = "a reservation that is not committed is discarded"]
pub struct ArrayReservation<'a> {
    core: &'a mut ProducerCore,
    slot: Slot,
    message_bytes: usize,
    tag: Tag,
    written: usize,
}

impl ArrayReservation<'_> {
    /// The number of messages for which there is room.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.slot.len() / self.message_bytes
    }

    /// True if room for no message was reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of each message.
    #[must_use]
    #[inline]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Writes a message, or several that lie one right after the other.
    ///
    /// # Panics
    /// If there is no room for that number of messages from this index on, or if the bytes are no whole messages.
    #[inline]
    pub fn write(&mut self, index: usize, messages: &[u8]) {
        assert!(
            messages.len().is_multiple_of(self.message_bytes),
            "the messages have another size"
        );
        let count = messages.len() / self.message_bytes;
        let fits = index
            .checked_add(count)
            .is_some_and(|end| end <= self.len());
        assert!(fits, "the array has fewer messages");
        let offset = self.slot.lead() + (index * self.message_bytes) as u64;
        let view = self.core.gate.lane.view();
        view.write(self.slot.position(), offset, messages);
    }

    /// Bytes written by [`fill_from`](Self::fill_from).
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Fills the rest of the room from a file, pipe or socket with one read(2), without a copy in between.
    ///
    /// It continues where the last one ended. Returns the number of bytes, 0 at the end of the input or if nothing
    /// is left. What is [written](Self::written) may end within a message.
    ///
    /// # Errors
    /// Those of read(2), `Interrupted` included; one that holds [`SendError::Removed`] if the ring's memory
    /// was taken away.
    pub fn fill_from(&mut self, source: impl AsFd) -> io::Result<usize> {
        let left = self.slot.len() - self.written;
        if left == 0 {
            return Ok(0);
        }
        let view = self.core.gate.lane.view();
        let within = self.slot.lead() + self.written as u64;
        let span = view.span(self.slot.position(), within, left);
        let got = span.fill_from(source.as_fd());
        if view.is_truncated() {
            return Err(io::Error::other(SendError::Removed));
        }
        let got = got?;
        self.written += got;
        Ok(got)
    }

    /// Sets the tag of each message.
    ///
    /// # Panics
    /// If the framing is that of a [part](crate::Framing::continues).
    pub fn set_tag(&mut self, tag: Tag) {
        assert_not_part(tag);
        self.tag = tag;
    }

    /// The bytes of all messages without a copy, if this process has promised to [trust its
    /// peers](crate::Builder::trust_peers).
    #[must_use]
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        let view = self.core.gate.lane.view();
        // Checked first: in a forked child the bytes are not mapped.
        if !self.core.options.trusts_peers || view.is_forked() {
            return None;
        }
        let len = self.slot.len();
        let start = view.bytes_at(self.slot.position(), self.slot.lead(), len);
        Some(trust::slice_mut(start, len))
    }

    /// Sends the first `count` messages: from now on the consumer can receive them. None if it is 0.
    ///
    /// One store publishes them. Wakes the consumer if it sleeps, as
    /// [`Reservation::commit`](crate::Reservation::commit) does.
    ///
    /// # Panics
    /// If room for fewer messages was reserved.
    #[inline]
    pub fn commit(self, count: usize) {
        assert!(count <= self.len(), "a reservation can only become shorter");
        // A reservation that was carried over a fork: the messages are the parent's to commit.
        if count == 0 || self.core.gate.lane.view().is_forked() {
            return;
        }
        let slot = self.slot.shortened(count * self.message_bytes);
        self.core
            .publish_array(slot, self.message_bytes, count as u32, self.tag);
    }

    /// Discards the reservation, as dropping does.
    pub fn discard(self) {}
}
