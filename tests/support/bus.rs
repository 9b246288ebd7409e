//! SIGBUS of the process's own: its handler, and faults that have nothing to do with a ring.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;

/// How many signals the handler got.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// Puts zeros where the fault was; nothing to do for a signal that was sent.
extern "C" fn mend(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel gives a whole siginfo, and the handler lives no longer.
    let info = unsafe { &*info };
    if info.si_code <= 0 {
        return;
    }
    // SAFETY: the signal is a fault, so there is an address.
    let page = unsafe { info.si_addr() }.map_addr(|address| address & !(PAGE - 1));
    let flags = libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
    // SAFETY: in the place of a page that `fault` maps, and that is missing.
    let zeros = unsafe { libc::mmap(page, PAGE, libc::PROT_READ, flags, -1, 0) };
    if zeros == libc::MAP_FAILED {
        // SAFETY: ends the process.
        unsafe { libc::abort() };
    }
}

fn set_action(handler: libc::sighandler_t) {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler makes calls that a handler may make, or is none.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0, "SIGBUS can be handled");
}

pub(super) fn handle() {
    set_action(mend as *const () as libc::sighandler_t);
}

pub(super) fn ignore() {
    set_action(libc::SIG_IGN);
}

pub(super) fn reset() {
    set_action(libc::SIG_DFL);
}

/// Reads a page that is missing; gives how many signals were handled so far.
pub(super) fn fault() -> usize {
    let path = std::env::temp_dir().join(format!("semring-fault-{}", std::process::id()));
    let options = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let file = options.expect("a file of our own");
    std::fs::remove_file(&path).expect("it has a name");
    file.set_len(PAGE as u64).expect("it can grow");
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: a new mapping, placed by the kernel.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, shared, fd, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    file.set_len(0).expect("it can shrink");
    // SAFETY: mapped above; that the page is missing is what this is about.
    let byte = unsafe { page.cast::<u8>().read_volatile() };
    assert_eq!(byte, 0);
    HANDLED.load(Ordering::Relaxed)
}

/// Sends this process a SIGBUS; gives how many were handled so far.
pub(super) fn raise() -> usize {
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGBUS) };
    HANDLED.load(Ordering::Relaxed)
}
