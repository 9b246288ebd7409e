//! `semring`, whose `bench` knows the rivals, too.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_peers::add();
    semring_cli::admin::main()
}
