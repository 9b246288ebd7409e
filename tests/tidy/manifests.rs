//! Manifests: every dependency has a reason beside it, and manifests of published crates are
//! complete.

use std::collections::BTreeSet;

use crate::Finding;
use crate::scan::Source;

/// A line of a manifest that names a dependency.
struct Dependency {
    name: String,
    /// The rest of its line.
    line: String,
    number: usize,
    has_reason: bool,
    for_workspace: bool,
    for_tests: bool,
}

impl Dependency {
    /// `name.workspace = true` or `name = { workspace = true, … }`.
    fn is_inherited(&self) -> bool {
        let line: String = self.line.split_whitespace().collect();
        line.contains("workspace=true")
    }

    /// A crate of this repository needs no reason.
    fn is_ours(&self) -> bool {
        self.line.contains("path =") || self.line.contains("path=")
    }
}

/// Every dependency has a comment beside it or above it; one that is inherited may have it where the
/// workspace names it. Crates of this repository need none.
pub fn every_dependency_has_its_reason(manifests: &[Source]) -> Vec<Finding> {
    let all: Vec<(&Source, Vec<Dependency>)> = manifests
        .iter()
        .map(|manifest| (manifest, dependencies(&manifest.text)))
        .collect();
    let explained: BTreeSet<&str> = all
        .iter()
        .flat_map(|(_, dependencies)| dependencies)
        .filter(|d| d.for_workspace && (d.has_reason || d.is_ours()))
        .map(|d| d.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for (manifest, dependencies) in &all {
        for d in dependencies {
            let inherits = d.is_inherited() && explained.contains(d.name.as_str());
            if !(d.has_reason || d.is_ours() || inherits) {
                findings.push(Finding::new(
                    manifest,
                    d.number,
                    format!(
                        "dependency {} has no reason: add a comment with its purpose",
                        d.name
                    ),
                ));
            }
        }
    }
    findings
}

fn dependencies(text: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let (mut section, mut commented, mut within) = (String::new(), false, 0);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let code = line.split('#').next().unwrap_or_default().trim();
        if within > 0 {
            // Within a table or list of several lines.
            within += brackets(code);
            continue;
        }
        if let Some(name) = code.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            // [dependencies.name]: the name is in the section, the reason above it.
            if let Some((before, name)) = section.rsplit_once("dependencies.") {
                found.push(Dependency {
                    name: name.to_owned(),
                    line: String::new(),
                    number: index + 1,
                    has_reason: commented,
                    for_workspace: before == "workspace.",
                    for_tests: before.ends_with("dev-"),
                });
            }
        } else if section.ends_with("dependencies")
            && let Some((name, rest)) = code.split_once('=')
        {
            let name = name.trim().trim_end_matches(".workspace").trim_matches('"');
            found.push(Dependency {
                name: name.to_owned(),
                line: code.to_owned(),
                number: index + 1,
                has_reason: commented || line.len() > code.len(),
                for_workspace: section == "workspace.dependencies",
                for_tests: section.ends_with("dev-dependencies"),
            });
            within = brackets(rest);
        }
        commented = line.starts_with('#');
    }
    found
}

/// How many brackets a line leaves open.
fn brackets(code: &str) -> i32 {
    let sign = |c| match c {
        '{' | '[' => 1,
        '}' | ']' => -1,
        _ => 0,
    };
    code.chars().map(sign).sum()
}

/// The fields that a published crate's manifest must have. (`repository` is missing until there is
/// one.)
const COMPLETE: [&str; 7] = [
    "description",
    "license",
    "readme",
    "keywords",
    "categories",
    "rust-version",
    "all-features",
];

/// A published crate has a complete manifest, and depends on crates of this repository that are published,
/// through the workspace, which names their versions. (What only tests need may be unpublished.)
pub fn published_crates_are_complete(manifests: &[Source]) -> Vec<Finding> {
    let unpublished: Vec<&str> = manifests
        .iter()
        .filter(|manifest| !is_published(manifest))
        .filter_map(|manifest| value(&manifest.text, "name"))
        .collect();
    let mut findings = Vec::new();
    for manifest in manifests.iter().filter(|manifest| is_published(manifest)) {
        for key in COMPLETE {
            if value(&manifest.text, key).is_none() {
                findings.push(Finding::new(
                    manifest,
                    1,
                    format!("has no {key}, which a published crate needs: add it"),
                ));
            }
        }
        for d in dependencies(&manifest.text) {
            let problem = if d.for_tests {
                continue;
            } else if unpublished.contains(&d.name.as_str()) {
                "is not published, so this crate can't be: publish it, or do without"
            } else if d.is_ours() {
                "has a path here: inherit it from the workspace, which names its version"
            } else {
                continue;
            };
            let text = format!("dependency {} {problem}", d.name);
            findings.push(Finding::new(manifest, d.number, text));
        }
    }
    findings
}

