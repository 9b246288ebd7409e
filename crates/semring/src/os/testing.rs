//! System calls for tests of the upper layers: children, signals to one thread, mappings.

use std::io;
use std::ptr::NonNull;
use std::sync::Once;

/// How a forked child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// Runs `child` in a forked copy of this process and gives how it ended; its result is the exit code.
/// The copy has one thread, so `child` must not wait for any other.
pub(crate) fn in_child(child: impl FnOnce() -> u8) -> Ended {
    // SAFETY: the child runs `child`, which uses no lock but the allocator's (which glibc makes usable
    // in a child), and then ends without running destructors of the parent's.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        let code = result.map_or(101, libc::c_int::from);
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    loop {
        // SAFETY: waits for our own child; status is ours.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if waited == pid {
            break;
        }
        assert_eq!(
            io::Error::last_os_error().kind(),
            io::ErrorKind::Interrupted
        );
    }
    if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    }
}

/// Sets the umask. For children: it belongs to the whole process.
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: always succeeds, touches no memory.
    unsafe { libc::umask(mask) };
}

/// Becomes the user "nobody". For children.
pub(crate) fn become_nobody() {
    // SAFETY: changes credentials, touches no memory.
    let group = unsafe { libc::setegid(65534) };
    assert_eq!(group, 0);
    // SAFETY: as above.
    let user = unsafe { libc::seteuid(65534) };
    assert_eq!(user, 0);
}

/// Sets RLIMIT_MEMLOCK, in bytes. For children.
pub(crate) fn limit_locked_memory(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: reads the structure.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    assert_eq!(result, 0);
}

/// From now on madvise(2) returns this error number to the calling thread and does nothing; 0: it returns
/// success. For children: it can't be undone.
pub(crate) fn answer_advice_with(errno: i32) {
    let statement = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let answer = libc::BPF_RET | libc::BPF_K;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = [
        // The number of the call is the first word of the filter's input.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(equal, 1, libc::SYS_madvise as u32),
        statement(answer, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        statement(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let asked = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(asked, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the filter lives through the call, which copies it.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Puts a private page of zeros at an address where nothing is mapped.
pub(crate) fn map_page_at(address: NonNull<u8>) {
    // SAFETY: NOREPLACE: fails where anything is mapped already.
    let page = unsafe {
        libc::mmap(
            address.as_ptr().cast(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(
        page,
        address.as_ptr().cast(),
        "{}",
        io::Error::last_os_error()
    );
}

/// A thread of this process, for signals that are meant for it alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(libc::pid_t);

impl Thread {
    /// The calling thread, which a signal by [`interrupt`](Self::interrupt) interrupts from now on.
    pub(crate) fn current() -> Self {
        static HANDLER: Once = Once::new();
        extern "C" fn nothing(_: libc::c_int) {}
        HANDLER.call_once(|| {
            // SAFETY: zeros are a valid sigaction.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            // SAFETY: the handler does nothing; no SA_RESTART, so calls end with EINTR.
            let set = unsafe { libc::sigaction(libc::SIGURG, &action, std::ptr::null_mut()) };
            assert_eq!(set, 0);
        });
        // SAFETY: always succeeds, touches no memory.
        Self(unsafe { libc::gettid() })
    }

    /// Sends it a signal that is handled and does nothing else.
    pub(crate) fn interrupt(self) {
        let process = std::process::id();
        // SAFETY: a signal with a handler, to a thread of our own.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, self.0, libc::SIGURG) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    /// Waits until the thread sleeps in a semaphore operation.
    pub(crate) fn await_asleep_on_a_semaphore(self) {
        let path = format!("/proc/self/task/{}/syscall", self.0);
        let sleeping = [libc::SYS_semop, libc::SYS_semtimedop].map(|call| format!("{call} "));
        loop {
            let call = std::fs::read_to_string(&path).expect("/proc shows the state of a thread");
            if sleeping.iter().any(|number| call.starts_with(number)) {
                return;
            }
            std::thread::yield_now();
        }
    }
}
