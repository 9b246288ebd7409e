//! Ring addresses: their written form, and the place that each of them stands for.

mod conversions;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::posix;
use crate::os::sysv::{Key, ftok};

/// Longest name in bytes. The superblock stores it.
pub(crate) const MAX_NAME_BYTES: usize = 200;

/// Longest part of a path in bytes, between two slashes: NAME_MAX.
pub(crate) const MAX_PART_BYTES: usize = 255;

/// Longest path in bytes: PATH_MAX without its zero byte.
const MAX_PATH_BYTES: usize = 4095;

/// The address of a ring.
///
/// | written | memory |
/// |---|---|
/// | `NAME`, `posix:NAME` | POSIX shared memory: a file of this name in `/dev/shm` |
/// | `sysv:NAME` | System V shared memory, its key derived from the name |
/// | `sysv:0x12340001`, `sysv:4096` | the same with this key |
/// | `sysv:PATH#ID` | the same with the key that `ftok` gives; refused if a ring of another file has it |
/// | `file:PATH` | a mapped file on a local file system; survives a reboot |
/// | `memfd:`, `memfd:NAME` | memory without a name, for [`create`](crate::Builder::create) only: others get a descriptor |
/// | `fd:N`, `fd:/proc/PID/fd/N` | the file of a descriptor: such memory, or the file of a ring |
/// | `anonymous:` | memory of this process and of the children that it forks, for `create` only |
///
/// A name has 1 to 200 of the characters `A-Za-z0-9._-` and does not begin with `.`, `-` or `0x`. A path
/// has at most 4095 bytes, 255 from slash to slash, and no control characters, and its last part is not a symbolic link; one that is not UTF-8 comes in by
/// `TryFrom<&OsStr>`.
///
/// Every function of this crate that takes an address takes anything that can become one: text, an [`OsStr`], an
/// `Address` or a reference to one.
///
/// ```
/// use semring::{Address, Backend};
/// let address: Address = "orders".parse()?;
/// assert_eq!(address.to_string(), "posix:orders");
/// assert!("no/slash".parse::<Address>().is_err());
/// let address: Address = "file:/var/lib/orders.ring".parse()?;
/// assert_eq!(address.backend(), Backend::File);
/// # Ok::<(), semring::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address(Form);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Form {
    Posix(String),
    SysvName(String),
    SysvKey(i32),
    SysvPath {
        path: PathBuf,
        id: u8,
    },
    File(PathBuf),
    /// The name may be empty.
    Memfd(String),
    Descriptor {
        number: i32,
        /// The first eight bytes of its ring's uuid, if no other ring is meant.
        ring: Option<u64>,
    },
    /// Of another process: `/proc/PID/fd/N`.
    Elsewhere(String),
    Anonymous,
}

/// Why an address is not valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The name breaks a rule.
    #[error("{name:?} can't be a ring's name: {rule}")]
    BadName {
        /// The name as given, shortened if it is very long.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// The number after `sysv:` is not a key.
    #[error(
        "{text:?} is not a System V key: write sysv:0x12340001 or a decimal number, from 0x1 to 0xffffffff"
    )]
    BadKey {
        /// As given.
        text: String,
    },
    /// The text after `sysv:` looks like a path, but not like `PATH#ID`.
    #[error("{text:?}: write sysv:PATH#ID with an existing file and an ID from 1 to 255")]
    BadPath {
        /// As given.
        text: String,
    },
    /// The text after `file:` can't be a path.
    #[error(
        "{text:?}: write file:PATH, up to 4095 bytes and 255 from slash to slash, without control characters, and no \
         folder"
    )]
    BadFile {
        /// As given, shortened if it is very long.
        text: String,
    },
    /// The text after `fd:` is not a descriptor.
    #[error("{text:?}: write fd:N with the number of an open descriptor, or fd:/proc/PID/fd/N")]
    BadDescriptor {
        /// As given.
        text: String,
    },
    /// The word before the colon names no kind of memory of this version.
    #[error(
        "{scheme:?} is not a kind of memory that this version has: use posix:, sysv:, file:, memfd:, fd: or anonymous:"
    )]
    UnknownScheme {
        /// The word.
        scheme: String,
    },
}

