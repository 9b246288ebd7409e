//! The side record: the messages committed by a producer, recorded outside the ring.
//!
//! A producer calls [`Recorder::committed`] **after** its commit returned, never before. One call is
//! one `write(2)` of 16 bytes, appended: once it has returned, the entry survives a SIGKILL of the
//! writer. So a message that was committed and not recorded belongs to a producer that was killed
//! between the two: at most one message (or one batch) a kill.
//!
//! An entry: producer u32 LE, count u32 LE, number of the first message u64 LE.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

const ENTRY_BYTES: usize = 16;

/// Some messages of one producer with consecutive numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The producer.
    pub producer: u32,
    /// The number of the first message.
    pub first: u64,
    /// How many they are.
    pub count: u32,
}

/// Writes a side record.
#[derive(Debug)]
pub struct Recorder {
    file: File,
}

impl Recorder {
    /// Appends to a file, which is made if it is missing. Several producers may append to the same
    /// one.
    ///
    /// # Errors
    /// What opening it gives.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Recorder> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Recorder { file })
    }

    /// Writes to a pipe (or any other descriptor). Entries of several writers do not mix.
    pub fn from_fd(fd: OwnedFd) -> Recorder {
        Recorder { file: fd.into() }
    }

    /// Notes that message `number` of `producer` is committed.
    ///
    /// # Errors
    /// What writing gives.
    pub fn committed(&mut self, producer: u32, number: u64) -> io::Result<()> {
        self.batch_committed(producer, number, 1)
    }

    /// Notes that a batch of `count` messages beginning with number `first` is committed.
    ///
    /// # Errors
    /// What writing gives.
    pub fn batch_committed(&mut self, producer: u32, first: u64, count: u32) -> io::Result<()> {
        let mut entry = [0; ENTRY_BYTES];
        entry[0..4].copy_from_slice(&producer.to_le_bytes());
        entry[4..8].copy_from_slice(&count.to_le_bytes());
        entry[8..16].copy_from_slice(&first.to_le_bytes());
        self.file.write_all(&entry)
    }
}

/// Reads a side record to its end: the entries in the order in which they were written. An entry
/// that was cut short at the end of the record (its writer was killed within it) is left out.
///
/// # Errors
/// What reading gives.
///
/// ```
/// use semring_testkit::record::{self, Entry, Recorder};
///
/// let (reader, writer) = std::io::pipe()?;
/// let mut recorder = Recorder::from_fd(writer.into());
/// recorder.committed(1, 77)?;
/// drop(recorder);
/// assert_eq!(record::read(reader)?, [Entry { producer: 1, first: 77, count: 1 }]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read(mut from: impl Read) -> io::Result<Vec<Entry>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    let entries = bytes.chunks_exact(ENTRY_BYTES).map(|entry| {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        Entry {
            producer: word(0),
            count: word(4),
            first: u64::from(word(8)) | u64::from(word(12)) << 32,
        }
    });
    Ok(entries.collect())
}

/// Reads the side record in a file; a missing one is empty, since its writer may never have come to
/// make it.
///
/// # Errors
/// What opening (other than that it is missing) and reading give.
pub fn read_file(path: impl AsRef<Path>) -> io::Result<Vec<Entry>> {
    match File::open(path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn two_recorders_append_and_cut_entries_are_skipped() {
        let path = std::env::temp_dir().join(names::unique("record"));
        assert_eq!(read_file(&path).unwrap(), []);
        let mut one = Recorder::append(&path).unwrap();
        let mut two = Recorder::append(&path).unwrap();
        one.committed(1, u64::MAX).unwrap();
        two.batch_committed(2, 10, 5).unwrap();
        one.committed(1, 1 << 40).unwrap();
        one.file.write_all(&[1, 2, 3]).unwrap();
        let entries = read_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let entry = |producer, first, count| Entry {
            producer,
            first,
            count,
        };
        assert_eq!(
            entries,
            [entry(1, u64::MAX, 1), entry(2, 10, 5), entry(1, 1 << 40, 1)]
        );
    }
}
