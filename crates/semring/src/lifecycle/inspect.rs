//! Inspecting a ring without a role: mapped read-only, changing nothing.

use std::sync::Arc;

use super::RingCore;
use super::open::{open, read_superblock};
use crate::error::OpenError;
use crate::guard::Role;
use crate::layout::array::{ARRAY_HEADER_BYTES, elements_released};
use crate::layout::control::PAGE;
use crate::layout::features::WhenFull;
use crate::layout::record::{CUT_BYTES, HEADER_BYTES, Record, decode};
use crate::layout::schema::Schema;
use crate::layout::superblock::{GuardKind, RingKind, Superblock};
use crate::layout::view::RingView;
use crate::layout::{Geometry, Position};
use crate::memory::address::Backend;
use crate::memory::{self, Access, Address, MemoryError, Object};
use crate::sync::{Ordering, Statistic};

/// Whether a ring is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RingState {
    /// No process is attached.
    Idle,
    /// A producer or the consumer is attached.
    Active,
    /// Its semaphores are gone or in another IPC namespace: no process here can use it.
    GuardMissing,
    /// Its semaphores are gone, and the next process that opens it makes new ones (rings of files and
    /// memfds).
    GuardRenewable,
}

impl std::fmt::Display for RingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::GuardMissing => "guard_missing",
            Self::GuardRenewable => "dormant",
        })
    }
}

/// The state of one producer's buffer (lane) at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneInfo {
    /// The attached producer: its pid as seen by this process, or in the producer's own pid namespace
    /// if that can't be seen from here.
    pub producer_pid: Option<u32>,
    /// Messages sent since the ring was made.
    ///
    /// After kills it may be too high, never too low: each producer that is killed right after it published a
    /// message, a batch or an array may have that counted twice.
    pub sent_messages: u64,
    /// Messages received and released since the ring was made.
    ///
    /// After kills it may be too high, never too low: what a consumer was about to release when it was killed may
    /// count twice, because it is delivered again. That is what one store gives back: the messages of about a
    /// quarter of the lane, of a batch, or of an array.
    pub received_messages: u64,
    /// Messages that its producers dropped because this buffer was full: see
    /// [`Builder::when_full`](crate::Builder::when_full).
    pub lost_messages: u64,
    /// Messages sent whose room the consumer has not given back.
    pub unread_messages: u64,
    /// Bytes sent whose room the consumer has not given back, including headers and padding.
    pub used_bytes: u64,
    /// The most bytes that were in use at once.
    ///
    /// As the consumer found when it released some, or those that are in use now: exact but for less than a
    /// quarter of the capacity. Compare it with [`RingInfo::capacity_bytes`].
    pub high_water_bytes: u64,
    /// Producers that attached so far.
    pub attached_producers: u64,
    /// Producers that left on purpose, since the ring was made or its counts were
    /// [reset](crate::reset_counts).
    pub finished_producers: u64,
    /// Producers that ended without leaving: killed, crashed, in a panic, or aborted.
    ///
    /// What they meant to send after their last message is missing. Counted as the finished ones. 0 for a ring
    /// whose semaphores are gone.
    pub died_producers: u64,
    /// The producer sleeps until there is room.
    pub producer_sleeps: bool,
    /// The position of damaged bytes, if any were found.
    pub corrupt_at: Option<Position>,
}

