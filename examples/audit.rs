//! Eight producers and a consumer are killed and stopped at random moments, hundreds of thousands of
//! times, and started again; every message is accounted for.
//!
//! ```sh
//! cargo run --release --example audit -- --kills 300000
//! cargo run --release --example audit -- --help
//! ```
//! At the end it prints its actions and findings, and its exit code is 1 if a message was lost,
//! damaged, out of order, twice in the ring or unexpected, or an object was left.

#[path = "../tests/support/storm/mod.rs"]
mod storm;

fn main() -> std::process::ExitCode {
    storm::main()
}
