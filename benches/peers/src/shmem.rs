//! shmem-ipc: a ring in a memfd, an eventfd to wait for messages and one to wait for room.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use semring_bench::{
    End, Link, Setup, Message, Result, Category, Spec, Typed, Way, Workload, check, fill, wrong_content,
    one_sender_only, word,
};
use shmem_ipc::sharedring::{Receiver, Sender};
use zerocopy::{AsBytes, FromBytes};

use crate::capacity_bytes;
use crate::words::unusual_size;

pub(crate) const WAYS: [Way; 2] = [
    Way {
        name: "shmem-ipc",
        label: "shmem-ipc",
        about: "A ring in a memfd with eventfds: one `send_raw` and one `receive_raw` for each message.",
        category: Category::Library,
        obstacle: |spec| unusual_size(spec).or_else(|| one_sender_only(spec)),
        make: |spec| make_sized(spec, 1),
        open: |spec, _| open_sized(spec, 1),
    },
    Way {
        name: "shmem-ipc-batch",
        label: "shmem-ipc, batches of 32",
        about: "The same, up to 32 messages a call.",
        category: Category::Library,
        obstacle: |spec| {
            let bulk = spec.workload != Workload::OneWay;
            unusual_size(spec).or_else(|| bulk.then(|| "messages leave in bulk".into()))
        },
        make: |spec| make_sized(spec, 32),
        open: |spec, _| open_sized(spec, 32),
    },
];

/// A type whose bytes may be anything, as the crate wants it of what travels through its ring.
trait Item: Message<Word = u64> + Copy + AsBytes + FromBytes + 'static {}
impl<T: Message<Word = u64> + Copy + AsBytes + FromBytes + 'static> Item for T {}

/// Of arrays only some are such types: those of up to 32, and larger ones that are powers of two.
macro_rules! items {
    ($($size:literal [$row:literal; $rows:literal],)*) => {
        fn make_sized(spec: Spec, batch: u64) -> Result<Setup> {
            match spec.size {
                $($size => make::<[[u64; $row]; $rows]>(spec, batch),)*
                other => Err(format!("not built for messages of {other} bytes").into()),
            }
        }

        fn open_sized(spec: &Spec, batch: u64) -> Result<Box<dyn End>> {
            match spec.size {
                $($size => open::<[[u64; $row]; $rows]>(spec, batch),)*
                other => Err(format!("not built for messages of {other} bytes").into()),
            }
        }
    };
}

items! {
    8 [1; 1],
    16 [2; 1],
    32 [4; 1],
    48 [6; 1],
    64 [8; 1],
    128 [16; 1],
    256 [32; 1],
    512 [32; 2],
    1024 [32; 4],
    2048 [32; 8],
    4096 [32; 16],
    16384 [32; 64],
    65536 [32; 256],
}

struct RingLink<T> {
    output: Sender<T>,
    input: Receiver<T>,
    batch: u64,
}

fn make<T: Item>(mut spec: Spec, batch: u64) -> Result<Setup> {
    let capacity = capacity_bytes(spec.size) / spec.size;
    let link: RingLink<T> = RingLink {
        output: Sender::new(capacity)?,
        input: Receiver::new(capacity)?,
        batch,
    };
    let (output, input) = (&link.output, &link.input);
    let files = [
        output.memfd().as_file(),
        output.empty_signal(),
        output.full_signal(),
        input.memfd().as_file(),
        input.empty_signal(),
        input.full_signal(),
    ];
    for file in files {
        let fd = file.as_raw_fd();
        // SAFETY: takes no memory; an open descriptor of ours. The other process finds it at its number.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
        spec.ids.push(fd);
    }
    Ok(Setup::named(spec, Typed::new(link)))
}

fn open<T: Item>(spec: &Spec, batch: u64) -> Result<Box<dyn End>> {
    let capacity = capacity_bytes(spec.size) / spec.size;
    let file = |fd: RawFd| {
        // SAFETY: inherited, and not used by other code here.
        unsafe { File::from_raw_fd(fd) }
    };
    let [memory, empty, full, back, back_empty, back_full] = spec.ids[..] else {
        return Err("six descriptors are inherited".into());
    };
    let link: RingLink<T> = RingLink {
        output: Sender::open(capacity, file(back), file(back_empty), file(back_full))?,
        input: Receiver::open(capacity, file(memory), file(empty), file(full))?,
        batch,
    };
    Ok(Box::new(Typed::new(link)))
}

impl<T: Item> RingLink<T> {
    /// Sends up to this many messages, as many as there is room for in one piece.
    #[inline]
    fn write(&mut self, most: u64, mut next: impl FnMut(u64) -> T) -> Result<u64> {
        let mut sent = 0;
        self.output.send_raw(|place, room| {
            sent = most.min(room as u64);
            for index in 0..sent {
                // SAFETY: within the room.
                let slot = unsafe { place.add(index as usize) };
                // SAFETY: ours until this returns.
                unsafe { slot.write(next(index)) };
            }
            sent as usize
        })?;
        if sent == 0 {
            self.output.block_until_writable()?;
        }
        Ok(sent)
    }

    /// Receives up to this many messages, as many as are there in one piece.
    #[inline]
    fn read(&mut self, most: u64, mut look: impl FnMut(u64, &T) -> Result<()>) -> Result<u64> {
        let (mut received, mut seen) = (0, Ok(()));
        self.input.receive_raw(|place, there| {
            received = most.min(there as u64);
            for index in 0..received {
                // SAFETY: within the published range.
                let slot = unsafe { place.add(index as usize) };
                // SAFETY: ours until this returns: the other side is this program, too.
                seen = look(index, unsafe { &*slot });
                if seen.is_err() {
                    break;
                }
            }
            received as usize
        })?;
        seen?;
        if received == 0 {
            self.input.block_until_readable()?;
        }
        Ok(received)
    }
}

/// A message of which every word is this one.
#[inline]
fn all<T: Item>(word: u64) -> T {
    let mut message = T::zeroes(size_of::<T>());
    fill(message.words_mut(), word);
    message
}

impl<T: Item> Link<T> for RingLink<T> {
    fn send(&mut self, message: &T) -> Result<()> {
        while self.write(1, |_| *message)? == 0 {}
        Ok(())
    }

    fn receive(&mut self, message: &mut T) -> Result<()> {
        let mut take = |_, received: &T| {
            *message = *received;
            Ok(())
        };
        while self.read(1, &mut take)? == 0 {}
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, _: &mut T) -> Result<()> {
        let mut next = numbers.start;
        while next < numbers.end {
            let most = self.batch.min(numbers.end - next);
            next += self.write(most, |index| all(word(0, next + index)))?;
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, _: &mut T) -> Result<()> {
        let mut next = numbers.start;
        while next < numbers.end {
            let most = self.batch.min(numbers.end - next);
            next += self.read(most, |index, message| {
                if check(message.words(), word(0, next + index)) {
                    Ok(())
                } else {
                    Err(wrong_content(next + index))
                }
            })?;
        }
        Ok(())
    }
}
