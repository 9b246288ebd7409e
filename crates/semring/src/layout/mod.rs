//! The meaning of the bytes of a segment.
//!
//! ```text
//! 0x0000            superblock        4 KiB, immutable once READY
//! 0x1000            consumer page     4 KiB, written by the consumer only
//! 0x2000 + i·0x2000 lane i: producer page (4 KiB), then consumer page (4 KiB)
//! 0x2000 + n·0x2000 data of lane 0, lane 1, …: `capacity` bytes each
//! ```
//! All numbers are little-endian. This layer decodes and provides typed views; it has no policy.
//! `docs/layout.md` is the normative text; the const asserts here and in [`control`] check it.

pub(crate) mod array;
pub(crate) mod control;
pub(crate) mod features;
pub(crate) mod position;
pub(crate) mod record;
pub(crate) mod schema;
pub(crate) mod set_record;
pub(crate) mod superblock;
pub(crate) mod view;

pub(crate) use position::Capacity;
pub use position::Position;
pub(crate) use record::RECORD_ALIGN;
pub use record::{Framing, Tag};

/// Bytes of the superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = 4096;
/// Offset of the consumer page.
pub(crate) const CONSUMER_PAGE_OFFSET: usize = 0x1000;
/// Offset of the pages of lane 0.
pub(crate) const LANE_PAGES_OFFSET: usize = 0x2000;
/// Bytes of the two pages of a lane.
pub(crate) const LANE_PAGES_BYTES: usize = 0x2000;
/// The most lanes a ring can have: 2 × lanes + 3 operations must fit one `semop` (SEMOPM is 500).
pub(crate) const MAX_LANES: usize = 240;

/// The number of lanes and their capacity: all that determines the offset of a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    lanes: usize,
    capacity: Capacity,
}

impl Geometry {
    /// `None` if the number of lanes is 0 or above [`MAX_LANES`].
    pub(crate) const fn new(lanes: usize, capacity: Capacity) -> Option<Self> {
        if lanes == 0 || lanes > MAX_LANES {
            None
        } else {
            Some(Self { lanes, capacity })
        }
    }

    pub(crate) const fn lanes(self) -> usize {
        self.lanes
    }

    pub(crate) const fn capacity(self) -> Capacity {
        self.capacity
    }

    /// Offset of the producer page of this lane.
    pub(crate) const fn producer_page(self, lane: usize) -> usize {
        assert!(lane < self.lanes);
        LANE_PAGES_OFFSET + lane * LANE_PAGES_BYTES
    }

    /// Offset of the consumer's page of this lane.
    pub(crate) const fn consumer_page(self, lane: usize) -> usize {
        self.producer_page(lane) + control::PAGE
    }

    /// Offset of the data of lane 0.
    pub(crate) const fn data_offset(self) -> usize {
        LANE_PAGES_OFFSET + self.lanes * LANE_PAGES_BYTES
    }

    /// Offset of the data of this lane.
    pub(crate) const fn lane_data(self, lane: usize) -> usize {
        assert!(lane < self.lanes);
        self.data_offset() + lane * self.capacity.get() as usize
    }

    /// Bytes of the whole segment.
    pub(crate) const fn segment_bytes(self) -> usize {
        self.data_offset() + self.lanes * self.capacity.get() as usize
    }
}

/// The numbers of lanes that a ring of this size can have: one number for each capacity that fits.
pub(crate) fn possible_lanes(bytes: u64) -> impl Iterator<Item = usize> {
    (12..=32).filter_map(move |bits| {
        let capacity = Capacity::exact(1 << bits)?;
        let bytes_of =
            |lanes| Geometry::new(lanes, capacity).map(|ring| ring.segment_bytes() as u64);
        let (one, two) = (bytes_of(1)?, bytes_of(2)?);
        let further = bytes.checked_sub(one)? / (two - one);
        let lanes = usize::try_from(further).ok()?.checked_add(1)?;
        (bytes_of(lanes)? == bytes).then_some(lanes)
    })
}

const _: () = {
    let smallest = Geometry::new(1, Capacity::exact(4096).unwrap()).unwrap();
    assert!(smallest.producer_page(0) == 0x2000);
    assert!(smallest.consumer_page(0) == 0x3000);
    assert!(smallest.lane_data(0) == 0x4000);
    assert!(smallest.segment_bytes() == 0x5000);
    let largest = Geometry::new(MAX_LANES, Capacity::exact(4 << 30).unwrap()).unwrap();
    assert!(largest.lane_data(239) == 0x2000 + 240 * 0x2000 + 239 * (4 << 30));
};
