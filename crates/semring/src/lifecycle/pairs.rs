//! The names of the two rings of a pair: `NAME.up`, and `NAME.down-` with the first sixteen digits of the first
//! one's uuid. A pair is a unit: code that lists, prunes or removes one ring of it needs the other.

use super::identity::other_ring;
use super::{inspect, uuid_text};
use crate::layout::superblock::Superblock;
use crate::memory::address::{AddressError, Backend, MAX_NAME_BYTES, MAX_PART_BYTES};
use crate::memory::{Access, Address, Object};

const UP: &str = ".up";
const DOWN: &str = ".down-";
const DIGITS: usize = 16;

/// How many bytes the name of a ring is longer than that of its pair.
const MORE_BYTES: usize = DOWN.len() + DIGITS;

/// Refuses a name that is too long for the rings of a pair.
pub(crate) fn check_length(pair: &Address) -> Result<(), AddressError> {
    let name = pair.name();
    let (len, most, rule) = match pair.backend() {
        Backend::File => {
            let last = name.rsplit('/').next().unwrap_or_default();
            let rule = "what follows its last slash is longer than 233 bytes, too long for a pair, whose rings have names \
                        that are 22 bytes longer";
            (last.len(), MAX_PART_BYTES - MORE_BYTES, rule)
        }
        _ => {
            let rule = "it is longer than 178 bytes, too long for a pair, whose rings have names that are 22 bytes longer";
            (name.len(), MAX_NAME_BYTES - MORE_BYTES, rule)
        }
    };
    if len > most {
        return Err(AddressError::bad_name(&name, rule));
    }
    Ok(())
}

/// The address of a pair's first ring.
pub(crate) fn up_name(pair: &Address) -> String {
    format!("{pair}{UP}")
}

/// The address of a pair's second ring, whose first one has this uuid.
pub(crate) fn down_name(pair: &Address, uuid: &str) -> String {
    format!("{pair}{DOWN}{}", uuid.get(..DIGITS).unwrap_or(uuid))
}

/// The pair whose first ring would have this address.
pub(crate) fn pair_of_up(up: &Address) -> Option<Address> {
    up.to_text()?.strip_suffix(UP)?.parse().ok()
}

/// The pair whose second ring would have this address, and the digits of the first one's uuid.
fn pair_of_down(down: &Address) -> Option<(Address, String)> {
    let text = down.to_text()?;
    let (pair, digits) = text.rsplit_once(DOWN)?;
    let are_digits = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then_some(())?;
    Some((pair.parse().ok()?, digits.to_owned()))
}

/// The address of the other ring, if the one at this address is the first of a pair.
pub(crate) fn down_of(up: &Address, uuid: &str) -> Option<Address> {
    down_name(&pair_of_up(up)?, uuid).parse().ok()
}

/// The superblock at an address, if there is one that can be read.
pub(super) fn superblock_at(address: &Address) -> Option<Superblock> {
    let place = address.place().ok()?;
    let head = Object::open(&place, Access::ReadOnly).ok()?.head().ok()?;
    let found = Superblock::decode(&head).ok()?;
    other_ring(address, Some(&place), &found)
        .is_none()
        .then_some(found)
}

/// The first ring of the pair whose second ring is at this address.
pub(super) fn first_of(down: &Address) -> Option<Address> {
    let (pair, digits) = pair_of_down(down)?;
    let up: Address = up_name(&pair).parse().ok()?;
    let found = superblock_at(&up)?;
    uuid_text(&found).starts_with(&digits).then_some(up)
}

/// The address of the pair for an address: the pair's own name, or the name of one of its rings. `None` if there is
/// no such pair, or another ring at the address.
pub(crate) fn pair_at(address: &Address) -> Option<Address> {
    if let Some(up) = first_of(address) {
        return pair_of_up(&up);
    }
    if let Some(found) = superblock_at(address) {
        let down = down_of(address, &uuid_text(&found))?;
        superblock_at(&down)?;
        return pair_of_up(address);
    }
    if !matches!(
        inspect(address),
        Err(crate::error::OpenError::NotFound { .. })
    ) {
        return None;
    }
    // The rings of a pair have names in UTF-8.
    address.to_text()?;
    let up: Address = up_name(address).parse().ok()?;
    superblock_at(&up).map(|_| address.clone())
}

#[cfg(all(test, not(semring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_limits_in_the_sentences_are_those_of_the_names() {
        assert_eq!(MAX_NAME_BYTES - MORE_BYTES, 178);
        assert_eq!(MAX_PART_BYTES - MORE_BYTES, 233);
        assert_eq!(MORE_BYTES, 22);
        for (before, most) in [
            ("", 178),
            ("sysv:", 178),
            ("memfd:", 178),
            ("file:/a/", 233),
        ] {
            let address =
                |len| -> Address { format!("{before}{}", "x".repeat(len)).parse().unwrap() };
            assert!(check_length(&address(most)).is_ok());
            let second = down_name(&address(most), &"0".repeat(32));
            assert!(second.parse::<Address>().is_ok(), "{second}");
            let refused = check_length(&address(most + 1)).unwrap_err().to_string();
            assert!(
                refused.contains(&format!("longer than {most} bytes")),
                "{refused}"
            );
        }
    }
}
