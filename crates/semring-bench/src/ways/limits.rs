//! Limits of the machine: what two CPUs can do at best, without a queue.
#![allow(unsafe_code)]

use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::segment::Segment;
use super::way::{Category, End, Setup, Spec, Way};
use crate::error::{Result, wrong_content};
use crate::link::Link;
use crate::payload::{Bytes, Message, check, fill, origin, word};
use crate::workload::Workload;

pub(super) const WAYS: [Way; 2] = [
    Way {
        name: "limit-line",
        label: "limit: one cache line",
        about: "The least possible latency: one cache line that both sides write, there and back.",
        category: Category::Limit,
        obstacle: |spec| {
            (spec.workload != Workload::RoundTrip).then(|| "a limit of round trips".into())
        },
        make: make_line,
        open: open_line,
    },
    Way {
        name: "limit-blocks",
        label: "limit: fill and check",
        about: "The highest possible rate: blocks of 64 KiB that one CPU fills and the other checks, in place.",
        category: Category::Limit,
        obstacle: |spec| (spec.workload != Workload::OneWay).then(|| "a limit of one way".into()),
        make: make_blocks,
        open: open_blocks,
    },
];

const LINE: usize = 128;

/// One line with a word for each direction.
struct LineLink {
    bytes: Segment,
    sends: usize,
    receives: usize,
    last: u64,
}

fn make_line(mut spec: Spec) -> Result<Setup> {
    let (bytes, id) = Segment::make(LINE)?;
    spec.ids = vec![id];
    let link = LineLink {
        bytes,
        sends: 0,
        receives: 8,
        last: 0,
    };
    Ok(Setup::named(spec, link))
}

fn open_line(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let id = spec.ids.first().ok_or("no segment was named")?;
    Ok(Box::new(LineLink {
        bytes: Segment::open(*id, LINE)?,
        sends: 8,
        receives: 0,
        last: 0,
    }))
}

impl<M: Message> Link<M> for LineLink {
    /// Only the first word travels.
    #[inline]
    fn send(&mut self, message: &M) -> Result<()> {
        let (_, number) = origin(message.first());
        self.bytes
            .word(self.sends)
            .store(number + 1, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn receive(&mut self, message: &mut M) -> Result<()> {
        let found = self.bytes.word(self.receives);
        loop {
            let next = found.load(Ordering::Acquire);
            if next != self.last {
                self.last = next;
                fill(message.words_mut(), word(0, next - 1));
                return Ok(());
            }
            spin_loop();
        }
    }
}

/// Blocks in turn, each with a counter of how often it was filled and emptied. A block counts as the messages
/// that would fill it: the rate without any cost for each message.
struct BlockLink {
    bytes: Segment,
}

const BLOCK: usize = 64 << 10;
/// Number of blocks: together they are as large as a ring for messages of this size.
const BLOCKS: u64 = 16;
const ALL_BYTES: usize = BLOCKS as usize * (BLOCK + LINE);

fn make_blocks(mut spec: Spec) -> Result<Setup> {
    let (bytes, id) = Segment::make(ALL_BYTES)?;
    spec.ids = vec![id];
    Ok(Setup::named(spec, BlockLink { bytes }))
}

fn open_blocks(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    let id = spec.ids.first().ok_or("no segment was named")?;
    let bytes = Segment::open(*id, ALL_BYTES)?;
    Ok(Box::new(BlockLink { bytes }))
}

/// The blocks that these messages complete.
fn blocks(numbers: Range<u64>, size: usize) -> Range<u64> {
    let block = |number: u64| number * size as u64 / BLOCK as u64;
    block(numbers.start)..block(numbers.end)
}

impl BlockLink {
    /// Waits until it is the turn of `side` at this block, works on it, and passes it on.
    #[inline]
    fn pass(
        &self,
        number: u64,
        side: u64,
        work: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let index = (number % BLOCKS) as usize;
        let turn = self.bytes.word(index * LINE);
        let mine = number / BLOCKS * 2 + side;
        while turn.load(Ordering::Acquire) != mine {
            spin_loop();
        }
        let offset = BLOCKS as usize * LINE + index * BLOCK;
        // SAFETY: the turn gives this side exclusive access.
        work(unsafe { self.bytes.own(offset, BLOCK) })?;
        turn.store(mine + 1, Ordering::Release);
        Ok(())
    }
}

impl<M: Bytes> Link<M> for BlockLink {
    fn send(&mut self, _: &M) -> Result<()> {
        Err("blocks are filled in place".into())
    }

    fn receive(&mut self, _: &mut M) -> Result<()> {
        Err("blocks are checked in place".into())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        for number in blocks(numbers, message.bytes().len()) {
            self.pass(number, 0, |block| {
                fill(block.as_chunks_mut::<8>().0, word(0, number));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        for number in blocks(numbers, message.bytes().len()) {
            self.pass(number, 1, |block| {
                if check(block.as_chunks::<8>().0, word(0, number)) {
                    Ok(())
                } else {
                    Err(wrong_content(number))
                }
            })?;
        }
        Ok(())
    }
}
