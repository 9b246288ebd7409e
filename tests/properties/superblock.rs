//! The format once more, according to docs/layout.md: as a hostile process writes it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

pub const SUPERBLOCK_BYTES: usize = 4096;
pub const CRC_AT: usize = 0xff8;
pub const STATE_AT: usize = 0xffc;

pub const CONSUMER_PAGE: u64 = 0x1000;
const LANE_PAGES: u64 = 0x2000;

/// Words of the consumer page.
pub const CONSUMER_WORDS: [(&str, u64); 9] = [
    ("consumer's wait word", 0x000),
    ("consumer's generation", 0x080),
    ("consumer's flags", 0x088),
    ("consumer's pid", 0x090),
    ("consumer's start", 0x0a8),
    ("consumer's namespace", 0x0b0),
    ("end of stream", 0x100),
    ("consumer's sleeps", 0x180),
    ("consumer's posts", 0x188),
];

/// Words of a lane's two pages.
pub const LANE_WORDS: [(&str, u64); 24] = [
    ("committed", 0x000),
    ("generation", 0x008),
    ("generation start", 0x010),
    ("sent", 0x018),
    ("flags", 0x020),
    ("open part", 0x068),
    ("open part, second", 0x070),
    ("wait word", 0x080),
    ("pid", 0x100),
    ("sleeps", 0x108),
    ("posts", 0x110),
    ("finished", 0x118),
    ("start", 0x120),
    ("namespace", 0x128),
    ("dropped", 0x138),
    ("released", 0x1000),
    ("received", 0x1008),
    ("partial", 0x1010),
    ("high water", 0x1018),
    ("continued", 0x1020),
    ("continued, second", 0x1028),
    ("corrupt", 0x1080),
    ("finished at reset", 0x1100),
    ("died at reset", 0x1108),
];

/// The word of a lane that has this name.
pub fn lane_word(name: &str) -> u64 {
    LANE_WORDS
        .iter()
        .find(|(word, _)| *word == name)
        .expect("a word of the table")
        .1
}

/// The memory of a ring, reached without the library.
pub struct Memory {
    file: File,
    lanes: u64,
    capacity: u64,
}

impl Memory {
    pub fn open(name: &str, lanes: usize, capacity: u64) -> Self {
        let path = format!("/dev/shm/{name}");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        Self {
            file,
            lanes: lanes as u64,
            capacity,
        }
    }

    pub fn len(&self) -> u64 {
        self.data(self.lanes)
    }

    /// Where the pages of a lane begin.
    pub fn lane(&self, lane: u64) -> u64 {
        LANE_PAGES + lane * 0x2000
    }

    /// Where the data of a lane begin.
    pub fn data(&self, lane: u64) -> u64 {
        LANE_PAGES + self.lanes * 0x2000 + lane * self.capacity
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    pub fn write_word(&self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    pub fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len() as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    pub fn read_word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Makes the checksum right for the present contents of the superblock.
    pub fn sign(&self) {
        let mut bytes = vec![0; CRC_AT];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        self.write(CRC_AT as u64, &crc32c(&bytes).to_le_bytes());
    }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ 0x82f6_3b78
            }
        })
    });
    !crc
}

#[test]
fn the_checksum_is_crc_32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
