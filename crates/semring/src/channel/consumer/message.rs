//! Messages that were received and not yet released.

use std::io;
use std::os::fd::AsFd;

use super::release::Releaser;
use crate::channel::options::HandleOptions;
use crate::channel::trust;
use crate::error::RecvError;
use crate::layout::view::LaneView;
use crate::layout::{Position, Tag};
use crate::lifecycle::{UnwindMark, generation_at};
use crate::ring::consume::{Found, LaneConsumer};

/// A reference to one message in the ring: its bytes, lane and position.
///
/// A batch lends its messages in this form ([`RecvBatch::next_message`](crate::RecvBatch::next_message)), and a
/// [`Message`] gives one for code that handles both.
#[derive(Clone, Copy)]
pub struct MessageRef<'a> {
    lane: &'a LaneView,
    number: usize,
    found: Found,
    options: &'a HandleOptions,
}

impl<'a> MessageRef<'a> {
    #[inline(always)]
    pub(super) fn new(
        lane: &'a LaneView,
        number: usize,
        found: Found,
        options: &'a HandleOptions,
    ) -> Self {
        Self {
            lane,
            number,
            found,
            options,
        }
    }

    /// Bytes of the message.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.found.header.payload() as usize
    }

    /// True for a message of 0 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The [`Tag`] that the producer gave the message: a number, and how it was cut from a byte stream.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.found.header.tag()
    }

    /// Which producer sent it: the number of that producer's buffer in the ring (its *lane*), from 0.
    ///
    /// It identifies the producer as long as that producer is attached; later another one can get the lane.
    #[must_use]
    pub fn lane(&self) -> usize {
        self.number
    }

    /// Which of the producers that this lane has had sent it: 1 is the first that ever attached to it, 2 the next.
    ///
    /// `None` if another producer has attached since, or was about to, and in a forked child; lane and position
    /// identify the message all the same.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        generation_at(self.lane, self.position())
    }

    /// Identifies it among the messages of its lane: a message that is delivered again has the same position.
    ///
    /// No other message of the lane ever has it. It is the number of bytes, headers included, that were written to
    /// the lane before.
    #[must_use]
    pub fn position(&self) -> Position {
        self.found.position
    }

    /// False if the file of the ring was truncated before the message was released: bytes that were read may be
    /// zeros.
    ///
    /// Methods that copy (`to_vec`, `read_at` and the others) check this afterwards themselves; code that uses a
    /// slice must check it when it is done with the slice.
    #[must_use]
    #[inline]
    pub fn is_intact(&self) -> bool {
        !self.lane.is_truncated()
    }

    /// Copies bytes from an offset to a buffer.
    ///
    /// # Panics
    /// If the message ends before, or is not [intact](Self::is_intact);
    /// [`checked_read_at`](Self::checked_read_at) returns an error instead.
    #[inline]
    pub fn read_at(&self, offset: usize, to: &mut [u8]) {
        if self.checked_read_at(offset, to).is_err() {
            taken_away();
        }
    }

    /// As [`read_at`](Self::read_at).
    ///
    /// # Errors
    /// [`RecvError::Removed`] if the message is not [intact](Self::is_intact).
    ///
    /// # Panics
    /// If the message ends before.
    #[inline]
    pub fn checked_read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), RecvError> {
        let end = offset.checked_add(to.len());
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "the message is shorter"
        );
        self.lane.read(
            self.position(),
            self.found.header.lead() + offset as u64,
            to,
        );
        self.check()
    }

    /// A private copy of the bytes of a message that has the size of a `T`.
    #[cfg(feature = "zerocopy")]
    #[inline(always)]
    pub(super) fn with_copy<T, R>(&self, use_it: impl FnOnce(&[u8]) -> R) -> R {
        let lead = self.found.header.lead();
        self.lane.with_copy::<T, R>(self.position(), lead, use_it)
    }

    #[inline]
    fn check(&self) -> Result<(), RecvError> {
        if self.is_intact() {
            Ok(())
        } else {
            Err(RecvError::Removed)
        }
    }

    /// Copies the message to the front of a buffer; returns its length.
    ///
    /// # Panics
    /// If the buffer is shorter than the message, and as [`read_at`](Self::read_at).
    #[inline(always)]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len();
        // Into an array that the message fills, it is copied without a call of `memcpy`.
        if len == to.len() {
            self.read_at(0, to);
        } else {
            self.read_at(0, &mut to[..len]);
        }
        len
    }

    /// Appends the message to a vector.
    ///
    /// # Panics
    /// If it is not [intact](Self::is_intact); [`checked_append_to`](Self::checked_append_to) returns
    /// an error instead.
    #[inline]
    pub fn append_to(&self, to: &mut Vec<u8>) {
        if self.checked_append_to(to).is_err() {
            taken_away();
        }
    }

    /// As [`append_to`](Self::append_to).
    ///
    /// # Errors
    /// [`RecvError::Removed`] if the message is not [intact](Self::is_intact): nothing was appended.
    #[inline]
    pub fn checked_append_to(&self, to: &mut Vec<u8>) -> Result<(), RecvError> {
        let before = to.len();
        self.lane
            .append(self.position(), self.found.header.lead(), self.len(), to);
        self.check().inspect_err(|_| to.truncate(before))
    }

    /// The message as a vector.
    ///
    /// # Panics
    /// As [`append_to`](Self::append_to).
    #[must_use]
    #[inline]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// Writes the message from an offset on with one write(2), without a copy in between.
    ///
    /// Returns the number of bytes written.
    ///
    /// # Errors
    /// Those of write(2), `Interrupted` included; one that holds [`RecvError::Removed`] if the message is
    /// not [intact](Self::is_intact).
    ///
    /// # Panics
    /// If the message ends before the offset.
    pub fn write_to(&self, offset: usize, target: impl AsFd) -> io::Result<usize> {
        assert!(offset <= self.len(), "the message is shorter");
        let rest = self.len() - offset;
        let span = self.lane.span(
            self.position(),
            self.found.header.lead() + offset as u64,
            rest,
        );
        let written = span.drain_to(target.as_fd());
        self.check().map_err(io::Error::other)?;
        written
    }

    /// The bytes without a copy, if this process has promised to [trust its peers](crate::Builder::trust_peers).
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        // Checked first: in a forked child the bytes are not mapped.
        if !self.options.trusts_peers || self.lane.is_forked() {
            return None;
        }
        let lead = self.found.header.lead();
        let start = self.lane.bytes_at(self.position(), lead, self.len());
        Some(trust::slice(start, self.len()))
    }
}

