//! The record: one header word, then the payload, rounded up to eight bytes.
//!
//! ```text
//!  63      56 55 54  52 51    48 47            32 31 30                              0
//! ┌──────────┬──┬──────┬────────┬────────────────┬──┬────────────────────────────────┐
//! │ 0xA5     │T │ gap  │ framing│ kind           │P │ payload length in bytes        │
//! └──────────┴──┴──────┴────────┴────────────────┴──┴────────────────────────────────┘
//! ```
//! The word `0` means *not published yet*. `P` marks padding: it fills the bytes up to the end of the data area, so
//! that no record crosses the end. `gap` is the number of unused words between the header and the payload; if `T`
//! is set, one more unused word follows the payload. The kind belongs to the application; the [`Framing`] records
//! how the payload was cut from a stream.

use super::array::{self, ArrayHeader};
use super::position::{Capacity, Position};

/// Bytes of a header word.
pub(crate) const HEADER_BYTES: u64 = 8;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: u64 = 8;
/// Bytes of a cache line. Data areas begin at one, and a capacity is a multiple of it.
pub(crate) const LINE: u64 = 64;

pub(super) const MARKER: u64 = 0xA5;
pub(super) const MARKER_SHIFT: u32 = 56;
const FRAMING_SHIFT: u32 = 48;
const FRAMING_MASK: u8 = 0x0F;
const KIND_SHIFT: u32 = 32;
pub(super) const PAD_BIT: u64 = 1 << 31;
pub(super) const LENGTH_MASK: u64 = PAD_BIT - 1;
pub(super) const GAP_SHIFT: u32 = 52;
pub(super) const GAP_MASK: u64 = 0b111;
const TRAIL_SHIFT: u32 = 55;
const TRAIL_BIT: u64 = 1 << TRAIL_SHIFT;

/// Properties of a message beside its bytes: set by the producer, returned by the consumer.
///
/// ```
/// use semring::{Framing, Tag};
/// let tag = Tag::new(7).with_framing(Framing::Line);
/// assert_eq!((tag.kind, tag.framing), (7, Framing::Line));
/// assert_eq!(Tag::default(), Tag::new(0).with_framing(Framing::Plain));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Tag {
    /// A number that the application chooses, for instance a message type. semring never reads it.
    pub kind: u16,
    /// How the message was cut from a byte stream. The library only carries it; programs that turn byte streams
    /// into messages, and messages into byte streams, use it.
    pub framing: Framing,
}

impl Tag {
    /// The tag of a plain message of this kind.
    #[must_use]
    pub const fn new(kind: u16) -> Self {
        Self {
            kind,
            framing: Framing::Plain,
        }
    }

    /// The same tag with a framing.
    #[must_use]
    pub const fn with_framing(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Its bits of a header word.
    #[inline(always)]
    pub(super) const fn bits(self) -> u64 {
        (self.framing.code() as u64) << FRAMING_SHIFT | (self.kind as u64) << KIND_SHIFT
    }
}

/// The bits of a header word in which the tag is.
const TAG_BITS: u64 = (FRAMING_MASK as u64) << FRAMING_SHIFT | 0xffff << KIND_SHIFT;

/// The framings of which each has its bit set here are those of parts.
const PARTS: u64 = {
    let (mut parts, mut code) = (0, 0);
    while code <= FRAMING_MASK {
        parts |= (Framing::from_code(code).continues() as u64) << code;
        code += 1;
    }
    parts
};

/// Whether a header word is that of a part.
#[inline(always)]
pub(super) const fn is_part(header: u64) -> bool {
    (PARTS >> (header >> FRAMING_SHIFT & FRAMING_MASK as u64)) & 1 == 1
}

/// The tag in a header word.
#[inline(always)]
const fn tag_of(header: u64) -> Tag {
    Tag {
        kind: (header >> KIND_SHIFT) as u16,
        framing: Framing::from_code((header >> FRAMING_SHIFT) as u8 & FRAMING_MASK),
    }
}

/// How a message was cut out of a byte stream, so that its reader can put the stream together again.
///
/// Stored with each message; [`Plain`](Self::Plain) is what [`send`](crate::Producer::send) stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum Framing {
    /// A message of its own: it was not cut out of a stream.
    #[default]
    Plain = 0,
    /// A line; the newline that ended it is not part of the message.
    Line = 1,
    /// The last line of an input, which had no newline at its end.
    LineWithoutEnd = 2,
    /// Part of a line: the next message of the same lane goes on with it.
    LinePart = 3,
    /// Bytes that were terminated by a NUL; the NUL is not part of the message.
    Nul = 4,
    /// The last bytes of an input in which NULs separate messages, without a NUL at their end.
    NulWithoutEnd = 5,
    /// Part of bytes that will be terminated by a NUL: the next message of the same lane continues
    /// it.
    NulPart = 6,
    /// A message that was preceded by its length; the length is not part of the message.
    LengthPrefixed = 7,
    /// A piece of a stream without boundaries, cut anywhere.
    Raw = 8,
    /// A record of a stream whose records all have the same length.
    Fixed = 9,
    /// A framing that this version does not support: a newer producer wrote it.
    ///
    /// (Or the bytes are not a producer's, as everywhere in a ring.) A message that is sent with it is stored as
    /// unknown, without the original number.
    Unknown = 15,
}

