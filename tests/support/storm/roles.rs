//! The work of the children until they are killed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use semring::{AttachError, RecvError, SendError, WaitStrategy, any};
use semring_testkit::ledger::{ConsumerBooks, Ledger, ProducerBooks};
use semring_testkit::shared::SharedWords;

use super::random::Random;
use super::rings;

/// The exit code of a child that found a fault and has printed it.
pub const FOUND: u8 = 3;

/// The words shared by the children besides the records.
pub struct Board {
    words: SharedWords,
}

/// Words of the board: producers are to leave, …
const LEAVE: usize = 0;
/// … the producer number + 1 of the herald, whose last message ends the round, …
const HERALD: usize = 1;
/// … and what happened.
const REFUSED: usize = 2;
const BROKEN_PIPES: usize = 3;
const ENDS: usize = 4;
/// Whether a consumer is attached, by its own word.
const CONSUMER: usize = 5;
/// From here on two words for each producer's place: the number of its actions, and the number of its
/// broken pipes and new attachments.
const PLACES: usize = 16;

impl Board {
    pub fn new(producers: usize) -> std::io::Result<Board> {
        let words = SharedWords::new(PLACES + 2 * producers)?;
        Ok(Board { words })
    }

    fn count(&self, word: usize) {
        self.words[word].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::SeqCst)
    }

    /// Producers leave by themselves from here on.
    pub fn let_producers_leave(&self) {
        self.words[LEAVE].store(1, Ordering::SeqCst);
    }

    fn is_leaving(&self) -> bool {
        self.get(LEAVE) != 0
    }

    pub fn refused(&self) -> u64 {
        self.get(REFUSED)
    }

    pub fn broken_pipes(&self) -> u64 {
        self.get(BROKEN_PIPES)
    }

    pub fn ends(&self) -> u64 {
        self.get(ENDS)
    }

    /// Whether the consumer that stored its state last was attached then.
    pub fn has_consumer(&self) -> bool {
        self.get(CONSUMER) != 0
    }

    fn record_consumer(&self, is_attached: bool) {
        self.words[CONSUMER].store(is_attached.into(), Ordering::SeqCst);
    }

    /// How often the producers at this place did something.
    pub fn progress(&self, place: usize) -> u64 {
        self.get(PLACES + 2 * place)
    }

    /// The number of times that they noticed the lack of a consumer, or attached without one.
    pub fn news(&self, place: usize) -> u64 {
        self.get(PLACES + 2 * place + 1)
    }

    fn record_progress(&self, place: usize) {
        self.count(PLACES + 2 * place);
    }

    fn record_news(&self, place: usize) {
        self.count(PLACES + 2 * place + 1);
    }
}

/// The data that a child needs.
pub struct Setting<'a> {
    pub address: &'a str,
    pub wait: WaitStrategy,
    pub ledger: &'a Ledger,
    pub board: &'a Board,
}

/// Bytes of a message of an array.
const ELEMENT_BYTES: usize = 64;

type Done = Result<(), String>;

fn ended(what: &str, done: Done) -> u8 {
    match done {
        Ok(()) => 0,
        Err(problem) => {
            eprintln!("{what} (process {}): {problem}", std::process::id());
            FOUND
        }
    }
}

