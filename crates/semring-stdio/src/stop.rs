//! Ignored signals, and stopping as by Ctrl-Z without a handler.
//!
//! A program that owns the terminal catches `SIGTSTP` to give the terminal back first. `SIGSTOP` in its
//! place would also stop a process group that no shell can continue; the kernel leaves such a group
//! running when the default action of `SIGTSTP` is to be taken.

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::ptr::null;

/// What [`stop_by`] stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// This process.
    Process,
    /// Its process group, as the terminal does.
    Group,
}

/// Stops this process, or its group, as a signal such as `SIGTSTP` does without a handler.
///
/// It takes the default action of a signal of job control, even if that has a handler. Returns when the process
/// goes on; the handler is back in its place then.
///
/// # Errors
/// Those of `sigaction` and `kill`.
pub fn stop_by(signal: i32, target: Target) -> io::Result<()> {
    let before = act(signal, &action(libc::SIG_IGN))?;
    let sent = match target {
        Target::Process => Ok(()),
        // This process ignores its own copy: any thread could receive it, and this one would go on.
        // SAFETY: the call takes two numbers; 0 is the process group of the caller.
        Target::Group => check(unsafe { libc::kill(0, signal) }),
    };
    let stopped = act(signal, &action(libc::SIG_DFL)).and_then(|_| {
        // Sent to this thread: the call returns when the process goes on.
        // SAFETY: the call takes a number.
        check(unsafe { libc::raise(signal) })
    });
    let restored = act(signal, &before);
    sent.and(stopped).and(restored.map(drop))
}

/// Whether this process ignores a signal.
///
/// Set by the parent (`nohup`, a background job of a script), as long as nothing has changed it. A signal that
/// does not exist is not ignored.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut now = action(libc::SIG_DFL);
    // SAFETY: the null pointer means no change; the other one leads to a value of this frame.
    let result = unsafe { libc::sigaction(signal, null(), &mut now) };
    result == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// An action without a mask or flags.
fn action(handler: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: the structure consists of integers, addresses and a set of bits, for which zero is a value.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler;
    action
}

/// Sets the action of a signal; the one before.
fn act(signal: i32, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut before = *action;
    // SAFETY: both pointers lead to values that live during the call. The action is one of the kernel's, or
    // one that the kernel gave and that is still valid.
    check(unsafe { libc::sigaction(signal, action, &mut before) })?;
    Ok(before)
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_known() {
        assert!(!is_ignored(libc::SIGWINCH));
        let before = act(libc::SIGWINCH, &action(libc::SIG_IGN)).unwrap();
        assert!(is_ignored(libc::SIGWINCH));
        act(libc::SIGWINCH, &before).unwrap();
        assert!(!is_ignored(libc::SIGWINCH) && !is_ignored(9999));
    }
}
