//! The record of an array: many messages of one size behind one header.
//!
//! ```text
//! header    marker 0xA7 · length = stride × count · kind, framing, gap as of a message     at p
//! word      stride (bits 0–31) · count (bits 32–63)                                        at p + 8
//! elements  the messages, one right after the other                                        at p + lead
//! ```
//! `lead` is 16 and the gap. Each element is a message. Its position is that which a message with its bytes would have
//! whose header is right in front of them: 8 less than where its first byte lies. That is inside the record, behind the
//! record's own position, so no other message has it.

use super::Position;
use super::position::Capacity;
use super::record::{
    BadHeader, GAP_MASK, GAP_SHIFT, HEADER_BYTES, LENGTH_MASK, LINE, MARKER_SHIFT, MessageHeader,
    PAD_BIT, Tag, content_bytes, is_part, trail_of,
};

/// The marker of a header of this kind.
pub(super) const MARKER: u64 = 0xA7;
/// Bytes of header and word.
pub(crate) const ARRAY_HEADER_BYTES: u64 = 2 * HEADER_BYTES;

/// Bytes from the beginning of an array at `position` to its elements, if they begin at a cache line: 16 to 72.
#[inline(always)]
pub(crate) const fn array_lead_to_line(position: Position) -> u64 {
    let behind = position.get().wrapping_add(ARRAY_HEADER_BYTES) % LINE;
    ARRAY_HEADER_BYTES + (LINE - behind) % LINE
}

/// The header word of an array whose elements have `payload` bytes together.
#[inline]
pub(crate) const fn array_header(lead: u64, payload: u32, tag: Tag) -> u64 {
    MARKER << MARKER_SHIFT
        | (lead - ARRAY_HEADER_BYTES) << (GAP_SHIFT - 3)
        | tag.bits()
        | payload as u64
}

/// The word behind the header.
#[inline]
pub(crate) const fn array_word(stride: u32, count: u32) -> u64 {
    stride as u64 | (count as u64) << 32
}

/// The header word of an array, with all checks that do not need the word after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArrayHeader(u64);

impl ArrayHeader {
    /// `None` if the word is anything but the header of an array whose record passes where a message of fewer than
    /// `below` bytes does: see [`shorter_fit`](super::record::shorter_fit).
    #[inline(always)]
    pub(crate) const fn decode_short(word: u64, below: i64) -> Option<Self> {
        // An array has one word more in front of its bytes. With the padding bit set it is too long.
        let is_short = (word as u32 as i64) + (HEADER_BYTES as i64) < below;
        if is_short && (word >> MARKER_SHIFT) == MARKER && !is_part(word) {
            Some(Self(word))
        } else {
            None
        }
    }

    /// A word with this marker, found `to_end` bytes before the end of the data area.
    #[inline]
    pub(super) fn decode(word: u64, to_end: u64, capacity: Capacity) -> Result<Self, BadHeader> {
        let header = Self(word);
        let is_sound = word & PAD_BIT == 0
            && header.payload() <= capacity.max_message()
            && header.bytes() <= to_end
            // An array ends a line, or is none of one: no message of it is a part.
            && !is_part(word);
        if is_sound { Ok(header) } else { Err(BadHeader) }
    }

    #[inline(always)]
    const fn payload(self) -> u64 {
        self.0 & LENGTH_MASK
    }

    /// Bytes from the beginning of the record to its first element.
    #[inline(always)]
    pub(crate) const fn lead(self) -> u64 {
        ARRAY_HEADER_BYTES + (self.0 >> GAP_SHIFT & GAP_MASK) * HEADER_BYTES
    }

    /// Bytes that the record takes in the lane.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u64 {
        content_bytes(self.lead(), self.payload()) + trail_of(self.0)
    }

    /// The array with this word behind its header. The word is input, and the caller must have read it exactly once.
    #[inline(always)]
    pub(crate) const fn with_word(self, word: u64) -> Result<Array, BadHeader> {
        let (stride, count) = (word as u32, (word >> 32) as u32);
        // With both above 0 the product is below 2^64. A length is below 2^31, so an equal product has none of 0.
        let is_sound = stride > 0 && count > 0 && stride as u64 * count as u64 == self.payload();
        if is_sound {
            Ok(Array {
                header: self,
                stride,
                count,
            })
        } else {
            Err(BadHeader)
        }
    }
}

