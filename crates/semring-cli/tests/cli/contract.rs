//! docs/cli.md describes the programs: its tables are compared with their help and their output.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{CONSUMER, Call, DONE, Output, PRODUCER, Ring, SEMRING, seq};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    std::fs::read_to_string(path).expect("docs/cli.md")
}

/// The rows of the table whose heading begins with these words, each the text of its first two cells.
fn table(section: &str, heading: &str) -> Vec<[String; 2]> {
    let text = document();
    let section = text
        .split("\n## ")
        .find(|part| part.lines().next() == Some(section))
        .unwrap_or_else(|| panic!("docs/cli.md has no section {section}"));
    let cells = |line: &str| {
        let mut cells = line
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned());
        [(); 2].map(|()| {
            cells
                .next()
                .unwrap_or_default()
                .trim_end_matches('|')
                .trim()
                .to_owned()
        })
    };
    let mut lines = section
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {heading}")));
    assert!(lines.next().is_some(), "{section} has no table {heading}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn first_cells(rows: Vec<[String; 2]>) -> Vec<String> {
    rows.iter().flat_map(|[first, _]| quoted(first)).collect()
}

fn help(command: &str) -> String {
    let call = Call::new(SEMRING, None).args(&["help", command]);
    call.run().quietly(DONE).text()
}

/// The options of a help text: `-0, --null`, `--capacity SIZE`.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start);
    let (_, rest) = help.split_once("\nOptions:\n").unwrap_or_default();
    let rest = rest.split("\n\nExit status:").next().unwrap_or_default();
    drop(lines);
    let lines = rest
        .lines()
        .filter(|line| line.len() - line.trim_start().len() <= 6);
    lines
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .map(|line| line.replace(['<', '>'], ""))
        .map(|line| line.split("  ").next().unwrap_or_default().to_owned())
        .collect()
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[test]
fn options_of_the_document_are_those_of_the_programs() {
    for program in ["semring-producer", "semring-consumer"] {
        let documented = first_cells(table(program, "option"));
        assert_eq!(
            sorted(documented),
            sorted(options(&help(program))),
            "{program}"
        );
    }
    let text = help("semring");
    let (_, commands) = text.split_once("\nCommands:\n").expect("commands");
    let commands: Vec<String> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|word| help_exists(word))
        .collect();
    let documented = first_cells(table("semring", "command | what"));
    assert_eq!(sorted(documented), sorted(commands.clone()));
    let rows = table("semring", "command | options");
    let documented: BTreeMap<String, Vec<String>> = rows
        .iter()
        .map(|[command, options]| (quoted(command).concat(), sorted(quoted(options))))
        .collect();
    for command in commands.iter().filter(|command| *command != "bench") {
        let mut options = options(&help(command));
        options.retain(|option| option != "-h, --help");
        assert_eq!(documented.get(command), Some(&sorted(options)), "{command}");
    }
    assert_eq!(documented.len(), commands.len() - 1);
}

/// A word at the beginning of a line of the list: not one of a line that goes on.
fn help_exists(word: &str) -> bool {
    Call::new(SEMRING, None).args(&["help", word]).run().exit == DONE
}

#[test]
fn exit_codes_of_the_document_are_those_of_the_programs() {
    let documented = table("Exit codes", "code");
    for program in [PRODUCER, CONSUMER, SEMRING] {
        let text = Call::new(program, None)
            .args(&["--help"])
            .run()
            .quietly(DONE)
            .text();
        let (_, codes) = text.split_once("Exit status:\n").expect("exit codes");
        let codes: Vec<[String; 2]> = codes
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.trim_start().split_once("  "))
            .map(|(code, meaning)| [code.to_owned(), meaning.trim_start().to_owned()])
            .collect();
        assert_eq!(codes, documented, "{program}");
    }
}

/// In the order in which they stand in the object.
fn fields(object: &Value) -> Vec<String> {
    object
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect()
}

/// All documented fields are there, no others, in any order.
#[track_caller]
fn assert_documented(object: &Value, heading: &str, further: &[&str]) {
    let mut documented = first_cells(table("JSON", heading));
    documented.retain(|field| !["ls", "info", "top", "--json"].contains(&&field[..]));
    documented.extend(further.iter().map(|field| (*field).to_owned()));
    assert_eq!(sorted(fields(object)), sorted(documented), "{heading}");
}

fn last_object(output: &Output) -> Value {
    let line = output.stderr.lines().last().expect("an object");
    crate::support::one_object(line)
}

#[test]
fn json_fields_of_the_document_are_those_of_the_programs() {
    let ring = Ring::posix("contract");
    ring.semring("create", &[]).run().quietly(DONE);
    let producer = ring.producer(&["--json"]).input(seq(1)).run().ended(DONE);
    let mut moved = first_cells(table("JSON", "field of `--json`"));
    moved.retain(|field| !field.ends_with("_producers"));
    assert_eq!(sorted(fields(&last_object(&producer))), sorted(moved));
    let info = ring.info();
    assert_documented(&info, "field of `ls`", &["each_lane"]);
    assert_documented(&info["each_lane"][0], "field of a lane", &[]);
    let list = Call::new(SEMRING, None)
        .args(&["ls", "--json"])
        .run()
        .quietly(DONE)
        .text();
    let ours = list
        .lines()
        .find(|line| line.contains(ring.name()))
        .expect("our ring");
    assert_documented(&crate::support::one_object(ours), "field of `ls`", &[]);
    let top = ["top", "--json", "-n", "1", "-i", "10ms"];
    let top = Call::new(SEMRING, None)
        .args(&top)
        .run()
        .quietly(DONE)
        .text();
    let ours = top
        .lines()
        .find(|line| line.contains(ring.name()))
        .expect("our ring");
    let ours = crate::support::one_object(ours);
    let rates = ["sent_per_second", "received_per_second"];
    let further = [&rates[..], &["time", "consumer_sleeps", "each_lane"]].concat();
    assert_documented(&ours, "field of `ls`", &further);
    assert_documented(&ours["each_lane"][0], "field of a lane", &rates);
    let consumer = ring.consumer(&["--json"]).run().ended(DONE);
    assert_documented(&last_object(&consumer), "field of `--json`", &[]);
    ring.semring("rm", &[]).run().quietly(DONE);
}
