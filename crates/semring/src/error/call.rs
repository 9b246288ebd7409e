//! The system call that an error of the data path is about, in one byte: those errors are passed by value.

use std::fmt;

macro_rules! system_calls {
    ($($(#[$doc:meta])* $call:ident = $name:literal,)*) => {
        /// A system call that failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SystemCall {
            $($(#[$doc])* $call,)*
            /// One that has no name here.
            Other,
        }

        impl SystemCall {
            /// The call of this name.
            pub(crate) fn of(name: &str) -> Self {
                match name {
                    $($name => Self::$call,)*
                    _ => Self::Other,
                }
            }

            /// Its name, as in the manual.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$call => $name,)*
                    Self::Other => "a system call",
                }
            }
        }
    };
}

system_calls! {
    /// An operation on the ring's semaphores.
    Semop = "semop",
    /// The same, with a time-out.
    Semtimedop = "semtimedop",
    /// A query of the ring's semaphores.
    Semctl = "semctl",
    /// A query of a lock.
    GetLock = "fcntl(F_OFD_GETLK)",
    /// Taking a lock, or giving it back.
    SetLock = "fcntl(F_OFD_SETLK)",
    /// Opening a pipe of the ring.
    Openat = "openat",
    /// Taking a wake-up out of a pipe.
    Read = "read",
    /// Putting a wake-up into a pipe.
    Write = "write",
    /// A wait for pipes.
    EpollWait = "epoll_wait",
    /// A change of the events waited for.
    EpollCtl = "epoll_ctl",
    /// The beginning of a wait for pipes.
    EpollCreate = "epoll_create1",
    /// A query of a file.
    Fstat = "fstat",
}

impl fmt::Display for SystemCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_call() {
        for call in [
            SystemCall::Semop,
            SystemCall::SetLock,
            SystemCall::EpollWait,
        ] {
            assert_eq!(SystemCall::of(call.name()), call);
        }
        assert_eq!(SystemCall::of("getrandom"), SystemCall::Other);
    }
}
