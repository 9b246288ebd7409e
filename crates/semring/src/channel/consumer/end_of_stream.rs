//! When the end of the stream is due, and when it is recorded in the ring.
//!
//! ```text
//! nothing seen ──message found──→ stream ──returned(n)──→ nothing seen, n to record ──next call──→ nothing seen
//! ```
//! The ring remembers for how many attachments an end was delivered. An end is due when all producers are gone and
//! either somebody attached since the one that is recorded, or this consumer has found messages since. It is recorded
//! by the *next* call, or when the consumer is dropped: a consumer that is killed, or dropped by a panic, before it
//! could act on the end leaves it to its successor.

use crate::guard::GuardError;
use crate::lifecycle::{ConsumerSeat, UnwindMark};

/// What a consumer knows of the end of its stream.
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    /// Messages were found since the last end, or a removal at the last end did not succeed.
    is_open: bool,
    /// An end was returned for this many attachments, and is not recorded yet.
    to_record: Option<(u64, UnwindMark)>,
}

impl EndOfStream {
    /// Nothing of the stream's end is to be done when the next message is found.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_open && self.to_record.is_none()
    }

    /// A message was found, or the last end did not count: another end will be due.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// An end was returned to the caller, for this many attachments.
    pub(super) fn returned(&mut self, attachments: u64) {
        self.to_record = Some((attachments, UnwindMark::now()));
        self.is_open = false;
    }

    /// The end that is to be recorded now.
    pub(super) fn take_to_record(&mut self) -> Option<u64> {
        self.to_record.take().map(|(attachments, _)| attachments)
    }

    /// Forgets the end that is to be recorded if a panic drops the consumer: it was not acted on.
    pub(super) fn forget_if_interrupted(&mut self) {
        self.to_record.take_if(|(_, mark)| mark.is_interrupted());
    }

    pub(super) fn has_to_record(&self) -> bool {
        self.to_record.is_some()
    }

    /// Whether an end is due, when all of this many attachments have ended and one for `recorded` is in the ring.
    fn is_due(&self, attachments: u64, recorded: u64) -> bool {
        self.is_open || attachments != recorded
    }

    /// How many attachments have come to their end, if all have and no end-of-stream was delivered for
    /// them.
    pub(super) fn ended_attachments(&self, seat: &ConsumerSeat) -> Result<Option<u64>, GuardError> {
        // Where somebody attaches all the time there is no end yet.
        for _ in 0..64 {
            // The sum before and after the check: if nobody attached in between, it is the sum of exactly
            // those that are gone now.
            let before = seat.attachments();
            if !seat.ring().guard.producers_gone()? {
                return Ok(None);
            }
            if seat.attachments() == before {
                let due = self.is_due(before, seat.delivered_end());
                return Ok(due.then_some(before));
            }
        }
        Ok(None)
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_end_is_due_before_somebody_attached() {
        assert!(!EndOfStream::default().is_due(0, 0));
        assert!(EndOfStream::default().is_due(1, 0));
    }

    #[test]
    fn an_end_is_due_once_for_each_attachment() {
        let mut end = EndOfStream::default();
        end.open();
        assert!(end.is_due(1, 0));
        end.returned(1);
        assert_eq!(end.take_to_record(), Some(1));
        assert_eq!(end.take_to_record(), None);
        assert!(!end.is_due(1, 1));
        assert!(end.is_due(2, 1), "another one attached");
    }

    #[test]
    fn messages_without_an_attachment_make_an_end_due() {
        // The predecessor returned the end, and was killed with messages that it had not released.
        let mut end = EndOfStream::default();
        assert!(!end.is_due(3, 3));
        end.open();
        assert!(end.is_due(3, 3));
    }

    #[test]
    fn an_end_is_not_recorded_when_it_is_returned() {
        let mut end = EndOfStream::default();
        end.open();
        end.returned(7);
        assert!(end.has_to_record() && !end.is_open());
    }

    #[test]
    fn is_quiet_only_within_a_stream() {
        let mut end = EndOfStream::default();
        assert!(!end.is_quiet(), "the first message opens it");
        end.open();
        assert!(end.is_quiet());
        end.returned(1);
        assert!(!end.is_quiet());
        end.open();
        assert!(!end.is_quiet(), "the end is to be recorded first");
        end.take_to_record();
        assert!(end.is_quiet());
    }
}
