//! The producer's role in a task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::task::coop::consume_budget;
use futures_sink::Sink;

use super::consumer::errno;
use super::readiness::register;
use crate::channel::{Free, Kind, Pollable, Producer, Reservation};
use crate::error::{SendError, SystemCall};

/// A [`Producer`] for asynchronous tasks.
///
/// As a [`Sink`] of bytes it sends each item as a message; one that does not fit yet is kept until there is
/// room, so flush or close the sink before dropping it. Closing the sink ends the stream, as
/// [`Producer::close`] does, while the handle stays: sending afterwards returns [`SendError::Closed`].
///
/// ```
/// use semring::tokio::{AsyncConsumer, AsyncProducer};
/// use semring::{GuardChoice, RecvError, spsc};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
/// let mut consumer = AsyncConsumer::new(ring.attach_consumer()?)?;
/// let mut producer = AsyncProducer::new(ring.attach_producer()?)?;
/// producer.send(b"the only one").await?;
/// producer.close().await?;
/// assert_eq!(consumer.recv().await?.to_vec(), b"the only one");
/// assert!(matches!(consumer.recv().await, Err(RecvError::EndOfStream { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncProducer<K> {
    /// `None` once it is closed.
    open: Option<Open<K>>,
    /// An item of the sink for which there was no room yet.
    kept: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Open<K> {
    producer: Producer<K>,
    pollable: AsyncFd<Pollable>,
}

impl<K: Kind> AsyncProducer<K> {
    /// Makes a producer for tasks. To be called in a runtime of tokio whose I/O is enabled.
    ///
    /// # Errors
    /// Those of [`Producer::pollable`]: the ring must have pipes.
    ///
    /// # Panics
    /// Outside of a runtime (tokio panics).
    pub fn new(mut producer: Producer<K>) -> io::Result<Self> {
        let pollable = register(producer.pollable()?)?;
        Ok(Self {
            open: Some(Open { producer, pollable }),
            kept: None,
        })
    }

    fn waits_when_full(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.producer.waits_when_full())
    }

    fn open(&mut self) -> Result<&mut Open<K>, SendError> {
        self.open.as_mut().ok_or(SendError::Closed)
    }

    /// Sends a copy of these bytes as one message; waits while there is no room for it.
    ///
    /// # Errors
    /// Those of [`Producer::send`]; the message was then not sent.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let reservation = match self.reserve(bytes.len()).await {
            Err(SendError::Full) => {
                let open = self.open()?;
                return open.producer.drop_or_fail();
            }
            reserved => reserved,
        };
        let mut reservation = reservation?;
        reservation.write_at(0, bytes);
        reservation.commit();
        Ok(())
    }

    /// Reserves room for a message of `len` bytes, to be written in place; waits while there is none.
    ///
    /// # Errors
    /// Those of [`Producer::reserve`].
    pub async fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        std::future::poll_fn(|task| self.poll_kept(task)).await?;
        let open = self.open()?;
        let free = open.find(len).await?;
        Ok(open.producer.free(free))
    }

    /// Ends the stream: the consumer receives the messages that are left, then the end of stream.
    ///
    /// An item that the sink still keeps is sent first. The producer detaches; a closed one stays closed.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), for an item that the sink kept and that could not be sent. The
    /// producer is closed all the same, except after [`SendError::Interrupted`].
    pub async fn close(&mut self) -> Result<(), SendError> {
        std::future::poll_fn(|task| self.poll_end(task)).await
    }

    fn poll_end(&mut self, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.open.is_none() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(self.poll_kept(task));
        if flushed != Err(SendError::Interrupted) {
            self.kept = None;
            if let Some(Open { producer, pollable }) = self.open.take() {
                // It is a descriptor of the producer's.
                drop(pollable);
                producer.close();
            }
        }
        Poll::Ready(flushed)
    }

    /// Sends the sink's last item, if it is still here.
    fn poll_kept(&mut self, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(open) = &mut self.open else {
            return Poll::Ready(Err(SendError::Closed));
        };
        let turn = ready!(::tokio::task::coop::poll_proceed(task));
        while let Some(bytes) = &self.kept {
            match open.producer.try_send(bytes) {
                Err(SendError::Full) if open.producer.waits_when_full() => {
                    let mut ready = ready!(open.pollable.poll_read_ready(task)).map_err(failed)?;
                    match open.producer.try_send(bytes) {
                        Err(SendError::Full) => {
                            ready.clear_ready();
                            continue;
                        }
                        sent => sent?,
                    }
                }
                sent => sent?,
            }
            self.kept = None;
        }
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    /// The producer itself, for calls that don't wait; `None` once it is closed.
    pub fn get_mut(&mut self) -> Option<&mut Producer<K>> {
        self.open.as_mut().map(|open| &mut open.producer)
    }

    /// Returns the producer, for calls that block; `None` if it is closed. An item of the sink that was not
    /// flushed is lost.
    #[must_use]
    pub fn into_inner(self) -> Option<Producer<K>> {
        self.open.map(|open| open.producer)
    }
}

impl<K: Kind> Open<K> {
    async fn find(&mut self, len: usize) -> Result<Free, SendError> {
        consume_budget().await;
        loop {
            match self.producer.try_find_room(len) {
                Err(SendError::Full) if self.producer.waits_when_full() => {}
                found => return found,
            }
            let mut ready = self.pollable.readable().await.map_err(failed)?;
            // The look comes before readiness is cleared: if room appears in between, the
            // descriptor becomes readable again.
            match self.producer.try_find_room(len) {
                Err(SendError::Full) => ready.clear_ready(),
                found => return found,
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(error: io::Error) -> SendError {
    SendError::Os {
        call: SystemCall::EpollWait,
        errno: errno(&error),
    }
}

impl<K: Kind + Unpin, B: AsRef<[u8]>> Sink<B> for AsyncProducer<K> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_kept(task)
    }

    fn start_send(self: Pin<&mut Self>, item: B) -> Result<(), SendError> {
        let this = self.get_mut();
        debug_assert!(this.kept.is_none(), "poll_ready comes first");
        match this.open()?.producer.try_send(item.as_ref()) {
            Err(SendError::Full) if this.waits_when_full() => {
                this.kept = Some(item.as_ref().to_vec());
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        // Closed, it has nothing left to flush.
        if this.open.is_none() {
            return Poll::Ready(Ok(()));
        }
        this.poll_kept(task)
    }

    fn poll_close(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_end(task)
    }
}
