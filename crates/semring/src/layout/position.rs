//! Positions, offsets and capacities: three kinds of number that must not be mixed.

/// Where a message is among those of its lane: the number of bytes written to the lane before it.
///
/// Counted from the creation of the lane. Only grows; never wraps in practice (2^64 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(u64);

impl Position {
    /// The position with this many bytes before it.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes before this position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Records begin at multiples of eight bytes; any other position is an error.
    #[inline]
    pub(crate) const fn is_aligned(self) -> bool {
        self.0.is_multiple_of(super::RECORD_ALIGN)
    }

    /// Whether `other` is not ahead of this position. Unlike a comparison of the numbers this is also
    /// right where hostile positions exceed 2^64.
    #[inline]
    pub(crate) const fn has_reached(self, other: Self) -> bool {
        self.distance_from(other) < 1 << 63
    }

    #[inline]
    pub(crate) const fn advance(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The distance from `other` to `self`, negative if `self` is before `other`. For positions of which one
    /// was computed from the other and both moved by no more than some laps: no hostile value is involved.
    #[inline]
    pub(crate) const fn ahead_of(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// The distance from `earlier` to `self`, modulo 2^64: a hostile value that is before `earlier`
    /// yields a huge distance, which every caller compares with the capacity.
    #[inline]
    pub(crate) const fn distance_from(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A position modulo the capacity: a place in the data area of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offset(u64);

impl Offset {
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Bytes that one lane holds: a power of two between 4 KiB and 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capacity(u64);

impl Capacity {
    pub(crate) const MIN: u64 = 4 << 10;
    pub(crate) const MAX: u64 = 4 << 30;

    /// Accepts exactly a valid capacity, as a superblock must hold it.
    pub(crate) const fn exact(bytes: u64) -> Option<Self> {
        if bytes >= Self::MIN && bytes <= Self::MAX && bytes.is_power_of_two() {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// A capacity below the format's minimum, so that models stay small.
    #[cfg(semring_loom)]
    pub(crate) const fn model(bytes: u64) -> Self {
        assert!(bytes.is_power_of_two() && bytes >= 32);
        Self(bytes)
    }

    /// Rounds the requested capacity up to a power of two; `None` outside 1 byte … 4 GiB.
    pub(crate) const fn round_up(bytes: u64) -> Option<Self> {
        if bytes == 0 || bytes > Self::MAX {
            return None;
        }
        let rounded = bytes.next_power_of_two();
        Self::exact(if rounded < Self::MIN {
            Self::MIN
        } else {
            rounded
        })
    }

    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The longest message: a quarter of the capacity. So there is always room for the next message
    /// after a consumer that releases in quarters has released, and both sides never wait for each
    /// other.
    #[inline]
    pub(crate) const fn max_message(self) -> u64 {
        self.0 / 4
    }

    /// A quarter lap: a consumer takes this much before it stores `released`, and each side moves
    /// this much between two checks of the guard.
    #[inline]
    pub(crate) const fn quarter(self) -> u64 {
        self.0 / 4
    }

    #[inline]
    pub(crate) const fn offset_of(self, position: Position) -> Offset {
        Offset(position.0 & (self.0 - 1))
    }

    /// Bytes from this position to the end of the data area.
    #[inline]
    pub(crate) const fn bytes_to_end(self, position: Position) -> u64 {
        self.0 - self.offset_of(position).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_rounded_up_and_bounded() {
        assert_eq!(Capacity::round_up(0), None);
        assert_eq!(Capacity::round_up(1).unwrap().get(), 4096);
        assert_eq!(Capacity::round_up(4097).unwrap().get(), 8192);
        assert_eq!(Capacity::round_up(4 << 30).unwrap().get(), 4 << 30);
        assert_eq!(Capacity::round_up((4 << 30) + 1), None);
        assert_eq!(Capacity::round_up(1 << 60), None);
        assert_eq!(Capacity::exact(4095), None);
        assert_eq!(Capacity::exact(12288), None);
    }

    #[test]
    fn a_position_that_lies_behind_shows_as_a_huge_distance() {
        let early = Position::new(8);
        let late = Position::new(4096);
        assert_eq!(late.distance_from(early), 4088);
        assert!(early.distance_from(late) > u64::MAX / 2);
    }
}
