//! Messages as an iterator.

use std::iter::FusedIterator;

use super::Consumer;
use crate::error::RecvError;

/// The messages of a [`Consumer`], copied: see [`Consumer::messages`].
#[derive(Debug)]
#[must_use = "an iterator receives nothing until it is used"]
pub struct Messages<'a> {
    consumer: &'a mut Consumer,
    /// An error that stays was given.
    failed: bool,
}

impl<'a> Messages<'a> {
    pub(super) fn new(consumer: &'a mut Consumer) -> Self {
        Self {
            consumer,
            failed: false,
        }
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let copied = self.consumer.recv().and_then(|message| {
            let mut bytes = Vec::new();
            message.checked_append_to(&mut bytes)?;
            Ok(bytes)
        });
        match copied {
            Err(RecvError::EndOfStream { .. }) => None,
            other => {
                self.failed = matches!(other, Err(RecvError::Removed | RecvError::Forked));
                Some(other)
            }
        }
    }
}

impl FusedIterator for Messages<'_> {}
