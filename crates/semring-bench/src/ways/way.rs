//! A way, its ends, and the data that both sides share.

use std::fmt;
use std::marker::PhantomData;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use semring::{GuardChoice, WaitStrategy};
use serde::{Deserialize, Serialize, Serializer};

use super::choice;
use crate::error::Result;
use crate::link::Link;
use crate::payload::{Message, usual_sizes};
use crate::work::{Outcome, Task};
use crate::workload::Workload;

/// An end of any way, for any kind of messages. Every [`Link`] for bytes of any length is an end; [`Typed`]
/// makes one of a link for messages of one type.
pub trait End {
    /// Runs a task over the link.
    ///
    /// # Errors
    /// Those of the link, and a message that differs from the one sent.
    fn run(&mut self, task: &Task) -> Result<Outcome>;
}

macro_rules! ends_for_bytes {
    ({} $($bytes:literal => $words:literal,)*) => {
        impl<L> End for L
        where
            $(L: Link<[[u8; 8]; $words]>,)*
            L: Link<Vec<[u8; 8]>>,
        {
            fn run(&mut self, task: &Task) -> Result<Outcome> {
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
    /// An end with this link.
    pub fn new(link: L) -> Self {
        Self {
            link,
            messages: PhantomData,
        }
    }
}

impl<L: Link<M>, M: Message> End for Typed<L, M> {
    fn run(&mut self, task: &Task) -> Result<Outcome> {
        task.run(&mut self.link)
    }
}

/// The category of a way, which decides whether a run includes it by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    /// A ring, or a way that the kernel offers: measured by default.
    Usual,
    /// A variant of one of those: measured on request.
    Variant,
    /// A library between processes.
    Library,
    /// A library between threads of one process.
    Threads,
    /// A limit of the machine: measured on request.
    Limit,
}

/// A way from one process to another.
#[derive(Clone, Copy)]
pub struct Way {
    /// Its name in options and in JSON.
    pub name: &'static str,
    /// Its name in tables.
    pub label: &'static str,
    /// What the way does for each message.
    pub about: &'static str,
    /// The category, which decides whether it is measured by default.
    pub category: Category,
    /// Why it can't run a workload. Other reasons are found when it is made.
    pub obstacle: fn(&Spec) -> Option<String>,
    /// Makes it and opens the end of the process that measures.
    pub make: fn(Spec) -> Result<Setup>,
    /// Opens the end of the other process with this number. Its stdin and stdout are those that `make` set
    /// up.
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

/// Returns `None`: for a way that can run every workload.
#[must_use]
pub fn no_obstacle(_: &Spec) -> Option<String> {
    None
}

/// For a way with one sender.
#[must_use]
pub fn one_sender_only(spec: &Spec) -> Option<String> {
    (spec.workload == Workload::Producers).then(|| "one sender only".into())
}

/// The data that both ends need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The way.
    pub way: Way,
    /// The workload for which it is used.
    pub workload: Workload,
    /// A name for kernel objects, unique among all processes.
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
    /// Names that the way has chosen.
    pub names: Vec<String>,
}

impl Spec {
    /// Makes the way and opens the end of the process that measures.
    pub(crate) fn make(self) -> Result<Setup> {
        (self.way.make)(self)
    }

    /// Opens the end of the other process with this number.
    pub(crate) fn open(&self, sender: usize) -> Result<Box<dyn End>> {
        (self.way.open)(self, sender)
    }
}

/// This side of a way, and the data for the other side.
pub struct Setup {
    /// As passed to `make`, with the identifiers and names of the objects made.
    pub spec: Spec,
    /// The stdin and stdout of each of the other processes.
    pub stdio: Vec<(Stdio, Stdio)>,
    /// This side.
    pub end: Box<dyn End>,
    /// The other side, if it is threads of this process.
    pub others: Option<ThreadEnds>,
}

impl Setup {
    /// For a way that the other processes find through `spec`.
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
    pub fn threads(spec: Spec, end: impl End + 'static, others: ThreadEnds) -> Self {
        Self {
            others: Some(others),
            ..Self::inherited(spec, end, Vec::new())
        }
    }
}

/// The other side, as threads.
pub struct ThreadEnds {
    /// One for each thread.
    pub ends: Vec<Box<dyn End + Send>>,
    /// Set when the round is over: an end that waits then returns an error.
    pub stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ThreadEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadEnds")
            .field("ends", &self.ends.len())
            .finish_non_exhaustive()
    }
}
