//! The same interface over loom's cells. Every word of the data area is an atomic that payload is
//! copied through with Relaxed, so that a missing edge shows as stale bytes; and because payload is
//! plain memory in a normal build, each word has a cell beside it in which loom detects races: a
//! copy that is not ordered with the other side's copy of the same bytes ends the model.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;

use super::Plain;
use crate::layout::control::{ConsumerPage, LaneConsumerPage, ProducerPage};
use crate::layout::set_record::SetRecord;
use crate::layout::{Capacity, Geometry, Position, SUPERBLOCK_BYTES};
use crate::memory::{Segment, Span};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

struct Word {
    value: AtomicU64,
    /// Entered by code that copies payload. Holds nothing.
    payload: UnsafeCell<()>,
}

// SAFETY: the cell's content is never accessed; loom only compares the times of entering it.
unsafe impl Sync for Word {}

struct Cells {
    producer: ProducerPage,
    consumer: LaneConsumerPage,
    words: Vec<Word>,
}

#[derive(Clone)]
pub(crate) struct LaneView {
    cells: Arc<Cells>,
    ring: Arc<ConsumerPage>,
    capacity: Capacity,
}

impl LaneView {
    /// A lane for a model.
    pub(crate) fn model(capacity: Capacity) -> Self {
        Self::of_ring(capacity, Arc::new(ConsumerPage::new()))
    }

    fn of_ring(capacity: Capacity, ring: Arc<ConsumerPage>) -> Self {
        let word = |_| Word {
            value: AtomicU64::new(0),
            payload: UnsafeCell::new(()),
        };
        let words = (0..capacity.get() / 8).map(word).collect();
        let cells = Cells {
            producer: ProducerPage::new(),
            consumer: LaneConsumerPage::new(),
            words,
        };
        Self {
            cells: Arc::new(cells),
            ring,
            capacity,
        }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub(crate) fn producer(&self) -> &ProducerPage {
        &self.cells.producer
    }

    pub(crate) fn consumer(&self) -> &LaneConsumerPage {
        &self.cells.consumer
    }

    pub(crate) fn ring_consumer(&self) -> &ConsumerPage {
        &self.ring
    }

    pub(crate) fn is_intact(&self) -> bool {
        true
    }

    pub(crate) fn is_forked(&self) -> bool {
        false
    }

    pub(crate) fn is_truncated(&self) -> bool {
        false
    }

    #[track_caller]
    fn words(&self, position: Position, within: u64, length: usize) -> &[Word] {
        let first = (self.capacity.offset_of(position).get() + within) as usize / 8;
        &self.cells.words[first..first + length.div_ceil(8)]
    }

    pub(crate) fn header(&self, position: Position) -> &AtomicU64 {
        &self.words(position, 0, 8)[0].value
    }

    pub(crate) fn prefetch(&self, _: Position) {}

    pub(crate) fn bytes_at(&self, _: Position, _: u64, _: usize) -> NonNull<u8> {
        unreachable!("models copy words")
    }

    pub(crate) fn span(&self, _: Position, _: u64, _: usize) -> Span<'_> {
        unreachable!("models copy words")
    }

    #[track_caller]
    pub(crate) fn write(&self, position: Position, within: u64, bytes: &[u8]) {
        let words = self.words(position, within, bytes.len());
        for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
            let mut value = [0; 8];
            value[..chunk.len()].copy_from_slice(chunk);
            word.value
                .store(u64::from_le_bytes(value), Ordering::Relaxed);
            word.payload.with_mut(|_| ());
        }
    }

    #[track_caller]
    pub(crate) fn write_unchecked(&self, position: Position, within: u64, bytes: &[u8]) {
        self.write(position, within, bytes);
    }

    #[track_caller]
    pub(crate) fn read(&self, position: Position, within: u64, bytes: &mut [u8]) {
        let words = self.words(position, within, bytes.len());
        for (word, chunk) in words.iter().zip(bytes.chunks_mut(8)) {
            let value = word.value.load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
            word.payload.with(|_| ());
        }
    }

    #[cfg(feature = "zerocopy")]
    pub(crate) fn with_copy<T, R>(
        &self,
        position: Position,
        within: u64,
        use_it: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let mut bytes = vec![0; size_of::<T>()];
        self.read(position, within, &mut bytes);
        use_it(&bytes)
    }

    pub(crate) fn append_elements<T: Plain>(
        &self,
        position: Position,
        within: u64,
        count: usize,
        to: &mut Vec<T>,
    ) {
        let mut bytes = vec![0; count * size_of::<T>()];
        self.read(position, within, &mut bytes);
        let from = bytes.as_ptr().cast::<T>();
        // SAFETY: `bytes` holds as many, any bytes are a `T`, and they need no alignment here.
        to.extend((0..count).map(|index| unsafe { from.add(index).read_unaligned() }));
    }

    pub(crate) fn append(&self, position: Position, within: u64, length: usize, to: &mut Vec<u8>) {
        let start = to.len();
        to.resize(start + length, 0);
        self.read(position, within, &mut to[start..]);
    }
}

/// The control pages and lanes of a whole ring. The segment holds none of them; it is only used
/// for the check for a forked child.
#[derive(Clone)]
pub(crate) struct RingView {
    segment: Arc<Segment>,
    consumer: Arc<ConsumerPage>,
    lanes: Vec<LaneView>,
}

impl RingView {
    pub(crate) fn new(segment: Arc<Segment>, geometry: Geometry) -> Option<Self> {
        let consumer = Arc::new(ConsumerPage::new());
        let lane = |_| LaneView::of_ring(geometry.capacity(), consumer.clone());
        Some(Self {
            segment,
            consumer: consumer.clone(),
            lanes: (0..geometry.lanes()).map(lane).collect(),
        })
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn state(&self) -> &AtomicU32 {
        unreachable!("models have no superblock")
    }

    pub(crate) fn magic(&self) -> &AtomicU64 {
        unreachable!("models have no superblock")
    }

    pub(crate) fn consumer(&self) -> &ConsumerPage {
        &self.consumer
    }

    pub(crate) fn lane(&self, lane: usize) -> LaneView {
        self.lanes[lane].clone()
    }

    pub(crate) fn write_superblock(&self, _: &[u8; SUPERBLOCK_BYTES]) {
        unreachable!("models have no superblock")
    }

    pub(crate) fn record_word(&self) -> &AtomicU64 {
        unreachable!("models have no superblock")
    }

    pub(crate) fn write_record(&self, _: &SetRecord) {
        unreachable!("models have no superblock")
    }
}
