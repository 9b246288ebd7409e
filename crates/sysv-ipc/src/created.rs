//! RAII for objects that should not outlive their creator.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::error::Result;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::shm::Shm {}
    impl Sealed for crate::sem::SemSet {}
    impl Sealed for crate::msg::Queue {}
}

/// A kind of System V object, for [`Created`].
pub trait Object: Copy + fmt::Debug + sealed::Sealed {
    /// Removes the object.
    ///
    /// # Errors
    /// As the `remove` of the type itself.
    fn remove(&self) -> Result<()>;
}

impl Object for crate::shm::Shm {
    fn remove(&self) -> Result<()> {
        crate::shm::Shm::remove(self)
    }
}

impl Object for crate::sem::SemSet {
    fn remove(&self) -> Result<()> {
        crate::sem::SemSet::remove(self)
    }
}

impl Object for crate::msg::Queue {
    fn remove(&self) -> Result<()> {
        crate::msg::Queue::remove(self)
    }
}

/// An object that is removed when this value is dropped, unless it is [kept](Created::keep).
///
/// System V objects live until they are removed, even if all their processes have ended. So the
/// handles of this crate are plain numbers that own nothing, and this guard is for the cases where
/// one process does own the object: tests, scratch segments, and the steps of a set-up that may
/// fail half-way.
///
/// A child of `fork` that drops its copy removes nothing. A process that is killed removes nothing
/// either: for shared memory, attach and then [remove](crate::shm::Shm::remove) at once instead.
///
/// ```
/// use sysv_ipc::{Created, Key, sem::SemSet};
///
/// let set = Created::new(SemSet::create(Key::PRIVATE, 2, 0o600)?);
/// assert_eq!(set.values()?, [0, 0]);
/// let copy = *set;
/// drop(set);
/// assert!(copy.values().unwrap_err().is_removed());
/// # Ok::<(), sysv_ipc::Error>(())
/// ```
#[must_use = "dropped at once, it removes the object at once"]
pub struct Created<T: Object> {
    object: T,
    /// The process that owns the object: a fork child has a copy, but does not own it.
    pid: u32,
}

impl<T: Object> Created<T> {
    /// Takes charge of the object.
    pub fn new(object: T) -> Created<T> {
        Created {
            object,
            pid: std::process::id(),
        }
    }

    /// Gives the object up: it stays.
    pub fn keep(self) -> T {
        ManuallyDrop::new(self).object
    }

    /// Removes the object now, and returns whether that worked.
    ///
    /// # Errors
    /// As the `remove` of the object.
    pub fn remove(self) -> Result<()> {
        self.keep().remove()
    }
}

impl<T: Object> Deref for Created<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Object> fmt::Debug for Created<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Created").field(&self.object).finish()
    }
}

impl<T: Object> Drop for Created<T> {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Already removed by someone else is as good; nothing else could be done here.
            let _ = self.object.remove();
        }
    }
}
