//! Every place that wakes a sleeper, one by one: the sleeper has announced itself, and a guard that makes no system calls
//! records the posts. So a missing wake-up shows at once, independent of the scheduler.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::mpsc::{Consumer, Producer, Ring};
use super::options::HandleOptions;
use crate::error::{RecvError, SendError};
use crate::guard::strategy::WaitStrategy;
use crate::guard::timeouts::UNCERTAIN_SLEEP;
use crate::guard::wakeup::{arm, is_asymmetric};
use crate::guard::{
    Claim, Guard, GuardError, RemovalLock, Role, Roles, Waited, WakeTarget, Wakeups,
};
use crate::layout::features::WhenFull;
use crate::layout::superblock::{GuardKind, RingKind, SetIdentity, Superblock};
use crate::layout::view::RingView;
use crate::layout::{Capacity, Geometry, Position};
use crate::lifecycle::RingCore;
use crate::memory::{Object, Segment};
use crate::os::barrier;
use crate::os::errno::EIO;
use crate::os::poll::Poller;
use crate::sync::Ordering;

type Result<T> = std::result::Result<T, GuardError>;
/// Leaves the calling test out where the kernel, or a filter of system calls, refuses the barrier.
macro_rules! needs_barrier {
    () => {
        if !barrier::is_available() || barrier::everywhere().is_err() {
            semring_testkit::leave_out!("membarrier is refused");
        }
    };
}

type Event = Box<dyn FnOnce() + Send>;

const LANES: usize = 2;
const PRODUCER: WakeTarget = WakeTarget::Producer { lane: 0 };
const NOT_AT_ALL: Duration = Duration::ZERO;

/// The state of the guard.
#[derive(Default)]
struct Notes {
    taken: Vec<Role>,
    tokens: Vec<WakeTarget>,
    /// The next post fails.
    refuses: bool,
    /// Happens within the next call that takes all tokens, before it takes any.
    before_drain: Option<Event>,
    /// Happens within the next check for producers, before the answer.
    before_check: Option<Event>,
    /// Happens within the next sleep.
    in_sleep: Option<Event>,
    /// How long the last sleep may last.
    slept: Option<Duration>,
}

/// A guard that makes no system calls: no process sleeps.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Notes>>);

impl Recorder {
    fn with<R>(&self, look: impl FnOnce(&mut Notes) -> R) -> R {
        look(&mut self.0.lock().unwrap())
    }

    /// The event must be able to use the ring.
    fn happen(&self, take: impl FnOnce(&mut Notes) -> Option<Event>) {
        if let Some(event) = self.with(take) {
            event();
        }
    }
}

impl Roles for Recorder {
    fn claim(&self, role: Role) -> Result<Claim> {
        self.with(|notes| {
            if notes.taken.contains(&role) {
                return Ok(Claim::Taken);
            }
            notes.taken.push(role);
            Ok(Claim::Granted)
        })
    }

    fn leave(&self, role: Role) -> Result<()> {
        self.with(|notes| notes.taken.retain(|taken| *taken != role));
        Ok(())
    }

    fn await_free(&self, _: Role, _: Duration) -> Result<bool> {
        unreachable!("no role is requested before it is free")
    }

    fn is_taken(&self, role: Role) -> Result<bool> {
        Ok(self.with(|notes| notes.taken.contains(&role)))
    }

    fn producers_gone(&self) -> Result<bool> {
        self.happen(|notes| notes.before_check.take());
        self.producers().map(|producers| producers == 0)
    }

    fn producers(&self) -> Result<usize> {
        let is_producer = |role: &&Role| **role != Role::Consumer;
        Ok(self.with(|notes| notes.taken.iter().filter(is_producer).count()))
    }
}

impl Wakeups for Recorder {
    fn post(&self, target: WakeTarget) -> Result<()> {
        self.with(|notes| {
            if std::mem::take(&mut notes.refuses) {
                return Err(GuardError::Os {
                    call: "semop",
                    errno: EIO,
                });
            }
            notes.tokens.push(target);
            Ok(())
        })
    }