/// The state of a ring at one moment.
///
/// Counters of different lanes are read one after the other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RingInfo {
    /// The name, without a prefix such as `posix:`.
    pub name: String,
    /// The address under which it is found.
    pub address: Address,
    /// The kind of memory.
    pub backend: Backend,
    /// SPSC or MPSC.
    pub kind: RingKind,
    /// How deaths are detected and sleepers woken: semaphores or pipes.
    pub guard: GuardKind,
    /// The ring's own identity, 32 hexadecimal digits.
    pub uuid: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner's user id.
    pub uid: u32,
    /// Owner's group id.
    pub gid: u32,
    /// Bytes that each producer's buffer (lane) holds.
    pub capacity_bytes: u64,
    /// Bytes of the ring's shared memory.
    pub segment_bytes: u64,
    /// The state of each producer's buffer (lane).
    pub lanes: Vec<LaneInfo>,
    /// The attached consumer: its pid as seen by this process, or in the consumer's own pid namespace
    /// if that can't be seen from here.
    pub consumer_pid: Option<u32>,
    /// The consumer sleeps until there is a message.
    pub consumer_sleeps: bool,
    /// The last consumer closed the ring.
    pub consumer_closed: bool,
    /// The last consumer closed the ring, and no producer has come since: the unread messages were
    /// refused, and no producer waits for them.
    pub unread_refused: bool,
    /// Whether it is in use.
    pub state: RingState,
    /// What its producers do when their buffers are full.
    pub when_full: WhenFull,
    /// What its messages are, if its creator has said that ([`Builder::schema`](crate::Builder::schema)).
    pub schema: Option<Schema>,
    /// Made by a program because it was missing, and removed by its last user (*auto-removed*).
    pub auto_remove: bool,
    /// When it was made, nanoseconds since 1970.
    pub created_ns: u64,
    /// Process id of the creator.
    pub creator_pid: u32,
}

impl RingInfo {
    /// Attached producers.
    #[must_use]
    pub fn producers(&self) -> usize {
        self.lanes
            .iter()
            .filter(|lane| lane.producer_pid.is_some())
            .count()
    }

    /// Producers that finished their stream, since the ring was made.
    #[must_use]
    pub fn finished_producers(&self) -> u64 {
        self.sum(|lane| lane.finished_producers)
    }

    /// Producers that ended without finishing, since the ring was made: killed, crashed, or in a panic.
    ///
    /// Their committed messages were delivered or will be; the rest of their streams is missing. So if this number
    /// grew during a stream, the stream may be truncated.
    ///
    /// Exact while no producer is attached, as at the end of a stream. While one producer detaches,
    /// another one's death may not be counted for a moment.
    ///
    /// ```
    /// # let name = format!("doc-died-{}", std::process::id());
    /// let ring = semring::spsc::Builder::new(&name).create()?;
    /// let mut producer = ring.attach_producer()?;
    /// producer.send(b"all")?;
    /// drop(producer);
    /// let info = ring.info()?;
    /// assert_eq!((info.finished_producers(), info.died_producers()), (1, 0));
    /// # ring.remove()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn died_producers(&self) -> u64 {
        self.sum(|lane| lane.died_producers)
    }

    /// The words may have any value: adds without overflow.
    fn sum(&self, field: fn(&LaneInfo) -> u64) -> u64 {
        self.lanes.iter().map(field).fold(0, u64::saturating_add)
    }

    /// Messages sent whose room the consumer has not given back, over all lanes.
    #[must_use]
    pub fn unread_messages(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.unread_messages).sum()
    }

    /// The most bytes that any lane has held unread: the highest of [`LaneInfo::high_water_bytes`].
    #[must_use]
    pub fn high_water_bytes(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.high_water_bytes).max().unwrap_or(0)
    }

    /// Messages that the producers dropped because their buffers were full.
    #[must_use]
    pub fn lost_messages(&self) -> u64 {
        self.sum(|lane| lane.lost_messages)
    }

    /// Bytes sent whose room the consumer has not given back, over all lanes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.used_bytes).sum()
    }
}

/// A ring's identity as people write it: 32 hexadecimal digits.
pub(crate) fn uuid_text(superblock: &Superblock) -> String {
    uuid_digits(&superblock.uuid)
}

