//! The public handles: builders, rings, producers, consumers, reservations and messages. No system
//! calls, no orderings; `unsafe` only for slices whose safety the user has promised (`trust`).

mod builder;
mod consumer;
mod element;
mod errors;
#[cfg(doctest)]
mod growing;
mod interrupt;
mod kind;
#[cfg(all(test, semring_loom))]
mod model_tests;
#[cfg(doctest)]
mod must_use;
mod options;
mod parking;
mod pending;
mod pollable;
mod producer;
mod ring;
#[cfg(not(semring_loom))] // loom has types of its own
pub(crate) mod threads;
mod trust;
#[cfg(all(test, not(semring_loom)))]
mod wake_tests;

/// A handle whose peer makes progress checks the guard after this many bytes, or after a quarter lap if that is
/// more. A check takes half a microsecond; transferring this many bytes takes fifty or more.
const BYTES_PER_CHECK: u64 = 1 << 20;

pub use builder::{Builder, UnusedRing};
#[cfg(feature = "tokio")]
pub(crate) use consumer::FoundMessage;
pub use consumer::{ArrayRef, Consumer, Message, MessageRef, Messages, RecvBatch};
pub use element::Element;
pub use interrupt::Interrupter;
pub use kind::{Any, Kind, Mpsc, Spsc};
pub use options::HugePages;
pub(crate) use options::{RingOptions, ring_options};
pub use parking::WaitStats;
pub use pollable::Pollable;
#[cfg(feature = "tokio")]
pub(crate) use producer::Free;
pub use producer::{ArrayReservation, Producer, Reservation, SendBatch};
pub use ring::{Ring, disable_sigbus_handler, force_remove, inspect, list, remove, reset_counts};

/// Rings with one producer and one consumer.
pub mod spsc {
    use crate::error::OpenError;
    use crate::memory::address::{Address, AddressError};

    /// Makes or opens an SPSC ring.
    pub type Builder = super::Builder<super::Spsc>;
    /// An open SPSC ring.
    pub type Ring = super::Ring<super::Spsc>;
    /// The producer of an SPSC ring.
    pub type Producer = super::Producer<super::Spsc>;
    /// The consumer of an SPSC ring.
    pub type Consumer = super::Consumer;

    /// Opens the SPSC ring at an address; see [`Builder::open`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(
        address: impl TryInto<Address, Error: Into<AddressError>>,
    ) -> Result<Ring, OpenError> {
        Builder::new(address).open()
    }
}

/// Rings with up to 240 producers and one consumer: the messages of each producer arrive in order.
pub mod mpsc {
    use crate::error::OpenError;
    use crate::memory::address::{Address, AddressError};

    /// Makes or opens an MPSC ring.
    pub type Builder = super::Builder<super::Mpsc>;
    /// An open MPSC ring.
    pub type Ring = super::Ring<super::Mpsc>;
    /// A producer of an MPSC ring.
    pub type Producer = super::Producer<super::Mpsc>;
    /// The consumer of an MPSC ring.
    pub type Consumer = super::Consumer;

    /// Opens the MPSC ring at an address; see [`Builder::open`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(
        address: impl TryInto<Address, Error: Into<AddressError>>,
    ) -> Result<Ring, OpenError> {
        Builder::new(address).open()
    }
}

/// Rings with any number of producers, for tools that accept any ring.
pub mod any {
    use crate::error::OpenError;
    use crate::memory::address::{Address, AddressError};

    /// Makes or opens a ring of either kind.
    pub type Builder = super::Builder<super::Any>;
    /// An open ring of either kind.
    pub type Ring = super::Ring<super::Any>;
    /// A producer of a ring of either kind.
    pub type Producer = super::Producer<super::Any>;
    /// The consumer of a ring of either kind.
    pub type Consumer = super::Consumer;

    /// Opens the ring at an address; see [`Builder::open`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(
        address: impl TryInto<Address, Error: Into<AddressError>>,
    ) -> Result<Ring, OpenError> {
        Builder::new(address).open()
    }
}
