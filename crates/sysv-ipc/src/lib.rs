//! System V IPC for Linux: shared memory, semaphores, message queues and `ftok`, complete and safe.
//!
//! Neither nix nor rustix wraps these calls. They are old, but a semaphore operation with
//! [`SEM_UNDO`](sem::Op::undo) is taken back by the kernel when its process ends, however it ends,
//! and one call does many operations at one moment: no other semaphore of Linux has either.
//!
//! | module | objects | calls |
//! |---|---|---|
//! | [`shm`] | segments of memory | `shmget` `shmat` `shmdt` `shmctl` |
//! | [`sem`] | sets of semaphores | `semget` `semop` `semtimedop` `semctl` |
//! | [`msg`] | queues of messages | `msgget` `msgsnd` `msgrcv` `msgctl` |
//! | [`limits`] | limits of the namespace | `/proc/sys/kernel/…`, `IPC_INFO` |
//!
//! An object is found by its [`Key`] (agreed on beforehand, or made from a file by [`ftok`]) and
//! used by its id. It lives in the IPC namespace until someone removes it, so the handles
//! ([`shm::Shm`], [`sem::SemSet`], [`msg::Queue`]) are plain numbers that own nothing. What a
//! process does own has a guard: [`shm::Attachment`] detaches, and [`Created`] removes.
//!
//! ```
//! use std::time::Duration;
//! use sysv_ipc::{Created, Key, sem::{Op, SemSet}};
//!
//! let set = Created::new(SemSet::create(Key::PRIVATE, 1, 0o600)?);
//! std::thread::scope(|scope| {
//!     scope.spawn(|| set.op(&[Op::new(0, 1)]));
//!     set.op_timeout(&[Op::new(0, -1)], Some(Duration::from_secs(60)))
//! })?;
//! # Ok::<(), sysv_ipc::Error>(())
//! ```
//!
//! # Errors
//!
//! An [`Error`] names the call and its subject, and explains the error number. It is small, `Copy`,
//! and made without allocating. No call is repeated silently: an interrupted wait returns `EINTR`.
//!
//! # Not here
//!
//! Attaching over a mapping or for execution (`SHM_REMAP`, `SHM_EXEC`), rounded addresses
//! (`SHM_RND`), and the commands that walk the kernel's tables by index (`SHM_STAT_ANY` and the like):
//! `list` and [`limits`] read `/proc`, and use those commands themselves where it can't be read.

#![deny(unsafe_code)]

mod created;
mod error;
mod key;
pub mod limits;
pub mod msg;
pub mod sem;
pub mod shm;
mod sys;
mod table;

pub use created::{Created, Object};
pub use error::{Error, Result, Subject};
pub use key::{Key, ftok};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("sysv-ipc supports the System V calls of 64-bit Linux only");

/// The example of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