    fn wait(&self, target: WakeTarget, timeout: Option<Duration>) -> Result<Waited> {
        self.with(|notes| notes.slept = timeout);
        self.happen(|notes| notes.in_sleep.take());
        let token = self.with(|notes| {
            let at = notes.tokens.iter().position(|token| *token == target)?;
            Some(notes.tokens.swap_remove(at))
        });
        Ok(token.map_or(Waited::TimedOut, |_| Waited::Token))
    }

    fn drain(&self, target: WakeTarget) -> Result<()> {
        self.happen(|notes| notes.before_drain.take());
        self.with(|notes| notes.tokens.retain(|token| *token != target));
        Ok(())
    }

    fn poller(&self, _: Role) -> Option<Arc<Poller>> {
        Poller::new().ok().map(Arc::new)
    }
}

impl RemovalLock for Recorder {
    fn begin_replacing(&self) -> Result<bool> {
        unreachable!("no ring is replaced here")
    }

    fn abort_replacing(&self) -> Result<()> {
        unreachable!("no ring is replaced here")
    }

    fn await_no_removal(&self, _: Duration) -> Result<bool> {
        unreachable!("no ring is removed here")
    }

    fn begin_removal(&self, _: bool) -> Result<bool> {
        unreachable!("no ring is removed here")
    }

    fn begin_forced_removal(&self, _: Duration) -> Result<bool> {
        unreachable!("no ring is removed here")
    }

    fn override_removal(&self) -> Result<()> {
        unreachable!("no ring is removed here")
    }

    fn abort_removal(&self) -> Result<()> {
        unreachable!("no ring is removed here")
    }

    fn destroy(&self) -> Result<()> {
        unreachable!("no ring is removed here")
    }
}

impl Guard for Recorder {}

struct Fixture {
    ring: Ring,
    view: RingView,
    guard: Recorder,
}

impl Fixture {
    fn new() -> Self {
        Self::with(4096, false)
    }

    fn with(capacity: u64, asymmetric_barrier: bool) -> Self {
        let capacity = Capacity::exact(capacity).expect("a sensible number");
        let geometry = Geometry::new(LANES, capacity).expect("a sensible number");
        let segment = Arc::new(Segment::heap(geometry.segment_bytes()));
        let view = RingView::new(segment, geometry).expect("a segment that is long enough");
        let guard = Recorder::default();
        let core = RingCore {
            address: "wake-tests".parse().expect("a name"),
            superblock: Superblock {
                kind: RingKind::Mpsc,
                geometry,
                guard: GuardKind::Semaphore,
                uuid: [0; 16],
                set: SetIdentity {
                    key: 0,
                    id: 0,
                    ctime: 0,
                    check: 1,
                },
                auto_remove: false,
                when_full: WhenFull::Wait,
                schema: None,
                features: crate::layout::features::KNOWN,
                created_ns: 0,
                creator_pid: 0,
                creator_uid: 0,
                ipc_namespace: 0,
                name: String::new(),
                key_file: None,
                record: None,
                record_word: 0,
            },
            view: view.clone(),
            guard: Box::new(guard.clone()),
            object: Object::nowhere(),
            created: true,
            fallback: None,
        };
        let options = HandleOptions {
            wait: WaitStrategy::Block,
            trusts_peers: false,
            asymmetric_barrier,
            linger: Duration::ZERO,
        };
        Self {
            ring: Ring::new(Arc::new(core), options),
            view,
            guard,
        }
    }

    fn handles(&self) -> (Producer, Consumer) {
        let producer = self.ring.attach_producer().expect("a free lane");
        let consumer = self.ring.attach_consumer().expect("no other consumer");
        (producer, consumer)
    }

    /// The consumer announces a sleep. Earlier posts don't count.
    fn consumer_sleeps(&self, epoch: u64) {
        arm(&self.view.consumer().wait_word, epoch);
        self.guard.with(|notes| notes.tokens.clear());
    }

    /// The first lane's producer likewise.
    fn producer_sleeps(&self) {
        arm(&self.view.lane(0).producer().wait_word, 77);
        self.guard.with(|notes| notes.tokens.clear());
    }

