//! Rings that are opened or made with settings, and replaced while nobody has used them: as the two programs do it.
//!
//! | command | answer |
//! |---|---|
//! | `newcomer A LANES CAPACITY P COUNT LEN`: come as a producer, send numbered messages, leave | `ok`, or `error Mismatch` of a used ring |
//! | `waiting A LANES CAPACITY`: come as the consumer, receive to the end, open the ring again whenever it is replaced | `drained N ERROR` |
//!
//! Zero lanes or a capacity of zero are not named.

use semring::{AttachError, OpenError, OpenOrCreateError, UnusedRing, any};
use semring_testkit::message;

use super::flow::drain;
use super::{Answer, Peer, Words, failed};

/// Opens or makes the ring and takes a role, again and again while others replace or remove it.
pub(super) fn come<R>(
    builder: &any::Builder,
    take_role: impl Fn(&any::Ring) -> Result<R, AttachError>,
) -> Result<(any::Ring, R), String> {
    loop {
        let ring = builder.open_or_create().map_err(|error| match error {
            OpenOrCreateError::Open(OpenError::Mismatch { .. }) => "error Mismatch".to_owned(),
            other => failed(other),
        })?;
        match take_role(&ring) {
            Ok(role) => return Ok((ring, role)),
            Err(AttachError::Replaced | AttachError::Removed) => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

impl Peer {
    /// A builder of auto-removed rings, with the settings that come next.
    pub(super) fn with_settings(&self, words: &mut Words<'_>, unused: UnusedRing) -> any::Builder {
        let mut builder = self
            .builder(words.text())
            .auto_remove(true)
            .unused_ring(unused);
        let (lanes, capacity) = (words.size(), words.number());
        if lanes > 0 {
            builder = builder.producers(lanes);
        }
        if capacity > 0 {
            builder = builder.capacity(capacity);
        }
        builder
    }

    pub(super) fn newcomer(&mut self, words: &mut Words<'_>) -> Answer {
        let builder = self.with_settings(words, UnusedRing::Replace);
        let (sender, count, len) = (words.producer(), words.number(), words.size());
        let (_ring, mut producer) = come(&builder, any::Ring::attach_producer)?;
        let mut bytes = Vec::new();
        for number in 0..count {
            message::encode(sender, number, len, &mut bytes);
            producer.send(&bytes).map_err(failed)?;
        }
        Ok("ok".to_owned())
    }

    pub(super) fn waiting(&mut self, words: &mut Words<'_>) -> Answer {
        let builder = self.with_settings(words, UnusedRing::ReplaceIdle);
        loop {
            let (ring, mut consumer) = come(&builder, any::Ring::attach_consumer)?;
            let drained = drain(&mut consumer);
            if drained != "drained 0 Replaced" {
                (self.ring, self.consumer) = (Some(ring), Some(consumer));
                return Ok(drained);
            }
            drop(consumer);
            // As the program does: made here first, the ring would be replaced once more. A newcomer that is killed is
            // followed by another one.
            while matches!(builder.open(), Err(OpenError::NotFound { .. })) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}
