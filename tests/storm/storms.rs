//! The storm over each backend and over small and large lanes. The actions are those of the program
//! tests/support/storm.rs, which is also examples/audit.rs.

use crate::fixture::setting;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::watchdog::Watchdog;
use std::time::Duration;

/// Kills of all storms together.
const KILLS: u64 = 20_400;
const STORMS: u64 = 6;

/// Runs a storm of these options and holds that it found nothing.
fn storm(what: &str, options: &[&str]) {
    let kills = setting("SEMRING_KILLS", KILLS).div_ceil(STORMS);
    // The program itself ends when nothing moves for a minute, and reports what hangs.
    let patience = Duration::from_secs(600 + kills);
    let _watchdog = Watchdog::new(patience, what);
    let kills_text = kills.to_string();
    let mut arguments = vec!["--kills", &kills_text, "--progress", "60"];
    let seed = std::env::var("SEMRING_SEED").ok();
    arguments.extend(seed.iter().flat_map(|seed| ["--seed", seed]));
    arguments.extend(options);
    let (exit, output) = Peer::start(env!("CARGO_BIN_EXE_storm"), arguments).finish();
    let output = String::from_utf8_lossy(&output);
    println!("{what}\n{output}");
    assert_eq!(exit, Exit::Code(0), "{what} found something:\n{output}");
    let figure = |name: &str| -> u64 {
        let row = output.lines().find_map(|line| line.strip_prefix(name));
        let row = row.unwrap_or_else(|| panic!("the storm prints its {name}"));
        row.trim().parse().expect("a figure")
    };
    // It was a storm, and it was over a ring that was in use.
    assert!(figure("kills") >= kills);
    assert!(figure("received") >= kills);
    assert!(figure("stops") * 50 >= kills && figure("broken pipes") * 50 >= kills);
    for finding in ["lost", "torn", "reordered", "duplicated", "unexpected"] {
        assert_eq!(figure(finding), 0, "{finding}");
    }
    assert_eq!(figure("leaked objects"), 0);
}

#[test]
fn posix_rings_with_small_lanes_lose_nothing() {
    storm(
        "posix, 4 KiB",
        &["--backend", "posix", "--capacity", "4096"],
    );
}

#[test]
fn posix_rings_with_large_lanes_lose_nothing() {
    storm(
        "posix, 64 KiB",
        &["--backend", "posix", "--capacity", "65536"],
    );
}

#[test]
fn sysv_rings_with_small_lanes_lose_nothing() {
    storm("sysv, 4 KiB", &["--backend", "sysv", "--capacity", "4096"]);
}

#[test]
fn sysv_rings_with_large_lanes_lose_nothing() {
    storm(
        "sysv, 64 KiB",
        &["--backend", "sysv", "--capacity", "65536"],
    );
}

#[test]
fn messages_up_to_64_kib_lose_nothing() {
    storm("256 KiB", &["--capacity", "262144"]);
}

/// One lane and one producer: all killed processes use the same words.
#[test]
fn one_lane_loses_nothing() {
    storm("one lane", &["--producers", "1", "--lanes", "1"]);
}
