//! Ends transfers that block.
//!
//! While a transfer runs, a timer sends this thread a signal repeatedly. The signal's handler does
//! nothing, and the kernel does not restart calls after it, so a read(2) or write(2) that sleeps returns:
//! with the bytes that it has moved, or with `EINTR` if there are none. Both results are exact, on pipes,
//! sockets and terminals alike, so nothing is lost. The signal is repeated because the first one may come
//! before the call sleeps.
//!
//! `SIGURG` is ignored by default, so one that comes late does no harm, and it is not used to end
//! processes (as `SIGALRM` is).

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::time::Duration;

/// Ends reads and writes of one thread that block for too long.
#[derive(Debug)]
pub struct Breaker {
    timer: libc::timer_t,
    /// The timer signals the thread that made it: the value stays there.
    not_send: PhantomData<*mut ()>,
}

extern "C" fn do_nothing(_: libc::c_int) {}

impl Breaker {
    /// A breaker for the reads and writes of this thread.
    ///
    /// # Errors
    /// Those of `timer_create`: too many timers of this user.
    pub fn new() -> io::Result<Self> {
        catch_signal()?;
        // SAFETY: the structure consists of integers and a pointer, for which zero is a value.
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGURG;
        // SAFETY: the call takes nothing and returns a number.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = null_mut();
        // SAFETY: both pointers lead to values of this frame.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
        Ok(Self {
            timer,
            not_send: PhantomData,
        })
    }

    /// Makes one read or write, which returns after about this time even if it can move nothing.
    ///
    /// Then it returns the error `Interrupted`.
    ///
    /// # Errors
    /// Those of the transfer; those of `timer_settime`.
    pub fn transfer<T>(
        &self,
        time: Duration,
        transfer: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.set(time)?;
        let result = transfer();
        self.set(Duration::ZERO)?;
        result
    }

    /// Signals from now on at this interval; not at all if it is zero.
    fn set(&self, interval: Duration) -> io::Result<()> {
        let interval = libc::timespec {
            tv_sec: interval.as_secs() as _,
            tv_nsec: interval.subsec_nanos() as _,
        };
        let spec = libc::itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        // SAFETY: the timer exists as long as this value, and the pointer leads to a value of this frame.
        check(unsafe { libc::timer_settime(self.timer, 0, &spec, null_mut()) })
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        // SAFETY: the timer exists, and is not used after this.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// Gives the signal a handler after which no call is restarted, and lets this thread receive it.
fn catch_signal() -> io::Result<()> {
    // SAFETY: the structure consists of integers, addresses and a set of bits, for which zero is a value.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
    // SAFETY: the pointer leads to a value of this frame; the handler touches nothing.
    check(unsafe { libc::sigaction(libc::SIGURG, &action, null_mut()) })?;
    // The parent may have blocked it.
    // SAFETY: as above.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: the pointer leads to a value of this frame.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    // SAFETY: as above.
    check(unsafe { libc::sigaddset(&mut set, libc::SIGURG) })?;
    // SAFETY: the pointer leads to a value of this frame; the null pointer means that the old mask
    // is not requested.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null::<()>() as *mut _) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// `-1` means that errno has the reason.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_millis(1);

    /// Writes until nothing more fits; the bytes that were written.
    fn fill(breaker: &Breaker, mut target: impl Write) -> usize {
        let mut written = 0;
        loop {
            match breaker.transfer(SOON, || target.write(&[7; 300_001])) {
                Ok(bytes) => written += bytes,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
                    return written;
                }
            }
        }
    }

    /// The bytes that are there when the other end has been closed.
    fn drain(mut source: impl Read) -> usize {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
        bytes.len()
    }

    #[test]
    fn a_write_that_is_broken_off_says_how_much_it_wrote() {
        let breaker = Breaker::new().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let written = fill(&breaker, writer);
        assert!(written >= 4096);
        assert_eq!(drain(reader), written);
        let (near, far) = UnixStream::pair().unwrap();
        let written = fill(&breaker, near);
        assert!(written >= 4096);
        assert_eq!(drain(far), written);
    }

    #[test]
    fn a_read_of_nothing_is_broken_off() {
        let breaker = Breaker::new().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        for _ in 0..3 {
            let result = breaker.transfer(SOON, || reader.read(&mut [0; 8]));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Interrupted);
        }
        writer.write_all(b"abc").unwrap();
        let mut bytes = [0; 8];
        let read = breaker.transfer(Duration::from_secs(3600), || reader.read(&mut bytes));
        assert_eq!(read.unwrap(), 3);
    }
}
