//! The ways from one process to another. Both ends of each are a [`Link`]: they can send and receive.

mod bytes;
mod choice;
mod limits;
mod queues;
mod ring;
mod shared;
mod slot;
mod stream;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use semring::{GuardChoice, WaitStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::payload::{Message, check, fill, word};
use crate::plan::Workload;
use crate::task::{Outcome, Task};
use crate::{Error, Result, usual_sizes};

/// One end of a way, for messages of a type.
pub trait Link<M: Message> {
    /// Sends one message.
    ///
    /// # Errors
    /// If it can't, now or ever.
    fn send(&mut self, message: &M) -> Result<()>;

    /// Receives one message of exactly this length.
    ///
    /// # Errors
    /// If it can't, or the message is of another length.
    fn receive(&mut self, message: &mut M) -> Result<()>;

    /// Hands over what is still held back.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Sends messages of these numbers, as long as this one. A way that fills its messages in place, or
    /// sends several at once, does it here.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    fn send_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        send_each(self, numbers, message)
    }

    /// Receives messages of these numbers, as long as this one, and looks at every word.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and if a message is not what was sent.
    #[inline]
    fn receive_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        receive_each(self, numbers, message)
    }
}

#[inline]
fn send_each<M: Message>(
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

#[inline]
fn receive_each<M: Message>(
    link: &mut (impl Link<M> + ?Sized),
    numbers: Range<u64>,
    message: &mut M,
) -> Result<()> {
    for number in numbers {
        link.receive(message)?;
        if !check(message.words(), word(0, number)) {
            return Err(not_sent(number));
        }
    }
    Ok(())
}

/// An end of any way. Every [`Link`] for bytes of any length is one; others become one as [`Typed`].
pub trait End {
    /// Does a task over it.
    ///
    /// # Errors
    /// What the link says, and a message that is not what was sent.
    fn give(&mut self, task: &Task) -> Result<Outcome>;
}

macro_rules! ends_for_bytes {
    ({} $($bytes:literal => $words:literal,)*) => {
        impl<L> End for L
        where
            $(L: Link<[[u8; 8]; $words]>,)*
            L: Link<Vec<[u8; 8]>>,
        {
            fn give(&mut self, task: &Task) -> Result<Outcome> {
                match task.size {
                    $($bytes => task.run::<[[u8; 8]; $words]>(self),)*
                    _ => task.run::<Vec<[u8; 8]>>(self),
                }
            }
        }
    };
}
usual_sizes! { ends_for_bytes! {} }

/// The end of a way that carries messages of one type.
#[derive(Debug)]
pub struct Typed<L, M> {
    link: L,
    messages: PhantomData<fn(M)>,
}

impl<L, M> Typed<L, M> {
    /// The end of this link.
    pub fn new(link: L) -> Self {
        Self {
            link,
            messages: PhantomData,
        }
    }
}

impl<L: Link<M>, M: Message> End for Typed<L, M> {
    fn give(&mut self, task: &Task) -> Result<Outcome> {
        task.run(&mut self.link)
    }
}

/// What there is to compare a way with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// A ring of this library, or a way of its kernel: compared unless something else is asked for.
    Usual,
    /// Another form of one of those, for who asks for it.
    Variant,
    /// A library between processes.
    Library,
    /// A library between threads of one process.
    Threads,
    /// What the machine itself can do.
    Limit,
}

/// A way from one process to another.
#[derive(Clone, Copy)]
pub struct Way {
    /// As it is called in options and in JSON.
    pub name: &'static str,
    /// As it is called in tables.
    pub label: &'static str,
    /// What it does for each message.
    pub about: &'static str,
    /// What it is compared with.
    pub sort: Sort,
    /// Why a workload is not for it; the rest is found by making it.
    pub obstacle: fn(&Spec) -> Option<String>,
    /// Makes it and opens the end of the process that measures.
    pub make: fn(Spec) -> Result<Made>,
    /// Opens the end of the other process of this number, which has what `make` gave it as stdin and
    /// stdout.
    pub open: fn(&Spec, usize) -> Result<Box<dyn End>>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Way {}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Way {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("no way is called {name}"));
        Self::named(&name).ok_or_else(unknown)
    }
}

