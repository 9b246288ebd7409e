//! A stream that no consumer comes to the end of, however fast it is and however slow the test.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::seq_from;

/// `seq` until the test has seen enough, and then how many lines that were.
#[derive(Clone, Default)]
pub struct Endless {
    wanted: Arc<Mutex<bool>>,
    last: Arc<AtomicU64>,
}

impl Endless {
    pub fn new() -> Endless {
        let endless = Endless::default();
        *endless.wanted.lock().expect("no panic") = true;
        endless
    }

    /// A function that writes it to a process's stdin.
    pub fn feed(self) -> impl FnOnce(&mut ChildStdin) -> std::io::Result<()> + Send {
        move |stdin| {
            let mut last = 0;
            while *self.wanted.lock().expect("no panic") {
                stdin.write_all(&seq_from(last + 1, last + 200))?;
                last += 200;
                self.last.store(last, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    /// It ends soon.
    pub fn stop(&self) {
        *self.wanted.lock().expect("no panic") = false;
    }

    /// The last line that was written so far.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}
