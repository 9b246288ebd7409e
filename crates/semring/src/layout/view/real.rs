//! Views of mapped memory. A view keeps its segment alive and was checked against the segment's length when it
//! was made, so every reference that it returns lies inside the mapping. The control words are atomics; the
//! payload is copied, never referenced, because another process may write it at any time.

#[cfg(feature = "zerocopy")]
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Plain;
use crate::layout::control::{ConsumerPage, LaneConsumerPage, ProducerPage};
use crate::layout::set_record::{AT_RECORD_WORD, RECORD_BYTES, SetRecord};
use crate::layout::superblock::{AT_MAGIC, AT_STATE};
use crate::layout::{CONSUMER_PAGE_OFFSET, Capacity, Geometry, Position, SUPERBLOCK_BYTES};
use crate::memory::{Segment, Span};
use crate::sync::signals::SignalWord;
use crate::sync::{AtomicU32, AtomicU64};

/// A segment seen as a ring of a given geometry.
#[derive(Clone)]
pub(crate) struct RingView {
    segment: Arc<Segment>,
    geometry: Geometry,
}

impl RingView {
    /// `None` if the segment is shorter than the geometry needs.
    pub(crate) fn new(segment: Arc<Segment>, geometry: Geometry) -> Option<Self> {
        let aligned = segment.base().addr().get().is_multiple_of(4096);
        (aligned && segment.len() >= geometry.segment_bytes()).then_some(Self { segment, geometry })
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The state word of the superblock.
    pub(crate) fn state(&self) -> &AtomicU32 {
        let at = self.at::<AtomicU32>(AT_STATE);
        // SAFETY: `at` checked bounds and alignment; an atomic may be written by any process;
        // the borrow of self keeps the mapping.
        unsafe { at.as_ref() }
    }

    /// The first eight bytes of the superblock: the magic.
    pub(crate) fn magic(&self) -> &AtomicU64 {
        let at = self.at::<AtomicU64>(AT_MAGIC);
        // SAFETY: as for `state`.
        unsafe { at.as_ref() }
    }

    /// The page of the ring's consumer.
    pub(crate) fn consumer(&self) -> &ConsumerPage {
        let at = self.at::<ConsumerPage>(CONSUMER_PAGE_OFFSET);
        // SAFETY: `at` checked bounds and alignment; the page holds atomics and unread padding
        // only; the borrow of self keeps the mapping.
        unsafe { at.as_ref() }
    }

    /// The view of one lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub(crate) fn lane(&self, lane: usize) -> LaneView {
        let geometry = self.geometry;
        LaneView {
            producer: self.at(geometry.producer_page(lane)),
            consumer: self.at(geometry.consumer_page(lane)),
            ring: self.at(CONSUMER_PAGE_OFFSET),
            data: self.at::<AtomicU64>(geometry.lane_data(lane)).cast(),
            capacity: geometry.capacity(),
            fate: NonNull::from(self.segment.fate()),
            segment: self.segment.clone(),
        }
    }

    /// Writes the superblock, all but its state word. For the creator, before READY.
    pub(crate) fn write_superblock(&self, bytes: &[u8; SUPERBLOCK_BYTES]) {
        let base = self.segment.base().as_ptr();
        // SAFETY: the segment is longer than a superblock (checked by `new`), `bytes` is a
        // private copy; no other process reads these bytes before READY, or treats them as input.
        unsafe { base.copy_from_nonoverlapping(bytes.as_ptr(), AT_STATE) };
    }

    /// The record word of the superblock.
    pub(crate) fn record_word(&self) -> &AtomicU64 {
        let at = self.at::<AtomicU64>(AT_RECORD_WORD);
        // SAFETY: as for `state`.
        unsafe { at.as_ref() }
    }

    /// Writes a record of the ring's semaphore set, which counts when the record word selects it. For the process
    /// that made the set. If two write at the same time, what is there afterwards is invalid.
    pub(crate) fn write_record(&self, record: &SetRecord) {
        let (at, bytes) = (
            self.at::<[u8; RECORD_BYTES]>(record.offset()),
            record.encode(),
        );
        // SAFETY: `at` checked the bounds, `bytes` is a private copy; readers treat the bytes as
        // input.
        unsafe { at.as_ptr().copy_from_nonoverlapping(&raw const bytes, 1) };
    }

