//! Values of a type as messages (feature `zerocopy`): any value whose bytes are all initialised.

use zerocopy::{Immutable, IntoBytes};

use super::{Producer, SendBatch};
use crate::channel::kind::Kind;
use crate::error::SendError;
use crate::guard::deadline::{Deadline, Patience};
use crate::layout::Tag;

impl<K: Kind> Producer<K> {
    /// Sends the bytes of a value as one message, as [`send`](Self::send) does.
    ///
    /// ```
    /// use semring::{Schema, layout_of, spsc};
    /// use zerocopy::{FromBytes, Immutable, IntoBytes};
    ///
    /// #[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
    /// #[repr(C)]
    /// struct Tick {
    ///     time: u64,
    ///     price: f64,
    /// }
    /// const TICK: Schema = Schema::new("tick", 1, layout_of!(Tick { time, price }));
    ///
    /// # let name = format!("doc-value-{}", std::process::id());
    /// let ring = spsc::Builder::new(&name).schema(TICK).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// producer.send_value(&Tick { time: 1, price: 99.5 })?;
    /// producer.send_values(&[Tick { time: 2, price: 100.0 }; 32])?; // as one record
    ///
    /// let mut consumer = ring.attach_consumer()?;
    /// let tick: Tick = consumer.recv()?.read_value()?;
    /// assert_eq!((tick.time, tick.price), (1, 99.5));
    /// let mut ticks: Vec<Tick> = Vec::new();
    /// assert_eq!(consumer.recv_values(&mut ticks)?, 32);
    /// # drop((producer, consumer)); ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_value<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), SendError> {
        self.send(value.as_bytes())
    }

    /// As [`send_value`](Self::send_value), but never waits.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_value<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), SendError> {
        self.try_send(value.as_bytes())
    }

    /// As [`send_value`](Self::send_value), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline).
    pub fn send_value_deadline<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        self.send_deadline(value.as_bytes(), deadline)
    }

    /// Sends many values together, each a message, as [`send_all`](Self::send_all) does.
    ///
    /// # Errors
    /// As [`send_all`](Self::send_all).
    #[inline]
    pub fn send_values<T: IntoBytes + Immutable>(&mut self, values: &[T]) -> Result<(), SendError> {
        let bytes = values.as_bytes();
        let tag = Tag::default();
        self.core.send_all::<T>(bytes, tag, Patience::FOREVER).1
    }

    /// As [`send_values`](Self::send_values), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// As [`send_all_deadline`](Self::send_all_deadline).
    pub fn send_values_deadline<T: IntoBytes + Immutable>(
        &mut self,
        values: &[T],
        deadline: impl Into<Deadline>,
    ) -> Result<(), SendError> {
        let (bytes, patience) = (values.as_bytes(), Patience::until(deadline));
        self.core.send_all::<T>(bytes, Tag::default(), patience).1
    }

    /// As [`send_values`](Self::send_values), but never waits. Returns the number of values that were sent.
    ///
    /// # Errors
    /// As [`try_send_all`](Self::try_send_all).
    #[inline]
    pub fn try_send_values<T: IntoBytes + Immutable>(
        &mut self,
        values: &[T],
    ) -> Result<usize, SendError> {
        self.core.try_send_all::<T>(values.as_bytes())
    }
}

impl SendBatch<'_> {
    /// Adds the bytes of a value as one message, as [`push`](Self::push) does.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_value<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), SendError> {
        self.push(value.as_bytes())
    }
}
