//! `semring-producer` as it is: what the bench `figures` measures beside `cat`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_cli::producer::main()
}