impl Framing {
    /// Decodes four bits of a header. They are input: each of the sixteen values has a meaning.
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Plain,
            1 => Self::Line,
            2 => Self::LineWithoutEnd,
            3 => Self::LinePart,
            4 => Self::Nul,
            5 => Self::NulWithoutEnd,
            6 => Self::NulPart,
            7 => Self::LengthPrefixed,
            8 => Self::Raw,
            9 => Self::Fixed,
            _ => Self::Unknown,
        }
    }

    const fn code(self) -> u8 {
        self as u8
    }

    /// True for a part of a line or of other terminated bytes: the next message of the same lane continues it.
    #[must_use]
    pub const fn continues(self) -> bool {
        matches!(self, Self::LinePart | Self::NulPart)
    }
}

impl std::fmt::Display for Framing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Line => "line",
            Self::LineWithoutEnd => "line without end",
            Self::LinePart => "part of a line",
            Self::Nul => "NUL-ended",
            Self::NulWithoutEnd => "NUL-ended without end",
            Self::NulPart => "part of NUL-terminated bytes",
            Self::LengthPrefixed => "length-prefixed",
            Self::Raw => "raw",
            Self::Fixed => "fixed",
            Self::Unknown => "unknown",
        })
    }
}

const _: () = {
    let mut code = 0;
    while code <= FRAMING_MASK {
        let framing = Framing::from_code(code);
        assert!(framing.code() == code || matches!(framing, Framing::Unknown));
        code += 1;
    }
};

/// The header word of a record that is not published.
pub(crate) const UNPUBLISHED: u64 = 0;

/// Bytes from the beginning of a record at `position` to the first cache line after its header: an
/// aligned payload begins there, others right after the header. 8 to 64.
#[inline(always)]
pub(crate) const fn lead_to_line(position: Position) -> u64 {
    LINE - position.get() % LINE
}

/// Bytes up to the end of a payload, rounded up.
#[inline(always)]
pub(super) const fn content_bytes(lead: u64, payload: u64) -> u64 {
    (lead + payload + (RECORD_ALIGN - 1)) & !(RECORD_ALIGN - 1)
}

/// Whether a producer leaves a word unused after the payload: it does so if the record then consists of whole
/// lines, so that other records of this size begin at a line, too. Not if the payload begins at a line anyway: the
/// padding before the longest message would then exceed the longest record.
#[inline(always)]
const fn has_trail(lead: u64, payload: u64) -> bool {
    lead == HEADER_BYTES && content_bytes(lead, payload) % LINE == LINE - RECORD_ALIGN
}

/// Bytes of a record: payload offset, payload, rounded up, and for some records one word more.
#[inline(always)]
pub(crate) const fn record_bytes(lead: u64, payload: u64) -> u64 {
    content_bytes(lead, payload)
        + if has_trail(lead, payload) {
            RECORD_ALIGN
        } else {
            0
        }
}

