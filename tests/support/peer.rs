//! The other process of the tests: executes the commands that it reads from stdin, one in each line,
//! and answers each with one line.
//!
//! It has at most one ring open, one producer and one consumer at a time. An error is answered as
//! `error` and the variant. The process has one thread, so that it may fork.
//!
//! | command | answer |
//! |---|---|
//! | `wait STRATEGY` (spin, yield, adaptive, block): for rings opened later | `ok` |
//! | `guard KIND` (auto, semaphore, pipe): for rings made later | `ok` |
//! | `linger MS`: for rings opened later | `ok` |
//! | `open A` · `create A LANES CAPACITY` · `open-or-create A LANES CAPACITY` | `ok UUID` |
//! | `producer` · `consumer`: attach | `ok LANE` · `ok` |
//! | `drop-producer` · `drop-consumer` · `close-producer` · `close-consumer` · `drop-ring` | `ok` |
//! | `send-parts P FIRST COUNT LEN`: the same, as parts of a line; `recv-part`: one of lane 0 | `ok` or `error …` |
//! | `send P FIRST COUNT LEN`: numbered messages | `ok` or `error … after N` |
//! | `try-send P FIRST COUNT LEN` · `send-timeout P NUMBER LEN MS` | likewise |
//! | `fill P FIRST LEN`: until there is no room | `ok N` |
//! | `batch P FIRST COUNT LEN` | `ok` or `error … after N` |
//! | `feed P FIRST COUNT LEN RECORD`: sends, records, continues after consumers that die | `ok` |
//! | `check_consumer` · `await-next` | `ok` |
//! | `recv` · `recv-timeout MS` · `try-recv`: after an end they resume first | `message P NUMBER LANE POSITION` |
//! | `recv-again`: without resuming | the same |
//! | `resume` | `ok` |
//! | `recv-deadline MS` · `send-deadline P NUMBER LEN MS`: so far from now | `until then`, then as above, perhaps `… too early` |
//! | `skip COUNT`: receive and release this many messages | `ok` |
//! | `drain`: receive to the end | `drained N ERROR` or `damaged …` |
//! | `keep LOG`: receive to the end, write each message down before it is released | `ended N` |
//! | `flush` · `remove-at-end` | `ok` · `ok true` |
//! | `echo`: send back what is received, to the end | `echoed N ERROR` |
//! | `volley P COUNT LEN`: send, await the echo | `ok N` |
//! | `volley-after P COUNT LEN LOOPS`: a random pause of up to this many loops before each | `ok N` |
//! | `volleys P COUNT LEN RUN LOOPS`: a random pause, send this many, await all echoes | `ok N` |
//! | `pin CPU` | `ok` |
//! | `second A`: a second ring for `echo` and `volley` to receive from | `ok` |
//! | `remove A` · `force-remove A` · `remove-if-done` | `ok` |
//! | `inspect A`: look, without taking part | `ok STATE UNREAD` |
//! | `churn COUNT` · `churn-consumer COUNT`: attach and detach this often | `ok` |
//! | `late P NUMBER LEN`: attach, send one message, leave | `sent` or `refused …` |
//! | `make A LANES CAPACITY idle COUNT`: open or create this often | `ok` or `error … at N` |
//! | `make A LANES CAPACITY attached COUNT`: and attach a producer, if there is room | likewise |
//! | `unmake A COUNT` · `force-unmake A COUNT`: remove this often, also if there is no ring | likewise |
//! | `forked-handles` · `forked-releases` · `forked-opener A`: what a forked child can do | `child …` |
//! | `handle-usr1`: an empty handler without SA_RESTART | `ok` |
//! | `become-cat`: exec `cat`, which answers with its input | `ok` |
//! | `become-nobody`: drop the privileges of root permanently | `ok` |
//! | `unshare-ipc`: go into an IPC namespace of its own | `ok` |
//! | `handle-sigbus`: a handler that puts a page of zeros where the fault was | `ok` |
//! | `ignore-sigbus` · `default-sigbus` | `ok` |
//! | `leave-sigbus`: semring must install no handler | `ok true`; `ok false` if there is one |
//! | `fault`: read a page that was truncated, of a file of its own | `ok HANDLED` |
//! | `raise-sigbus`: as if another process had sent it | `ok HANDLED` |
//! | `allocate MIB`: private memory, which makes dying slower | `ok` |
//! | `line …`: see [`mod@line`] | |
//! | `newcomer …`, `waiting …`: see [`settings`] | |
//! | `marked …`: see [`marked`] | |
//!
//! Started with the argument `coprocess` it does something else: see [`coprocess`].

mod bus;
mod child;
mod coprocess;
mod flow;
mod line;
mod marked;
mod rings;
mod settings;

