//! The wait word and its two ends. The parent module explains why no wake-up is lost.

use super::GuardError;
use crate::layout::control::LANE_ASYMMETRIC;
use crate::layout::view::LaneView;
use crate::os::errno::EACCES;
use crate::sync::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering, compiler_fence, fence};

/// Numbers of sleeps, unique among all sleeps on the same word.
#[derive(Debug)]
pub(crate) struct Epochs {
    generation: u64,
    count: u32,
}

impl Epochs {
    /// For a new holder of a role; its generation differs from every predecessor's.
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation,
            count: 0,
        }
    }

    /// The next epoch: generation in the upper half, a count from 1 in the lower. Never 0.
    pub(crate) fn next(&mut self) -> u64 {
        // After 2^32 sleeps of one holder the numbers repeat; the waker stores only the last.
        self.count = self.count.checked_add(1).unwrap_or(1);
        let generation = if mutant::is(Mutant::EpochsRestart) {
            0
        } else {
            self.generation
        };
        generation << 32 | u64::from(self.count)
    }
}

/// The sleeper announces that it is about to sleep. All its later loads come after the announcement
/// (E4).
#[inline]
pub(crate) fn arm(word: &AtomicU64, epoch: u64) {
    debug_assert_ne!(epoch, 0);
    word.store(epoch, Ordering::Relaxed);
    if !mutant::is(Mutant::NoSleeperFence) && !mutant::is(Mutant::FlagsBeforeSleeperFence) {
        fence(Ordering::SeqCst); // E4, pairs with the fence in `Waker::is_due`
    }
}

/// The sleeper is awake again.
#[inline]
pub(crate) fn disarm(word: &AtomicU64) {
    word.store(0, Ordering::Relaxed);
}

/// A waker's end: its private state for one wait word.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    last: u64,
}

impl Waker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// To be called after each publication: true if the sleeper must be posted, once for each
    /// epoch.
    #[inline]
    pub(crate) fn is_due(&mut self, word: &AtomicU64) -> bool {
        if !mutant::is(Mutant::NoRoomWakerFence) {
            fence(Ordering::SeqCst); // E4, pairs with the fence in `arm`
        }
        let epoch = word.load(Ordering::Relaxed);
        if epoch == 0 || epoch == self.last {
            return false;
        }
        self.last = epoch;
        true
    }

    /// The sleeper could not be posted: the next publication tries again.
    pub(crate) fn not_posted(&mut self) {
        if !mutant::is(Mutant::RoomPostNotRepeated) {
            self.last = 0;
        }
    }
}

/// After this many commits in a row to a consumer that was awake, a lane enters asymmetric mode.
const QUIET_COMMITS: u32 = 32;

/// After this many messages that woke no consumer, a producer in fenced mode checks whether its consumer is alive.
const MESSAGES_PER_CHECK: u32 = 16;

/// What a producer has to do after a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    /// The consumer must be posted: once per epoch.
    Post,
    /// A check is due whether the consumer is alive: by its progress, if it has made any.
    Check,
    /// The guard must be checked whether the consumer is alive: such checks become rare from now
    /// on.
    AskGuard,
}

/// A producer's end of the consumer's wait word, which omits the fence while there are many messages.
///
/// *Fenced mode*: a full fence after each commit, as [`Waker`]. *Asymmetric mode*: [`LANE_ASYMMETRIC`] is set
/// in the lane, and the consumer, after it announced a sleep, makes every CPU execute a barrier before it
/// looks again: that barrier takes the place of the fence. It costs the consumer some microseconds, so a
/// lane is in asymmetric mode only while its commits find the consumer awake.
///
/// * **Entering**: the flag, *then* a full fence. A sleeper that missed the flag announced itself before
///   that fence, so the look of the next commit sees the announcement. (This commit had its own look.)
/// * **Leaving**: the flag is cleared, and the commit ends as in fenced mode: full fence, another look.
///
/// `channel::model_tests::modes` runs this code under loom, with one producer.
/// `mode_model_tests` visits all interleavings of two producers and a consumer that makes barriers, with
/// store buffers, kills and a successor of the consumer. Not included: a lane taken over by another
/// producer, which finds the flag and clears it after it has read the stores that became visible with its
/// predecessor's death; and a consumer to which the kernel refuses the barrier, which looks again at
/// intervals.
#[derive(Debug, Default)]
pub(crate) struct ConsumerWaker {
    /// The epoch that was posted last.
    last: u64,
    /// Commits in a row that found the consumer awake, up to the last check.
    quiet: u32,
    /// In fenced mode: the number of messages sent on the lane at which the next check is due.
    check_at: u64,
    /// Of the messages since the last check, the number that adds nothing to the quiet commits: messages after the first of
    /// a batch, and all up to a commit that found the consumer asleep. (It wraps: a commit of padding has no message.)
    not_quiet: u32,
    asymmetric_lanes: bool,
    /// This process takes part in the barrier.
    may_be_asymmetric: bool,
    /// The last post was refused for want of permission.
    was_forbidden: bool,
}

