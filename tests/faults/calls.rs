//! Creators, removers and those who attach, killed before and behind each of their system calls.

use crate::case::{Backend, Case, PEER, answer, ask, run_to_marker, say_ok};
use semring::{RecvError, any};
use semring_testkit::objects::Object;
use semring_testkit::peer::{Exit, Peer};
use semring_testkit::step::{CallStop, Stepper};
use std::collections::HashSet;
use std::process::Command;
use sysv_ipc::sem::SemSet;

over_both_backends! {
    a_creator_killed_at_any_system_call_is_taken_over
    a_remover_killed_at_any_system_call_leaves_a_ring_or_none
    a_forced_remover_killed_at_any_system_call_leaves_a_ring_or_none
    a_remover_that_dawdles_at_any_system_call_takes_no_other_ring
    a_producer_killed_at_any_system_call_of_attach_and_detach_is_gone
    a_consumer_killed_at_any_system_call_of_attach_and_detach_is_gone
}

/// A peer that runs from system call to system call.
struct Walker {
    stepper: Stepper,
    /// Semaphore sets that it made: killed behind semget, nobody can tell whose it is.
    sets: Vec<i32>,
    /// Where it stands.
    at: String,
}

impl Walker {
    /// Starts a peer, gives it commands that prepare, and lets it begin `marked WHAT`.
    #[track_caller]
    fn start(case: &Case, prepare: &[&str], what: &str) -> Walker {
        let mut stepper = Stepper::spawn(Command::new(PEER)).expect("a peer can be traced");
        case.guard.adopt(stepper.peer().pid());
        for command in prepare {
            stepper.peer().say(command);
        }
        stepper.peer().say(&format!("marked {what}"));
        run_to_marker(&mut stepper);
        for command in prepare {
            let answer = answer(stepper.peer());
            assert!(answer.starts_with("ok"), "{answer} to {command}");
        }
        Walker {
            stepper,
            sets: Vec::new(),
            at: "the beginning".to_owned(),
        }
    }

    /// Goes on for so many stops; false if it came to the end of the operation before.
    fn walk(&mut self, stops: usize) -> bool {
        for _ in 0..stops {
            match self.stepper.run_to_call().expect("it goes on") {
                CallStop::Before { number } => self.at = format!("before system call {number}"),
                CallStop::Behind { number, result } => {
                    self.at = format!("behind system call {number}");
                    if number == libc::SYS_semget && result >= 0 {
                        self.sets.push(result as i32);
                    }
                }
                _ => return false,
            }
        }
        true
    }

    fn kill(self) -> Orphans {
        assert_eq!(self.stepper.kill(), Exit::Signal(libc::SIGKILL));
        Orphans(self.sets)
    }
}

/// Sets that a killed creator may have left.
struct Orphans(Vec<i32>);

impl Orphans {
    /// Removes those that nobody ever used.
    fn remove_unused(&self) {
        for id in &self.0 {
            let key = SemSet::from_id(*id)
                .stat()
                .map_or(0, |stat| stat.key.bits());
            let set = Object::Semaphores { id: *id, key };
            if set.is_unused_set() {
                set.remove().expect("a set of ours can be removed");
            }
        }
    }
}

/// Does `round` for one stop after the other until the operation ends before it; gives how many.
fn at_every_call(what: &str, mut round: impl FnMut(usize) -> bool) {
    let mut stops = 0;
    while round(stops) {
        stops += 1;
    }
    println!("{what}: {stops} points");
    assert!(stops >= 2, "an operation makes system calls");
}

/// Three processes that look for the ring at once get the same one.
#[track_caller]
fn made_by_all(case: &Case, peers: &mut [Peer], at: &str) {
    for peer in &mut *peers {
        peer.say(&format!("open-or-create {} 1 4096", case.address()));
    }
    let answers: HashSet<String> = peers.iter_mut().map(answer).collect();
    assert!(
        answers.len() == 1 && answers.iter().all(|a| a.starts_with("ok ")),
        "{answers:?} {at}"
    );
}

