//! Code shared by the tests of semring.
//!
//! This crate does not depend on the `semring` crate: a test may run any build of it, in this
//! process or in another one. The few bytes of the ring format that are needed for cleaning up are
//! named in [`objects`].
//!
//! * [`names`]: a name of its own for each test, and a cleanup guard that removes its objects, also
//!   when the test panics.
//! * [`objects`]: shared-memory objects, semaphore sets and queues of the system; before and after.
//! * [`cleanup`]: the semaphores or pipes of a ring.
//! * [`watchdog`]: turns a hang into a failure with a report of what hung.
//! * [`peer`]: second processes: started, talked to, stopped, killed, never left behind.
//! * [`left_out`]: tests that need root, a tool or a kernel feature, and are reported where they
//!   can't run.
//! * [`process`](mod@process): data about a process from `/proc`.
//! * [`message`]: messages that show damage.
//! * [`record`] and [`audit`]: the messages committed compared with the messages that arrived.
//! * [`mod@fork`], [`shared`] and [`ledger`]: the same for thousands of processes that are killed.
//! * [`sandbox`]: programs that are killed for certain system calls.
//! * [`step`]: a process run one instruction at a time.
//!
//! The functions panic where a test could not go on anyway, with the reason; functions whose
//! failure a test may want to handle return a `Result`.
//!
//! ```
//! use std::time::Duration;
//! use semring_testkit::{names::RingGuard, watchdog::Watchdog};
//!
//! let _watchdog = Watchdog::new(Duration::from_secs(60), "the example");
//! let guard = RingGuard::new("example");
//! std::fs::write(format!("/dev/shm/{}", guard.name()), "left behind")?;
//! drop(guard);
//! // … and gone.
//! # Ok::<(), std::io::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod audit;
pub mod cleanup;
pub mod fork;
pub mod ledger;
pub mod message;
pub mod names;
pub mod objects;
pub mod peer;
pub mod process;
pub mod record;
pub mod sandbox;
pub mod shared;
pub mod step;
pub mod watchdog;

pub use tests_left_out as left_out;
pub use tests_left_out::{leave_out, needs_root, needs_tool};
