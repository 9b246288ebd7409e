//! The cost of each step by itself: one process, one thread, everything in its cache. Lower bounds,
//! and the cost of attaching, checking and waking in the kernel.
//!
//! ```sh
//! cargo bench --bench in_process [-- FILTER]
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use semring::spsc;
use sysv_ipc::Key;
use sysv_ipc::sem::{Created, Op, SemSet};

/// Messages that are sent before they are received: all fit the default ring.
const RUN: u64 = 100;

/// The name of a ring that is removed at the end.
struct Name(String);

impl Name {
    fn new(what: &str) -> Self {
        Self(format!("bench-{what}-{}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Ok(address) = self.0.parse::<semring::Address>() {
            let _ = semring::force_remove(&address);
        }
    }
}

fn ring(what: &str, capacity: u64) -> (Name, spsc::Ring) {
    let name = Name::new(what);
    let ring = spsc::Builder::new(&name.0)
        .capacity(capacity)
        .create()
        .expect("a ring");
    (name, ring)
}

/// Calls `step` once for each of `times` messages, `RUN` at a time; measures it alone, and lets
/// `undo` restore its state in between.
fn in_runs<S>(
    times: u64,
    state: &mut S,
    mut step: impl FnMut(&mut S, u64),
    mut undo: impl FnMut(&mut S, u64),
) -> Duration {
    let mut took = Duration::ZERO;
    let mut done = 0;
    while done < times {
        let run = RUN.min(times - done);
        let start = Instant::now();
        for number in done..done + run {
            step(state, number);
        }
        took += start.elapsed();
        undo(state, run);
        done += run;
    }
    took
}

type Pair = (spsc::Producer, spsc::Consumer);

fn send_all(pair: &mut Pair, bytes: &[u8], count: u64) {
    for _ in 0..count {
        pair.0.send(bytes).expect("there is room");
    }
}

/// Takes `count` messages out and gives the room back at once.
fn drain(pair: &mut Pair, count: u64) {
    for _ in 0..count {
        pair.1.recv().expect("it was sent").release();
    }
    pair.1.flush_released().expect("the ring is there");
}

/// Numbered messages through the ring and back, before anything is measured.
fn check(pair: &mut Pair, size: usize) {
    let mut expected = vec![0u8; size];
    for number in 0..1000u32 {
        for (index, byte) in expected.iter_mut().enumerate() {
            *byte = (number as usize * 31 + index) as u8;
        }
        pair.0.send(&expected).expect("there is room");
        assert_eq!(
            pair.1.recv().expect("it was sent").to_vec(),
            expected,
            "message {number}"
        );
    }
}

fn messages(criterion: &mut Criterion) {
    let (_name, ring) = ring("messages", 256 << 10);
    let mut pair = (
        ring.attach_producer().expect("a lane"),
        ring.attach_consumer().expect("the role"),
    );
    for size in [8, 64, 1024] {
        check(&mut pair, size);
        let bytes = vec![7; size];
        let mut buffer = vec![0; size];
        let mut group = criterion.benchmark_group(format!("{size} B"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("send", |bencher| {
            bencher.iter_custom(|times| {
                in_runs(
                    times,
                    &mut pair,
                    |pair, _| send_all(pair, black_box(&bytes), 1),
                    drain,
                )
            });
        });
        group.bench_function("reserve and commit, nothing written", |bencher| {
            let step = |pair: &mut Pair, _| {
                pair.0
                    .reserve(black_box(size))
                    .expect("there is room")
                    .commit();
            };
            bencher.iter_custom(|times| in_runs(times, &mut pair, step, drain));
        });
        group.bench_function("recv, copy and release", |bencher| {
            bencher.iter_custom(|times| {
                send_all(&mut pair, &bytes, RUN.min(times));
                let step = |pair: &mut Pair, _| {
                    let message = pair.1.recv().expect("it was sent");
                    black_box(message.copy_to(black_box(&mut buffer)));
                };
                let mut left = times;
                in_runs(times, &mut pair, step, |pair, run| {
                    left -= run;
                    send_all(pair, &bytes, RUN.min(left));
                })
            });
        });
        group.bench_function("both, in turn", |bencher| {
            bencher.iter(|| {
                pair.0.send(black_box(&bytes)).expect("there is room");
                let message = pair.1.recv().expect("it was sent");
                message.copy_to(black_box(&mut buffer))
            });
        });
        group.finish();
    }
}

fn batches(criterion: &mut Criterion) {
    const BATCH: u64 = 32;
    let (_name, ring) = ring("batches", 256 << 10);
    let mut pair = (
        ring.attach_producer().expect("a lane"),
        ring.attach_consumer().expect("the role"),
    );
    check(&mut pair, 64);
    let bytes = [7; 64];
    let mut buffer = [0; 64];
    let mut group = criterion.benchmark_group("64 B");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("a batch of 32, both sides", |bencher| {
        bencher.iter(|| {
            let mut batch = pair.0.batch();
            for _ in 0..BATCH {
                batch.push(black_box(&bytes)).expect("there is room");
            }
            batch.commit();
            let mut batch = pair.1.recv_batch().expect("it was sent");
            while let Some(message) = batch.next_message() {
                message.copy_to(black_box(&mut buffer));
            }
        });
    });
    group.finish();
}

/// Four of these messages fill the smallest lane except for a rest: each lap has padding, and
/// `released` must be loaded all the time.
fn wrapping(criterion: &mut Criterion) {
    let (_name, ring) = ring("wrapping", 4 << 10);
    let mut pair = (
        ring.attach_producer().expect("a lane"),
        ring.attach_consumer().expect("the role"),
    );
    check(&mut pair, 1000);
    let bytes = [7; 1000];
    let mut buffer = [0; 1000];
    criterion.bench_function(
        "1000 B in 4 KiB, padding in each lap, both in turn",
        |bencher| {
            bencher.iter(|| {
                pair.0.send(black_box(&bytes)).expect("there is room");
                pair.1
                    .recv()
                    .expect("it was sent")
                    .copy_to(black_box(&mut buffer))
            });
        },
    );
}

fn roles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attach and detach");
    {
        let (_name, ring) = ring("producer", 256 << 10);
        group.bench_function("producer", |bencher| {
            bencher.iter(|| drop(ring.attach_producer().expect("a lane")));
        });
    }
    {
        let (_name, ring) = ring("consumer", 256 << 10);
        group.bench_function("consumer", |bencher| {
            bencher.iter(|| drop(ring.attach_consumer().expect("the role")));
        });
    }
    group.bench_function("open", |bencher| {
        let (name, _ring) = ring("open", 256 << 10);
        bencher.iter(|| spsc::open(&name.0).expect("it is there"));
    });
    for backend in ["posix:", "sysv:"] {
        group.bench_function(
            format!("create and remove, 256 KiB, {backend}"),
            |bencher| {
                let name = Name(format!("{backend}{}", Name::new("create").0));
                let builder = spsc::Builder::new(&name.0);
                bencher.iter(|| {
                    builder
                        .create()
                        .expect("a ring")
                        .remove()
                        .expect("no process has it")
                });
            },
        );
    }
    group.finish();
}

fn kernel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("calls");
    let (_name, ring) = ring("probe", 256 << 10);
    let _consumer = ring.attach_consumer().expect("the role");
    let mut producer = ring.attach_producer().expect("a lane");
    group.bench_function("probe: is the consumer there?", |bencher| {
        bencher.iter(|| producer.check_consumer().expect("it is"));
    });
    // The cost of a wake-up for the process that posts, and of taking a token that is there
    // already; without a sleeper, because the switch between processes belongs to the scheduler.
    let set = SemSet::create(Key::PRIVATE, 1, 0o600).expect("a set");
    let _removed_at_the_end = Created::new(set);
    group.bench_function("post a token and take it", |bencher| {
        bencher.iter(|| {
            set.op(&[Op::new(0, 1)]).expect("room for a token");
            set.op(&[Op::new(0, -1)]).expect("the token");
        });
    });
    group.finish();
}

criterion_group!(benches, messages, batches, wrapping, roles, kernel);
criterion_main!(benches);
