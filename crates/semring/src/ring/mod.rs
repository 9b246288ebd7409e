//! The algorithms: a producer's lane, and the consumer's merge over lanes. Atomics only: no system
//! calls, no clock, no check for live processes.
//!
//! ```text
//!            released          read              committed   tail
//!               │               │                    │        │
//!  ─────────────┼───────────────┼────────────────────┼────────┼───────── positions →
//!   overwritable│ taken, not yet│     published      │ at most│ reserved: not visible
//!               │ released      │                    │ a batch│
//! ```
//!
//! # Invariants
//! * **I1** The header word at the producer's tail is 0, or is the single store that publishes. It
//!   was cleared before the record that precedes it was published.
//! * **I2** `tail + 8 − released ≤ capacity`: the word after the last record is free as well, so I1
//!   never touches bytes that the consumer still reads.
//! * **I3** Walking from `committed` over published headers ends at the tail, within a capacity.
//! * **I4** `released` never passes the end of the published records, and never shrinks.
//! * **I5** A record never crosses the end of the data area; padding fills the rest.
//!
//! # Edges
//! | edge | Release | Acquire | a weaker one lets … |
//! |---|---|---|---|
//! | E1 | the header store that publishes | the consumer's header load | the consumer read stale payload, or an old header after this record as a message |
//! | E2 | the consumer's store of `released` | the producer's load of `released` | the producer overwrite bytes that are still being read |
//! | E3 | the store of `committed` after the header's | a successor's load of `committed` | a killed producer leave `committed` ahead of the headers: a hole in the lane |
//!
//! The fourth pair, the wait words, belongs to the wake-up protocol (`guard`).
//!
//! # A kill between any two lines
//! In [`produce`], each step of publishing has a comment about the state that a successor then finds.
//! The stores of a killed process are those of a prefix of its instructions; the compiler keeps their
//! order where it matters because the later store is a Release.

#[cfg(all(test, not(semring_loom)))]
mod array_tests;
pub(crate) mod arrays;
pub(crate) mod consume;
#[cfg(all(test, not(semring_loom)))]
mod damage_tests;
mod fast_path;
#[cfg(all(test, not(semring_loom)))]
mod fast_path_tests;
#[cfg(all(test, not(semring_loom)))]
mod lane_tests;
pub(crate) mod merge;
#[cfg(all(test, not(semring_loom)))]
mod merge_tests;
#[cfg(test)]
mod model_tests;
pub(crate) mod produce;

/// Bytes in a lane that no participant of this format can have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// Their position in the lane.
    pub(crate) position: crate::layout::Position,
}
