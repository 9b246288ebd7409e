//! Reads the sources, manifests and documents of the repository and holds them to its rules: the
//! table of the layers above all, so that a change of architecture is a visible change of one table
//! ([`layers`]).
//!
//! Each rule is a function from texts to findings, with a test that feeds it a bad sample; the tests
//! here feed it the repository.

mod circles;
mod documents;
mod facts;
mod layers;
mod manifests;
mod scan;
mod sources;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

use scan::Source;

/// A breach of a rule, and what to do about it.
#[derive(Debug)]
pub struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(source: &Source, line: usize, text: String) -> Finding {
        Finding {
            path: source.path.clone(),
            line,
            text,
        }
    }
}

/// Panics with all findings, one a line.
#[track_caller]
fn expect_none(findings: &[Finding]) {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.text))
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of all crates.
fn crates() -> Vec<Source> {
    let sources = Source::read_all(root(), &["crates"]);
    assert!(sources.len() > 20, "the sources are not where they were");
    sources
}

/// Every source of the repository.
fn everything() -> Vec<Source> {
    Source::read_all(root(), &["crates", "tests", "examples", "benches"])
}

/// All files of this extension in the root and below these folders.
fn read(extension: &str, folders: &[&str]) -> Vec<Source> {
    let mut paths = BTreeSet::new();
    for folder in folders {
        scan::collect(&root().join(folder), extension, &mut paths);
    }
    for entry in std::fs::read_dir(root()).expect("the root can be read") {
        let path = entry.expect("an entry of the root").path();
        if path.extension().is_some_and(|e| e == extension) {
            paths.insert(path);
        }
    }
    let sources = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path).expect("a text file");
        Source::new(&scan::relative(root(), path), &text)
    });
    sources.collect()
}

fn manifest_files() -> Vec<Source> {
    let mut files = read("toml", &["crates"]);
    files.retain(|file| file.path.ends_with("Cargo.toml"));
    files
}

#[test]
fn nothing_points_up() {
    expect_none(&layers::nothing_points_up(&crates()));
}

#[test]
fn imports_of_the_bench_have_one_direction() {
    let crates = crates();
    expect_none(&circles::modules_have_an_order(&crates));
    expect_none(&circles::files_have_no_circles(&crates));
}

#[test]
fn the_document_has_the_table() {
    let documents = read("md", &["docs"]);
    let document = documents.iter().find(|d| d.path == "docs/architecture.md");
    expect_none(&layers::the_document_has_the_table(
        document.expect("the document of the layers"),
    ));
}

#[test]
fn system_calls_have_one_place() {
    expect_none(&layers::system_calls_have_one_place(&crates()));
}

#[test]
fn orderings_have_their_places() {
    expect_none(&layers::orderings_have_their_places(&crates()));
}

#[test]
fn unsafe_has_its_places() {
    expect_none(&layers::unsafe_has_its_places(&crates()));
}

#[test]
fn nothing_is_a_stub() {
    expect_none(&sources::nothing_is_a_stub(&everything()));
}

#[test]
fn tests_that_trace_can_be_left_out() {
    expect_none(&sources::tests_that_trace_can_be_left_out(&everything()));
}

#[test]
fn the_library_does_not_speak_of_the_programs() {
    expect_none(&sources::the_library_does_not_speak_of_the_programs(
        &crates(),
    ));
}

#[test]
fn every_crate_has_the_lints() {
    expect_none(&sources::every_crate_has_the_lints(
        &crates(),
        &manifest_files(),
    ));
}

#[test]
fn no_file_is_long() {
    expect_none(&sources::no_file_is_long(&everything()));
}

#[test]
fn every_dependency_has_its_reason() {
    expect_none(&manifests::every_dependency_has_its_reason(
        &manifest_files(),
    ));
}

#[test]
fn published_crates_are_complete() {
    expect_none(&manifests::published_crates_are_complete(&manifest_files()));
}

#[test]
fn links_lead_somewhere() {
    let documents = read("md", &["docs", "crates"]);
    let exists = |path: &str| root().join(path).exists();
    expect_none(&documents::links_lead_somewhere(&documents, exists));
}

#[test]
fn the_change_log_is_kept() {
    expect_none(&documents::the_change_log_is_kept(&read("md", &["docs"])));
}

#[test]
fn no_dropped_word_is_used() {
    expect_none(&words::no_dropped_word_is_used(&everything()));
    expect_none(&words::no_dropped_word_is_used(&read(
        "md",
        &["docs", "crates"],
    )));
}

fn document<'d>(documents: &'d [Source], path: &str) -> &'d Source {
    let document = documents.iter().find(|document| document.path == path);
    document.unwrap_or_else(|| panic!("{path} is missing"))
}

#[test]
fn facts_of_the_documents_are_those_of_the_code() {
    let documents = read("md", &["docs"]);
    expect_none(&facts::pages_are_short(&documents));
    let exists = |path: &str| root().join(path).exists();
    let architecture = document(&documents, "docs/architecture.md");
    expect_none(&facts::named_paths_exist(architecture, exists));
    let sources = everything();
    for path in ["docs/reliability.md", "CONTRIBUTING.md"] {
        let document = document(&documents, path);
        expect_none(&facts::named_functions_exist(document, &sources));
    }
    let code = document(&sources, "crates/semring/src/guard/semaphore/mod.rs");
    for path in ["docs/layout.md", "docs/design/guards.md"] {
        let document = document(&documents, path);
        expect_none(&facts::semaphores_are_those_of_the_code(document, code));
    }
    let layout = document(&documents, "docs/layout.md");
    for (headings, path) in [
        (
            &["## Superblock"][..],
            "crates/semring/src/layout/superblock.rs",
        ),
        (
            &["## Superblock", "### Set records"],
            "crates/semring/src/layout/set_record.rs",
        ),
    ] {
        let code = document(&sources, path);
        expect_none(&facts::offsets_are_those_of_the_code(
            layout, headings, code,
        ));
    }
}
