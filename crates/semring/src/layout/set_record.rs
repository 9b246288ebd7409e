//! The record of the semaphore set that guards a ring whose memory outlives its set: a new one is
//! written for each new set.
//!
//! ```text
//! 0xe00  record with an odd sequence       each with a checksum of its own
//! 0xe80  record with an even sequence
//! 0xef8  record word                       0: no record; 2 × sequence: that record counts; odd: a new set is being made
//! ```
//! A process that makes a new set first stores the next odd number, by comparison with the number that it has read. From then
//! on no record counts. It writes its record and stores the next even number, again by comparison: if another maker has
//! overtaken it, its record never counts. So whatever locks there are, each even number is stored by one process.
//! A half-written record is invalid.

use super::SUPERBLOCK_BYTES;
use super::superblock::{CRC_32C, SetIdentity, array};

/// Offset of the two records in the superblock's page.
pub(super) const AT_RECORDS: usize = 0xe00;
const STRIDE: usize = 0x80;
pub(super) const RECORDS_BYTES: usize = 2 * STRIDE;
/// Offset of the record word, behind the second record.
pub(crate) const AT_RECORD_WORD: usize = AT_RECORDS + RECORDS_BYTES - 8;

/// Bytes of a record, its checksum included.
pub(crate) const RECORD_BYTES: usize = 0x44;

// Offsets in a record.
const AT_SEQUENCE: usize = 0x00;
const AT_KEY: usize = 0x08;
const AT_ID: usize = 0x0c;
const AT_CTIME: usize = 0x10;
const AT_CHECK: usize = 0x18;
const AT_MAKER_UID: usize = 0x1c;
const AT_INODE: usize = 0x20;
const AT_IPC_NAMESPACE: usize = 0x28;
const AT_BOOT: usize = 0x30;
const AT_CRC: usize = 0x40;

const _: () = assert!(AT_CRC + 4 == RECORD_BYTES && RECORD_BYTES <= STRIDE - 8);

/// The values of the record word.
pub(crate) mod record_word {
    /// The record with this sequence counts.
    pub(crate) const fn published(sequence: u64) -> u64 {
        sequence.wrapping_mul(2)
    }

    /// The value for a maker that has read this one.
    pub(crate) const fn announced_after(word: u64) -> u64 {
        word.wrapping_add(1) | 1
    }

    pub(crate) const fn is_announced(word: u64) -> bool {
        word % 2 == 1
    }

    /// The sequence of the record that belongs to an announcement.
    pub(crate) const fn sequence_after(announced: u64) -> u64 {
        (announced / 2).wrapping_add(1)
    }
}

/// A semaphore set, and the file for which it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SetRecord {
    /// From 1, one higher with each new set.
    pub(crate) sequence: u64,
    pub(crate) set: SetIdentity,
    /// Effective user id of the process that made the set.
    pub(crate) maker_uid: u32,
    /// Inode number of the file: its copy has another one, and the set is not the copy's.
    pub(crate) inode: u64,
    /// Inode number of the set's IPC namespace; 0 if it was not known.
    pub(crate) ipc_namespace: u32,
    /// The kernel's boot id; zeros if it was not known.
    pub(crate) boot: [u8; 16],
}

