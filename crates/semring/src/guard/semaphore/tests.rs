//! The semaphore guard: every claim, every refusal, every errno; the values are compared.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use semring_testkit::watchdog::Watchdog;

use super::{SemaphoreGuard, count_for};
use crate::guard::{Claim, GuardError, RemovalLock, Role, Roles, Waited, WakeTarget, Wakeups};
use crate::layout::MAX_LANES;
use crate::os::process;
use crate::os::sysv::{Key, Op, SemSet};
use crate::os::testing::{Ended, Thread, in_child};

// The numbers of the format (docs/layout.md), repeated here on purpose.
const W: usize = 0;
const N: usize = 1;
const C: usize = 2;
const T: usize = 3;
pub(super) const I: usize = 4;
pub(super) const CHECK: usize = 5;
const P0: usize = 8;
const S0: usize = 9;

const FULL: u16 = 32767;
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Time after which a test must be hanging; many times what it needs.
pub(super) const HANG_TIMEOUT: Duration = Duration::from_secs(600);
pub(super) const NOT_AT_ALL: Duration = Duration::from_millis(1);

/// A set under a key of its own, removed with it.
struct Fixture {
    set: SemSet,
    lanes: usize,
    _watchdog: Watchdog,
}

impl Fixture {
    fn new(lanes: usize) -> Self {
        let watchdog = Watchdog::new(HANG_TIMEOUT, "a test of the semaphore guard");
        let set = SemSet::create(free_key(), count_for(lanes), 0o600).unwrap();
        Self {
            set,
            lanes,
            _watchdog: watchdog,
        }
    }

    /// Another handle: all claims of this process are undone together, regardless of the handle.
    fn guard(&self) -> SemaphoreGuard {
        SemaphoreGuard::new(self.set, self.lanes)
    }

    fn values(&self) -> Vec<u16> {
        self.set.values().unwrap()
    }

    /// Posts this many tokens, as other processes would.
    fn fill(&self, index: usize, tokens: i16) {
        self.set.op(&[Op::new(index as u16, tokens)]).unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.set.remove();
    }
}

pub(super) fn free_key() -> Key {
    loop {
        let random = u32::from_le_bytes(process::random().unwrap());
        let key = Key::from_raw(random | 1);
        if SemSet::open(key).is_err() {
            return key;
        }
    }
}

pub(super) fn set_of(key: Key) -> SemSet {
    SemSet::open(key).unwrap()
}

const PRODUCER: Role = Role::Producer { lane: 0 };
const ROLES: [Role; 3] = [Role::Consumer, PRODUCER, Role::Producer { lane: 2 }];

#[test]
fn a_role_is_had_by_one_at_a_time() {
    for role in ROLES {
        let fixture = Fixture::new(3);
        let (first, second) = (fixture.guard(), fixture.guard());
        assert_eq!(first.is_taken(role), Ok(false));
        assert_eq!(first.claim(role), Ok(Claim::Granted));
        assert_eq!(second.is_taken(role), Ok(true));
        let before = fixture.values();
        assert_eq!(second.claim(role), Ok(Claim::Taken));
        assert_eq!(fixture.values(), before, "a refusal leaves nothing behind");
        for other in ROLES.into_iter().filter(|other| *other != role) {
            assert_eq!(second.is_taken(other), Ok(false));
        }
        first.leave(role).unwrap();
        assert_eq!(second.claim(role), Ok(Claim::Granted));
    }
}

#[test]
fn leaving_producer_is_counted_and_wakes() {
    let fixture = Fixture::new(3);
    let guard = fixture.guard();
    assert_eq!(guard.producers_gone(), Ok(true));
    guard.claim(Role::Producer { lane: 1 }).unwrap();
    let mut expected = vec![0; count_for(3)];
    expected[N] = 1;
    expected[P0 + 2] = 1;
    assert_eq!(fixture.values(), expected);
    assert_eq!(guard.producers_gone(), Ok(false));
    guard.claim(Role::Producer { lane: 2 }).unwrap();
    guard.leave(Role::Producer { lane: 1 }).unwrap();
    expected[P0 + 2] = 0;
    expected[P0 + 4] = 1;
    expected[W] = 1;
    assert_eq!(fixture.values(), expected);
    guard.leave(Role::Producer { lane: 2 }).unwrap();
    expected[P0 + 4] = 0;
    expected[N] = 0;
    expected[W] = 2;
    assert_eq!(fixture.values(), expected);
}

