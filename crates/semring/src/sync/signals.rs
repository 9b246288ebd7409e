//! What the SIGBUS handler of this process and its ordinary code share: words, and a table of address
//! ranges that is read without a lock. They belong to this process alone and never to a model, so
//! `core` in every build.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::OnceLock;

/// A word that a signal handler writes: the state of a mapping.
#[repr(transparent)]
pub(crate) struct SignalWord(AtomicU64);

/// The value in a forked child, where the kernel clears the page.
const FORKED: u64 = 0;
pub(crate) const INTACT: u64 = 1;
pub(crate) const TORN: u64 = 2;

impl SignalWord {
    /// The memory is there: this is not a forked child, and the memory was not truncated.
    #[inline(always)]
    pub(crate) fn says_intact(&self) -> bool {
        self.get() == INTACT
    }

    /// This is a child forked since.
    #[inline(always)]
    pub(crate) fn says_forked(&self) -> bool {
        self.get() == FORKED
    }

    /// The memory was truncated before this thread read the last byte of it.
    #[inline(always)]
    pub(crate) fn says_truncated(&self) -> bool {
        self.get_after_reads() == TORN
    }

    /// The value, by one plain load.
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The value after everything that this thread has read before: if a handler changed one of
    /// those bytes, its earlier store is seen.
    #[inline(always)]
    pub(crate) fn get_after_reads(&self) -> u64 {
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed)
    }

    /// For a forked child, by its only thread.
    pub(crate) fn set_forked(&self) {
        self.set(FORKED);
    }

    /// Stores a value before everything that follows.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// A range of addresses, and the address of its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) word: usize,
}

const SLOTS: usize = 64;

/// Ranges that don't overlap. Inserted and removed by ordinary code, searched by a signal handler,
/// which neither waits nor allocates.
pub(crate) struct Ranges {
    slots: [Slot; SLOTS],
    /// The next block of ranges; never freed.
    more: OnceLock<Box<Ranges>>,
}

/// A range under a sequence count: a reader that finds it being changed skips it. That is never the range
/// that the reader needs: a range is inserted before its memory is used, and removed after.
struct Slot {
    /// Odd while the rest changes.
    version: AtomicUsize,
    /// 0: free.
    start: AtomicUsize,
    len: AtomicUsize,
    word: AtomicUsize,
}

/// A place in the table.
pub(crate) struct Entry(&'static Slot);

impl Ranges {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; SLOTS],
            more: OnceLock::new(),
        }
    }

    /// Enters a range.
    pub(crate) fn enter(&'static self, range: Range) -> Entry {
        let free = |slot: &&'static Slot| slot.try_fill(range);
        match self.slots.iter().find(free) {
            Some(slot) => Entry(slot),
            None => self.more.get_or_init(|| Box::new(Self::new())).enter(range),
        }
    }

    /// The range around an address for which `is_meant` is true.
    pub(crate) fn find(&self, address: usize, is_meant: impl Fn(&Range) -> bool) -> Option<Range> {
        let mut block = Some(self);
        while let Some(ranges) = block {
            let mut slots = ranges.slots.iter().filter_map(Slot::read);
            let around = |range: &Range| address.wrapping_sub(range.start) < range.len;
            if let Some(found) = slots.find(|range| around(range) && is_meant(range)) {
                return Some(found);
            }
            block = ranges.more.get().map(|more| &**more);
        }
        None
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let slot = self.0;
        // Only its owner changes a slot in use.
        let version = slot.version.load(Ordering::Relaxed);
        slot.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        slot.store(
            Range {
                start: 0,
                len: 0,
                word: 0,
            },
            version.wrapping_add(2),
        );
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            word: AtomicUsize::new(0),
        }
    }

    fn try_fill(&self, range: Range) -> bool {
        let version = self.version.load(Ordering::Acquire);
        if version % 2 == 1 || self.start.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let odd = version.wrapping_add(1);
        let claim =
            self.version
                .compare_exchange(version, odd, Ordering::Acquire, Ordering::Relaxed);
        if claim.is_ok() {
            self.store(range, version.wrapping_add(2));
        }
        claim.is_ok()
    }

    /// With the version odd already.
    fn store(&self, range: Range, version: usize) {
        // A reader that loads part of what follows finds the version changed.
        fence(Ordering::Release);
        self.start.store(range.start, Ordering::Relaxed);
        self.len.store(range.len, Ordering::Relaxed);
        self.word.store(range.word, Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
    }

    fn read(&self) -> Option<Range> {
        let version = self.version.load(Ordering::Acquire);
        let range = Range {
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            word: self.word.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (whole && range.start != 0).then_some(range)
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    fn table() -> &'static Ranges {
        Box::leak(Box::new(Ranges::new()))
    }

    fn range(number: usize) -> Range {
        Range {
            start: 0x10_0000 * (number + 1),
            len: 0x1000,
            word: number,
        }
    }

    #[test]
    fn an_address_is_found_in_its_range_and_nowhere_else() {
        let table = table();
        let entry = table.enter(range(0));
        let all = |_: &Range| true;
        for inside in [0x10_0000, 0x10_0fff] {
            assert_eq!(table.find(inside, all), Some(range(0)));
        }
        for outside in [0, 0xf_ffff, 0x10_1000, usize::MAX] {
            assert_eq!(table.find(outside, all), None);
        }
        assert_eq!(table.find(0x10_0000, |range| range.word != 0), None);
        drop(entry);
        assert_eq!(table.find(0x10_0000, all), None);
    }

    #[test]
    fn ranges_are_unbounded_and_reused() {
        let table = table();
        let mut entries: Vec<_> = (0..3 * SLOTS).map(|n| table.enter(range(n))).collect();
        let all = |_: &Range| true;
        assert!((0..3 * SLOTS).all(|n| table.find(range(n).start, all) == Some(range(n))));
        entries.truncate(1);
        assert_eq!(table.find(range(1).start, all), None);
        entries.extend((1..3 * SLOTS).map(|n| table.enter(range(n))));
        let blocks = std::iter::successors(Some(table), |at| at.more.get().map(|more| &**more));
        assert_eq!(blocks.count(), 3);
    }

    /// Two ranges that are inserted and removed in the same slots: a range that is read is never a
    /// mixture of both.
    #[test]
    fn a_range_in_change_is_never_read_in_parts() {
        let table = table();
        std::thread::scope(|scope| {
            let change = |from: usize| {
                for round in 0..20_000 {
                    let number = from + round % 100;
                    drop(table.enter(Range {
                        len: number + 1,
                        ..range(number)
                    }));
                }
            };
            let writers = [
                scope.spawn(move || change(0)),
                scope.spawn(move || change(1000)),
            ];
            while !writers.iter().all(|writer| writer.is_finished()) {
                for slot in &table.slots[..4] {
                    if let Some(found) = slot.read() {
                        assert_eq!(found.start, range(found.word).start);
                        assert_eq!(found.len, found.word + 1);
                    }
                }
            }
        });
    }
}
