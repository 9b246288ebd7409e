//! One end of a way, for messages of a type.

use std::ops::Range;

use crate::error::{Result, wrong_content};
use crate::payload::{Message, check, fill, word};

/// One end of a way, for messages of a type.
pub trait Link<M: Message> {
    /// Sends one message.
    ///
    /// # Errors
    /// If the way failed, or can't carry this message.
    fn send(&mut self, message: &M) -> Result<()>;

    /// Receives one message of exactly this length.
    ///
    /// # Errors
    /// If the way failed, or the message has another length.
    fn receive(&mut self, message: &mut M) -> Result<()>;

    /// Sends what is still buffered in this process.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Sends the messages with these numbers, each as long as `message`. A way that fills messages in place,
    /// or sends several at once, overrides this.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    fn send_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        send_each(self, numbers, message)
    }

    /// Receives the messages with these numbers, each as long as `message`, and checks every word.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and if a message differs from the one sent.
    #[inline]
    fn receive_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        receive_each(self, numbers, message)
    }
}

/// [`Link::send_numbers`], one message at a time.
#[inline]
pub(crate) fn send_each<M: Message>(
    link: &mut (impl Link<M> + ?Sized),
    numbers: Range<u64>,
    message: &mut M,
) -> Result<()> {
    for number in numbers {
        fill(message.words_mut(), word(0, number));
        link.send(message)?;
    }
    Ok(())
}

/// [`Link::receive_numbers`], one message at a time.
#[inline]
pub(crate) fn receive_each<M: Message>(
    link: &mut (impl Link<M> + ?Sized),
    numbers: Range<u64>,
    message: &mut M,
) -> Result<()> {
    for number in numbers {
        link.receive(message)?;
        if !check(message.words(), word(0, number)) {
            return Err(wrong_content(number));
        }
    }
    Ok(())
}