    /// The consumer is killed while it is awake.
    fn kill(&self, consumer: Consumer) {
        std::mem::forget(consumer);
        self.guard.leave(Role::Consumer).expect("no system call");
    }

    #[track_caller]
    fn is_woken(&self, target: WakeTarget) {
        let tokens = self.guard.with(|notes| notes.tokens.clone());
        assert!(tokens.contains(&target), "no sleeper was woken: {tokens:?}");
    }
}

#[test]
fn send_wakes_the_consumer() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    // The first message goes the slow way, the second the fast one.
    for epoch in [77, 78] {
        fixture.consumer_sleeps(epoch);
        producer.send(b"message").expect("room");
        fixture.is_woken(WakeTarget::Consumer);
    }
}

#[test]
fn commit_wakes_the_consumer() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    fixture.consumer_sleeps(77);
    producer.reserve(8).expect("room").commit();
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn array_wakes_the_consumer() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    fixture.consumer_sleeps(77);
    producer.send_all(&[[1; 8], [2; 8]]).expect("room");
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn batch_wakes_the_consumer() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    fixture.consumer_sleeps(77);
    let mut batch = producer.batch();
    batch.push(b"message").expect("room");
    let tokens = fixture.guard.with(|notes| notes.tokens.len());
    assert_eq!(tokens, 0, "nothing is published yet");
    batch.commit();
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn batch_wakes_the_consumer_before_it_waits_for_room() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    fixture.consumer_sleeps(77);
    let mut batch = producer.batch();
    let full = loop {
        if let Err(error) = batch.push_deadline(&[0; 1000], NOT_AT_ALL) {
            break error;
        }
    };
    assert_eq!(full, SendError::TimedOut);
    fixture.is_woken(WakeTarget::Consumer);
}

/// The rest up to the end of the lane has room for padding, and the beginning has none for the message.
#[test]
fn padding_wakes_the_consumer() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    for length in [8, 1000, 1000, 1000, 984] {
        producer.send(&vec![0; length]).expect("room");
    }
    consumer.recv().expect("a message").release();
    consumer.flush_released().expect("the ring is there");
    let before = producer.position();
    fixture.consumer_sleeps(77);
    assert_eq!(producer.try_send(&[0; 100]), Err(SendError::Full));
    assert_ne!(producer.position(), before, "padding was published");
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn producer_repeats_a_post_that_failed() {
    let fixture = Fixture::new();
    let (mut producer, _consumer) = fixture.handles();
    fixture.consumer_sleeps(77);
    fixture.guard.with(|notes| notes.refuses = true);
    producer.send(b"message").expect("room");
    assert!(matches!(
        producer.send(b"message"),
        Err(SendError::Os { errno: EIO, .. })
    ));
    producer.send(b"message").expect("room");
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn release_wakes_the_producer() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    producer.send(&[0; 1000]).expect("room");
    producer.send(&[0; 1000]).expect("room");
    fixture.producer_sleeps();
    consumer.recv().expect("a message").release();
    consumer.recv().expect("a message").release();
    fixture.is_woken(PRODUCER);
}

#[test]
fn consumer_repeats_a_post_that_failed() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    producer.send(b"message").expect("room");
    producer.send(b"message").expect("room");
    fixture.producer_sleeps();
    fixture.guard.with(|notes| notes.refuses = true);
    consumer.recv().expect("a message").release();
    assert!(matches!(
        consumer.flush_released(),
        Err(RecvError::Os { errno: EIO, .. })
    ));
    consumer.recv().expect("a message").release();
    consumer.flush_released().expect("the ring is there");
    fixture.is_woken(PRODUCER);
}

#[test]
fn consumer_releases_before_it_sleeps() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    producer.send(b"message").expect("room");
    fixture.producer_sleeps();
    consumer.recv().expect("a message").release();
    let nothing = consumer.recv_deadline(NOT_AT_ALL);
    assert_eq!(nothing.err(), Some(RecvError::TimedOut));
    fixture.is_woken(PRODUCER);
}

