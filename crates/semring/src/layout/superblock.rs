//! The superblock: the description of a ring, written once by its creator.
//!
//! Everything but the state word and the [records](super::set_record) of the semaphore set is covered by a CRC-32C. Reading treats the
//! bytes as input: any 4096 bytes give a [`Superblock`] that is consistent in itself, or an error with the reason. Whether it is consistent
//! with the *segment* (its size, its semaphore set) is checked when the ring is opened.

use super::features::{KNOWN, SCHEMA, WhenFull};
use super::position::Capacity;
use super::schema::{SCHEMA_BYTES, Schema};
use super::set_record::{AT_RECORD_WORD, AT_RECORDS, RECORDS_BYTES, SetRecord};
use super::{Geometry, SUPERBLOCK_BYTES};
use crate::memory::address::KeyFile;

/// `SEMRING` and a zero byte.
pub(crate) const MAGIC: [u8; 8] = *b"SEMRING\0";
/// Readers of another major version must not touch the ring.
pub(crate) const ABI_MAJOR: u32 = 1;
/// Additions that older readers may ignore.
pub(crate) const ABI_MINOR: u32 = 0;

/// Nothing is written yet, or a creator began and died.
pub(crate) const STATE_RAW: u32 = 0;
/// A creator is at work.
pub(crate) const STATE_INIT: u32 = 1;
/// The ring may be used. Stored last.
pub(crate) const STATE_READY: u32 = 2;
/// The ring was removed, and had no name that could be deleted.
pub(crate) const STATE_REMOVED: u32 = 3;
/// READY, and about to be replaced: a process with other settings takes away a ring that no producer has ever used.
pub(crate) const STATE_REPLACED: u32 = 4;

/// Longest name stored, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 200;

/// Set when the ring was made because it was missing: the last user removes it.
const ORIGIN_IMPLICIT: u32 = 1;

// Offsets in the superblock. `docs/layout.md` has the same table in words.
pub(crate) const AT_MAGIC: usize = 0x000;
const AT_MAJOR: usize = 0x008;
const AT_MINOR: usize = 0x00c;
const AT_HEADER_BYTES: usize = 0x010;
const AT_KIND: usize = 0x014;
const AT_LANES: usize = 0x018;
const AT_GUARD: usize = 0x01c;
const AT_CAPACITY: usize = 0x020;
const AT_DATA_OFFSET: usize = 0x028;
const AT_SEGMENT_BYTES: usize = 0x030;
const AT_REQUIRED: usize = 0x038;
const AT_OPTIONAL: usize = 0x040;
const AT_UUID: usize = 0x048;
const AT_SEM_KEY: usize = 0x058;
const AT_SEM_ID: usize = 0x05c;
const AT_SEM_CTIME: usize = 0x060;
const AT_SEM_CHECK: usize = 0x068;
const AT_ORIGIN: usize = 0x06c;
const AT_CREATED: usize = 0x070;
const AT_CREATOR_PID: usize = 0x078;
const AT_CREATOR_UID: usize = 0x07c;
const AT_IPC_NAMESPACE: usize = 0x080;
const AT_NAME_BYTES: usize = 0x084;
const AT_NAME: usize = 0x088;
const AT_KEY_DEVICE: usize = 0x150;
const AT_KEY_INODE: usize = 0x158;
const AT_WHEN_FULL: usize = 0x160;
// 0x164 to 0x177 are of broadcast rings.
const AT_SCHEMA: usize = 0x180;
const AT_CRC: usize = 0xff8;
/// The state word: outside the checksum, because it changes.
pub(crate) const AT_STATE: usize = 0xffc;

const _: () = assert!(AT_NAME + MAX_NAME_BYTES <= AT_KEY_DEVICE);
const _: () = assert!(AT_KEY_INODE + 8 <= AT_WHEN_FULL);
const _: () = assert!(AT_SCHEMA + SCHEMA_BYTES == 0x1d8 && 0x1d8 <= AT_RECORDS);
const _: () = assert!(AT_RECORDS + RECORDS_BYTES <= AT_CRC);

