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
use crate::error::SendError;

/// A [`Producer`] that a task waits for. As a [`Sink`] of bytes it sends each item as a message; one that
/// does not fit yet is kept until there is room, so flush before dropping it.
#[derive(Debug)]
pub struct AsyncProducer<K> {
    producer: Producer<K>,
    pollable: AsyncFd<Pollable>,
    /// An item of the sink for which there was no room yet.
    kept: Option<Vec<u8>>,
}

impl<K: Kind> AsyncProducer<K> {
    /// To be called in a runtime of tokio whose I/O is enabled.
    ///
    /// # Errors
    /// Those of [`Producer::as_fd`]: the ring must have pipes.
    ///
    /// # Panics
    /// Outside of a runtime, as tokio does.
    pub fn new(mut producer: Producer<K>) -> io::Result<Self> {
        let pollable = register(producer.as_fd()?)?;
        Ok(Self {
            producer,
            pollable,
            kept: None,
        })
    }

    /// Sends a copy of these bytes; waits while the lane is full.
    ///
    /// # Errors
    /// Those of [`Producer::send`]; the message was then not sent.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let mut reservation = self.reserve(bytes.len()).await?;
        reservation.write_at(0, bytes);
        reservation.commit();
        Ok(())
    }

    /// Reserves room for a message of `len` bytes, to be written in place; waits while the lane is full.
    ///
    /// # Errors
    /// Those of [`Producer::reserve`].
    pub async fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        std::future::poll_fn(|task| self.poll_kept(task)).await?;
        let free = self.find(len).await?;
        Ok(self.producer.free(free))
    }

    async fn find(&mut self, len: usize) -> Result<Free, SendError> {
        consume_budget().await;
        loop {
            match self.producer.try_find_room(len) {
                Err(SendError::Full) => {}
                found => return found,
            }
            let mut ready = self.pollable.readable().await.map_err(failed)?;
            // Looked at before readiness is forgotten: what comes in between is told anew.
            match self.producer.try_find_room(len) {
                Err(SendError::Full) => ready.clear_ready(),
                found => return found,
            }
        }
    }

    /// Sends the sink's last item, if it is still here.
    fn poll_kept(&mut self, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let turn = ready!(::tokio::task::coop::poll_proceed(task));
        while let Some(bytes) = &self.kept {
            match self.producer.try_send(bytes) {
                Err(SendError::Full) => {
                    let mut ready = ready!(self.pollable.poll_read_ready(task)).map_err(failed)?;
                    match self.producer.try_send(bytes) {
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

    /// The producer itself, for calls that don't wait.
    pub fn get_mut(&mut self) -> &mut Producer<K> {
        &mut self.producer
    }

    /// Gives the producer back, for calls that block. An item of the sink that was not flushed is lost.
    #[must_use]
    pub fn into_inner(self) -> Producer<K> {
        self.producer
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failed(error: io::Error) -> SendError {
    SendError::Os {
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
        match this.producer.try_send(item.as_ref()) {
            Err(SendError::Full) => {
                this.kept = Some(item.as_ref().to_vec());
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_kept(task)
    }

    fn poll_close(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_kept(task)
    }
}
