//! The type parameter that says how many producers a ring has.

use crate::layout::superblock::RingKind;

mod sealed {
    pub trait Sealed {}
}

/// How many producers a ring has: [`Spsc`], [`Mpsc`], or [`Any`] of them.
pub trait Kind: sealed::Sealed + 'static {
    /// Which kind a new ring with this many lanes gets.
    #[doc(hidden)]
    fn of_lanes(lanes: usize) -> RingKind;
    /// Whether a ring of this kind may be opened.
    #[doc(hidden)]
    fn accepts(kind: RingKind) -> bool;
    /// Lanes of a new ring when nothing is said.
    #[doc(hidden)]
    const DEFAULT_LANES: usize;
}

/// One producer, one consumer.
#[derive(Clone, Copy, Debug)]
pub enum Spsc {}

/// Many producers, one consumer.
#[derive(Clone, Copy, Debug)]
pub enum Mpsc {}

/// Whichever the ring is; a new one is SPSC if it has one lane.
#[derive(Clone, Copy, Debug)]
pub enum Any {}

impl sealed::Sealed for Spsc {}
impl sealed::Sealed for Mpsc {}
impl sealed::Sealed for Any {}

impl Kind for Spsc {
    fn of_lanes(_: usize) -> RingKind {
        RingKind::Spsc
    }
    fn accepts(kind: RingKind) -> bool {
        kind == RingKind::Spsc
    }
    const DEFAULT_LANES: usize = 1;
}

impl Kind for Mpsc {
    fn of_lanes(_: usize) -> RingKind {
        RingKind::Mpsc
    }
    fn accepts(kind: RingKind) -> bool {
        kind == RingKind::Mpsc
    }
    const DEFAULT_LANES: usize = 8;
}

impl Kind for Any {
    fn of_lanes(lanes: usize) -> RingKind {
        if lanes == 1 {
            RingKind::Spsc
        } else {
            RingKind::Mpsc
        }
    }
    fn accepts(_: RingKind) -> bool {
        true
    }
    const DEFAULT_LANES: usize = 8;
}
