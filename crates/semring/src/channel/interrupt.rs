//! Ending a wait from another thread.

use std::sync::Arc;

use crate::guard::WakeTarget;
use crate::guard::interrupt::InterruptFlag;
use crate::lifecycle::SharedRing;

/// Ends a waiting call of a producer or consumer from another thread, for instance on a signal.
///
/// The call returns `Interrupted`. If no call is waiting, the next one that would wait returns it.
///
/// ```
/// # let name = format!("doc-interrupt-{}", std::process::id());
/// # let ring = semring::spsc::Builder::new(&name).create()?;
/// let mut consumer = ring.attach_consumer()?;
/// let interrupter = consumer.interrupter();
/// let waiting = std::thread::spawn(move || consumer.recv().map(|message| message.to_vec()));
/// interrupter.interrupt();
/// assert_eq!(waiting.join().unwrap(), Err(semring::RecvError::Interrupted));
/// # ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Interrupter {
    ring: SharedRing,
    flag: Arc<InterruptFlag>,
    wakeup: WakeTarget,
}

impl Interrupter {
    pub(super) fn new(ring: SharedRing, flag: Arc<InterruptFlag>, wakeup: WakeTarget) -> Self {
        Self { ring, flag, wakeup }
    }

    /// Ends the wait. May be called any number of times, from any thread (not from a signal handler).
    pub fn interrupt(&self) {
        if !self.ring.is_forked() {
            self.flag.raise(&*self.ring.guard, self.wakeup);
        }
    }
}

impl std::fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupter").finish_non_exhaustive()
    }
}
