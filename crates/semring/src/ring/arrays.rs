//! The consumer's half of an array: many messages of one size in one record.
//!
//! ```text
//!        released, read                      end
//!              │                              │
//!  ────────────┼──────┬──┬──┬──┬──┬──┬──┬──┬──┼─────→ positions
//!              │header│ 0│ 1│ 2│ 3│ 4│ 5│ 6│ 7│
//!                      └────────┘└─────┘└─────┘
//!                       released  taken  not taken
//!                      (partial)
//! ```
//! Header and word are read once and kept as long as the lane is *inside* the array: reading them again would let a
//! hostile producer change the size in between. The read position stays at the array's header until the last message is
//! taken; how many are taken is a number of its own. The fast path is closed meanwhile.
//!
//! # `partial`
//! `released` can't say how many messages of an array are released, so a word beside it does, together with the position
//! of the array that it is about. A consumer that releases stores in this order:
//!
//! | step | killed before it | why not earlier |
//! |---|---|---|
//! | `released` moves past an array | its messages that `partial` counts do not come again | |
//! | `partial` = 0 | it is about an array before `released`: a successor clears it | cleared before `released` is stored, it would let flushed messages come again |
//! | `partial` of the array at `released` | its messages come again, of which no flush has returned | stored before `released`, it would be taken for none, and lose the one before it |
//!
//! A consumer that takes over clears a word that does not fit `released` before it moves that: the word has 32 bits of a
//! position, so one that is left could fit again after 32 GiB, and messages would be skipped. One store moves `released`
//! by 4 GiB at most.

use super::consume::{Found, LaneConsumer};
use super::fast_path::FastPath;
use crate::layout::Position;
use crate::layout::array::{Array, ArrayHeader, elements_released, partial_word};
use crate::layout::record::HEADER_BYTES;
use crate::layout::view::LaneView;
use crate::sync::Ordering;
use crate::sync::mutant::{self, Mutant};

/// What of a lane only the slow path uses.
pub(super) struct SlowState {
    /// The trusted end: headers before this position are of this lap. When the control words were last
    /// read, no lane that obeys the protocol had published anything from here on.
    pub(super) trusted_end: Position,
    /// The array that the lane is inside.
    array: Option<OpenArray>,
    /// Messages of the array at `read` that were found and passed. Where the lane is not inside: that it will have passed
    /// when it is.
    passed_elements: u32,
    /// The same of the array at `stepped_from`; 0 if no message is stepped over.
    pub(super) stepped_from_element: u32,
    /// The last stored number of elements of the array at `released`.
    released_elements: u32,
    /// The word `partial` may be other than 0.
    has_partial: bool,
    /// The fast path behind the array.
    pub(super) after_array: FastPath,
}

/// An array as it was checked.
#[derive(Clone, Copy)]
struct OpenArray {
    at: Position,
    array: Array,
}

impl SlowState {
    pub(super) fn new(start: Position) -> Self {
        Self {
            trusted_end: start,
            array: None,
            passed_elements: 0,
            stepped_from_element: 0,
            released_elements: 0,
            has_partial: false,
            after_array: FastPath::closed_at(start),
        }
    }

    /// Of a consumer that begins at what its predecessor released last.
    pub(super) fn take_over(lane: &LaneView, released: Position) -> Self {
        let partial = &lane.consumer().partial;
        let word = partial.load(Ordering::Relaxed);
        let element = elements_released(word, released);
        let is_stale = word != 0 && element == 0;
        if is_stale && !mutant::is(Mutant::StalePartialKept) {
            // Before any store of `released`, which is a Release.
            partial.store(0, Ordering::Relaxed);
        }
        Self {
            passed_elements: element,
            released_elements: element,
            has_partial: element != 0,
            ..Self::new(released)
        }
    }
}

impl SlowState {
    /// Whether no message of the record at the read position was passed.
    pub(super) fn is_at_first(&self) -> bool {
        self.passed_elements == 0
    }
}

/// Messages of one size that lie one right after the other: the rest of an array, or a message that is none of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FoundArray {
    /// The first of them.
    pub(crate) first: Found,
    pub(crate) count: u32,
    /// Position after the record.
    end: Position,
    /// The array, if the lane is not inside it.
    outside: Option<Array>,
}

impl FoundArray {
    /// One of the messages.
    #[inline]
    pub(crate) fn message(&self, index: u32) -> Found {
        let before = u64::from(index) * u64::from(self.first.header.payload());
        Found {
            position: self.first.position.advance(before),
            ..self.first
        }
    }
}

impl LaneConsumer {
    /// Whether the message found last is one of an array, and others of it are not taken.
    #[inline(always)]
    pub(crate) fn is_in_array(&self) -> bool {
        self.slow.array.is_some()
    }

    /// The next message of the array that the lane is inside.
    #[inline]
    pub(crate) fn next_of_array(&self) -> Option<Found> {
        let OpenArray { at, array } = self.slow.array?;
        Some(Found {
            position: array.element_position(at, self.slow.passed_elements),
            header: array.element_header(),
        })
    }

    /// Goes inside the array at the read position.
    pub(super) fn open_array(&mut self, array: Array) {
        let at = self.read;
        if self.slow.passed_elements >= array.count() {
            // No consumer stores that all of them are released: then `released` is past them.
            self.ignore_elements();
        }
        self.slow.array = Some(OpenArray { at, array });
        self.slow.after_array = self.fast_path;
        self.fast_path.close(at);
        self.release_at = at;
    }

    /// No message of the record at the read position counts as passed, whatever `partial` holds: the record is no array,
    /// or a shorter one.
    #[inline]
    pub(super) fn ignore_elements(&mut self) {
        if self.slow.passed_elements != 0 {
            self.forget_elements();
        }
    }

