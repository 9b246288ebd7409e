//! shaq: rings of fixed slots in a mapped file, for one sender and one receiver or for many of each. Its
//! ends never wait by themselves.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::PathBuf;

use semring_bench::{
    End, Link, Setup, Result, Category, Spec, CleanupGuard, Typed, Way, Workload, check, wrong_content,
    one_sender_only, word,
};
use shaq::{mpmc, spsc};

use crate::words::{Words, by_size, call_by_size, unusual_size};
use crate::{capacity_bytes, until};

pub(crate) const WAYS: [Way; 3] = [
    Way {
        name: "shaq",
        label: "shaq",
        about: "A ring for one sender: each message published by itself, filled and checked in place.",
        category: Category::Library,
        obstacle: |spec| never_sleeps(spec).or_else(|| one_sender_only(spec)),
        make: |spec| by_size!(spec.size, make(spec, 1)),
        open: |spec, _| by_size!(spec.size, open(spec, 1)),
    },
    Way {
        name: "shaq-batch",
        label: "shaq, batches of 32",
        about: "The same, 32 messages published and released together.",
        category: Category::Library,
        obstacle: |spec| never_sleeps(spec).or_else(|| one_way_only(spec)),
        make: |spec| by_size!(spec.size, make(spec, 32)),
        open: |spec, _| by_size!(spec.size, open(spec, 32)),
    },
    Way {
        name: "shaq-mpmc",
        label: "shaq, MPMC",
        about: "A ring for many senders: `try_write` and `try_read`.",
        category: Category::Library,
        obstacle: never_sleeps,
        make: |spec| by_size!(spec.size, make_mpmc(spec)),
        open: |spec, _| by_size!(spec.size, open_mpmc(spec)),
    },
];

fn never_sleeps(spec: &Spec) -> Option<String> {
    if spec.workload == Workload::WakeUp {
        return Some("never sleeps".into());
    }
    unusual_size(spec)
}

fn one_way_only(spec: &Spec) -> Option<String> {
    (spec.workload != Workload::OneWay).then(|| "messages leave in bulk".into())
}

fn path(spec: &Spec, direction: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{}-{direction}", spec.name))
}

fn new_file(spec: &Spec, direction: &str) -> Result<(File, CleanupGuard)> {
    let path = path(spec, direction);
    let cleanup = CleanupGuard::file(path.clone(), || {
        File::create_new(&path)?;
        Ok(())
    })?;
    Ok((file(spec, direction)?, cleanup))
}

fn file(spec: &Spec, direction: &str) -> Result<File> {
    let path = path(spec, direction);
    Ok(OpenOptions::new().read(true).write(true).open(path)?)
}

fn file_bytes(size: usize) -> usize {
    capacity_bytes(size) + 4096
}

struct RingLink<const N: usize> {
    output: spsc::Producer<Words<N>>,
    input: spsc::Consumer<Words<N>>,
    /// How many messages are published together.
    batch: u64,
    _cleanup: Vec<CleanupGuard>,
}

fn make<const N: usize>(spec: Spec, batch: u64) -> Result<Setup> {
    let bytes = file_bytes(spec.size);
    let (there, there_cleanup) = new_file(&spec, "there")?;
    let (back, back_cleanup) = new_file(&spec, "back")?;
    let link: RingLink<N> = RingLink {
        // SAFETY: a new file of which no other code makes a queue; words are valid everywhere.
        output: unsafe { spsc::Producer::create(&there, bytes) }?,
        // SAFETY: as above.
        input: unsafe { spsc::Consumer::create(&back, bytes) }?,
        batch,
        _cleanup: vec![there_cleanup, back_cleanup],
    };
    Ok(Setup::named(spec, Typed::new(link)))
}

