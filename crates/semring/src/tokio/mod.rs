//! Rings in programs of [tokio] (feature `tokio`): any number of handles in one thread, beside
//! sockets and timers.
//!
//! The ring must have pipes ([`GuardChoice::Pipe`](crate::GuardChoice::Pipe)): semaphores can't be polled.
//! The other side is independent of this: it may block, poll, or be asynchronous, too.
//!
//! ```
//! use semring::tokio::{AsyncConsumer, AsyncProducer};
//! use semring::{GuardChoice, RecvError, spsc};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ring = spsc::Builder::memfd().guard(GuardChoice::Pipe).create()?;
//! let mut consumer = AsyncConsumer::new(ring.attach_consumer()?)?;
//! let mut producer = AsyncProducer::new(ring.attach_producer()?)?;
//! let sending = tokio::spawn(async move { producer.send(b"hello").await });
//! assert_eq!(consumer.recv().await?.to_vec(), b"hello");
//! sending.await??;
//! assert!(matches!(consumer.recv().await, Err(RecvError::EndOfStream { .. })));
//! # Ok(())
//! # }
//! ```
//!
//! # Cancellation
//! Every future here may be dropped at any time (in `select!`, by a time-out): its last step receives
//! or sends a message as a whole, so the message is received or sent completely or not at all.
//!
//! # Fairness
//! A ring that always has messages takes part in tokio's budget, so other tasks of the thread get
//! their turn.

mod consumer;
mod producer;
mod readiness;

pub use consumer::AsyncConsumer;
pub use producer::AsyncProducer;
