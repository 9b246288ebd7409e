//! Reports of a run: tables for a terminal, and a page.

mod escape;
mod frame;
mod page;
mod picture;
mod table;
mod text;

pub use page::html;
pub use text::text;
