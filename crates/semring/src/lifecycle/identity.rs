//! Whether what lies at an address is the ring that the address means.
//!
//! Names share places: two of them can have the same derived key, two files the same key of `ftok` (it holds
//! 16 bits of the inode number), and a file can be copied. So a ring says what it was made as.

use crate::layout::superblock::Superblock;
use crate::memory::{Address, Place, sysv_key};

/// A ring that has the place of the one that an address means.
pub(super) struct OtherRing {
    /// What it is.
    pub(super) what: String,
    /// What to do.
    pub(super) instead: &'static str,
}

/// What lies at the address in place of the ring that it means; nothing if it is that ring.
pub(super) fn other_ring(
    address: &Address,
    place: Option<&Place>,
    found: &Superblock,
) -> Option<OtherRing> {
    let other = &found.name;
    let Some(key) = place.and_then(sysv_key) else {
        // Used or removed, a copy would take the original's semaphores.
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
        // Made by the number of its key, which says nothing about files.
        None if *other == Address::of_key(key).name() => None,
        None => Some(taken("", instead)),
    }
}
