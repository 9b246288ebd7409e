//! Why a message is not a value of a type.

/// Why a message can't be read as a value.
///
/// The message stays as it is: it can be read as another type, or [put back](crate::Message::put_back).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The message has another size than the type.
    #[error("the message has {message} bytes, not {value} as values of this type")]
    OtherSize {
        /// Bytes of the message.
        message: usize,
        /// Bytes of a value.
        value: usize,
    },
    /// No value of the type has these bytes: another program sent something else, or wrote where it must not.
    #[error("the bytes of the message are no value of this type")]
    Invalid,
    /// The file of the ring was truncated while the message was read.
    #[error("the ring was truncated while a message was read")]
    Removed,
}