/// The limit for the single comparison of the fast path: a message of fewer bytes than this at `position` takes
/// no more than `free` bytes, does not cross the end of the data area, and is not longer than messages may be.
/// The same holds at a position n bytes further on for messages shorter than the limit minus n.
pub(crate) fn shorter_fit(position: Position, capacity: Capacity, free: u64) -> u64 {
    let stretch = free.min(capacity.bytes_to_end(position)) & !(RECORD_ALIGN - 1);
    // With the longest payload offset, and an unused word at the end. The lanes of models are too short for that,
    // and the fast path must be taken there, too: their messages have neither.
    let most = if cfg!(semring_loom) {
        HEADER_BYTES
    } else {
        LINE + RECORD_ALIGN
    };
    let fits = stretch.saturating_sub(most - 1);
    fits.min(capacity.max_message() + 1)
}

/// The header word of a message.
#[inline]
pub(crate) const fn message_header(lead: u64, payload: u32, tag: Tag) -> u64 {
    MARKER << MARKER_SHIFT
        | (lead - HEADER_BYTES) << (GAP_SHIFT - 3)
        | (has_trail(lead, payload as u64) as u64) << TRAIL_SHIFT
        | tag.bits()
        | payload as u64
}

/// The header word of padding of `bytes` bytes, its header included.
#[inline]
pub(crate) const fn pad_header(bytes: u64) -> u64 {
    MARKER << MARKER_SHIFT | PAD_BIT | (bytes - HEADER_BYTES)
}

/// The word that ends what a part began, if the part's producer is gone: a record of 8 bytes.
pub(crate) const CUT: u64 = 0xA8 << MARKER_SHIFT;
/// Bytes that it takes.
pub(crate) const CUT_BYTES: u64 = HEADER_BYTES;

/// Whether a header word made by this process is that of padding.
#[inline(always)]
pub(crate) const fn is_pad(header: u64) -> bool {
    header & PAD_BIT != 0
}

/// The header word of a message, checked, and kept as one word. If it were split into fields, they would be
/// stored in memory as several words and loaded as one, which a CPU can't forward from its store buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageHeader(u64);

impl MessageHeader {
    /// `None` if the word is anything but a message of fewer than `below` bytes (at most 2^31), and always if
    /// `below` is not above 0. For callers that know that the record of such a message fits here.
    #[inline(always)]
    pub(crate) const fn decode_short(word: u64, below: i64) -> Option<Self> {
        debug_assert!(below <= PAD_BIT.cast_signed());
        // The length together with the padding bit above it: with the bit set it is too long.
        if word as u32 as i64 >= below {
            // Keeps the two conditions apart: as one, they are computed as two bytes, which takes four instructions more.
            std::hint::black_box(());
            return None;
        }
        if (word >> MARKER_SHIFT) as u8 == MARKER as u8 {
            Some(Self(word))
        } else {
            None
        }
    }

    /// Bytes of payload.
    #[inline(always)]
    pub(crate) const fn payload(self) -> u32 {
        (self.0 & LENGTH_MASK) as u32
    }

    #[inline(always)]
    pub(crate) const fn tag(self) -> Tag {
        tag_of(self.0)
    }

    /// The header of an element of an array, as if it were a message of its own whose bytes follow it.
    #[inline(always)]
    pub(super) const fn of_element(array_header: u64, payload: u32) -> Self {
        Self(MARKER << MARKER_SHIFT | array_header & TAG_BITS | payload as u64)
    }

    /// Bytes from the beginning of the record to its payload.
    #[inline(always)]
    pub(crate) const fn lead(self) -> u64 {
        HEADER_BYTES + (self.0 >> GAP_SHIFT & GAP_MASK) * HEADER_BYTES
    }

    /// Bytes that the record takes in the lane.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u64 {
        // `content_bytes(lead, payload)`, where the lead is a multiple of the alignment: what is rounded fits 32 bits.
        const ROUND_UP: u32 = (HEADER_BYTES + RECORD_ALIGN - 1) as u32;
        let trail = (self.0 & TRAIL_BIT) >> (TRAIL_SHIFT - 3);
        let gap = self.0 >> (GAP_SHIFT - 3) & GAP_MASK << 3;
        let rounded = (self.payload() + ROUND_UP) & !(RECORD_ALIGN as u32 - 1);
        gap + trail + rounded as u64
    }
}