#[test]
fn corrupt_lane_wakes_its_producer() {
    let fixture = Fixture::new();
    let (_producer, mut consumer) = fixture.handles();
    fixture.producer_sleeps();
    let header = fixture.view.lane(0);
    header
        .header(Position::new(0))
        .store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(
        consumer.recv().err(),
        Some(RecvError::Corrupt { lane: 0, .. })
    ));
    fixture.is_woken(PRODUCER);
}

#[test]
fn close_wakes_the_producers() {
    let fixture = Fixture::new();
    let (_producer, consumer) = fixture.handles();
    fixture.producer_sleeps();
    consumer.close();
    fixture.is_woken(PRODUCER);
}

/// A message comes after the first look of a polled consumer, and before it takes the tokens that are there.
#[test]
fn polled_handle_finds_earlier_messages() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    let _descriptor = consumer.pollable().expect("a descriptor");
    let event = move || producer.send(b"message").expect("room");
    fixture
        .guard
        .with(|notes| notes.before_drain = Some(Box::new(event)));
    let is_found = consumer.try_recv().is_ok();
    let has_token = !fixture.guard.with(|notes| notes.tokens.is_empty());
    assert!(
        is_found || has_token,
        "a message that came before the announcement is neither found nor posted"
    );
    assert!(is_found, "a message that came before the announcement");
}

#[test]
fn polled_handle_that_found_something_stays_readable() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    let _descriptor = consumer.pollable().expect("a descriptor");
    let event = move || producer.send(b"message").expect("room");
    fixture
        .guard
        .with(|notes| notes.before_drain = Some(Box::new(event)));
    consumer.try_recv().expect("a message").release();
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn polled_handle_stays_readable_after_a_wait() {
    let fixture = Fixture::new();
    let (_producer, mut consumer) = fixture.handles();
    let _descriptor = consumer.pollable().expect("a descriptor");
    fixture.guard.with(|notes| notes.tokens.clear());
    let nothing = consumer.recv_deadline(NOT_AT_ALL);
    assert_eq!(nothing.err(), Some(RecvError::TimedOut));
    fixture.is_woken(WakeTarget::Consumer);
}

#[test]
fn new_descriptor_is_readable() {
    let fixture = Fixture::new();
    let (mut producer, mut consumer) = fixture.handles();
    fixture.guard.with(|notes| notes.tokens.clear());
    let _ = consumer.pollable().expect("a descriptor").as_fd();
    fixture.is_woken(WakeTarget::Consumer);
    let _ = producer.pollable().expect("a descriptor").as_fd();
    fixture.is_woken(PRODUCER);
}

/// The end of the stream counts the producer that attached, and left, between the sum and the answer.
#[test]
fn producer_that_came_and_went_within_a_check_counts() {
    let fixture = Fixture::new();
    let (producer, mut consumer) = fixture.handles();
    drop(producer);
    let ring = fixture.ring.clone();
    let event = move || drop(ring.attach_producer().expect("a free lane"));
    fixture
        .guard
        .with(|notes| notes.before_check = Some(Box::new(event)));
    let end = consumer.recv_deadline(NOT_AT_ALL);
    assert!(matches!(end.err(), Some(RecvError::EndOfStream { .. })));
    consumer.resume();
    let nothing = consumer.recv_deadline(NOT_AT_ALL);
    assert_eq!(
        nothing.err(),
        Some(RecvError::TimedOut),
        "the end of the stream came twice"
    );
}

/// Sends messages of this many bytes after the death, at most this many.
#[track_caller]
fn notices_a_death(producer: &mut Producer, bytes: usize, at_most: usize) {
    let message = vec![0; bytes];
    let error = (0..=at_most).find_map(|_| producer.send(&message).err());
    assert_eq!(
        error,
        Some(SendError::ConsumerGone),
        "the death of the consumer was not noticed"
    );
}

#[test]
fn death_is_noticed_after_16_messages() {
    let fixture = Fixture::with(1 << 20, false);
    let (mut producer, consumer) = fixture.handles();
    fixture.kill(consumer);
    notices_a_death(&mut producer, 8, 16);
}

