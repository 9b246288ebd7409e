//! One error type for everything: a bench reports it and ends.

/// Why something could not be measured.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of a measurement.
pub type Result<T> = std::result::Result<T, Error>;

/// A message does not have the expected length.
#[must_use]
pub fn wrong_length(found: usize, expected: usize) -> Error {
    format!("a message of {found} bytes, not {expected}").into()
}

/// A message does not have the content that was sent.
#[cold]
#[must_use]
pub fn wrong_content(number: u64) -> Error {
    format!("message {number} differs from the one sent").into()
}