/// A manifest of a package without `publish = false`.
fn is_published(manifest: &Source) -> bool {
    let lines = || manifest.text.lines();
    lines().any(|line| line.trim() == "[package]")
        && value(&manifest.text, "publish") != Some("false")
}

/// The value of the first key with this name, without quotes.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let mut values = lines.filter_map(|line| line.split_once('='));
    let named = |name: &str| name.trim().trim_end_matches(".workspace") == key;
    let (_, value) = values.find(|(name, _)| named(name))?;
    Some(value.trim().trim_matches('"'))
}

mod tests {
    use super::*;

    fn count(texts: &[&str]) -> usize {
        let manifests: Vec<Source> = texts.iter().map(|t| Source::new("Cargo.toml", t)).collect();
        every_dependency_has_its_reason(&manifests).len()
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        assert_eq!(count(&["[dependencies]\n# Why.\na = \"1\"\n"]), 0);
        assert_eq!(count(&["[dependencies]\na = \"1\" # why\n"]), 0);
        assert_eq!(count(&["[dependencies]\na = \"1\"\n"]), 1);
        assert_eq!(
            count(&["[dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n"]),
            1
        );
        assert_eq!(count(&["[dev-dependencies]\n# Why.\n\na = \"1\"\n"]), 1);
        assert_eq!(
            count(&["[target.'cfg(x)'.dependencies]\na = { version = \"1\" }\n"]),
            1
        );
        assert_eq!(count(&["[dependencies.a]\nversion = \"1\"\n"]), 1);
        assert_eq!(count(&["# Why.\n[dependencies.a]\nversion = \"1\"\n"]), 0);
        assert_eq!(count(&["[package]\na = \"1\"\n"]), 0);
        assert_eq!(
            count(&["[dependencies]\na = { features = [\n  \"x = y\",\n] }\n"]),
            1
        );
    }

    #[test]
    fn the_workspace_may_give_the_reason() {
        let uses = "[dependencies]\na.workspace = true\n";
        let uses_more = "[dependencies]\na = { workspace = true, features = [\"x\"] }\n";
        let with = "[workspace.dependencies]\n# Why.\na = \"1\"\n";
        let without = "[workspace.dependencies]\na = \"1\"\n";
        assert_eq!(count(&[uses, with]), 0);
        assert_eq!(count(&[uses_more, with]), 0);
        assert_eq!(count(&[uses, without]), 2);
        let ours = "[workspace.dependencies]\na = { path = \"crates/a\" }\n";
        assert_eq!(count(&[uses, ours]), 0);
    }

    #[test]
    fn an_incomplete_published_crate_is_found() {
        let complete = "[package]\nname = \"a\"\ndescription = \"A\"\nlicense.workspace = true\nreadme = \"R\"\n\
                        keywords = []\ncategories = []\nrust-version.workspace = true\n\
                        [package.metadata.docs.rs]\nall-features = true\n";
        let unpublished = "[package]\nname = \"b\"\npublish = false\n";
        let count = |more: &str| {
            let manifests = [
                Source::new("crates/a/Cargo.toml", &format!("{complete}{more}")),
                Source::new("crates/b/Cargo.toml", unpublished),
            ];
            published_crates_are_complete(&manifests).len()
        };
        assert_eq!(count(""), 0);
        assert_eq!(count("[dependencies]\nb.workspace = true\n"), 1);
        assert_eq!(count("[dev-dependencies]\nb.workspace = true\n"), 0);
        assert_eq!(count("[dependencies]\nc = { path = \"../c\" }\n"), 1);
        assert_eq!(count("[dependencies]\nc.workspace = true\n"), 0);
        let bare = [Source::new(
            "crates/a/Cargo.toml",
            "[package]\nname = \"a\"\n",
        )];
        assert_eq!(published_crates_are_complete(&bare).len(), COMPLETE.len());
    }
}
