//! Rules for every source file: nothing is left for later, roots carry the lints, no file is long.

use std::path::Path;

use crate::Finding;
use crate::scan::{Source, is};

/// Longer files are two subjects.
const MAX_LINES: usize = 650;

/// The programs: their roots forbid the code that other crates deny.
const SAFE_CRATE: &str = "crates/semring-cli/";

/// Nothing is left for later.
pub fn nothing_is_a_stub(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let mut find = |line, what: &str| {
            findings.push(Finding::new(
                source,
                line,
                format!("{what} promises work instead of doing it: do it, or take it out"),
            ));
        };
        let tokens = source.tokens();
        for (at, token) in tokens.iter().enumerate() {
            if is(&tokens, at, &["todo", "!"]) || is(&tokens, at, &["unimplemented", "!"]) {
                find(token.line, &format!("{}!", token.text));
            }
            if is(&tokens, at, &["#", "[", "ignore"]) {
                find(token.line, "an ignored test");
            }
        }
        for (index, line) in source.comments.lines().enumerate() {
            let is_mark = |word: &str| ["FIXME", "TODO", "XXX"].contains(&word);
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(mark) = words.into_iter().find(|word| is_mark(word)) {
                find(index + 1, mark);
            }
            if line.contains("```ignore") || line.contains("```rust,ignore") {
                find(index + 1, "an ignored example");
            }
        }
    }
    findings
}

/// The tests of this folder trace a process through [`TRACED`].
const TRACED_TESTS: &str = "tests/faults/";

/// The macro that leaves its tests out where tracing is refused.
const TRACED: &str = "traced_over_both_backends!";

/// A test that traces a process is left out, and does not fail, where that is refused.
pub fn tests_that_trace_can_be_left_out(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let tokens = source.tokens();
        let can_leave_out = tokens.iter().any(|token| token.text == "can_trace");
        let is_traced = source.path.starts_with(TRACED_TESTS);
        for (at, token) in tokens.iter().enumerate() {
            if is(&tokens, at, &["Stepper", "::", "spawn"]) && !can_leave_out && !is_traced {
                let text = "this traces a process: return first if can_trace() is false".to_owned();
                findings.push(Finding::new(source, token.line, text));
            }
            if is_traced && is(&tokens, at, &["over_both_backends", "!"]) {
                let text = format!("tests here trace processes: {TRACED}");
                findings.push(Finding::new(source, token.line, text));
            }
        }
    }
    findings
}

/// Options and commands of the programs: the programs add them to the library's texts.
const WORDS_OF_THE_PROGRAMS: [&str; 16] = [
    "--force",
    "--mode",
    "--producers",
    "--capacity",
    "--guard",
    "--timeout",
    "--follow",
    "--keep",
    "--owner",
    "--group",
    "--discard-unread",
    "semring rm",
    "semring prune",
    "semring create",
    "semring doctor",
    "SEMRING_GUARD",
];

/// The library's texts, in errors and wherever else, do not name the programs' options and commands.
pub fn the_library_does_not_speak_of_the_programs(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with("crates/semring/src/"))
    {
        for (index, line) in source.text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            if let Some(word) = WORDS_OF_THE_PROGRAMS
                .into_iter()
                .find(|word| !is_comment && line.contains(word))
            {
                findings.push(Finding::new(
                    source,
                    index + 1,
                    format!("{word} is a word of the programs: let semring-cli add it"),
                ));
            }
        }
    }
    findings
}

/// The root of each crate denies `unsafe`, and each manifest takes the workspace's lints.
pub fn every_crate_has_the_lints(sources: &[Source], manifests: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_root(&source.path)) {
        let tokens = source.tokens();
        let forbids = source.path.starts_with(SAFE_CRATE);
        let levels: &[&str] = if forbids {
            &["forbid"]
        } else {
            &["forbid", "deny"]
        };
        let has = levels.iter().any(|level| {
            let attribute = ["#", "!", "[", level, "(", "unsafe_code"];
            (0..tokens.len()).any(|at| is(&tokens, at, &attribute))
        });
        if !has {
            let level = levels.last().expect("a level");
            findings.push(Finding::new(
                source,
                1,
                format!("the root of a crate begins with #![{level}(unsafe_code)]: add it"),
            ));
        }
    }
    for manifest in manifests.iter().filter(|m| m.text.contains("[package]")) {
        let lints = manifest.text.split("[lints]").nth(1).unwrap_or_default();
        let first = lints.lines().find(|line| !line.trim().is_empty());
        if first.map(str::trim) != Some("workspace = true") {
            findings.push(Finding::new(
                manifest,
                1,
                "the package does not take the lints of the workspace: add [lints] workspace = true"
                    .to_owned(),
            ));
        }
    }
    findings
}

