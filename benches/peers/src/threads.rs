//! Queues between threads of one process: the limit without a second address space, without
//! handling deaths, and without sleep. An upper bound, not an alternative.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use rtrb::{Consumer, Producer, RingBuffer};
use semring_bench::{
    End, ThreadEnds, Link, Setup, Result, Category, Spec, Typed, Way, Workload, check, wrong_content,
    one_sender_only, word,
};

use crate::capacity_bytes;
use crate::words::{Words, by_size, call_by_size, unusual_size};

pub(crate) const WAYS: [Way; 2] = [
    Way {
        name: "rtrb",
        label: "rtrb (threads)",
        about: "Threads of one process: a ring for one sender, `push` and `pop`.",
        category: Category::Threads,
        obstacle: |spec| never_sleeps(spec).or_else(|| one_sender_only(spec)),
        make: |spec| by_size!(spec.size, make_rtrb(spec)),
        open: no_process,
    },
    Way {
        name: "array-queue",
        label: "ArrayQueue (threads)",
        about: "Threads of one process: crossbeam's queue for many senders, `push` and `pop`.",
        category: Category::Threads,
        obstacle: never_sleeps,
        make: |spec| by_size!(spec.size, make_array(spec)),
        open: no_process,
    },
];

fn never_sleeps(spec: &Spec) -> Option<String> {
    if spec.workload == Workload::WakeUp {
        return Some("never sleeps".into());
    }
    unusual_size(spec)
}

fn no_process(_: &Spec, _: usize) -> Result<Box<dyn End>> {
    Err("between threads only".into())
}

/// Both ends of queues there and back.
struct QueueLink<O, I> {
    output: O,
    input: I,
    stop: Arc<AtomicBool>,
}

trait Output<const N: usize> {
    fn push(&mut self, message: Words<N>) -> bool;
}

trait Input<const N: usize> {
    fn pop(&mut self) -> Option<Words<N>>;
}

impl<const N: usize> Output<N> for Producer<Words<N>> {
    #[inline]
    fn push(&mut self, message: Words<N>) -> bool {
        Producer::push(self, message).is_ok()
    }
}

impl<const N: usize> Input<N> for Consumer<Words<N>> {
    #[inline]
    fn pop(&mut self) -> Option<Words<N>> {
        Consumer::pop(self).ok()
    }
}

impl<const N: usize> Output<N> for Arc<ArrayQueue<Words<N>>> {
    #[inline]
    fn push(&mut self, message: Words<N>) -> bool {
        ArrayQueue::push(self, message).is_ok()
    }
}

impl<const N: usize> Input<N> for Arc<ArrayQueue<Words<N>>> {
    #[inline]
    fn pop(&mut self) -> Option<Words<N>> {
        ArrayQueue::pop(self)
    }
}

fn make_rtrb<const N: usize>(spec: Spec) -> Result<Setup> {
    let capacity = capacity_bytes(spec.size) / spec.size;
    let stop = Arc::new(AtomicBool::new(false));
    let (there, there_end) = RingBuffer::<Words<N>>::new(capacity);
    let (back, back_end) = RingBuffer::<Words<N>>::new(capacity);
    let link = |output, input| {
        let stop = stop.clone();
        Typed::<_, Words<N>>::new(QueueLink {
            output,
            input,
            stop,
        })
    };
    let others = ThreadEnds {
        ends: vec![Box::new(link(back, there_end))],
        stop: stop.clone(),
    };
    Ok(Setup::threads(spec, link(there, back_end), others))
}

fn make_array<const N: usize>(spec: Spec) -> Result<Setup> {
    let capacity = capacity_bytes(spec.size) / spec.size;
    let stop = Arc::new(AtomicBool::new(false));
    let [there, back] = [(); 2].map(|()| Arc::new(ArrayQueue::<Words<N>>::new(capacity)));
    let link = |output: &Arc<_>, input: &Arc<_>| {
        Typed::<_, Words<N>>::new(QueueLink {
            output: Arc::clone(output),
            input: Arc::clone(input),
            stop: stop.clone(),
        })
    };
    let mut ends: Vec<Box<dyn End + Send>> = Vec::new();
    for _ in 0..spec.senders {
        ends.push(Box::new(link(&back, &there)));
    }
    let others = ThreadEnds {
        ends,
        stop: stop.clone(),
    };
    Ok(Setup::threads(spec, link(&there, &back), others))
}

impl<O, I> QueueLink<O, I> {
    /// Looks until there is something, or this end is stopped.
    #[inline]
    fn until<T>(&mut self, mut look: impl FnMut(&mut O, &mut I) -> Option<T>) -> Result<T> {
        const LOOKS: u32 = 1000;
        let mut looks = 0;
        loop {
            if let Some(found) = look(&mut self.output, &mut self.input) {
                return Ok(found);
            }
            if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else if self.stop.load(Ordering::Acquire) {
                return Err("stopped".into());
            } else {
                std::thread::yield_now();
            }
        }
    }

    #[inline]
    fn write<const N: usize>(&mut self, message: Words<N>) -> Result<()>
    where
        O: Output<N>,
    {
        self.until(|output, _| output.push(message).then_some(()))
    }

    #[inline]
    fn read<const N: usize>(&mut self) -> Result<Words<N>>
    where
        I: Input<N>,
    {
        self.until(|_, input| input.pop())
    }
}

impl<const N: usize, O: Output<N>, I: Input<N>> Link<Words<N>> for QueueLink<O, I> {
    fn send(&mut self, message: &Words<N>) -> Result<()> {
        self.write(*message)
    }

    fn receive(&mut self, message: &mut Words<N>) -> Result<()> {
        *message = self.read()?;
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            self.write([word(0, number); N])?;
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, _: &mut Words<N>) -> Result<()> {
        for number in numbers {
            if !check(&self.read()?, word(0, number)) {
                return Err(wrong_content(number));
            }
        }
        Ok(())
    }
}