#[test]
fn leaving_consumer_wakes_every_producer() {
    for lanes in [1, 3, MAX_LANES] {
        let fixture = Fixture::new(lanes);
        let guard = fixture.guard();
        assert_eq!(guard.consumer_gone(), Ok(true));
        assert_eq!(guard.claim(Role::Consumer), Ok(Claim::Granted));
        let mut expected = vec![0; count_for(lanes)];
        expected[C] = 1;
        assert_eq!(fixture.values(), expected);
        guard.leave(Role::Consumer).unwrap();
        expected[C] = 0;
        expected[S0..]
            .iter_mut()
            .step_by(2)
            .for_each(|wakeup| *wakeup = 1);
        assert_eq!(fixture.values(), expected);
    }
}

#[test]
fn kernel_frees_a_dead_holders_roles_and_wakes() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    let ended = in_child(|| {
        let claims =
            [PRODUCER, Role::Producer { lane: 1 }, Role::Consumer].map(|role| guard.claim(role));
        u8::from(claims != [Ok(Claim::Granted); 3])
    });
    assert_eq!(ended, Ended::Code(0));
    let mut expected = vec![0; count_for(2)];
    expected[W] = 2;
    expected[S0] = 1;
    expected[S0 + 2] = 1;
    assert_eq!(fixture.values(), expected);
}

#[test]
fn a_refused_consumer_leaves_no_token_and_no_debt() {
    let fixture = Fixture::new(3);
    let guard = fixture.guard();
    guard.claim(Role::Consumer).unwrap();
    fixture.fill(S0 + 2, 1);
    let before = fixture.values();
    let ended = in_child(|| u8::from(guard.claim(Role::Consumer) != Ok(Claim::Taken)));
    assert_eq!(ended, Ended::Code(0));
    assert_eq!(
        fixture.values(),
        before,
        "the end of the refused one changes nothing either"
    );
}

#[test]
fn removal_flag_refuses_all_unlike_a_taken_role() {
    let fixture = Fixture::new(3);
    let guard = fixture.guard();
    assert_eq!(guard.begin_removal(false), Ok(true));
    let before = fixture.values();
    assert_eq!(before[T], 1);
    for role in ROLES {
        assert_eq!(guard.claim(role), Ok(Claim::BeingRemoved));
    }
    assert_eq!(fixture.values(), before);
    assert_eq!(
        guard.begin_removal(false),
        Ok(false),
        "one removal at a time"
    );
    assert_eq!(guard.await_no_removal(NOT_AT_ALL), Ok(false));
    guard.abort_removal().unwrap();
    assert_eq!(guard.await_no_removal(NOT_AT_ALL), Ok(true));
    assert_eq!(guard.claim(Role::Consumer), Ok(Claim::Granted));
}

#[test]
fn a_ring_in_use_is_not_removed() {
    let fixture = Fixture::new(3);
    let guard = fixture.guard();
    guard.claim(Role::Producer { lane: 1 }).unwrap();
    assert_eq!(guard.begin_removal(false), Ok(false));
    assert_eq!(guard.begin_removal(true), Ok(false));
    guard.leave(Role::Producer { lane: 1 }).unwrap();
    guard.claim(Role::Consumer).unwrap();
    assert_eq!(guard.begin_removal(false), Ok(false));
    // The consumer itself may.
    assert_eq!(guard.begin_removal(true), Ok(true));
    assert_eq!(fixture.values()[T], 1);
}

