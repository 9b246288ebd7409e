//! What many messages of one size are made of.

/// A message of an array that is sent from, or received into, memory of the program: `[u8; N]`; with the feature
/// `zerocopy` any type of at least one byte that is `Copy`, [`FromBytes`], [`IntoBytes`] and [`Immutable`].
///
/// The trait is sealed: nothing else implements it.
///
/// [`FromBytes`]: https://docs.rs/zerocopy/0.8/zerocopy/trait.FromBytes.html
/// [`IntoBytes`]: https://docs.rs/zerocopy/0.8/zerocopy/trait.IntoBytes.html
/// [`Immutable`]: https://docs.rs/zerocopy/0.8/zerocopy/trait.Immutable.html
pub trait Element: Copy + sealed::Sealed {
    /// The bytes of messages that lie one right after the other.
    #[doc(hidden)]
    fn bytes_of(messages: &[Self]) -> &[u8];
}

pub(super) mod sealed {
    use crate::layout::Position;
    use crate::layout::view::{LaneView, Plain};

    #[allow(
        private_interfaces,
        reason = "nothing outside of this crate can name the trait"
    )]
    pub trait Sealed: Sized {
        /// Appends messages that lie one right after the other in a lane.
        fn append(lane: &LaneView, at: Position, within: u64, count: usize, to: &mut Vec<Self>);
    }

    #[allow(private_interfaces, private_bounds, reason = "as above")]
    impl<T: Plain> Sealed for T {
        #[inline(always)]
        fn append(lane: &LaneView, at: Position, within: u64, count: usize, to: &mut Vec<Self>) {
            lane.append_elements(at, within, count, to);
        }
    }
}

#[cfg(not(feature = "zerocopy"))]
impl<const N: usize> Element for [u8; N] {
    #[inline(always)]
    fn bytes_of(messages: &[Self]) -> &[u8] {
        messages.as_flattened()
    }
}

#[cfg(feature = "zerocopy")]
impl<T: Copy + zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable> Element for T {
    #[inline(always)]
    fn bytes_of(messages: &[Self]) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(messages)
    }
}

/// Bytes of a message of this type. A message of none is refused when the program is compiled.
pub(super) const fn size_of_element<T: Element>() -> usize {
    const {
        assert!(
            size_of::<T>() > 0,
            "a message of an array has at least one byte"
        )
    };
    size_of::<T>()
}
