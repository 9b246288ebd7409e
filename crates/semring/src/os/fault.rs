//! Surviving the truncation of a mapped file: a handler of SIGBUS that replaces the whole mapping by zeros,
//! records that in the mapping's [`MappingState`], and lets the instruction continue.
//!
//! A signal's action belongs to the whole process, so this handler does as little as possible: a fault
//! outside of the mappings registered here, or a SIGBUS that was sent by `kill`, is passed to the
//! previous action (the standard library's handler among them), as if this handler did not exist. An
//! action that the program installs later replaces this one.
//!
//! The handler takes no lock, allocates nothing, and calls mmap(2) only.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::mapping_state::{MappingState, is_forked_at, tear_at};
use crate::sync::signals::{Entry, Range, Ranges};

/// The mappings that may lose their pages.
static MAPPINGS: Ranges = Ranges::new();

/// The action for SIGBUS before this handler was installed.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The handler is there, or why it is not.
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// Whether [`leave_alone`] was in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeftAlone {
    /// No handler is installed from now on.
    Yes,
    /// The handler was installed before.
    TooLate,
}

/// Keeps the handler from being installed.
pub(crate) fn leave_alone() -> LeftAlone {
    match INSTALLED.get_or_init(|| Err(libc::EPERM)) {
        Err(_) => LeftAlone::Yes,
        Ok(()) => LeftAlone::TooLate,
    }
}

/// Keeps the loss of a mapping's pages from killing the process, until it is dropped.
pub(crate) struct FaultWatch {
    _entry: Entry,
}

impl FaultWatch {
    /// Begins to watch a private or shared mapping that is readable and writable.
    ///
    /// # Safety
    /// Mapping and mapping state must outlive the watch, and nothing else may be mapped there meanwhile (except
    /// in a forked child, whose mapping state is marked).
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        mapping_state: &MappingState,
    ) -> io::Result<Self> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        INSTALLED
            .get_or_init(|| install().map_err(errno))
            .map_err(io::Error::from_raw_os_error)?;
        let range = Range {
            start: base.addr().get(),
            len,
            word: mapping_state.address(),
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
    // On the alternate stack, where a thread has one. SIGBUS is not masked while it runs: a handler
    // of another signal that interrupts it may touch a missing page, too. Interrupted calls are
    // restarted if they were before.
    ours.sa_flags =
        libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER | before.sa_flags & libc::SA_RESTART;
    // SAFETY: the mask is ours and whole.
    super::check(unsafe { libc::sigemptyset(&mut ours.sa_mask) })?;
    action(Some(&ours)).map(drop)
}

/// Sets the action for SIGBUS, if one is given; returns the previous one.
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
        // SAFETY: a watch's mapping state exists for as long as its range is entered.
        !unsafe { is_forked_at(range.word) }
    };
    let Some(range) = MAPPINGS.find(address, is_ours) else {
        return false;
    };
    // First, so that no other thread takes the zeros for anything.
    // SAFETY: as above.
    unsafe { tear_at(range.word) };
    // SAFETY: exactly the pages of a mapping that is in use by the instruction that faulted; other users
    // of the mapping read zeros, and must accept any bytes anyway.
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

/// Blocks the signals that the kernel would have blocked for this action; returning from the
/// handler undoes it.
fn mask_as(action: &libc::sigaction, signal: libc::c_int) {
    let mut mask = action.sa_mask;
    if action.sa_flags & libc::SA_NODEFER == 0 {
        // SAFETY: a copy of our own.
        unsafe { libc::sigaddset(&mut mask, signal) };
    }
    // SAFETY: the mask is initialised; the old one is not requested.
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
        // SAFETY: neither SIG_DFL nor SIG_IGN, so it is a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
        handler(signal);
    } else {
        // SAFETY: as above, and SA_SIGINFO means this type.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
        handler(signal, info, context);
    }
}