#[test]
fn a_remover_that_dies_leaves_the_ring_usable() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    let ended = in_child(|| u8::from(guard.begin_removal(false) != Ok(true)));
    assert_eq!(ended, Ended::Code(0));
    assert_eq!(fixture.values(), vec![0; count_for(1)]);
    assert_eq!(guard.claim(PRODUCER), Ok(Claim::Granted));
}

#[test]
fn a_wakeup_full_of_tokens_stops_nobody() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    let full = |fixture: &Fixture| [W, S0, S0 + 2].map(|wakeup| fixture.values()[wakeup]);
    for wakeup in [W, S0] {
        fixture.fill(wakeup, FULL as i16);
    }
    for wakeup in [WakeTarget::Consumer, WakeTarget::Producer { lane: 0 }] {
        guard.post(wakeup).unwrap();
    }
    // Once attached, the tokens are as before, plus one undo token.
    assert_eq!(guard.claim(PRODUCER), Ok(Claim::Granted));
    assert_eq!(guard.claim(Role::Consumer), Ok(Claim::Granted));
    assert_eq!(full(&fixture), [FULL, FULL, 0]);
    guard.leave(PRODUCER).unwrap();
    guard.leave(Role::Consumer).unwrap();
    assert_eq!(full(&fixture), [FULL, FULL, 1]);
    assert_eq!([N, C, P0].map(|index| fixture.values()[index]), [0; 3]);
    // The same when the kernel detaches a dead process.
    let ended = in_child(|| {
        let claims = [guard.claim(PRODUCER), guard.claim(Role::Consumer)];
        u8::from(claims != [Ok(Claim::Granted); 2])
    });
    assert_eq!(ended, Ended::Code(0));
    assert_eq!(full(&fixture), [FULL, FULL, 2]);
    assert_eq!([N, C, P0].map(|index| fixture.values()[index]), [0; 3]);
}

#[test]
fn draining_takes_all_tokens_whatever_their_number() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    for tokens in [0, 1, 2, 3, 16383, 16384, 16385, 21845, 32766, 32767] {
        if tokens > 0 {
            fixture.fill(W, tokens);
            fixture.fill(S0, tokens);
        }
        guard.drain(WakeTarget::Consumer).unwrap();
        assert_eq!(fixture.values()[W], 0);
        assert_eq!(
            fixture.values()[S0],
            tokens as u16,
            "the other wake-up semaphore is not touched"
        );
        guard.drain(WakeTarget::Producer { lane: 0 }).unwrap();
        assert_eq!(fixture.values()[S0], 0);
    }
}

#[test]
fn more_producers_than_a_wakeup_holds_tokens_come_and_go() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    fixture.fill(W, FULL as i16 - 3);
    for _ in 0..10 {
        assert_eq!(guard.claim(PRODUCER), Ok(Claim::Granted));
        guard.leave(PRODUCER).unwrap();
    }
    let values = fixture.values();
    assert_eq!((values[W], values[N], values[P0]), (FULL, 0, 0));
}

const WAKEUPS: [WakeTarget; 2] = [WakeTarget::Consumer, WakeTarget::Producer { lane: 1 }];

#[test]
fn a_wait_takes_one_token_or_ends_with_the_time() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    for wakeup in WAKEUPS {
        assert_eq!(
            guard.wait(wakeup, Some(Duration::ZERO)),
            Ok(Waited::TimedOut)
        );
        assert_eq!(guard.wait(wakeup, Some(NOT_AT_ALL)), Ok(Waited::TimedOut));
        guard.post(wakeup).unwrap();
        guard.post(wakeup).unwrap();
        assert_eq!(guard.wait(wakeup, None), Ok(Waited::Token));
        assert_eq!(guard.wait(wakeup, Some(LONG)), Ok(Waited::Token));
        assert_eq!(guard.wait(wakeup, Some(NOT_AT_ALL)), Ok(Waited::TimedOut));
    }
}

