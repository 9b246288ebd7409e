//! A trace of a function's operations on shared words, for models that are compared with it.

use std::cell::RefCell;

/// One step, with the address and the value of its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traced {
    Load(usize, u64),
    Store(usize, u64),
    Fence,
}

std::thread_local! {
    static TRACE: RefCell<Option<Vec<Traced>>> = const { RefCell::new(None) };
}

/// The result of a function, and its steps.
pub(crate) fn traced<R>(function: impl FnOnce() -> R) -> (R, Vec<Traced>) {
    TRACE.set(Some(Vec::new()));
    let result = function();
    (result, TRACE.take().unwrap_or_default())
}

pub(super) fn trace(step: impl FnOnce() -> Traced) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(steps) = trace {
            steps.push(step());
        }
    });
}