/// Bytes that a header word leaves unused after its payload.
#[inline(always)]
pub(super) const fn trail_of(header: u64) -> u64 {
    (header & TRAIL_BIT) >> (TRAIL_SHIFT - 3)
}

/// A decoded header word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// Nothing is published here yet.
    Unpublished,
    Message(MessageHeader),
    /// Many messages of one size; the caller reads the word behind the header.
    Array(ArrayHeader),
    /// Unused bytes up to the end of the data area.
    Pad {
        bytes: u64,
    },
    /// The part before it is not continued.
    Cut,
}

/// A header word that no producer of this format writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadHeader;

/// Decodes a header word found at `position`. The word is input: every field is checked, and the
/// caller must have read it exactly once.
#[inline]
pub(crate) fn decode(
    word: u64,
    position: Position,
    capacity: Capacity,
) -> Result<Record, BadHeader> {
    if word == UNPUBLISHED {
        return Ok(Record::Unpublished);
    }
    if word == CUT {
        return Ok(Record::Cut);
    }
    let payload = word & LENGTH_MASK;
    let to_end = capacity.bytes_to_end(position);
    if word >> MARKER_SHIFT == array::MARKER {
        return ArrayHeader::decode(word, to_end, capacity).map(Record::Array);
    }
    if word >> MARKER_SHIFT != MARKER || payload > capacity.max_message() {
        return Err(BadHeader);
    }
    if word & PAD_BIT != 0 {
        // At offset 0 this can't hold: the whole lane is longer than a quarter of it. So padding is
        // never followed by padding, and a walk over padding ends.
        return if word == pad_header(to_end) {
            Ok(Record::Pad { bytes: to_end })
        } else {
            Err(BadHeader)
        };
    }
    let header = MessageHeader(word);
    if header.bytes() > to_end {
        return Err(BadHeader);
    }
    Ok(Record::Message(header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: Capacity = Capacity::exact(4096).unwrap();

    fn message(word: u64, position: Position) -> Option<MessageHeader> {
        match decode(word, position, CAPACITY) {
            Ok(Record::Message(header)) => Some(header),
            _ => None,
        }
    }

    #[test]
    fn a_message_header_comes_back_as_it_was_written() {
        let tag = Tag::new(0xBEEF).with_framing(Framing::Fixed);
        let word = message_header(8, 1024, tag);
        let header = message(word, Position::new(0)).unwrap();
        assert_eq!((header.payload(), header.tag()), (1024, tag));
        assert_eq!(header.bytes(), 1032);
    }

    #[test]
    fn each_framing_comes_back_and_others_are_unknown() {
        for code in 0..16u8 {
            let plain = message_header(8, 5, Tag::new(3));
            let word = plain | u64::from(code) << FRAMING_SHIFT;
            let header = message(word, Position::new(0)).unwrap();
            let tag = header.tag();
            assert_eq!((tag.kind, header.payload()), (3, 5));
            if code < 10 {
                assert_eq!(message_header(8, 5, tag), word, "{code}");
            } else {
                assert_eq!(tag.framing, Framing::Unknown, "{code}");
            }
        }
        assert!(Framing::LinePart.continues() && Framing::NulPart.continues());
        assert!(!Framing::LineWithoutEnd.continues() && !Framing::Unknown.continues());
    }

    #[test]
    fn other_markers_are_refused_unless_they_are_a_cut() {
        let position = Position::new(8);
        assert_eq!(decode(CUT, position, CAPACITY), Ok(Record::Cut));
        assert_eq!(MessageHeader::decode_short(CUT, 1024), None);
        for bit in 0..56 {
            assert_eq!(decode(CUT | 1 << bit, position, CAPACITY), Err(BadHeader));
        }
        let plain = message_header(8, 64, Tag::default());
        for marker in (0..=0xff).filter(|&marker| marker != MARKER && marker != array::MARKER) {
            let word = plain & !(0xff << MARKER_SHIFT) | marker << MARKER_SHIFT;
            assert_eq!(
                decode(word, position, CAPACITY),
                Err(BadHeader),
                "{marker:#x}"
            );
        }
    }

    #[test]
    fn a_pad_with_a_framing_is_refused() {
        for code in 1..16 {
            let word = pad_header(96) | code << FRAMING_SHIFT;
            assert_eq!(decode(word, Position::new(4000), CAPACITY), Err(BadHeader));
        }
    }

    #[test]
    fn a_pad_must_reach_exactly_to_the_end() {
        let word = pad_header(96);
        assert_eq!(
            decode(word, Position::new(4000), CAPACITY),
            Ok(Record::Pad { bytes: 96 })
        );
        assert_eq!(decode(word, Position::new(3992), CAPACITY), Err(BadHeader));
        assert_eq!(decode(word, Position::new(4096), CAPACITY), Err(BadHeader));
    }

    #[test]
    fn a_record_may_not_cross_the_end_or_exceed_a_quarter() {
        assert_eq!(
            decode(
                message_header(8, 1025, Tag::default()),
                Position::new(0),
                CAPACITY
            ),
            Err(BadHeader)
        );
        assert_eq!(
            decode(
                message_header(8, 96, Tag::default()),
                Position::new(4000),
                CAPACITY
            ),
            Err(BadHeader)
        );
        assert!(
            decode(
                message_header(8, 88, Tag::default()),
                Position::new(4000),
                CAPACITY
            )
            .is_ok()
        );
    }

    #[test]
    fn a_payload_may_begin_at_the_next_line() {
        for (at, lead) in [(0, 64), (8, 56), (48, 16), (56, 8), (64, 64), (4032, 64)] {
            assert_eq!(lead_to_line(Position::new(at)), lead);
            let word = message_header(lead, 96, Tag::default());
            // Up to the end exactly, and one word less.
            let last = Position::new(4096 - lead - 96);
            let header = message(word, last).unwrap();
            assert_eq!((header.lead(), header.bytes()), (lead, lead + 96));
            assert_eq!((header.payload(), header.tag()), (96, Tag::default()));
            let beyond = last.advance(8);
            assert_eq!(decode(word, beyond, CAPACITY), Err(BadHeader));
        }
    }

    proptest! {
        #[test]
        fn what_is_shorter_fits(
            slot in 0u64..512, free in 0u64..5000, taken in 0u64..512, gap in 0u64..8, trail in prop_oneof![Just(0u64), Just(8)],
            less in prop_oneof![1u64..64, 1u64..2000],
        ) {
            let fit = shorter_fit(Position::new(slot * 8), CAPACITY, free);
            if let Some(below) = fit.checked_sub(taken * 8) && let Some(payload) = below.checked_sub(less) {
                let bytes = content_bytes(8 + gap * 8, payload) + trail;
                prop_assert!(taken * 8 + bytes <= free);
                prop_assert!(bytes <= CAPACITY.bytes_to_end(Position::new(slot * 8)) - taken * 8);
                prop_assert!(payload <= CAPACITY.max_message());
            }
        }

        #[test]
        fn any_word_at_any_place_is_refused_or_stays_inside(word: u64, slot in 0u64..512) {
            let position = Position::new(slot * 8);
            match decode(word, position, CAPACITY) {
                Ok(Record::Message(header)) => {
                    prop_assert!(u64::from(header.payload()) <= CAPACITY.max_message());
                    prop_assert!(header.lead() + u64::from(header.payload()) <= header.bytes());
                    prop_assert!(slot * 8 + header.bytes() <= 4096);
                }
                Ok(Record::Pad { bytes }) => prop_assert_eq!(slot * 8 + bytes, 4096),
                Ok(Record::Unpublished) => prop_assert_eq!(word, 0),
                Ok(Record::Cut) => prop_assert_eq!(word, CUT),
                Ok(Record::Array(header)) => {
                    prop_assert!(slot * 8 + header.bytes() <= 4096);
                }
                Err(BadHeader) => {}
            }
        }
    }
}