/// Runs `sleep` in a thread, calls `meanwhile` once it sleeps in the kernel, and returns its
/// result.
pub(super) fn while_asleep<R: Send>(
    sleep: impl FnOnce() -> R + Send,
    meanwhile: impl FnOnce(Thread),
) -> R {
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = scope.spawn(move || {
            tell.send(Thread::current()).unwrap();
            sleep()
        });
        let sleeping = told.recv().unwrap();
        sleeping.await_asleep_on_a_semaphore();
        meanwhile(sleeping);
        sleeper.join().unwrap()
    })
}

#[test]
fn a_post_wakes_the_sleeper() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    for wakeup in WAKEUPS {
        for timeout in [None, Some(LONG)] {
            let waited = while_asleep(
                || guard.wait(wakeup, timeout),
                |_| guard.post(wakeup).unwrap(),
            );
            assert_eq!(waited, Ok(Waited::Token));
        }
    }
    assert_eq!(fixture.values(), vec![0; count_for(2)]);
}

#[test]
fn the_end_of_a_peer_wakes_the_sleeper() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    let die = |role| {
        move |_: Thread| {
            let guard = SemaphoreGuard::new(fixture.set, 1);
            assert_eq!(
                in_child(|| u8::from(guard.claim(role) != Ok(Claim::Granted))),
                Ended::Code(0)
            );
        }
    };
    let consumer = while_asleep(|| guard.wait(WakeTarget::Consumer, None), die(PRODUCER));
    assert_eq!(consumer, Ok(Waited::Token));
    let producer = while_asleep(
        || guard.wait(WakeTarget::Producer { lane: 0 }, None),
        die(Role::Consumer),
    );
    assert_eq!(producer, Ok(Waited::Token));
}

#[test]
fn no_wait_for_absent_producers() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    // Not with a token either: a process may have posted it just before its end.
    guard.post(WakeTarget::Consumer).unwrap();
    for timeout in [None, Some(LONG)] {
        assert_eq!(guard.wait_for_producers(timeout), Ok(Waited::Alone));
    }
    assert_eq!(guard.wait(WakeTarget::Consumer, None), Ok(Waited::Token));
    assert_eq!(guard.claim(PRODUCER), Ok(Claim::Granted));
    let waited = while_asleep(
        || guard.wait_for_producers(Some(LONG)),
        |_| guard.post(WakeTarget::Consumer).unwrap(),
    );
    assert_eq!(waited, Ok(Waited::Token));
    let timed_out = guard.wait_for_producers(Some(NOT_AT_ALL));
    assert!(matches!(timed_out, Ok(Waited::TimedOut | Waited::Alone)));
    let values = fixture.values();
    assert_eq!((values[W], values[N]), (0, 1));
}

#[test]
fn the_death_of_the_last_producer_ends_a_wait() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    // It lives as long as a pipe is open, and reports when it has the slot.
    let (mut taken, tell) = std::io::pipe().unwrap();
    let (hold, release) = std::io::pipe().unwrap();
    let waited = thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let guard = SemaphoreGuard::new(fixture.set, 1);
            in_child(|| {
                assert_eq!(guard.claim(PRODUCER), Ok(Claim::Granted));
                (&tell).write_all(&[0]).unwrap();
                (&hold).read_exact(&mut [0]).unwrap();
                0
            })
        });
        taken.read_exact(&mut [0]).unwrap();
        let waited = while_asleep(
            || guard.wait_for_producers(None),
            |_| (&release).write_all(&[0]).unwrap(),
        );
        assert_eq!(producer.join().unwrap(), Ended::Code(0));
        waited
    });
    assert_eq!(waited, Ok(Waited::Alone));
    // The undo token of the death is still there.
    assert_eq!(guard.wait(WakeTarget::Consumer, None), Ok(Waited::Token));
}

#[test]
fn a_signal_ends_a_wait_and_takes_no_token() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    for timeout in [None, Some(LONG)] {
        let waited = while_asleep(
            || guard.wait(WakeTarget::Consumer, timeout),
            Thread::interrupt,
        );
        assert_eq!(waited, Ok(Waited::Signal));
    }
    guard.post(WakeTarget::Consumer).unwrap();
    assert_eq!(fixture.values()[W], 1);
}

