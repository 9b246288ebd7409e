//! Rings: one for each direction.
#![allow(unsafe_code)]

use std::ops::Range;

use semring::{GuardChoice, WaitStrategy, mpsc};

use super::way::{Category, End, Setup, Spec, Way, no_obstacle};
use crate::cleanup::CleanupGuard;
use crate::error::{Result, wrong_content, wrong_length};
use crate::link::{Link, receive_each, send_each};
use crate::payload::{Bytes, check, fill, word};

/// Messages that a batch publishes together.
const BATCH: u64 = 32;

/// The options of both ends of a ring.
#[derive(Clone, Copy)]
struct Form {
    /// Replaces the option of the run.
    wait: Option<WaitStrategy>,
    guard: Option<GuardChoice>,
    /// If false, there is a fence after each message.
    asymmetric_barrier: bool,
    many: Many,
}

/// How messages are sent and received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Many {
    Single,
    Batches,
    /// As slices.
    InPlace,
}

const PLAIN: Form = Form {
    wait: None,
    guard: None,
    asymmetric_barrier: true,
    many: Many::Single,
};

const fn waits(wait: WaitStrategy) -> Form {
    Form {
        wait: Some(wait),
        ..PLAIN
    }
}

const fn variant(name: &'static str, label: &'static str, about: &'static str) -> Way {
    Way {
        name,
        label,
        about,
        category: Category::Variant,
        obstacle: no_obstacle,
        make,
        open,
    }
}

const RINGS: [(Way, Form); 8] = [
    (
        Way {
            category: Category::Usual,
            ..variant(
                "semring",
                "semring",
                "A ring: one `send` and one `recv` for each message.",
            )
        },
        PLAIN,
    ),
    (
        variant(
            "semring-adaptive",
            "semring, Adaptive",
            "The same with the default strategy, independent of --wait.",
        ),
        waits(WaitStrategy::Adaptive),
    ),
    (
        variant("semring-spin", "semring, Spin", "The same; both ends spin."),
        waits(WaitStrategy::Spin),
    ),
    (
        variant(
            "semring-block",
            "semring, Block",
            "The same; both ends sleep without spinning.",
        ),
        waits(WaitStrategy::Block),
    ),
    (
        variant(
            "semring-pipes",
            "semring, pipe guard",
            "The same, guarded by FIFOs and locks instead of semaphores.",
        ),
        Form {
            guard: Some(GuardChoice::Pipe),
            ..PLAIN
        },
    ),
    (
        variant(
            "semring-fenced",
            "semring, always a fence",
            "The same, without the asymmetric barrier.",
        ),
        Form {
            asymmetric_barrier: false,
            ..PLAIN
        },
    ),
    (
        variant(
            "semring-batch",
            "semring, batches of 32",
            "A ring: 32 messages for each batch, received in batches.",
        ),
        Form {
            many: Many::Batches,
            ..PLAIN
        },
    ),
    (
        variant(
            "semring-in-place",
            "semring, in place",
            "A ring: messages filled and checked where they are, as slices (`trust_peers`).",
        ),
        Form {
            many: Many::InPlace,
            ..PLAIN
        },
    ),
];

pub(super) fn ways() -> impl Iterator<Item = Way> {
    RINGS.into_iter().map(|(way, _)| way)
}

fn form(way: Way) -> Form {
    let form = RINGS.iter().find(|(ring, _)| *ring == way);
    form.map_or(PLAIN, |(_, form)| *form)
}

pub(crate) struct RingLink {
    many: Many,
    // Dropped in this order: attachments, then the objects.
    producer: mpsc::Producer,
    /// Absent if there are several senders: none of them receives.
    consumer: Option<mpsc::Consumer>,
    _cleanup: Vec<CleanupGuard>,
}

fn address(spec: &Spec, direction: &str) -> String {
    format!("{}{}-{direction}", spec.backend, spec.name)
}

fn builder(spec: &Spec, form: Form, direction: &str) -> mpsc::Builder {
    let builder = mpsc::Builder::new(address(spec, direction))
        .wait(form.wait.unwrap_or(spec.wait))
        .guard(form.guard.unwrap_or(spec.guard))
        .asymmetric_barrier(form.asymmetric_barrier);
    if form.many == Many::InPlace {
        // SAFETY: only the two sides of this bench use the ring, and neither writes into a message after its
        // commit.
        unsafe { builder.trust_peers() }
    } else {
        builder
    }
}

