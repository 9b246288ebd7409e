//! Words that the project does not use any more, and the words in their place: one list, checked in all sources and
//! documents except this file.
//!
//! A word of an identifier does not count there (`become_nobody` is one word), nor does a constant in capitals: they have a
//! list of their own.

use crate::Finding;
use crate::scan::Source;

/// The path of this file, which must name the words.
const HERE: &str = "tests/tidy/words.rs";

/// A word or phrase, and what to write in its place. The first letter may also be a capital.
const DROPPED: [(&str, &str); 66] = [
    ("whoever", "a process that …"),
    ("who", "a noun: a process that …"),
    ("so many", "this many, or the name of the number"),
    ("let go of", "release, drop, or take"),
    ("lets go of", "releases, drops, or takes"),
    ("letting go of", "releasing, dropping, or taking"),
    ("anew", "again, or a new …"),
    ("death rattle", "undo token"),
    ("rattle", "undo token"),
    ("glance", "look, or poll"),
    ("glances", "looks, or polls"),
    ("doorbells", "wake-up semaphores"),
    ("certificate", "liveness lock"),
    ("certify", "free the role"),
    ("certifies", "frees the role"),
    ("certified", "gone, or freed"),
    ("tombstones", "removal flags"),
    ("keepers", "cleanup guards, or guards"),
    ("twins", "mutants"),
    ("bereavement", "the death of the consumer alone"),
    ("sparse", "fenced mode"),
    ("believe", "use, or report"),
    ("believes", "uses, or reports"),
    ("believed", "used, or reported"),
    ("heard", "received"),
    ("hears", "receives"),
    ("knows", "has, stores, or checks"),
    ("honest", "checked"),
    ("everybody", "all processes, or all users"),
    ("anybody", "any process"),
    ("in vain", "that finds nothing"),
    ("for good", "permanently, or for ever"),
    ("asked for", "requested"),
    ("learnt", "noticed, or learned"),
    ("is told", "gets, or receives"),
    ("meets with", "gets"),
    ("met with", "got"),
    ("at its heels", "close to it"),
    ("as far as", "within, up to, or if"),
    ("somebody", "a process, or a user"),
    ("says", "reports, prints, holds, or means"),
    ("asks", "checks, loads, or requests"),
    ("tells", "reports, or returns"),
    ("learns", "notices, or gets"),
    ("seat", "role"),
    ("bell", "wake-up semaphore"),
    ("bells", "wake-up semaphores"),
    ("doorbell", "wake-up semaphore"),
    ("keeper", "cleanup guard, or guard"),
    ("sentinel", "mapping state"),
    ("sentinels", "mapping states"),
    ("weather", "conditions"),
    ("massacre", "kill of all processes"),
    ("chase", "back off"),
    ("tombstone", "removal flag"),
    ("poisoned lane", "corrupt lane"),
    ("implicit ring", "auto-removed ring"),
    ("implicit rings", "auto-removed rings"),
    ("manners", "pipe semantics"),
    ("habits", "options of the handle"),
    ("death token", "undo token"),
    ("burst mode", "asymmetric mode"),
    ("in burst", "in asymmetric mode"),
    ("weakened", "mutant"),
    ("ballast", "memory"),
    (
        "at least as",
        "this many or more, or the name of the number",
    ),
];

/// Words that are no part of an identifier: of `fn note_count` or `struct SeatLock`.
const DROPPED_PARTS: [(&str, &str); 21] = [
    ("note", "record"),
    ("noted", "recorded"),
    ("seat", "role"),
    ("seated", "held"),
    ("bell", "wakeup"),
    ("bells", "wakeups"),
    ("doorbell", "wakeup"),
    ("keeper", "guard"),
    ("sentinel", "state"),
    ("sentinels", "states"),
    ("glance", "look, or poll"),
    ("chase", "backoff"),
    ("weather", "conditions"),
    ("massacre", "mass_kill"),
    ("bereave", "kill_consumer_alone"),
    ("bereavement", "lone_death"),
    ("tombstone", "removal_flag"),
    ("burst", "asymmetric"),
    ("patiently", "blocking"),
    ("believes", "trusts"),
    ("whoever", "a noun"),
];

