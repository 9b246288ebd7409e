//! `semring doctor`, in surroundings that are made for it.

use serde_json::Value;

use crate::support::alone::{alone, alone_with, test_name};
use crate::support::{Call, DONE, FAILED, Output, PRODUCER, SEMRING, one_object, over_pipes};
use semring_testkit::needs_root;

fn doctor(args: &[&str]) -> Output {
    Call::new(SEMRING, None).args(&["doctor"]).args(args).run()
}

fn create(options: &[&str], address: &str) -> Output {
    let call = Call::new(SEMRING, None).args(&["create"]).args(options);
    call.args(&[address]).run()
}

fn checks(output: &Output) -> Vec<Value> {
    output.text().lines().map(one_object).collect()
}

/// State, finding and fix of one check.
fn check(output: &Output, name: &str) -> [String; 3] {
    let checks = checks(output);
    let found = checks.iter().find(|check| check["check"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name:?} in {checks:?}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    ["state", "finding", "fix"].map(text)
}

#[test]
fn in_good_order_all_is_well() {
    alone(test_name!(in_good_order_all_is_well), || {
        let output = doctor(&["--json"]).quietly(DONE);
        for check in checks(&output) {
            let fields: Vec<&String> = check.as_object().expect("an object").keys().collect();
            assert_eq!(fields, ["check", "finding", "fix", "state"]);
            assert_ne!(check["state"], "problem", "{check}");
            assert_eq!(check["fix"].is_null(), check["state"] == "ok", "{check}");
        }
        assert_eq!(check(&output, "trial posix:")[0], "ok");
        assert_eq!(check(&output, "trial sysv:")[0], "ok");
        assert_eq!(check(&output, "leftovers")[1], "none");
        assert!(check(&output, "namespaces")[1].contains("its own"));
        let text = doctor(&[]).quietly(DONE).text();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    });
}

#[test]
fn leftovers_are_a_warning_with_their_fix() {
    alone(test_name!(leftovers_are_a_warning_with_their_fix), || {
        let producer = |name: &str| Call::new(PRODUCER, None).args(&["-q", name]);
        producer("left").input("1\n").run().quietly(DONE);
        producer("gone").run().quietly(DONE);
        std::fs::remove_file("/dev/shm/gone").expect("the file of the ring");
        let output = doctor(&["--json"]).quietly(DONE);
        let [state, finding, fix] = check(&output, "leftovers");
        assert_eq!(state, "warning");
        let half = if over_pipes() {
            "directory of pipes"
        } else {
            "semaphore set"
        };
        assert_eq!(finding, format!("1 abandoned ring, 1 {half}"));
        assert!(fix.contains("semring prune") && fix.contains("--discard-unread"));
        let text = doctor(&[]).quietly(DONE).text();
        assert!(text.contains("\nRings work; "), "{text}");
    });
}

/// Limits are root's to set, also in a namespace.
#[track_caller]
fn with_limits(test: &str, tmpfs: &str, set: &str, body: impl FnOnce()) {
    needs_root!("to set limits");
    alone_with(test, tmpfs, set, body);
}

#[test]
fn full_semaphores_lead_to_pipes_with_advice() {
    with_limits(
        test_name!(full_semaphores_lead_to_pipes_with_advice),
        "size=64m",
        "echo 250 32000 100 2 > /proc/sys/kernel/sem",
        || {
            let create = |address| create(&["--guard", "semaphore"], address);
            create("posix:one").quietly(DONE);
            let [state, finding, _] = check(&doctor(&["--json"]).quietly(DONE), "semaphores");
            assert_eq!(state, "warning");
            assert!(finding.contains("48 producers at most"), "{finding}");
            create("sysv:two").quietly(DONE);
            let output = doctor(&["--json"]).quietly(DONE);
            let [state, finding, fix] = check(&output, "semaphores");
            assert_eq!(state, "warning");
            assert!(finding.starts_with("2 of 2 sets"), "{finding}");
            assert!(finding.contains("which gets pipes"), "{finding}");
            assert!(fix.contains("sysctl -w kernel.sem=\"32000 1024000000 500 32000\""));
            for name in ["trial posix:", "trial sysv:"] {
                let [state, finding, _] = check(&output, name);
                assert_eq!(state, "ok");
                if !over_pipes() {
                    assert!(
                        finding.contains("with pipes") && finding.contains("kernel.sem"),
                        "{finding}"
                    );
                }
            }
            let refused = create("posix:three").ended(FAILED).stderr;
            assert!(refused.contains("SEMMNI) is 2: raise it"), "{refused}");
            assert!(
                doctor(&[])
                    .quietly(DONE)
                    .text()
                    .contains("warning  semaphores")
            );
        },
    );
}

#[test]
fn sets_that_are_too_small_are_reported() {
    with_limits(
        test_name!(sets_that_are_too_small_are_reported),
        "size=64m",
        "echo 20 32000 500 100 > /proc/sys/kernel/sem",
        || {
            let [state, finding, _] = check(&doctor(&["--json"]).quietly(DONE), "semaphores");
            assert_eq!(state, "warning");
            assert!(finding.contains("6 producers at most"), "{finding}");
            assert!(finding.contains("gets pipes"), "{finding}");
        },
    );
}

#[test]
fn full_shared_memory_is_a_problem_with_its_fix() {
    with_limits(
        test_name!(full_shared_memory_is_a_problem_with_its_fix),
        "size=1m",
        "echo 1 > /proc/sys/kernel/shmmni",
        || {
            create(&[], "sysv:one").quietly(DONE);
            let output = doctor(&["--json"]).ended(FAILED);
            let [state, finding, fix] = check(&output, "sysv memory");
            assert_eq!(state, "problem");
            assert!(finding.starts_with("1 of 1 segments"), "{finding}");
            assert!(fix.contains("sysctl -w kernel.shmmni="), "{fix}");
            let [state, finding, fix] = check(&output, "/dev/shm");
            assert_eq!(state, "problem");
            assert!(finding.contains("of 1 MiB in use"), "{finding}");
            assert!(fix.contains("remount,size="), "{fix}");
        },
    );
}

#[test]
fn without_proc_it_claims_nothing_that_is_not_so() {
    for (test, prepare) in [
        (
            test_name!(without_proc_it_claims_nothing_that_is_not_so),
            "mount -t proc -o subset=pid none /proc",
        ),
        (
            test_name!(without_proc_it_claims_nothing_that_is_not_so),
            "umount -l /proc",
        ),
    ] {
        with_limits(test, "size=64m", prepare, || {
            create(&["--guard", "semaphore"], "sysv:one").quietly(DONE);
            let output = doctor(&["--json"]).quietly(DONE);
            for name in ["kernel", "semaphores", "sysv memory", "locked memory"] {
                let [state, finding, _] = check(&output, name);
                assert_eq!(state, "ok", "{name}: {finding}");
            }
            assert!(check(&output, "semaphores")[1].starts_with("1 of "));
            assert!(check(&output, "kernel")[1].starts_with("Linux "));
            let ls = Call::new(SEMRING, None).args(&["ls"]).run().quietly(DONE);
            assert!(ls.text().contains("sysv:one"), "{}", ls.text());
            let rm = Call::new(SEMRING, None).args(&["rm", "sysv:one"]).run();
            rm.quietly(DONE);
        });
    }
}