fn make(spec: Spec) -> Result<Setup> {
    let form = form(spec.way);
    // Room for some of the largest messages, and at least 256 KiB, which fit into a cache.
    let capacity = (spec.size as u64 * 16).max(256 << 10);
    let make = |direction, senders| {
        let builder = builder(&spec, form, direction)
            .capacity(capacity)
            .producers(senders);
        CleanupGuard::ring(&address(&spec, direction), || Ok(builder.create()?))
    };
    let (there, there_cleanup) = make("there", 1)?;
    let (back, back_cleanup) = make("back", spec.senders)?;
    let end = RingLink {
        many: form.many,
        producer: there.attach_producer()?,
        consumer: Some(back.attach_consumer()?),
        _cleanup: vec![there_cleanup, back_cleanup],
    };
    Ok(Setup::named(spec, end))
}

fn open(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let form = form(spec.way);
    let there = builder(spec, form, "there").open()?;
    let consumer = if spec.senders == 1 {
        Some(there.attach_consumer()?)
    } else {
        None
    };
    let back = builder(spec, form, "back").open()?;
    Ok(Box::new(RingLink {
        many: form.many,
        producer: back.attach_producer()?,
        consumer,
        _cleanup: Vec::new(),
    }))
}

impl RingLink {
    #[inline]
    fn consumer(&mut self) -> Result<&mut mpsc::Consumer> {
        self.consumer
            .as_mut()
            .ok_or_else(|| "only one of the ring's senders can receive".into())
    }

    fn send_batches<M: Bytes>(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        let mut next = numbers.start;
        while next < numbers.end {
            let end = numbers.end.min(next + BATCH);
            let mut batch = self.producer.batch();
            for number in next..end {
                fill(message.words_mut(), word(0, number));
                batch.push(message.bytes())?;
            }
            batch.commit();
            next = end;
        }
        Ok(())
    }

    fn receive_batches<M: Bytes>(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        let consumer = self.consumer()?;
        let mut next = numbers.start;
        while next < numbers.end {
            let mut batch = consumer.recv_batch()?;
            let end = numbers.end.min(next + BATCH);
            while next < end
                && let Some(received) = batch.next_message()
            {
                let bytes = message.bytes_mut();
                if received.len() != bytes.len() {
                    return Err(wrong_length(received.len(), bytes.len()));
                }
                received.copy_to(bytes);
                if !check(message.words(), word(0, next)) {
                    return Err(wrong_content(next));
                }
                next += 1;
            }
        }
        Ok(())
    }

    fn send_in_place<M: Bytes>(&mut self, numbers: Range<u64>, message: &M) -> Result<()> {
        for number in numbers {
            let mut reservation = self.producer.reserve(message.bytes().len())?;
            let place = reservation.as_mut_slice().ok_or(NOT_TRUSTED)?;
            let found = place.len();
            let words = message
                .as_many_mut(place.as_chunks_mut::<8>().0)
                .ok_or_else(|| wrong_length(found, message.bytes().len()))?;
            fill(words, word(0, number));
            reservation.commit();
        }
        Ok(())
    }

    fn receive_in_place<M: Bytes>(&mut self, numbers: Range<u64>, message: &M) -> Result<()> {
        let consumer = self.consumer()?;
        for number in numbers {
            let received = consumer.recv()?;
            let place = received.as_slice().ok_or(NOT_TRUSTED)?;
            let words = message
                .as_many(place.as_chunks::<8>().0)
                .ok_or_else(|| wrong_length(place.len(), message.bytes().len()))?;
            if !check(words, word(0, number)) {
                return Err(wrong_content(number));
            }
        }
        Ok(())
    }
}

impl<M: Bytes> Link<M> for RingLink {
    #[inline(always)]
    fn send(&mut self, message: &M) -> Result<()> {
        Ok(self.producer.send(message.bytes())?)
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        let received = self.consumer()?.recv()?;
        if received.len() != bytes.len() {
            return Err(wrong_length(received.len(), bytes.len()));
        }
        received.copy_to(bytes);
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        match self.many {
            Many::Single => send_each(self, numbers, message),
            Many::Batches => self.send_batches(numbers, message),
            Many::InPlace => self.send_in_place(numbers, message),
        }
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        match self.many {
            Many::Single => receive_each(self, numbers, message),
            Many::Batches => self.receive_batches(numbers, message),
            Many::InPlace => self.receive_in_place(numbers, message),
        }
    }
}

const NOT_TRUSTED: &str = "a ring whose peers are trusted gives slices";
