//! Public enums that will get more variants: a `match` outside of this crate needs an arm for those. Each pair of
//! examples differs in that only.
//!
//! ```
//! fn name(kind: semring::RingKind) -> &'static str {
//!     match kind {
//!         semring::RingKind::Spsc => "one producer",
//!         semring::RingKind::Mpsc => "many producers",
//!         _ => "another kind",
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0004
//! fn name(kind: semring::RingKind) -> &'static str {
//!     match kind {
//!         semring::RingKind::Spsc => "one producer",
//!         semring::RingKind::Mpsc => "many producers",
//!     }
//! }
//! ```
//!
//! ```
//! fn name(kind: semring::GuardKind) -> &'static str {
//!     match kind {
//!         semring::GuardKind::Semaphore => "semaphores",
//!         semring::GuardKind::Pipe => "pipes",
//!         _ => "another guard",
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0004
//! fn name(kind: semring::GuardKind) -> &'static str {
//!     match kind {
//!         semring::GuardKind::Semaphore => "semaphores",
//!         semring::GuardKind::Pipe => "pipes",
//!     }
//! }
//! ```
//!
//! ```
//! fn name(choice: semring::GuardChoice) -> &'static str {
//!     match choice {
//!         semring::GuardChoice::Auto => "any",
//!         semring::GuardChoice::Semaphore => "semaphores",
//!         semring::GuardChoice::Pipe => "pipes",
//!         _ => "another guard",
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0004
//! fn name(choice: semring::GuardChoice) -> &'static str {
//!     match choice {
//!         semring::GuardChoice::Auto => "any",
//!         semring::GuardChoice::Semaphore => "semaphores",
//!         semring::GuardChoice::Pipe => "pipes",
//!     }
//! }
//! ```
