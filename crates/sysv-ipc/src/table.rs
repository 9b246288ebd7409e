//! The tables of `/proc/sysvipc`: a line of column names, then a line for each object.
//!
//! Columns are found by name, so a kernel that adds one changes nothing here.

use std::io;
use std::str::FromStr;

use crate::Key;

/// A line, with the line of names.
pub(crate) struct Row<'a> {
    names: &'a str,
    line: &'a str,
}

impl Row<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self
            .names
            .split_whitespace()
            .position(|column| column == name)?;
        self.line.split_whitespace().nth(at)
    }

    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// The key, which the kernel prints as a signed number.
    pub fn key(&self) -> Option<Key> {
        self.number("key").map(Key::new)
    }

    /// The permissions, in octal, with the flag bits of shared memory.
    pub fn mode(&self) -> Option<u32> {
        u32::from_str_radix(self.text("perms")?, 8).ok()
    }
}

/// Reads the table at `path`, each line by `entry`.
pub(crate) fn read<T>(path: &str, entry: impl Fn(&Row<'_>) -> Option<T>) -> io::Result<Vec<T>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    parse(&text, entry).map_err(|line| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: unexpected line: {line}"),
        )
    })
}

/// The entries, or the first line that is not understood.
fn parse<T>(text: &str, entry: impl Fn(&Row<'_>) -> Option<T>) -> Result<Vec<T>, String> {
    let mut lines = text.lines();
    let names = lines.next().unwrap_or_default();
    lines
        .map(|line| entry(&Row { names, line }).ok_or_else(|| line.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_key_and_mode(row: &Row<'_>) -> Option<(i32, Key, u32)> {
        Some((row.number("semid")?, row.key()?, row.mode()?))
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "  key  novelty semid perms\n -559038737  9 32769  3600\n  0 9 2 4\n";
        assert_eq!(
            parse(text, id_key_and_mode).unwrap(),
            [
                (32769, Key::from_raw(0xdead_beef), 0o3600),
                (2, Key::PRIVATE, 0o4)
            ]
        );
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let missing_column = parse("key perms\n1 600\n", id_key_and_mode);
        assert_eq!(missing_column.unwrap_err(), "1 600");
        let not_octal = parse("key semid perms\n1 2 600\n1 2 9\n", id_key_and_mode);
        assert_eq!(not_octal.unwrap_err(), "1 2 9");
    }

    #[test]
    fn an_empty_table_has_no_entries() {
        assert!(
            parse("key semid perms\n", id_key_and_mode)
                .unwrap()
                .is_empty()
        );
        assert!(parse("", id_key_and_mode).unwrap().is_empty());
    }
}
