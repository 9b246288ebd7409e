//! Sets that nobody uses any more: how they are known, and how they are held while one decides.

use super::semaphore::{C, CHECK, HOME, I, LANES, N, T, add, count_for, sub, taken, zero};
use super::set::Home;
use crate::os::sysv::{self, Op, SemSet};

/// What the values of a set tell at one moment.
#[derive(Clone, Debug)]
pub(crate) struct SetFacts {
    values: Vec<u16>,
}

impl SetFacts {
    pub(super) const fn new(values: Vec<u16>) -> Self {
        Self { values }
    }

    /// Looks at a set without leaving a trace; nothing if it may not be read, or is gone.
    pub(crate) fn of(id: i32) -> Option<Self> {
        SemSet::from_id(id).values().ok().map(Self::new)
    }

    fn at(&self, index: u16) -> u16 {
        self.values.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// How many lanes a ring with this set has; nothing if no ring has sets of this size.
    pub(crate) fn lanes(&self) -> Option<usize> {
        let lanes = self.values.len().checked_sub(usize::from(LANES))? / 2;
        (lanes > 0 && self.values.len() == count_for(lanes)).then_some(lanes)
    }

    /// Nobody is attached, nobody makes the ring, nobody removes it.
    pub(crate) fn is_idle(&self) -> bool {
        let lanes = self.lanes().unwrap_or(0);
        [N, C, T, I].into_iter().all(|index| self.at(index) == 0)
            && (0..lanes).all(|lane| self.at(taken(lane)) == 0)
    }

    /// Where the name of its ring is; nothing if the set is none of ours.
    pub(crate) fn home(&self) -> Option<Home> {
        Home::of(&self.values)
    }

    /// As it was made: no creator came as far as to mark it.
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

/// True if nobody ever did an operation on the set, nor waits for it. Leaves no trace.
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

/// A set that nobody uses, with tombstone and creation lock held until this is dropped: nobody can
/// attach, and no creator or remover can begin. Both are undone if we die.
pub(crate) struct SeizedSet {
    set: SemSet,
}

impl SeizedSet {
    /// Takes both at once; nothing if somebody is attached, makes or removes a ring with it, or if it is
    /// gone. One that was never marked is marked as a set under its own key: a creator behind semget,
    /// who finds it touched, then knows that it is ours, waits, and takes it over if we leave it.
    pub(crate) fn seize(id: i32) -> std::result::Result<Option<Self>, sysv::Error> {
        let set = SemSet::from_id(id);
        let mut operations: Vec<Op> = [N, C, T, I].map(|index| zero(index).no_wait()).into();
        if SetFacts::of(id).is_some_and(|facts| facts.is_blank()) {
            let [first, second] = Home::Key.values();
            operations.extend([
                zero(CHECK).no_wait(),
                zero(HOME).no_wait(),
                zero(HOME + 1).no_wait(),
                Op::new(HOME, first),
                Op::new(HOME + 1, second),
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

    /// What is true while we hold it, as if we did not.
    pub(crate) fn facts(&self) -> std::result::Result<SetFacts, sysv::Error> {
        let mut values = self.set.values()?;
        for index in [T, I] {
            if let Some(value) = values.get_mut(usize::from(index)) {
                *value = 0;
            }
        }
        Ok(SetFacts::new(values))
    }

    /// Removes the set: whoever waits for it gets EIDRM.
    pub(crate) fn remove(&self) -> std::result::Result<(), sysv::Error> {
        match self.set.remove() {
            Err(error) if !error.is_removed() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for SeizedSet {
    fn drop(&mut self) {
        // Refused if the set is gone: then there is nothing to give back.
        let _ = self
            .set
            .op(&[sub(T).undo().no_wait(), sub(I).undo().no_wait()]);
    }
}