/// The number of producers of a ring, and the order that it guarantees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RingKind {
    /// One producer.
    Spsc,
    /// Many producers; the messages of each arrive in order.
    Mpsc,
}

impl RingKind {
    const fn code(self) -> u32 {
        match self {
            Self::Spsc => 1,
            Self::Mpsc => 2,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Spsc),
            2 => Some(Self::Mpsc),
            _ => None,
        }
    }
}

impl std::fmt::Display for RingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spsc => "spsc",
            Self::Mpsc => "mpsc",
        })
    }
}

/// How a ring detects dead processes and wakes sleeping ones. Fixed at creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GuardKind {
    /// A System V semaphore set with SEM_UNDO.
    Semaphore,
    /// FIFOs (or pipes, for related processes) and locks of open files. Handles can be polled.
    Pipe,
}

impl GuardKind {
    const fn code(self) -> u32 {
        match self {
            Self::Semaphore => 1,
            Self::Pipe => 2,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Semaphore),
            2 => Some(Self::Pipe),
            _ => None,
        }
    }
}

impl std::fmt::Display for GuardKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Semaphore => "semaphore",
            Self::Pipe => "pipe",
        })
    }
}

/// Identifies the ring's semaphore set so precisely that no other set is taken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SetIdentity {
    /// The set's key.
    pub(crate) key: i32,
    /// The set's id in the creator's IPC namespace.
    pub(crate) id: i32,
    /// `sem_ctime` of the set, seconds since 1970.
    pub(crate) ctime: i64,
    /// The value of the check semaphore, 1 to 32767.
    pub(crate) check: u32,
}

impl SetIdentity {
    /// For a ring that has no set.
    pub(crate) const NONE: Self = Self {
        key: 0,
        id: 0,
        ctime: 0,
        check: 0,
    };
}

/// The contents of a superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    pub(crate) kind: RingKind,
    pub(crate) geometry: Geometry,
    pub(crate) guard: GuardKind,
    pub(crate) uuid: [u8; 16],
    pub(crate) set: SetIdentity,
    pub(crate) auto_remove: bool,
    pub(crate) when_full: WhenFull,
    /// What its users must know: bits of [`KNOWN`].
    pub(crate) features: u64,
    pub(crate) schema: Option<Schema>,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: u64,
    pub(crate) creator_pid: u32,
    pub(crate) creator_uid: u32,
    /// Inode number of the IPC namespace of the semaphores; 0 if it was not known.
    pub(crate) ipc_namespace: u32,
    pub(crate) name: String,
    /// The file from which the ring's key was made, if it was made from one.
    pub(crate) key_file: Option<KeyFile>,
    /// The record of the set that counts, in rings whose memory outlives it; `set` and `ipc_namespace`
    /// then come from the record.
    pub(crate) record: Option<SetRecord>,
    /// The [record word](super::set_record), which selects that record.
    pub(crate) record_word: u64,
}

/// Why the bytes are not a superblock of a ring that this build can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SuperblockError {
    /// The magic is missing.
    NotARing,
    /// Another format version.
    OtherVersion { major: u32 },
    /// A required feature that this build does not have.
    UnknownFeatures { bits: u64 },
    /// READY was not stored.
    NotReady,
    /// It was a ring.
    Removed,
    /// The checksum or a field is impossible.
    Damaged { what: &'static str },
}

