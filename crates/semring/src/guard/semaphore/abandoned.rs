//! Semaphore sets that no process uses any more: how they are recognised, and how they are held
//! during the decision.

use super::set::NameLocation;
use super::{C, CHECK, I, LANES, LOCATION, N, T, add, count_for, sub, taken, zero};
use crate::os::sysv::{self, Op, SemSet};

/// What the values of a set show at one moment.
#[derive(Clone, Debug)]
pub(crate) struct SetFacts {
    values: Vec<u16>,
}

impl SetFacts {
    pub(super) const fn new(values: Vec<u16>) -> Self {
        Self { values }
    }

    /// Reads a set without leaving a trace; `None` if it may not be read, or is gone.
    pub(crate) fn of(id: i32) -> Option<Self> {
        SemSet::from_id(id).values().ok().map(Self::new)
    }

    fn at(&self, index: u16) -> u16 {
        self.values.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// The number of lanes of the set's ring; `None` if no ring has sets of this size.
    pub(crate) fn lanes(&self) -> Option<usize> {
        let lanes = self.values.len().checked_sub(usize::from(LANES))? / 2;
        (lanes > 0 && self.values.len() == count_for(lanes)).then_some(lanes)
    }

    /// No process is attached, or makes or removes the ring.
    pub(crate) fn is_idle(&self) -> bool {
        let lanes = self.lanes().unwrap_or(0);
        [N, C, T, I].into_iter().all(|index| self.at(index) == 0)
            && (0..lanes).all(|lane| self.at(taken(lane)) == 0)
    }

    /// The place of its ring's name; `None` if the set is not semring's.
    pub(crate) fn location(&self) -> Option<NameLocation> {
        NameLocation::of(&self.values)
    }

    /// As it was made: no creator has marked it yet.
    pub(crate) fn is_blank(&self) -> bool {
        self.values.iter().all(|&value| value == 0)
    }

    /// The check value; 0 if it was not set.
    pub(crate) fn check(&self) -> u32 {
        self.at(CHECK).into()
    }

    /// The check value was set: it belongs, or belonged, to a ring.
    pub(crate) fn is_identified(&self) -> bool {
        self.at(CHECK) != 0
    }
}

/// True if no process ever did an operation on the set, or waits for one. Leaves no trace.
pub(crate) fn is_untouched(id: i32) -> bool {
    let set = SemSet::from_id(id);
    let nobody_waits = |count: usize| {
        (0..count as u16).all(|index| {
            matches!(set.waiting_for_increase(index), Ok(0))
                && matches!(set.waiting_for_zero(index), Ok(0))
        })
    };
    set.stat()
        .is_ok_and(|stat| stat.otime == 0 && nobody_waits(stat.count))
}

/// An unused set, with removal flag and creation lock held until this is dropped: no process can
/// attach, and no creator or remover can begin. The kernel undoes both if this process dies.
pub(crate) struct SeizedSet {
    set: SemSet,
}

impl SeizedSet {
    /// Takes both at once; `None` if a process is attached, or makes or removes a ring with it, or if it
    /// is gone. A set that was never marked is marked as a set under its own key: a creator that has
    /// just called semget, and finds it touched, then sees that it is semring's, waits, and takes it
    /// over if this process leaves it.
    pub(crate) fn seize(id: i32) -> std::result::Result<Option<Self>, sysv::Error> {
        let set = SemSet::from_id(id);
        let mut operations: Vec<Op> = [N, C, T, I].map(|index| zero(index).no_wait()).into();
        if SetFacts::of(id).is_some_and(|facts| facts.is_blank()) {
            let [first, second] = NameLocation::Key.values();
            operations.extend([
                zero(CHECK).no_wait(),
                zero(LOCATION).no_wait(),
                zero(LOCATION + 1).no_wait(),
                Op::new(LOCATION, first),
                Op::new(LOCATION + 1, second),
            ]);
        }
        operations.extend([add(T).undo(), add(I).undo()]);
        loop {
            return match set.op(&operations) {
                Ok(()) => Ok(Some(Self { set })),
                Err(error) if error.is_would_block() || error.is_removed() => Ok(None),
                Err(error) if error.is_interrupted() => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// The set's state, without this process's own operations.
    pub(crate) fn facts(&self) -> std::result::Result<SetFacts, sysv::Error> {
        let mut values = self.set.values()?;
        for index in [T, I] {
            if let Some(value) = values.get_mut(usize::from(index)) {
                *value = 0;
            }
        }
        Ok(SetFacts::new(values))
    }

    /// Removes the set: processes that wait on it get EIDRM.
    pub(crate) fn remove(&self) -> std::result::Result<(), sysv::Error> {
        match self.set.remove() {
            Err(error) if !error.is_removed() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for SeizedSet {
    fn drop(&mut self) {
        // Fails if the set is gone: then there is nothing to give back.
        let _ = self
            .set
            .op(&[sub(T).undo().no_wait(), sub(I).undo().no_wait()]);
    }
}
