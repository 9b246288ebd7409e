//! A file through a shell pipeline: two programs and a ring in between, or a pipe.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use semring_bench::{Result, CleanupGuard};

/// Long enough that starting the programs does not count.
const FILE_BYTES: usize = 1 << 30;

/// Bytes a second of each pipeline, by rounds.
pub struct Streams {
    pub ring: Vec<f64>,
    pub cat: Vec<f64>,
    pub dd: Vec<f64>,
}

pub fn measure(rounds: usize) -> Result<Streams> {
    let name = format!("semring-bench-{}-stream", std::process::id());
    let path = std::env::temp_dir().join(&name);
    let _trash = CleanupGuard::file(path.clone(), || write(&path))?;
    let mut streams = Streams {
        ring: Vec::new(),
        cat: Vec::new(),
        dd: Vec::new(),
    };
    for round in 0..=rounds {
        eprint!("\r{:>3} % {:<60}", 100 * round / (rounds + 1), "pipelines");
        let figures = [ring(&name, &path)?, cat(&path)?, dd(&path)?];
        // The first round brings the file and the programs into memory.
        if round > 0 {
            let [ring, cat, dd] = figures;
            streams.ring.push(ring);
            streams.cat.push(cat);
            streams.dd.push(dd);
        }
    }
    Ok(streams)
}

/// Different bytes everywhere.
fn write(path: &PathBuf) -> Result<()> {
    let mut file = File::create_new(path)?;
    let mut chunk = vec![0u8; 1 << 20];
    for number in 0..(FILE_BYTES / chunk.len()) as u64 {
        for (index, word) in chunk.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mixed = (number << 32 | index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            *word = mixed.to_le_bytes();
        }
        file.write_all(&chunk)?;
    }
    Ok(())
}

/// Until both have ended, in bytes a second.
fn rate(start: Instant, programs: [Child; 2]) -> Result<f64> {
    for mut program in programs {
        let status = program.wait()?;
        if !status.success() {
            return Err(format!("a pipeline failed: {status}").into());
        }
    }
    Ok(FILE_BYTES as f64 / start.elapsed().as_secs_f64())
}

fn ring(name: &str, path: &PathBuf) -> Result<f64> {
    let start = Instant::now();
    let producer = Command::new(env!("CARGO_BIN_EXE_semring-producer"))
        .args(["--raw", name])
        .stdin(File::open(path)?)
        .spawn()?;
    let consumer = Command::new(env!("CARGO_BIN_EXE_semring-consumer"))
        .args(["--raw", name])
        .stdout(Stdio::null())
        .spawn()?;
    rate(start, [producer, consumer])
}

fn cat(path: &PathBuf) -> Result<f64> {
    piped(
        Command::new("cat").stdin(File::open(path)?),
        &mut Command::new("cat"),
    )
}

fn dd(path: &PathBuf) -> Result<f64> {
    let dd = || {
        let mut dd = Command::new("dd");
        dd.args(["bs=64k", "status=none"]);
        dd
    };
    piped(dd().stdin(File::open(path)?), &mut dd())
}

fn piped(first: &mut Command, second: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let mut first = first.stdout(Stdio::piped()).spawn()?;
    let pipe = first.stdout.take().ok_or("a pipe was requested")?;
    let second = second.stdin(pipe).stdout(Stdio::null()).spawn()?;
    rate(start, [first, second])
}
