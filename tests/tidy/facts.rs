//! Facts in documents that repeat the code: names of tests, paths of sources, the semaphores of a set.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::scan::Source;

/// The most lines of a page of docs/design, so that the five pages can be read in a morning.
const MAX_PAGE_LINES: usize = 150;

/// Folders below which the paths of docs/architecture.md begin; the table of layers names folders of `layout`.
const ROOTS: [&str; 4] = [
    "",
    "crates/semring/src/",
    "crates/semring/src/layout/",
    "crates/semring-bench/src/",
];

/// No page of docs/design is longer than [`MAX_PAGE_LINES`].
pub fn pages_are_short(documents: &[Source]) -> Vec<Finding> {
    let pages = documents
        .iter()
        .filter(|d| d.path.starts_with("docs/design/"));
    let long = pages.filter_map(|page| {
        let lines = page.text.lines().count();
        let text = format!("{lines} lines, more than {MAX_PAGE_LINES}: shorten it");
        (lines > MAX_PAGE_LINES).then(|| Finding::new(page, lines, text))
    });
    long.collect()
}

/// Every path in backticks leads to a file or folder. `exists` is given paths from the root.
pub fn named_paths_exist(document: &Source, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, name) in quoted(&document.text) {
        if !name.contains('/') || name.contains(' ') {
            continue;
        }
        for path in alternatives(name) {
            let is_there = ROOTS.iter().any(|root| {
                let path = format!("{root}{path}");
                exists(&path) || exists(&format!("{path}.rs"))
            });
            if !is_there {
                let text = format!("`{path}` is neither a file nor a folder: correct it");
                findings.push(Finding::new(document, line, text));
            }
        }
    }
    findings
}

/// `a/{b,c}.rs` stands for `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let parts = name
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (list, after))) => list
            .split(',')
            .map(|part| format!("{before}{part}{after}"))
            .collect(),
        None => vec![name.to_owned()],
    }
}

/// Every name of three words or more in backticks, such as a test's, is that of a function or module.
pub fn named_functions_exist(document: &Source, sources: &[Source]) -> Vec<Finding> {
    let mut names = BTreeSet::new();
    for source in sources {
        for word in ["fn ", "mod "] {
            names.extend(source.text.split(word).skip(1).map(first_word));
        }
    }
    let unknown = quoted(&document.text).filter_map(|(line, quoted)| {
        let name = quoted.rsplit([' ', ':']).next().unwrap_or_default();
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_name || name.matches('_').count() < 2 || names.contains(name) {
            return None;
        }
        let text = format!("`{name}` is no function or module: correct it");
        Some(Finding::new(document, line, text))
    });
    unknown.collect()
}

/// The rows of the semaphores agree with the constants of the code: `| W | 0 | …` in a document where the letter
/// comes first, `| 0 | W: …` in one where the index does.
pub fn semaphores_are_those_of_the_code(document: &Source, code: &Source) -> Vec<Finding> {
    let constants: BTreeMap<&str, u16> = code
        .text
        .lines()
        .filter_map(|line| {
            let (_, declaration) = line.split_once("const ")?;
            let (name, value) = declaration.split_once(": u16 = ")?;
            Some((name, value.strip_suffix(';')?.parse().ok()?))
        })
        .collect();
    let lanes = constants.get("LANES").copied().unwrap_or_default();
    let letters = ["W", "N", "C", "T", "I"];
    let mut expected: Vec<(&str, String)> = letters
        .into_iter()
        .map(|letter| {
            (
                letter,
                constants
                    .get(letter)
                    .map_or_else(String::new, u16::to_string),
            )
        })
        .collect();
    expected.push(("P", format!("{lanes} + 2i")));
    expected.push(("S", format!("{} + 2i", lanes + 1)));
    let rows: Vec<Vec<&str>> = document
        .text
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let mut findings = Vec::new();
    for (letter, index) in expected {
        let is_there = rows.iter().any(|row| {
            let [_, first, second, ..] = row[..] else {
                return false;
            };
            let by_letter = first.trim_end_matches("_i") == letter && second == index;
            by_letter || (first == index && second.split(':').next() == Some(letter))
        });
        if !is_there {
            let text =
                format!("no row has semaphore {letter} with index {index:?}, as the code has it");
            findings.push(Finding::new(document, 1, text));
        }
    }
    findings
}