impl ConsumerWaker {
    /// `may_be_asymmetric` only in a process that is registered for the barrier.
    /// `sent`: the messages on the lane so far.
    pub(crate) fn new(may_be_asymmetric: bool, sent: u64) -> Self {
        let mut waker = Self {
            may_be_asymmetric,
            ..Self::default()
        };
        waker.defer_check(sent);
        waker
    }

    /// Whether commits need no fence.
    pub(crate) fn is_asymmetric(&self) -> bool {
        self.asymmetric_lanes
    }

    /// To be called after each publication on the lane, of this many messages. `sent`: how many it has by now. (That
    /// number began with a word of the segment: if it is forged and passes its end, checks come early.)
    #[inline(always)]
    pub(crate) fn due(&mut self, lane: &LaneView, sent: u64, messages: u32) -> Due {
        if self.asymmetric_lanes {
            // The CPU may do the load before the header's store; the compiler may not: then the
            // instructions would be in the wrong order, which no barrier corrects.
            compiler_fence(Ordering::SeqCst);
            if mutant::is(Mutant::NoLookInAsymmetric) {
                return Due::Nothing;
            }
            let looked = if mutant::is(Mutant::LookBeforeHeader) {
                mutant::early_look()
            } else {
                lane.ring_consumer().wait_word.load(Ordering::Relaxed)
            };
            if looked == 0 {
                return Due::Nothing;
            }
            return self.leave_asymmetric(lane, sent);
        }
        self.due_fenced(lane, sent, messages)
    }

    #[inline(always)]
    fn due_fenced(&mut self, lane: &LaneView, sent: u64, messages: u32) -> Due {
        if !mutant::is(Mutant::NoMessageWakerFence) {
            fence(Ordering::SeqCst); // E4, pairs with the fence in `arm`
        }
        let word = &lane.ring_consumer().wait_word;
        if mutant::is(Mutant::WakerClearsWord) {
            let is_asleep = word.swap(0, Ordering::AcqRel) != 0;
            return if is_asleep { Due::Post } else { Due::Nothing };
        }
        let epoch = word.load(Ordering::Relaxed);
        if epoch != 0 {
            return self.found_asleep(lane, epoch, sent);
        }
        // The lane counts the messages; what that number does not distinguish is counted where it is rare.
        if messages != 1 {
            self.not_quiet = self.not_quiet.wrapping_add(messages).wrapping_sub(1);
        }
        self.check_if_due(lane, sent)
    }

    #[inline(always)]
    fn check_if_due(&mut self, lane: &LaneView, sent: u64) -> Due {
        if sent < self.check_at {
            return Due::Nothing;
        }
        self.after_unchecked(lane, sent)
    }

    /// The next check comes after the usual number of messages.
    fn defer_check(&mut self, sent: u64) {
        self.check_at = sent.wrapping_add(self.messages_per_check().into());
        self.not_quiet = 0;
    }

    /// Messages published with a fence since the last check.
    fn unchecked(&self, sent: u64) -> u32 {
        let checked_at = self.check_at.wrapping_sub(self.messages_per_check().into());
        sent.wrapping_sub(checked_at) as u32
    }

    /// The consumer has announced the sleep of this epoch.
    #[cold]
    fn found_asleep(&mut self, lane: &LaneView, epoch: u64, sent: u64) -> Due {
        self.quiet = 0;
        if epoch == self.last {
            self.not_quiet = self.unchecked(sent);
            return self.check_if_due(lane, sent);
        }
        self.last = epoch;
        // Posting includes a check.
        self.defer_check(sent);
        Due::Post
    }

