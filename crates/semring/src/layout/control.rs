//! The words that the two sides share beside the data: the consumer page, and for each lane a
//! producer page and a consumer page. Each line of 128 bytes has one writer.
//!
//! The pages are plain structs of atomics. In a normal build they lie at fixed offsets of the
//! segment (the const asserts hold the format); under loom they are made one by one.

use crate::sync::{AtomicU64, Statistic};

/// Bytes between fields of different writers: two cache lines, because processors fetch in pairs.
pub(crate) const LINE: usize = 128;
/// Bytes of each control page.
pub(crate) const PAGE: usize = 4096;

/// Bytes of a gap between fields. Models have none: they make pages on the stacks of loom's threads, which have 32 KiB.
const fn padding(bytes: usize) -> usize {
    if cfg!(semring_loom) { 0 } else { bytes }
}

/// The page of the ring's consumer, at [`super::CONSUMER_PAGE_OFFSET`]. Only the consumer writes it.
#[repr(C)]
pub(crate) struct ConsumerPage {
    /// CW: the epoch in which the consumer sleeps or is about to, 0 while it is awake. Producers
    /// read it after each commit; its cache line stays shared while the word does not change.
    pub(crate) wait_word: AtomicU64,
    _pad0: [u8; padding(LINE - 8)],
    /// Raised by one by each consumer right after it has taken the role.
    pub(crate) generation: AtomicU64,
    /// 0, [`CONSUMER_CLOSED`] or [`CONSUMER_LEFT`]; set to 0 by each new consumer.
    pub(crate) flags: AtomicU64,
    /// The consumer's process id in its own pid namespace: a diagnostic, never used for a decision.
    pub(crate) pid: AtomicU64,
    /// The sum of all lane generations when a consumer closed the ring: producers up to this sum
    /// are refused.
    pub(crate) refused: AtomicU64,
    /// Generation of the last consumer that makes every CPU execute a barrier before it sleeps, if a
    /// lane is in asymmetric mode: while this is the generation of the present consumer, producers
    /// need no fence of their own.
    pub(crate) barrier: AtomicU64,
    /// When the consumer's process started, in clock ticks since the machine did; 0 once it has left. Like the next word,
    /// used only in memory that outlives its guard.
    pub(crate) holder_started: AtomicU64,
    /// Inode number of the pid namespace in which the consumer has its pid.
    pub(crate) holder_namespace: AtomicU64,
    /// When a consumer released something last, nanoseconds since 1970; coarse, 0 if it is not known. A diagnostic.
    pub(crate) last_received: Statistic,
    _pad1: [u8; padding(LINE - 64)],
    /// The last end-of-stream that was delivered: in the lower half the sum of all lane generations then, in the upper one
    /// how many of those producers had not finished, both modulo 2^32.
    pub(crate) end_of_stream: AtomicU64,
    _pad2: [u8; padding(LINE - 8)],
    /// How often the current (or last) consumer slept in the kernel. Statistics.
    pub(crate) sleeps: Statistic,
    /// How often the current (or last) consumer posted a producer's semaphore. Statistics.
    pub(crate) posts: Statistic,
    _pad3: [u8; padding(PAGE - 3 * LINE - 16)],
}

/// The consumer has closed the ring and is still attached (or was killed before it detached).
pub(crate) const CONSUMER_CLOSED: u64 = 1;
/// The consumer has closed the ring and detached. While a consumer is attached, this value is its
/// predecessor's: the new consumer has not cleared it yet.
pub(crate) const CONSUMER_LEFT: u64 = 2;