use std::fmt::Debug;
use std::io::{BufRead, Write};
use std::time::Duration;

use semring::{GuardChoice, OpenError, RemoveError, WaitStrategy, any};
use semring_testkit::message;

/// The handles of the process.
#[derive(Default)]
struct Peer {
    // In the order in which they are to be dropped.
    producer: Option<any::Producer>,
    consumer: Option<any::Consumer>,
    ring: Option<any::Ring>,
    /// The consumer of a second ring.
    second: Option<any::Consumer>,
    line: line::Line,
    strategy: WaitStrategy,
    linger: Duration,
    guard: GuardChoice,
    extra_memory: Vec<u8>,
}

/// An answer: the text after `ok`, or the whole line of a failure.
type Answer = Result<String, String>;

fn failed(error: impl Debug) -> String {
    format!("error {}", flow::shown(error))
}

fn done<T, E: Debug>(result: Result<T, E>) -> Answer {
    result.map(|_| "ok".to_owned()).map_err(failed)
}

/// The words of a command after its name.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn text(&mut self) -> &'a str {
        self.0.next().expect("the command has one more word")
    }

    fn number(&mut self) -> u64 {
        self.text().parse().expect("a number")
    }

    fn size(&mut self) -> usize {
        usize::try_from(self.number()).expect("a size")
    }

    fn producer(&mut self) -> u32 {
        u32::try_from(self.number()).expect("a producer's number")
    }

    fn milliseconds(&mut self) -> Duration {
        Duration::from_millis(self.number())
    }
}

impl Peer {
    fn builder(&self, address: &str) -> any::Builder {
        let builder = rings::any(address).wait(self.strategy);
        builder.guard(self.guard).linger(self.linger)
    }

    fn ring(&self) -> &any::Ring {
        self.ring.as_ref().expect("a ring is open")
    }

    fn producer(&mut self) -> &mut any::Producer {
        self.producer.as_mut().expect("a producer is attached")
    }

    fn consumer(&mut self) -> &mut any::Consumer {
        self.consumer.as_mut().expect("a consumer is attached")
    }

    /// The consumer, for a call that receives: after an end it goes on.
    fn receiving(&mut self) -> &mut any::Consumer {
        let consumer = self.consumer();
        consumer.resume();
        consumer
    }

    fn keep_ring<E: Debug>(&mut self, ring: Result<any::Ring, E>) -> Answer {
        let ring = ring.map_err(failed)?;
        let info = ring.info().map_err(failed)?;
        self.ring = Some(ring);
        Ok(format!("ok {}", info.uuid))
    }

