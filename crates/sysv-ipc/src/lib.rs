//! System V IPC for Linux: shared memory, semaphores, message queues and `ftok`.

#![deny(unsafe_code)]

mod created;
mod error;
mod key;
pub mod sem;
pub mod shm;
mod sys;

pub use created::{Created, Object};
pub use error::{Error, Result, Subject};
pub use key::{Key, ftok};

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("sysv-ipc knows the System V calls of 64-bit Linux only");
