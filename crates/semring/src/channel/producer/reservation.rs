//! Room for messages that are being written: one, or a batch.

use std::io;
use std::os::fd::AsFd;

use super::core::ProducerCore;
use crate::channel::trust;
use crate::error::SendError;
use crate::guard::deadline::{Deadline, Patience};
use crate::layout::{Position, Tag};
use crate::ring::produce::Slot;

/// Room for one message, which is written in place.
///
/// The consumer does not see it before [`commit`](Self::commit); a reservation that is dropped without commit,
/// also by a panic, is discarded.
///
/// Bytes that were not written have any value.
///
/// ```
/// use std::io::Write;
/// # let name = format!("doc-reservation-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut producer = ring.attach_producer()?;
/// let mut reservation = producer.reserve(100)?;
/// write!(reservation, "{} + {} = {}", 1, 2, 3)?;
/// let written = reservation.written();
/// reservation.truncate(written);
/// reservation.commit();
/// assert_eq!(ring.attach_consumer()?.recv()?.to_vec(), b"1 + 2 = 3");
/// # drop(producer); ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a reservation that is not committed is discarded"]
pub struct Reservation<'a> {
    core: &'a mut ProducerCore,
    slot: Slot,
    tag: Tag,
    written: usize,
}

impl<'a> Reservation<'a> {
    pub(super) fn new(core: &'a mut ProducerCore, slot: Slot) -> Self {
        Self {
            core,
            slot,
            tag: Tag::default(),
            written: 0,
        }
    }

    /// Bytes of the message.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// True for a message of 0 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The [position](crate::MessageRef::position) that the message will have.
    #[must_use]
    pub fn position(&self) -> Position {
        self.slot.position()
    }

    /// Writes bytes at an offset.
    ///
    /// # Panics
    /// If they don't fit.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "the bytes don't fit the reservation"
        );
        self.core.gate.lane.view().write(
            self.slot.position(),
            self.slot.lead() + offset as u64,
            bytes,
        );
    }

    /// The number of bytes written so far, by [`io::Write`] and [`fill_from`](Self::fill_from).
    ///
    /// Each of them continues where the last write ended.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Fills the rest of the reservation from a file, pipe or socket with one read(2), without a copy in between.
    ///
    /// Returns the number of bytes, 0 at the end of the input or if nothing is left.
    ///
    /// # Errors
    /// Those of read(2), `Interrupted` included; one that holds [`SendError::Removed`] if the ring's memory
    /// was taken away.
    pub fn fill_from(&mut self, source: impl AsFd) -> io::Result<usize> {
        let left = self.len() - self.written;
        if left == 0 {
            return Ok(0);
        }
        let span = self.core.gate.lane.view().span(
            self.slot.position(),
            self.slot.lead() + self.written as u64,
            left,
        );
        let got = span.fill_from(source.as_fd());
        if self.core.gate.lane.view().is_truncated() {
            return Err(io::Error::other(SendError::Removed));
        }
        let got = got?;
        self.written += got;
        Ok(got)
    }

    /// Makes the message shorter.
    ///
    /// # Panics
    /// If `len` is longer than the reservation.
    pub fn truncate(&mut self, len: usize) {
        self.slot = self.slot.shortened(len);
        self.written = self.written.min(len);
    }

    /// Sets the message's tag: a kind and a framing.
    pub fn set_tag(&mut self, tag: Tag) {
        self.tag = tag;
    }

    /// The bytes without a copy, if this process has promised to [trust its peers](crate::Builder::trust_peers).
    #[must_use]
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        // Checked first: in a forked child the bytes are not mapped.
        if !self.core.options.trusts_peers || self.core.gate.lane.view().is_forked() {
            return None;
        }
        let len = self.len();
        let view = self.core.gate.lane.view();
        let start = view.bytes_at(self.slot.position(), self.slot.lead(), len);
        Some(trust::slice_mut(start, len))
    }

    /// Sends the message: from now on the consumer can receive it.
    ///
    /// One store publishes it. Wakes the consumer if it sleeps; if that fails, the producer's next call reports
    /// the error, and the message is committed all the same.
    #[inline]
    pub fn commit(self) {
        self.core.commit(self.slot, self.tag);
    }

    /// Discards the reservation, as dropping does.
    pub fn discard(self) {}
}

impl io::Write for Reservation<'_> {
    /// Appends to the bytes written; returns 0 when the reservation is full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.len() - self.written);
        self.write_at(self.written, &bytes[..fits]);
        self.written += fits;
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages that the consumer sees all at once, when the batch is committed.
///
/// A batch that is dropped without a [`commit`](Self::commit), also by a panic, is committed as well: each of its
/// messages is complete. (A producer that is dropped by the panic then counts as died, so its consumer can see
/// that the stream is not complete.)
#[derive(Debug)]
#[must_use = "a batch that is dropped at once is empty"]
pub struct SendBatch<'a> {
    core: &'a mut ProducerCore,
}

impl<'a> SendBatch<'a> {
    pub(super) fn new(core: &'a mut ProducerCore) -> Self {
        core.begin_batch();
        Self { core }
    }

    /// Adds a message; waits while there is no room for it.
    ///
    /// Before it waits, the messages of the batch are published: only a batch that fits the lane becomes visible
    /// at once.
    ///
    /// # Errors
    /// As [`Producer::send`](crate::Producer::send); messages pushed before stay in the batch.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core.push(bytes, Tag::default(), Patience::FOREVER)
    }

    /// As [`push`](Self::push), with a [`Tag`] for the consumer: a kind and a framing.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_with(&mut self, bytes: &[u8], tag: Tag) -> Result<(), SendError> {
        self.core.push(bytes, tag, Patience::FOREVER)
    }

    /// As [`try_push`](Self::try_push), with a [`Tag`] for the consumer.
    ///
    /// # Errors
    /// As [`try_push`](Self::try_push).
    #[inline]
    pub fn try_push_with(&mut self, bytes: &[u8], tag: Tag) -> Result<(), SendError> {
        self.core.push(bytes, tag, Patience::Try)
    }

    /// Adds a message if there is room; never waits and publishes nothing.
    ///
    /// # Errors
    /// [`SendError::Full`], and those of [`push`](Self::push).
    #[inline]
    pub fn try_push(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.core.push(bytes, Tag::default(), Patience::Try)
    }

    /// As [`push`](Self::push), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`push`](Self::push).
    pub fn push_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.core
            .push(bytes, Tag::default(), Patience::until(deadline))
    }

    /// True if the batch holds no message that the consumer can't see yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.core.gate.lane.batch_is_empty()
    }

    /// Sends the messages of the batch: from now on the consumer can receive them.
    ///
    /// One store publishes them all.
    pub fn commit(self) {}
}

impl Drop for SendBatch<'_> {
    fn drop(&mut self) {
        self.core.end_batch();
    }
}
