//! `semring-producer` unchanged: the bench `figures` compares it with `cat`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_cli::producer::main()
}