/// The producer's page of a lane. Only the lane's producer writes it.
#[repr(C)]
pub(crate) struct ProducerPage {
    /// Position after the last record that is certainly published: a successor starts here.
    pub(crate) committed: AtomicU64,
    /// Raised by one by each producer right after it has taken the lane.
    pub(crate) generation: AtomicU64,
    /// Position at which the current generation began.
    pub(crate) generation_start: AtomicU64,
    /// Messages committed on this lane, over all generations.
    pub(crate) sent: Statistic,
    /// 0, [`LANE_ASYMMETRIC`] or, at the end, [`LANE_FINISHED`]; set to 0 by each new producer.
    pub(crate) flags: AtomicU64,
    /// For producers that store `committed` and `sent` seldom ([`SELDOM_HINTS`](super::features::SELDOM_HINTS)): two pairs
    /// {sent, position}. This version neither reads nor writes them.
    _sent_slots: [Statistic; 4],
    /// Two bookmarks {number, position + 1} ([`BOOKMARKS`](super::features::BOOKMARKS)). As above.
    _bookmarks: [Statistic; 4],
    /// If one of them is the lane's end plus one, the last message is part of something that the next one was to go on
    /// with.
    pub(crate) open_part: [AtomicU64; 2],
    _pad0: [u8; padding(LINE - 120)],
    /// The epoch in which the producer sleeps for room or is about to, 0 while it is awake.
    pub(crate) wait_word: AtomicU64,
    /// Of rings with selective receive: the bytes for which it waits. This version neither reads nor writes it.
    _need: Statistic,
    _pad1: [u8; padding(LINE - 16)],
    /// The producer's process id in its own pid namespace: a diagnostic, never used for a decision.
    pub(crate) pid: AtomicU64,
    /// How often the current (or last) producer slept in the kernel. Statistics.
    pub(crate) sleeps: Statistic,
    /// How often the current (or last) producer posted the consumer's semaphore. Statistics.
    pub(crate) posts: Statistic,
    /// Number of producers that closed or dropped their handle regularly; generation − finished −
    /// (1 if taken) died.
    pub(crate) finished: AtomicU64,
    /// When the producer's process started, as in the consumer's page.
    pub(crate) holder_started: AtomicU64,
    /// Inode number of the pid namespace in which the producer has its pid.
    pub(crate) holder_namespace: AtomicU64,
    /// When this lane's producer sent something last, nanoseconds since 1970; coarse, 0 if it is not known. A diagnostic.
    pub(crate) last_sent: Statistic,
    /// Messages that producers of this lane dropped because it was full.
    pub(crate) dropped: Statistic,
    _pad2: [u8; padding(LINE - 64)],
    /// Of broadcast rings: a line for `front`, then 16 anchors of 16 bytes, then 64 words of 4 bytes.
    _broadcast: [u8; padding(5 * LINE)],
    _pad3: [u8; padding(PAGE - 0x400)],
}

/// The producer of this generation has finished its stream.
pub(crate) const LANE_FINISHED: u64 = 1;
/// The producer is in asymmetric mode: a consumer that is about to sleep must call for a barrier.
pub(crate) const LANE_ASYMMETRIC: u64 = 2;

/// The consumer's page of a lane. Only the consumer writes it.
#[repr(C)]
pub(crate) struct LaneConsumerPage {
    /// Position up to which the producer may overwrite.
    pub(crate) released: AtomicU64,
    /// Messages released on this lane, over all consumers.
    pub(crate) received: Statistic,
    /// How many elements of the array at `released` are released, and that position: see
    /// [`partial_word`](super::array::partial_word). 0 if none of them is.
    pub(crate) partial: AtomicU64,
    /// The most bytes that a consumer found published and not released, when it released some.
    pub(crate) high_water: Statistic,
    /// If one of them is `released` plus one, the message there continues the one before it, which was released: see
    /// [`LaneConsumer::take_part`](crate::ring::consume::LaneConsumer::take_part).
    pub(crate) continued: [AtomicU64; 2],
    _pad0: [u8; padding(LINE - 48)],
    /// Position of impossible bytes plus one, 0 while the lane is sound.
    pub(crate) corrupt_at: AtomicU64,
    _pad1: [u8; padding(LINE - 8)],
    /// How many producers of this lane had finished when the counts were set to zero last. These two are written by
    /// the process that does that, not by the consumer.
    pub(crate) finished_at_reset: Statistic,
    /// How many had died then.
    pub(crate) died_at_reset: Statistic,
    _pad2: [u8; padding(PAGE - 2 * LINE - 16)],
}

#[cfg(not(semring_loom))]
mod offsets {
    use super::*;
    use core::mem::{offset_of, size_of};