    fn at<T>(&self, offset: usize) -> NonNull<T> {
        assert!(offset.is_multiple_of(align_of::<T>()));
        assert!(offset + size_of::<T>() <= self.segment.len());
        // SAFETY: the assertion above: the offset lies inside the mapping.
        unsafe { self.segment.base().byte_add(offset) }.cast()
    }
}

/// One lane: its two control pages, the page of the ring's consumer, and its data.
#[derive(Clone)]
pub(crate) struct LaneView {
    producer: NonNull<ProducerPage>,
    consumer: NonNull<LaneConsumerPage>,
    ring: NonNull<ConsumerPage>,
    data: NonNull<u8>,
    capacity: Capacity,
    /// The word of the segment's mapping state, reached with one load.
    fate: NonNull<SignalWord>,
    // Keeps the mapping that the pointers point into, and the mapping state.
    segment: Arc<Segment>,
}

// SAFETY: the pointers lead to atomics and to bytes that are only copied; the segment they point
// into is kept and is itself Send and Sync.
unsafe impl Send for LaneView {}
// SAFETY: as above; all methods take &self and work on atomics or copy bytes whose owner is
// defined by the lane protocol.
unsafe impl Sync for LaneView {}

impl LaneView {
    #[inline(always)]
    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    #[inline(always)]
    pub(crate) fn producer(&self) -> &ProducerPage {
        // SAFETY: made by RingView::lane, which checked bounds; the segment is kept.
        unsafe { self.producer.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn consumer(&self) -> &LaneConsumerPage {
        // SAFETY: made by RingView::lane, which checked bounds; the segment is kept.
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn fate(&self) -> &SignalWord {
        // SAFETY: the mapping state's page is mapped for as long as the segment exists, which is kept.
        unsafe { self.fate.as_ref() }
    }

    /// True while the pages are mapped and not truncated: not in a child forked since, and not after a
    /// truncation.
    #[inline(always)]
    pub(crate) fn is_intact(&self) -> bool {
        self.fate().says_intact()
    }

    /// True in a child forked since: the pages are not mapped there.
    #[inline(always)]
    pub(crate) fn is_forked(&self) -> bool {
        self.fate().says_forked()
    }

    /// True if the ring's memory was truncated: bytes that were just read may have been zeros in
    /// place of the ring's.
    #[inline(always)]
    pub(crate) fn is_truncated(&self) -> bool {
        self.fate().says_truncated()
    }

    /// The page of the ring's consumer.
    #[inline(always)]
    pub(crate) fn ring_consumer(&self) -> &ConsumerPage {
        // SAFETY: made by RingView::lane, which checked bounds; the segment is kept.
        unsafe { self.ring.as_ref() }
    }

    /// The header word at a position.
    #[inline(always)]
    pub(crate) fn header(&self, position: Position) -> &AtomicU64 {
        debug_assert!(position.is_aligned());
        let offset = self.capacity.offset_of(position).get() as usize & !7;
        // SAFETY: an offset is below the capacity, and the data area is that long.
        let word = unsafe { self.data.byte_add(offset) }.cast::<AtomicU64>();
        // SAFETY: inside the data area and aligned to 8 (masked above); every process accesses
        // header words as atomics.
        unsafe { word.as_ref() }
    }

    /// Makes the CPU fetch the cache line of a position, where it has an instruction for that. A hint:
    /// nothing is read.
    #[inline(always)]
    pub(crate) fn prefetch(&self, position: Position) {
        let word: *const AtomicU64 = self.header(position);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86-64; a prefetch has no effect that a program can see.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(word.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = word;
    }

    /// Address of the byte `within` bytes after `position`; the next `length` bytes must not
    /// cross the end of the data area.
    ///
    /// # Panics
    /// If they do, and in a forked child, in which the pages are not mapped.
    #[inline(always)]
    pub(crate) fn bytes_at(&self, position: Position, within: u64, length: usize) -> NonNull<u8> {
        self.assert_not_forked();
        self.bytes_unchecked(position, within, length)
    }

    #[inline(always)]
    fn assert_not_forked(&self) {
        assert!(
            !self.is_forked(),
            "a forked child must open the ring itself"
        );
    }

    /// The same for callers that have just checked that this is not a forked child.
    #[inline(always)]
    fn bytes_unchecked(&self, position: Position, within: u64, length: usize) -> NonNull<u8> {
        let end = within.checked_add(length as u64);
        assert!(end.is_some_and(|end| end <= self.capacity.bytes_to_end(position)));
        let offset = self.capacity.offset_of(position).get() + within;
        // SAFETY: the assertion: offset + length stays inside the data area.
        unsafe { self.data.byte_add(offset as usize) }
    }

    /// The same bytes as a range that the kernel can read or write in place.
    pub(crate) fn span(&self, position: Position, within: u64, length: usize) -> Span<'_> {
        let start = self.bytes_at(position, within, length);
        // SAFETY: `bytes_at` checked the range.
        unsafe { Span::new(&self.segment, start, length) }
    }

    /// Copies bytes in.
    #[inline(always)]
    pub(crate) fn write(&self, position: Position, within: u64, bytes: &[u8]) {
        self.assert_not_forked();
        self.write_unchecked(position, within, bytes);
    }

    /// Copies bytes in, for callers that have just checked that the lane [is
    /// intact](Self::is_intact).
    #[inline(always)]
    pub(crate) fn write_unchecked(&self, position: Position, within: u64, bytes: &[u8]) {
        let to = self.bytes_unchecked(position, within, bytes.len());
        // SAFETY: `bytes_unchecked` checked the bounds; `bytes` can't overlap shared memory, to which no
        // safe code has a slice. A peer that breaks the protocol can make the bytes garbage,
        // nothing else.
        unsafe {
            to.as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Copies bytes out.
    #[inline(always)]
    pub(crate) fn read(&self, position: Position, within: u64, bytes: &mut [u8]) {
        let from = self.bytes_at(position, within, bytes.len());
        // SAFETY: as for `write_unchecked`, the other way round.
        unsafe {
            from.as_ptr()
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
        };
    }

    /// Copies out the bytes of a value: not all bytes may be one, so it is for the caller to look at them. They stay as
    /// they were copied, whatever a peer does.
    #[cfg(feature = "zerocopy")]
    #[inline(always)]
    pub(crate) fn with_copy<T, R>(
        &self,
        position: Position,
        within: u64,
        use_it: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let mut copy = MaybeUninit::<T>::uninit();
        let from = self.bytes_at(position, within, size_of::<T>());
        let to = copy.as_mut_ptr().cast::<u8>();
        // SAFETY: `bytes_at` checked the source; the target has this size, and is private.
        unsafe { from.as_ptr().copy_to_nonoverlapping(to, size_of::<T>()) };
        // SAFETY: all of these bytes were just written.
        use_it(unsafe { std::slice::from_raw_parts(to, size_of::<T>()) })
    }

    /// Appends messages that lie one right after the other to a vector.
    #[inline(always)]
    pub(crate) fn append_elements<T: Plain>(
        &self,
        position: Position,
        within: u64,
        count: usize,
        to: &mut Vec<T>,
    ) {
        self.assert_not_forked();
        let length = count * size_of::<T>();
        let from = self.bytes_unchecked(position, within, length);
        to.reserve(count);
        let spare = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: `bytes_unchecked` checked the source, `reserve` made room for `count` elements in the target; they
        // can't overlap.
        unsafe { from.as_ptr().copy_to_nonoverlapping(spare, length) };
        // SAFETY: these elements were just written, and any bytes are a `T`.
        unsafe { to.set_len(to.len() + count) };
    }

    /// Appends bytes to a vector.
    #[inline(always)]
    pub(crate) fn append(&self, position: Position, within: u64, length: usize, to: &mut Vec<u8>) {
        let from = self.bytes_at(position, within, length);
        to.reserve(length);
        let spare = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: `bytes_at` checked the source, `reserve` made room for the target; they can't
        // overlap.
        unsafe { from.as_ptr().copy_to_nonoverlapping(spare, length) };
        // SAFETY: these bytes were just written.
        unsafe { to.set_len(to.len() + length) };
    }
}
