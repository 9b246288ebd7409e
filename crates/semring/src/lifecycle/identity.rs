//! Whether the object at an address is the ring that the address stands for.
//!
//! Names share places: two of them can have the same derived key, two files the same key of `ftok` (it holds
//! 16 bits of the inode number), and a file can be copied. So a ring stores the address for which it was
//! made. A descriptor that a program inherits is in the environment with the ring's identity, because the
//! environment is inherited further than the descriptor.

use crate::layout::superblock::Superblock;
use crate::memory::{Address, Place, sysv_key};

/// Why a variable of the environment names a descriptor that is not open, or another one.
const INHERITED: &str = "its address was inherited from a process that took the ring, or closed the descriptor, \
                                    and started this one";

/// Another ring in the place of the one that an address stands for.
pub(super) struct OtherRing {
    /// Its description.
    pub(super) what: String,
    /// Advice for the user.
    pub(super) instead: &'static str,
}

/// The ring at the address, if it is not the one that the address stands for.
pub(super) fn other_ring(
    address: &Address,
    place: Option<&Place>,
    found: &Superblock,
) -> Option<OtherRing> {
    let other = &found.name;
    if address.means_another(&found.uuid) {
        return Some(OtherRing {
            what: "the descriptor leads to another ring here".to_owned(),
            instead: INHERITED,
        });
    }
    let Some(key) = place.and_then(sysv_key) else {
        // If a copy were used or removed, that would use or remove the original's semaphores.
        let is_other = address.name_must_match() && *other != address.name();
        return is_other.then(|| OtherRing {
            what: format!("it is the ring {other:?}, copied or renamed"),
            instead: "remove the file, or give it that name",
        });
    };
    let taken = |by: &str, instead| OtherRing {
        what: format!("its key {key} belongs to the ring {other:?}{by}"),
        instead,
    };
    if address.name_must_match() {
        let instead = "choose another name, or give a key (sysv:0x…)";
        return (*other != address.name()).then(|| taken("", instead));
    }
    // A file that is missing or not to be read has no key, so there would be no place.
    let file = address.key_file().ok()??;
    let instead = "choose another ID or file, or give a key (sysv:0x…)";
    match found.key_file {
        Some(made_for) if made_for == file => None,
        Some(_) => Some(taken(
            ", made for another file: the device and inode numbers of both end alike (ftok)",
            instead,
        )),
        // Made under the key as a number, which is independent of files.
        None if *other == Address::of_key(key).name() => None,
        None => Some(taken("", instead)),
    }
}