impl Setting<'_> {
    fn open(&self) -> Result<any::Ring, String> {
        let ring = rings::any(self.address).wait(self.wait).open();
        ring.map_err(|error| format!("open: {error}"))
    }

    /// Attaches. Every process that might be in the way is alive and has its own place, or was just
    /// killed: so attaching may take as long as the kernel takes to end a process, but must not be
    /// refused before that time has passed.
    fn attached<T>(&self, mut attach: impl FnMut() -> Result<T, AttachError>) -> Result<T, String> {
        // Twenty refusals are twenty seconds in which the kernel has not ended the process.
        for _ in 0..20 {
            let begin = Instant::now();
            match attach() {
                Ok(attached) => return Ok(attached),
                Err(
                    error @ (AttachError::NoFreeLane { .. } | AttachError::ConsumerPresent { .. }),
                ) => {
                    self.board.count(REFUSED);
                    if begin.elapsed() < Duration::from_millis(900) {
                        return Err(format!(
                            "refused after {:?} though its place is free or dying: {error}",
                            begin.elapsed()
                        ));
                    }
                }
                Err(error) => return Err(format!("attach: {error}")),
            }
        }
        Err("its place did not become free within 20 seconds".to_owned())
    }

    /// A producer at this place.
    pub fn producer(&self, place: usize, mut random: Random) -> u8 {
        ended("producer", self.produce(place, &mut random))
    }

    fn produce(&self, place: usize, random: &mut Random) -> Done {
        let ring = self.open()?;
        let mut bytes = Vec::new();
        while !self.board.is_leaving() {
            let mut producer = self.attached(|| ring.attach_producer())?;
            let books = self.ledger.enlist();
            let mut books = books.ok_or("more attachments than the ledger has room for")?;
            books.attached(producer.lane());
            self.board.record_news(place);
            for _ in 0..1 + random.below(20_000) {
                if self.board.is_leaving() {
                    break;
                }
                let done = self.act(&mut producer, &mut books, random, &mut bytes);
                self.board.record_progress(place);
                match done {
                    Ok(()) | Err(SendError::Full | SendError::TimedOut) => {}
                    Err(SendError::ConsumerGone) => {
                        self.board.count(BROKEN_PIPES);
                        let next = producer.accept_next_consumer();
                        next.map_err(|error| format!("accept_next_consumer: {error}"))?;
                        self.board.record_news(place);
                    }
                    Err(error) => return Err(format!("send: {error}")),
                }
            }
            books.finish();
            drop(producer);
        }
        Ok(())
    }

    /// One action of a producer. Messages that it could not send it sends next time.
    fn act(
        &self,
        producer: &mut any::Producer,
        books: &mut ProducerBooks<'_>,
        random: &mut Random,
        bytes: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let len = random.length(producer.max_message_bytes());
        match random.below(40) {
            0..16 => {
                books.encode(0, len, bytes);
                books.begin(1);
                producer.send(bytes)?;
                books.committed(1);
            }
            20..25 => {
                books.encode(0, len, bytes);
                books.begin(1);
                producer.try_send(bytes)?;
                books.committed(1);
            }
            25..30 => {
                books.encode(0, len, bytes);
                let mut reservation = producer.reserve(bytes.len())?;
                let cut = random.below(bytes.len() as u64 + 1) as usize;
                reservation.write_at(0, &bytes[..cut]);
                reservation.write_at(cut, &bytes[cut..]);
                books.begin(1);
                reservation.commit();
                books.committed(1);
            }
            30 => {
                let mut reservation = producer.reserve(len)?;
                reservation.write_at(0, &vec![0xff; len]);
                reservation.discard();
            }
            16..20 => {
                // As long as one array may be; the first message of a producer is longer than some are.
                let most = producer.max_message_bytes() / ELEMENT_BYTES;
                let wanted = 1 + random.below(most as u64);
                let messages: Vec<[u8; ELEMENT_BYTES]> = (0..wanted)
                    .map(|ahead| {
                        books.encode(ahead, ELEMENT_BYTES, bytes);
                        bytes.as_slice().try_into().expect("so long it is")
                    })
                    .collect();
                books.begin(wanted);
                producer.send_all(&messages)?;
                books.committed(wanted);
            }
            31..36 => {
                let wanted = 1 + random.below(16);
                books.begin(wanted);
                let mut batch = producer.batch();
                let mut pushed = 0;
                let mut result = Ok(());
                while pushed < wanted && result.is_ok() {
                    books.encode(pushed, random.length(300), bytes);
                    result = batch.push(bytes);
                    pushed += u64::from(result.is_ok());
                }
                batch.commit();
                books.committed(pushed);
                result?;
            }
            36 => {
                books.encode(0, len, bytes);
                books.begin(1);
                producer.send_deadline(bytes, Duration::from_micros(300))?;
                books.committed(1);
            }
            37 => producer.check_consumer()?,
            // So that the consumer sleeps.
            _ => random.pass(Duration::from_micros(400)),
        }
        Ok(())
    }

    /// The last producer of a round: one message, and then the end, of one kind or the other.
    pub fn herald(&self, killed: bool) -> u8 {
        let done = (|| {
            let ring = self.open()?;
            let mut producer = self.attached(|| ring.attach_producer())?;
            let mut books = self.ledger.enlist().ok_or("no room in the ledger")?;
            books.attached(producer.lane());
            self.board.words[HERALD].store(u64::from(books.producer()) + 1, Ordering::SeqCst);
            let mut bytes = Vec::new();
            books.encode(0, 24, &mut bytes);
            books.begin(1);
            loop {
                match producer.send(&bytes) {
                    Ok(()) => break,
                    Err(SendError::ConsumerGone) => {
                        let next = producer.accept_next_consumer();
                        next.map_err(|error| format!("accept_next_consumer: {error}"))?;
                    }
                    Err(error) => return Err(format!("send: {error}")),
                }
            }
            books.committed(1);
            if killed {
                semring_testkit::fork::kill_this();
            }
            books.finish();
            Ok(())
        })();
        ended("herald", done)
    }

    /// A consumer, until the end of the stream after the last producer's message.
    pub fn consumer(&self, mut random: Random) -> u8 {
        ended("consumer", self.consume(&mut random))
    }

    fn consume(&self, random: &mut Random) -> Done {
        let ring = self.open()?;
        let mut bytes = Vec::new();
        loop {
            let mut consumer = self.attached(|| ring.attach_consumer())?;
            self.board.record_consumer(true);
            let mut books = self.ledger.consumer();
            for _ in 0..1 + random.below(30_000) {
                let got = receive(&mut consumer, &mut books, random, &mut bytes);
                match got {
                    Ok(()) | Err(RecvError::Empty | RecvError::TimedOut) => {}
                    Err(RecvError::EndOfStream { .. }) => {
                        self.board.count(ENDS);
                        let herald = self.board.get(HERALD);
                        if herald != 0 && self.ledger.has_arrived(herald as u32 - 1, 0) {
                            return remove(consumer, random);
                        }
                    }
                    Err(error) => return Err(format!("recv: {error}")),
                }
            }
            self.board.record_consumer(false);
            drop(consumer);
        }
    }
}

