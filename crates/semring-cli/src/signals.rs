//! SIGINT, SIGTERM and SIGHUP as events for which the main thread can wait beside stdin, stdout and
//! the ring. A second signal ends the process at once.

use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::PollFlags;
use semring::Interrupter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals as Iterator;
use signal_hook::low_level::emulate_default_handler;

use crate::input::{Ready, wait_for};

/// The last signal that came, 0 before that. The handler stores it: the thread that wakes the waits may run much later,
/// and a transfer must not come to its end meanwhile as if there had been no signal.
static CAUGHT: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Whether a signal was caught.
pub(crate) fn came() -> bool {
    CAUGHT.load(Ordering::Relaxed) != 0
}

/// The ways to make a signal known.
pub(crate) struct Signals {
    shared: Arc<Shared>,
    woken: PipeReader,
}

#[derive(Default)]
struct Shared {
    interrupter: Mutex<Option<Interrupter>>,
}

impl Signals {
    /// Begins to catch. Signals that the parent had set to be ignored (`nohup`, a background job of
    /// a script) stay ignored.
    pub(crate) fn catch() -> io::Result<Self> {
        let caught = not_ignored(&[SIGINT, SIGTERM, SIGHUP]);
        for signal in &caught {
            signal_hook::flag::register_usize(*signal, CAUGHT.clone(), *signal as usize)?;
        }
        let mut signals = Iterator::new(caught)?;
        let (woken, mut waker) = io::pipe()?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for (before, signal) in signals.forever().enumerate() {
                    if before > 0 {
                        // The second one: no more waiting for a clean end.
                        let _ = emulate_default_handler(signal);
                    }
                    if let Some(interrupter) = &*for_thread.interrupter() {
                        interrupter.interrupt();
                    }
                    // Never read: from now on the pipe is readable. One byte always fits.
                    let _ = waker.write(&[0]);
                }
            })?;
        Ok(Self { shared, woken })
    }

    /// From now on a signal also ends this handle's waits.
    pub(crate) fn interrupts(&self, interrupter: Interrupter) {
        let mut slot = self.shared.interrupter();
        if self.caught().is_some() {
            interrupter.interrupt();
        }
        *slot = Some(interrupter);
    }

    /// The signal, if one came.
    pub(crate) fn caught(&self) -> Option<i32> {
        let signal = CAUGHT.load(Ordering::Relaxed);
        (signal != 0).then_some(signal as i32)
    }

    /// Lets time pass; true if a signal came.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        wait_for(self.as_fd(), PollFlags::POLLIN, self, Some(time))
            .is_ok_and(|ready| ready == Ready::Signal)
    }

    /// Readable once a signal came.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Ends the process by the signal, as if it had not been caught.
    pub(crate) fn end_by(signal: i32) -> u8 {
        let _ = emulate_default_handler(signal);
        // Only if the signal can't end us.
        128u8.wrapping_add(signal as u8)
    }
}

impl Shared {
    fn interrupter(&self) -> std::sync::MutexGuard<'_, Option<Interrupter>> {
        self.interrupter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// From now on a write beyond the limit of file sizes (`ulimit -f`) gives an error, as a full disk does, and does not
/// end the process. Programs that are started from here have the signal as it was.
pub(crate) fn keep_file_size_signal_away() {
    for signal in not_ignored(&[SIGXFSZ]) {
        // The flag is never read: the write fails with an error. Without a handler it would not.
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
}

/// Those of them that the parent did not have this process ignore.
pub(crate) fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let mut wanted = signals.to_vec();
    wanted.retain(|signal| !semring_stdio::is_ignored(*signal));
    wanted
}