pub(super) fn uuid_digits(uuid: &[u8; 16]) -> String {
    uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The records between `released` and the end of a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unread {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// The walk ended at impossible bytes: more records may follow them.
    pub(crate) damaged: bool,
}

/// Bytes of a lane that are copied at a time for inspection.
const CHUNK: u64 = 64 << 10;

/// Walks over the records that are published and not released: at most a capacity, whatever the bytes
/// are. If the view is a copy, it is updated on the way.
pub(crate) fn unread(object: &Object, view: &RingView, geometry: Geometry, lane: usize) -> Unread {
    let capacity = geometry.capacity();
    let data = geometry.lane_data(lane);
    let lane = view.lane(lane);
    let start = Position::new(lane.consumer().released.load(Ordering::Acquire));
    let mut unread = Unread::default();
    if !start.is_aligned() {
        unread.damaged = true;
        return unread;
    }
    // Messages of the first array that are released already.
    let partial = lane.consumer().partial.load(Ordering::Relaxed);
    let mut released = elements_released(partial, start);
    let mut there = 0;
    while unread.bytes < capacity.get() {
        let position = start.advance(unread.bytes);
        // (An array at the end of the data has its second word there.)
        let header = ARRAY_HEADER_BYTES.min(capacity.bytes_to_end(position));
        if unread.bytes + header > there {
            let offset = capacity.offset_of(position).get();
            let len = CHUNK.min(capacity.get() - offset);
            let at = data + offset as usize;
            if object.copy_range(view.segment(), at, len as usize).is_err() {
                unread.damaged = true;
                break;
            }
            there = unread.bytes + len;
        }
        match decode(
            lane.header(position).load(Ordering::Acquire),
            position,
            capacity,
        ) {
            Ok(Record::Message(header)) => {
                unread.messages += 1;
                unread.bytes += header.bytes();
            }
            Ok(Record::Array(header)) => {
                let word = lane.header(position.advance(HEADER_BYTES));
                let Ok(array) = header.with_word(word.load(Ordering::Relaxed)) else {
                    unread.damaged = true;
                    break;
                };
                let count = array.count();
                unread.messages += u64::from(if released < count {
                    count - released
                } else {
                    count
                });
                unread.bytes += array.bytes();
            }
            Ok(Record::Pad { bytes }) => unread.bytes += bytes,
            Ok(Record::Cut) => unread.bytes += CUT_BYTES,
            Ok(Record::Unpublished) => break,
            Err(_) => {
                unread.damaged = true;
                break;
            }
        }
        released = 0;
    }
    unread
}

/// The holder of a role: its pid as seen by this process, or in its own pid namespace if that can't be
/// seen from here.
pub(super) fn pid_of(ring: &RingCore, role: Role) -> u32 {
    let said = || match role {
        Role::Consumer => ring.view.consumer().pid.load(Ordering::Relaxed) as u32,
        Role::Producer { lane } => {
            ring.view.lane(lane).producer().pid.load(Ordering::Relaxed) as u32
        }
    };
    let seen = ring.guard.last_holder(role).ok().flatten();
    seen.filter(|&pid| pid != 0).unwrap_or_else(said)
}

/// The control pages of a ring, for inspection. Memory that other processes could truncate is
/// copied.
pub(super) fn look(object: &Object, geometry: Geometry) -> Result<RingView, MemoryError> {
    let segment = Arc::new(object.map_for_inspection(geometry.segment_bytes())?);
    object.copy_range(&segment, 0, geometry.data_offset())?;
    RingView::new(segment, geometry).ok_or(MemoryError::WrongType(
        "shorter than its superblock requires",
    ))
}

/// A ring that this process has open, at this moment.
pub(crate) fn observe(ring: &RingCore) -> Result<RingInfo, OpenError> {
    let name = ring.address.to_string();
    let ownership = ring
        .object
        .ownership()
        .map_err(|error| super::open::memory_error(&name, error))?;
    let taken = |role| matches!(ring.guard.is_taken(role), Ok(true));
    let (object, view) = (&ring.object, &ring.view);
    let page = view.consumer();
    // Before the lanes: if a consumer detaches in the meantime, messages that it had not read by
    // then must not look as if they were left behind.
    let consumer_pid = taken(Role::Consumer).then(|| pid_of(ring, Role::Consumer));
    let lanes: Vec<LaneInfo> = (0..ring.lanes())
        .map(|lane| {
            let role = Role::Producer { lane };
            let is_taken = || Some(taken(role));
            let info = lane_info(object, view, ring.superblock.geometry, lane, is_taken);
            let producer_pid = info.producer_pid.map(|_| pid_of(ring, role));
            LaneInfo {
                producer_pid,
                ..info
            }
        })
        .collect();
    let used = consumer_pid.is_some() || lanes.iter().any(|lane| lane.producer_pid.is_some());
    let info = RingInfo {
        lanes,
        consumer_pid,
        consumer_sleeps: page.wait_word.load(Ordering::Relaxed) != 0 && consumer_pid.is_some(),
        consumer_closed: page.flags.load(Ordering::Relaxed) != 0,
        unread_refused: super::consumer_left_on_purpose(ring),
        state: if used {
            RingState::Active
        } else {
            RingState::Idle
        },
        ..outline(&ring.address, &ring.superblock, ownership)
    };
    if view.segment().is_truncated() {
        return Err(super::truncated::error(&name));
    }
    Ok(info)
}

/// How often a lane is read in the hope that no producer attaches or detaches in the meantime.
const LOOKS: usize = 8;

/// `is_taken` returns `None` where this is unknown.
fn lane_info(
    object: &Object,
    view: &RingView,
    geometry: Geometry,
    lane: usize,
    is_taken: impl Fn() -> Option<bool>,
) -> LaneInfo {
    let lane_view = view.lane(lane);
    let producer = lane_view.producer();
    let consumer = lane_view.consumer();
    // Attaching is: role slot, generation; leaving is: finished, role slot. With both counts the same before and
    // after the look at the role slot, a free slot means that exactly `finished` of them finished their
    // stream.
    let counts = || {
        // If a copy can't be updated, its old bytes are used.
        let pages = geometry.consumer_page(lane) + PAGE - geometry.producer_page(lane);
        let _ = object.copy_range(view.segment(), geometry.producer_page(lane), pages);
        let attached = producer.generation.load(Ordering::SeqCst);
        (attached, producer.finished.load(Ordering::SeqCst))
    };
    let (mut attached, mut finished) = counts();
    let mut taken = is_taken();
    for _ in 0..LOOKS {
        let again = counts();
        if again == (attached, finished) {
            break;
        }
        (attached, finished) = again;
        taken = is_taken();
    }
    let unread = unread(object, view, geometry, lane);
    let died = taken.map_or(0, |taken| {
        let left = attached.saturating_sub(finished);
        left.saturating_sub(u64::from(taken))
            .saturating_sub(consumer.died_at_reset.load(Ordering::Relaxed))
    });
    let finished = finished.saturating_sub(consumer.finished_at_reset.load(Ordering::Relaxed));
    let taken = taken.unwrap_or(false);
    LaneInfo {
        producer_pid: taken.then(|| producer.pid.load(Ordering::Relaxed) as u32),
        sent_messages: producer.sent.load(Ordering::Relaxed),
        received_messages: consumer.received.load(Ordering::Relaxed),
        lost_messages: producer.dropped.load(Ordering::Relaxed),
        // Before the first release there is no mark.
        high_water_bytes: consumer
            .high_water
            .load(Ordering::Relaxed)
            .max(unread.bytes)
            .min(geometry.capacity().get()),
        unread_messages: unread.messages,
        used_bytes: unread.bytes,
        attached_producers: attached,
        finished_producers: finished,
        died_producers: died,
        producer_sleeps: taken && producer.wait_word.load(Ordering::Relaxed) != 0,
        corrupt_at: consumer
            .corrupt_at
            .load(Ordering::Relaxed)
            .checked_sub(1)
            .map(Position::new),
    }
}

/// Sets the counts of finished and died producers of a ring to zero.
pub(crate) fn reset_counts(address: &Address) -> Result<(), OpenError> {
    let ring = open(address, Access::ReadWrite)?;
    let info = observe(&ring)?;
    for (number, lane) in info.lanes.iter().enumerate() {
        let view = ring.view.lane(number);
        let page = view.consumer();
        // Two at once both add what they saw to what they found: a count can come out too low until the next
        // attachment, and nothing else depends on it. Killed between two lanes: some are reset.
        let add = |word: &Statistic, count: u64| {
            let reset = word.load(Ordering::Relaxed).wrapping_add(count);
            word.store(reset, Ordering::Relaxed);
        };
        add(&page.finished_at_reset, lane.finished_producers);
        add(&page.died_at_reset, lane.died_producers);
    }
    Ok(())
}

/// A ring without its guard. The attached processes are unknown; the unread messages can be counted.
fn of_memory(
    address: &Address,
    superblock: &Superblock,
    object: &Object,
) -> Result<RingInfo, MemoryError> {
    let geometry = superblock.geometry;
    let view = look(object, geometry)?;
    let lanes = (0..geometry.lanes())
        .map(|lane| lane_info(object, &view, geometry, lane, || None))
        .collect();
    Ok(RingInfo {
        lanes,
        consumer_closed: view.consumer().flags.load(Ordering::Relaxed) != 0,
        state: if object.outlives_its_guard() {
            RingState::GuardRenewable
        } else {
            RingState::GuardMissing
        },
        ..outline(address, superblock, object.ownership()?)
    })
}

/// The description from the superblock alone.
fn outline(address: &Address, superblock: &Superblock, ownership: memory::Ownership) -> RingInfo {
    RingInfo {
        name: superblock.name.clone(),
        address: address.clone(),
        backend: address.backend(),
        kind: superblock.kind,
        guard: superblock.guard,
        uuid: uuid_text(superblock),
        mode: ownership.mode,
        uid: ownership.uid,
        gid: ownership.gid,
        capacity_bytes: superblock.geometry.capacity().get(),
        segment_bytes: superblock.geometry.segment_bytes() as u64,
        lanes: Vec::new(),
        consumer_pid: None,
        consumer_sleeps: false,
        consumer_closed: false,
        unread_refused: false,
        state: RingState::GuardMissing,
        when_full: superblock.when_full,
        schema: superblock.schema,
        auto_remove: superblock.auto_remove,
        created_ns: superblock.created_ns,
        creator_pid: superblock.creator_pid,
    }
}

/// Looks at the ring at an address.
pub(crate) fn inspect(address: &Address) -> Result<RingInfo, OpenError> {
    match open(address, Access::ReadOnly) {
        Ok(ring) => observe(&ring),
        Err(OpenError::GuardMissing { name, why }) => {
            let lost = |_| OpenError::GuardMissing {
                name: name.clone(),
                why: why.clone(),
            };
            let place = address.place().map_err(|_| lost(()))?;
            let object = Object::open(&place, Access::ReadOnly)
                .map_err(|error| super::open::memory_error(&name, error))?;
            let superblock = read_superblock(&name, &object)?.ok_or_else(|| lost(()))?;
            of_memory(address, &superblock, &object)
                .map_err(|error| super::open::memory_error(&name, error))
        }
        Err(error) => Err(error),
    }
}

/// All rings that this user may inspect, POSIX first. Objects that are not rings, or can't be read,
/// are left out.
pub(crate) fn list() -> Vec<RingInfo> {
    memory::places()
        .into_iter()
        .filter_map(|place| {
            let object = Object::open(&place, Access::ReadOnly).ok()?;
            // Inspecting a System V segment attaches it: skip those of other programs.
            object
                .len()
                .ok()
                .filter(|&len| super::open::plausible_length(len))?;
            let superblock = Superblock::decode(&*object.head().ok()?).ok()?;
            let address = Address::of_place(&place, &superblock.name);
            // No ring has a name that is not a valid address.
            address.is_valid().then(|| inspect(&address).ok())?
        })
        .collect()
}

/// Whether the kernel permits `membarrier(2)`, which makes streams of small messages faster.
#[must_use]
pub fn has_membarrier() -> bool {
    crate::os::barrier::is_available()
}
