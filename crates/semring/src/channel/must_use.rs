//! The compiler warns of messages and batches that a program does not use. Each pair of examples differs only in that.
//!
//! ```
//! #![deny(unused_must_use)]
//! fn receive(consumer: &mut semring::spsc::Consumer) -> Result<(), semring::RecvError> {
//!     consumer.recv()?.release();
//!     consumer.recv_batch()?.release();
//!     Ok(())
//! }
//! fn send(producer: &mut semring::spsc::Producer) {
//!     producer.batch().commit();
//! }
//! ```
//!
//! ```compile_fail
//! #![deny(unused_must_use)]
//! fn receive(consumer: &mut semring::spsc::Consumer) -> Result<(), semring::RecvError> {
//!     consumer.recv()?;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail
//! #![deny(unused_must_use)]
//! fn receive(consumer: &mut semring::spsc::Consumer) -> Result<(), semring::RecvError> {
//!     consumer.recv_batch()?;
//!     Ok(())
//! }
//! ```
//!
//! ```compile_fail
//! #![deny(unused_must_use)]
//! fn send(producer: &mut semring::spsc::Producer) {
//!     producer.batch();
//! }
//! ```
