//! Runs the loom models: every interleaving and every permitted stale value within stated bounds,
//! and participants that are killed at each operation. (Mutants: `sync::mutant`.)
//!
//! loom checks the C++ memory model except load buffering, `SeqCst` accesses as `AcqRel` ones (fences
//! are exact), the last seven stores to a word. A wait that never ends shows as a deadlock, a loop
//! that never ends as too many branches.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::LocalKey;

use crate::sync::{Killed, forget_barriers, mortal};

/// The most operations in one execution of a model: about ten times as many as the longest one
/// needs.
const LONGEST: usize = 2_000;

std::thread_local! {
    // loom runs all threads of a model on one OS thread, so these are per model.
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
    static LIFE: Cell<u32> = const { Cell::new(0) };
    static DEATHS: Cell<u64> = const { Cell::new(0) };
}

fn count(counter: &'static LocalKey<Cell<u64>>) {
    counter.with(|cell| cell.set(cell.get() + 1));
}

/// Explores a model. `preemptions` bounds how often threads that could go on are interrupted; `None` is
/// every schedule.
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    EXECUTIONS.set(0);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = LONGEST;
    builder.check(move || {
        count(&EXECUTIONS);
        forget_barriers();
        model();
    });
    println!("{} executions", EXECUTIONS.get());
}

/// Runs a check that must fail, with the expected message.
pub(crate) fn fails(what: &str, expected: &str, check: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(check)) else {
        panic!("nothing fails: {what}")
    };
    let message = match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => *payload.downcast_ref::<&str>().expect("a panic with a text"),
    };
    println!("{what}, execution {}: {message}", EXECUTIONS.get());
    assert!(
        message.contains(expected),
        "{what} fails, but not as expected: {message}"
    );
}

/// Runs a check for each operation before which a participant can be killed: until the model ends
/// without a death in any of its executions. The participant is the one in [`victim`].
pub(crate) fn for_each_death(mut check: impl FnMut()) {
    for life in 0.. {
        LIFE.set(life);
        DEATHS.set(0);
        check();
        if DEATHS.get() == 0 {
            println!("killed at {life} operations");
            assert_ne!(life, 0, "no participant dies in this model");
            return;
        }
    }
}

/// Runs the participant that [`for_each_death`] kills.
pub(crate) fn victim<R>(participant: impl FnOnce() -> R) -> Result<R, Killed> {
    let outcome = mortal(LIFE.get(), participant);
    if outcome.is_err() {
        count(&DEATHS);
    }
    outcome
}