/// The ring takes a producer and a consumer, hands messages over, ends, and goes.
#[track_caller]
fn works_and_goes(peers: &mut [Peer], at: &str) {
    let [first, second, ..] = peers else {
        panic!("two peers at least")
    };
    assert_eq!(ask(first, "producer"), "ok 0", "{at}");
    assert_eq!(ask(second, "consumer"), "ok", "{at}");
    say_ok(first, "send 1 0 3 64");
    say_ok(first, "drop-producer");
    assert_eq!(ask(second, "drain"), "drained 3 EndOfStream", "{at}");
    assert_eq!(ask(second, "remove-at-end"), "ok true", "{at}");
    say_ok(second, "drop-consumer");
}

/// Holds that nothing is left but what a POSIX creator or remover cannot help leaving: a set without a
/// name, which is unlocked, so that a sweep can tell.
#[track_caller]
fn clean_but_for_nameless_sets(case: &Case, orphans: &Orphans, at: &str) {
    orphans.remove_unused();
    let mut left = case.guard.objects();
    if case.backend == Backend::Posix {
        left.retain(|object| match object {
            Object::Semaphores { id, .. } => {
                let values = SemSet::from_id(*id).values().expect("it can be looked at");
                assert!(
                    [1, 2, 3, 4].iter().all(|index| values[*index] == 0),
                    "{values:?} {at}"
                );
                false
            }
            _ => true,
        });
    }
    assert!(left.is_empty(), "left behind {at}: {left:?}");
    case.guard.clean();
    case.guard.forget_adopted();
}

fn a_creator_killed_at_any_system_call_is_taken_over(case: Case) {
    let mut peers: Vec<Peer> = (0..3).map(|_| case.maker()).collect();
    at_every_call("creator", |stops| {
        let create = format!("open-or-create {} 1 4096", case.address());
        let mut walker = Walker::start(&case, &[], &create);
        let more = walker.walk(stops);
        let at = walker.at.clone();
        let orphans = walker.kill();
        made_by_all(&case, &mut peers, &at);
        works_and_goes(&mut peers, &at);
        clean_but_for_nameless_sets(&case, &orphans, &at);
        more
    });
    drop(peers);
    case.finish_removed();
}

fn killed_remover(case: &Case, name: &str, prepare: &[&str], what: &str) {
    let mut peers: Vec<Peer> = (0..3).map(|_| case.maker()).collect();
    at_every_call(name, |stops| {
        case.ring(1);
        let mut walker = Walker::start(case, prepare, what);
        let more = walker.walk(stops);
        let at = walker.at.clone();
        let orphans = walker.kill();
        // The old one or a new one: it works, and it goes.
        made_by_all(case, &mut peers, &at);
        works_and_goes(&mut peers, &at);
        clean_but_for_nameless_sets(case, &orphans, &at);
        more
    });
    drop(peers);
}

fn a_remover_killed_at_any_system_call_leaves_a_ring_or_none(case: Case) {
    let open = format!("open {}", case.address());
    killed_remover(&case, "remover", &[&open, "consumer"], "remove-at-end");
    case.finish_removed();
}

fn a_forced_remover_killed_at_any_system_call_leaves_a_ring_or_none(case: Case) {
    killed_remover(
        &case,
        "forced remover",
        &[],
        &format!("force-remove {}", case.address()),
    );
    case.finish_removed();
}

