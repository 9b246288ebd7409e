//! What a guard that fails means to the user of a handle.

use crate::error::{RecvError, SendError};
use crate::guard::GuardError;

impl From<GuardError> for SendError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Removed => Self::Removed,
            GuardError::Os { errno, .. } => Self::Os { errno },
        }
    }
}

impl From<GuardError> for RecvError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Removed => Self::Removed,
            GuardError::Os { errno, .. } => Self::Os { errno },
        }
    }
}
