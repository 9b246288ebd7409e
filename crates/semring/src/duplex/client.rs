//! The client's side of calls.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::endpoint::{Consumer, Endpoint, Producer};
use super::frame::{CallId, Frame, FrameKind, put, take};
use crate::channel::Interrupter;
use crate::error::{CallError, RecvError, SendError};
use crate::guard::deadline::{Deadline, Patience};

/// How long a client that found the ring full waits for replies before it looks for room again: from, and
/// up to. Replies wake it at once.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Calls the [`Server`](super::Server) at the other end, one call after the other or several at once.
///
/// ```
/// use semring::duplex::{Builder, Client, Server};
///
/// # let pair = Builder::memfd().create()?;
/// # let mut server = Server::new(pair.server_end()?);
/// # let mut client = Client::new(pair.client_end()?);
/// let first = client.start(b"one")?;
/// let second = client.start(b"two")?;
/// // The server may answer in any order.
/// let requests = [server.next_request()?, server.next_request()?];
/// for request in requests.into_iter().rev() {
///     let answer = [b"got ", request.bytes()].concat();
///     request.reply(&answer)?;
/// }
/// assert_eq!(client.wait(first)?.bytes(), b"got one");
/// assert_eq!(client.wait(second)?.bytes(), b"got two");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A call that was [started](Self::start) is in flight until its reply is taken, it fails, or the program
/// [forgets](Self::forget) it. Replies to other calls that come in the meantime are kept until the program
/// takes them. A reply to a call that is over is dropped and [counted](Self::late_replies).
///
/// One thread at a time uses a client (`&mut self`).
#[derive(Debug)]
pub struct Client {
    sender: Producer,
    receiver: Consumer,
    next: CallId,
    /// The calls in flight.
    calls: BTreeMap<CallId, Call>,
    late: u64,
    malformed: u64,
}

#[derive(Debug)]
enum Call {
    Waiting,
    Answered(Vec<u8>),
    Unanswered,
}

/// The server's reply to a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    id: CallId,
    bytes: Vec<u8>,
}

impl Reply {
    /// The call that it replies to.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The bytes of the reply.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the reply, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn sending(error: SendError) -> CallError {
    match error {
        SendError::Full => CallError::Full,
        SendError::TooLong { max } => CallError::TooLong { max },
        SendError::ConsumerGone | SendError::Closed => CallError::PeerGone,
        SendError::Removed => CallError::Removed,
        // (Arrays are none of its calls.)
        SendError::Corrupt | SendError::MissingFeature(_) => CallError::Corrupt,
        SendError::TimedOut => CallError::TimedOut,
        SendError::Interrupted => CallError::Interrupted,
        SendError::Forked => CallError::Forked,
        SendError::Os { call, errno } => CallError::Os { call, errno },
    }
}

fn receiving(error: RecvError) -> CallError {
    match error {
        RecvError::EndOfStream { .. } | RecvError::LaneEnded => CallError::PeerGone,
        RecvError::Corrupt { .. } | RecvError::OtherSize { .. } => CallError::Corrupt,
        RecvError::Removed | RecvError::Replaced => CallError::Removed,
        RecvError::Empty | RecvError::TimedOut => CallError::TimedOut,
        RecvError::Interrupted => CallError::Interrupted,
        RecvError::Forked => CallError::Forked,
        RecvError::Os { call, errno } => CallError::Os { call, errno },
    }
}

