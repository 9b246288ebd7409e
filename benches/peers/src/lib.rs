//! Queues of other crates, as ways of `semring-bench`: each in the form that its own documents show, with
//! about as much memory as a ring has, filled by the sender and checked by the receiver like everything
//! else there.
//!
//! What can't wait by itself looks a thousand times and then offers its CPU to others for each look: with
//! two pinned processes that is never needed, and with more processes than CPUs it is what keeps a queue
//! that only spins from collapsing.
#![deny(unsafe_code)]

mod channels;
mod iceoryx;
mod ipmpsc;
mod shaq;
mod shmem;
mod threads;
mod words;

use std::process::ExitCode;
use std::thread;

use semring_bench::{CHILD, Result, Way, run_child};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Adds the rivals to the ways that can be measured. At the beginning of each program that measures, also
/// where it is the other process.
pub fn add() {
    Way::add(&shaq::WAYS);
    Way::add(&shmem::WAYS);
    Way::add(&iceoryx::WAYS);
    Way::add(&ipmpsc::WAYS);
    Way::add(&channels::WAYS);
    Way::add(&threads::WAYS);
}

/// Runs a bench of this name with its arguments, unless this process is the other process of one.
pub fn bench(name: &str, measure: fn(&[String]) -> Result<()>) -> ExitCode {
    add();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [first, assignment] if first == CHILD => run_child(assignment),
        _ => sweep_on_signals().and_then(|()| measure(&arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a signal remove the objects of the run before it ends this process.
fn sweep_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            semring_bench::sweep();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// Looks until there is something.
#[inline]
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    const LOOKS: u32 = 1000;
    let mut looks = 0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        if looks < LOOKS {
            looks += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// About as many bytes as a ring for messages of this size has.
fn capacity_bytes(size: usize) -> usize {
    (size * 16).max(256 << 10)
}
