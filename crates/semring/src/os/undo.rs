//! A record of the operations that the kernel will undo for this process (SEM_UNDO), and a way to have
//! them undone before the process ends.
//!
//! An operation on a semaphore needs permission at that moment, so a process that became another user after it
//! took a role can't give the role back. The kernel's undo needs no permission: it happens when the process
//! ends, or when its last thread drops the undo list (`unshare(CLONE_SYSVSEM)`). All rings of a process share
//! one list, so the list may be dropped only if the process holds nothing but roles that it could not give
//! back, and only by a process of one thread.

use super::{fork, process};

/// The operations of this process that will be undone. A forked child inherits none.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    /// Operations that are to be undone if the process is killed, but those that it could not take back.
    held: usize,
}

impl Owed {
    pub(super) const NOTHING: Self = Self { held: 0 };
}

/// The process has one more thing for the kernel to undo.
pub(crate) fn taken() {
    fork::with_owed(|owed| owed.held += 1);
}

/// It has taken one back.
pub(crate) fn given_back() {
    fork::with_owed(|owed| owed.held = owed.held.saturating_sub(1));
}

/// It may not take one back, and does not use it any more. The kernel does it now, if that is possible: true.
pub(crate) fn refused() -> bool {
    let nothing_else = fork::with_owed(|owed| {
        owed.held = owed.held.saturating_sub(1);
        owed.held == 0
    });
    nothing_else && process::has_one_thread() && go_without().is_ok()
}

/// Drops the undo list of this thread; when no thread has it any more, the kernel undoes all of it.
fn go_without() -> std::io::Result<()> {
    // SAFETY: takes numbers only.
    super::check(unsafe { libc::unshare(libc::CLONE_SYSVSEM) }).map(drop)
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;
    use crate::os::sysv::{Key, Op, SemSet};
    use crate::os::testing::{Ended, in_child};

    /// In a child, which has one thread, and whose list is its own.
    fn in_child_with(body: impl FnOnce(&SemSet) -> bool) {
        let set = SemSet::create(Key::PRIVATE, 1, 0o600).unwrap();
        let ended = in_child(|| {
            set.op(&[Op::new(0, 1).undo()]).unwrap();
            taken();
            u8::from(!body(&set))
        });
        set.remove().unwrap();
        assert_eq!(ended, Ended::Code(0));
    }

    #[test]
    fn what_can_not_be_given_back_is_undone() {
        in_child_with(|set| refused() && set.value(0) == Ok(0));
    }

    #[test]
    fn nothing_is_undone_while_the_process_holds_more() {
        in_child_with(|set| {
            taken();
            let kept = !refused() && set.value(0) == Ok(1);
            kept && refused() && set.value(0) == Ok(0)
        });
    }

    #[test]
    fn nothing_is_undone_in_a_process_of_several_threads() {
        in_child_with(|set| {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || ended.recv().is_err());
            let kept = !refused() && set.value(0) == Ok(1);
            drop(end);
            kept && other.join().unwrap()
        });
    }

    #[test]
    fn a_forked_child_does_not_owe_what_its_parent_does() {
        in_child_with(|_| {
            in_child(|| {
                taken();
                u8::from(!refused())
            }) == Ended::Code(0)
        });
    }
}
