//! `semring`, with a `bench` that includes the queues of other crates.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_peers::add();
    semring_cli::admin::main()
}
