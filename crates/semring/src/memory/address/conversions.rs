//! Conversions to an [`Address`]: from text, from an `OsStr`, and from references.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Address, AddressError, Form, file_form, shorten};

impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = AddressError;

    fn try_from(text: &String) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// As from an [`OsStr`].
impl TryFrom<OsString> for Address {
    type Error = AddressError;

    fn try_from(written: OsString) -> Result<Self, AddressError> {
        written.as_os_str().try_into()
    }
}

/// As from an [`OsStr`].
impl TryFrom<&OsString> for Address {
    type Error = AddressError;

    fn try_from(written: &OsString) -> Result<Self, AddressError> {
        written.as_os_str().try_into()
    }
}

/// An address from a command line: as with text, but the paths of `file:PATH` and `sysv:PATH#ID` may
/// have bytes that are not UTF-8. `Display` replaces those by U+FFFD.
impl TryFrom<&OsStr> for Address {
    type Error = AddressError;

    fn try_from(written: &OsStr) -> Result<Self, AddressError> {
        if let Some(text) = written.to_str() {
            return text.parse();
        }
        let bytes = written.as_bytes();
        if let Some(path) = bytes.strip_prefix(b"file:") {
            return file_form(OsStr::from_bytes(path)).map(Self);
        }
        // The path apart, it is text.
        let lossy = written.to_string_lossy();
        match lossy.parse()? {
            Self(Form::SysvPath { id, .. }) => {
                let end = bytes.iter().rposition(|byte| *byte == b'#');
                let path = &bytes[b"sysv:".len()..end.expect("its id follows one")];
                let path = PathBuf::from(OsStr::from_bytes(path));
                Ok(Self(Form::SysvPath { path, id }))
            }
            _ => Err(AddressError::BadName {
                name: shorten(&lossy),
                rule: "it is not UTF-8",
            }),
        }
    }
}