#[test]
fn waiting_for_a_role_goes_on_after_a_signal() {
    let fixture = Fixture::new(1);
    let guard = fixture.guard();
    for role in [Role::Consumer, PRODUCER] {
        assert_eq!(guard.await_free(role, NOT_AT_ALL), Ok(true));
        guard.claim(role).unwrap();
        assert_eq!(guard.await_free(role, NOT_AT_ALL), Ok(false));
        let free = while_asleep(
            || guard.await_free(role, LONG),
            |thread| {
                thread.interrupt();
                thread.await_asleep_on_a_semaphore();
                guard.leave(role).unwrap();
            },
        );
        assert_eq!(free, Ok(true));
    }
    assert_eq!(guard.begin_removal(false), Ok(true));
    let ended = while_asleep(
        || guard.await_no_removal(LONG),
        |thread| {
            thread.interrupt();
            thread.await_asleep_on_a_semaphore();
            guard.abort_removal().unwrap();
        },
    );
    assert_eq!(ended, Ok(true));
}

#[test]
fn every_call_on_a_removed_set_reports_it() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    guard.claim(Role::Producer { lane: 1 }).unwrap();
    guard.destroy().unwrap();
    let removed = GuardError::Removed;
    for role in ROLES.into_iter().take(2) {
        assert_eq!(guard.claim(role), Err(removed));
        assert_eq!(guard.leave(role), Err(removed));
        assert_eq!(guard.is_taken(role), Err(removed));
        assert_eq!(guard.await_free(role, LONG), Err(removed));
    }
    for wakeup in WAKEUPS {
        assert_eq!(guard.post(wakeup), Err(removed));
        assert_eq!(guard.wait(wakeup, None), Err(removed));
        assert_eq!(guard.wait(wakeup, Some(LONG)), Err(removed));
        assert_eq!(guard.drain(wakeup), Err(removed));
    }
    assert_eq!(guard.producers_gone(), Err(removed));
    assert_eq!(guard.consumer_gone(), Err(removed));
    assert_eq!(guard.await_no_removal(LONG), Err(removed));
    for as_consumer in [false, true] {
        assert_eq!(guard.begin_removal(as_consumer), Err(removed));
    }
    assert_eq!(guard.abort_removal(), Err(removed));
    assert_eq!(guard.destroy(), Ok(()), "it is gone already");
}

#[test]
fn every_sleeper_wakes_when_the_set_is_removed() {
    let removed = GuardError::Removed;
    let remove_under = |sleep: &(dyn Fn(&SemaphoreGuard) -> Option<GuardError> + Sync)| {
        let fixture = Fixture::new(2);
        let guard = fixture.guard();
        guard.claim(Role::Consumer).unwrap();
        guard.claim(PRODUCER).unwrap();
        let told = while_asleep(|| sleep(&guard), |_| fixture.guard().destroy().unwrap());
        assert_eq!(told, Some(removed));
    };
    for wakeup in WAKEUPS {
        remove_under(&|guard| guard.wait(wakeup, None).err());
        remove_under(&|guard| guard.wait(wakeup, Some(LONG)).err());
    }
    for role in [Role::Consumer, PRODUCER] {
        remove_under(&|guard| guard.await_free(role, LONG).err());
    }
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    assert_eq!(guard.begin_removal(false), Ok(true));
    let told = while_asleep(
        || guard.await_no_removal(LONG),
        |_| guard.destroy().unwrap(),
    );
    assert_eq!(told, Err(removed));
}

#[test]
fn leaving_a_role_that_one_does_not_have_changes_nothing() {
    let fixture = Fixture::new(2);
    let guard = fixture.guard();
    for role in [Role::Consumer, PRODUCER] {
        assert!(
            matches!(guard.leave(role), Err(GuardError::Os { .. })),
            "{role:?}"
        );
        assert_eq!(fixture.values(), vec![0; count_for(2)]);
    }
    assert!(matches!(guard.abort_removal(), Err(GuardError::Os { .. })));
    assert_eq!(fixture.values(), vec![0; count_for(2)]);
}
