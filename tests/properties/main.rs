//! What must hold whatever happens in whatever order: random operations against a plain queue
//! (`model`), and any bytes at all in the segment (`corruption`).

mod corruption;
mod model;
mod superblock;
