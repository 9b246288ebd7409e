//! The peer's commands for sending and receiving.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use semring::{Framing, RecvError, SendError, Tag, any};
use semring_testkit::message;
use semring_testkit::record::Recorder;

use super::child::tell;
use super::{Answer, Peer, Words, done, failed};

/// Xorshift, Marsaglia 2003.
struct Xorshift(u64);

impl Xorshift {
    fn new() -> Self {
        Self(u64::from(std::process::id()) | 1 << 40)
    }

    /// Pauses for a random number of loops up to this one.
    fn spin(&mut self, loops: u64) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        for _ in 0..(self.0 >> 20) % (loops + 1) {
            std::hint::spin_loop();
        }
    }
}

/// Sets a deadline this far from now, and prints that it is set.
fn begin_until(words: &mut Words<'_>) -> Instant {
    let deadline = Instant::now() + words.milliseconds();
    tell("until then");
    deadline
}

/// Adds to a time-out that it came before its time.
fn in_time(answer: Answer, deadline: Instant) -> Answer {
    let early = Instant::now() < deadline;
    answer.map_err(|error| match error.as_str() {
        "error TimedOut" if early => format!("{error} too early"),
        _ => error,
    })
}

impl Peer {
    pub(super) fn transfer(&mut self, command: &str, words: &mut Words<'_>) -> Answer {
        match command {
            "send" => self.send(words, |producer, bytes| producer.send(bytes)),
            "send-parts" => self.send(words, |producer, bytes| {
                producer.send_with(bytes, Tag::default().with_framing(Framing::LinePart))
            }),
            "try-send" => self.send(words, |producer, bytes| producer.try_send(bytes)),
            "send-timeout" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                done(self.producer().send_deadline(&bytes, words.milliseconds()))
            }
            "send-deadline" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let deadline = begin_until(words);
                let sent = done(self.producer().send_deadline(&bytes, deadline));
                in_time(sent, deadline)
            }
            "fill" => self.fill(words),
            "batch" => self.batch(words),
            "feed" => self.feed(words),
            "recv" => Self::received(self.receiving().recv()),
            "skip" => {
                for _ in 0..words.number() {
                    drop(self.receiving().recv().map_err(failed)?);
                }
                Ok("ok".to_owned())
            }
            "try-recv" => Self::received(self.receiving().try_recv()),
            "recv-part" => {
                let received = self.receiving().recv_from(0).map_err(failed)?;
                received.release_part();
                Ok("ok".to_owned())
            }
            "recv-timeout" => Self::received(self.receiving().recv_deadline(words.milliseconds())),
            "recv-deadline" => {
                let deadline = begin_until(words);
                let received = Self::received(self.receiving().recv_deadline(deadline));
                in_time(received, deadline)
            }
            "resume" => {
                self.consumer().resume();
                Ok("ok".to_owned())
            }
            "recv-again" => Self::received(self.consumer().recv()),
            "drain" => Ok(drain(self.receiving())),
            "keep" => self.keep(words.text()),
            "echo" => self.echo(),
            "volley" => self.volley(words, |_| 0),
            "volley-after" => self.volley(words, |words| words.number()),
            "volleys" => self.volleys(words),
            other => panic!("no such command: {other}"),
        }
    }

    fn send(
        &mut self,
        words: &mut Words<'_>,
        send: impl Fn(&mut any::Producer, &[u8]) -> Result<(), SendError>,
    ) -> Answer {
        let (sender, first, count) = (words.producer(), words.number(), words.number());
        let len = words.size();
        let mut bytes = Vec::new();
        for sent in 0..count {
            message::encode(sender, first + sent, len, &mut bytes);
            if let Err(error) = send(self.producer(), &bytes) {
                return Err(format!("{} after {sent}", failed(error)));
            }
        }
        Ok("ok".to_owned())
    }

    fn fill(&mut self, words: &mut Words<'_>) -> Answer {
        let (sender, first, len) = (words.producer(), words.number(), words.size());
        let mut bytes = Vec::new();
        for sent in 0.. {
            message::encode(sender, first + sent, len, &mut bytes);
            match self.producer().try_send(&bytes) {
                Ok(()) => {}
                Err(SendError::Full) => return Ok(format!("ok {sent}")),
                Err(error) => return Err(format!("{} after {sent}", failed(error))),
            }
        }
        unreachable!("a lane is finite")
    }

    fn batch(&mut self, words: &mut Words<'_>) -> Answer {
        let (sender, first, count) = (words.producer(), words.number(), words.number());
        let len = words.size();
        let mut bytes = Vec::new();
        let mut batch = self.producer().batch();
        for pushed in 0..count {
            message::encode(sender, first + pushed, len, &mut bytes);
            if let Err(error) = batch.push(&bytes) {
                return Err(format!("{} after {pushed}", failed(error)));
            }
        }
        batch.commit();
        Ok("ok".to_owned())
    }

    /// A producer that comes, sends one message, and goes.
    pub(super) fn late(&mut self, words: &mut Words<'_>) -> Answer {
        let mut bytes = Vec::new();
        message::encode(words.producer(), words.number(), words.size(), &mut bytes);
        match self.ring().attach_producer() {
            Ok(mut producer) => done(producer.send(&bytes)).map(|_| "sent".to_owned()),
            Err(error) => Ok(format!("refused {error:?}")),
        }
    }

    /// Sends even if consumers die. Messages are recorded when `send` has returned success.
    fn feed(&mut self, words: &mut Words<'_>) -> Answer {
        let (sender, first, count) = (words.producer(), words.number(), words.number());
        let len = words.size();
        let mut record = Recorder::append(words.text()).map_err(failed)?;
        let mut bytes = Vec::new();
        for number in first..first + count {
            message::encode(sender, number, len, &mut bytes);
            loop {
                match self.producer().send(&bytes) {
                    Ok(()) => break,
                    Err(SendError::ConsumerGone) => {
                        self.producer().accept_next_consumer().map_err(failed)?;
                    }
                    Err(error) => return Err(format!("{} at {number}", failed(error))),
                }
            }
            record.committed(sender, number).map_err(failed)?;
        }
        Ok("ok".to_owned())
    }

    /// Receives to the end. A message is written down with one write(2) before it is released, so
    /// one that is missing from the log has not been released either.
    fn keep(&mut self, path: &str) -> Answer {
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Vec::new();
        self.consumer().resume();
        for kept in 0u64.. {
            match self.consumer().recv() {
                Ok(received) => {
                    bytes.clear();
                    received.append_to(&mut bytes);
                    let place = (received.lane(), received.position());
                    let line = match message::decode(&bytes) {
                        Ok(it) => {
                            format!("{} {} {} {}\n", it.producer, it.number, place.0, place.1)
                        }
                        Err(damage) => format!("damaged {damage} at {place:?}\n"),
                    };
                    log.write_all(line.as_bytes()).map_err(failed)?;
                }
                Err(RecvError::EndOfStream { .. }) => return Ok(format!("ended {kept}")),
                Err(error) => return Err(format!("{} after {kept}", failed(error))),
            }
        }
        unreachable!("the stream ends before the numbers do")
    }

    fn echo(&mut self) -> Answer {
        let mut bytes = Vec::new();
        for echoed in 0u64.. {
            match self.second.as_mut().expect("a second ring").recv() {
                Ok(received) => {
                    bytes.clear();
                    received.append_to(&mut bytes);
                }
                Err(error) => return Ok(format!("echoed {echoed} {}", shown(error))),
            }
            self.producer().send(&bytes).map_err(failed)?;
        }
        unreachable!("the stream ends before the numbers do")
    }

    fn volleys(&mut self, words: &mut Words<'_>) -> Answer {
        let (sender, count, len) = (words.producer(), words.number(), words.size());
        let (run, loops) = (words.number(), words.number());
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        let mut random = Xorshift::new();
        for first in (0..count * run).step_by(run as usize) {
            random.spin(loops);
            for number in first..first + run {
                message::encode(sender, number, len, &mut bytes);
                self.producer().send(&bytes).map_err(failed)?;
            }
            for number in first..first + run {
                let second = self.second.as_mut().expect("a second ring");
                let echo = second.recv().map_err(failed)?;
                back.clear();
                echo.append_to(&mut back);
                message::encode(sender, number, len, &mut bytes);
                if back != bytes {
                    return Err(format!("echo {number} differs"));
                }
            }
        }
        Ok(format!("ok {count}"))
    }

    fn volley(&mut self, words: &mut Words<'_>, loops: fn(&mut Words<'_>) -> u64) -> Answer {
        let (sender, count, len) = (words.producer(), words.number(), words.size());
        let loops = loops(words);
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        let mut random = Xorshift::new();
        for number in 0..count {
            message::encode(sender, number, len, &mut bytes);
            random.spin(loops);
            self.producer().send(&bytes).map_err(failed)?;
            let echo = self
                .second
                .as_mut()
                .expect("a second ring")
                .recv()
                .map_err(failed)?;
            back.clear();
            echo.append_to(&mut back);
            if back != bytes {
                return Err(format!("echo {number} differs"));
            }
        }
        Ok(format!("ok {count}"))
    }
}

/// An error as the tests compare it: the end of a stream without its counts.
pub(super) fn shown(error: impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    if text.starts_with("EndOfStream") {
        return "EndOfStream".to_owned();
    }
    text
}

/// Receives until there is no more, and holds that each producer's numbers follow each other.
pub(super) fn drain(consumer: &mut any::Consumer) -> String {
    let mut next = std::collections::HashMap::new();
    let mut bytes = Vec::new();
    for count in 0u64.. {
        match consumer.recv() {
            Ok(received) => {
                bytes.clear();
                // Its memory may be truncated while it is copied: then the next call returns the
                // error.
                if received.checked_append_to(&mut bytes).is_err() {
                    continue;
                }
            }
            Err(error) => return format!("drained {count} {}", shown(error)),
        }
        match message::decode(&bytes) {
            Err(damage) => return format!("damaged message {count}: {damage}"),
            Ok(it) => {
                let expected = next.entry(it.producer).or_insert(it.number);
                if *expected != it.number {
                    return format!(
                        "damaged order: {} of producer {} in place of {expected}",
                        it.number, it.producer
                    );
                }
                *expected += 1;
            }
        }
    }
    unreachable!("the stream ends before the numbers do")
}
