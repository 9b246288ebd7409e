//! The type parameter for the number of producers of a ring.

use crate::layout::superblock::RingKind;

mod sealed {
    pub trait Sealed {}
}

/// Whether a ring has one producer or many, as a type parameter: [`Spsc`], [`Mpsc`] or [`Any`].
pub trait Kind: sealed::Sealed + 'static {
    /// Which kind a new ring with this many lanes gets.
    #[doc(hidden)]
    fn of_lanes(lanes: usize) -> RingKind;
    /// Whether a ring of this kind may be opened.
    #[doc(hidden)]
    fn accepts(kind: RingKind) -> bool;
    /// Default number of lanes of a new ring.
    #[doc(hidden)]
    const DEFAULT_LANES: usize;
}

/// Marks rings with one producer: see [`spsc`](crate::spsc).
#[derive(Clone, Copy, Debug)]
pub enum Spsc {}

/// Marks rings with many producers: see [`mpsc`](crate::mpsc).
#[derive(Clone, Copy, Debug)]
pub enum Mpsc {}

/// Marks rings with any number of producers, for tools: see [`any`](crate::any).
///
/// A new ring is SPSC if it has one lane.
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
