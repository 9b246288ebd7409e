//! What a message holds: its number and who sent it, in every word.

use std::hint::black_box;

/// The word that fills message `number` of sender `who`.
#[must_use]
pub fn word(who: u64, number: u64) -> u64 {
    who << 48 | number
}

/// Fills a message; a last part of less than a word stays as it is.
#[inline]
pub fn fill(bytes: &mut [u8], word: u64) {
    bytes.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
}

/// True if every word is this one. All are looked at.
#[inline]
#[must_use]
pub fn check(bytes: &[u8], word: u64) -> bool {
    let words = bytes.as_chunks::<8>().0.iter();
    let differing = words.fold(0, |bits, found| bits | (u64::from_le_bytes(*found) ^ word));
    black_box(differing) == 0
}

/// Who sent it and which number it is.
pub(crate) fn sender(bytes: &[u8]) -> Option<(u64, u64)> {
    let first = bytes.first_chunk::<8>()?;
    let word = u64::from_le_bytes(*first);
    Some((word >> 48, word & ((1 << 48) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_anywhere_shows() {
        let mut bytes = [0; 64];
        fill(&mut bytes, word(3, 7));
        assert!(check(&bytes, word(3, 7)) && !check(&bytes, word(3, 8)));
        assert_eq!(sender(&bytes), Some((3, 7)));
        bytes[63] ^= 1;
        assert!(!check(&bytes, word(3, 7)));
        assert_eq!(sender(&[1, 2, 3]), None);
    }
}
