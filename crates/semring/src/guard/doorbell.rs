//! The wait word and its two ends. See the argument in the parent module.

use crate::sync::{AtomicU64, Ordering, Twin, fence, weakened};

/// Numbers of sleeps that no other sleep on the same word ever had or will have.
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
        // After 2^32 sleeps of one holder the numbers come again; the waker remembers only the last.
        self.count = self.count.checked_add(1).unwrap_or(1);
        let generation = if weakened(Twin::EpochsRestart) {
            0
        } else {
            self.generation
        };
        generation << 32 | u64::from(self.count)
    }
}

/// The sleeper announces that it is about to sleep. Everything it looks at afterwards is looked at
/// after the announcement (E4).
#[inline]
pub(crate) fn arm(word: &AtomicU64, epoch: u64) {
    debug_assert_ne!(epoch, 0);
    word.store(epoch, Ordering::Relaxed);
    if !weakened(Twin::NoSleeperFence) {
        fence(Ordering::SeqCst); // E4, pairs with the fence in `Waker::is_due`
    }
}

/// The sleeper is awake again.
#[inline]
pub(crate) fn disarm(word: &AtomicU64) {
    word.store(0, Ordering::Relaxed);
}

/// The other end: what a waker remembers about one wait word.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    last: u64,
}

impl Waker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// To be asked after each publication: true if the sleeper must be posted, once per epoch.
    #[inline]
    pub(crate) fn is_due(&mut self, word: &AtomicU64) -> bool {
        if !weakened(Twin::NoWakerFence) {
            fence(Ordering::SeqCst); // E4, pairs with the fence in `arm`
        }
        if weakened(Twin::WakerClearsWord) {
            return word.swap(0, Ordering::AcqRel) != 0;
        }
        let epoch = word.load(Ordering::Relaxed);
        if epoch == 0 || epoch == self.last {
            return false;
        }
        self.last = epoch;
        true
    }
}
