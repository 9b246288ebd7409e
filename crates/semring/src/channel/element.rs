//! What many messages of one size are made of.

/// A message of fixed size, for [`Producer::send_all`](crate::Producer::send_all) and
/// [`Consumer::recv_all`](crate::Consumer::recv_all): `[u8; N]`.
///
/// The trait is sealed: nothing else implements it.
pub trait Element: Copy + sealed::Sealed {
    /// The bytes of messages that lie one right after the other.
    #[doc(hidden)]
    fn bytes_of(messages: &[Self]) -> &[u8];
}

pub(super) mod sealed {
    use crate::layout::view::Plain;

    #[allow(
        private_bounds,
        reason = "nothing outside of this crate can name the trait"
    )]
    pub trait Sealed: Plain {}

    impl<const N: usize> Sealed for [u8; N] {}
}

impl<const N: usize> Element for [u8; N] {
    #[inline(always)]
    fn bytes_of(messages: &[Self]) -> &[u8] {
        messages.as_flattened()
    }
}

/// Bytes of a message of this type. A message of none is refused when the program is compiled.
pub(super) const fn size_of_element<T>() -> usize {
    const {
        assert!(
            size_of::<T>() > 0,
            "a message of an array has at least one byte"
        )
    };
    size_of::<T>()
}
