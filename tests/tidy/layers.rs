//! The layer table of semring, and the rules that hold it. docs/architecture.md has the same table: a rule
//! compares them.

use std::collections::BTreeSet;

use crate::Finding;
use crate::scan::{Source, crate_paths, is};

/// Where the layers are.
const SOURCES: &str = "crates/semring/src/";

/// A layer and what it may use besides itself and [`ANYBODY_MAY_USE`].
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
}

/// From the bottom to the top.
const LAYERS: [Layer; 12] = [
    Layer {
        name: "sync",
        uses: &[],
    },
    Layer {
        name: "os",
        uses: &[],
    },
    Layer {
        name: "memory",
        uses: &["os"],
    },
    Layer {
        name: "layout",
        uses: &["memory"],
    },
    // The errors contain positions and addresses, and name the limit that an error number stands for.
    Layer {
        name: "error",
        uses: &["layout", "memory", "os"],
    },
    Layer {
        name: "ring",
        uses: &["layout"],
    },
    Layer {
        name: "guard",
        uses: &["layout", "os"],
    },
    Layer {
        name: "lifecycle",
        uses: &["guard", "ring", "layout", "memory", "os"],
    },
    Layer {
        name: "channel",
        uses: &["lifecycle", "guard", "ring", "layout", "memory", "os"],
    },
    // Its names from the layers below the channel are public types.
    Layer {
        name: "duplex",
        uses: &["channel", "lifecycle", "guard", "layout", "memory"],
    },
    Layer {
        name: "process",
        uses: &["channel", "guard", "os"],
    },
    Layer {
        name: "tokio",
        uses: &["channel"],
    },
];

/// Atomics and fences, and the public errors. `sync` itself uses no other layer.
const ANYBODY_MAY_USE: [&str; 2] = ["sync", "error"];

/// System calls are made here only.
const SYSTEM_CALLS: &str = "os";

/// Memory orderings are chosen here only.
const ORDERINGS: [&str; 4] = ["sync", "ring", "guard", "lifecycle"];

/// Files and folders of semring that may contain `unsafe`.
const UNSAFE: [&str; 5] = [
    "os/",
    "memory/",
    "layout/view/",
    "channel/trust.rs",
    "tokio/readiness.rs",
];

/// The one function elsewhere whose caller vouches for something.
const UNSAFE_FUNCTION: &str = "trust_peers";

/// A crate without any `unsafe`, its tests included.
const SAFE_CRATE: &str = "crates/semring-cli/";

const TABLE: &str = "the table is in tests/tidy/layers.rs and docs/architecture.md";

/// Crates that a layer may use.
const CRATES: [&str; 2] = ["libc", "sysv-ipc"];

/// The rows of the table in docs/architecture.md agree with the constants here.
pub fn the_document_has_the_table(document: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = || document.text.lines().enumerate();
    let heading = |line: &str| line.starts_with("| layer ");
    let table = lines().skip_while(|(_, line)| !heading(line));
    let rows = table.take_while(|(_, line)| line.starts_with('|'));
    let rows: Vec<(usize, Vec<&str>)> = rows
        .map(|(at, line)| (at + 1, line.split('|').map(str::trim).collect()))
        .collect();
    for layer in &LAYERS {
        if ANYBODY_MAY_USE.contains(&layer.name) {
            continue;
        }
        let names = |row: &&(usize, Vec<&str>)| {
            row.1[1].split(' ').next() == Some(&format!("`{}`", layer.name))
        };
        let Some((line, row)) = rows.iter().find(names) else {
            let text = format!("layer {} has no row in the table", layer.name);
            findings.push(Finding::new(document, 1, text));
            continue;
        };
        let [_, _, _, uses, unsafe_files, system_calls, orderings, ..] = row[..] else {
            let text = "a row of the table has too few columns".to_owned();
            findings.push(Finding::new(document, *line, text));
            continue;
        };
        let mut find = |column: &str, said: &str, held: String| {
            let name = layer.name;
            let text = format!("{name}: {column}: the table has {said:?}, tests/tidy {held:?}");
            findings.push(Finding::new(document, *line, text));
        };
        let said: BTreeSet<&str> = uses
            .split(", ")
            .filter(|name| !name.is_empty())
            .filter(|name| !ANYBODY_MAY_USE.contains(name) && !CRATES.contains(name))
            .collect();
        if said != layer.uses.iter().copied().collect() {
            find("may use", uses, layer.uses.join(", "));
        }
        let held = unsafe_cell(layer.name);
        if unsafe_files != held {
            find("unsafe", unsafe_files, held);
        }
        let held = layer.name == SYSTEM_CALLS;
        if (system_calls == "only here") != held {
            find("system calls", system_calls, held.to_string());
        }
        let held = ORDERINGS.contains(&layer.name);
        if (orderings != "no") != held {
            find("orderings", orderings, held.to_string());
        }
    }
    findings
}

