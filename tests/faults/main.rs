//! Processes killed at every single point of their operations: each instruction of the data path, each
//! system call and each change of the segment in creation, attachment and removal. A working ring must be
//! left, with all its committed messages.
//!
//! Every instruction of the data path is a point in POSIX memory. In System V memory, which runs the same instructions,
//! and of the longer operations of set-up, a short run takes the instructions around each system call and each change of
//! the segment and some spread over the whole, and `SEMRING_FULL=1` all of them. `SEMRING_POINT=OPERATION:STEPS` repeats one point; each failure names its point.
//! x86-64 only: elsewhere there is no stepper.
#![cfg(target_arch = "x86_64")]

#[allow(dead_code)] // each of the two test programs uses a part
#[macro_use]
#[path = "../support/fixture.rs"]
mod fixture;

/// As `over_both_backends!`, for tests that trace a process.
macro_rules! traced_over_both_backends {
    ($($behaviour:ident)*) => {
        traced_over_both_backends! { @posix Posix $($behaviour)* }
        traced_over_both_backends! { @sysv Sysv $($behaviour)* }
    };
    (@$module:ident $backend:ident $($behaviour:ident)*) => {
        mod $module {
            $(#[test] fn $behaviour() {
                if !semring_testkit::step::can_trace() {
                    return;
                }
                super::$behaviour($crate::fixture::Fixture::new(
                    $crate::fixture::Backend::$backend,
                    stringify!($behaviour),
                ));
            })*
        }
    };
}

mod arrays;
mod consumers;
mod kill_points;
mod lanes;
mod objects;
mod pairs;
mod parts;
mod producers;
#[path = "../support/rings.rs"]
mod rings;
mod staged;
mod stopped;
mod unused;