    /// In models of the two modes one message is enough.
    #[inline(always)]
    const fn messages_per_check(&self) -> u32 {
        if cfg!(semring_loom) && self.may_be_asymmetric {
            1
        } else {
            MESSAGES_PER_CHECK
        }
    }

    const fn quiet_commits(&self) -> u32 {
        if cfg!(semring_loom) { 1 } else { QUIET_COMMITS }
    }

    /// Enough messages for a check, and perhaps for asymmetric mode.
    #[cold]
    fn after_unchecked(&mut self, lane: &LaneView, sent: u64) -> Due {
        let quiet = self.unchecked(sent).wrapping_sub(self.not_quiet);
        self.quiet = self.quiet.saturating_add(quiet);
        self.defer_check(sent);
        if self.quiet >= self.quiet_commits() {
            self.begin_asymmetric(lane);
        }
        if self.asymmetric_lanes && !mutant::is(Mutant::EntryTrustsProgress) {
            // The check by progress would take the releases of a dead consumer for new progress.
            return Due::AskGuard;
        }
        if mutant::is(Mutant::NoCheckInFencedMode) {
            return Due::Nothing;
        }
        Due::Check
    }

    /// The consumer has announced a sleep.
    #[cold]
    fn leave_asymmetric(&mut self, lane: &LaneView, sent: u64) -> Due {
        self.end_asymmetric(lane);
        self.defer_check(sent);
        if mutant::is(Mutant::NoLookAfterAsymmetric) {
            return Due::Nothing;
        }
        match self.due_fenced(lane, sent, 0) {
            // The next check is due sooner than in asymmetric mode.
            Due::Nothing => Due::Check,
            due => due,
        }
    }

    /// Enters asymmetric mode if that is possible.
    fn begin_asymmetric(&mut self, lane: &LaneView) {
        self.quiet = 0;
        let ring = lane.ring_consumer();
        let can_barrier = ring.barrier.load(Ordering::Relaxed);
        // 0 and generation 0: there never was a consumer.
        let present = mutant::is(Mutant::AnyConsumerMakesBarriers)
            || can_barrier != 0 && can_barrier == ring.generation.load(Ordering::Relaxed);
        if !self.may_be_asymmetric || !present {
            return;
        }
        if mutant::is(Mutant::FenceBeforeFlag) {
            fence(Ordering::SeqCst);
        }
        // A consumer that reads the flag does not rely on earlier stores.
        lane.producer()
            .flags
            .store(LANE_ASYMMETRIC, Ordering::Relaxed);
        self.asymmetric_lanes = true;
        if !mutant::is(Mutant::NoFenceAfterFlag) && !mutant::is(Mutant::FenceBeforeFlag) {
            fence(Ordering::SeqCst);
        }
    }

    /// The consumer was posted.
    pub(crate) fn posted(&mut self) {
        self.was_forbidden = false;
    }

    /// The consumer could not be posted: the next commit tries again. Returns whether the error must be
    /// reported now: a process may have another user id for a moment, so the first refusal is not
    /// reported.
    pub(crate) fn is_worth_telling(&mut self, error: GuardError) -> bool {
        if !mutant::is(Mutant::MessagePostNotRepeated) {
            self.last = 0;
        }
        let is_forbidden = matches!(error, GuardError::Os { errno: EACCES, .. });
        self.is_refused_again(is_forbidden) || !is_forbidden
    }

    /// Records whether this process may use the guard now: true if it is refused for the second time in a
    /// row.
    pub(crate) fn is_refused_again(&mut self, is_refused: bool) -> bool {
        std::mem::replace(&mut self.was_forbidden, is_refused) && is_refused
    }

    /// Back to a fence after each commit; also for a producer that detaches.
    #[cold]
    pub(crate) fn end_asymmetric(&mut self, lane: &LaneView) {
        if std::mem::take(&mut self.asymmetric_lanes) {
            self.quiet = 0;
            lane.producer().flags.store(0, Ordering::Release);
        }
    }
}

/// True if the lane's producer may have published without a fence: a sleeper checks this after its
/// announcement and before it looks again.
pub(crate) fn is_asymmetric(lane: &LaneView) -> bool {
    // Acquire: if the flag is cleared, all messages published in asymmetric mode are visible.
    lane.producer().flags.load(Ordering::Acquire) & LANE_ASYMMETRIC != 0
}