/// The files of a layer that may contain `unsafe`, as the document names them.
fn unsafe_cell(layer: &str) -> String {
    let below = |place: &'static str| place.strip_prefix(layer)?.strip_prefix('/');
    let files: Vec<&str> = UNSAFE.into_iter().filter_map(below).collect();
    match files[..] {
        [] => "no".to_owned(),
        [""] => "yes".to_owned(),
        _ => {
            let names: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
            names.join(", ")
        }
    }
}

/// A file of semring: the path below `src/`, and its module path. `lib.rs` is in no layer.
fn place(source: &Source) -> Option<(&str, Vec<String>)> {
    let below = source.path.strip_prefix(SOURCES)?;
    let module = below.strip_suffix(".rs")?;
    let module = module.strip_suffix("/mod").unwrap_or(module);
    if module == "lib" {
        return None;
    }
    Some((below, module.split('/').map(str::to_owned).collect()))
}

/// The files of semring that are built for tests or models only: those whose `mod` line has the condition, and
/// all below them.
fn test_modules(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let mut modules = BTreeSet::new();
    for source in sources {
        let Some(below) = source.path.strip_prefix(SOURCES) else {
            continue;
        };
        let module = place(source).map(|(_, module)| module).unwrap_or_default();
        if module.is_empty() && below != "lib.rs" {
            continue;
        }
        let tokens = source.tokens();
        for at in 0..tokens.len() {
            if tokens[at].for_tests && is(&tokens, at, &["mod"]) && is(&tokens, at + 2, &[";"]) {
                let mut child = module.clone();
                child.push(tokens[at + 1].text.clone());
                modules.insert(child);
            }
        }
    }
    modules
}

/// The files to which the layer rules apply: the files of semring that go into the library.
fn shipped(sources: &[Source]) -> impl Iterator<Item = (&Source, &str, Vec<String>)> {
    let for_tests = test_modules(sources);
    sources.iter().filter_map(move |source| {
        let (below, module) = place(source)?;
        let is_test = (1..=module.len()).any(|n| for_tests.contains(&module[..n]));
        (!is_test).then_some((source, below, module))
    })
}

fn is_layer(name: &str) -> bool {
    LAYERS.iter().any(|layer| layer.name == name)
}

/// `use crate::layer` and `crate::layer::…` only downwards.
pub fn nothing_points_up(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (source, _, module) in shipped(sources) {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == module[0]) else {
            findings.push(Finding::new(
                source,
                1,
                format!(
                    "module {:?} is in no layer: move it into one; {TABLE}",
                    module[0]
                ),
            ));
            continue;
        };
        for path in crate_paths(&source.tokens(), &module) {
            let Some(target) = path.segments.first() else {
                continue;
            };
            let allowed = target == layer.name
                || layer.uses.contains(&target.as_str())
                || (layer.name != "sync" && ANYBODY_MAY_USE.contains(&target.as_str()));
            // An exported macro can name only what the crate exports.
            let is_exported = path.of_macro && !is_layer(target);
            if path.for_tests || allowed || is_exported {
                continue;
            }
            let what = path.segments.join("::");
            findings.push(Finding::new(
                source,
                path.line,
                if is_layer(target) {
                    format!(
                        "layer {} names crate::{what}: it may use {:?} and {ANYBODY_MAY_USE:?} only; \
                         move the caller up or pass the result in; {TABLE}",
                        layer.name, layer.uses
                    )
                } else {
                    format!("crate::{what} hides its layer: name it through its layer")
                },
            ));
        }
    }
    findings
}

/// `libc`, `nix` and `sysv_ipc` only in `os`.
pub fn system_calls_have_one_place(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (source, _, module) in shipped(sources) {
        if module[0] == SYSTEM_CALLS {
            continue;
        }
        let tokens = source.tokens();
        for (at, token) in tokens.iter().enumerate() {
            let is_crate = ["libc", "nix", "sysv_ipc"].contains(&token.text.as_str());
            let is_path = is(&tokens, at + 1, &["::"]) || (at > 0 && tokens[at - 1].text == "use");
            let is_inner = at > 0 && tokens[at - 1].text == "::";
            if is_crate && is_path && !is_inner && !token.for_tests {
                findings.push(Finding::new(
                    source,
                    token.line,
                    format!(
                        "{} is named outside {SOURCES}os/: give os/ a thin safe function, type or \
                         constant for it and use that",
                        token.text
                    ),
                ));
            }
        }
    }
    findings
}

