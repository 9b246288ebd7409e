//! `semring-consumer`: see `semring-consumer --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_cli::consumer::main()
}