impl AddressError {
    pub(crate) fn bad_name(name: &str, rule: &'static str) -> Self {
        Self::BadName {
            name: shorten(name),
            rule,
        }
    }
}

/// The file from which `ftok` made a key, in a form that identifies it among all files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyFile {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The place that an address means in the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A file below /dev/shm.
    Posix(PathBuf),
    /// A System V key.
    Sysv(Key),
    /// A file of its own.
    File(PathBuf),
    /// Memory without a name, labelled like this.
    Memfd(String),
    /// The file that this link of /proc leads to.
    Descriptor(PathBuf),
    /// Memory of this process and its children.
    Anonymous,
}

/// The kind of memory that holds a ring.
///
/// A [`Memfd`](Self::Memfd) or [`Anonymous`](Self::Anonymous) ring ends with the last process that has
/// it open; a [`Posix`](Self::Posix) or [`Sysv`](Self::Sysv) ring stays until it is removed or the
/// machine restarts; a [`File`](Self::File) ring stays until it is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Backend {
    /// POSIX shared memory (/dev/shm).
    Posix,
    /// System V shared memory.
    Sysv,
    /// A mapped file.
    File,
    /// Memory without a name (`memfd_create(2)`), or any ring's file opened through a descriptor.
    Memfd,
    /// Memory shared by a process and those that it forks.
    Anonymous,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posix => "posix",
            Self::Sysv => "sysv",
            Self::File => "file",
            Self::Memfd => "memfd",
            Self::Anonymous => "anonymous",
        })
    }
}

impl Address {
    /// The address given by a caller, in any form.
    pub(crate) fn of(
        named: impl TryInto<Self, Error: Into<AddressError>>,
    ) -> Result<Self, AddressError> {
        named.try_into().map_err(Into::into)
    }

    /// The kind of memory.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.0 {
            Form::Posix(_) => Backend::Posix,
            Form::SysvName(_) | Form::SysvKey(_) | Form::SysvPath { .. } => Backend::Sysv,
            Form::File(_) => Backend::File,
            Form::Memfd(_) | Form::Descriptor { .. } | Form::Elsewhere(_) => Backend::Memfd,
            Form::Anonymous => Backend::Anonymous,
        }
    }

    /// The name or path, without a prefix such as `posix:`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.0 {
            Form::Posix(name) | Form::SysvName(name) => name.clone(),
            Form::SysvKey(key) => format!("0x{key:08x}"),
            Form::SysvPath { path, id } => format!("{}#{id}", path.display()),
            Form::File(path) => path.display().to_string(),
            Form::Elsewhere(path) => path.clone(),
            Form::Memfd(label) => label.clone(),
            Form::Descriptor { number, .. } => number.to_string(),
            Form::Anonymous => String::new(),
        }
    }

    /// Whether a ring found at this address must carry this name: two names can share a derived key, and
    /// a copied file its original's semaphores. (A `file:` may be renamed: its superblock holds its
    /// inode.)
    pub(crate) fn name_must_match(&self) -> bool {
        matches!(self.0, Form::Posix(_) | Form::SysvName(_))
    }

    /// The file of a `PATH#ID`; `None` for other addresses.
    pub(crate) fn key_file(&self) -> std::io::Result<Option<KeyFile>> {
        let Form::SysvPath { path, .. } = &self.0 else {
            return Ok(None);
        };
        let data = std::fs::metadata(path)?;
        Ok(Some(KeyFile {
            device: data.dev(),
            inode: data.ino(),
        }))
    }

    /// The address with this key.
    pub(crate) fn of_key(key: Key) -> Self {
        Self(Form::SysvKey(key.raw()))
    }

    /// The place. Needs the file of a `PATH#ID` to exist.
    pub(crate) fn place(&self) -> std::io::Result<Place> {
        Ok(match &self.0 {
            Form::Posix(name) => Place::Posix(PathBuf::from(posix::DIRECTORY).join(name)),
            Form::SysvName(name) => Place::Sysv(derived_key(name)),
            Form::SysvKey(key) => Place::Sysv(Key::new(*key)),
            Form::SysvPath { path, id } => Place::Sysv(ftok(path, *id)?),
            // The process may change its folder before it removes the ring.
            Form::File(path) => Place::File(std::path::absolute(path)?),
            Form::Memfd(label) => Place::Memfd(label.clone()),
            Form::Descriptor { number, .. } => {
                Place::Descriptor(PathBuf::from(format!("/proc/self/fd/{number}")))
            }
            Form::Elsewhere(link) => Place::Descriptor(PathBuf::from(link)),
            Form::Anonymous => Place::Anonymous,
        })
    }

    /// The address of a memfd with this label, if that can be one.
    pub(super) fn of_label(label: &str) -> Self {
        let label = if check_name(label).is_ok() { label } else { "" };
        Self(Form::Memfd(label.to_owned()))
    }

    /// The address of an open descriptor.
    pub(super) fn of_descriptor(number: i32) -> Self {
        Self(Form::Descriptor { number, ring: None })
    }

    /// The address of a descriptor that a program inherits, which leads to the ring with this uuid.
    pub(crate) fn of_inherited(number: i32, uuid: &[u8; 16]) -> Self {
        let ring = Some(first_bytes(uuid));
        Self(Form::Descriptor { number, ring })
    }

    /// The number of the descriptor.
    pub(crate) fn descriptor(&self) -> Option<i32> {
        match self.0 {
            Form::Descriptor { number, .. } => Some(number),
            _ => None,
        }
    }

    /// True if it means another ring than the one with this uuid.
    pub(crate) fn means_another(&self, uuid: &[u8; 16]) -> bool {
        matches!(self.0, Form::Descriptor { ring: Some(ring), .. } if ring != first_bytes(uuid))
    }

    /// The address of something that was found in a listing.
    pub(crate) fn of_place(place: &Place, stored_name: &str) -> Self {
        Self(match place {
            Place::Posix(path) => Form::Posix(
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            ),
            Place::Sysv(key) => {
                let named = check_name(stored_name).is_ok() && derived_key(stored_name) == *key;
                if named {
                    Form::SysvName(stored_name.to_owned())
                } else {
                    Form::SysvKey(key.raw())
                }
            }
            Place::File(path) => Form::File(path.clone()),
            Place::Descriptor(link) => Form::Elsewhere(link.to_string_lossy().into_owned()),
            Place::Memfd(label) => Form::Memfd(label.clone()),
            Place::Anonymous => Form::Anonymous,
        })
    }
}