/// Memory orderings only where the algorithms are.
pub fn orderings_have_their_places(sources: &[Source]) -> Vec<Finding> {
    const WORDS: [&str; 5] = ["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];
    let mut findings = Vec::new();
    for (source, _, module) in shipped(sources) {
        if ORDERINGS.contains(&module[0].as_str()) {
            continue;
        }
        let tokens = source.tokens();
        for (at, token) in tokens.iter().enumerate() {
            let compares = at > 1 && is(&tokens, at - 2, &["cmp", "::"]);
            let is_ordering = token.text == "Ordering" && is(&tokens, at + 1, &["::"]) && !compares;
            if !token.for_tests && (is_ordering || WORDS.contains(&token.text.as_str())) {
                findings.push(Finding::new(
                    source,
                    token.line,
                    format!(
                        "{} chooses a memory ordering: only {ORDERINGS:?} do; give the owner of the \
                         atomic a method with a name (for a comparison write cmp::Ordering)",
                        token.text
                    ),
                ));
            }
        }
    }
    findings
}

/// `unsafe` only where the table has it.
pub fn unsafe_has_its_places(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        if source.path.starts_with(SAFE_CRATE) {
            for token in source.tokens() {
                if token.text == "unsafe" {
                    findings.push(Finding::new(
                        source,
                        token.line,
                        "the programs have no unsafe: let semring offer a safe function".to_owned(),
                    ));
                }
            }
        }
    }
    for (source, below, _) in shipped(sources) {
        if UNSAFE.iter().any(|place| below.starts_with(place)) {
            continue;
        }
        let tokens = source.tokens();
        let is_the_function = |at| is(&tokens, at, &["unsafe", "fn", UNSAFE_FUNCTION]);
        let functions = (0..tokens.len()).filter(|at| is_the_function(*at)).count();
        let mut allowances = 0;
        for (at, token) in tokens.iter().enumerate() {
            if token.for_tests {
                continue;
            }
            allowances += usize::from(is(&tokens, at, &["allow", "(", "unsafe_code"]));
            let is_allowance = is(&tokens, at, &["allow", "(", "unsafe_code"]);
            let is_unsafe = token.text == "unsafe" && !is_the_function(at);
            if is_unsafe || (is_allowance && allowances > functions) {
                findings.push(Finding::new(
                    source,
                    token.line,
                    format!(
                        "unsafe outside {UNSAFE:?} (and `unsafe fn {UNSAFE_FUNCTION}`): move the \
                         operation into one of them behind a safe function; {TABLE}"
                    ),
                ));
            }
        }
    }
    findings
}

mod tests {
    use super::*;

    fn semring(file: &str, text: &str) -> Source {
        Source::new(&format!("{SOURCES}{file}"), text)
    }

    /// How many findings a rule has in one file of semring.
    fn count(rule: fn(&[Source]) -> Vec<Finding>, file: &str, text: &str) -> usize {
        rule(&[semring(file, text)]).len()
    }

    #[test]
    fn a_path_upwards_is_found() {
        let up = |file, text| count(nothing_points_up, file, text);
        assert_eq!(
            up("ring/lane.rs", "use crate::layout::X; use crate::sync::Y;"),
            0
        );
        assert_eq!(up("ring/lane.rs", "use crate::os::clock;"), 1);
        assert_eq!(
            up("ring/lane.rs", "fn f() { super::super::guard::wake() }"),
            1
        );
        assert_eq!(up("os/mod.rs", "use crate::{error::E, memory::M};"), 1);
        assert_eq!(up("layout/mod.rs", "use crate::memory::M;"), 0);
        assert_eq!(up("layout/mod.rs", "use crate::os::M;"), 1);
        assert_eq!(up("memory/mod.rs", "pub(in crate::layout) fn f() {}"), 1);
        assert_eq!(up("guard/wait.rs", "use crate::lifecycle::L;"), 1);
        assert_eq!(up("sync.rs", "use crate::error::E;"), 1);
        assert_eq!(up("channel/ring.rs", "use crate::{os, ring::lane::X};"), 0);
        assert_eq!(up("channel/ring.rs", "use crate::Producer;"), 1);
        assert_eq!(up("helpers.rs", ""), 1, "a module without a layer");
        assert_eq!(up("lib.rs", "pub use channel::X;"), 0);
        assert_eq!(
            up(
                "ring/lane.rs",
                "// crate::os::clock\n#[cfg(test)] use crate::os::X;"
            ),
            0
        );
    }

    #[test]
    fn test_module_in_its_own_file_is_recognised() {
        let lane = "use crate::os::clock;";
        let tests = semring("ring/lane_tests/deep.rs", lane);
        let parent = |text| semring("ring/mod.rs", text);
        let declared = [parent("#[cfg(test)] mod lane_tests;"), tests];
        assert_eq!(nothing_points_up(&declared).len(), 0);
        let tests = semring("ring/lane_tests/deep.rs", lane);
        assert_eq!(
            nothing_points_up(&[parent("mod lane_tests;"), tests]).len(),
            1
        );
        let model = semring("model.rs", "");
        let root = semring("lib.rs", "#[cfg(all(test, semring_loom))] mod model;");
        assert_eq!(nothing_points_up(&[root, model]).len(), 0);
    }

