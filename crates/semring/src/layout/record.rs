//! The record: one header word, then the payload, rounded up to eight bytes.
//!
//! ```text
//!  63      56 55    48 47            32 31 30                              0
//! ┌──────────┬────────┬────────────────┬──┬────────────────────────────────┐
//! │ 0xA5     │ flags  │ kind           │P │ payload length in bytes        │
//! └──────────┴────────┴────────────────┴──┴────────────────────────────────┘
//! ```
//! The word `0` means *not published yet*. `P` marks a pad: it fills the bytes up to the end of the
//! data area, so that no record ever wraps. The low four flag bits belong to the application, the
//! high four are reserved and must be zero.

use super::position::{Capacity, Position};

/// Bytes of a header word.
pub(crate) const HEADER_BYTES: u64 = 8;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: u64 = 8;

const MARKER: u64 = 0xA5;
const MARKER_SHIFT: u32 = 56;
const FLAGS_SHIFT: u32 = 48;
const KIND_SHIFT: u32 = 32;
const PAD_BIT: u64 = 1 << 31;
const LENGTH_MASK: u64 = PAD_BIT - 1;
const APPLICATION_FLAGS: u8 = 0x0F;

/// What an application may say about a message beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// A number that the application chooses, for instance a message type. semring never reads it.
    pub kind: u16,
    /// Four bits for the application (bits 0–3). The others must be zero.
    pub flags: u8,
}

impl Meta {
    /// The flag bits that an application may set.
    pub const FLAGS_MASK: u8 = APPLICATION_FLAGS;

    pub(crate) const fn is_valid(self) -> bool {
        self.flags & !APPLICATION_FLAGS == 0
    }
}

/// The header word of a record that is not published.
pub(crate) const UNPUBLISHED: u64 = 0;

/// Bytes that a message of this length takes in a lane.
#[inline]
pub(crate) const fn record_bytes(payload: u64) -> u64 {
    (HEADER_BYTES + payload + (RECORD_ALIGN - 1)) & !(RECORD_ALIGN - 1)
}

/// What one comparison needs: a message of fewer bytes than this, at `position`, neither takes more than `free`
/// bytes nor crosses the end of the data area, and is not longer than messages may be.
pub(crate) fn shorter_fit(position: Position, capacity: Capacity, free: u64) -> u64 {
    let stretch = free
        .min(capacity.bytes_to_end(position))
        .min(capacity.quarter())
        & !(RECORD_ALIGN - 1);
    // A record is its payload and a header, rounded up.
    stretch.saturating_sub(HEADER_BYTES - 1)
}

/// The header word of a message.
#[inline]
pub(crate) const fn message_header(payload: u32, meta: Meta) -> u64 {
    MARKER << MARKER_SHIFT
        | (meta.flags as u64) << FLAGS_SHIFT
        | (meta.kind as u64) << KIND_SHIFT
        | payload as u64
}

/// The header word of a pad that takes `bytes` bytes, its header included.
#[inline]
pub(crate) const fn pad_header(bytes: u64) -> u64 {
    MARKER << MARKER_SHIFT | PAD_BIT | (bytes - HEADER_BYTES)
}

/// The header word of a message, checked and kept whole. Taken apart into its fields, a message found
/// would travel through memory in pieces, which the CPU can't forward to whoever reads them as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageHeader(u64);

impl MessageHeader {
    /// Marker, reserved flags and the pad bit at once.
    const FIXED: u64 =
        (0xFF << MARKER_SHIFT) | ((!APPLICATION_FLAGS as u64) << FLAGS_SHIFT) | PAD_BIT;

    /// `None` if the word is anything but a message of less than so many bytes.
    #[inline(always)]
    pub(crate) const fn check_short(word: u64, below: u64) -> Option<Self> {
        let is_message = word & Self::FIXED == MARKER << MARKER_SHIFT && word & LENGTH_MASK < below;
        if is_message { Some(Self(word)) } else { None }
    }

