//! What a new user types first: the commands of README's shell example, line by line, and pipelines around them.

use std::path::Path;

use crate::support::alone::{alone, test_name};
use crate::support::{Call, DONE, Output, SEMRING, Scratch};

/// The commands of the example "In the shell", without comments.
fn example() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("README.md")).expect("README.md");
    let (_, rest) = text.split_once("## In the shell").expect("the chapter");
    let block = rest.split("```").nth(1).expect("an example");
    let lines = block.lines().skip(1);
    let lines = lines.map(|line| line.split(" #").next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A script with the programs in its path, in a directory of its own. Errors end it.
fn script(text: &str) -> Output {
    let scratch = Scratch::new();
    let programs = Path::new(SEMRING).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let call = Call::new("bash", None).args(&["-c", &format!("set -eu -o pipefail; {text}")]);
    call.with(|command| {
        command
            .current_dir(scratch.directory())
            .env("PATH", format!("{}:{path}", programs.display()));
    })
    .run()
}

#[test]
fn example_of_the_readme_runs() {
    alone(test_name!(example_of_the_readme_runs), || {
        // What is done with each line; another one in README.md is to be added here.
        let uses = [
            ("cargo install --path crates/semring-cli", ""),
            ("seq 1 1000000 | semring-producer numbers &", "%"),
            (
                "semring-consumer numbers | sha256sum",
                "% > sum; seq 1 1000000 | sha256sum | cmp - sum",
            ),
            (
                "tail -F access.log | semring-producer --wait-for-consumer log",
                "echo first > access.log; set -m; (%) 2>said & tail=$!; set +m
                 semring-consumer --count 1 log; echo second >> access.log; semring-consumer --count 1 log",
            ),
            ("semring ls", "% | grep posix:log"),
            ("semring info log", "% | grep '2 messages$'; kill -- -$tail; wait $tail || true"),
            ("semring rm log", "%"),
            ("semring top", "% --json -n 1"),
            ("semring prune", "%"),
            ("semring doctor", "% > doctor || test $? = 1; grep -q semaphores doctor"),
            (
                "semring bench --report bench.html",
                "% --trial --workload round-trip --peer pipe >/dev/null; grep -q '<title>semring bench' bench.html",
            ),
        ];
        let example = example();
        let lines: Vec<&str> = uses.iter().map(|(line, _)| *line).collect();
        assert_eq!(example, lines);
        let text: Vec<String> = uses
            .iter()
            .map(|(line, how)| how.replace('%', line))
            .collect();
        let output = script(&text.join("\n"));
        let shown = format!("{}\n{}", output.text(), output.stderr);
        assert!(output.exit == DONE, "{}: {shown}", output.exit);
        assert!(output.text().starts_with("first\nsecond\n"), "{shown}");
    });
}

#[test]
fn producers_of_xargs_are_one_stream() {
    alone(test_name!(producers_of_xargs_are_one_stream), || {
        for guard in ["semaphore", "pipe"] {
            let output = script(&format!(
                "export SEMRING_GUARD={guard}
                 semring-consumer -q --linger 2 group | sort -n > got & consumer=$!
                 seq 40 | xargs -P8 -I{{}} sh -c 'seq {{}}000 {{}}999 | semring-producer -q group'
                 wait $consumer
                 seq 1000 40999 | cmp - got; semring ls --noheadings"
            ));
            output.quietly(DONE).wrote("");
        }
    });
}

#[test]
fn archive_passes_through_a_pipeline() {
    alone(test_name!(archive_passes_through_a_pipeline), || {
        let output = script(
            "mkdir from to; seq 100000 > from/a; head -c 3000000 /dev/urandom > from/b
             tar c from | semring-producer -q --raw --capacity 4M backup & producer=$!
             semring-consumer -q --raw backup | tar x -C to
             wait $producer; diff -r from to/from; semring ls --noheadings",
        );
        output.quietly(DONE).wrote("");
    });
}

#[test]
fn tail_goes_on_over_a_restart_of_its_consumer() {
    alone(
        test_name!(tail_goes_on_over_a_restart_of_its_consumer),
        || {
            for guard in ["semaphore", "pipe"] {
                let output = script(&format!(
                    "export SEMRING_GUARD={guard}
                 seq 1 1000 > log; mkfifo lines; tail -n +1 -F log > lines 2>/dev/null & tail=$!
                 semring-producer -q --wait-for-consumer log < lines & producer=$!
                 semring-consumer -q log > got & consumer=$!
                 until test $(wc -l < got) = 1000; do sleep 0.01; done
                 kill -9 $consumer; wait $consumer || test $? = 137
                 seq 1001 2000 >> log
                 semring-consumer -q log >> got & consumer=$!
                 until grep -q ^2000 got; do sleep 0.01; done
                 kill $tail; wait $tail || true
                 wait $producer; wait $consumer
                 seq 2000 | cmp - <(sort -nu got); semring ls --noheadings"
                ));
                // bash prints that the consumer was killed.
                output.ended(DONE).wrote("");
            }
        },
    );
}
