//! Rings: one there and one back.

use semring::{WaitStrategy, mpsc};
use serde::{Deserialize, Serialize};

use super::{End, Link, Made, Spec, no_stdio, wrong_length};
use crate::Result;
use crate::trash::Trash;

/// A wait strategy that can be written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    Spin,
    Yield,
    Adaptive,
    Block,
}

impl From<WaitStrategy> for Wait {
    fn from(strategy: WaitStrategy) -> Self {
        match strategy {
            WaitStrategy::Spin => Self::Spin,
            WaitStrategy::Yield => Self::Yield,
            WaitStrategy::Block => Self::Block,
            _ => Self::Adaptive,
        }
    }
}

impl From<Wait> for WaitStrategy {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Spin => Self::Spin,
            Wait::Yield => Self::Yield,
            Wait::Adaptive => Self::Adaptive,
            Wait::Block => Self::Block,
        }
    }
}

pub(crate) struct RingLink {
    // In the order in which they go: attachments, then the names.
    producer: mpsc::Producer,
    /// Of several senders nobody receives.
    consumer: Option<mpsc::Consumer>,
    _trash: Vec<Trash>,
}

fn builder(spec: &Spec, direction: &str) -> mpsc::Builder {
    // Enough for some of the largest messages, and otherwise what a cache can hold.
    let capacity = (spec.size as u64 * 16).max(256 << 10);
    mpsc::Builder::new(address(spec, direction))
        .capacity(capacity)
        .wait(spec.wait.into())
}

fn address(spec: &Spec, direction: &str) -> String {
    format!("{}{}-{direction}", spec.backend, spec.name)
}

pub(super) fn make(spec: Spec) -> Result<Made> {
    let make = |direction, senders| {
        let builder = builder(&spec, direction).producers(senders);
        Trash::ring(&address(&spec, direction), || Ok(builder.create()?))
    };
    let (there, there_trash) = make("there", 1)?;
    let (back, back_trash) = make("back", spec.senders)?;
    let link = RingLink {
        producer: there.producer()?,
        consumer: Some(back.consumer()?),
        _trash: vec![there_trash, back_trash],
    };
    Ok(Made {
        stdio: no_stdio(spec.senders),
        spec,
        end: End::Ring(link),
    })
}

pub(super) fn open(spec: &Spec) -> Result<End> {
    let there = builder_of_existing(spec, "there").open()?;
    let consumer = if spec.senders == 1 {
        Some(there.consumer()?)
    } else {
        None
    };
    let back = builder_of_existing(spec, "back").open()?;
    Ok(End::Ring(RingLink {
        producer: back.producer()?,
        consumer,
        _trash: Vec::new(),
    }))
}

fn builder_of_existing(spec: &Spec, direction: &str) -> mpsc::Builder {
    mpsc::Builder::new(address(spec, direction)).wait(spec.wait.into())
}

impl Link for RingLink {
    #[inline]
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.producer.send(bytes)?)
    }

    #[inline]
    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let consumer = self
            .consumer
            .as_mut()
            .ok_or("only one of the ring's senders can receive")?;
        let message = consumer.recv()?;
        if message.len() != bytes.len() {
            return Err(wrong_length(message.len(), bytes.len()));
        }
        message.copy_to(bytes);
        Ok(())
    }
}