/// It stands still while another one removes the ring and makes a new one; then it goes on.
fn a_remover_that_dawdles_at_any_system_call_takes_no_other_ring(case: Case) {
    let address = case.address().parse().unwrap();
    let what = format!("force-remove {}", case.address());
    at_every_call("dawdling remover", |stops| {
        let old = case.ring(1);
        let mut walker = Walker::start(&case, &[], &what);
        let more = walker.walk(stops);
        let at = walker.at.clone();
        // Refused while the other one is at work.
        let removed = semring::remove(&address, true).is_ok();
        let new = any::Builder::new(case.address())
            .producers(1)
            .capacity(4096)
            .open_or_create();
        // The case is to know its set, also when its name goes.
        case.guard.objects();
        let mut peer = walker.stepper.resume().expect("it goes on");
        assert!(peer.read_line().is_some(), "{at}");
        drop(peer);
        drop(old);
        if let (true, Ok(new)) = (removed, new) {
            // Whole or gone, set and all: never without its name.
            if any::open(case.address()).is_ok() {
                new.remove().unwrap_or_else(|error| panic!("{error} {at}"));
            } else {
                assert_eq!(
                    new.producer().err(),
                    Some(semring::AttachError::Removed),
                    "{at}"
                );
            }
        }
        let _ = semring::remove(&address, true);
        let left = case.guard.objects();
        assert!(left.is_empty(), "left behind {at}: {left:?}");
        case.guard.forget_adopted();
        more
    });
    case.finish_removed();
}

fn a_producer_killed_at_any_system_call_of_attach_and_detach_is_gone(case: Case) {
    let open = format!("open {}", case.address());
    for (what, prepare) in [
        ("attach", &[open.as_str()][..]),
        ("detach", &[&open, "producer", "send 1 0 3 64"]),
    ] {
        at_every_call(what, |stops| {
            let ring = case.ring(1);
            let mut consumer = ring.consumer().unwrap();
            let mut walker = Walker::start(&case, prepare, what);
            let more = walker.walk(stops);
            let at = walker.at.clone();
            walker.kill();
            let info = ring.info().unwrap();
            assert_eq!(info.producers(), 0, "{at}");
            let sent = if what == "detach" { 3 } else { 0 };
            for _ in 0..sent {
                consumer
                    .recv()
                    .unwrap_or_else(|error| panic!("{error} {at}"));
            }
            // Whoever came has ended the stream; killed before, it never came.
            let came = info.lanes[0].attached_producers > 0;
            let told = consumer
                .recv_timeout(std::time::Duration::from_millis(1))
                .unwrap_err();
            let expected = if came {
                RecvError::EndOfStream
            } else {
                RecvError::TimedOut
            };
            assert_eq!(told, expected, "{at}");
            let mut successor = ring
                .producer()
                .unwrap_or_else(|error| panic!("{error} {at}"));
            successor.send(b"next").unwrap();
            drop(successor);
            assert_eq!(consumer.recv().unwrap().to_vec(), b"next", "{at}");
            assert_eq!(consumer.recv().unwrap_err(), RecvError::EndOfStream, "{at}");
            assert!(consumer.remove_at_end().unwrap(), "{at}");
            case.guard.assert_clean();
            case.guard.forget_adopted();
            more
        });
    }
    case.finish_removed();
}

fn a_consumer_killed_at_any_system_call_of_attach_and_detach_is_gone(case: Case) {
    let open = format!("open {}", case.address());
    for (what, prepare) in [
        ("attach-consumer", &[open.as_str()][..]),
        ("detach-consumer", &[&open, "consumer"]),
    ] {
        at_every_call(what, |stops| {
            let ring = case.ring(2);
            let mut producer = ring.producer().unwrap();
            producer.send(b"kept").unwrap();
            let mut walker = Walker::start(&case, prepare, what);
            let more = walker.walk(stops);
            let at = walker.at.clone();
            walker.kill();
            assert_eq!(ring.info().unwrap().consumer_pid, None, "{at}");
            let mut successor = ring
                .consumer()
                .unwrap_or_else(|error| panic!("{error} {at}"));
            assert_eq!(successor.recv().unwrap().to_vec(), b"kept", "{at}");
            producer
                .probe()
                .unwrap_or_else(|error| panic!("{error} {at}"));
            drop(producer);
            assert_eq!(
                successor.recv().unwrap_err(),
                RecvError::EndOfStream,
                "{at}"
            );
            assert!(successor.remove_at_end().unwrap(), "{at}");
            case.guard.assert_clean();
            case.guard.forget_adopted();
            more
        });
    }
    case.finish_removed();
}
