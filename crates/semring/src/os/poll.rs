//! Sleeping until one of several pipes has an event (epoll).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::time::Duration;

/// A set of descriptors to sleep on; pollable itself.
#[derive(Debug)]
pub(crate) struct Poller(File);

/// The event that wakes a sleeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    /// There are tokens, for as long as there are.
    Tokens,
    /// The pipe hung up; reported once for each time.
    HangUp,
    /// A token was written; reported once for each write, whether it is read or not.
    News,
}

/// How many events one call collects.
const AT_ONCE: usize = 64;

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a flag only.
        let number = super::check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a new descriptor, owned here.
        Ok(Self(unsafe { File::from_raw_fd(number) }))
    }

    /// Listens to one more descriptor, until its description is closed.
    pub(crate) fn add(&self, descriptor: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: match interest {
                Interest::Tokens => libc::EPOLLIN as u32,
                Interest::HangUp => libc::EPOLLET as u32,
                Interest::News => libc::EPOLLIN as u32 | libc::EPOLLET as u32,
            },
            u64: 0,
        };
        let number = descriptor.as_raw_fd();
        // SAFETY: two descriptors that we hold, and a structure that lives through the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                number,
                &raw mut event,
            )
        };
        super::check(result)?;
        Ok(())
    }

    /// Sleeps until there is something, at most for the timeout; false: nothing came. Interrupted by signals.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut any = false;
        let mut timeout = timeout;
        loop {
            let got = self.collect(timeout)?;
            any |= got > 0;
            if got < AT_ONCE {
                return Ok(any);
            }
            // Each event is reported once: all must be read, or the next sleep would return at
            // once.
            timeout = Some(Duration::ZERO);
        }
    }

    fn collect(&self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        let (number, room) = (self.0.as_raw_fd(), events.as_mut_ptr());
        let time = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        if let Some(time) = time.filter(|time| time.tv_sec != 0 || time.tv_nsec != 0) {
            // SAFETY: room for all events, and a time that outlives the call.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    number,
                    room,
                    AT_ONCE as libc::c_int,
                    &raw const time,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            match super::check(got as libc::c_int) {
                Ok(got) => return Ok(got as usize),
                // Before Linux 5.11, or under a seccomp filter without this call.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
                Err(error) => return Err(error),
            }
        }
        let milliseconds = timeout.map_or(-1, |timeout| {
            let whole = timeout.as_nanos().div_ceil(1_000_000);
            libc::c_int::try_from(whole).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: room for all events.
        let got = unsafe { libc::epoll_wait(number, room, AT_ONCE as libc::c_int, milliseconds) };
        super::check(got).map(|got| got as usize)
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
