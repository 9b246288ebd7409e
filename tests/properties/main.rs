//! Properties for all sequences of operations: random operations compared with a plain queue
//! (`model`), and any bytes at all in the segment (`corruption`).

mod corruption;
mod model;
#[path = "../support/rings.rs"]
mod rings;
mod superblock;