/// No source or document uses a dropped word, and no identifier has one as a part.
pub fn no_dropped_word_is_used(texts: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in texts.iter().filter(|source| source.path != HERE) {
        let words = words(&source.text);
        for at in 0..words.len() {
            for (phrase, instead) in DROPPED {
                if begins_with(&words[at..], phrase) {
                    let text = format!("{phrase:?}: write {instead}");
                    findings.push(Finding::new(source, words[at].line, text));
                }
            }
            let parts = parts(words[at].text);
            for (part, instead) in DROPPED_PARTS {
                if parts.len() > 1 && parts.iter().any(|found| found == part) {
                    let text = format!("{:?}: write {instead} for {part:?}", words[at].text);
                    findings.push(Finding::new(source, words[at].line, text));
                }
            }
        }
    }
    findings
}

/// A word of a text, with underscores and digits.
struct Word<'t> {
    text: &'t str,
    /// From 1.
    line: usize,
    /// True if only white space and marks of comments are between the word before and this one.
    continues: bool,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = text;
    let mut line = 1;
    loop {
        let gap = rest.find(is_word).unwrap_or(rest.len());
        let (between, after) = rest.split_at(gap);
        line += between.matches('\n').count();
        let length = after.find(|c| !is_word(c)).unwrap_or(after.len());
        if length == 0 {
            return words;
        }
        words.push(Word {
            text: &after[..length],
            line,
            continues: between
                .chars()
                .all(|c| c.is_whitespace() || "/!*".contains(c)),
        });
        rest = &after[length..];
    }
}

/// The words of which an identifier is made, in small letters: two of `seat_lock`, `SeatLock` and `SEAT_LOCK`.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_small = false;
    for letter in identifier.chars() {
        if letter == '_' || (letter.is_uppercase() && was_small) {
            parts.push(String::new());
        }
        was_small = letter.is_lowercase() || letter.is_ascii_digit();
        if letter != '_' {
            let last = parts.last_mut().expect("there is one");
            last.extend(letter.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn begins_with(words: &[Word<'_>], phrase: &str) -> bool {
    for (at, wanted) in phrase.split(' ').enumerate() {
        let Some(word) = words.get(at) else {
            return false;
        };
        let is_same = if at == 0 {
            word.text == wanted || uncapitalised(word.text) == wanted
        } else {
            word.continues && word.text == wanted
        };
        if !is_same {
            return false;
        }
    }
    true
}

/// The word with a small first letter.
fn uncapitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let findings = no_dropped_word_is_used(&[Source::new("sample.rs", text)]);
        let found = findings.into_iter();
        found.map(|finding| (finding.line, finding.text)).collect()
    }

    #[test]
    fn dropped_words_are_found_with_their_lines() {
        let lines = |text: &str| -> Vec<usize> { found(text).into_iter().map(|f| f.0).collect() };
        assert_eq!(lines("let x = 1;\n// Whoever comes."), [2]);
        assert_eq!(lines("/// It lets\n/// go of the lock, made anew."), [1, 2]);
        assert_eq!(lines("panic!(\"nothing is told\")\n//! Who is it?"), [1, 2]);
        assert!(found("// So many")[0].1.contains("this many"));
    }

    #[test]
    fn identifiers_constants_and_other_words_are_left_alone() {
        assert!(found("const RATTLE: u32 = so_many(anew_1); // so, many").is_empty());
        assert!(found("// The users that may write it are known; so. Many of them.").is_empty());
    }

    #[test]
    fn dropped_words_are_found_in_identifiers() {
        for text in [
            "fn note_count() {}",
            "struct SeatLock;",
            "const TEST_BELL: u8 = 1;",
        ] {
            assert_eq!(found(text).len(), 1, "{text}");
        }
        assert!(found("fn notes() { bursting(seats) } // NOTE, and a note").is_empty());
    }

    #[test]
    fn the_list_may_name_the_words() {
        let here = Source::new(HERE, "// whoever");
        assert!(no_dropped_word_is_used(&[here]).is_empty());
    }
}
