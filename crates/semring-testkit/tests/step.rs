//! The stepper, with a small program to step through.
#![cfg(target_arch = "x86_64")]

use std::io;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use semring_testkit::names::unique;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::process;
use semring_testkit::step::{CallStop, Stepper};
use semring_testkit::watchdog::Watchdog;

fn watchdog() -> Watchdog {
    Watchdog::new(Duration::from_secs(600), "a test of the stepper")
}

fn command(what: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepped"));
    command.arg(what);
    command
}

#[test]
fn without_a_stepper_markers_do_nothing() {
    let _watchdog = watchdog();
    let mut plain = Peer::spawn(command("100")).unwrap();
    plain.expect("sum 4950");
    plain.expect("done");
    assert_eq!(plain.wait(), Exit::Code(0));
    // Nor where the environment disables them.
    let mut wanted = command("100");
    wanted.env("SEMRING_TESTKIT_MARKERS", "1");
    let mut wanted = Peer::spawn(wanted).unwrap();
    wanted.wait_for("done");
    assert_eq!(wanted.wait(), Exit::Code(0));
}

#[test]
fn every_instruction_between_the_markers_is_a_step() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let count = |rounds: u64| {
        let mut stepper = Stepper::spawn(command(&rounds.to_string())).unwrap();
        let steps = stepper.run_to_marker().unwrap().step_to_marker().unwrap();
        assert_eq!(stepper.steps(), steps);
        stepper.kill();
        steps
    };
    // A round takes the same number of instructions each time.
    let (ten, twenty, thirty) = (count(10), count(20), count(30));
    assert!(ten >= 20, "{ten}");
    assert!(twenty > ten);
    assert_eq!(thirty - twenty, twenty - ten);
}

#[test]
fn steps_can_be_made_by_portions() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("10")).unwrap();
    let all = stepper.run_to_marker().unwrap().step_to_marker().unwrap();
    stepper.kill();

    let mut stepper = Stepper::spawn(command("10")).unwrap();
    stepper.run_to_marker().unwrap();
    let none = stepper.step(0).unwrap();
    assert_eq!((none.steps, none.at_end), (0, false));
    let first = stepper.step(1).unwrap();
    assert_eq!((first.steps, first.at_end), (1, false));
    assert_ne!(first.instruction_pointer, none.instruction_pointer);
    for _ in 1..all {
        assert!(!stepper.step(1).unwrap().at_end);
    }
    let last = stepper.step(1).unwrap();
    assert_eq!((last.steps, last.at_end), (0, true));
    // And after the second marker it goes on to the third.
    assert!(stepper.step_to_marker().unwrap() > 100);
    stepper.peer().expect("sum 45");
    let mut peer = stepper.resume().unwrap();
    peer.expect("done");
    assert_eq!(peer.wait(), Exit::Code(0));
}

#[test]
fn a_system_call_is_one_step_and_known_as_one() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("call")).unwrap();
    stepper.run_to_marker().unwrap();
    let mut calls = 0;
    loop {
        let stepped = stepper.step(1).unwrap();
        if stepped.at_end {
            break;
        }
        calls += u32::from(stepped.in_syscall);
    }
    assert_eq!(calls, 1);
    let mut peer = stepper.resume().unwrap();
    peer.expect(&format!("parent {}", std::process::id()));
}

#[test]
fn a_system_call_can_be_reached_from_both_sides() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let number = libc::SYS_getppid;
    let parent = i64::from(std::process::id());
    let mut stepper = Stepper::spawn(command("call")).unwrap();
    stepper.run_to_marker().unwrap();
    assert_eq!(stepper.run_to_call().unwrap(), CallStop::Before { number });
    let returned = stepper.run_to_call().unwrap();
    assert!(
        matches!(returned, CallStop::Returned { number: n, result } if n == number && result == parent)
    );
    assert_eq!(stepper.run_to_call().unwrap(), CallStop::Marker);
    // The line is written by the next one.
    let number = libc::SYS_write;
    while stepper.run_to_call().unwrap() != (CallStop::Before { number }) {}
    let mut peer = stepper.resume().unwrap();
    peer.expect(&format!("parent {parent}"));

    // A step in between does not confuse the two sides.
    let mut stepper = Stepper::spawn(command("call")).unwrap();
    let number = libc::SYS_getppid;
    stepper.run_to_marker().unwrap();
    assert_eq!(stepper.run_to_call().unwrap(), CallStop::Before { number });
    assert!(!stepper.step(1).unwrap().at_end);
    assert_eq!(stepper.run_to_call().unwrap(), CallStop::Marker);
    let next = stepper.run_to_call().unwrap();
    assert!(matches!(next, CallStop::Before { .. }), "{next:?}");
    stepper.run_to_call().unwrap();
}

#[test]
fn child_killed_before_and_after_a_call() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let path = std::env::temp_dir().join(unique("folder"));
    let start = || {
        let mut command = command("folder");
        command.arg(&path);
        let mut stepper = Stepper::spawn(command).unwrap();
        stepper.run_to_marker().unwrap();
        let number = libc::SYS_mkdir;
        assert_eq!(stepper.run_to_call().unwrap(), CallStop::Before { number });
        stepper
    };
    start().kill();
    assert!(!path.exists());
    let mut returned = start();
    let stop = returned.run_to_call().unwrap();
    returned.kill();
    let was_there = path.exists();
    std::fs::remove_dir(&path).unwrap();
    assert!(was_there);
    assert!(
        matches!(stop, CallStop::Returned { result: 0, .. }),
        "{stop:?}"
    );
}

