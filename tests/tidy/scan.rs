//! Reading Rust sources: code, comments, parts that are built for tests only, and the paths in the
//! code. A scanner of a page is enough for that; nothing here parses Rust.

use std::collections::BTreeSet;
use std::path::Path;

/// A source file. The three texts have the same lines.
pub struct Source {
    /// Its path from the root of the repository.
    pub path: String,
    /// All of it.
    pub text: String,
    /// The code: comments are blank, and so is what stands between quotes.
    pub code: String,
    /// The comments alone.
    pub comments: String,
}

/// A word or a sign of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// From 1.
    pub line: usize,
    /// Within an item that is built for tests or models only.
    pub for_tests: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, comments) = split(text);
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
        }
    }

    /// Every `.rs` file below these folders of `root`; missing folders have none.
    pub fn read_all(root: &Path, folders: &[&str]) -> Vec<Source> {
        let mut paths = BTreeSet::new();
        for folder in folders {
            collect(&root.join(folder), "rs", &mut paths);
        }
        let sources = paths.iter().map(|path| {
            let text = std::fs::read_to_string(path).expect("a source that can be read");
            Source::new(&relative(root, path), &text)
        });
        sources.collect()
    }

    pub fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (index, line) in self.code.lines().enumerate() {
            let mut rest = line.trim_start();
            while let Some(first) = rest.chars().next() {
                let length = if first.is_alphanumeric() || first == '_' {
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                        .unwrap_or(rest.len())
                } else if rest.starts_with("::") {
                    2
                } else {
                    first.len_utf8()
                };
                tokens.push(Token {
                    text: rest[..length].to_owned(),
                    line: index + 1,
                    for_tests: false,
                });
                rest = rest[length..].trim_start();
            }
        }
        mark_tests(&mut tokens);
        tokens
    }
}

/// The paths of all files with this extension below a folder, build folders and hidden ones left out.
pub fn collect(folder: &Path, extension: &str, paths: &mut BTreeSet<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder that can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extension, paths);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            paths.insert(path);
        }
    }
}

/// The path from the root, with slashes.
pub fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// Code and comments of a text, each with blanks in place of the other.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let mut code: Vec<char> = chars.iter().map(|c| blank(*c)).collect();
    let mut comments = code.clone();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let end = at
            + if rest.starts_with(&['/', '/']) {
                rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
            } else if rest.starts_with(&['/', '*']) {
                block_comment(rest)
            } else {
                0
            };
        if end > at {
            comments[at..end].copy_from_slice(&chars[at..end]);
            at = end;
            continue;
        }
        let in_word = at > 0 && is_word(chars[at - 1]);
        let length = literal(rest, in_word);
        if length > 0 {
            // The quotes stay, so that something is seen to be there.
            code[at] = '"';
            code[at + length - 1] = '"';
            at += length;
        } else {
            code[at] = chars[at];
            at += 1;
        }
    }
    (code.into_iter().collect(), comments.into_iter().collect())
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the block comment at the beginning; they nest.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the string, byte string or character at the beginning; 0 if there is none.
fn literal(rest: &[char], in_word: bool) -> usize {
    let prefix = rest.iter().take_while(|c| "bcr".contains(**c)).count();
    if in_word || prefix > 2 {
        return 0;
    }
    let raw = rest[..prefix].contains(&'r');
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    match rest.get(open) {
        Some('"') if raw => {
            let close: Vec<char> = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            let body = &rest[open + 1..];
            let end = body.windows(close.len()).position(|w| w == close);
            end.map_or(rest.len(), |end| open + 1 + end + close.len())
        }
        Some('"') if hashes == 0 => quoted(rest, open, '"'),
        Some('\'') if hashes == 0 && !raw => match (rest.get(open + 1), rest.get(open + 2)) {
            (Some('\\'), _) | (_, Some('\'')) => quoted(rest, open, '\''),
            _ => 0, // a lifetime
        },
        _ => 0,
    }
}