    #[test]
    fn a_row_that_differs_is_found() {
        let rows = |replace: &str, by: &str| {
            let mut text =
                String::from("| layer | owns | may use | unsafe | calls | orderings |\n");
            for layer in &LAYERS {
                let yes = |is| if is { "yes" } else { "no" };
                text += &format!(
                    "| `{}` | bytes | {} | {} | {} | {} |\n",
                    layer.name,
                    layer.uses.join(", "),
                    unsafe_cell(layer.name),
                    ["no", "only here"][usize::from(layer.name == SYSTEM_CALLS)],
                    yes(ORDERINGS.contains(&layer.name)),
                );
            }
            let document = Source::new("docs/architecture.md", &text.replace(replace, by));
            the_document_has_the_table(&document).len()
        };
        let ring = "| `ring` | bytes | layout | no | no | yes |";
        assert_eq!(
            rows(ring, "| `ring` | bytes | layout, sync | no | no | words |"),
            0
        );
        assert_eq!(
            rows(ring, "| `ring` | bytes | layout, os | no | no | yes |"),
            1
        );
        assert_eq!(
            rows(ring, "| `ring` | bytes | layout | yes | no | yes |"),
            1
        );
        assert_eq!(
            rows(ring, "| `ring` | bytes | layout | no | only here | yes |"),
            1
        );
        assert_eq!(rows(ring, "| `ring` | bytes | layout | no | no | no |"), 1);
        assert_eq!(rows(ring, "| `ring` | bytes | layout |"), 1);
        assert_eq!(rows(ring, ""), 7, "the table ends at an empty line");
    }

    #[test]
    fn a_system_call_elsewhere_is_found() {
        let calls = |file, text| count(system_calls_have_one_place, file, text);
        assert_eq!(calls("os/file.rs", "libc::open(); use nix::fcntl;"), 0);
        assert_eq!(calls("memory/posix.rs", "libc::open()"), 1);
        assert_eq!(calls("guard/mod.rs", "use sysv_ipc::sem::SemSet;"), 1);
        assert_eq!(calls("guard/mod.rs", "use nix;"), 1);
        assert_eq!(
            calls("guard/mod.rs", "use std::os::unix::net; // libc::open"),
            0
        );
        assert_eq!(
            calls("guard/mod.rs", "#[cfg(test)] fn f() { libc::getpid() }"),
            0
        );
    }

    #[test]
    fn an_ordering_elsewhere_is_found() {
        let orderings = |file, text| count(orderings_have_their_places, file, text);
        assert_eq!(orderings("ring/lane.rs", "x.load(Ordering::Acquire)"), 0);
        assert_eq!(orderings("channel/ring.rs", "x.load(Ordering::Acquire)"), 2);
        assert_eq!(orderings("layout/view/real.rs", "x.load(Relaxed)"), 1);
        assert_eq!(
            orderings("channel/ring.rs", "/// Acquire\nfn release() {}"),
            0
        );
        assert_eq!(
            orderings("channel/ring.rs", "a == std::cmp::Ordering::Less"),
            0
        );
    }

    #[test]
    fn unsafe_elsewhere_is_found() {
        let unsafes = |file, text| count(unsafe_has_its_places, file, text);
        assert_eq!(
            unsafes("os/file.rs", "#![allow(unsafe_code)] unsafe { f() }"),
            0
        );
        assert_eq!(unsafes("layout/view/real.rs", "unsafe { f() }"), 0);
        assert_eq!(unsafes("layout/record.rs", "unsafe { f() }"), 1);
        assert_eq!(unsafes("guard/mod.rs", "#![allow(unsafe_code)]"), 1);
        assert_eq!(
            unsafes(
                "channel/builder.rs",
                "unsafe fn trust_peers() { unsafe { f() } }"
            ),
            1
        );
        let vouching = "#[allow(unsafe_code)] pub unsafe fn trust_peers() {}";
        assert_eq!(unsafes("channel/builder.rs", vouching), 0);
        let twice = format!("#![allow(unsafe_code)] {vouching}");
        assert_eq!(unsafes("channel/builder.rs", &twice), 1);
        assert_eq!(
            unsafes(
                "lib.rs",
                "#![deny(unsafe_code)] #![deny(unsafe_op_in_unsafe_fn)]"
            ),
            0
        );
        let cli = Source::new(
            "crates/semring-cli/tests/x.rs",
            "#[cfg(test)] unsafe { f() }",
        );
        assert_eq!(unsafe_has_its_places(&[cli]).len(), 1);
    }
}