#[test]
fn a_killed_child_is_gone_and_what_follows_has_not_happened() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    for point in 0..20 {
        let mut stepper = Stepper::spawn(command("10")).unwrap();
        stepper.run_to_marker().unwrap();
        assert!(!stepper.step(point).unwrap().at_end);
        let pid = stepper.peer().pid();
        let mut stdout = stepper.peer().take_stdout().unwrap();
        assert_eq!(stepper.kill(), Exit::Signal(Signal::SIGKILL as i32));
        assert!(process::state(pid).is_err());
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    }
}

#[test]
fn stopped_child_goes_on_with_sigcont() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("10")).unwrap();
    stepper.run_to_marker().unwrap().step(7).unwrap();
    let mut peer = stepper.stop().unwrap();
    assert_eq!(process::state(peer.pid()).unwrap(), 'T');
    peer.cont();
    // It passes two more markers, without a stepper.
    peer.expect("sum 45");
    peer.expect("done");
    assert_eq!(peer.wait(), Exit::Code(0));
}

#[test]
fn a_dropped_stepper_leaves_no_process() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("10")).unwrap();
    let pid = stepper.peer().pid();
    drop(stepper);
    assert!(process::state(pid).is_err());
}

#[test]
fn a_signal_reaches_the_child_and_is_no_step() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("10")).unwrap();
    stepper.run_to_marker().unwrap();
    stepper.peer().signal(Signal::SIGTERM);
    let error = stepper.step(5).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("SIGTERM"), "{error}");
    assert_eq!(stepper.kill(), Exit::Signal(Signal::SIGTERM as i32));
}

#[test]
fn breakpoint_and_steps_reach_the_same_instruction() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut all = Stepper::spawn(command("10")).unwrap();
    all.run_to_marker().unwrap();
    let mut way = vec![all.step(0).unwrap().instruction_pointer];
    loop {
        let stepped = all.step(1).unwrap();
        if stepped.at_end {
            break;
        }
        way.push(stepped.instruction_pointer);
    }
    // Where the program lies differs from run to run, by whole pages.
    for point in [1, way.len() / 2, way.len() - 1] {
        let mut one = Stepper::spawn(command("10")).unwrap();
        one.run_to_marker().unwrap();
        let lies = one
            .step(0)
            .unwrap()
            .instruction_pointer
            .wrapping_sub(way[0]);
        let address = way[point].wrapping_add(lies);
        let times = way[1..=point]
            .iter()
            .filter(|it| **it == way[point])
            .count();
        assert!(one.run_to_address(address, times as u64).unwrap());
        let stands = one.step(0).unwrap().instruction_pointer;
        assert_eq!(stands, address);
        // From there it is as far to the end as it was for the first.
        assert_eq!(
            one.step_to_marker().unwrap(),
            (way.len() - 1 - point) as u64
        );
        one.resume().unwrap().expect("sum 45");
    }
    let mut none = Stepper::spawn(command("10")).unwrap();
    none.run_to_marker().unwrap();
    assert!(!none.run_to_address(8, 1).unwrap());
    none.resume().unwrap().expect("sum 45");
}

#[test]
fn child_that_ends_before_the_marker_is_reported() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("end")).unwrap();
    let error = stepper
        .run_to_marker()
        .unwrap()
        .step_to_marker()
        .unwrap_err();
    assert!(error.to_string().contains("exit code 9"), "{error}");
    let mut stepper = Stepper::spawn(command("no marker")).unwrap();
    let error = stepper.run_to_marker().unwrap_err();
    assert!(error.to_string().contains("exit code 0"), "{error}");
    assert!(stepper.stop().is_err());
}

#[test]
fn a_marker_in_another_thread_is_passed_by() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("thread")).unwrap();
    stepper.run_to_marker().unwrap();
    let mut peer = stepper.resume().unwrap();
    assert_eq!(peer.wait(), Exit::Code(0));
}

#[test]
fn steppers_share_a_processor_and_give_it_back() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let this_thread = || sched_getaffinity(Pid::from_raw(0)).unwrap();
    let count = |set: CpuSet| {
        (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap())
            .count()
    };
    let before = this_thread();
    let first = Stepper::spawn(command("10")).unwrap();
    let mut second = Stepper::spawn(command("10")).unwrap();
    assert_eq!(count(this_thread()), 1);
    drop(first);
    assert_eq!(count(this_thread()), 1);
    let child = Pid::from_raw(second.peer().pid().cast_signed());
    assert_eq!(sched_getaffinity(child).unwrap(), this_thread());
    let mut peer = second.resume().unwrap();
    assert_eq!(this_thread(), before);
    assert_eq!(sched_getaffinity(child).unwrap(), before);
    peer.expect("sum 45");
}

#[test]
fn thousands_of_steps_leave_the_result_as_it_is() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    let _watchdog = watchdog();
    let mut stepper = Stepper::spawn(command("1000")).unwrap();
    stepper.run_to_marker().unwrap();
    let begin = Instant::now();
    let steps = stepper.step_to_marker().unwrap();
    let rate = steps as f64 / begin.elapsed().as_secs_f64();
    println!("{steps} steps, {rate:.0} a second");
    let mut peer = stepper.resume().unwrap();
    peer.expect("sum 499500");
}