    fn obey(&mut self, command: &str, words: &mut Words<'_>) -> Answer {
        match command {
            "wait" => {
                self.strategy = match words.text() {
                    "spin" => WaitStrategy::Spin,
                    "yield" => WaitStrategy::Yield,
                    "block" => WaitStrategy::Block,
                    _ => WaitStrategy::Adaptive,
                };
                Ok("ok".to_owned())
            }
            "linger" => {
                self.linger = words.milliseconds();
                Ok("ok".to_owned())
            }
            "guard" => {
                self.guard = match words.text() {
                    "semaphore" => GuardChoice::Semaphore,
                    "pipe" => GuardChoice::Pipe,
                    _ => GuardChoice::Auto,
                };
                Ok("ok".to_owned())
            }
            "open" => self.keep_ring(self.builder(words.text()).open()),
            "create" | "open-or-create" => {
                let address = words.text();
                let builder = self.builder(address);
                let builder = builder.producers(words.size()).capacity(words.number());
                if command == "create" {
                    self.keep_ring(builder.create())
                } else {
                    self.keep_ring(builder.open_or_create())
                }
            }
            "producer" => {
                let producer = self.ring().attach_producer().map_err(failed)?;
                let lane = producer.lane();
                self.producer = Some(producer);
                Ok(format!("ok {lane}"))
            }
            "consumer" => {
                self.consumer = Some(self.ring().attach_consumer().map_err(failed)?);
                Ok("ok".to_owned())
            }
            "drop-producer" => Ok(self.producer.take().map_or("none", |_| "ok").to_owned()),
            "drop-consumer" => Ok(self.consumer.take().map_or("none", |_| "ok").to_owned()),
            "close-producer" => {
                self.producer.take().expect("attached").close();
                Ok("ok".to_owned())
            }
            "close-consumer" => {
                self.consumer.take().expect("attached").close();
                Ok("ok".to_owned())
            }
            "drop-ring" => Ok(self.ring.take().map_or("none", |_| "ok").to_owned()),
            "check" => done(self.producer().check_consumer()),
            "await-next" => done(self.producer().accept_next_consumer()),
            "flush" => done(self.consumer().flush_released()),
            "remove-at-end" => {
                let gone = self
                    .consumer()
                    .remove_at_end()
                    .map_err(failed)?
                    .is_removed();
                Ok(format!("ok {gone}"))
            }
            "remove" => done(semring::remove(address(words))),
            "force-remove" => done(semring::force_remove(address(words))),
            "remove-if-done" => {
                let gone = self.ring().remove_if_done().map_err(failed)?.is_removed();
                Ok(format!("ok {gone}"))
            }
            "second" => {
                let ring = self.builder(words.text()).open().map_err(failed)?;
                self.second = Some(ring.attach_consumer().map_err(failed)?);
                Ok("ok".to_owned())
            }
            "inspect" => {
                let info = semring::inspect(address(words)).map_err(failed)?;
                Ok(format!("ok {} {}", info.state, info.unread_messages()))
            }
            "churn" => {
                for _ in 0..words.number() {
                    drop(self.ring().attach_producer().map_err(failed)?);
                }
                Ok("ok".to_owned())
            }
            "churn-consumer" => {
                for _ in 0..words.number() {
                    drop(self.ring().attach_consumer().map_err(failed)?);
                }
                Ok("ok".to_owned())
            }
            "late" => self.late(words),
            "make" => {
                let address = words.text();
                let builder = self.builder(address);
                let builder = builder.producers(words.size()).capacity(words.number());
                let attached = words.text() == "attached";
                // Held through the next round: it is removed while in use.
                let mut held = None;
                for round in 0..words.number() {
                    let ring = builder.open_or_create();
                    let ring = ring.map_err(|error| format!("{} at {round}", failed(error)))?;
                    drop(held.take());
                    held = attached.then(|| ring.attach_producer().ok());
                }
                Ok("ok".to_owned())
            }
            "unmake" | "force-unmake" => {
                let address = address(words);
                for round in 0..words.number() {
                    let removed = if command == "force-unmake" {
                        semring::force_remove(&address).map(drop)
                    } else {
                        semring::remove(&address)
                    };
                    match removed {
                        Ok(()) | Err(RemoveError::Open(OpenError::NotFound { .. })) => {}
                        Err(error) => return Err(format!("{} at {round}", failed(error))),
                    }
                }
                Ok("ok".to_owned())
            }
            "pin" => {
                child::pin(words.size());
                Ok("ok".to_owned())
            }
            "allocate" => {
                // Written, so that every page is real and has to be given back at the end.
                self.extra_memory = vec![1; words.size() << 20];
                Ok("ok".to_owned())
            }
            "become-cat" => Err(failed(child::become_cat())),
            "unshare-ipc" => done(child::unshare_ipc()),
            "become-nobody" => done(child::become_nobody()),
            "handle-usr1" => {
                child::handle_usr1();
                Ok("ok".to_owned())
            }
            "handle-sigbus" => {
                bus::handle();
                Ok("ok".to_owned())
            }
            "ignore-sigbus" => {
                bus::ignore();
                Ok("ok".to_owned())
            }
            "default-sigbus" => {
                bus::reset();
                Ok("ok".to_owned())
            }
            "leave-sigbus" => Ok(format!("ok {}", semring::disable_sigbus_handler().is_ok())),
            "fault" => Ok(format!("ok {}", bus::fault())),
            "raise-sigbus" => Ok(format!("ok {}", bus::raise())),
            "forked-handles" => self.forked_handles(),
            "forked-slice" => self.forked_slice(),
            "forked-releases" => self.forked_releases(),
            "forked-opener" => self.forked_opener(words.text()),
            "line" => self.line.obey(words),
            "newcomer" => self.newcomer(words),
            "waiting" => self.waiting(words),
            "marked" => self.marked(words),
            other => self.transfer(other, words),
        }
    }

    fn received(result: Result<semring::Message<'_>, semring::RecvError>) -> Answer {
        let received = result.map_err(failed)?;
        let (lane, position) = (received.lane(), received.position());
        let numbered = message::decode(&received.to_vec()).map_err(|damage| damage.to_string())?;
        Ok(format!(
            "message {} {} {lane} {position}",
            numbered.producer, numbered.number
        ))
    }
}

fn address(words: &mut Words<'_>) -> semring::Address {
    words.text().parse().expect("an address")
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("coprocess") {
        return coprocess::run(arguments);
    }
    let mut peer = Peer::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin can be read");
        let mut words = Words(line.split_whitespace());
        let Some(command) = words.0.next() else {
            continue;
        };
        let answer = peer
            .obey(command, &mut words)
            .unwrap_or_else(|failure| failure);
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")
            .and_then(|()| stdout.flush())
            .expect("stdout takes the answer");
    }
}