impl SetRecord {
    /// Its offset in the superblock's page.
    pub(crate) const fn offset(&self) -> usize {
        AT_RECORDS + if self.sequence % 2 == 1 { 0 } else { STRIDE }
    }

    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(AT_SEQUENCE, &self.sequence.to_le_bytes());
        put(AT_KEY, &self.set.key.to_le_bytes());
        put(AT_ID, &self.set.id.to_le_bytes());
        put(AT_CTIME, &self.set.ctime.to_le_bytes());
        put(AT_CHECK, &self.set.check.to_le_bytes());
        put(AT_MAKER_UID, &self.maker_uid.to_le_bytes());
        put(AT_INODE, &self.inode.to_le_bytes());
        put(AT_IPC_NAMESPACE, &self.ipc_namespace.to_le_bytes());
        put(AT_BOOT, &self.boot);
        let crc = CRC_32C.checksum(&bytes[..AT_CRC]);
        bytes[AT_CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The record that counts. A record that names no set if a new one is being made, or the one that would count is
    /// invalid. `None` in a ring without records.
    pub(super) fn counting(page: &[u8; SUPERBLOCK_BYTES], word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        let none = Self {
            sequence: word / 2,
            set: SetIdentity::NONE,
            maker_uid: 0,
            inode: 0,
            ipc_namespace: 0,
            boot: [0; 16],
        };
        let there = Self::decode(page, none.offset());
        let counts = |record: &Self| record_word::published(record.sequence) == word;
        Some(there.filter(counts).unwrap_or(none))
    }

    /// The newest valid record, whatever the record word is: for a page that may be damaged.
    pub(super) fn newest(page: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let both = [0, 1].map(|slot| Self::decode(page, AT_RECORDS + slot * STRIDE));
        both.into_iter()
            .flatten()
            .max_by_key(|record| record.sequence)
    }

    fn decode(page: &[u8; SUPERBLOCK_BYTES], at: usize) -> Option<Self> {
        let u32_at = |field: usize| u32::from_le_bytes(array(page, at + field));
        let u64_at = |field: usize| u64::from_le_bytes(array(page, at + field));
        let record = Self {
            sequence: u64_at(AT_SEQUENCE),
            set: SetIdentity {
                key: u32_at(AT_KEY) as i32,
                id: u32_at(AT_ID) as i32,
                ctime: u64_at(AT_CTIME) as i64,
                check: u32_at(AT_CHECK),
            },
            maker_uid: u32_at(AT_MAKER_UID),
            inode: u64_at(AT_INODE),
            ipc_namespace: u32_at(AT_IPC_NAMESPACE),
            boot: array(page, at + AT_BOOT),
        };
        let valid = u32_at(AT_CRC) == CRC_32C.checksum(&page[at..at + AT_CRC])
            && record.sequence != 0
            && record.offset() == at
            && (record.set == SetIdentity::NONE || (1..=32767).contains(&record.set.check));
        valid.then_some(record)
    }
}

#[cfg(test)]
impl SetRecord {
    pub(super) fn sample(sequence: u64) -> Self {
        Self {
            sequence,
            set: SetIdentity {
                key: 0x5eed_0007,
                id: 9,
                ctime: 1_700_000_001,
                check: 123,
            },
            maker_uid: 1001,
            inode: 77,
            ipc_namespace: 0xefff_fffe,
            boot: [3; 16],
        }
    }

    pub(super) fn put(&self, page: &mut [u8; SUPERBLOCK_BYTES]) {
        let at = self.offset();
        page[at..at + RECORD_BYTES].copy_from_slice(&self.encode());
        let word = record_word::published(self.sequence).to_le_bytes();
        page[AT_RECORD_WORD..AT_RECORD_WORD + 8].copy_from_slice(&word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_anywhere_leaves_the_one_before() {
        let mut page = [0; SUPERBLOCK_BYTES];
        assert_eq!(SetRecord::newest(&page), None);
        SetRecord::sample(6).put(&mut page);
        SetRecord::sample(7).put(&mut page);
        let next = SetRecord::sample(8);
        let bytes = next.encode();
        for end in 0..=RECORD_BYTES {
            // In any order: a copy may run backwards, too.
            for range in [0..end, end..RECORD_BYTES] {
                let mut page = page;
                let at = next.offset() + range.start;
                page[at..at + range.len()].copy_from_slice(&bytes[range.clone()]);
                let found = SetRecord::newest(&page).unwrap();
                let expected = if page[next.offset()..][..RECORD_BYTES] == bytes {
                    8
                } else {
                    7
                };
                assert_eq!(found, SetRecord::sample(expected), "{range:?}");
            }
        }
    }

    #[test]
    fn the_word_tells_which_record_counts() {
        let mut page = [0; SUPERBLOCK_BYTES];
        SetRecord::sample(6).put(&mut page);
        SetRecord::sample(7).put(&mut page);
        let set_of = |word| SetRecord::counting(&page, word).map(|record| record.set.check);
        let expected = [(0, None), (11, Some(0)), (12, Some(123)), (13, Some(0))];
        for (word, check) in expected.into_iter().chain([(14, Some(123)), (15, Some(0))]) {
            assert_eq!(set_of(word), check, "{word}");
        }
        // The place of the seventh, which the ninth would take.
        assert_eq!(set_of(18), Some(0));
        for word in [0, 1, 2, 13, 14, u64::MAX - 1] {
            let announced = record_word::announced_after(word);
            assert!(record_word::is_announced(announced) && announced != word);
            let sequence = record_word::sequence_after(announced);
            assert_eq!(record_word::published(sequence), announced.wrapping_add(1));
        }
    }

    #[test]
    fn a_record_in_the_other_place_is_none() {
        let mut page = [0; SUPERBLOCK_BYTES];
        let bytes = SetRecord::sample(3).encode();
        page[AT_RECORDS + STRIDE..][..RECORD_BYTES].copy_from_slice(&bytes);
        assert_eq!(SetRecord::newest(&page), None);
    }
}