/// Sometimes the ring ends with its last user; otherwise the parent removes it.
fn remove(mut consumer: any::Consumer, random: &mut Random) -> Done {
    if random.once_in(2) {
        match consumer.remove_at_end() {
            Ok(outcome) if outcome.is_removed() => {}
            Ok(outcome) => return Err(format!("remove_at_end: {outcome:?} after the end")),
            Err(error) => return Err(format!("remove_at_end: {error}")),
        }
    }
    Ok(())
}

/// Something that a consumer does.
fn receive(
    consumer: &mut any::Consumer,
    books: &mut ConsumerBooks<'_>,
    random: &mut Random,
    bytes: &mut Vec<u8>,
) -> Result<(), RecvError> {
    let mut enter = |view: semring::MessageRef<'_>| {
        bytes.clear();
        view.append_to(bytes);
        books.received(bytes, view.lane(), view.position().get());
    };
    match random.below(40) {
        0..20 => enter(consumer.recv()?.as_message_ref()),
        20..28 => enter(consumer.try_recv()?.as_message_ref()),
        30..32 => enter(
            consumer
                .recv_deadline(Duration::from_micros(300))?
                .as_message_ref(),
        ),
        28..30 => {
            let array = consumer.recv_array()?;
            let count = 1 + random.below(array.len() as u64) as usize;
            array.iter().take(count).for_each(&mut enter);
            // All of it, as often as not.
            if random.once_in(2) {
                array.iter().skip(count).for_each(&mut enter);
                array.release();
            } else {
                array.release_first(count);
            }
        }
        32..37 => {
            let mut batch = consumer.recv_batch()?;
            for _ in 0..1 + random.below(100) {
                let Some(message) = batch.next_message() else {
                    break;
                };
                enter(message);
            }
        }
        37 => consumer.flush_released()?,
        // So that lanes fill.
        _ => random.pass(Duration::from_micros(400)),
    }
    Ok(())
}
