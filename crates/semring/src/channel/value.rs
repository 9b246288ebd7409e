//! Messages that are values of a type (feature `zerocopy`): any value whose bytes are all initialised can be sent, and the
//! bytes of a message are checked on a private copy before they become a value.

use zerocopy::{FromBytes, Immutable, IntoBytes, TryFromBytes};

use super::consumer::{Message, MessageRef};
use super::kind::Kind;
use super::producer::{Producer, SendBatch};
use crate::error::{SendError, ValueError};
use crate::guard::deadline::Deadline;

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
    /// producer.send_all(&[Tick { time: 2, price: 100.0 }; 32])?; // as one record
    ///
    /// let mut consumer = ring.attach_consumer()?;
    /// let tick: Tick = consumer.recv()?.read_value()?;
    /// assert_eq!((tick.time, tick.price), (1, 99.5));
    /// let mut ticks: Vec<Tick> = Vec::new();
    /// assert_eq!(consumer.recv_all(&mut ticks)?, 32);
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

impl MessageRef<'_> {
    /// The message as a value of a type of which any bytes are a value. A copy is made, which no other process can change.
    ///
    /// # Errors
    /// [`ValueError::OtherSize`] if the message is longer or shorter than a value; [`ValueError::Removed`] if it is not
    /// [intact](Self::is_intact).
    #[inline]
    pub fn read_value<T: FromBytes>(&self) -> Result<T, ValueError> {
        self.copied(|bytes| T::read_from_bytes(bytes).map_err(|_| ValueError::Invalid))
    }

    /// The message as a value of a type of which only some bytes are a value, such as one with a `bool` or an enum. They
    /// are checked on the copy that is returned, so no other process can change them after that.
    ///
    /// ```
    /// use zerocopy::{Immutable, IntoBytes, TryFromBytes};
    ///
    /// #[derive(TryFromBytes, IntoBytes, Immutable, PartialEq, Debug)]
    /// #[repr(u8)]
    /// enum Side {
    ///     Buy = 1,
    ///     Sell = 2,
    /// }
    /// # let ring = semring::spsc::Builder::memfd().create()?;
    /// # let mut producer = ring.attach_producer()?;
    /// # let mut consumer = ring.attach_consumer()?;
    /// producer.send_value(&Side::Sell)?;
    /// producer.send(&[3])?;
    /// assert_eq!(consumer.recv()?.try_read_value::<Side>()?, Side::Sell);
    /// let wrong = consumer.recv()?.try_read_value::<Side>();
    /// assert_eq!(wrong, Err(semring::ValueError::Invalid));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ValueError::Invalid`] if no value has these bytes, and those of [`read_value`](Self::read_value).
    #[inline]
    pub fn try_read_value<T: TryFromBytes>(&self) -> Result<T, ValueError> {
        self.copied(|bytes| T::try_read_from_bytes(bytes).map_err(|_| ValueError::Invalid))
    }

    #[inline(always)]
    fn copied<T>(
        &self,
        read: impl FnOnce(&[u8]) -> Result<T, ValueError>,
    ) -> Result<T, ValueError> {
        if self.len() != size_of::<T>() {
            return Err(ValueError::OtherSize {
                message: self.len(),
                value: size_of::<T>(),
            });
        }
        let value = self.with_copy::<T, _>(read);
        // Looked at afterwards: the bytes of a truncated ring are zeros.
        if self.is_intact() {
            value
        } else {
            Err(ValueError::Removed)
        }
    }
}

impl Message<'_> {
    /// The message as a value; see [`MessageRef::read_value`].
    ///
    /// # Errors
    /// Those of [`MessageRef::read_value`].
    #[inline]
    pub fn read_value<T: FromBytes>(&self) -> Result<T, ValueError> {
        self.as_message_ref().read_value()
    }

    /// The message as a value, if its bytes are one; see [`MessageRef::try_read_value`].
    ///
    /// # Errors
    /// Those of [`MessageRef::try_read_value`].
    #[inline]
    pub fn try_read_value<T: TryFromBytes>(&self) -> Result<T, ValueError> {
        self.as_message_ref().try_read_value()
    }
}
