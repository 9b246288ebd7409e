//! Models of whole rings, run by loom over the shipped code: producers and consumers attach, send,
//! wait, wake each other, are killed, stopped and replaced. Only the kernel is replaced by a model.
//!
//! A wake-up that is lost shows as a deadlock: all threads wait. So no wait of these models spins.

mod deaths;
mod ends;
mod kernel;
mod modes;
mod wake_ups;

use std::sync::Arc;

use kernel::{Handle, Kernel};

use super::Message;
use super::mpsc::{Consumer, Producer, Ring};
use super::options::HandleOptions;
use crate::error::SendError;
use crate::guard::Role;
use crate::guard::strategy::WaitStrategy;
use crate::layout::features::WhenFull;
use crate::layout::superblock::{GuardKind, RingKind, SetIdentity, Superblock};
use crate::layout::view::RingView;
use crate::layout::{Capacity, Geometry};
use crate::lifecycle::RingCore;
use crate::memory::{Object, Segment};

/// Four messages are a quarter: no look at the guard comes in between.
const ROOMY: Capacity = Capacity::model(256);
/// Full with three messages.
const TIGHT: Capacity = Capacity::model(64);

std::thread_local! {
    // Used for the check for forks only; one for all executions, because it costs system calls.
    static SEGMENT: Arc<Segment> = Arc::new(Segment::heap(4096));
}

/// A ring and its kernel.
#[derive(Clone)]
struct Model {
    ring: Ring,
    view: RingView,
    kernel: Arc<Kernel>,
}

impl Model {
    fn new(lanes: usize, capacity: Capacity) -> Self {
        Self::with_modes(lanes, capacity, false)
    }

    /// A ring whose lanes may enter asymmetric mode.
    fn with_modes(lanes: usize, capacity: Capacity, asymmetric_barrier: bool) -> Self {
        let geometry = Geometry::new(lanes, capacity).expect("a sensible number");
        let superblock = Superblock {
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
        };
        let kernel = Arc::new(Kernel::new(lanes));
        let view = RingView::new(SEGMENT.with(Arc::clone), geometry).expect("pages");
        let core = RingCore {
            address: "model".parse().expect("a name"),
            superblock,
            view: view.clone(),
            guard: Box::new(Handle(kernel.clone())),
            object: Object::nowhere(),
            created: true,
            fallback: None,
        };
        let options = HandleOptions {
            wait: WaitStrategy::Block,
            trusts_peers: false,
            asymmetric_barrier,
            linger: std::time::Duration::ZERO,
        };
        Self {
            ring: Ring::new(Arc::new(core), options),
            view,
            kernel,
        }
    }

    fn producer(&self) -> Producer {
        self.ring.attach_producer().expect("a free lane")
    }

    fn consumer(&self) -> Consumer {
        self.ring.attach_consumer().expect("no other consumer")
    }

    /// The kernel's actions for a process that was killed.
    fn bury(&self, role: Role) {
        self.kernel.undo(role);
    }
}

/// Sends a number to whichever consumer is there next.
fn send(producer: &mut Producer, number: u64) {
    while let Err(error) = producer.send(&number.to_le_bytes()) {
        assert_eq!(error, SendError::ConsumerGone);
        producer.accept_next_consumer().expect("the ring is there");
    }
}

fn number_of(message: &Message<'_>) -> u64 {
    u64::from_le_bytes(message.to_vec().try_into().expect("eight bytes"))
}

/// Receives the next number and drops the message.
fn receive(consumer: &mut Consumer) -> u64 {
    number_of(&consumer.recv().expect("a message"))
}
