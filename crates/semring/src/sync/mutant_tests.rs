//! Every mutant is detected: by its test, in a process of its own, and with the expected output.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::mutant::{Build, Mutant, Row, TABLE, VARIABLE};
use crate::os::barrier;

const HERE: Build = if cfg!(semring_loom) {
    Build::Models
} else {
    Build::Tests
};

/// A test that takes longer is hanging: a hundred times what the slowest of them needs.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks at a child.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Ends the child if it hangs. True if it did.
fn hangs(child: &mut Child) -> bool {
    let end = Instant::now() + HANG_TIMEOUT;
    while child.try_wait().expect("our own child").is_none() {
        if Instant::now() > end {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            return true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    false
}

/// The fault of a row, if there is one: the test passes all the same, or fails in another way.
fn run(row: &Row) -> Result<(), String> {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args([row.test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, format!("{:?}", row.mutant))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    // Read by another thread: a child that prints much must not wait for us.
    let mut errors = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let hung = hangs(&mut child);
    let status = child.wait().expect("our own child");
    let text = reader.join().expect("a reader");
    let Row { mutant, test, .. } = row;
    if hung {
        Err(format!("{mutant:?}: {test} hangs and prints nothing"))
    } else if status.success() {
        Err(format!("{mutant:?} is not caught by {test}"))
    } else if !text.contains(row.printed) {
        Err(format!(
            "{mutant:?}: {test} fails, but not with {:?}:\n{text}",
            row.printed
        ))
    } else {
        Ok(())
    }
}

/// Their tests are left out where the barrier is refused.
const NEED_BARRIER: [Mutant; 5] = [
    Mutant::EntryTrustsProgress,
    Mutant::AnyConsumerMakesBarriers,
    Mutant::PolledCertain,
    Mutant::UncertainSleepsLong,
    Mutant::BarrierStaysPromised,
];

/// `SEMRING_MUTANT` belongs to the children.
fn all_are_caught() {
    let needs_none = HERE == Build::Models;
    let has_barrier = needs_none || barrier::is_available() && barrier::everywhere().is_ok();
    if !has_barrier {
        semring_testkit::left_out::note(format_args!("{NEED_BARRIER:?}: membarrier is refused"));
    }
    let can_run = |row: &&Row| has_barrier || !NEED_BARRIER.contains(&row.mutant);
    let here = TABLE.iter().filter(|row| row.build == HERE);
    let rows: Vec<&Row> = here.filter(can_run).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            let result = run(row);
            println!("{:8} ms  {:?}", began.elapsed().as_millis(), row.mutant);
            found.extend(result.err());
        }
        found
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let found = workers.into_iter().map(|worker| worker.join().unwrap());
        found.flatten().collect()
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
    println!("{} mutants", rows.len());
}

#[cfg(not(semring_loom))]
#[test]
fn every_mutant_of_the_tests_is_caught() {
    all_are_caught();
}

#[cfg(semring_loom)]
#[test]
fn every_mutant_of_the_models_is_caught() {
    all_are_caught();
}

#[cfg(not(semring_loom))]
mod document {
    use super::*;

    const BEGIN: &str = "<!-- The table of mutants. `SEMRING_WRITE_TABLE=1 cargo test -p semring --lib mutant` writes it. -->\n";
    const END: &str = "<!-- The end of the table of mutants. -->\n";

    fn table() -> String {
        let mut text = "\n| left out | caught by |\n|---|---|\n".to_owned();
        for row in TABLE {
            let test = row.test.replace("::", " :: ");
            let (module, test) = test.rsplit_once(" :: ").expect("a module");
            let module = module.replace(" :: ", "::");
            let line = format!("| {} | `{module}`: `{test}` |\n", row.what);
            text.push_str(&line);
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_document_has_the_table_of_mutants() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reliability.md");
        let document = std::fs::read_to_string(path).expect("the document");
        let (before, rest) = document.split_once(BEGIN).expect("the beginning");
        let (said, after) = rest.split_once(END).expect("the end");
        if std::env::var_os("SEMRING_WRITE_TABLE").is_some() {
            let written = format!("{before}{BEGIN}{}{END}{after}", table());
            std::fs::write(path, written).expect("the document can be written");
        } else {
            assert_eq!(said, table(), "docs/reliability.md");
        }
    }

    #[test]
    fn each_precaution_is_described_once() {
        for row in TABLE {
            let same = TABLE.iter().filter(|other| other.what == row.what);
            assert_eq!(same.count(), 1, "{}", row.what);
        }
    }
}
