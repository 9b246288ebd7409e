//! The names of the two rings of a pair, from the pair's address.

use crate::error::OpenError;
use crate::lifecycle::pairs;
use crate::memory::address::{Address, AddressError, Backend};

/// Which ring of a pair.
#[derive(Clone, Copy)]
pub(super) enum Direction<'a> {
    Up,
    /// Of the up ring with this uuid.
    Down(&'a str),
}

/// True for memory that bears no name.
pub(super) fn is_nameless(address: &Address) -> bool {
    matches!(address.backend(), Backend::Memfd | Backend::Anonymous)
}

/// The address of one of the rings.
pub(super) fn part(address: &Address, direction: Direction<'_>) -> Result<Address, AddressError> {
    let name = address.name();
    let refused = |rule| {
        Err(AddressError::BadName {
            name: name.clone(),
            rule,
        })
    };
    match address.backend() {
        Backend::Anonymous => Ok(address.clone()),
        Backend::Memfd if !address.to_string().starts_with("memfd:") => {
            refused("a descriptor is one ring: open both, and put them together with Pair::of")
        }
        Backend::Memfd if name.is_empty() => Ok(address.clone()),
        Backend::Sysv if name.starts_with("0x") || name.contains('#') => {
            refused("a key is one ring, and a pair is two: use a name")
        }
        _ => {
            pairs::check_length(address)?;
            match direction {
                Direction::Up => pairs::up_name(address).parse(),
                Direction::Down(uuid) => pairs::down_name(address, uuid).parse(),
            }
        }
    }
}

/// The first ring of the pair at an address.
pub(super) fn up_of(
    address: impl TryInto<Address, Error: Into<AddressError>>,
) -> Result<Address, OpenError> {
    Ok(part(&Address::of(address)?, Direction::Up)?)
}

/// The address of the pair to which an address belongs: the pair's own, or that of one of its two rings.
///
/// `None` if a ring that is no part of a pair has this address, or there is nothing.
///
/// ```
/// use semring::{Address, duplex};
/// # let name = format!("doc-pair-at-{}", std::process::id());
/// let pair = duplex::Builder::new(&name).create()?;
/// let address: Address = name.parse()?;
/// for address in [&address, pair.to_server().address(), pair.to_client().address()] {
///     assert_eq!(duplex::pair_at(address).unwrap().to_string(), format!("posix:{name}"));
/// }
/// pair.remove()?;
/// assert!(duplex::pair_at(&address).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn pair_at(address: impl TryInto<Address, Error: Into<AddressError>>) -> Option<Address> {
    pairs::pair_at(&Address::of(address).ok()?)
}
