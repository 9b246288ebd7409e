//! `semring`: see `semring --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_cli::admin::main()
}