    #[cold]
    fn forget_elements(&mut self) {
        self.slow.passed_elements = 0;
        self.slow.released_elements = 0;
        self.slow.has_partial = false;
        self.lane.consumer().partial.store(0, Ordering::Release);
    }

    /// Passes messages of the array.
    fn pass_elements(&mut self, count: u32) {
        let Some(OpenArray { at, array }) = self.slow.array else {
            debug_assert!(false, "only inside an array");
            return;
        };
        self.slow.passed_elements += count;
        debug_assert!(self.slow.passed_elements <= array.count());
        self.read = at;
        if self.slow.passed_elements >= array.count() {
            self.leave_array();
            self.read = at.advance(array.bytes());
            self.fast_path = self.slow.after_array;
        }
    }

    /// The read position is the caller's.
    fn leave_array(&mut self) {
        self.slow.array = None;
        self.slow.passed_elements = 0;
        self.release_at = self.released.advance(self.lane.capacity().quarter());
    }

    /// Completes [`take_one`](Self::take_one) for a message of an array.
    #[cold]
    pub(super) fn settle_element(&mut self) {
        self.pass_elements(1);
    }

    /// Moves past a message that was found, without taking it.
    pub(crate) fn step_over(&mut self, found: &Found) {
        if !self.is_in_array() {
            self.step_over_record(found);
            return;
        }
        if self.stepped_messages == 0 {
            self.stepped_from = self.read;
            self.slow.stepped_from_element = self.slow.passed_elements;
        }
        self.stepped_messages += 1;
        self.pass_elements(1);
    }

    /// Where a batch began: the part of [`step_back`](Self::step_back) that is about the messages of an array.
    pub(super) fn return_to_element(&mut self) {
        self.leave_array();
        self.slow.passed_elements = std::mem::take(&mut self.slow.stepped_from_element);
    }

    /// How many messages of the array at the position up to which everything may be released may be released as well.
    #[inline]
    pub(super) fn taken_elements(&self) -> u32 {
        if self.stepped_messages == 0 {
            self.slow.passed_elements
        } else {
            self.slow.stepped_from_element
        }
    }

    /// Clears `partial`: it is about an array before `released`, which was just stored.
    #[inline]
    pub(super) fn clear_partial(&mut self) {
        self.slow.released_elements = 0;
        if std::mem::take(&mut self.slow.has_partial) {
            // Release: not before `released`.
            self.lane.consumer().partial.store(0, Ordering::Release);
        }
    }

    /// Stores the number of messages of the array at `released` that are released.
    #[inline]
    pub(super) fn release_elements(&mut self, element: u32) {
        if element != self.slow.released_elements {
            let page = self.lane.consumer();
            self.store_received();
            // Release: not before `released`, nor before an earlier array's word was cleared.
            let word = partial_word(self.released, element);
            page.partial.store(word, Ordering::Release);
            self.slow.has_partial = true;
            self.slow.released_elements = element;
        }
    }

    /// All messages of the array that comes next, if it lies before the limit of the fast path, as in
    /// [`load_header`](Self::load_header).
    #[inline(always)]
    pub(crate) fn load_array(&self) -> Option<FoundArray> {
        if !self.lane.is_intact() {
            return None;
        }
        let (position, below) = (self.read, self.fast_path.passes_below(self.read));
        let order = mutant::order(Mutant::RelaxedFastLoad, Ordering::Acquire);
        let word = self.lane.header(position).load(order);
        let header = ArrayHeader::decode_short(word, below)?;
        // Once, as in `find`. Where the fast path is open no message at the read position counts as passed.
        let word = self.lane.header(position.advance(HEADER_BYTES));
        let array = header.with_word(word.load(Ordering::Relaxed)).ok()?;
        Some(FoundArray {
            first: Found {
                position: array.element_position(position, 0),
                header: array.element_header(),
            },
            count: array.count(),
            end: position.advance(array.bytes()),
            outside: Some(array),
        })
    }

    /// The messages that lie together with one that was found.
    pub(crate) fn array_of(&self, first: Found) -> FoundArray {
        match self.slow.array {
            Some(OpenArray { at, array }) => FoundArray {
                first,
                count: array.count() - self.slow.passed_elements,
                end: at.advance(array.bytes()),
                outside: None,
            },
            None => FoundArray {
                first,
                count: 1,
                end: first.position.advance(first.header.bytes()),
                outside: None,
            },
        }
    }

    /// Takes all of these messages, on a lane on which no other one is found but not taken. True if the caller has to
    /// [settle](Self::settle_array) that.
    #[inline(always)]
    #[must_use = "the rest of an array is not taken before it is settled"]
    pub(crate) fn take_array(&mut self, found: &FoundArray) -> bool {
        debug_assert_eq!(self.stepped_messages, 0);
        self.read = found.end;
        self.taken_messages = self.taken_messages.wrapping_add(u64::from(found.count));
        self.read.has_reached(self.release_at)
    }

    /// Completes [`take_array`](Self::take_array). True when a quarter of the capacity is taken and not released.
    pub(crate) fn settle_array(&mut self) -> bool {
        if self.is_in_array() {
            self.leave_array();
            self.fast_path = self.slow.after_array;
        }
        self.is_due()
    }

    /// Takes the first of these messages, and not all of them: the next look finds the others.
    pub(crate) fn take_first(&mut self, found: &FoundArray, count: u32) {
        debug_assert!(count < found.count && self.stepped_messages == 0);
        if let Some(array) = found.outside {
            self.open_array(array);
        }
        if count > 0 {
            self.taken_messages = self.taken_messages.wrapping_add(u64::from(count));
            self.pass_elements(count);
        }
    }
}
