//! When the end of the stream is due, and when it is recorded in the ring.
//!
//! ```text
//! nothing seen ──message found──→ stream ──returned(n)──→ over, n to record ──next call──→ over
//!      ↑                                                                                     │
//!      └──────────────────────────────────────resume()───────────────────────────────────────┘
//! ```
//! *Over*: every call returns the same end, and takes no message, until the program resumes.
//!
//! The ring stores the number of attachments up to which an end was delivered. An end is due when all producers are
//! gone and either a producer attached since the recorded end, or this consumer has found messages since. It is
//! recorded by the *next* call, or when the consumer is dropped: if a consumer is killed, or dropped by a panic,
//! before it could act on the end, its successor gets the end again.

use std::time::{Duration, Instant};

use crate::error::RecvError;
use crate::guard::GuardError;
use crate::lifecycle::{ConsumerRole, StreamEnd, UnwindMark};
use crate::os::clock;
use crate::sync::mutant::{self, Mutant};

/// How long an end must have been due before it is delivered: [`Builder::linger`](crate::Builder::linger).
#[derive(Debug)]
pub(super) struct Linger {
    time: Duration,
    /// After how many attachments all were gone, and when that was found first.
    since: Option<(u32, Instant)>,
}

impl Linger {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, since: None }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.time.is_zero()
    }

    /// What the check found, or nothing while it is too early. An end after other attachments than the last time, or none,
    /// begins the time again.
    fn held_back(
        &mut self,
        end: Option<StreamEnd>,
        now: impl FnOnce() -> Instant,
    ) -> Option<StreamEnd> {
        if !self.is_wanted() {
            return end;
        }
        let Some(due) = end else {
            self.since = None;
            return None;
        };
        let now = now();
        let since = match self.since {
            Some((attachments, since)) if attachments == due.attachments => since,
            _ => {
                self.since = Some((due.attachments, now));
                now
            }
        };
        let is_over = now.saturating_duration_since(since) >= self.time;
        is_over.then_some(due)
    }

    /// How long a consumer may sleep before it looks again, if it would sleep for this long otherwise.
    pub(super) fn nap(&self, timeout: Option<Duration>) -> Option<Duration> {
        let Some((_, since)) = self.since else {
            return timeout;
        };
        let gone = clock::now().saturating_duration_since(since);
        let left = self.time.saturating_sub(gone);
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }
}

/// The state of a consumer's end of stream.
#[derive(Debug, Default)]
pub(super) struct EndOfStream {
    /// Messages were found since the last end, or a removal at the last end did not succeed.
    is_open: bool,
    /// An end was returned, and the program has not resumed: each further call returns it.
    is_over: bool,
    /// An end that was returned, and is not recorded yet.
    to_record: Option<(StreamEnd, UnwindMark)>,
    /// How many producers had finished and died at the last end that was returned, since the one before.
    last_counts: Option<EndedProducers>,
}

/// The producers of a stream that has ended: all that attached since the end before it, or since the ring was made. Also
/// producers that were gone before this consumer attached: the rest of their streams is missing all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct EndedProducers {
    finished: u32,
    died: u32,
}

