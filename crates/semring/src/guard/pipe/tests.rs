//! Guards made of pipes: the wake-ups when a role changes hands.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use super::PipeGuard;
use super::create::NewPipes;
use super::directory::{Owner, Pipe};
use crate::guard::{Claim, GuardError, RemovalLock, Role, Roles, Waited, WakeTarget, Wakeups};
use crate::os::fifo::{self, End};
use crate::os::process;

const PRODUCER: Role = Role::Producer { lane: 0 };

/// Pipes in a directory of their own, removed with them.
struct Fixture {
    path: PathBuf,
    guard: PipeGuard,
}

impl Fixture {
    fn new() -> Self {
        let random = u64::from_le_bytes(process::random().expect("random bytes"));
        let path = std::env::temp_dir().join(format!("semring-pipe-tests-{random:016x}"));
        let owner = Owner {
            uid: process::effective_uid(),
            gid: process::effective_gid(),
            mode: 0o600,
        };
        let new = NewPipes::create(Some(&path), 1, owner, "").expect("a directory");
        let guard = new.finish(false).expect("pipes");
        Self { path, guard }
    }

    /// Earlier posts don't count.
    fn drain(&self) {
        self.guard.drain(WakeTarget::Consumer).expect("pipes");
    }

    #[track_caller]
    fn consumer_is_woken(&self) {
        let waited = self
            .guard
            .wait(WakeTarget::Consumer, Some(Duration::ZERO))
            .expect("pipes");
        assert_eq!(waited, Waited::Token, "no sleeper was woken");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The successor stops at its first post: the pipe of the liveness lock is gone.
#[test]
fn successor_posts_before_its_liveness_lock() {
    let fixture = Fixture::new();
    let claim = fixture.guard.claim(Role::Consumer);
    assert_eq!(claim, Ok(Claim::Granted));
    fixture.drain();
    std::fs::remove_file(fixture.path.join("producer.0")).expect("a pipe");
    let claim = fixture.guard.claim(PRODUCER);
    assert_eq!(claim, Err(GuardError::Removed));
    fixture.consumer_is_woken();
}

/// Also while the pipe of its liveness lock does not hang up, because something else has it open.
#[test]
fn a_holder_that_leaves_posts() {
    let fixture = Fixture::new();
    for role in [Role::Consumer, PRODUCER] {
        assert_eq!(fixture.guard.claim(role), Ok(Claim::Granted));
    }
    let pipe = fixture.path.join("producer.0");
    let _copy = OpenOptions::new().write(true).open(pipe).expect("a pipe");
    fixture.drain();
    fixture.guard.leave(PRODUCER).expect("pipes");
    fixture.consumer_is_woken();
}

/// Also while the remover's pipe does not hang up, because something else has it open.
#[test]
fn remover_posts_to_both_sides() {
    let fixture = Fixture::new();
    for role in [Role::Consumer, PRODUCER] {
        assert_eq!(fixture.guard.claim(role), Ok(Claim::Granted));
    }
    let open = |pipe| {
        fixture
            .guard
            .pipe_files
            .pipe(pipe, End::Both)
            .expect("a pipe")
    };
    let _copy = open(Pipe::Remover);
    let pipes = [Pipe::Messages, Pipe::Room(0)].map(open);
    fixture.drain();
    fixture.guard.override_removal().expect("pipes");
    fixture.guard.destroy().expect("pipes");
    for pipe in pipes {
        let is_woken = fifo::take_tokens(&pipe).expect("a pipe");
        assert!(is_woken, "no sleeper was woken");
    }
}
