//! `semring top`: as JSON, and on a terminal.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::terminal::{LEAVE_SCREEN, OnTerminal, assert_restored};
use crate::support::{
    BROKEN_PIPE, Call, DONE, Ring, SEMRING, Tool, USAGE, number, one_object, over_both_backends,
    seq, wait_until,
};
use semring_testkit::left_out;

over_both_backends! {
    json_has_one_object_for_each_ring_and_interval,
}

fn top(args: &[&str]) -> Call<'static> {
    Call::new(SEMRING, None).args(&["top"]).args(args)
}

fn json_has_one_object_for_each_ring_and_interval(ring: &Ring) {
    let mut producer = ring.producer(&["-q", "--producers", "2"]).stdin_open();
    producer = producer.input(seq(10));
    producer.run().quietly(DONE);
    let mut consumer = ring.consumer(&["--follow", "-q"]).start();
    consumer.wait_for_bytes(seq(10).len());
    stop_asleep(ring, &mut consumer);
    let output = top(&["--json", "-i", "20ms", "-n", "3"])
        .run()
        .quietly(DONE);
    let text = output.text();
    let objects = text.lines().map(one_object);
    let mine: Vec<Value> = objects
        .filter(|object| object["address"] == ring.address())
        .collect();
    assert_eq!(mine.len(), 3, "{text}");
    for object in &mine {
        assert_eq!(object["sent_per_second"], 0.0);
        assert_eq!(object["received_per_second"], 0.0);
        assert_eq!(object["consumer_sleeps"], true);
        assert_eq!(number(object, "consumer_pid"), u64::from(consumer.pid()));
        for (field, value) in [
            ("sent_messages", 10),
            ("waiting_producers", 0),
            ("finished_producers", 1),
            ("died_producers", 0),
            ("each_lane", 2),
        ] {
            assert_eq!(number(object, field), value, "{field}");
        }
        let lane = &object["each_lane"][0];
        assert_eq!(lane["sent_per_second"], 0.0);
        assert_eq!(number(lane, "sent_messages"), 10);
        assert!(humantime_like(object["time"].as_str().expect("a time")));
    }
    assert_ne!(mine[0]["time"], mine[2]["time"]);
    consumer.kill();
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// Stops a consumer in its sleep on the ring, so that it stays so: it looks after its reader twice a second.
fn stop_asleep(ring: &Ring, consumer: &mut Tool) {
    let address = ring.address();
    loop {
        consumer.wait_until_asleep_on_the_ring();
        consumer.stop();
        let info = semring::inspect(address).expect("the ring is there");
        if info.consumer_sleeps {
            return;
        }
        // It had just woken up.
        consumer.cont();
    }
}

/// `2026-11-21T07:55:25.724Z`
fn humantime_like(text: &str) -> bool {
    text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

#[test]
fn without_a_terminal_it_names_the_way_out() {
    top(&[]).run().refused(USAGE, &["terminal", "--json"]);
    top(&["-i", "0"]).run().refused(USAGE, &["10ms"]);
}

#[test]
fn a_reader_that_goes_ends_it_quietly() {
    let ring = Ring::posix("top-reader");
    ring.semring("create", &[]).run().quietly(DONE);
    let mut running = top(&["--json", "-i", "10ms"]).stdout_unread().start();
    let mut line = String::new();
    let mut reader = running.take_stdout();
    std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
    one_object(&line);
    drop(reader);
    running.finish().quietly(BROKEN_PIPE);
    ring.semring("rm", &[]).run().quietly(DONE);
}

#[test]
fn on_a_terminal_it_draws_until_q() {
    let ring = Ring::posix("top-live");
    ring.semring("create", &[]).run().quietly(DONE);
    for key in [b"q", b"\x03"] {
        let mut live = OnTerminal::start(120, false);
        live.wait_for("semring top");
        live.wait_for("CONSUMER");
        live.wait_for(ring.name());
        live.keys.write_all(key).expect("a key");
        let drawn = Arc::clone(&live.drawn);
        let (code, settings) = live.end();
        assert_eq!(code, Some(0));
        assert_restored(&settings);
        wait_until("the screen is given back", || {
            String::from_utf8_lossy(&drawn.lock().expect("no panic")).contains(LEAVE_SCREEN)
        });
    }
    ring.semring("rm", &[]).run().quietly(DONE);
}

/// A look takes 60 ms here, as on a slow machine with many rings, and the interval is 50 ms.
#[test]
fn keys_work_also_with_slow_refreshes() {
    let strace = ["strace", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-f"];
    let slowed = ["-e", "trace=openat", "-e", "inject=openat:delay_exit=60000"];
    let slowly = [&strace[..], &slowed].concat();
    if !left_out::can_run(&[&slowly[..], &["true"]].concat()) {
        return;
    }
    let mut live = OnTerminal::start_behind(&slowly, 80, false);
    live.wait_for("semring top");
    live.keys.write_all(b"q").expect("a key");
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn rings_come_and_go_and_the_window_changes_under_it() {
    let mut live = OnTerminal::start(200, true);
    live.wait_for("semring top");
    let ring = Ring::sysv("top-passing");
    ring.semring("create", &[]).run().quietly(DONE);
    live.wait_for(ring.name());
    // No colours were requested.
    assert!(!live.drawn().contains("\x1b[38;5;2m") && !live.drawn().contains("\x1b[32m"));
    ring.semring("rm", &["--force"]).run().quietly(DONE);
    for (columns, rows, shown) in [
        ("40", "10", "semring top"),
        ("3", "2", "sem"),
        ("150", "40", "semring top"),
    ] {
        let slave = live.slave.try_clone().expect("a descriptor");
        live.drawn.lock().expect("no panic").clear();
        let stty = Command::new("stty")
            .args(["cols", columns, "rows", rows])
            .stdin(Stdio::from(slave))
            .status();
        assert!(stty.expect("stty runs").success());
        // A new size draws everything again, otherwise the heading never changes.
        live.wait_for(shown);
    }
    // A key that comes in the same moment as a new size is read with the next one only (crossterm waits
    // for edges, and looks at the signal first).
    wait_until("it has ended", || {
        let _ = live.keys.write_all(b"q");
        live.child.try_wait().expect("our child").is_some()
    });
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn a_question_mark_explains_the_columns() {
    let mut live = OnTerminal::start(40, false);
    live.wait_for("? explains");
    live.keys.write_all(b"?").expect("a key");
    // Words are drawn whole where nothing stood before.
    live.wait_for("fewer");
    live.forget();
    live.keys.write_all(b"?").expect("a key");
    live.wait_for("explains");
    live.keys.write_all(b"q").expect("a key");
    assert_eq!(live.end().0, Some(0));
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let live = OnTerminal::start(80, false);
    live.wait_for("semring top");
    kill(live.pid(), Signal::SIGTERM).expect("it runs");
    let (code, settings) = live.end();
    // setsid reports it as a shell does, or was replaced by it.
    assert!(
        code.is_none() || code == Some(128 + libc::SIGTERM),
        "{code:?}"
    );
    assert_restored(&settings);
}
