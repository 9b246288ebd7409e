//! The server's side of calls.

use std::sync::Arc;

use super::endpoint::{Consumer, Endpoint};
use super::frame::{CallId, Frame, FrameKind, take};
use super::outbox::Outbox;
use crate::error::{RecvError, SendError};
use crate::guard::deadline::{Deadline, Patience};

/// Takes the requests of one [`Client`](super::Client), and sends the replies.
///
/// Requests may be answered in any order, also by other threads; requests that are dropped without a reply are
/// reported to the client as unanswered.
///
/// A request that was taken is not delivered again, even if the server dies: it is acted on at most once.
///
/// Dropping the server stops taking requests; requests taken before can still be answered.
#[derive(Debug)]
pub struct Server {
    receiver: Consumer,
    outbox: Arc<Outbox>,
    malformed: u64,
}

/// A request that waits for its reply. If it is dropped without one, the client's call ends with
/// [`CallError::Unanswered`](crate::CallError::Unanswered).
#[derive(Debug)]
#[must_use = "a request that is dropped stays unanswered"]
pub struct Request {
    id: CallId,
    bytes: Vec<u8>,
    outbox: Arc<Outbox>,
    answered: bool,
}

/// Ends a wait of one [`Server`] for requests from another thread: the call returns
/// [`RecvError::Interrupted`]. If no call is waiting, the next one that would wait returns it.
#[derive(Clone, Debug)]
pub struct ServerInterrupter {
    outbox: Arc<Outbox>,
}

impl ServerInterrupter {
    /// Ends the wait. May be called any number of times, from any thread (not from a signal handler).
    pub fn interrupt(&self) {
        self.outbox.interrupt();
    }
}

impl Server {
    /// Makes a server of an end of a pair. Nothing must have been sent or received through this end
    /// before.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let (sender, mut receiver) = endpoint.split();
        let wakeup = receiver.consumer().interrupter();
        Self {
            receiver,
            outbox: Arc::new(Outbox::new(sender, wakeup)),
            malformed: 0,
        }
    }

    /// Receives the next request; waits until there is one. It is copied out of the ring.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when the client is gone or calls no more, and those of
    /// [`Consumer::recv`](crate::Consumer::recv).
    pub fn next_request(&mut self) -> Result<Request, RecvError> {
        self.next(Patience::FOREVER)
    }

    /// Receives the next request if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and those of [`next_request`](Self::next_request).
    pub fn try_next_request(&mut self) -> Result<Request, RecvError> {
        self.next(Patience::Try)
    }

    /// As [`next_request`](Self::next_request), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], and those of [`next_request`](Self::next_request).
    pub fn next_request_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Request, RecvError> {
        self.next(Patience::until(deadline))
    }

    fn next(&mut self, patience: Patience) -> Result<Request, RecvError> {
        loop {
            // The client may wait for a report that is owed, and send nothing before it comes. (If the
            // client is gone, receiving returns that.)
            if self.outbox.settle(patience) == Err(SendError::TimedOut) {
                return Err(RecvError::TimedOut);
            }
            let received = match patience {
                Patience::Try => self.receiver.try_recv(),
                Patience::Until(deadline) => self.receiver.recv_deadline(deadline),
            };
            let message = match received {
                Err(RecvError::Interrupted) if !self.outbox.take_interruption() => continue,
                other => other?,
            };
            let frame = take(&message)?;
            message.release();
            // So that the client has its room also while we work or wait for our own. (A failure is found
            // again by the next call; this request is whole.)
            let _ = self.receiver.consumer().flush_released();
            if let Some(Frame {
                kind: FrameKind::Request,
                id,
                bytes,
            }) = frame
            {
                return Ok(Request {
                    id,
                    bytes,
                    outbox: self.outbox.clone(),
                    answered: false,
                });
            }
            self.malformed += 1;
            // A client that sends nothing else must not keep this call from returning.
            match patience {
                Patience::Try => return Err(RecvError::Empty),
                _ if patience.is_over() => return Err(RecvError::TimedOut),
                _ => {}
            }
        }
    }

    /// The number of messages that were not requests, and were dropped: the other end is not a
    /// [`Client`](super::Client).
    #[must_use]
    pub fn malformed_requests(&self) -> u64 {
        self.malformed
    }

    /// A handle that ends a wait for requests from another thread.
    #[must_use]
    pub fn interrupter(&self) -> ServerInterrupter {
        ServerInterrupter {
            outbox: self.outbox.clone(),
        }
    }
}

impl Request {
    /// The client's id of this call.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The bytes of the request.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sends the reply; waits while the ring is full. A client empties the ring whenever it waits.
    ///
    /// # Errors
    /// As [`Producer::send`](crate::Producer::send): [`SendError::ConsumerGone`] if the client is gone. The
    /// request is then unanswered.
    pub fn reply(self, bytes: &[u8]) -> Result<(), SendError> {
        self.answer(bytes, Patience::FOREVER)
    }

    /// As [`reply`](Self::reply), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and those of [`reply`](Self::reply).
    pub fn reply_deadline(
        self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.answer(bytes, Patience::until(deadline))
    }

    fn answer(mut self, bytes: &[u8], patience: Patience) -> Result<(), SendError> {
        self.outbox.reply(self.id, bytes, patience)?;
        self.answered = true;
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered {
            self.outbox.give_up(self.id);
        }
    }
}
