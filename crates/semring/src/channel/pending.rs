//! The conditions that send a call to the slow path: what a handle has to do before its next message.
//!
//! A call takes the fast path if its message lies before the limit of the lane's fast path and nothing is pending here.
//! The conditions of a handle are one value, which can be changed only through [`Pending::change`]; that function
//! computes again whether any of them holds. So no call site closes the fast path by hand, and none can omit it.
//!
//! The slow path handles pending conditions in the function `begin` of each core.

use std::ops::Deref;

/// The conditions of one kind of handle.
pub(super) trait Conditions {
    /// Whether there is something to do before the next message.
    fn any(&self) -> bool;
}

/// The conditions of a handle, which can be read as they are, and whether a batch is open.
#[derive(Debug)]
pub(super) struct Pending<C> {
    conditions: C,
    /// [`BATCH`] and [`ANY`]: one comparison for both.
    state: u8,
}

/// A batch is open, or was leaked: calls that do not belong to it must end it first.
const BATCH: u8 = 1;
/// Some condition holds.
const ANY: u8 = 2;

impl<C: Conditions> Pending<C> {
    pub(super) fn new(conditions: C) -> Self {
        let mut pending = Self {
            conditions,
            state: 0,
        };
        pending.change(|_| ());
        pending
    }

    /// Nothing has to be done before the next message, and no batch is open.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.state == 0
    }

    /// Some condition holds, batch or not.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        self.state >= ANY
    }

    pub(super) fn is_batch_open(&self) -> bool {
        self.state & BATCH != 0
    }

    pub(super) fn begin_batch(&mut self) {
        self.state |= BATCH;
    }

    pub(super) fn end_batch(&mut self) {
        self.state &= !BATCH;
    }

    /// The one way to change the conditions.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut C) -> R) -> R {
        let result = change(&mut self.conditions);
        let any = if self.conditions.any() { ANY } else { 0 };
        self.state = self.state & BATCH | any;
        result
    }
}

impl<C> Deref for Pending<C> {
    type Target = C;

    #[inline(always)]
    fn deref(&self) -> &C {
        &self.conditions
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    impl Conditions for bool {
        fn any(&self) -> bool {
            *self
        }
    }

    #[test]
    fn each_change_finds_out_whether_any_condition_holds() {
        for batch in [false, true] {
            let mut pending = Pending::new(false);
            if batch {
                pending.begin_batch();
            }
            for holds in [true, true, false, false, true] {
                pending.change(|condition| *condition = holds);
                assert_eq!(pending.any(), holds);
                assert_eq!(pending.is_empty(), !holds && !batch);
                assert_eq!(pending.is_batch_open(), batch);
            }
            pending.end_batch();
            assert!(pending.any() && !pending.is_batch_open());
        }
    }
}