impl Address {
    /// True if it is a valid address. A file found in a folder may have any name.
    pub(crate) fn is_valid(&self) -> bool {
        self.to_text()
            .is_some_and(|text| text.parse::<Self>().is_ok())
    }

    /// The address as text, if it is text: a path may have bytes that are not.
    pub(crate) fn to_text(&self) -> Option<String> {
        match &self.0 {
            Form::File(path) | Form::SysvPath { path, .. } => path.to_str()?,
            _ => "",
        };
        Some(self.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Posix(name) => write!(f, "posix:{name}"),
            Form::SysvName(name) => write!(f, "sysv:{name}"),
            Form::SysvKey(key) => write!(f, "sysv:0x{key:08x}"),
            Form::SysvPath { path, id } => write!(f, "sysv:{}#{id}", path.display()),
            Form::File(path) => write!(f, "file:{}", path.display()),
            Form::Memfd(label) => write!(f, "memfd:{label}"),
            Form::Descriptor { number, ring: None } => write!(f, "fd:{number}"),
            Form::Descriptor {
                number,
                ring: Some(ring),
            } => write!(f, "fd:{number}#{ring:016x}"),
            Form::Elsewhere(link) => write!(f, "fd:{link}"),
            Form::Anonymous => f.write_str("anonymous:"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            check_name(text)?;
            return Ok(Self(Form::Posix(text.to_owned())));
        };
        match scheme {
            "posix" => {
                check_name(rest)?;
                Ok(Self(Form::Posix(rest.to_owned())))
            }
            "sysv" => sysv_form(rest).map(Self),
            "file" => file_form(OsStr::new(rest)).map(Self),
            "memfd" if rest.is_empty() => Ok(Self(Form::Memfd(String::new()))),
            "memfd" => {
                check_name(rest)?;
                Ok(Self(Form::Memfd(rest.to_owned())))
            }
            "fd" => descriptor_form(rest).map(Self),
            "anonymous" if rest.is_empty() => Ok(Self(Form::Anonymous)),
            "anonymous" => Err(AddressError::BadName {
                name: shorten(rest),
                rule: "anonymous memory has none: write anonymous:",
            }),
            _ => Err(AddressError::UnknownScheme {
                scheme: shorten(scheme),
            }),
        }
    }
}

fn sysv_form(text: &str) -> Result<Form, AddressError> {
    if let Some(digits) = text.strip_prefix("0x") {
        // Key 0 is IPC_PRIVATE: no process could find that ring again.
        return match u32::from_str_radix(digits, 16) {
            Ok(key) if key != 0 && !digits.starts_with('+') => Ok(Form::SysvKey(key as i32)),
            _ => Err(AddressError::BadKey {
                text: shorten(text),
            }),
        };
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(key) if key != 0 => Ok(Form::SysvKey(key as i32)),
            _ => Err(AddressError::BadKey {
                text: shorten(text),
            }),
        };
    }
    if text.contains('/') || text.contains('#') {
        let bad = || AddressError::BadPath {
            text: shorten(text),
        };
        let (path, id) = text.rsplit_once('#').ok_or_else(bad)?;
        let id: u8 = id.parse().map_err(|_| bad())?;
        if path.is_empty() || id == 0 {
            return Err(bad());
        }
        return Ok(Form::SysvPath {
            path: path.into(),
            id,
        });
    }
    check_name(text)?;
    Ok(Form::SysvName(text.to_owned()))
}

