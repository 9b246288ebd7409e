//! Documents: their links lead to existing places, and the change log is kept.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::Finding;
use crate::scan::Source;

/// Documents that must be there.
const REQUIRED: [&str; 2] = ["README.md", "CHANGELOG.md"];

/// Every link within the repository leads to a file, and its fragment to a heading of that document.
/// `exists` returns whether there is a file or folder of this path.
pub fn links_lead_somewhere(documents: &[Source], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let anchors: BTreeMap<&str, Vec<String>> = documents
        .iter()
        .map(|document| (document.path.as_str(), headings(&document.text)))
        .collect();
    let mut findings = Vec::new();
    for document in documents {
        for (line, target) in links(&document.text) {
            let (file, fragment) = match target.split_once('#') {
                Some((file, fragment)) => (file, Some(fragment)),
                None => (target.as_str(), None),
            };
            let path = if file.is_empty() {
                document.path.clone()
            } else {
                resolve(&document.path, file)
            };
            let problem = if file.starts_with('/') {
                "is absolute: write it from this file's folder"
            } else if !exists(&path) {
                "leads to nothing: correct it"
            } else if let (Some(fragment), Some(headings)) = (fragment, anchors.get(path.as_str()))
                && !headings.iter().any(|heading| heading == fragment)
            {
                "names a heading that is not there: correct it"
            } else {
                continue;
            };
            findings.push(Finding::new(
                document,
                line,
                format!("the link {target} {problem}"),
            ));
        }
    }
    findings
}

/// The documents that every reader expects exist, and the change log has a section for what is not
/// released yet or for a version.
pub fn the_change_log_is_kept(documents: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for required in REQUIRED {
        let Some(document) = documents.iter().find(|d| d.path == required) else {
            let missing = Source::new(required, "");
            findings.push(Finding::new(&missing, 1, "is missing: write it".to_owned()));
            continue;
        };
        if required == "CHANGELOG.md" && !document.text.lines().any(is_version) {
            findings.push(Finding::new(
                document,
                1,
                "has neither \"## Unreleased\" nor a version (\"## 1.2.3\"): add one".to_owned(),
            ));
        }
    }
    findings
}

/// A heading such as `## Unreleased`, `## [Unreleased]`, `## 0.1.0 (2026-01-31)`.
fn is_version(line: &str) -> bool {
    let Some(title) = line.strip_prefix("## ") else {
        return false;
    };
    let title = title.trim_start_matches(['[', 'v']);
    let numbers = title
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next();
    let numbers = numbers.unwrap_or_default().split('.');
    title.to_lowercase().starts_with("unreleased")
        || numbers.filter(|number| !number.is_empty()).count() == 3
}

/// The lines of a document outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

/// The targets of all links but those to other sites.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Text between backticks is code.
        let spans: Vec<&str> = line.split('`').step_by(2).collect();
        let line = spans.join("`");
        let inline = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let definition = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, target)| target);
        for target in inline.chain(definition) {
            // A title may follow.
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_matches(['<', '>']);
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !elsewhere {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The fragments by which the headings of a document are reached.
fn headings(text: &str) -> Vec<String> {
    let mut slugs: Vec<String> = Vec::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let before = slugs.iter().filter(|s| **s == slug).count();
        slugs.push(if before == 0 {
            slug
        } else {
            format!("{slug}-{before}")
        });
    }
    slugs
}

/// The path from the root for a document's link.
fn resolve(document: &str, file: &str) -> String {
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        let documents = [
            Source::new(path, text),
            Source::new(
                "docs/layout.md",
                "# The `bytes`: layout\n## Twice\n## Twice\n",
            ),
        ];
        let exists = |path: &str| ["docs/layout.md", "docs", "README.md"].contains(&path);
        links_lead_somewhere(&documents, exists).len()
    }

    #[test]
    fn a_dead_link_is_found() {
        assert_eq!(
            count("README.md", "[a](docs/layout.md) and [b](docs/none.md)"),
            1
        );
        assert_eq!(
            count(
                "README.md",
                "[a](docs) [b](https://example.org/x) [c](#none)"
            ),
            1
        );
        assert_eq!(
            count(
                "docs/x.md",
                "[a](layout.md) [b](../README.md) [c](README.md)"
            ),
            1
        );
        assert_eq!(
            count("README.md", "[a]: docs/none.md\n[b]: docs/layout.md"),
            1
        );
        assert_eq!(count("README.md", "[a](/docs/layout.md)"), 1);
        assert_eq!(count("README.md", "![a](none.png \"title\")"), 1);
        assert_eq!(
            count("README.md", "```\n[a](none.md)\n```\n`[a](none.md)`"),
            0
        );
    }

    #[test]
    fn a_fragment_without_a_heading_is_found() {
        assert_eq!(
            count("README.md", "[a](docs/layout.md#the-bytes-layout)"),
            0
        );
        assert_eq!(count("README.md", "[a](docs/layout.md#twice-1)"), 0);
        assert_eq!(count("README.md", "[a](docs/layout.md#bytes)"), 1);
        assert_eq!(count("README.md", "# Here\n[a](#here) [b](#there)"), 1);
    }

    #[test]
    fn an_empty_change_log_is_found() {
        let kept = |text| {
            let readme = Source::new("README.md", "");
            the_change_log_is_kept(&[readme, Source::new("CHANGELOG.md", text)]).len()
        };
        assert_eq!(kept("# Changes\n\n## Unreleased\n"), 0);
        assert_eq!(kept("## [0.1.0] - 2026-01-31\n"), 0);
        assert_eq!(kept("# Changes\n## Soon\n"), 1);
        assert_eq!(kept("## 0.1\n"), 1);
        assert_eq!(the_change_log_is_kept(&[]).len(), 2);
    }
}
