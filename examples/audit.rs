//! Eight producers and a consumer are killed and stopped at random moments, hundreds of thousands of
//! times, and started again; every message is accounted for.
//!
//! ```sh
//! cargo run --release --example audit -- --kills 300000
//! cargo run --release --example audit -- --help
//! ```
//! At the end it prints what it did and found, and its exit code is 1 if anything was lost, torn, out
//! of order, twice in the ring, unexpected or left behind.

#[path = "../tests/support/storm/mod.rs"]
mod storm;

fn main() -> std::process::ExitCode {
    storm::main()
}
