//! One end of a pair, and its two halves.

use std::sync::Arc;

use super::pair::Taken;
use crate::channel::{Message, spsc};
use crate::error::{RecvError, SendError};
use crate::guard::deadline::Deadline;

/// One end of a [`Pair`](super::Pair): sends to the other end and receives from it.
///
/// It behaves like a connected socket. When the other end is gone, by close, exit or SIGKILL, `recv` returns the messages
/// that are left, then [`RecvError::EndOfStream`] each time it is called; `send` returns [`SendError::ConsumerGone`] (see
/// [`Producer::check_consumer`](crate::Producer::check_consumer) for how soon). Before the other end has come, messages
/// wait in the ring and `recv` waits.
///
/// Dropping it closes both directions. Messages that were sent can still be received.
#[derive(Debug)]
pub struct Endpoint {
    sender: Producer,
    receiver: Consumer,
}

/// The sending half of an [`Endpoint`]. When it is dropped, the other end gets end of stream.
#[derive(Debug)]
pub struct Producer {
    // In this order: the role first, then the names.
    producer: spsc::Producer,
    _taken: Arc<Taken>,
}

/// The receiving half of an [`Endpoint`]. When it is dropped, the other end gets a broken pipe.
#[derive(Debug)]
pub struct Consumer {
    consumer: spsc::Consumer,
    _taken: Arc<Taken>,
}

impl Endpoint {
    pub(super) fn new(producer: spsc::Producer, consumer: spsc::Consumer, taken: Taken) -> Self {
        let taken = Arc::new(taken);
        Self {
            sender: Producer {
                producer,
                _taken: taken.clone(),
            },
            receiver: Consumer {
                consumer,
                _taken: taken,
            },
        }
    }

    /// Sends a copy of these bytes as one message; waits while the ring is full.
    ///
    /// Before it waits, it releases the messages received before, so that the other end can go on sending.
    ///
    /// # Errors
    /// As [`Producer::send`](crate::Producer::send).
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send_blocking(bytes, |producer| producer.send(bytes))
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    /// [`SendError::Full`], and those of [`send`](Self::send).
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.sender.producer.try_send(bytes)
    }

    /// As [`send`](Self::send), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send`](Self::send).
    pub fn send_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.send_blocking(bytes, |producer| producer.send_deadline(bytes, deadline))
    }

    fn send_blocking(
        &mut self,
        bytes: &[u8],
        send: impl FnOnce(&mut spsc::Producer) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        match self.sender.producer.try_send(bytes) {
            Err(SendError::Full) => {}
            other => return other,
        }
        // A consumer gives room back now and then, and while we wait here it could not: the other end
        // might wait for room that it has long had. (A failure is found again by the next call.)
        let _ = self.receiver.consumer.flush_released();
        send(&mut self.sender.producer)
    }

    /// Receives the next message; waits until there is one.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when the other end has closed its sending half or is gone, and
    /// everything was received, and those of [`Consumer::recv`](crate::Consumer::recv).
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receiver.recv()
    }

    /// Receives the next message if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receiver.try_recv()
    }

    /// As [`recv`](Self::recv), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Message<'_>, RecvError> {
        self.receiver.recv_deadline(deadline)
    }

    /// The longest message in bytes: a quarter of the capacity.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        self.sender.producer.max_message_bytes()
    }

    /// Splits the end into its halves, for instance for two threads. Each half closes its direction
    /// when it is dropped.
    ///
    /// The receiving half keeps at most a quarter lap of dropped messages unreleased; see
    /// [`Consumer::flush_released`](crate::Consumer::flush_released).
    #[must_use]
    pub fn split(self) -> (Producer, Consumer) {
        (self.sender, self.receiver)
    }

    /// Closes the sending half: the other end receives the messages that are left, then end of stream.
    /// As shutdown(2) with SHUT_WR. Receiving goes on.
    #[must_use = "dropped, it closes the other direction as well"]
    pub fn close_sending(self) -> Consumer {
        self.sender.close();
        self.receiver
    }

    /// Closes the receiving half: the other end's `send` returns [`SendError::Closed`]. As shutdown(2)
    /// with SHUT_RD. Sending goes on.
    #[must_use = "dropped, it closes the other direction as well"]
    pub fn close_receiving(self) -> Producer {
        self.receiver.close();
        self.sender
    }

    /// The producer, for reservations and batches.
    pub fn producer(&mut self) -> &mut spsc::Producer {
        &mut self.sender.producer
    }

    /// The consumer, for batches. (The end of its stream is permanent: it is of no use to
    /// [resume](crate::Consumer::resume), since no successor is possible.)
    pub fn consumer(&mut self) -> &mut spsc::Consumer {
        &mut self.receiver.consumer
    }
}

impl Producer {
    /// Sends a copy of these bytes as one message; waits while the ring is full.
    ///
    /// # Errors
    /// As [`Producer::send`](crate::Producer::send).
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.producer.send(bytes)
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    /// [`SendError::Full`], and those of [`send`](Self::send).
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.producer.try_send(bytes)
    }

    /// As [`send`](Self::send), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`send`](Self::send).
    pub fn send_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.producer.send_deadline(bytes, deadline)
    }

    /// Closes this direction: the other end gets end of stream. Dropping does the same.
    pub fn close(self) {
        self.producer.close();
    }

    /// The producer, for reservations and batches.
    pub fn producer(&mut self) -> &mut spsc::Producer {
        &mut self.producer
    }
}

impl Consumer {
    /// Receives the next message; waits until there is one.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.consumer.recv()
    }

    /// Receives the next message if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.consumer.try_recv()
    }

    /// As [`recv`](Self::recv), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`recv`](Self::recv).
    pub fn recv_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Message<'_>, RecvError> {
        self.consumer.recv_deadline(deadline)
    }

    /// Closes this direction: the other end's `send` returns [`SendError::Closed`]. (After a drop
    /// it returns [`SendError::ConsumerGone`].)
    pub fn close(self) {
        self.consumer.close();
    }

    /// The consumer, for batches. (The end of its stream is permanent: it is of no use to
    /// [resume](crate::Consumer::resume), since no successor is possible.)
    pub fn consumer(&mut self) -> &mut spsc::Consumer {
        &mut self.consumer
    }
}