/// Whether this is the root of a library or program under crates/.
fn is_root(path: &str) -> bool {
    let Some((_, within)) = path
        .strip_prefix("crates/")
        .and_then(|path| path.split_once('/'))
    else {
        return false;
    };
    let program = within.strip_prefix("src/bin/").is_some_and(|rest| {
        Path::new(rest).components().count() == 1 || rest.ends_with("/main.rs")
    });
    ["src/lib.rs", "src/main.rs"].contains(&within) || program
}

/// No file is longer than can be read.
pub fn no_file_is_long(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            findings.push(Finding::new(
                source,
                lines,
                format!("{lines} lines, more than {MAX_LINES}: it is two subjects; part them"),
            ));
        }
    }
    findings
}

mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    #[test]
    fn a_stub_is_found() {
        let stubs = |text| nothing_is_a_stub(&[source("crates/x/src/y.rs", text)]).len();
        assert_eq!(stubs("fn f() { todo!() }"), 1);
        assert_eq!(stubs("fn f() { unimplemented!(\"later\") }"), 1);
        assert_eq!(stubs("#[test] #[ignore = \"slow\"] fn f() {}"), 1);
        assert_eq!(stubs("// FIXME: this\nfn f() {}"), 1);
        assert_eq!(stubs("/* TODO */"), 1);
        assert_eq!(stubs("/// ```ignore\n/// x\n/// ```\nfn f() {}"), 1);
        assert_eq!(
            stubs("fn todo() { let text = \"todo!() FIXME\"; } // ignore it"),
            0
        );
    }

    #[test]
    fn a_test_that_can_not_be_left_out_is_found() {
        let found = |path, text| tests_that_trace_can_be_left_out(&[source(path, text)]).len();
        let spawn = "fn f() { Stepper::spawn(c); }";
        assert_eq!(found("tests/memory/x.rs", spawn), 1);
        let asking = "fn f() { if !can_trace() { return; } Stepper::spawn(c); }";
        assert_eq!(found("tests/memory/x.rs", asking), 0);
        assert_eq!(found("tests/faults/x.rs", spawn), 0);
        let faults = |text| found("tests/faults/x.rs", text);
        assert_eq!(faults("over_both_backends! { f }"), 1);
        assert_eq!(faults("traced_over_both_backends! { f }"), 0);
    }

    #[test]
    fn a_root_without_lints_is_found() {
        let roots = |path, text| every_crate_has_the_lints(&[source(path, text)], &[]).len();
        assert_eq!(
            roots("crates/x/src/lib.rs", "//! Docs.\n#![deny(unsafe_code)]"),
            0
        );
        assert_eq!(roots("crates/x/src/lib.rs", "// #![deny(unsafe_code)]"), 1);
        assert_eq!(roots("crates/x/src/main.rs", ""), 1);
        assert_eq!(roots("crates/x/src/bin/y.rs", ""), 1);
        assert_eq!(roots("crates/x/src/bin/y/main.rs", ""), 1);
        assert_eq!(roots("crates/x/src/bin/y/args.rs", ""), 0);
        assert_eq!(roots("crates/x/src/y.rs", ""), 0);
        assert_eq!(
            roots("crates/semring-cli/src/lib.rs", "#![deny(unsafe_code)]"),
            1
        );
        assert_eq!(
            roots("crates/semring-cli/src/lib.rs", "#![forbid(unsafe_code)]"),
            0
        );
    }

    #[test]
    fn a_manifest_without_lints_is_found() {
        let lints = |text| every_crate_has_the_lints(&[], &[source("Cargo.toml", text)]).len();
        assert_eq!(
            lints("[package]\nname = \"x\"\n[lints]\nworkspace = true\n"),
            0
        );
        assert_eq!(lints("[package]\nname = \"x\"\n"), 1);
        assert_eq!(lints("[package]\nname = \"x\"\n[lints]\n[lints.rust]\n"), 1);
        assert_eq!(lints("[workspace]\n"), 0);
    }

    #[test]
    fn a_long_file_is_found() {
        let lines = |n: usize| no_file_is_long(&[source("x.rs", &"\n".repeat(n))]).len();
        assert_eq!((lines(MAX_LINES), lines(MAX_LINES + 1)), (0, 1));
    }
}
