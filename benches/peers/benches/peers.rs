//! Rings, the kernel's own ways, queues of other crates, and the limits of the machine: everything in one
//! run, in interleaved rounds, as in `semring bench`.
//!
//! ```sh
//! cargo bench --bench peers [-- --rounds N] [-- --report FILE]
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use semring_bench::{Options, Result, Way, html, run, text};

fn main() -> ExitCode {
    semring_peers::bench("peers", compare)
}

fn compare(arguments: &[String]) -> Result<()> {
    let mut options = Options {
        ways: Way::all(),
        ..Options::default()
    };
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Under `cargo test --benches`: whether everything works, not how fast.
        (options.rounds, options.round) = (1, Duration::from_millis(2));
    }
    let mut page = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} what?"));
        match argument.as_str() {
            "--bench" => {}
            "--rounds" => options.rounds = value()?.parse()?,
            "--report" => page = Some(value()?),
            other => return Err(format!("{other}: --rounds N, --report FILE").into()),
        }
    }
    let report = run(&options, &mut |progress| {
        let percent = 100 * progress.done / progress.total.max(1);
        eprint!("\r{percent:>3} % {:<60}", progress.what);
    })?;
    eprintln!();
    print!("{}", text(&report));
    if let Some(page) = page {
        std::fs::write(page, html(&report))?;
    }
    Ok(())
}