fn quoted(rest: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Marks every item after a `#[cfg(…)]` that requires `test` or `semring_loom`.
fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if is(tokens, at, &["#", "[", "cfg", "("]) {
            let end = matching(tokens, at + 1);
            if asks_for_tests(&tokens[at..end]) {
                let item_end = end + item_length(&tokens[end..]);
                for token in &mut tokens[at..item_end] {
                    token.for_tests = true;
                }
                at = item_end;
                continue;
            }
        } else if is(tokens, at, &["#", "!", "[", "cfg", "("]) {
            let end = matching(tokens, at + 2);
            if asks_for_tests(&tokens[at..end]) {
                // The whole file.
                for token in tokens.iter_mut() {
                    token.for_tests = true;
                }
                return;
            }
        }
        at += 1;
    }
}

/// Whether the tokens at this place are these.
pub fn is(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    tokens.len() >= at + texts.len() && (texts.iter().zip(&tokens[at..])).all(|(a, b)| *a == b.text)
}

/// One past the bracket that closes the one at `open`.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn asks_for_tests(attribute: &[Token]) -> bool {
    let mut at = 0;
    while at < attribute.len() {
        match attribute[at].text.as_str() {
            "not" => at = matching(attribute, at + 1),
            "test" | "semring_loom" => return true,
            _ => at += 1,
        }
    }
    false
}

/// How many tokens belong to the item, variant, arm or statement at the beginning.
fn item_length(tokens: &[Token]) -> usize {
    let mut at = 0;
    // Further attributes.
    while is(tokens, at, &["#", "["]) {
        at = matching(tokens, at + 1);
    }
    const ITEMS: [&str; 14] = [
        "pub", "fn", "mod", "impl", "struct", "enum", "trait", "use", "const", "static", "unsafe",
        "type", "async", "extern",
    ];
    let Some(first) = tokens.get(at) else {
        return at;
    };
    let comma_ends = !ITEMS.contains(&first.text.as_str());
    let is_use = is(tokens, at, &["use"]) || is(tokens, at + 1, &["use"]);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "," if comma_ends => return at + 1,
            "{" if !is_use => return matching(tokens, at),
            "(" | "[" | "{" => at = matching(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// A path that begins with `crate`, `self` or `super`, written out from the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub struct CratePath {
    pub segments: Vec<String>,
    pub line: usize,
    pub for_tests: bool,
    /// `$crate`: what a macro names for its users.
    pub of_macro: bool,
}

/// All such paths of a file, groups in `use` taken apart. `module` is the file's own module.
pub fn crate_paths(tokens: &[Token], module: &[String]) -> Vec<CratePath> {
    let mut paths = Vec::new();
    // The modules around, and the brace depth at which each of them closes.
    let mut around: Vec<String> = module.to_vec();
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "mod" if is(tokens, at + 2, &["{"]) => {
                around.push(tokens[at + 1].text.clone());
                inline.push(depth);
                depth += 1;
                at += 3;
            }
            "{" => {
                depth += 1;
                at += 1;
            }
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    around.pop();
                }
                at += 1;
            }
            "crate" | "self" | "super"
                if is(tokens, at + 1, &["::"]) && (at == 0 || tokens[at - 1].text != "::") =>
            {
                at = path(tokens, at, &Vec::new(), &around, &mut paths);
            }
            _ => at += 1,
        }
    }
    paths
}

/// Takes the path (or the tree of a `use`) at `at`, below `prefix`; gives where it ends.
fn path(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    around: &[String],
    found: &mut Vec<CratePath>,
) -> usize {
    let mut segments = prefix.to_vec();
    let begin = at;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at].text != "}" {
                    if tokens[at].text == "," {
                        at += 1;
                    } else {
                        at = path(tokens, at, &segments, around, found);
                    }
                }
                return at + 1;
            }
            // Only the first one means the crate; within a group `self` means what stands before it.
            "crate" if at == begin && prefix.is_empty() => segments.clear(),
            "self" if at == begin && prefix.is_empty() => segments = around.to_vec(),
            "self" => {}
            "super" => {
                if at == begin && prefix.is_empty() {
                    segments = around.to_vec();
                }
                segments.pop();
            }
            text => segments.push(text.to_owned()),
        }
        at += 1;
        if is(tokens, at, &["as"]) {
            at += 2;
        }
        if !is(tokens, at, &["::"]) {
            break;
        }
        at += 1;
    }
    let place = &tokens[begin];
    found.push(CratePath {
        segments,
        line: place.line,
        for_tests: place.for_tests,
        of_macro: begin > 0 && tokens[begin - 1].text == "$",
    });
    at.max(begin + 1)
}

mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("x.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(code("/// b\nc"), "     \nc");
        assert_eq!(code(r#"f("b // \" c", d)"#), r#"f("         ", d)"#);
        assert_eq!(code("f(\"a\nb\") c"), "f(\" \n \") c");
        assert_eq!(code("r#\"a \" b\"# c"), "\"        \" c");
        assert_eq!(code("br\"a\\\" c"), "\"    \" c");
        assert_eq!(code("('\"', b'\\'', 'x')"), "(\" \", \"   \", \" \")");
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(code("r#type + bar"), "r#type + bar");
        assert_eq!(code("'\\u{1F}' x"), "\"      \" x");
    }

    #[test]
    fn comments_are_kept_by_themselves() {
        let source = Source::new("x.rs", "a // b\n\"// c\" /* d\n e */ f");
        assert_eq!(source.comments, "  // b\n       /* d\n e */  ");
        assert_eq!(source.comments.lines().count(), source.text.lines().count());
    }

    fn for_tests(text: &str) -> Vec<String> {
        let tokens = Source::new("x.rs", text).tokens();
        let words = tokens
            .into_iter()
            .filter(|t| t.for_tests && t.text.len() > 3);
        words
            .map(|token| token.text)
            .filter(|t| t != "test")
            .collect()
    }

    #[test]
    fn what_is_built_for_tests_only_is_known() {
        let text = "#[cfg(test)] mod inner { fn body() { { } } } fn after() {}";
        assert_eq!(for_tests(text), ["inner", "body"]);
        let text = "#[cfg(all(test, not(semring_loom)))] #[allow(x)] use some::{thing, other}; fn after() {}";
        assert!(for_tests(text).ends_with(&["other".to_owned()]));
        assert!(for_tests("#[cfg(not(test))] mod inner {}").is_empty());
        assert!(for_tests("#[cfg(all(unix, not(semring_loom)))] mod inner {}").is_empty());
        assert_eq!(
            for_tests("enum E { #[cfg(test)] Heap(Type), Other }"),
            ["Heap", "Type"]
        );
        let text = "match m { #[cfg(test)] Heap(x) => { body } Other => {} }";
        assert_eq!(for_tests(text), ["Heap", "body"]);
        assert_eq!(
            for_tests("#[cfg(test)] fn long<A, B>() { body } after"),
            ["long", "body"]
        );
        assert!(for_tests("#![cfg(test)] fn whole() {}").contains(&"whole".to_owned()));
    }

    fn paths(text: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|m| (*m).to_owned()).collect();
        let tokens = Source::new("x.rs", text).tokens();
        let paths = crate_paths(&tokens, &module);
        paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn paths_are_written_out_from_the_root() {
        assert_eq!(paths("use crate::os::clock;", &["a"]), ["os::clock"]);
        assert_eq!(
            paths("use crate::{os::{self, clock as c}, ring}; x", &["a"]),
            ["os", "os::clock", "ring"]
        );
        assert_eq!(paths("let x = crate::os::now();", &["a"]), ["os::now"]);
        assert_eq!(paths("use super::super::os;", &["a", "b"]), ["os"]);
        assert_eq!(
            paths("use super::{x, super::os};", &["a", "b"]),
            ["a::x", "os"]
        );
        assert_eq!(paths("self::x()", &["a", "b"]), ["a::b::x"]);
        assert_eq!(
            paths("mod inner { use super::super::os; } use super::y;", &["a"]),
            ["os", "y"]
        );
        assert_eq!(
            paths("fn f(self) { self.x; foo::crate_x }", &["a"]),
            [""; 0]
        );
        assert_eq!(
            paths("Self { layout: super::Layout { a: 1 } }", &["a", "b"]),
            ["a::Layout"]
        );
    }
}
