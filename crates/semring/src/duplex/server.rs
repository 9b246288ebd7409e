//! The answering side of calls.

use std::sync::Arc;

use super::endpoint::{Endpoint, Receiver};
use super::frame::{CallId, Frame, FrameKind, take};
use super::outbox::Outbox;
use crate::error::{RecvError, SendError};
use crate::guard::deadline::{Deadline, Patience};

/// Takes the requests of one [`Client`](super::Client). Requests may be answered in any order, also by other
/// threads; those that nobody answers are reported to the client as unanswered.
///
/// A request that was taken is not delivered again, whatever becomes of the server: it is acted on at most
/// once.
///
/// Dropping it takes no more requests; the requests that are out can still be answered.
#[derive(Debug)]
pub struct Server {
    receiver: Receiver,
    outbox: Arc<Outbox>,
    malformed: u64,
}

/// A request that waits for its reply. Dropped without one, the client's call ends with
/// [`CallError::Unanswered`](crate::CallError::Unanswered).
#[derive(Debug)]
#[must_use = "a request that is dropped stays unanswered"]
pub struct Request {
    id: CallId,
    bytes: Vec<u8>,
    outbox: Arc<Outbox>,
    answered: bool,
}

/// Ends a wait of one [`Server`] for requests from another thread: it gives [`RecvError::Interrupted`]. If
/// none is under way, the next one that would wait does.
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
    /// Serves whoever has the other end. Nothing must have been sent or received here before.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let (sender, mut receiver) = endpoint.split();
        let bell = receiver.consumer().interrupter();
        Self {
            receiver,
            outbox: Arc::new(Outbox::new(sender, bell)),
            malformed: 0,
        }
    }

    /// The next request; waits until there is one. It is copied out of the ring.
    ///
    /// # Errors
    /// [`RecvError::EndOfStream`] when the client is gone or calls no more, and those of
    /// [`Consumer::recv`](crate::Consumer::recv).
    pub fn next_request(&mut self) -> Result<Request, RecvError> {
        self.next(Patience::FOREVER)
    }

    /// The next request if there is one now.
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
            // Somebody may wait for what is owed, and send nothing before it comes. (Nothing is owed to a
            // client that is gone; receiving tells.)
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
            // Somebody who sends nothing else must not keep us here.
            match patience {
                Patience::Try => return Err(RecvError::Empty),
                _ if patience.is_over() => return Err(RecvError::TimedOut),
                _ => {}
            }
        }
    }

    /// Messages that were no requests, and were dropped: the other end is no [`Client`](super::Client).
    #[must_use]
    pub fn malformed_requests(&self) -> u64 {
        self.malformed
    }

    /// For ending a wait for requests from another thread.
    #[must_use]
    pub fn interrupter(&self) -> ServerInterrupter {
        ServerInterrupter {
            outbox: self.outbox.clone(),
        }
    }
}

impl Request {
    /// Which of the client's calls it is.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// What the client said.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Answers; waits while the ring is full, which a client empties whenever it waits for anything.
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
