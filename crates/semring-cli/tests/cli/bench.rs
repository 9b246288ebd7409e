//! `semring bench`: every way runs every workload that it can, and no object is left.

use nix::sys::signal::Signal;
use semring_testkit::names;
use semring_testkit::peer::Exit;
use serde_json::Value;

use crate::support::alone::{alone, test_name};
use crate::support::{Call, DONE, SEMRING, USAGE, wait_until};

/// The objects that a run could leave: in this test's own namespaces and folder there are no
/// others.
fn objects() -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["shm", "sem", "msg"] {
        let table = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).expect("a table");
        found.extend(table.lines().skip(1).map(str::to_owned));
    }
    let files = std::fs::read_dir("/dev/shm").expect("a folder");
    found.extend(files.map(|file| file.expect("a file").file_name().to_string_lossy().into()));
    let files = std::fs::read_dir(std::env::temp_dir()).expect("a folder");
    let names = files.map(|file| file.expect("a file").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    found.extend(names.filter(|name| name.starts_with("semring-bench-")));
    found
}

/// A bench that goes on for longer than any test, unless it is ended.
fn endless(way: &str) -> Call<'static> {
    let wake_ups = ["bench", "--peer", way, "--workload", "wake-up"];
    let call = Call::new(SEMRING, None).args(&wake_ups);
    call.args(&["--rounds", "10000"])
}

#[test]
fn every_way_does_what_it_can() {
    alone(test_name!(every_way_does_what_it_can), || {
        let page = std::env::temp_dir().join(names::unique("bench"));
        let path = page.to_str().expect("a path of this test");
        let output = Call::new(SEMRING, None)
            .args(&["bench", "--trial", "--json", "--size", "64,16K"])
            .args(&["--report", path])
            .run()
            .quietly(DONE);
        let lines: Vec<Value> = output
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object a line"))
            .collect();
        let (machine, rows) = lines.split_first().expect("a line for the machine");
        assert!(machine["kernel"].is_string() && machine["cpus"].is_u64());
        // Two sizes one way, round trips, wake-ups, three crowds; thirteen ways.
        assert_eq!(rows.len(), (2 + 1 + 1 + 3) * 13);
        let ring: Vec<&Value> = rows.iter().filter(|row| row["way"] == "semring").collect();
        assert_eq!(ring.len(), 7);
        for row in rows {
            let measured = row["rate"].as_f64().is_some_and(|rate| rate > 0.0)
                || row["latency_ns"][0].as_u64().is_some_and(|ns| ns > 0);
            assert_ne!(measured, row["unavailable"].is_string(), "{row}");
            assert!(measured || row["way"] != "semring", "{row}");
        }
        let html = std::fs::read_to_string(&page).expect("the page");
        std::fs::remove_file(&page).expect("the page");
        assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
        assert_eq!(objects(), Vec::<String>::new());
    });
}

#[test]
fn a_signal_ends_a_run_and_nothing_stays() {
    alone(test_name!(a_signal_ends_a_run_and_nothing_stays), || {
        for way in ["semring", "fifo", "sysv-queue", "shared-semaphore"] {
            let tool = endless(way).start();
            wait_until("something is made", || !objects().is_empty());
            tool.signal(Signal::SIGINT);
            let output = tool.finish();
            output.ended(Exit::Signal(Signal::SIGINT as i32));
            wait_until("all of it is gone", || objects().is_empty());
        }
    });
}

/// Also in the middle of a round, when both processes sleep most of the time: the signal interrupts no call of
/// the measuring process, which would end with an error of its own.
#[test]
fn a_signal_at_any_moment_is_the_end() {
    alone(test_name!(a_signal_at_any_moment_is_the_end), || {
        for moment in 0..12 {
            for way in ["semring", "sysv-queue", "shared-semaphore"] {
                let tool = endless(way).start();
                wait_until("something is made", || !objects().is_empty());
                // Nothing is awaited here: the moments just differ.
                std::thread::sleep(std::time::Duration::from_millis(3 * moment));
                tool.signal(Signal::SIGINT);
                tool.finish().ended(Exit::Signal(Signal::SIGINT as i32));
                wait_until("all of it is gone", || objects().is_empty());
            }
        }
    });
}

#[test]
fn an_ignored_signal_does_not_end_a_run() {
    alone(test_name!(an_ignored_signal_does_not_end_a_run), || {
        let tool = Call::new("sh", None)
            .args(&["-c", "trap '' INT; exec \"$@\"", "sh", SEMRING])
            // Two seconds of it: a signal that comes later finds nothing to end.
            .args(&["bench", "--peer", "fifo", "--workload", "wake-up"])
            .args(&["--rounds", "10"])
            .start();
        wait_until("something is made", || !objects().is_empty());
        tool.signal(Signal::SIGINT);
        tool.finish().quietly(DONE);
        assert_eq!(objects(), Vec::<String>::new());
    });
}

#[test]
fn a_bench_of_each_guard_and_wait_strategy_works() {
    alone(
        test_name!(a_bench_of_each_guard_and_wait_strategy_works),
        || {
            for (guard, wait, backend) in [
                ("pipe", "block", "posix"),
                ("pipe", "adaptive", "sysv"),
                ("semaphore", "yield", "sysv"),
                ("auto", "spin", "posix"),
            ] {
                let output = Call::new(SEMRING, None)
                    .args(&[
                        "bench",
                        "--trial",
                        "--peer",
                        "semring,semring-batch,semring-in-place",
                    ])
                    .args(&["--size", "8,64", "--workload", "one-way,round-trip"])
                    .args(&["--guard", guard, "--wait", wait, "--backend", backend])
                    .run()
                    .quietly(DONE);
                // The environment sets what "auto" means, as in `.ci/run`.
                let meant = std::env::var("SEMRING_GUARD").unwrap_or_else(|_| guard.to_owned());
                let guard = if guard == "auto" { &meant } else { guard };
                let header = format!("rings in {backend}, waiting {wait}, guard {guard}");
                assert!(output.text().contains(&header), "{}", output.text());
                assert_eq!(objects(), Vec::<String>::new());
            }
        },
    );
}

#[test]
fn what_can_not_be_measured_is_refused() {
    let bench = |args: &[&str]| Call::new(SEMRING, None).args(&["bench"]).args(args).run();
    bench(&["--size", "7"]).refused(USAGE, &["multiple of 8"]);
    bench(&["--size", "2M"]).refused(USAGE, &["1M"]);
    bench(&["--peer", "telepathy"]).refused(USAGE, &["the ways are", "pipe"]);
    bench(&["--rounds", "0"]).refused(USAGE, &["rounds"]);
    bench(&["--report", "/nowhere/page.html"]).refused(crate::support::FAILED, &["/nowhere"]);
}
