//! How a command ends: the documented exit codes, and the error message.

use std::fmt;
use std::io;

use nix::errno::Errno;
use semring::{Address, AttachError, CreateError, OpenError, OpenOrCreateError, RemoveError};

/// Done, or end of stream.
pub(crate) const DONE: u8 = 0;
/// A failure at run time.
pub(crate) const FAILED: u8 = 1;
/// Wrong options, or a ring that differs from them.
pub(crate) const USAGE: u8 = 2;
/// No such ring.
pub(crate) const NO_RING: u8 = 3;
/// Not allowed.
pub(crate) const PERMISSION: u8 = 4;
/// Not a ring, or one of another format version.
pub(crate) const NOT_A_RING: u8 = 5;
/// Finished, but something was lost or damaged.
pub(crate) const DAMAGED: u8 = 6;
/// Nothing moved for the time of `--timeout`.
pub(crate) const TIMED_OUT: u8 = 124;
/// The reader is gone.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// A failure: one sentence for the person, one code for the script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) sentence: String,
    /// The process ends by this signal, in place of the code.
    pub(crate) signal: Option<i32>,
}

impl Failure {
    pub(crate) fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
            signal: None,
        }
    }

    /// The end by a signal that was caught.
    pub(crate) fn by_signal(signal: i32) -> Self {
        Self {
            signal: Some(signal),
            ..Self::new(128u8.wrapping_add(signal as u8), "")
        }
    }

    /// A failure at run time.
    pub(crate) fn run_time(sentence: impl Into<String>) -> Self {
        Self::new(FAILED, sentence)
    }

    /// An error of the system with stdin, stdout or signals, and what helps.
    pub(crate) fn of(what: &str, error: &io::Error) -> Self {
        let advice = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EFBIG) => {
                ": the file is as long as RLIMIT_FSIZE or its file system allows; raise the limit (ulimit -f, LimitFSIZE= of \
                 a service)"
            }
            Some(Errno::EMFILE) => {
                ": this process has as many descriptors as RLIMIT_NOFILE allows; raise it (ulimit -n, LimitNOFILE= of a \
                 service, --ulimit nofile= of a container)"
            }
            _ => "",
        };
        Self::run_time(format!("{what}: {error}{advice}"))
    }

    /// The end without a message: the reader of stdout is gone.
    pub(crate) fn broken_pipe() -> Self {
        Self::new(BROKEN_PIPE, "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match error {
            OpenError::Address(_) | OpenError::Mismatch { .. } => USAGE,
            OpenError::NotFound { .. } => NO_RING,
            OpenError::NotARing { .. }
            | OpenError::OtherVersion { .. }
            | OpenError::UnknownFeatures { .. } => NOT_A_RING,
            OpenError::Permission { .. } => PERMISSION,
            _ => FAILED,
        };
        Self::new(code, error.to_string() + &opening_hint(&error))
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let code = match error {
            CreateError::Address(_) | CreateError::BadOption { .. } => USAGE,
            CreateError::NotARing { .. } => NOT_A_RING,
            CreateError::Permission { .. } => PERMISSION,
            _ => FAILED,
        };
        let hint = match error {
            CreateError::SemaphoreLimit { .. } => {
                "; semring prune removes what killed programs left"
            }
            _ => "",
        };
        Self::new(code, format!("{error}{hint}"))
    }
}

impl From<OpenOrCreateError> for Failure {
    fn from(error: OpenOrCreateError) -> Self {
        match error {
            OpenOrCreateError::Open(error) => error.into(),
            OpenOrCreateError::Create(error) => error.into(),
            other => Self::run_time(other.to_string()),
        }
    }
}

impl From<RemoveError> for Failure {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Open(error) => error.into(),
            RemoveError::Permission { .. } => Self::new(PERMISSION, error.to_string()),
            RemoveError::InUse { .. } => Self::run_time(format!("{error} (--force)")),
            _ => Self::run_time(error.to_string()),
        }
    }
}

/// What helps at the command line, beside the library's text.
fn opening_hint(error: &OpenError) -> String {
    match error {
        OpenError::Permission { .. } => " (--mode of semring create)".to_owned(),
        OpenError::GuardMissing { name, why } if why.contains("by force") => {
            format!(": semring rm --force {name}")
        }
        _ => String::new(),
    }
}

/// Why the ring at `address` could not be opened. With a descriptor, "no such ring" means that it is not open.
pub(crate) fn open_failure(address: &Address, error: OpenError) -> Failure {
    let is_missing = matches!(error, OpenError::NotFound { .. });
    let failure = Failure::from(error);
    match address.to_string().strip_prefix("fd:") {
        Some(number) if is_missing && !number.starts_with('/') => Failure {
            sentence: format!("fd:{number}: descriptor {number} is not open"),
            ..failure
        },
        _ => failure,
    }
}

/// Why the process could not attach to the ring at `address`.
pub(crate) fn attach_failure(address: &str, error: &AttachError) -> Failure {
    let code = if *error == AttachError::Permission {
        PERMISSION
    } else {
        FAILED
    };
    let hint = match error {
        AttachError::NoFreeLane { .. } => " (--producers)",
        _ => "",
    };
    Failure::new(code, format!("{address}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_the_code_of_the_contract() {
        let name = || "posix:x".to_owned();
        let denied = || std::io::Error::from_raw_os_error(13);
        let codes = [
            (OpenError::NotFound { name: name() }, NO_RING),
            (
                OpenError::NotARing {
                    name: name(),
                    what: String::new(),
                },
                NOT_A_RING,
            ),
            (
                OpenError::OtherVersion {
                    name: name(),
                    found: 9,
                    expected: 1,
                },
                NOT_A_RING,
            ),
            (
                OpenError::UnknownFeatures {
                    name: name(),
                    bits: 1,
                },
                NOT_A_RING,
            ),
            (
                OpenError::Permission {
                    name: name(),
                    source: denied(),
                },
                PERMISSION,
            ),
            (OpenError::Busy { name: name() }, FAILED),
        ];
        for (error, code) in codes {
            assert_eq!(Failure::from(error).code, code);
        }
        let address = "no/slash".parse::<semring::Address>().unwrap_err();
        assert_eq!(Failure::from(OpenError::Address(address)).code, USAGE);
        let in_use = RemoveError::InUse {
            name: name(),
            producers: vec![12],
            consumer: Some(34),
        };
        let failure = Failure::from(in_use);
        assert!(failure.code == FAILED && failure.sentence.contains("12"));
        assert!(failure.sentence.contains("--force"));
        let lost = Failure::from(OpenError::GuardMissing {
            name: name(),
            why: "its semaphores are gone; remove it by force".to_owned(),
        });
        assert!(
            lost.sentence
                .ends_with("by force: semring rm --force posix:x")
        );
        assert_eq!(
            attach_failure("posix:x", &AttachError::Permission).code,
            PERMISSION
        );
        let present = attach_failure("posix:x", &AttachError::ConsumerPresent { pid: 7 });
        assert!(present.code == FAILED && present.sentence.starts_with("posix:x: "));
    }
}