    const _: () = {
        assert!(size_of::<ConsumerPage>() == PAGE);
        assert!(offset_of!(ConsumerPage, wait_word) == 0x000);
        assert!(offset_of!(ConsumerPage, generation) == 0x080);
        assert!(offset_of!(ConsumerPage, flags) == 0x088);
        assert!(offset_of!(ConsumerPage, pid) == 0x090);
        assert!(offset_of!(ConsumerPage, refused) == 0x098);
        assert!(offset_of!(ConsumerPage, barrier) == 0x0a0);
        assert!(offset_of!(ConsumerPage, holder_started) == 0x0a8);
        assert!(offset_of!(ConsumerPage, holder_namespace) == 0x0b0);
        assert!(offset_of!(ConsumerPage, last_received) == 0x0b8);
        assert!(offset_of!(ConsumerPage, end_of_stream) == 0x100);
        assert!(offset_of!(ConsumerPage, sleeps) == 0x180);
        assert!(offset_of!(ConsumerPage, posts) == 0x188);

        assert!(size_of::<ProducerPage>() == PAGE);
        assert!(offset_of!(ProducerPage, committed) == 0x000);
        assert!(offset_of!(ProducerPage, generation) == 0x008);
        assert!(offset_of!(ProducerPage, generation_start) == 0x010);
        assert!(offset_of!(ProducerPage, sent) == 0x018);
        assert!(offset_of!(ProducerPage, flags) == 0x020);
        assert!(offset_of!(ProducerPage, _sent_slots) == 0x028);
        assert!(offset_of!(ProducerPage, _bookmarks) == 0x048);
        assert!(offset_of!(ProducerPage, wait_word) == 0x080);
        assert!(offset_of!(ProducerPage, _need) == 0x088);
        assert!(offset_of!(ProducerPage, pid) == 0x100);
        assert!(offset_of!(ProducerPage, sleeps) == 0x108);
        assert!(offset_of!(ProducerPage, posts) == 0x110);
        assert!(offset_of!(ProducerPage, finished) == 0x118);
        assert!(offset_of!(ProducerPage, holder_started) == 0x120);
        assert!(offset_of!(ProducerPage, holder_namespace) == 0x128);
        assert!(offset_of!(ProducerPage, last_sent) == 0x130);
        assert!(offset_of!(ProducerPage, dropped) == 0x138);
        assert!(offset_of!(ProducerPage, _broadcast) == 0x180);
        assert!(offset_of!(ProducerPage, open_part) == 0x068);

        assert!(size_of::<LaneConsumerPage>() == PAGE);
        assert!(offset_of!(LaneConsumerPage, released) == 0x000);
        assert!(offset_of!(LaneConsumerPage, received) == 0x008);
        assert!(offset_of!(LaneConsumerPage, partial) == 0x010);
        assert!(offset_of!(LaneConsumerPage, high_water) == 0x018);
        assert!(offset_of!(LaneConsumerPage, continued) == 0x020);
        assert!(offset_of!(LaneConsumerPage, corrupt_at) == 0x080);
        assert!(offset_of!(LaneConsumerPage, finished_at_reset) == 0x100);
        assert!(offset_of!(LaneConsumerPage, died_at_reset) == 0x108);
    };
}

#[cfg(semring_loom)]
mod models {
    use super::*;

    impl ConsumerPage {
        pub(crate) fn new() -> Self {
            Self {
                wait_word: AtomicU64::new(0),
                _pad0: [],
                generation: AtomicU64::new(0),
                flags: AtomicU64::new(0),
                pid: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                barrier: AtomicU64::new(0),
                holder_started: AtomicU64::new(0),
                holder_namespace: AtomicU64::new(0),
                last_received: Statistic::new(0),
                _pad1: [],
                end_of_stream: AtomicU64::new(0),
                _pad2: [],
                sleeps: Statistic::new(0),
                posts: Statistic::new(0),
                _pad3: [],
            }
        }
    }

    impl ProducerPage {
        pub(crate) fn new() -> Self {
            Self {
                committed: AtomicU64::new(0),
                generation: AtomicU64::new(0),
                generation_start: AtomicU64::new(0),
                sent: Statistic::new(0),
                flags: AtomicU64::new(0),
                _sent_slots: [0; 4].map(Statistic::new),
                _bookmarks: [0; 4].map(Statistic::new),
                open_part: [0; 2].map(AtomicU64::new),
                _pad0: [],
                wait_word: AtomicU64::new(0),
                _need: Statistic::new(0),
                _pad1: [],
                pid: AtomicU64::new(0),
                sleeps: Statistic::new(0),
                posts: Statistic::new(0),
                finished: AtomicU64::new(0),
                holder_started: AtomicU64::new(0),
                holder_namespace: AtomicU64::new(0),
                last_sent: Statistic::new(0),
                dropped: Statistic::new(0),
                _pad2: [],
                _broadcast: [],
                _pad3: [],
            }
        }
    }

    impl LaneConsumerPage {
        pub(crate) fn new() -> Self {
            Self {
                released: AtomicU64::new(0),
                received: Statistic::new(0),
                partial: AtomicU64::new(0),
                high_water: Statistic::new(0),
                continued: [0; 2].map(AtomicU64::new),
                _pad0: [],
                corrupt_at: AtomicU64::new(0),
                _pad1: [],
                finished_at_reset: Statistic::new(0),
                died_at_reset: Statistic::new(0),
                _pad2: [],
            }
        }
    }
}
