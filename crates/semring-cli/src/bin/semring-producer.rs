//! `semring-producer`: see `semring-producer --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    semring_cli::producer::main()
}