    /// `None` if the word, found at `position`, is anything but a message.
    #[inline(always)]
    pub(crate) const fn check(word: u64, position: Position, capacity: Capacity) -> Option<Self> {
        let header = Self(word);
        let is_message = word & Self::FIXED == MARKER << MARKER_SHIFT
            && word & LENGTH_MASK <= capacity.max_message()
            && header.bytes() <= capacity.bytes_to_end(position);
        if is_message { Some(header) } else { None }
    }

    /// Bytes of payload.
    #[inline(always)]
    pub(crate) const fn payload(self) -> u32 {
        (self.0 & LENGTH_MASK) as u32
    }

    #[inline(always)]
    pub(crate) const fn meta(self) -> Meta {
        Meta {
            kind: (self.0 >> KIND_SHIFT) as u16,
            flags: (self.0 >> FLAGS_SHIFT) as u8,
        }
    }

    /// Bytes that the record takes in the lane.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u64 {
        record_bytes(self.0 & LENGTH_MASK)
    }
}

/// A header word, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// Nothing is published here yet.
    Unpublished,
    /// A message of `payload` bytes that takes `bytes` bytes in the lane.
    Message {
        payload: u32,
        meta: Meta,
        bytes: u64,
    },
    /// Unused bytes up to the end of the data area.
    Pad { bytes: u64 },
}

/// A header word that no producer of this format writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadHeader;

/// Understands a header word found at `position`. The word is input: every field is checked, and the
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
    let payload = word & LENGTH_MASK;
    let flags = (word >> FLAGS_SHIFT) as u8;
    if word >> MARKER_SHIFT != MARKER
        || flags & !APPLICATION_FLAGS != 0
        || payload > capacity.max_message()
    {
        return Err(BadHeader);
    }
    let to_end = capacity.bytes_to_end(position);
    if word & PAD_BIT != 0 {
        let bytes = HEADER_BYTES + payload;
        // At offset 0 this can't hold: the whole lane is longer than a quarter of it. So two pads
        // never follow each other, and a walk over pads ends.
        return if bytes == to_end && word >> KIND_SHIFT & 0xFF_FFFF == 0 {
            Ok(Record::Pad { bytes })
        } else {
            Err(BadHeader)
        };
    }
    let bytes = record_bytes(payload);
    if bytes > to_end {
        return Err(BadHeader);
    }
    Ok(Record::Message {
        payload: payload as u32,
        meta: Meta {
            kind: (word >> KIND_SHIFT) as u16,
            flags,
        },
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: Capacity = Capacity::exact(4096).unwrap();

    #[test]
    fn a_message_header_comes_back_as_it_was_written() {
        let meta = Meta {
            kind: 0xBEEF,
            flags: 0x0F,
        };
        let word = message_header(1024, meta);
        assert_eq!(
            decode(word, Position::new(0), CAPACITY),
            Ok(Record::Message {
                payload: 1024,
                meta,
                bytes: 1032
            })
        );
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
                message_header(1025, Meta::default()),
                Position::new(0),
                CAPACITY
            ),
            Err(BadHeader)
        );
        assert_eq!(
            decode(
                message_header(96, Meta::default()),
                Position::new(4000),
                CAPACITY
            ),
            Err(BadHeader)
        );
        assert!(
            decode(
                message_header(88, Meta::default()),
                Position::new(4000),
                CAPACITY
            )
            .is_ok()
        );
    }

    proptest! {
        #[test]
        fn any_word_at_any_place_is_refused_or_stays_inside(word: u64, slot in 0u64..512) {
            let position = Position::new(slot * 8);
            match decode(word, position, CAPACITY) {
                Ok(Record::Message { payload, bytes, .. }) => {
                    prop_assert!(u64::from(payload) + 8 <= bytes);
                    prop_assert!(slot * 8 + bytes <= 4096);
                }
                Ok(Record::Pad { bytes }) => prop_assert_eq!(slot * 8 + bytes, 4096),
                Ok(Record::Unpublished) => prop_assert_eq!(word, 0),
                Err(BadHeader) => {}
            }
        }
    }
}
