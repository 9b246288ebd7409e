//! Signals, stops and continuations change nothing but the moment.

use crate::fixture::{Fixture, SMALL, answer, ask, say_ok, setting};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use semring_testkit::peer::Peer;
use semring_testkit::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

over_both_backends! {
    a_transfer_under_a_storm_of_signals_is_whole
    a_transfer_under_stops_and_continuations_is_whole
    timed_calls_end_under_a_storm_of_signals
    deadlines_hold_under_a_storm_of_signals
    message_during_a_stop_beats_the_deadline
    a_process_that_was_stopped_beyond_its_deadline_times_out
    roles_change_hands_under_a_storm_of_signals
}

/// Runs `work` while the processes get these signals in turn, as fast as they can be sent. They are
/// not reaped meanwhile, so their numbers stay theirs.
fn under_fire<R>(pids: &[u32], signals: &[Signal], work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        // Also when `work` panics: the scope waits for the thread.
        let _stop = Stop(&done);
        scope.spawn(|| {
            let mut sent = 0u64;
            while !done.load(Ordering::Relaxed) {
                for signal in signals {
                    for pid in pids {
                        kill(Pid::from_raw(pid.cast_signed()), *signal).expect("it is not reaped");
                    }
                    // The others are to run in between.
                    thread::yield_now();
                }
                sent += 1;
            }
            println!("{sent} rounds of signals");
        });
        work()
    })
}

/// Messages through a lane so small that both sides sleep all the time.
fn transfer(fixture: &Fixture, signals: &[Signal], count: u64) {
    let mut producer = fixture.idle_peer();
    let mut consumer = fixture.idle_peer();
    for (peer, role) in [(&mut producer, "producer"), (&mut consumer, "consumer")] {
        say_ok(peer, "handle-usr1");
        say_ok(peer, "wait block");
        assert!(ask(peer, &format!("open {}", fixture.address())).starts_with("ok "));
        assert!(ask(peer, role).starts_with("ok"));
    }
    let drained = under_fire(&[producer.pid(), consumer.pid()], signals, || {
        consumer.say("drain");
        say_ok(&mut producer, &format!("send 1 0 {count} {}", SMALL / 4));
        say_ok(&mut producer, "drop-producer");
        answer(&mut consumer)
    });
    assert_eq!(drained, format!("drained {count} EndOfStream"));
    drop((producer, consumer));
}

fn a_transfer_under_a_storm_of_signals_is_whole(fixture: Fixture) {
    fixture.ring(1);
    transfer(
        &fixture,
        &[Signal::SIGUSR1],
        setting("SEMRING_SIGNALLED", 10_000),
    );
    fixture.finish();
}

fn a_transfer_under_stops_and_continuations_is_whole(fixture: Fixture) {
    fixture.ring(1);
    let signals = [Signal::SIGSTOP, Signal::SIGCONT, Signal::SIGUSR1];
    transfer(&fixture, &signals, setting("SEMRING_SIGNALLED", 10_000));
    fixture.finish();
}

fn timed_calls_end_under_a_storm_of_signals(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "handle-usr1");
    say_ok(&mut consumer, "handle-usr1");
    let fire = [Signal::SIGUSR1, Signal::SIGSTOP, Signal::SIGCONT];
    under_fire(&[consumer.pid()], &fire, || {
        assert_eq!(ask(&mut consumer, "recv-timeout 100"), "error TimedOut");
    });
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    under_fire(&[producer.pid()], &fire, || {
        assert_eq!(
            ask(&mut producer, "send-timeout 1 1000 1000 100"),
            "error TimedOut"
        );
    });
    say_ok(&mut consumer, "drop-consumer");
    drop((producer, consumer));
    fixture.finish();
}

fn deadlines_hold_under_a_storm_of_signals(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    say_ok(&mut producer, "handle-usr1");
    say_ok(&mut consumer, "handle-usr1");
    let fire = [Signal::SIGUSR1, Signal::SIGSTOP, Signal::SIGCONT];
    under_fire(&[consumer.pid()], &fire, || {
        assert_eq!(ask(&mut consumer, "recv-deadline 100"), "until then");
        assert_eq!(answer(&mut consumer), "error TimedOut");
    });
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    under_fire(&[producer.pid()], &fire, || {
        let requested = ask(&mut producer, "send-deadline 1 1000 1000 100");
        assert_eq!(requested, "until then");
        assert_eq!(answer(&mut producer), "error TimedOut");
    });
    drop((producer, consumer));
    fixture.finish();
}