/// A release of the consumer since the last check counts as progress.
#[test]
fn death_after_a_release_is_noticed_after_32_messages() {
    let fixture = Fixture::with(1 << 20, false);
    let (mut producer, mut consumer) = fixture.handles();
    producer.send(b"message").expect("room");
    consumer.recv().expect("a message").release();
    consumer.flush_released().expect("the ring is there");
    fixture.kill(consumer);
    notices_a_death(&mut producer, 8, 32);
}

#[test]
fn death_is_noticed_after_4_kib() {
    let fixture = Fixture::with(1 << 20, false);
    let (mut producer, consumer) = fixture.handles();
    fixture.kill(consumer);
    notices_a_death(&mut producer, 1000, 5);
}

/// Sends until the lane is about to enter asymmetric mode: one more message that finds the consumer awake.
fn send_up_to_asymmetric_mode(producer: &mut Producer, consumer: &mut Consumer) {
    for _ in 0..31 {
        producer.send(b"message").expect("room");
        consumer.recv().expect("a message").release();
        consumer.flush_released().expect("the ring is there");
    }
}

fn lane_0_is_asymmetric(fixture: &Fixture) -> bool {
    is_asymmetric(&fixture.view.lane(0))
}

/// A consumer of a lane in asymmetric mode, to which the kernel refuses the barrier from now on.
fn refuse_barriers(fixture: &Fixture, producer: &mut Producer, consumer: &mut Consumer) {
    send_up_to_asymmetric_mode(producer, consumer);
    producer.send(b"message").expect("room");
    consumer.recv().expect("a message").release();
    assert!(lane_0_is_asymmetric(fixture));
    barrier::REFUSED.set(true);
}

#[test]
fn consumer_without_barriers_sleeps_for_a_moment() {
    needs_barrier!();
    let fixture = Fixture::with(1 << 20, true);
    let (mut producer, mut consumer) = fixture.handles();
    refuse_barriers(&fixture, &mut producer, &mut consumer);
    let event = move || producer.send(b"message").expect("room");
    fixture
        .guard
        .with(|notes| notes.in_sleep = Some(Box::new(event)));
    consumer.recv().expect("a message").release();
    let slept = fixture.guard.with(|notes| notes.slept);
    assert_eq!(slept, Some(UNCERTAIN_SLEEP), "a long sleep");
    let promised = fixture.view.consumer().barrier.load(Ordering::SeqCst);
    assert_eq!(promised, 0, "barriers are promised");
}

#[test]
fn polled_handle_without_barriers_stays_readable() {
    needs_barrier!();
    let fixture = Fixture::with(1 << 20, true);
    let (mut producer, mut consumer) = fixture.handles();
    let _descriptor = consumer.pollable().expect("a descriptor");
    refuse_barriers(&fixture, &mut producer, &mut consumer);
    fixture.guard.with(|notes| notes.tokens.clear());
    assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
    fixture.is_woken(WakeTarget::Consumer);
}

/// The consumer has released something since the last check.
#[test]
fn death_is_noticed_on_entry_into_asymmetric_mode() {
    needs_barrier!();
    let fixture = Fixture::with(1 << 20, true);
    let (mut producer, mut consumer) = fixture.handles();
    send_up_to_asymmetric_mode(&mut producer, &mut consumer);
    fixture.kill(consumer);
    notices_a_death(&mut producer, 8, 1);
    assert!(lane_0_is_asymmetric(&fixture));
}

/// The predecessor made barriers.
#[test]
fn no_asymmetric_mode_for_a_consumer_without_barriers() {
    needs_barrier!();
    let fixture = Fixture::with(1 << 20, true);
    let (mut producer, mut consumer) = fixture.handles();
    let page = fixture.view.consumer();
    page.barrier
        .store(page.generation.load(Ordering::SeqCst) - 1, Ordering::SeqCst);
    send_up_to_asymmetric_mode(&mut producer, &mut consumer);
    producer.send(b"message").expect("room");
    assert!(
        !lane_0_is_asymmetric(&fixture),
        "the lane is in asymmetric mode without a consumer that makes barriers"
    );
}
