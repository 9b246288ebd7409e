//! The sending half of a server, shared by the requests that are not answered yet.
//!
//! A thread that sends takes the half out of the outbox, sends without holding the lock, and puts it
//! back: so a time-out also holds while another thread waits for room.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::endpoint::Producer;
use super::frame::{CallId, FrameKind, put};
use crate::channel::Interrupter;
use crate::error::SendError;
use crate::guard::deadline::Patience;

#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    came_back: Condvar,
    /// Ends the server's wait for requests.
    wakeup: Interrupter,
}

#[derive(Debug)]
struct State {
    /// `None` while a thread sends.
    sender: Option<Producer>,
    /// Requests that were dropped without a reply while there was no room to report it.
    owed: Vec<CallId>,
    /// The server's wait was ended by a `ServerInterrupter`, not because a report is owed.
    interrupted: bool,
}

/// The half while it is out. Dropped, also by a panic, it is back.
struct Out<'a> {
    outbox: &'a Outbox,
    sender: Option<Producer>,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.outbox.lock().sender = self.sender.take();
        self.outbox.came_back.notify_one();
    }
}

impl Outbox {
    pub(super) fn new(sender: Producer, wakeup: Interrupter) -> Self {
        Self {
            state: Mutex::new(State {
                sender: Some(sender),
                owed: Vec::new(),
                interrupted: false,
            }),
            came_back: Condvar::new(),
            wakeup,
        }
    }

    /// No panic leaves the state half-changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the half out, as soon as it is there.
    fn take(&self, patience: Patience) -> Result<Out<'_>, SendError> {
        let mut state = self.lock();
        loop {
            if let Some(sender) = state.sender.take() {
                return Ok(Out {
                    outbox: self,
                    sender: Some(sender),
                });
            }
            state = match patience {
                Patience::Try => return Err(SendError::Full),
                Patience::Until(deadline) => match deadline.left() {
                    Ok(Some(left)) => {
                        let waited = self.came_back.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    Ok(None) => {
                        let waited = self.came_back.wait(state);
                        waited.unwrap_or_else(PoisonError::into_inner)
                    }
                    Err(()) => return Err(SendError::TimedOut),
                },
            };
        }
    }

    pub(super) fn reply(
        &self,
        id: CallId,
        bytes: &[u8],
        patience: Patience,
    ) -> Result<(), SendError> {
        self.settle(patience)?;
        let mut out = self.take(patience)?;
        let sender = out.sender.as_mut().expect("it is out");
        let said = put(sender.producer(), FrameKind::Reply, id, bytes, patience);
        drop(out);
        // Send the reports that other threads could not send while this one had the half.
        let _ = self.settle(Patience::Try);
        said
    }

    /// Reports that there will be no reply: now if that is possible without waiting, else in the server's
    /// next call, which may wait.
    pub(super) fn give_up(&self, id: CallId) {
        self.lock().owed.push(id);
        // Any other result: the report was sent, or the client is gone.
        if self.settle(Patience::Try) == Err(SendError::Full) {
            self.wakeup.interrupt();
        }
    }

    /// Ends the server's wait, or its next one.
    pub(super) fn interrupt(&self) {
        self.lock().interrupted = true;
        self.wakeup.interrupt();
    }

    /// After the wait was ended: true once for each interruption, false if a report is owed.
    pub(super) fn take_interruption(&self) -> bool {
        std::mem::take(&mut self.lock().interrupted)
    }

    /// Sends the reports that are owed.
    pub(super) fn settle(&self, patience: Patience) -> Result<(), SendError> {
        while !self.lock().owed.is_empty() {
            let mut out = self.take(patience)?;
            // Another thread may have sent it since.
            let Some(id) = self.lock().owed.pop() else {
                break;
            };
            let sender = out.sender.as_mut().expect("it is out");
            let said = put(sender.producer(), FrameKind::Unanswered, id, &[], patience);
            if let Err(SendError::Full | SendError::TimedOut | SendError::Interrupted) = said {
                self.lock().owed.push(id);
            }
            said?;
        }
        Ok(())
    }
}