fn is_asleep(peer: &Peer) -> bool {
    let calls = process::system_calls(peer.pid()).unwrap_or_default();
    calls
        .iter()
        .flatten()
        .any(|call| process::SLEEPING_ON_A_RING.contains(call))
}

/// Has the peer wait with a deadline, stops it before, does something, and lets it go on when the
/// deadline has passed. The answer.
fn stopped_beyond(peer: &mut Peer, command: &str, meanwhile: impl FnOnce()) -> String {
    let mut milliseconds = 50;
    loop {
        let begun = Instant::now();
        assert_eq!(
            ask(peer, &format!("{command} {milliseconds}")),
            "until then"
        );
        // During its sleep, so that the wake-up is tested; but well before the deadline.
        while !is_asleep(peer) && begun.elapsed() < Duration::from_millis(milliseconds / 2) {
            thread::yield_now();
        }
        peer.stop();
        // It took its deadline after we looked at the clock.
        let deadline = begun + Duration::from_millis(milliseconds);
        if Instant::now() < deadline {
            let said = Instant::now();
            meanwhile();
            // And before its report: now the deadline has passed.
            while said.elapsed() < Duration::from_millis(milliseconds) {
                thread::yield_now();
            }
            peer.signal(Signal::SIGCONT);
            return answer(peer);
        }
        // This machine is slow: once more, with more time.
        peer.signal(Signal::SIGCONT);
        assert_eq!(answer(peer), "error TimedOut");
        milliseconds *= 2;
    }
}

fn message_during_a_stop_beats_the_deadline(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    let got = stopped_beyond(&mut consumer, "recv-deadline", || {
        say_ok(&mut producer, "send 1 0 1 64");
    });
    assert!(got.starts_with("message 1 0 "), "{got}");
    let filled = ask(&mut producer, "fill 1 1 1000");
    let count: u64 = filled["ok ".len()..].parse().expect("a number");
    let sent = stopped_beyond(&mut producer, "send-deadline 1 100 1000", || {
        say_ok(&mut consumer, &format!("skip {count}"));
        say_ok(&mut consumer, "flush");
    });
    assert_eq!(sent, "ok");
    assert!(ask(&mut consumer, "recv").starts_with("message 1 100 "));
    // And the end.
    let got = stopped_beyond(&mut consumer, "recv-deadline", || {
        say_ok(&mut producer, "drop-producer");
    });
    assert_eq!(got, "error EndOfStream");
    drop((producer, consumer));
    fixture.finish();
}

fn a_process_that_was_stopped_beyond_its_deadline_times_out(fixture: Fixture) {
    fixture.ring(1);
    let mut producer = fixture.producer();
    let mut consumer = fixture.consumer();
    let got = stopped_beyond(&mut consumer, "recv-deadline", || {});
    assert_eq!(got, "error TimedOut");
    assert!(ask(&mut producer, "fill 1 0 100").starts_with("ok "));
    let sent = stopped_beyond(&mut producer, "send-deadline 1 1000 1000", || {});
    assert_eq!(sent, "error TimedOut");
    // Nothing is lost, and the unsent message has no effect.
    say_ok(&mut producer, "drop-producer");
    let drained = ask(&mut consumer, "drain");
    assert!(drained.ends_with(" EndOfStream"), "{drained}");
    drop((producer, consumer));
    fixture.finish();
}

fn roles_change_hands_under_a_storm_of_signals(fixture: Fixture) {
    fixture.ring(1);
    let mut peers = [fixture.peer(), fixture.peer()];
    for peer in &mut peers {
        say_ok(peer, "handle-usr1");
    }
    let pids: Vec<u32> = peers.iter().map(Peer::pid).collect();
    under_fire(&pids, &[Signal::SIGUSR1], || {
        for round in 0..200 {
            let peer = &mut peers[round % 2];
            assert_eq!(ask(peer, "producer"), "ok 0");
            assert_eq!(ask(peer, "consumer"), "ok");
            say_ok(peer, "send 1 0 3 64");
            say_ok(peer, "drop-producer");
            assert_eq!(ask(peer, "drain"), "drained 3 EndOfStream");
            say_ok(peer, "drop-consumer");
        }
    });
    drop(peers);
    fixture.finish();
}
