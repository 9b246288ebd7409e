//! From bytes to typed references: the only files of this layer with `unsafe`. [`RingView`] and [`LaneView`]
//! have two implementations with one interface: over mapped memory, and over loom's cells for models.
#![allow(unsafe_code)]

#[cfg(semring_loom)]
mod model;
mod plain;
#[cfg(not(semring_loom))]
mod real;

pub(crate) use plain::Plain;

#[cfg(semring_loom)]
pub(crate) use model::{LaneView, RingView};
#[cfg(not(semring_loom))]
pub(crate) use real::{LaneView, RingView};