impl Client {
    /// Makes a client of an end of a pair. Nothing must have been sent or received through this end
    /// before.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let (sender, receiver) = endpoint.split();
        Self {
            sender,
            receiver,
            next: CallId::FIRST,
            calls: BTreeMap::new(),
            late: 0,
            malformed: 0,
        }
    }

    /// Sends a request and waits for its reply. If the server has not come yet, it waits for the
    /// server, too.
    ///
    /// # Errors
    /// [`CallError::PeerGone`] when the server is gone, at once also if it is killed meanwhile;
    /// [`CallError::Unanswered`] if the server dropped the request; [`CallError::TooLong`]; and the
    /// others. The call is over then. If the server is gone, it may or may not have acted on the request.
    pub fn call(&mut self, bytes: &[u8]) -> Result<Reply, CallError> {
        self.ask(bytes, Patience::FOREVER)
    }

    /// As [`call`](Self::call), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`CallError::TimedOut`], and those of [`call`](Self::call). The server may have received the
    /// request, and may still act on it.
    pub fn call_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<Reply, CallError> {
        self.ask(bytes, Patience::until(deadline))
    }

    fn ask(&mut self, bytes: &[u8], patience: Patience) -> Result<Reply, CallError> {
        let id = self.begin(bytes, patience)?;
        let answer = self.finish(id, patience);
        // The id was not returned, so no code will wait for the reply.
        self.calls.remove(&id);
        answer
    }

    /// Sends a request; the reply is to be [waited for](Self::wait). Waits while the ring is full, and takes in
    /// replies meanwhile, so a server that waits for room for them goes on.
    ///
    /// # Errors
    /// As [`call`](Self::call); nothing was sent then.
    pub fn start(&mut self, bytes: &[u8]) -> Result<CallId, CallError> {
        self.begin(bytes, Patience::FOREVER)
    }

    /// As [`start`](Self::start), but never waits.
    ///
    /// # Errors
    /// [`CallError::Full`], and those of [`start`](Self::start).
    pub fn try_start(&mut self, bytes: &[u8]) -> Result<CallId, CallError> {
        self.begin(bytes, Patience::Try)
    }

    /// As [`start`](Self::start), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`CallError::TimedOut`], and those of [`start`](Self::start).
    pub fn start_deadline(
        &mut self,
        bytes: &[u8],
        deadline: impl Into<Deadline>,
    ) -> Result<CallId, CallError> {
        self.begin(bytes, Patience::until(deadline))
    }

    fn begin(&mut self, bytes: &[u8], patience: Patience) -> Result<CallId, CallError> {
        let id = self.next;
        let (mut nap, longest) = LOOK_AGAIN;
        loop {
            let last_try = patience.is_over();
            let producer = self.sender.producer();
            match put(producer, FrameKind::Request, id, bytes, Patience::Try) {
                Ok(()) => break,
                Err(SendError::Full) => {}
                Err(error) => return Err(sending(error)),
            }
            if last_try {
                return Err(match patience {
                    Patience::Try => CallError::Full,
                    _ => CallError::TimedOut,
                });
            }
            // The server may itself be waiting for room: for a reply. So we wait for replies; but it may also
            // take several requests before it answers one, so we look for room now and then.
            let next_look = Instant::now() + nap;
            let until = match patience {
                Patience::Until(deadline) => deadline.or_earlier(next_look),
                Patience::Try => next_look.into(),
            };
            match self.take_in(Patience::Until(until)) {
                Ok(()) => nap = LOOK_AGAIN.0,
                Err(CallError::TimedOut) => nap = (nap * 2).min(longest),
                Err(error) => return Err(error),
            }
        }
        self.next = id.next();
        self.calls.insert(id, Call::Waiting);
        Ok(id)
    }

    /// Waits for the reply to a call in flight.
    ///
    /// # Errors
    /// [`CallError::PeerGone`], [`CallError::Unanswered`], [`CallError::NotInFlight`] if the call is over,
    /// and the others. After [`CallError::Interrupted`] the call is still in flight, else it is over.
    pub fn wait(&mut self, id: CallId) -> Result<Reply, CallError> {
        self.end(id, Patience::FOREVER)
    }

    /// As [`wait`](Self::wait), but no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// [`CallError::TimedOut`], and those of [`wait`](Self::wait).
    pub fn wait_deadline(
        &mut self,
        id: CallId,
        deadline: impl Into<Deadline>,
    ) -> Result<Reply, CallError> {
        self.end(id, Patience::until(deadline))
    }

    /// The reply to a call in flight if it is there now.
    ///
    /// # Errors
    /// [`CallError::Empty`] if it is not: the call stays in flight. And those of [`wait`](Self::wait).
    pub fn try_wait(&mut self, id: CallId) -> Result<Reply, CallError> {
        match self.finish(id, Patience::Try) {
            Err(CallError::TimedOut) => Err(CallError::Empty),
            Err(error) => {
                self.give_up(id, error);
                Err(error)
            }
            reply => reply,
        }
    }

    fn end(&mut self, id: CallId, patience: Patience) -> Result<Reply, CallError> {
        let answer = self.finish(id, patience);
        if let Err(error) = answer {
            self.give_up(id, error);
        }
        answer
    }

    fn give_up(&mut self, id: CallId, error: CallError) {
        if error != CallError::Interrupted {
            self.calls.remove(&id);
        }
    }

    fn finish(&mut self, id: CallId, patience: Patience) -> Result<Reply, CallError> {
        // After its deadline a wait goes on while there are messages, so that an available reply is found;
        // but only for a bounded number of messages, so that the other end can't prolong it for ever.
        let mut extra = self.calls.len();
        loop {
            match self.calls.get(&id) {
                None => return Err(CallError::NotInFlight),
                Some(Call::Waiting) => {}
                Some(Call::Answered(_) | Call::Unanswered) => break,
            }
            if patience.is_over() {
                extra = extra.checked_sub(1).ok_or(CallError::TimedOut)?;
            }
            self.take_in(patience)?;
        }
        match self.calls.remove(&id) {
            Some(Call::Answered(bytes)) => Ok(Reply { id, bytes }),
            _ => Err(CallError::Unanswered),
        }
    }

    /// Waits until any call in flight has a reply, and returns that reply; if there are several, the one to the
    /// oldest call.
    ///
    /// # Errors
    /// [`CallError::NotInFlight`] if no call is in flight; those of [`wait`](Self::wait). After
    /// [`CallError::Unanswered`] one call is over; [`in_flight`](Self::in_flight) lists the calls that are
    /// left.
    pub fn next_reply(&mut self) -> Result<Reply, CallError> {
        self.any_reply(Patience::FOREVER)
    }

    /// As [`next_reply`](Self::next_reply), but waits no longer than until a [`Deadline`]. No call is over by
    /// [`CallError::TimedOut`].
    ///
    /// # Errors
    /// [`CallError::TimedOut`], and those of [`next_reply`](Self::next_reply).
    pub fn next_reply_deadline(
        &mut self,
        deadline: impl Into<Deadline>,
    ) -> Result<Reply, CallError> {
        self.any_reply(Patience::until(deadline))
    }

    fn any_reply(&mut self, patience: Patience) -> Result<Reply, CallError> {
        let mut extra = self.calls.len();
        loop {
            let over = self.calls.iter().find_map(|(id, call)| match call {
                Call::Waiting => None,
                Call::Answered(_) | Call::Unanswered => Some(*id),
            });
            if let Some(id) = over {
                return self.finish(id, Patience::Try);
            }
            if self.calls.is_empty() {
                return Err(CallError::NotInFlight);
            }
            if patience.is_over() {
                extra = extra.checked_sub(1).ok_or(CallError::TimedOut)?;
            }
            self.take_in(patience)?;
        }
    }

    /// Takes in one message, and puts it where it belongs.
    fn take_in(&mut self, patience: Patience) -> Result<(), CallError> {
        let received = match patience {
            Patience::Try => self.receiver.try_recv(),
            Patience::Until(deadline) => self.receiver.recv_deadline(deadline),
        };
        let message = received.map_err(receiving)?;
        let frame = take(&message).map_err(receiving)?;
        message.release();
        // So that the server has its room also while we do something else. (A failure is found again.)
        let _ = self.receiver.consumer().flush_released();
        match frame {
            Some(Frame { kind, id, bytes }) if kind != FrameKind::Request && id < self.next => {
                match self.calls.get_mut(&id) {
                    Some(call @ Call::Waiting) if kind == FrameKind::Reply => {
                        *call = Call::Answered(bytes);
                    }
                    Some(call @ Call::Waiting) => *call = Call::Unanswered,
                    _ => self.late += 1,
                }
            }
            _ => self.malformed += 1,
        }
        Ok(())
    }

    /// Gives a call up: its reply will be dropped. True if the call was in flight.
    pub fn forget(&mut self, id: CallId) -> bool {
        self.calls.remove(&id).is_some()
    }

    /// The calls in flight, oldest first, including those whose reply has come and was not taken
    /// yet.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = CallId> + '_ {
        self.calls.keys().copied()
    }

    /// The number of replies that came for calls that were over (timed out or forgotten) and were
    /// dropped.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.late
    }

    /// The number of messages that were not replies to any call of this client, and were dropped: the
    /// other end is not a [`Server`](super::Server).
    #[must_use]
    pub fn malformed_replies(&self) -> u64 {
        self.malformed
    }

    /// The longest request in bytes; replies may be as long.
    #[must_use]
    pub fn max_request_bytes(&mut self) -> usize {
        super::frame::longest(self.sender.producer())
    }

    /// A handle that ends a wait of this client from another thread: the call returns
    /// [`CallError::Interrupted`].
    #[must_use]
    pub fn interrupter(&mut self) -> Interrupter {
        self.receiver.consumer().interrupter()
    }
}
