//! The operations on semaphores do not allocate, neither when they succeed nor when they fail.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use sysv_ipc::sem::{Created, Op, SemSet};
use sysv_ipc::{Error, Key};

thread_local! {
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (u32, T) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| Box::new(1)).0, 1);
    let error = SemSet::open(Key::PRIVATE).unwrap_err();
    assert_ne!(allocations(|| std::io::Error::from(error)).0, 0);
}

#[test]
fn operations_do_not_allocate() {
    let set = Created::new(SemSet::create(support::key(), 1, 0o600).unwrap());
    let (count, results) = allocations(|| {
        [
            set.op(&[Op::new(0, 1)]),
            set.op(&[Op::new(0, -2).no_wait()]),
            set.op_timeout(&[Op::new(0, 0)], Some(Duration::from_nanos(1))),
            set.op(&[Op::new(1, 1)]),
            set.op(&[Op::new(0, i16::MAX)]),
            set.op(&[]),
            SemSet::from_id(-1).op(&[Op::new(0, 1)]),
        ]
    });
    assert_eq!(count, 0);
    assert_eq!(
        results.map(|result| result.map_or_else(|error| error.errno(), |()| 0)),
        [
            0,
            libc::EAGAIN,
            libc::EAGAIN,
            libc::EFBIG,
            libc::ERANGE,
            libc::EINVAL,
            libc::EINVAL,
        ]
    );
    let questions = |error: Error| error.is_removed() || error.is_would_block();
    let (count, _) = allocations(|| results[1].map_err(|error| (questions(error), error.kind())));
    assert_eq!(count, 0);
}