fn file_form(path: &OsStr) -> Result<Form, AddressError> {
    let bytes = path.as_bytes();
    // Text also has control characters beyond ASCII.
    let has_control = match path.to_str() {
        Some(text) => text.chars().any(char::is_control),
        None => bytes.iter().any(u8::is_ascii_control),
    };
    let mut parts = bytes.rsplit(|byte| *byte == b'/');
    let last = parts.clone().next();
    let fits = !bytes.is_empty()
        && bytes.len() <= MAX_PATH_BYTES
        && parts.all(|part| part.len() <= MAX_PART_BYTES)
        && !has_control
        && !matches!(last, Some(b"" | b"." | b".."));
    if fits {
        Ok(Form::File(path.into()))
    } else {
        Err(AddressError::BadFile {
            text: shorten(&path.to_string_lossy()),
        })
    }
}

fn first_bytes(uuid: &[u8; 16]) -> u64 {
    (u128::from_be_bytes(*uuid) >> 64) as u64
}

fn descriptor_form(text: &str) -> Result<Form, AddressError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<i32>().ok().filter(|_| digits(text));
    let elsewhere = || {
        let (process, descriptor) = text.strip_prefix("/proc/")?.split_once("/fd/")?;
        number(descriptor)?;
        (process == "self" || digits(process)).then(|| Form::Elsewhere(text.to_owned()))
    };
    let inherited = || {
        let (descriptor, ring) = text.split_once('#')?;
        let is_hex = ring.len() == 16 && ring.bytes().all(|byte| byte.is_ascii_hexdigit());
        let ring = u64::from_str_radix(ring, 16).ok().filter(|_| is_hex);
        ring.map(|_| number(descriptor))?
            .map(|number| Form::Descriptor { number, ring })
    };
    let plain = || number(text).map(|number| Form::Descriptor { number, ring: None });
    plain()
        .or_else(inherited)
        .or_else(elsewhere)
        .ok_or_else(|| AddressError::BadDescriptor {
            text: shorten(text),
        })
}

fn check_name(name: &str) -> Result<(), AddressError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "it is longer than 200 bytes"
    } else if name.starts_with(['.', '-']) || name.starts_with("0x") {
        "it begins with '.', '-' or '0x'"
    } else if !name.bytes().all(allowed) {
        "only letters, digits, '.', '_' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(AddressError::bad_name(name, rule))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The System V key of a name: 0x5e, then 24 bits of its FNV-1a hash. Keys that begin with 0x5eed are
/// left to the semaphore sets of other backends, which are chosen at random there.
fn derived_key(name: &str) -> Key {
    // Fowler, Noll and Vo's hash in its 1a form, 32 bits.
    let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let folded = (hash ^ hash >> 24) & 0x00ff_ffff;
    let kept = if folded >> 16 == 0xed {
        folded ^ 0x0001_0000
    } else {
        folded
    };
    Key::new((0x5e00_0000 | kept) as i32)
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
