//! The storm as a program, for tests/storm: a test function can't fork.

#[path = "storm/mod.rs"]
mod storm;

fn main() -> std::process::ExitCode {
    storm::main()
}