fn open<const N: usize>(spec: &Spec, batch: u64) -> Result<Box<dyn End>> {
    let link: RingLink<N> = RingLink {
        // SAFETY: the only other process, with the same words.
        output: unsafe { spsc::Producer::join(&file(spec, "back")?) }?,
        // SAFETY: as above.
        input: unsafe { spsc::Consumer::join(&file(spec, "there")?) }?,
        batch,
        _cleanup: Vec::new(),
    };
    Ok(Box::new(Typed::new(link)))
}

impl<const N: usize> RingLink<N> {
    #[inline]
    fn write(&mut self, message: Words<N>) {
        let slot = until(|| {
            // SAFETY: filled below, before anything is published.
            let slot = unsafe { self.output.reserve() };
            if slot.is_none() {
                // Includes the messages of a batch: the receiver has to make room.
                self.output.commit();
                self.output.sync();
            }
            slot
        });
        // SAFETY: reserved, and as large as a message.
        unsafe { slot.write(message) };
    }

    #[inline]
    fn read<T>(&mut self, look: impl FnOnce(&Words<N>) -> T) -> T {
        let slot = until(|| {
            let slot = self.input.try_read_ptr();
            if slot.is_none() {
                self.input.finalize();
                self.input.sync();
            }
            slot
        });
        // SAFETY: published by the sender, which writes there again only after it was released.
        look(unsafe { slot.as_ref() })
    }
}

impl<const N: usize> Link<Words<N>> for RingLink<N> {
    fn send(&mut self, message: &Words<N>) -> Result<()> {
        self.write(*message);
        self.output.commit();
        Ok(())
    }

    fn receive(&mut self, message: &mut Words<N>) -> Result<()> {
        self.read(|received| *message = *received);
        self.input.finalize();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.output.commit();
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            self.write([word(0, number); N]);
            if (number + 1).is_multiple_of(self.batch) {
                self.output.commit();
            }
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            if !self.read(|message| check(message, word(0, number))) {
                return Err(wrong_content(number));
            }
            if (number + 1).is_multiple_of(self.batch) {
                self.input.finalize();
            }
        }
        Ok(())
    }
}

struct ManyLink<const N: usize> {
    output: mpmc::Producer<Words<N>>,
    input: mpmc::Consumer<Words<N>>,
    _cleanup: Vec<CleanupGuard>,
}

fn make_mpmc<const N: usize>(spec: Spec) -> Result<Setup> {
    let bytes = file_bytes(spec.size);
    let (there, there_cleanup) = new_file(&spec, "there")?;
    let (back, back_cleanup) = new_file(&spec, "back")?;
    let link: ManyLink<N> = ManyLink {
        // SAFETY: a new file of which no other code makes a queue; words are valid everywhere.
        output: unsafe { mpmc::Producer::create(&there, bytes) }?,
        // SAFETY: as above.
        input: unsafe { mpmc::Consumer::create(&back, bytes) }?,
        _cleanup: vec![there_cleanup, back_cleanup],
    };
    Ok(Setup::named(spec, Typed::new(link)))
}

fn open_mpmc<const N: usize>(spec: &Spec) -> Result<Box<dyn End>> {
    let link: ManyLink<N> = ManyLink {
        // SAFETY: with the same words as in all processes.
        output: unsafe { mpmc::Producer::join(&file(spec, "back")?) }?,
        // SAFETY: as above.
        input: unsafe { mpmc::Consumer::join(&file(spec, "there")?) }?,
        _cleanup: Vec::new(),
    };
    Ok(Box::new(Typed::new(link)))
}

impl<const N: usize> Link<Words<N>> for ManyLink<N> {
    fn send(&mut self, message: &Words<N>) -> Result<()> {
        until(|| self.output.try_write(*message).ok());
        Ok(())
    }

    fn receive(&mut self, message: &mut Words<N>) -> Result<()> {
        *message = until(|| self.input.try_read());
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            let message = [word(0, number); N];
            until(|| self.output.try_write(message).ok());
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            let message: Words<N> = until(|| self.input.try_read());
            if !check(&message, word(0, number)) {
                return Err(wrong_content(number));
            }
        }
        Ok(())
    }
}
