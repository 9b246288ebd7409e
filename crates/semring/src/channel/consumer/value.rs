//! Messages as values of a type (feature `zerocopy`): bytes are checked on a private copy before they become a value.

use zerocopy::{FromBytes, TryFromBytes};

use super::{Consumer, Message, MessageRef};
use crate::error::{RecvError, ValueError};
use crate::guard::deadline::Deadline;

impl Consumer {
    /// Waits for messages and appends them to a vector as values, as [`recv_all`](Self::recv_all) does.
    ///
    /// Returns their number.
    ///
    /// # Errors
    /// As [`recv_all`](Self::recv_all).
    #[inline]
    pub fn recv_values<T: FromBytes>(&mut self, to: &mut Vec<T>) -> Result<usize, RecvError> {
        self.core.recv_all(to, Deadline::NEVER)
    }

    /// As [`recv_values`](Self::recv_values), but waits no longer than until a [`Deadline`].
    ///
    /// # Errors
    /// As [`recv_all_deadline`](Self::recv_all_deadline).
    pub fn recv_values_deadline<T: FromBytes>(
        &mut self,
        to: &mut Vec<T>,
        deadline: impl Into<Deadline>,
    ) -> Result<usize, RecvError> {
        self.core.recv_all(to, deadline.into())
    }

    /// As [`recv_values`](Self::recv_values), but never waits.
    ///
    /// # Errors
    /// As [`try_recv_all`](Self::try_recv_all).
    #[inline]
    pub fn try_recv_values<T: FromBytes>(&mut self, to: &mut Vec<T>) -> Result<usize, RecvError> {
        self.core.try_recv_all(to)
    }
}

impl MessageRef<'_> {
    /// The message as a value of a type of which any bytes are a value, such as a struct of numbers.
    ///
    /// A copy is made, which no other process can change.
    ///
    /// # Errors
    /// [`ValueError::OtherSize`] if the message is longer or shorter than a value; [`ValueError::Removed`] if it is not
    /// [intact](Self::is_intact).
    #[inline]
    pub fn read_value<T: FromBytes>(&self) -> Result<T, ValueError> {
        self.copied(|bytes| T::read_from_bytes(bytes).map_err(|_| ValueError::Invalid))
    }

    /// The message as a value of a type of which only some bytes are a value, such as one with a `bool` or an
    /// enum.
    ///
    /// They are checked on the copy that is returned, so no other process can change them after that.
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
