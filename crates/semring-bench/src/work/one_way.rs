//! One way: a side that sends as fast as it can, and a side that measures how long that takes.

use std::time::{Duration, Instant};

use crate::error::{Result, wrong_content};
use crate::link::Link;
use crate::payload::{Message, is_scrambled, scramble};

/// Sends `count` messages.
pub(crate) fn send<M: Message>(link: &mut impl Link<M>, size: usize, count: u64) -> Result<()> {
    let mut message = M::zeroes(size);
    link.send_numbers(0..count, &mut message)?;
    link.flush()
}

/// Time for `count` messages, measured without the first tenth, after which both sides are awake.
pub(crate) fn receive<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
) -> Result<Duration> {
    let mut message = M::zeroes(size);
    let warm_up = count / 10;
    link.receive_numbers(0..warm_up, &mut message)?;
    let start = Instant::now();
    link.receive_numbers(warm_up..count, &mut message)?;
    let took = start.elapsed();
    Ok(took.mul_f64(count as f64 / (count - warm_up) as f64))
}

/// Sends `count` messages whose words all differ, one at a time.
pub(super) fn send_scrambled<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
) -> Result<()> {
    let mut message = M::zeroes(size);
    for number in 0..count {
        scramble(message.words_mut(), number);
        link.send(&message)?;
    }
    link.flush()
}

/// Receives the messages of [`send_scrambled`], and checks every word.
pub(super) fn receive_scrambled<M: Message>(
    link: &mut impl Link<M>,
    size: usize,
    count: u64,
) -> Result<()> {
    let mut message = M::zeroes(size);
    for number in 0..count {
        link.receive(&mut message)?;
        if !is_scrambled(message.words(), number) {
            return Err(wrong_content(number));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::payload::Bytes;

    /// A way from this process to itself.
    struct Loop(VecDeque<Vec<u8>>);

    impl<M: Bytes> Link<M> for Loop {
        fn send(&mut self, message: &M) -> Result<()> {
            self.0.push_back(message.bytes().to_vec());
            Ok(())
        }

        fn receive(&mut self, message: &mut M) -> Result<()> {
            let received = self.0.pop_front().ok_or("no message")?;
            message.bytes_mut().copy_from_slice(&received);
            Ok(())
        }
    }

    /// Whether twenty messages are accepted after this change on their way.
    fn arrive<M: Bytes>(change: impl FnOnce(&mut VecDeque<Vec<u8>>)) -> bool {
        let mut link = Loop(VecDeque::new());
        let sent = send::<M>(&mut link, 64, 20);
        change(&mut link.0);
        sent.is_ok() && receive::<M>(&mut link, 64, 20).is_ok()
    }

    /// The words of a measured message are all the same: a change of their order shows only in the first pass.
    #[test]
    fn scrambled_messages_show_words_out_of_place() {
        let arrive = |change: fn(&mut Vec<u8>)| {
            let mut link = Loop(VecDeque::new());
            let sent = send_scrambled::<Vec<[u8; 8]>>(&mut link, 64, 20);
            change(&mut link.0[7]);
            sent.is_ok() && receive_scrambled::<Vec<[u8; 8]>>(&mut link, 64, 20).is_ok()
        };
        assert!(arrive(|_| {}));
        assert!(!arrive(|message| message.rotate_left(8)));
        assert!(!arrive(|message| message[63] ^= 1));
        assert!(!arrive(|message| message.copy_within(0..8, 32)));
    }

    fn rejects_changed_messages<M: Bytes>() {
        assert!(arrive::<M>(|_| {}));
        assert!(!arrive::<M>(|all| all.swap(10, 11)));
        assert!(!arrive::<M>(|all| all[1] = all[0].clone()));
        assert!(!arrive::<M>(|all| drop(all.remove(7))));
        for byte in 0..64 {
            assert!(!arrive::<M>(|all| all[19][byte] ^= 1), "byte {byte}");
        }
    }

    #[test]
    fn changed_messages_are_rejected() {
        rejects_changed_messages::<[[u8; 8]; 8]>();
        rejects_changed_messages::<Vec<[u8; 8]>>();
    }
}
