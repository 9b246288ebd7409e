//! The consumer's role in a task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::task::coop::consume_budget;
use futures_core::Stream;

use super::readiness::register;
use crate::channel::{Consumer, FoundMessage, Message, Pollable, RecvBatch};
use crate::error::{RecvError, SystemCall};

/// A [`Consumer`] for asynchronous tasks.
///
/// As a [`Stream`] it yields each message as a vector of its own, and `None` at the end of the ring's stream, also
/// when it is polled again, until [`resume`](Self::resume). After a permanent error ([`RecvError::Removed`],
/// [`RecvError::Forked`]) it yields only `None`.
///
/// ```
/// use futures_core::Stream;
/// use semring::tokio::AsyncConsumer;
/// use semring::{GuardChoice, spsc};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
/// ring.attach_producer()?.send(b"one")?;
/// let mut stream = AsyncConsumer::new(ring.attach_consumer()?)?;
/// let mut next = async || std::future::poll_fn(|task| {
///     std::pin::Pin::new(&mut stream).poll_next(task)
/// }).await;
/// assert_eq!(next().await.transpose()?.as_deref(), Some(&b"one"[..]));
/// assert_eq!(next().await.transpose()?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncConsumer {
    consumer: Consumer,
    pollable: AsyncFd<Pollable>,
    /// The stream has given an error that stays.
    failed: bool,
}

impl AsyncConsumer {
    /// Makes a consumer for tasks. To be called in a runtime of tokio whose I/O is enabled.
    ///
    /// # Errors
    /// Those of [`Consumer::pollable`]: the ring must have pipes.
    ///
    /// # Panics
    /// Outside of a runtime (tokio panics).
    pub fn new(mut consumer: Consumer) -> io::Result<Self> {
        let pollable = register(consumer.pollable()?)?;
        Ok(Self {
            consumer,
            pollable,
            failed: false,
        })
    }

    async fn find(&mut self) -> Result<FoundMessage, RecvError> {
        consume_budget().await;
        loop {
            match self.consumer.try_find() {
                Err(RecvError::Empty) => {}
                found => return found,
            }
            let mut ready = self.pollable.readable().await.map_err(failed)?;
            // The look comes before readiness is cleared: if a message comes in between, the
            // descriptor becomes readable again.
            match self.consumer.try_find() {
                Err(RecvError::Empty) => ready.clear_ready(),
                found => return found,
            }
        }
    }

    /// Receives the next message; waits until there is one.
    ///
    /// # Errors
    /// Those of [`Consumer::recv`].
    pub async fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        let found = self.find().await?;
        Ok(self.consumer.found(found))
    }

    /// Waits until there is at least one message, then returns all that are available.
    ///
    /// # Errors
    /// Those of [`Consumer::recv_batch`].
    pub async fn recv_batch(&mut self) -> Result<RecvBatch<'_>, RecvError> {
        self.find().await?;
        // It is still there: only we take it.
        self.consumer.try_recv_batch()
    }

    /// Goes on after the end of the stream, as [`Consumer::resume`] does.
    pub fn resume(&mut self) {
        self.consumer.resume();
    }

    /// The consumer itself, for calls that don't wait.
    pub fn get_mut(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    /// Returns the consumer, for calls that block.
    #[must_use]
    pub fn into_inner(self) -> Consumer {
        self.consumer
    }
}

pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(error: io::Error) -> RecvError {
    RecvError::Os {
        call: SystemCall::EpollWait,
        errno: errno(&error),
    }
}

fn copied(message: &Message<'_>) -> Result<Vec<u8>, RecvError> {
    let mut bytes = Vec::new();
    message.checked_append_to(&mut bytes)?;
    Ok(bytes)
}

impl Stream for AsyncConsumer {
    type Item = Result<Vec<u8>, RecvError>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.failed {
            return Poll::Ready(None);
        }
        let turn = ready!(::tokio::task::coop::poll_proceed(task));
        loop {
            let answer = match this.consumer.try_find() {
                Ok(found) => Some(copied(&this.consumer.found(found))),
                Err(RecvError::EndOfStream { .. }) => None,
                Err(RecvError::Empty) => {
                    let mut ready = ready!(this.pollable.poll_read_ready(task)).map_err(failed)?;
                    // As in `find`.
                    match this.consumer.try_find() {
                        Err(RecvError::Empty) => {
                            ready.clear_ready();
                            continue;
                        }
                        Ok(found) => {
                            drop(ready);
                            Some(copied(&this.consumer.found(found)))
                        }
                        Err(RecvError::EndOfStream { .. }) => None,
                        Err(error) => Some(Err(error)),
                    }
                }
                Err(error) => Some(Err(error)),
            };
            turn.made_progress();
            let stays =
                |answer: &Self::Item| matches!(answer, Err(RecvError::Removed | RecvError::Forked));
            this.failed = answer.as_ref().is_some_and(stays);
            return Poll::Ready(answer);
        }
    }
}
