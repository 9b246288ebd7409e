//! Translates errors of the guard into errors of the handles.

use crate::error::{RecvError, SendError, SystemCall};
use crate::guard::GuardError;

impl From<GuardError> for SendError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Removed => Self::Removed,
            GuardError::Os { call, errno } => Self::Os {
                call: SystemCall::of(call),
                errno,
            },
        }
    }
}

impl From<GuardError> for RecvError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Removed => Self::Removed,
            GuardError::Os { call, errno } => Self::Os {
                call: SystemCall::of(call),
                errno,
            },
        }
    }
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_call_that_failed_is_named() {
        let error = GuardError::Os {
            call: "epoll_wait",
            errno: 12,
        };
        assert!(SendError::from(error).to_string().contains("epoll_wait"));
        assert!(RecvError::from(error).to_string().contains("epoll_wait"));
    }
}
