//! One way: how many messages arrive in a second.

use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Places;
use crate::pair::Pair;
use crate::payload::Message;
use crate::task::{Found, Work};
use crate::ways::{Link, Spec};

/// The other process's part.
pub(crate) fn send<M: Message>(link: &mut impl Link<M>, size: usize, count: u64) -> Result<()> {
    let mut message = M::zeroes(size);
    link.send_numbers(0..count, &mut message)?;
    link.flush()
}

/// Time for all of them, from behind the first tenth, by when both sides are awake.
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

/// Messages a second.
pub(crate) fn rate(spec: Spec, places: &Places, count: u64) -> Result<f64> {
    let pair = Pair::pinned(spec, places, |_| Work::Send { count })?;
    match pair.measure(Work::Receive { count })? {
        Found::Took(took) => Ok(count as f64 / took.as_secs_f64()),
        other => Err(format!("not a time, but {other:?}").into()),
    }
}

/// How many messages take about this long.
pub(crate) fn count_for(spec: &Spec, places: &Places, round: Duration) -> Result<u64> {
    const FIRST: u64 = 1000;
    /// Nothing is faster; but so few messages may come in no time.
    const MOST: f64 = 1e9;
    let guess = |count| Ok::<_, crate::Error>(rate(spec.clone(), places, count)?.min(MOST));
    let after = |rate: f64, seconds: f64| (rate * seconds) as u64 + FIRST;
    // Further looks: so few messages say little, and a machine that is busy for a moment makes them too few
    // for the round, which would then measure how fast a full queue is emptied.
    let first = guess(FIRST)?;
    let second = guess(after(first, 0.01))?;
    let third = guess(after(second, 0.01))?;
    Ok(after(second.max(third), round.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::payload::Bytes;

    /// To itself.
    struct Loop(VecDeque<Vec<u8>>);

    impl<M: Bytes> Link<M> for Loop {
        fn send(&mut self, message: &M) -> Result<()> {
            self.0.push_back(message.bytes().to_vec());
            Ok(())
        }

        fn receive(&mut self, message: &mut M) -> Result<()> {
            let received = self.0.pop_front().ok_or("nothing there")?;
            message.bytes_mut().copy_from_slice(&received);
            Ok(())
        }
    }

    /// Whether twenty messages arrive to which this was done on their way.
    fn arrive<M: Bytes>(on_the_way: impl FnOnce(&mut VecDeque<Vec<u8>>)) -> bool {
        let mut link = Loop(VecDeque::new());
        let sent = send::<M>(&mut link, 64, 20);
        on_the_way(&mut link.0);
        sent.is_ok() && receive::<M>(&mut link, 64, 20).is_ok()
    }

    fn notices_what_is_not_what_was_sent<M: Bytes>() {
        assert!(arrive::<M>(|_| {}));
        assert!(!arrive::<M>(|all| all.swap(10, 11)));
        assert!(!arrive::<M>(|all| all[1] = all[0].clone()));
        assert!(!arrive::<M>(|all| drop(all.remove(7))));
        for byte in 0..64 {
            assert!(!arrive::<M>(|all| all[19][byte] ^= 1), "byte {byte}");
        }
    }

    #[test]
    fn a_message_that_is_not_what_was_sent_ends_the_run_whether_its_length_is_known_or_not() {
        notices_what_is_not_what_was_sent::<[[u8; 8]; 8]>();
        notices_what_is_not_what_was_sent::<Vec<[u8; 8]>>();
    }
}
