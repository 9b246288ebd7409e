//! Types that can be read from any bytes.

/// A type of which any bytes are a value.
///
/// # Safety
/// Every pattern of `size_of::<Self>()` bytes, all of them initialised, is a value of the type.
pub(crate) unsafe trait Plain: Sized {}

// SAFETY: an array of bytes is those bytes.
#[cfg(not(feature = "zerocopy"))]
unsafe impl<const N: usize> Plain for [u8; N] {}

// SAFETY: that is what `FromBytes` promises.
#[cfg(feature = "zerocopy")]
unsafe impl<T: zerocopy::FromBytes> Plain for T {}