/// An array whose header and word are checked: at least one element of at least one byte, and all of them inside of the
/// record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Array {
    header: ArrayHeader,
    stride: u32,
    count: u32,
}

impl Array {
    /// The number of its messages.
    #[inline(always)]
    pub(crate) const fn count(self) -> u32 {
        self.count
    }

    /// Bytes that the record takes in the lane.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u64 {
        self.header.bytes()
    }

    /// The header that each element would have as a message of its own.
    #[inline(always)]
    pub(crate) const fn element_header(self) -> MessageHeader {
        MessageHeader::of_element(self.header.0, self.stride)
    }

    /// The position of this element of an array at `at`.
    #[inline(always)]
    pub(crate) const fn element_position(self, at: Position, element: u32) -> Position {
        let before = element as u64 * self.stride as u64;
        at.advance(self.header.lead() - HEADER_BYTES + before)
    }
}

/// Bits of the position of an array that stand in `partial`, from its bit 32 on. A store of `released` moves it by a
/// capacity at most, which is fewer words of 8 bytes, so a word of an earlier array does not fit before it is cleared.
/// Models have a capacity of some words, and go around these numbers as well.
const POSITION_BITS: u32 = if cfg!(semring_loom) { 4 } else { 32 };

/// The word `partial`: this number of elements of the array at `at` are released. At least one.
#[inline]
pub(crate) const fn partial_word(at: Position, elements: u32) -> u64 {
    place_of(at) << 32 | elements as u64
}

/// The number of elements that are released of an array at this position; 0 if the word is another array's, or none.
#[inline]
pub(crate) const fn elements_released(word: u64, at: Position) -> u32 {
    if word >> 32 == place_of(at) {
        word as u32
    } else {
        0
    }
}

