//! What the benches with two processes share: a second process on a CPU of its own, rings that are
//! removed whatever happens, payload that is filled and checked, medians.
#![allow(dead_code, reason = "each bench uses its part")]

use std::error::Error;
use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// First argument of a process that a bench started.
pub const PEER: &str = "--as-peer";

/// CPU of the process that measures, and of its peer. The same one if there is only one. To be asked
/// first before anything is pinned; the peer is told, because it inherits where we are pinned.
pub fn cpus() -> [usize; 2] {
    static CPUS: OnceLock<[usize; 2]> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("a process may ask for its CPUs");
        let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        let first = cpus.next().expect("a process has a CPU");
        [first, cpus.next().unwrap_or(first)]
    })
}

/// Keeps this thread on these CPUs.
pub fn pin(cpus: &[usize]) {
    let mut only = CpuSet::new();
    for &cpu in cpus {
        only.set(cpu).expect("a CPU of `cpus` is in range");
    }
    sched_setaffinity(Pid::from_raw(0), &only).expect("a CPU of `cpus` is allowed");
}

pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = read("/proc/sys/kernel/osrelease");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {count} CPUs, Linux {}",
        model.unwrap_or("?"),
        kernel.trim()
    )
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A signal that wants to end this process ends its peer only; this process then ends by itself, and
/// its rings are removed.
pub fn end_in_order() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The second process: this program again, with its CPU and `arguments` behind [`PEER`].
pub struct Peer(Child);

impl Peer {
    pub fn start(arguments: &[String], stdin: Stdio, stdout: Stdio) -> Result<Self> {
        if interrupted() {
            return Err("interrupted".into());
        }
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(PEER)
            .arg(cpus()[1].to_string())
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout);
        // Not begun on our CPU, where it would have to wait until we stop to wait for it.
        pin(&cpus());
        let child = command.spawn();
        pin(&cpus()[..1]);
        Ok(Self(child?))
    }

    /// Waits for its end, which must be a success.
    pub fn end(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the peer failed: {status}").into())
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both do nothing once it was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The name of a ring that is gone at the end.
pub struct Name(pub String);

impl Name {
    pub fn new(what: &str) -> Self {
        Self(format!("bench-{what}-{}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Ok(address) = self.0.parse() {
            let _ = semring::remove(&address, true);
        }
    }
}

/// How thoroughly the payload is made and looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Each word is its own: misplaced, torn and stale bytes show. Before anything is measured.
    Scrambled,
    /// Each word is the message's number: one store and one comparison a word.
    Numbered,
}

fn scrambled(number: u64, index: usize) -> u64 {
    (number ^ (index as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Payload {
    #[inline]
    pub fn fill(self, bytes: &mut [u8], number: u64) {
        let words = bytes.as_chunks_mut::<8>().0;
        match self {
            Self::Numbered => words.fill(number.to_le_bytes()),
            Self::Scrambled => {
                for (index, word) in words.iter_mut().enumerate() {
                    *word = scrambled(number, index).to_le_bytes();
                }
            }
        }
    }

    /// True if these are the bytes of message `number`, and nothing else is.
    #[inline]
    pub fn check(self, bytes: &[u8], number: u64) -> bool {
        let words = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let differing = match self {
            Self::Numbered => words.fold(0, |bits, word| bits | (word ^ number)),
            Self::Scrambled => words.enumerate().fold(0, |bits, (index, word)| {
                bits | (word ^ scrambled(number, index))
            }),
        };
        black_box(differing) == 0
    }
}

/// How far apart the two CPUs are at this moment, in nanoseconds: one cache line that is written on
/// one, seen and answered on the other. On a virtual machine it can change from one minute to the next,
/// and the rings' speed with it.
pub fn line_round_trip_ns(cpus: [usize; 2]) -> f64 {
    const TRIPS: u64 = 20_000;
    if cpus[0] == cpus[1] {
        return f64::NAN;
    }
    #[repr(align(128))]
    struct Line(AtomicU64);
    let line = Line(AtomicU64::new(0));
    let wait_for = |value| {
        while line.0.load(Ordering::Acquire) != value {
            std::hint::spin_loop();
        }
    };
    let both_pinned = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(&cpus[1..]);
            both_pinned.wait();
            for trip in 0..TRIPS {
                wait_for(2 * trip + 1);
                line.0.store(2 * trip + 2, Ordering::Release);
            }
        });
        pin(&cpus[..1]);
        // A barrier that sleeps: the other one may need this CPU to come to its own.
        both_pinned.wait();
        let mut best = f64::INFINITY;
        // The best of many short stretches: others want the CPUs as well.
        for stretch in 0..20 {
            let start = Instant::now();
            for trip in stretch * TRIPS / 20..(stretch + 1) * TRIPS / 20 {
                line.0.store(2 * trip + 1, Ordering::Release);
                wait_for(2 * trip + 2);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / (TRIPS / 20) as f64);
        }
        best
    })
}

/// Figures of several rounds.
#[derive(Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    pub fn range(&self) -> (f64, f64) {
        (self.0[0], self.0[self.0.len() - 1])
    }
}