impl EndOfStream {
    /// Nothing of the stream's end is to be done when the next message is found.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_open && self.to_record.is_none() && !self.is_over
    }

    /// A message was found, or the last end did not count: another end will be due.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// An end was returned to the caller; `recorded` is the one before it.
    pub(super) fn returned(&mut self, end: StreamEnd, recorded: StreamEnd) {
        let (finished, died) = end.since(recorded);
        self.last_counts = Some(EndedProducers { finished, died });
        self.to_record = Some((end, UnwindMark::now()));
        self.is_open = false;
        self.is_over = true;
    }

    /// The end that was returned, as long as the program has not resumed.
    pub(super) fn sticky(&self) -> Option<RecvError> {
        let EndedProducers { finished, died } = self.last_counts.filter(|_| self.is_over)?;
        Some(RecvError::EndOfStream { finished, died })
    }

    /// The program goes on after the end.
    pub(super) fn resume(&mut self) {
        self.is_over = false;
    }

    /// The end that is to be recorded now.
    pub(super) fn take_to_record(&mut self) -> Option<StreamEnd> {
        self.to_record.take().map(|(end, _)| end)
    }

    /// Forgets the end that is to be recorded if a panic drops the consumer: it was not acted on.
    pub(super) fn forget_if_interrupted(&mut self) {
        self.to_record.take_if(|(_, mark)| mark.is_interrupted());
    }

    pub(super) fn has_to_record(&self) -> bool {
        self.to_record.is_some()
    }

    /// Whether an end is due, when all attachments have ended and `recorded` is in the ring.
    fn is_due(&self, end: StreamEnd, recorded: StreamEnd) -> bool {
        self.is_open || end.attachments != recorded.attachments
    }

    /// The end of all attachments, if all have ended, no end of stream was delivered for them, and they have been gone for
    /// as long as the consumer lingers.
    pub(super) fn ended_attachments(
        &self,
        role: &ConsumerRole,
        linger: &mut Linger,
    ) -> Result<Option<StreamEnd>, GuardError> {
        let end = self.due_end(role)?;
        Ok(linger.held_back(end, clock::now))
    }

    fn due_end(&self, role: &ConsumerRole) -> Result<Option<StreamEnd>, GuardError> {
        // While producers attach all the time there is no end yet.
        for _ in 0..64 {
            // The sum before and after the check: if no producer attached in between, it is the sum of
            // exactly the producers that are gone now.
            let before = role.attachments();
            if !role.ring().guard.producers_gone()? {
                return Ok(None);
            }
            // A producer counts itself as finished before it gives its role up.
            let finished = role.finished();
            if role.attachments() == before || mutant::is(Mutant::AttachmentsCountedOnce) {
                let end = StreamEnd::new(before, finished);
                let due = self.is_due(end, role.delivered_end());
                return Ok(due.then_some(end));
            }
        }
        Ok(None)
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    fn end(attachments: u64) -> StreamEnd {
        StreamEnd::new(attachments, attachments)
    }

    #[test]
    fn no_end_is_due_before_somebody_attached() {
        assert!(!EndOfStream::default().is_due(end(0), end(0)));
        assert!(EndOfStream::default().is_due(end(1), end(0)));
    }

    #[test]
    fn an_end_is_due_once_for_each_attachment() {
        let mut state = EndOfStream::default();
        state.open();
        assert!(state.is_due(end(1), end(0)));
        state.returned(end(1), end(0));
        assert_eq!(state.take_to_record(), Some(end(1)));
        assert_eq!(state.take_to_record(), None);
        assert!(!state.is_due(end(1), end(1)));
        assert!(state.is_due(end(2), end(1)), "another one attached");
    }

    #[test]
    fn messages_without_an_attachment_make_an_end_due() {
        // The predecessor returned the end, and was killed with messages that it had not released.
        let mut state = EndOfStream::default();
        assert!(!state.is_due(end(3), end(3)));
        state.open();
        assert!(state.is_due(end(3), end(3)));
    }

    #[test]
    fn an_end_is_not_recorded_when_it_is_returned() {
        let mut state = EndOfStream::default();
        state.open();
        state.returned(end(7), end(0));
        assert!(state.has_to_record() && !state.is_open());
    }

    #[test]
    fn an_end_counts_the_producers_since_the_one_before() {
        let mut state = EndOfStream::default();
        assert_eq!(state.last_counts, None);
        // Five attached, three finished.
        state.returned(StreamEnd::new(5, 3), StreamEnd::default());
        let counts = |finished, died| Some(EndedProducers { finished, died });
        assert_eq!(state.last_counts, counts(3, 2));
        state.returned(StreamEnd::new(9, 7), StreamEnd::new(5, 3));
        assert_eq!(state.last_counts, counts(4, 0));
        state.returned(StreamEnd::new(10, 7), StreamEnd::new(9, 7));
        assert_eq!(state.last_counts, counts(0, 1));
        // Over the end of the numbers, and of words that contradict each other.
        let (near, far) = (u64::from(u32::MAX), 1 << 32 | 2);
        state.returned(StreamEnd::new(far, far - 1), StreamEnd::new(near, near));
        assert_eq!(state.last_counts, counts(2, 1));
        state.returned(StreamEnd::new(1, 99), StreamEnd::default());
        assert_eq!(state.last_counts, counts(0, 1));
    }

    #[test]
    fn an_end_is_returned_until_the_program_resumes() {
        let mut state = EndOfStream::default();
        assert_eq!(state.sticky(), None);
        state.open();
        state.returned(StreamEnd::new(3, 2), StreamEnd::default());
        let over = RecvError::EndOfStream {
            finished: 2,
            died: 1,
        };
        assert_eq!(state.sticky(), Some(over));
        // Recording it changes nothing.
        assert!(state.take_to_record().is_some());
        assert_eq!(state.sticky(), Some(over));
        state.resume();
        assert_eq!(state.sticky(), None);
        assert!(!state.is_due(StreamEnd::new(3, 2), StreamEnd::new(3, 2)));
        // One attached in between: it is received from, or its end is returned at once.
        assert!(state.is_due(StreamEnd::new(4, 3), StreamEnd::new(3, 2)));
    }

    #[test]
    fn no_fast_path_while_an_end_is_returned() {
        let mut state = EndOfStream::default();
        state.returned(end(1), end(0));
        state.take_to_record();
        // Not even if something opens the stream meanwhile.
        state.open();
        assert!(!state.is_quiet());
        state.resume();
        assert!(state.is_quiet());
    }

    /// Every order of producers that attach and leave, looks of the consumer, and half of its time: an end comes only when
    /// nobody was attached for the whole time, and it does come at a look that is late enough.
    #[test]
    fn lingering_ends_after_the_last_departure_in_every_order() {
        const EVENTS: u32 = 4;
        const LENGTH: u32 = 8;
        const HALF: Duration = Duration::from_secs(5);
        for order in 0..EVENTS.pow(LENGTH) {
            let mut linger = Linger::new(2 * HALF);
            let mut now = clock::now();
            let (mut attached, mut attachments) = (0, 0);
            // The last departure, and the first look after it.
            let (mut left, mut looked) = (now, None);
            for event in (0..LENGTH).map(|at| order / EVENTS.pow(at) % EVENTS) {
                match event {
                    0 => {
                        attached += 1;
                        attachments += 1;
                        looked = None;
                    }
                    1 if attached > 0 => {
                        attached -= 1;
                        left = now;
                    }
                    2 => now += HALF,
                    3 => {
                        let due = attached == 0 && attachments > 0;
                        let delivered = linger.held_back(due.then(|| end(attachments)), || now);
                        assert!(
                            delivered.is_none() || due && now - left >= 2 * HALF,
                            "{order}"
                        );
                        if due {
                            let first = *looked.get_or_insert(now);
                            assert!(delivered.is_some() || now - first < 2 * HALF, "{order}");
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn an_end_is_held_back_while_the_consumer_lingers() {
        let begin = clock::now();
        let at = |seconds| move || begin + Duration::from_secs(seconds);
        let mut linger = Linger::new(Duration::from_secs(10));
        assert_eq!(linger.held_back(Some(end(1)), at(100)), None);
        assert_eq!(linger.held_back(Some(end(1)), at(109)), None);
        // Another one came, and left: the time begins again, also where it was not seen attached.
        assert_eq!(linger.held_back(Some(end(2)), at(110)), None);
        assert_eq!(linger.held_back(Some(end(2)), at(119)), None);
        // One is attached.
        assert_eq!(linger.held_back(None, at(130)), None);
        assert_eq!(linger.nap(None), None);
        assert_eq!(linger.held_back(Some(end(3)), at(131)), None);
        assert_eq!(linger.held_back(Some(end(3)), at(141)), Some(end(3)));
        let mut none = Linger::new(Duration::ZERO);
        assert_eq!(none.held_back(Some(end(1)), at(0)), Some(end(1)));
        assert_eq!(none.nap(None), None);
    }

    #[test]
    fn is_quiet_only_within_a_stream() {
        let mut state = EndOfStream::default();
        assert!(!state.is_quiet(), "the first message opens it");
        state.open();
        assert!(state.is_quiet());
        state.returned(end(1), end(0));
        assert!(!state.is_quiet());
        state.open();
        assert!(!state.is_quiet(), "the end is to be recorded first");
        state.take_to_record();
        assert!(!state.is_quiet(), "the program has not resumed");
        state.resume();
        assert!(state.is_quiet());
    }
}