/// Every field that the code places (`const AT_NAME: usize = 0x…`) has a row with that offset in a section of the document
/// with one of these headings.
pub fn offsets_are_those_of_the_code(
    document: &Source,
    headings: &[&str],
    code: &Source,
) -> Vec<Finding> {
    let section = |heading: &&str| {
        let (_, rest) = document.text.split_once(&format!("{heading}\n"))?;
        rest.split("\n#").next()
    };
    let documented: BTreeSet<usize> = headings
        .iter()
        .filter_map(section)
        .flat_map(str::lines)
        .filter_map(|line| hexadecimal(line.strip_prefix("| ")?.split(' ').next()?))
        .collect();
    let placed = code.text.lines().filter_map(|line| {
        let (_, declaration) = line.split_once("const AT_")?;
        let (name, value) = declaration.split_once(": usize = ")?;
        Some((name, hexadecimal(value.strip_suffix(';')?)?))
    });
    let missing = placed.filter(|(_, offset)| !documented.contains(offset));
    missing
        .map(|(name, offset)| {
            let text =
                format!("{headings:?}: no row at {offset:#05x}, where the code has AT_{name}");
            Finding::new(document, 1, text)
        })
        .collect()
}

fn hexadecimal(text: &str) -> Option<usize> {
    usize::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// The texts between backticks, each with its line.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let quoted = line.split('`').skip(1).step_by(2);
        quoted.map(move |text| (index + 1, text))
    })
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_page_is_found() {
        let page = |lines: usize| Source::new("docs/design/lane.md", &"a line\n".repeat(lines));
        assert!(pages_are_short(&[page(MAX_PAGE_LINES)]).is_empty());
        assert_eq!(pages_are_short(&[page(MAX_PAGE_LINES + 1)]).len(), 1);
    }

    #[test]
    fn a_path_to_nothing_is_found() {
        let exists = |path: &str| ["crates/semring/src/ring/a.rs", "tests/api"].contains(&path);
        let count = |text: &str| named_paths_exist(&Source::new("a.md", text), exists).len();
        assert_eq!(
            count("`ring/a.rs`, `ring/a`, `tests/api`, `cargo test a/b`"),
            0
        );
        assert_eq!(count("`ring/{a,b}.rs`"), 1);
    }

    #[test]
    fn a_name_of_no_test_is_found() {
        let sources = [Source::new(
            "a.rs",
            "mod one_two_three { fn killed_in_send() {} }",
        )];
        let count = |text: &str| named_functions_exist(&Source::new("a.md", text), &sources).len();
        assert_eq!(
            count("`killed_in_send`, `a::one_two_three`, `two_words`, `K1`"),
            0
        );
        assert_eq!(count("`killed_in_receive` and `a::killed_in_detach`"), 2);
    }

    #[test]
    fn a_wrong_offset_is_found() {
        let code = "const AT_MAGIC: usize = 0x000;\npub(crate) const AT_NAME: usize = 0x088;\n\
                    pub(crate) const AT_WORD: usize = AT_NAME + 8;\n";
        let code = Source::new("superblock.rs", code);
        let rows = "## Block\n\n| 0x000 | 8 | magic |\n| 0x088 | 8 | name |\n\n## Other\n\n| 0x090 | 8 | |\n";
        let count = |text: &str| {
            let document = Source::new("a.md", text);
            offsets_are_those_of_the_code(&document, &["## Block"], &code).len()
        };
        assert_eq!(count(rows), 0);
        assert_eq!(count(&rows.replace("| 0x088", "| 0x090")), 1);
        assert_eq!(count(&rows.replace("## Block", "## Ring")), 2);
    }

    #[test]
    fn a_wrong_semaphore_is_found() {
        let code = "pub const W: u16 = 0;\nconst N: u16 = 1;\nconst C: u16 = 2;\nconst T: u16 = 3;\n\
                    const I: u16 = 4;\nconst LANES: u16 = 8;\n";
        let code = Source::new("semaphore.rs", code);
        let rows = "| W | 0 | |\n| N | 1 | |\n| 2 | C: consumer |\n| T | 3 | |\n| I | 4 | |\n| P_i | 8 + 2i | |\n| 9 + 2i | S: | |\n";
        let count =
            |text: &str| semaphores_are_those_of_the_code(&Source::new("a.md", text), &code).len();
        assert_eq!(count(rows), 0);
        assert_eq!(count(&rows.replace("| N | 1 |", "| N | 2 |")), 1);
    }
}
