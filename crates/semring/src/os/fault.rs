//! Outliving the truncation of a mapped file: a handler of SIGBUS that puts zeros in the place of the whole
//! mapping, notes it in the mapping's [`Sentinel`], and lets the instruction go on.
//!
//! A signal's action is the whole process's, so this one does as little as it can: a fault outside of the
//! mappings that were entered here, or a SIGBUS that somebody sent, goes to whom it would have gone to
//! before (the standard library's own handler among them), as if there were no handler of ours. What
//! the program installs later takes its place.
//!
//! The handler takes no lock, allocates nothing, and calls mmap(2) only.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::sentinel::{Sentinel, is_forked_at, tear_at};
use crate::sync::signals::{Entry, Range, Ranges};

/// The mappings that may lose their pages.
static MAPPINGS: Ranges = Ranges::new();

/// What was to happen on SIGBUS before we came.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The handler is there, or why it is not.
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// From now on no handler is installed. False if there is one already.
pub(crate) fn leave_alone() -> bool {
    INSTALLED.get_or_init(|| Err(libc::EPERM)).is_err()
}

/// Keeps the loss of a mapping's pages from killing the process, until it is dropped.
pub(crate) struct Watch {
    _entry: Entry,
}

impl Watch {
    /// Begins to watch a private or shared mapping that is readable and writable.
    ///
    /// # Safety
    /// Mapping and sentinel must outlive the watch, and nothing else may be mapped there meanwhile (but in
    /// a forked child, whose sentinel says so).
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        sentinel: &Sentinel,
    ) -> io::Result<Self> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        INSTALLED
            .get_or_init(|| install().map_err(errno))
            .map_err(io::Error::from_raw_os_error)?;
        let range = Range {
            start: base.addr().get(),
            len,
            word: sentinel.address(),
        };
        // The handler makes pointers of both.
        let _ = base.expose_provenance();
        Ok(Self {
            _entry: MAPPINGS.enter(range),
        })
    }
}

fn install() -> io::Result<()> {
    let before = action(None)?;
    // Before it can be needed.
    let before = BEFORE.get_or_init(|| before);
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    let mut ours = *before;
    ours.sa_sigaction = handler as usize;
    // On the alternate stack, where a thread has one. Not masked while it runs: a handler of another
    // signal that interrupts it may meet a missing page, too. What was to be restarted still is.
    ours.sa_flags =
        libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | before.sa_flags & libc::SA_RESTART;
    // SAFETY: the mask is ours and whole.
    super::check(unsafe { libc::sigemptyset(&mut ours.sa_mask) })?;
    action(Some(&ours)).map(drop)
}

/// Sets what is to happen on SIGBUS, if anything is given; gives what was to happen.
fn action(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is nothing or a whole action; `old` has room for one.
    super::check(unsafe { libc::sigaction(libc::SIGBUS, new, old.as_mut_ptr()) })?;
    // SAFETY: sigaction filled it in, and zeros are an action, too.
    Ok(unsafe { old.assume_init() })
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the thread's own errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the kernel gives a whole siginfo to a handler with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // Not positive: sent by a process, and there is no address.
    let is_fault = code > 0;
    if !(is_fault && mend(info)) {
        pass_on(signal, info, context, is_fault);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Puts zeros where the fault was, if that is a mapping of ours.
fn mend(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: the kernel gives a whole siginfo, and this function lives no longer.
    let info = unsafe { &*info };
    // SAFETY: the signal is a fault, so the kernel filled in its address.
    let address = unsafe { info.si_addr() }.addr();
    // In a forked child the parent's mappings are not there: something else may be.
    let is_ours = |range: &Range| {
        // SAFETY: a watch's sentinel exists for as long as its range is entered.
        !unsafe { is_forked_at(range.word) }
    };
    let Some(range) = MAPPINGS.find(address, is_ours) else {
        return false;
    };
    // First, so that no other thread takes the zeros for anything.
    // SAFETY: as above.
    unsafe { tear_at(range.word) };
    // SAFETY: exactly the pages of a mapping that is in use by the instruction that faulted; whoever else
    // uses it finds zeros, which its users are prepared for as for any other bytes.
    let zeros = unsafe {
        libc::mmap(
            std::ptr::with_exposed_provenance_mut(range.start),
            range.len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    zeros != libc::MAP_FAILED
}

/// Does what would have happened without us.
fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    is_fault: bool,
) {
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        libc::SIG_IGN if !is_fault => {}
        // The instruction faults again, and the kernel does the rest.
        libc::SIG_DFL | libc::SIG_IGN => {
            let _ = action(Some(before));
            if !is_fault {
                // SAFETY: sends this thread a signal.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            if before.sa_flags & libc::SA_RESETHAND != 0 {
                let mut default = *before;
                default.sa_sigaction = libc::SIG_DFL;
                let _ = action(Some(&default));
            }
            mask_as(before, signal);
            call(handler, before.sa_flags, signal, info, context);
        }
    }
}

/// Masks what the kernel would have masked for this action; returning from the handler undoes it.
fn mask_as(action: &libc::sigaction, signal: libc::c_int) {
    let mut mask = action.sa_mask;
    if action.sa_flags & libc::SA_NODEFER == 0 {
        // SAFETY: a copy of our own.
        unsafe { libc::sigaddset(&mut mask, signal) };
    }
    // SAFETY: the mask is whole; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &mask, std::ptr::null_mut()) };
}

fn call(
    handler: libc::sighandler_t,
    flags: libc::c_int,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type Plain = extern "C" fn(libc::c_int);
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    if flags & libc::SA_SIGINFO == 0 {
        // SAFETY: neither SIG_DFL nor SIG_IGN, so whoever installed it gave a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
        handler(signal);
    } else {
        // SAFETY: as above, and SA_SIGINFO says of which type.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
        handler(signal, info, context);
    }
}