/// Ways that other crates brought.
static MORE: RwLock<Vec<Way>> = RwLock::new(Vec::new());

impl Way {
    /// All of them, in the order of the tables.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = ring::ways().collect();
        all.extend(stream::ways());
        all.extend(queues::WAYS);
        all.extend(shared::WAYS);
        all.extend(slot::WAYS);
        all.extend(MORE.read().unwrap_or_else(PoisonError::into_inner).iter());
        all.extend(limits::WAYS);
        all
    }

    /// Those that are measured unless others are asked for.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|way| !matches!(way.sort, Sort::Variant | Sort::Limit));
        all
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|way| way.name == name)
    }

    /// Adds ways of other crates. To be done at the beginning of the program, also where it is the other
    /// process.
    pub fn add(ways: &[Self]) {
        let mut more = MORE.write().unwrap_or_else(PoisonError::into_inner);
        more.extend(ways);
    }
}

/// No obstacle that could be known before.
#[must_use]
pub fn nothing_known(_: &Spec) -> Option<String> {
    None
}

/// For a way that several processes can't send into.
#[must_use]
pub fn one_sender_only(spec: &Spec) -> Option<String> {
    (spec.workload == Workload::Producers).then(|| "one sender only".into())
}

/// What both ends must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// What is made.
    pub way: Way,
    /// What it is made for.
    pub workload: Workload,
    /// For what has a name; unique in the run.
    pub name: String,
    /// `posix:` or `sysv:`, for rings.
    pub backend: String,
    /// Bytes of a message.
    pub size: usize,
    #[serde(with = "choice")]
    pub(crate) wait: WaitStrategy,
    #[serde(with = "choice")]
    pub(crate) guard: GuardChoice,
    /// How many processes send.
    pub senders: usize,
    /// Identifiers of kernel objects that have no name.
    pub ids: Vec<i32>,
    /// Names that were chosen by what was made.
    pub names: Vec<String>,
}

/// This side of a way, and what the other side needs.
pub struct Made {
    /// As given, with what was found out.
    pub spec: Spec,
    /// What each of the other processes gets as stdin and stdout.
    pub stdio: Vec<(Stdio, Stdio)>,
    /// This side.
    pub end: Box<dyn End>,
    /// The other side, if it is threads of this process.
    pub others: Option<Ends>,
}

impl Made {
    /// For a way that is found by its name, or by what `spec` tells.
    #[must_use]
    pub fn named(spec: Spec, end: impl End + 'static) -> Self {
        let nothing = |_| (Stdio::null(), Stdio::null());
        let stdio = (0..spec.senders).map(nothing).collect();
        Self::inherited(spec, end, stdio)
    }

    /// For a way that the other processes inherit.
    #[must_use]
    pub fn inherited(spec: Spec, end: impl End + 'static, stdio: Vec<(Stdio, Stdio)>) -> Self {
        Self {
            spec,
            stdio,
            end: Box::new(end),
            others: None,
        }
    }

    /// For a way between threads of this process.
    #[must_use]
    pub fn threads(spec: Spec, end: impl End + 'static, others: Ends) -> Self {
        Self {
            others: Some(others),
            ..Self::inherited(spec, end, Vec::new())
        }
    }
}

/// The other side, as threads.
pub struct Ends {
    /// One for each thread.
    pub ends: Vec<Box<dyn End + Send>>,
    /// When it is set, an end that waits gives up with an error.
    pub stop: Arc<AtomicBool>,
}

/// Makes a way and opens the end of the process that measures.
pub(crate) fn make(spec: Spec) -> Result<Made> {
    (spec.way.make)(spec)
}

/// Opens the end of the other process of this number.
pub(crate) fn open(spec: &Spec, who: usize) -> Result<Box<dyn End>> {
    (spec.way.open)(spec, who)
}

/// A message was not as long as it had to be.
#[must_use]
pub fn wrong_length(found: usize, expected: usize) -> Error {
    format!("a message of {found} bytes, not {expected}").into()
}

/// A message has other bytes than it had to have.
#[cold]
#[must_use]
pub fn not_sent(number: u64) -> Error {
    format!("message {number} is not what was sent").into()
}
