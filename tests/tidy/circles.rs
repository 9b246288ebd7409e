//! Imports of `semring-bench` have one direction: its modules have an order, and no two of its files import each
//! other, directly or through others. crates/semring-bench/src/lib.rs has the order in words.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::scan::{Source, crate_paths, is};

const SOURCES: &str = "crates/semring-bench/src/";

/// The modules from the top. Each may name itself and those after it.
const ORDER: [&str; 13] = [
    "report", "plan", "results", "runner", "ways", "work", "link", "payload", "workload",
    "machine", "units", "cleanup", "error",
];

/// An import, or the declaration of a module in a file of its own.
struct Import {
    target: Vec<String>,
    line: usize,
}

/// The files of the crate by their module paths. `lib.rs` names everything and is left out.
fn modules(sources: &[Source]) -> BTreeMap<Vec<String>, &Source> {
    let module = |source: &Source| {
        let path = source.path.strip_prefix(SOURCES)?.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path);
        (path != "lib").then(|| path.split('/').map(str::to_owned).collect())
    };
    let files = sources
        .iter()
        .filter_map(|source| Some((module(source)?, source)));
    files.collect()
}

/// Every module names only itself and modules after it in the order.
pub fn modules_have_an_order(sources: &[Source]) -> Vec<Finding> {
    let place = |name: &str| ORDER.iter().position(|other| *other == name);
    let mut findings = Vec::new();
    for (module, source) in modules(sources) {
        let Some(own) = place(&module[0]) else {
            let text = format!(
                "module {} has no place in the order of tests/tidy/circles.rs",
                module[0]
            );
            findings.push(Finding::new(source, 1, text));
            continue;
        };
        for path in crate_paths(&source.tokens(), &module) {
            let Some(name) = path.segments.first() else {
                continue;
            };
            let problem = match place(name) {
                _ if path.for_tests => continue,
                Some(target) if target >= own => continue,
                Some(_) => format!(
                    "is above {}: pass what is needed in, or move it down",
                    module[0]
                ),
                None => "hides its module: name it through its module".to_owned(),
            };
            let text = format!("crate::{} {problem}", path.segments.join("::"));
            findings.push(Finding::new(source, path.line, text));
        }
    }
    findings
}

/// No file imports itself through others. Declaring a module counts as an import.
pub fn files_have_no_circles(sources: &[Source]) -> Vec<Finding> {
    let modules = modules(sources);
    let imports: BTreeMap<_, _> = modules
        .iter()
        .map(|(module, source)| (module, imports(module, source, &modules)))
        .collect();
    let mut findings = Vec::new();
    for (module, source) in &modules {
        for import in &imports[module] {
            // The files that the target reaches.
            let mut reached = BTreeSet::from([&import.target]);
            let mut next = vec![&import.target];
            while let Some(target) = next.pop() {
                let more = imports[target].iter().map(|import| &import.target);
                next.extend(more.filter(|target| reached.insert(target)));
            }
            if reached.contains(module) {
                let text = format!(
                    "imports {}, which imports this file, perhaps through others: move what both need into a \
                     file of its own",
                    import.target.join("::")
                );
                findings.push(Finding::new(source, import.line, text));
            }
        }
    }
    findings
}

fn imports(
    module: &[String],
    source: &Source,
    modules: &BTreeMap<Vec<String>, &Source>,
) -> Vec<Import> {
    let tokens = source.tokens();
    let mut imports = Vec::new();
    for path in crate_paths(&tokens, module) {
        // The file is the longest beginning of the path that is one.
        let lengths = (1..=path.segments.len()).rev();
        let mut beginnings = lengths.map(|length| &path.segments[..length]);
        if let Some(file) = beginnings.find(|path| modules.contains_key(*path))
            && file != module
            && !path.for_tests
        {
            imports.push(Import {
                target: file.to_vec(),
                line: path.line,
            });
        }
    }
    for at in 0..tokens.len() {
        if is(&tokens, at, &["mod"]) && is(&tokens, at + 2, &[";"]) && !tokens[at].for_tests {
            let mut target = module.to_vec();
            target.push(tokens[at + 1].text.clone());
            if modules.contains_key(&target) {
                imports.push(Import {
                    target,
                    line: tokens[at].line,
                });
            }
        }
    }
    imports
}

mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source::new(&format!("{SOURCES}{path}"), text)
    }

    #[test]
    fn an_import_from_above_is_found() {
        let count = |path, text| modules_have_an_order(&[file(path, text)]).len();
        assert_eq!(
            count(
                "plan.rs",
                "use crate::runner::rate; use crate::results::Row;"
            ),
            0
        );
        assert_eq!(
            count(
                "ways/pipe.rs",
                "use super::way::Way; use crate::error::Result;"
            ),
            0
        );
        assert_eq!(count("ways/pipe.rs", "use crate::plan::Workload;"), 1);
        assert_eq!(
            count("work/mod.rs", "use crate::{ways::Way, link::Link};"),
            1
        );
        assert_eq!(
            count("link.rs", "use crate::Result;"),
            1,
            "from the crate's root"
        );
        assert_eq!(
            count(
                "link.rs",
                "#[cfg(test)] mod tests { use crate::ways::Way; }"
            ),
            0
        );
        assert_eq!(count("helpers.rs", ""), 1, "a module without a place");
        assert_eq!(count("lib.rs", "pub use crate::plan::run;"), 0);
    }

    #[test]
    fn a_circle_is_found() {
        let parent = "mod pipe; mod way; pub use way::Way;";
        let ways = |pipe| {
            let files = [
                file("ways/mod.rs", parent),
                file("ways/way.rs", "use crate::work::Task;"),
                file("ways/pipe.rs", pipe),
                file("work.rs", ""),
            ];
            files_have_no_circles(&files).len()
        };
        assert_eq!(ways("use super::way::Way; use self::Inner;"), 0);
        assert_eq!(ways("use super::Way;"), 2, "a child and its parent");
        let through = [
            file("plan.rs", "use crate::runner::run;"),
            file("runner.rs", "use crate::ways::open;"),
            file("ways.rs", "fn f() { crate::plan::WAKE_UPS }"),
            file("report.rs", "use crate::plan::Report;"),
        ];
        assert_eq!(files_have_no_circles(&through).len(), 3);
    }
}