impl Superblock {
    /// The bytes of the superblock, with the state word RAW.
    pub(crate) fn encode(&self) -> Box<[u8; SUPERBLOCK_BYTES]> {
        let mut bytes = Box::new([0u8; SUPERBLOCK_BYTES]);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME_BYTES)];
        put(AT_MAGIC, &MAGIC);
        put(AT_MAJOR, &ABI_MAJOR.to_le_bytes());
        put(AT_MINOR, &ABI_MINOR.to_le_bytes());
        put(AT_HEADER_BYTES, &(SUPERBLOCK_BYTES as u32).to_le_bytes());
        put(AT_KIND, &self.kind.code().to_le_bytes());
        put(AT_LANES, &(self.geometry.lanes() as u32).to_le_bytes());
        put(AT_GUARD, &self.guard.code().to_le_bytes());
        put(AT_CAPACITY, &self.geometry.capacity().get().to_le_bytes());
        put(
            AT_DATA_OFFSET,
            &(self.geometry.data_offset() as u64).to_le_bytes(),
        );
        put(
            AT_SEGMENT_BYTES,
            &(self.geometry.segment_bytes() as u64).to_le_bytes(),
        );
        put(AT_REQUIRED, &self.features.to_le_bytes());
        put(
            AT_OPTIONAL,
            &self.schema.map_or(0, |_| SCHEMA).to_le_bytes(),
        );
        put(AT_UUID, &self.uuid);
        put(AT_SEM_KEY, &self.set.key.to_le_bytes());
        put(AT_SEM_ID, &self.set.id.to_le_bytes());
        put(AT_SEM_CTIME, &self.set.ctime.to_le_bytes());
        put(AT_SEM_CHECK, &self.set.check.to_le_bytes());
        let origin = if self.auto_remove { ORIGIN_IMPLICIT } else { 0 };
        put(AT_ORIGIN, &origin.to_le_bytes());
        put(AT_CREATED, &self.created_ns.to_le_bytes());
        put(AT_CREATOR_PID, &self.creator_pid.to_le_bytes());
        put(AT_CREATOR_UID, &self.creator_uid.to_le_bytes());
        put(AT_IPC_NAMESPACE, &self.ipc_namespace.to_le_bytes());
        put(AT_NAME_BYTES, &(name.len() as u32).to_le_bytes());
        put(AT_NAME, name);
        if let Some(KeyFile { device, inode }) = self.key_file {
            put(AT_KEY_DEVICE, &device.to_le_bytes());
            put(AT_KEY_INODE, &inode.to_le_bytes());
        }
        put(AT_WHEN_FULL, &self.when_full.code().to_le_bytes());
        let none = [0; SCHEMA_BYTES];
        put(AT_SCHEMA, &self.schema.map_or(none, Schema::encode));
        let crc = checksum(&bytes);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// True if the bytes are as their creator wrote them, in any version: all versions have the checksum at this
    /// place.
    pub(crate) fn has_valid_checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> bool {
        u32::from_le_bytes(array(bytes, AT_CRC)) == checksum(bytes)
    }

    /// Decodes the first 4096 bytes of a segment.
    pub(crate) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockError> {
        Self::decode_knowing(KNOWN, bytes)
    }

    /// The same for a reader that supports these features.
    fn decode_knowing(known: u64, bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, SuperblockError> {
        let damaged = |what| SuperblockError::Damaged { what };
        let u32_at = |at: usize| u32::from_le_bytes(array(bytes, at));
        let u64_at = |at: usize| u64::from_le_bytes(array(bytes, at));

        if array::<8>(bytes, AT_MAGIC) != MAGIC {
            // A creator that died between making the segment and writing it leaves zeros.
            let raw = bytes[..AT_NAME].iter().all(|&byte| byte == 0);
            let unfinished = matches!(u32_at(AT_STATE), STATE_RAW | STATE_INIT);
            return Err(if raw && unfinished {
                SuperblockError::NotReady
            } else {
                SuperblockError::NotARing
            });
        }
        // Before the version: everything except the magic may still be missing.
        if matches!(u32_at(AT_STATE), STATE_RAW | STATE_INIT) {
            return Err(SuperblockError::NotReady);
        }
        if u32_at(AT_MAJOR) != ABI_MAJOR {
            return Err(SuperblockError::OtherVersion {
                major: u32_at(AT_MAJOR),
            });
        }
        match u32_at(AT_STATE) {
            // Found under its name: its replacement was not finished.
            STATE_READY | STATE_REPLACED => {}
            STATE_REMOVED => return Err(SuperblockError::Removed),
            _ => return Err(damaged("state word")),
        }
        if u32_at(AT_CRC) != checksum(bytes) {
            return Err(damaged("checksum"));
        }
        let features = u64_at(AT_REQUIRED);
        let unknown = features & !known;
        if unknown != 0 {
            return Err(SuperblockError::UnknownFeatures { bits: unknown });
        }
        let capacity = Capacity::exact(u64_at(AT_CAPACITY)).ok_or(damaged("capacity"))?;
        let geometry =
            Geometry::new(u32_at(AT_LANES) as usize, capacity).ok_or(damaged("number of lanes"))?;
        let kind = RingKind::from_code(u32_at(AT_KIND)).ok_or(damaged("kind"))?;
        if kind == RingKind::Spsc && geometry.lanes() != 1 {
            return Err(damaged("number of lanes"));
        }
        if u32_at(AT_HEADER_BYTES) as usize != SUPERBLOCK_BYTES
            || u64_at(AT_DATA_OFFSET) != geometry.data_offset() as u64
            || u64_at(AT_SEGMENT_BYTES) != geometry.segment_bytes() as u64
        {
            return Err(damaged("sizes"));
        }
        let name_bytes = u32_at(AT_NAME_BYTES) as usize;
        if name_bytes > MAX_NAME_BYTES {
            return Err(damaged("name"));
        }
        let name = std::str::from_utf8(&bytes[AT_NAME..AT_NAME + name_bytes])
            .map_err(|_| damaged("name"))?
            .to_owned();
        let guard = GuardKind::from_code(u32_at(AT_GUARD)).ok_or(damaged("guard"))?;
        let check = u32_at(AT_SEM_CHECK);
        if guard == GuardKind::Semaphore && !(1..=32767).contains(&check) {
            return Err(damaged("semaphore check value"));
        }
        // Another policy comes with a feature that must be known.
        let when_full =
            WhenFull::from_code(u32_at(AT_WHEN_FULL)).ok_or(damaged("policy when full"))?;
        let schema = (u64_at(AT_OPTIONAL) & SCHEMA != 0).then(|| array(bytes, AT_SCHEMA));
        let schema = schema.as_ref().map(Schema::decode).transpose()?;
        let record_word = u64_at(AT_RECORD_WORD);
        let record = SetRecord::counting(bytes, record_word);
        // No file has inode number 0.
        let key_file = Some(KeyFile {
            device: u64_at(AT_KEY_DEVICE),
            inode: u64_at(AT_KEY_INODE),
        });
        let key_file = key_file.filter(|file| file.inode != 0);
        Ok(Self {
            kind,
            geometry,
            guard,
            uuid: array(bytes, AT_UUID),
            set: record.map_or_else(|| SetIdentity::of_creation(bytes), |record| record.set),
            auto_remove: u32_at(AT_ORIGIN) & ORIGIN_IMPLICIT != 0,
            when_full,
            features,
            schema,
            created_ns: u64_at(AT_CREATED),
            creator_pid: u32_at(AT_CREATOR_PID),
            creator_uid: u32_at(AT_CREATOR_UID),
            ipc_namespace: record.map_or(u32_at(AT_IPC_NAMESPACE), |record| record.ipc_namespace),
            name,
            key_file,
            record,
            record_word,
        })
    }
}