/// Called where bytes are copied without a way to return an error.
#[cold]
#[inline(never)]
pub(super) fn taken_away() -> ! {
    panic!(
        "the memory of the ring was taken away (its file was truncated) while a message was read"
    )
}

impl std::fmt::Debug for MessageRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("lane", &self.lane())
            .field("position", &self.position())
            .field("len", &self.len())
            .finish()
    }
}

/// A received message, read where it lies in the shared memory.
///
/// Dropping it takes it: the consumer's next call returns the next one. Its room goes back to the producer later:
/// see [At least once](crate#at-least-once-and-deduplication).
///
/// A message that is dropped by a panic is not released: the next call, or the next consumer, receives it
/// again. [`release`](Self::release) releases it in any case. A message that was received while the thread was
/// already unwinding (in a destructor) is released by dropping it, as usual.
///
/// ```
/// use std::io::Read;
/// # let name = format!("doc-message-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// # let mut producer = ring.attach_producer()?;
/// # producer.send(b"some text")?;
/// # let mut consumer = ring.attach_consumer()?;
/// let mut message = consumer.recv()?;
/// let mut text = String::new();
/// message.read_to_string(&mut text)?;
/// assert_eq!(text, "some text");
/// # drop(message); drop((producer, consumer)); ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a message that is dropped is released"]
pub struct Message<'a> {
    lane: &'a mut LaneConsumer,
    rest: &'a mut Releaser,
    found: Found,
    read: usize,
    mark: UnwindMark,
}

impl<'a> Message<'a> {
    #[inline(always)]
    pub(super) fn new(lane: &'a mut LaneConsumer, rest: &'a mut Releaser, found: Found) -> Self {
        Self {
            lane,
            rest,
            found,
            read: 0,
            mark: UnwindMark::now(),
        }
    }