const fn place_of(at: Position) -> u64 {
    (at.get() / HEADER_BYTES) & ((1 << POSITION_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Framing, MARKER as MESSAGE_MARKER, Record, decode, message_header};
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: Capacity = Capacity::exact(4096).unwrap();

    fn array(header: u64, word: u64, at: u64) -> Result<Array, BadHeader> {
        match decode(header, Position::new(at), CAPACITY)? {
            Record::Array(header) => header.with_word(word),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_array_comes_back_as_it_was_written() {
        let tag = Tag::new(0xBEEF).with_framing(Framing::Fixed);
        let found = array(array_header(16, 96, tag), array_word(32, 3), 64).unwrap();
        assert_eq!((found.count(), found.bytes()), (3, 112));
        let element = found.element_header();
        assert_eq!(
            (element.payload(), element.tag(), element.lead()),
            (32, tag, 8)
        );
        let at = Position::new(64);
        // The bytes of the first element lie 16 bytes after the record's beginning.
        assert_eq!(found.element_position(at, 0), Position::new(72));
        assert_eq!(found.element_position(at, 2), Position::new(136));
    }

    #[test]
    fn elements_may_begin_at_the_next_line() {
        for (at, lead) in [(0, 64), (8, 56), (40, 24), (48, 16), (56, 72), (64, 64)] {
            assert_eq!(array_lead_to_line(Position::new(at)), lead, "{at}");
            let header = array_header(lead, 64, Tag::default());
            let found = array(header, array_word(8, 8), at).unwrap();
            let first = found.element_position(Position::new(at), 0).get() + 8;
            assert_eq!(first, at + lead);
            assert_eq!(found.bytes(), lead + 64);
        }
    }

    #[test]
    fn a_word_that_contradicts_its_header_is_refused() {
        let header = array_header(16, 96, Tag::default());
        for (stride, count) in [(96, 1), (1, 96), (32, 3)] {
            assert!(array(header, array_word(stride, count), 0).is_ok());
        }
        for word in [
            0,
            array_word(0, 96),
            array_word(96, 0),
            array_word(32, 4),
            array_word(33, 3),
            // 2^32 × 2^32 is 0 in 64 bits, and the largest product is near 2^64.
            array_word(u32::MAX, u32::MAX),
            array_word(1 << 31, 1 << 31),
            u64::MAX,
        ] {
            assert_eq!(array(header, word, 0), Err(BadHeader), "{word:#x}");
        }
        // No array has nothing in it.
        let empty = array_header(16, 0, Tag::default());
        for word in [0, array_word(0, 5), array_word(5, 0), array_word(1, 1)] {
            assert_eq!(array(empty, word, 0), Err(BadHeader), "{word:#x}");
        }
    }

    #[test]
    fn array_across_end_too_long_or_part_is_refused() {
        let at_end = |payload| {
            decode(
                array_header(16, payload, Tag::default()),
                Position::new(4000),
                CAPACITY,
            )
        };
        assert!(at_end(80).is_ok());
        assert_eq!(at_end(81), Err(BadHeader));
        // Header and word alone are as long as what is left.
        assert!(
            decode(
                array_header(16, 1, Tag::default()),
                Position::new(4080),
                CAPACITY
            )
            .is_err()
        );
        let long = |payload| {
            decode(
                array_header(16, payload, Tag::default()),
                Position::new(0),
                CAPACITY,
            )
        };
        assert!(long(1024).is_ok());
        assert_eq!(long(1025), Err(BadHeader));
        for framing in [Framing::LinePart, Framing::NulPart] {
            let header = array_header(16, 8, Tag::default().with_framing(framing));
            assert_eq!(decode(header, Position::new(0), CAPACITY), Err(BadHeader));
            assert_eq!(ArrayHeader::decode_short(header, 1000), None);
        }
        let padding = array_header(16, 8, Tag::default()) | PAD_BIT;
        assert_eq!(decode(padding, Position::new(0), CAPACITY), Err(BadHeader));
        assert_eq!(ArrayHeader::decode_short(padding, 1 << 31), None);
    }

    #[test]
    fn the_fast_path_takes_no_message_for_an_array() {
        let header = array_header(16, 64, Tag::default());
        assert_eq!(ArrayHeader::decode_short(header, 72), None);
        assert!(ArrayHeader::decode_short(header, 73).is_some());
        assert_eq!(MessageHeader::decode_short(header, 1000), None);
        let message = message_header(8, 64, Tag::default());
        assert_eq!(message >> MARKER_SHIFT, MESSAGE_MARKER);
        assert_eq!(ArrayHeader::decode_short(message, 1000), None);
    }

    #[test]
    #[cfg(not(semring_loom))]
    fn partial_fits_one_position() {
        let at = Position::new(1 << 40 | 0x1238);
        let word = partial_word(at, 7);
        assert_eq!(elements_released(word, at), 7);
        for distance in [8, 64, 4096, 4 << 30, (32 << 30) - 8] {
            assert_eq!(
                elements_released(word, at.advance(distance)),
                0,
                "{distance}"
            );
        }
        // There it would fit by accident; by then it was cleared.
        assert_eq!(elements_released(word, at.advance(32 << 30)), 7);
        assert_eq!(elements_released(0, at), 0);
        assert_eq!(elements_released(0, Position::new(0)), 0);
    }

    proptest! {
        #[test]
        fn any_two_words_are_refused_or_stay_inside(
            header: u64, word: u64, slot in 0u64..512, length in 0u64..1100, stride in 0u32..70, count in 0u32..70, plausible: bool,
        ) {
            let (header, word) = if plausible {
                let length = if length < 550 { u64::from(stride) * u64::from(count) } else { length };
                (MARKER << MARKER_SHIFT | header & 0x00ff_ffff_0000_0000 | length, array_word(stride, count))
            } else {
                (header & !(0xff << MARKER_SHIFT) | MARKER << MARKER_SHIFT, word)
            };
            let at = Position::new(slot * 8);
            if let Ok(array) = array(header, word, slot * 8) {
                let stride = u64::from(array.element_header().payload());
                prop_assert!(array.count() >= 1 && stride >= 1);
                prop_assert!(u64::from(array.count()) * stride <= CAPACITY.max_message());
                let first = array.element_position(at, 0).get();
                let last = array.element_position(at, array.count() - 1).get();
                prop_assert!(slot * 8 < first && first <= last);
                prop_assert!(last + 8 + stride <= slot * 8 + array.bytes());
                prop_assert!(slot * 8 + array.bytes() <= 4096);
            }
        }
    }
}