impl SetIdentity {
    /// The set with which the ring was made.
    fn of_creation(bytes: &[u8; SUPERBLOCK_BYTES]) -> Self {
        Self {
            key: i32::from_le_bytes(array(bytes, AT_SEM_KEY)),
            id: i32::from_le_bytes(array(bytes, AT_SEM_ID)),
            ctime: i64::from_le_bytes(array(bytes, AT_SEM_CTIME)),
            check: u32::from_le_bytes(array(bytes, AT_SEM_CHECK)),
        }
    }

    /// The set named by a superblock that may be damaged: nothing about it is certain. A set that is recorded for a file
    /// with another inode number is left out: it belongs to the original of this copy.
    pub(crate) fn in_bytes_of(bytes: &[u8; SUPERBLOCK_BYTES], inode: u64) -> Option<Self> {
        let word = u64::from_le_bytes(array(bytes, AT_RECORD_WORD));
        let counting = SetRecord::counting(bytes, word).filter(|record| record.set != Self::NONE);
        match counting.or_else(|| SetRecord::newest(bytes)) {
            Some(record) => (record.inode == inode).then_some(record.set),
            None => Some(Self::of_creation(bytes)),
        }
    }
}

pub(super) fn array<const N: usize>(bytes: &[u8; SUPERBLOCK_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> u32 {
    let mut digest = CRC_32C.digest();
    digest.update(&bytes[..AT_RECORDS]);
    // The records change, and have their own checksums: here they count as zeros.
    digest.update(&[0; RECORDS_BYTES]);
    digest.update(&bytes[AT_RECORDS + RECORDS_BYTES..AT_CRC]);
    digest.finalize()
}

/// The checksum of superblock and records.
pub(super) const CRC_32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

#[cfg(test)]
mod tests {
    use super::super::features::{ARRAYS, BOOKMARKS, MUST_KNOW, feature_names};
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Superblock {
        Superblock {
            kind: RingKind::Mpsc,
            geometry: Geometry::new(8, Capacity::exact(1 << 16).unwrap()).unwrap(),
            guard: GuardKind::Semaphore,
            uuid: [7; 16],
            set: SetIdentity {
                key: 0x5eed_0001,
                id: 3,
                ctime: 1_700_000_000,
                check: 99,
            },
            auto_remove: true,
            when_full: WhenFull::Drop,
            features: KNOWN,
            schema: Some(Schema::new("tick", 3, 9)),
            created_ns: 1_700_000_000_000_000_000,
            creator_pid: 4242,
            creator_uid: 1000,
            ipc_namespace: 0xefff_ffff,
            name: "orders".into(),
            key_file: Some(KeyFile {
                device: 0x1_0203,
                inode: u64::MAX,
            }),
            record: None,
            record_word: 0,
        }
    }

    fn ready() -> Box<[u8; SUPERBLOCK_BYTES]> {
        let mut bytes = sample().encode();
        bytes[AT_STATE..AT_STATE + 4].copy_from_slice(&STATE_READY.to_le_bytes());
        bytes
    }

    #[test]
    fn a_superblock_cut_anywhere_behind_its_magic_is_not_ready() {
        let whole = sample().encode();
        for end in MAGIC.len()..AT_STATE {
            for state in [STATE_RAW, STATE_INIT] {
                let mut bytes = Box::new([0; SUPERBLOCK_BYTES]);
                bytes[..end].copy_from_slice(&whole[..end]);
                bytes[AT_STATE..].copy_from_slice(&state.to_le_bytes());
                assert_eq!(
                    Superblock::decode(&bytes),
                    Err(SuperblockError::NotReady),
                    "{end}"
                );
            }
        }
    }

    #[test]
    fn a_superblock_comes_back_as_it_was_written() {
        assert_eq!(Superblock::decode(&ready()), Ok(sample()));
    }

    #[test]
    fn unfinished_ring_differs_from_foreign_bytes() {
        assert_eq!(
            Superblock::decode(&sample().encode()),
            Err(SuperblockError::NotReady)
        );
        assert_eq!(
            Superblock::decode(&[0; SUPERBLOCK_BYTES]),
            Err(SuperblockError::NotReady)
        );
        assert_eq!(
            Superblock::decode(&[b'x'; SUPERBLOCK_BYTES]),
            Err(SuperblockError::NotARing)
        );
    }

    #[test]
    fn a_ring_whose_replacement_ended_half_way_is_ready() {
        let mut bytes = ready();
        bytes[AT_STATE..].copy_from_slice(&STATE_REPLACED.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn a_removed_ring_says_so() {
        let mut bytes = ready();
        bytes[AT_STATE..].copy_from_slice(&STATE_REMOVED.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::Removed));
    }

    #[test]
    fn the_newest_record_of_the_set_counts() {
        let mut bytes = ready();
        for sequence in 1..5u64 {
            let mut record = SetRecord::sample(sequence);
            record.set.id = sequence as i32;
            record.put(&mut bytes);
            let mut expected = sample();
            expected.set = record.set;
            expected.ipc_namespace = record.ipc_namespace;
            expected.record = Some(record);
            expected.record_word = 2 * sequence;
            assert_eq!(Superblock::decode(&bytes), Ok(expected));
        }
    }

    #[test]
    fn another_format_version_is_named() {
        let mut bytes = ready();
        bytes[AT_MAJOR] = 2;
        assert_eq!(
            Superblock::decode(&bytes),
            Err(SuperblockError::OtherVersion { major: 2 })
        );
    }

    #[test]
    fn an_unknown_required_feature_is_refused() {
        let mut bytes = ready();
        bytes[AT_REQUIRED] = 4;
        let crc = checksum(&bytes);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            Superblock::decode(&bytes),
            Err(SuperblockError::UnknownFeatures { bits: 4 })
        );
    }

    fn with_field(at: usize, field: &[u8]) -> Box<[u8; SUPERBLOCK_BYTES]> {
        let mut bytes = ready();
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = checksum(&bytes);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn each_feature_that_must_be_known_is_refused_by_its_name() {
        for (bit, name) in MUST_KNOW {
            let bytes = with_field(AT_REQUIRED, &bit.to_le_bytes());
            let refused = SuperblockError::UnknownFeatures { bits: bit };
            let known = KNOWN & !bit;
            assert_eq!(Superblock::decode_knowing(known, &bytes), Err(refused));
            assert_eq!(feature_names(bit), name);
            let decoded = Superblock::decode(&bytes);
            if KNOWN & bit != 0 {
                assert_eq!(decoded.unwrap().features, bit);
            } else {
                assert_eq!(decoded, Err(refused));
            }
        }
        assert_eq!(feature_names(ARRAYS | BOOKMARKS), "arrays, bookmarks");
        assert_eq!(
            feature_names(ARRAYS | 1 << 40),
            "arrays, bits 0x10000000000"
        );
    }

    #[test]
    fn a_feature_that_may_be_ignored_is_ignored_with_its_fields() {
        let mut bytes = with_field(AT_OPTIONAL, &u64::MAX.to_le_bytes());
        bytes[AT_SCHEMA + SCHEMA_BYTES..AT_RECORDS].fill(0xff);
        let crc = checksum(&bytes);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn a_schema_counts_if_the_ring_has_the_feature() {
        let bytes = with_field(AT_OPTIONAL, &0u64.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes).unwrap().schema, None);
        let bytes = with_field(AT_SCHEMA, &[0xff; SCHEMA_BYTES]);
        assert!(Superblock::decode(&bytes).is_err());
    }

    #[test]
    fn an_unknown_policy_when_full_is_refused() {
        for code in [3, 4, u32::MAX] {
            let bytes = with_field(AT_WHEN_FULL, &code.to_le_bytes());
            let what = "policy when full";
            assert_eq!(
                Superblock::decode(&bytes),
                Err(SuperblockError::Damaged { what })
            );
        }
        for policy in [WhenFull::Wait, WhenFull::Fail, WhenFull::Drop] {
            let bytes = with_field(AT_WHEN_FULL, &policy.code().to_le_bytes());
            assert_eq!(Superblock::decode(&bytes).unwrap().when_full, policy);
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_never_passes_as_the_same_ring(at in 0usize..AT_STATE, change in 1u8..) {
            let mut bytes = ready();
            bytes[at] ^= change;
            let decoded = Superblock::decode(&bytes);
            if (AT_RECORD_WORD..AT_RECORD_WORD + 8).contains(&at) {
                // The record that would count is not there.
                prop_assert_eq!(decoded.unwrap().set, SetIdentity::NONE);
                return Ok(());
            }
            if (AT_RECORDS..AT_RECORDS + RECORDS_BYTES).contains(&at) {
                // A damaged record does not count.
                prop_assert_eq!(decoded, Ok(sample()));
                return Ok(());
            }
            prop_assert!(decoded.is_err(), "byte {at:#x} is not covered");
        }

        #[test]
        fn fields_with_a_valid_checksum_are_checked_all_the_same(
            fields in proptest::collection::vec((0usize..0x88, any::<u8>()), 1..8)
        ) {
            let mut bytes = ready();
            for (at, value) in fields {
                bytes[at] = value;
            }
            let crc = checksum(&bytes);
            bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(superblock) = Superblock::decode(&bytes) {
                prop_assert!(superblock.geometry.segment_bytes() > superblock.geometry.data_offset());
            }
        }
    }
}