    /// A reference to the message, for code that also takes the messages of a batch.
    #[must_use]
    #[inline]
    pub fn as_message_ref(&self) -> MessageRef<'_> {
        MessageRef::new(
            self.lane.view(),
            self.lane.number(),
            self.found,
            &self.rest.options,
        )
    }

    /// Bytes of the message.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.as_message_ref().len()
    }

    /// True for a message of 0 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_message_ref().is_empty()
    }

    /// The [`Tag`] that the producer gave the message: a number, and how it was cut from a byte stream.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.as_message_ref().tag()
    }

    /// Which producer sent it, as the number of its lane; see [`MessageRef::lane`].
    #[must_use]
    pub fn lane(&self) -> usize {
        self.as_message_ref().lane()
    }

    /// Which of the producers that its lane has had sent it; see [`MessageRef::generation`].
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.as_message_ref().generation()
    }

    /// Identifies it among the messages of its lane; see [`MessageRef::position`].
    #[must_use]
    pub fn position(&self) -> Position {
        self.as_message_ref().position()
    }

    /// False if the file of the ring was truncated: bytes that were read may be zeros; see
    /// [`MessageRef::is_intact`].
    #[must_use]
    #[inline]
    pub fn is_intact(&self) -> bool {
        self.as_message_ref().is_intact()
    }

    /// Copies bytes from an offset; see [`MessageRef::read_at`].
    ///
    /// # Panics
    /// If the message ends before, or is not [intact](MessageRef::is_intact).
    #[inline]
    pub fn read_at(&self, offset: usize, to: &mut [u8]) {
        self.as_message_ref().read_at(offset, to);
    }

    /// As [`read_at`](Self::read_at), with an error in place of a panic; see [`MessageRef::checked_read_at`].
    ///
    /// # Errors
    /// [`RecvError::Removed`] if the message is not [intact](MessageRef::is_intact).
    ///
    /// # Panics
    /// If the message ends before.
    #[inline]
    pub fn checked_read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), RecvError> {
        self.as_message_ref().checked_read_at(offset, to)
    }

    /// Copies the message to the front of a buffer; see [`MessageRef::copy_to`].
    ///
    /// # Panics
    /// If the buffer is shorter than the message, or the message is not
    /// [intact](MessageRef::is_intact).
    #[inline(always)]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        self.as_message_ref().copy_to(to)
    }

    /// Appends the message to a vector; see [`MessageRef::append_to`].
    ///
    /// # Panics
    /// If it is not [intact](MessageRef::is_intact).
    #[inline]
    pub fn append_to(&self, to: &mut Vec<u8>) {
        self.as_message_ref().append_to(to);
    }

    /// As [`append_to`](Self::append_to), with an error in place of a panic; see
    /// [`MessageRef::checked_append_to`].
    ///
    /// # Errors
    /// [`RecvError::Removed`] if the message is not [intact](MessageRef::is_intact): nothing was appended.
    #[inline]
    pub fn checked_append_to(&self, to: &mut Vec<u8>) -> Result<(), RecvError> {
        self.as_message_ref().checked_append_to(to)
    }

    /// The message as a vector; see [`MessageRef::to_vec`].
    ///
    /// # Panics
    /// If it is not [intact](MessageRef::is_intact).
    #[must_use]
    #[inline]
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_message_ref().to_vec()
    }

    /// Writes the message with one write(2); see [`MessageRef::write_to`].
    ///
    /// # Errors
    /// Those of [`MessageRef::write_to`].
    pub fn write_to(&self, offset: usize, target: impl AsFd) -> io::Result<usize> {
        self.as_message_ref().write_to(offset, target)
    }

    /// The bytes without a copy, if this process has promised to [trust its peers](crate::Builder::trust_peers).
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let len = self.len();
        let view = self.lane.view();
        if !self.rest.options.trusts_peers || view.is_forked() {
            return None;
        }
        let start = view.bytes_at(self.position(), self.found.header.lead(), len);
        Some(trust::slice(start, len))
    }

    /// Releases the message, as dropping does: the consumer's next call returns the next one.
    ///
    /// Also while a panic unwinds the thread. Its room goes back to the producer later: see [At least
    /// once](crate#at-least-once-and-deduplication).
    #[inline]
    pub fn release(mut self) {
        self.give_back();
        // Released already.
        std::mem::forget(self);
    }

    /// Releases a message that the next one of its lane continues, so that another consumer can go on after it.
    ///
    /// Gives its room back now, and records that the lane's next message continues it: if this consumer is killed,
    /// its successor gets the lane from [`Consumer::continued_lane`](crate::Consumer::continued_lane). For all
    /// parts but the last of what belongs together; the last one is released as any message.
    pub fn release_part(self) {
        // In a forked child the pages are not there.
        if !self.lane.view().is_forked() {
            self.lane.take_part(&self.found);
            self.rest.release_quietly(self.lane);
        }
        // Released already.
        std::mem::forget(self);
    }

    #[inline(always)]
    fn give_back(&mut self) {
        if self.lane.take_one(&self.found) {
            self.rest.settle(self.lane);
        }
    }

    /// Puts the message back: the consumer's next call delivers it again.
    pub fn put_back(self) {
        // Nothing was stepped over yet.
        std::mem::forget(self);
    }
}

/// An error holds [`RecvError::Removed`]: the message is not [intact](MessageRef::is_intact).
impl io::Read for Message<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = to.len().min(self.len() - self.read);
        let read = self
            .as_message_ref()
            .checked_read_at(self.read, &mut to[..count]);
        read.map_err(io::Error::other)?;
        self.read += count;
        Ok(count)
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_message_ref().fmt(f)
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.mark.is_interrupted() {
            self.give_back();
        }
    }
}
