//! Messages as arrays, for queues whose messages are of a type.

use semring_bench::{Result, Spec};

/// A message of this many words.
pub(crate) type Words<const N: usize> = [u64; N];

/// Calls a function that is generic over the number of words with that of a size.
macro_rules! by_size {
    ($size:expr, $function:ident $arguments:tt) => {
        semring_bench::usual_sizes! { call_by_size! { $size, $function $arguments } }
    };
}
pub(crate) use by_size;

macro_rules! call_by_size {
    ({ $size:expr, $function:ident $arguments:tt } $($bytes:literal => $words:literal,)*) => {
        match $size {
            $($bytes => $function::<$words> $arguments,)*
            other => Err(format!("not built for messages of {other} bytes").into()),
        }
    };
}
pub(crate) use call_by_size;

/// Why a size is not among those above.
pub(crate) fn unusual_size(spec: &Spec) -> Option<String> {
    fn usual<const N: usize>() -> Result<()> {
        Ok(())
    }
    let known: Result<()> = by_size!(spec.size, usual());
    known.err().map(|error| error.to_string())
}
