//! Starts programs with rings in place of stdin and stdout, as `popen` does with pipes.
//!
//! ```sh
//! cargo run --example coprocess                   # a worker that uses rings: this program
//! seq 1 20 | cargo run --example coprocess sort -r  # any filter, between semring-consumer and semring-producer
//! ```
//! The second form needs the programs of `crates/semring-cli` in the PATH.

use std::error::Error;
use std::io::BufRead;
use std::process::Command;

use semring::RecvError;
use semring::process::{self, Child};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--worker") => work(),
        Some(_) => filter(&arguments),
        None => delegate(),
    }
}

/// The child: counts the words of each message.
fn work() -> Result<(), Box<dyn Error>> {
    let (mut input, mut output) = (process::stdin()?, process::stdout()?);
    loop {
        let text = match input.recv() {
            Ok(message) => String::from_utf8_lossy(&message.to_vec()).into_owned(),
            // The parent sends nothing more, or is dead.
            Err(RecvError::EndOfStream { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let count = text.split_whitespace().count();
        output.send(&count.to_le_bytes())?;
    }
}

fn delegate() -> Result<(), Box<dyn Error>> {
    let mut worker = Command::new(std::env::current_exe()?);
    worker.arg("--worker");
    let mut child = process::spawn(worker)?;
    let (input, output) = (&mut child.stdin, &mut child.stdout);
    let (input, output) = (
        input.as_mut().expect("a ring"),
        output.as_mut().expect("a ring"),
    );
    for text in ["a coprocess", "answers in its own time", "and"] {
        input.send(text.as_bytes())?;
        let mut count = [0; 8];
        output.recv()?.copy_to(&mut count);
        println!("{text:?} has {} words", usize::from_le_bytes(count));
    }
    // Closes its input first, which is what ends it.
    println!("the worker ended with {}", child.wait()?);
    Ok(())
}

/// Sends stdin through a program, a line a message.
fn filter(program: &[String]) -> Result<(), Box<dyn Error>> {
    let mut shell = Command::new("sh");
    let pipeline =
        r#"semring-consumer "$SEMRING_STDIN" | "$@" | semring-producer "$SEMRING_STDOUT""#;
    shell.args(["-c", pipeline, "sh"]).args(program);
    let mut child: Child = process::spawn(shell)?;
    let mut input = child.stdin.take().expect("a ring");
    let mut output = child.stdout.take().expect("a ring");
    // In a thread of its own: a filter may write before it has read everything, and both rings may be full.
    let feeding = std::thread::spawn(move || -> Result<(), String> {
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| error.to_string())?;
            input
                .send(line.as_bytes())
                .map_err(|error| error.to_string())?;
        }
        Ok(()) // dropped: the end of the filter's input
    });
    while let Ok(message) = output.recv() {
        println!("{}", String::from_utf8_lossy(&message.to_vec()));
    }
    let status = child.wait()?;
    feeding.join().expect("the thread does not panic")?;
    std::process::exit(status.code().unwrap_or(1));
}
