//! A real file from one process to another, through a ring and through a pipe, and the speed of both.
//!
//! ```sh
//! cargo run --release --example transfer [FILE]
//! ```
//! Without FILE it takes the largest library of the Rust toolchain. This process is the consumer, which
//! copies all bytes into a buffer and compares them with the file; for each pass it starts itself as the
//! producer, which reads the file into its transport. No process is pinned (`semring bench` pins).

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::SigSet;
use semring::{Address, RecvError, spsc};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Takes a chunk that arrived.
type Take<'a> = &'a mut dyn FnMut(&[u8]);

/// Bytes of a read from the file, and of a message.
const CHUNK: usize = 64 << 10;
/// Measured passes of each transport, after one that is not measured.
const ROUNDS: usize = 7;
/// The first argument of the second process.
const PRODUCER: &str = "--as-producer";

#[derive(Clone, Copy)]
enum Transport {
    /// A prefix of ring addresses.
    Ring(&'static str),
    /// Bytes that the pipe holds, and of each write to it.
    Pipe(i32, usize),
}

const TRANSPORTS: [(&str, Transport); 5] = [
    ("ring posix:", Transport::Ring("posix:")),
    ("ring sysv:", Transport::Ring("sysv:")),
    ("pipe, 64 KiB writes", Transport::Pipe(64 << 10, CHUNK)),
    ("pipe, 4 KiB writes", Transport::Pipe(64 << 10, 4 << 10)),
    ("1 MiB pipe, 64 KiB writes", Transport::Pipe(1 << 20, CHUNK)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [PRODUCER, file, kind, to] => produce(file, kind, to),
        [] => toolchain_file().and_then(|file| compare(&file)),
        [file] if !file.starts_with('-') => compare(Path::new(file)),
        _ => Err("usage: transfer [FILE]".into()),
    };
    let failed = done.inspect_err(|error| eprintln!("transfer: {error}"));
    ExitCode::from(u8::from(failed.is_err()))
}

fn toolchain_file() -> Result<PathBuf> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("rustc --print sysroot: {error}; name a FILE"))?;
    let libraries = Path::new(std::str::from_utf8(&sysroot.stdout)?.trim()).join("lib");
    let files = std::fs::read_dir(libraries)?.flatten();
    let largest = files.max_by_key(|file| file.metadata().map_or(0, |data| data.len()));
    let largest = largest.ok_or("the toolchain has no library: name a FILE")?;
    Ok(largest.path())
}

fn compare(file: &Path) -> Result<()> {
    // Ctrl-C ends the producer only. This process then sees the end of the stream, and removes its ring.
    SigSet::all().thread_block()?;
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if bytes.len() < 1_000_000 {
        return Err("too small to measure: name a FILE of 1 MB or more".into());
    }
    let megabytes = bytes.len() as f64 / 1e6;
    println!("{megabytes:.1} MB: {}", file.display());
    let mut speeds: [Vec<f64>; TRANSPORTS.len()] = Default::default();
    for _ in 0..=ROUNDS {
        for ((name, transport), speeds) in TRANSPORTS.into_iter().zip(&mut speeds) {
            let (mut rest, mut is_equal) = (&bytes[..], true);
            let took = pass(transport, file, &mut |chunk| {
                is_equal &= rest.split_off(..chunk.len()) == Some(chunk);
            })?;
            if !is_equal || !rest.is_empty() {
                return Err(format!("{name}: other bytes arrived than were sent").into());
            }
            speeds.push(megabytes / took.as_secs_f64());
        }
    }
    println!("every byte arrived in each pass\n");
    println!("{:30}{:>8} {:>8} {:>8}", "MB/s", "median", "min", "max");
    for ((name, _), speeds) in TRANSPORTS.into_iter().zip(&mut speeds) {
        speeds.remove(0);
        speeds.sort_by(f64::total_cmp);
        let [low, median, high] = [0, ROUNDS / 2, ROUNDS - 1].map(|index| speeds[index]);
        println!("{name:30}{median:>8.0} {low:>8.0} {high:>8.0}");
    }
    let [ring, _, pipe, ..] = speeds.map(|speeds| speeds[ROUNDS / 2]);
    println!("\nring to ordinary pipe: {:.1} times", ring / pipe);
    Ok(())
}

/// Sends the file through once, and returns the time from the first chunk to the end.
fn pass(transport: Transport, file: &Path, take: Take) -> Result<Duration> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(PRODUCER).arg(file);
    let mut start = None;
    let mut take = |chunk: &[u8]| {
        start.get_or_insert_with(Instant::now);
        take(chunk);
    };
    let mut producer = match transport {
        Transport::Ring(prefix) => {
            let name = format!("{prefix}transfer-{}", std::process::id());
            let ring = spsc::Builder::new(&name).capacity(1 << 20).create()?;
            let _removed = RemoveOnDrop(ring.address());
            let mut consumer = ring.attach_consumer()?;
            let producer = command.args(["ring", &name]).spawn()?;
            from_ring(&mut consumer, &mut take)?;
            producer
        }
        Transport::Pipe(bytes, write_bytes) => {
            let (reader, writer) = io::pipe()?;
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(bytes))?;
            let producer = command.args(["pipe", &write_bytes.to_string()]);
            let producer = producer.stdout(writer).spawn()?;
            drop(command); // with this process's copy of the writing end
            from_pipe(reader, &mut take)?;
            producer
        }
    };
    let took = start.map_or(Duration::ZERO, |start| start.elapsed());
    let status = producer.wait()?;
    let failed = format!("the producer failed: {status}");
    status.success().then_some(took).ok_or(failed.into())
}

/// Removes a ring, also after an error.
struct RemoveOnDrop<'a>(&'a Address);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = semring::force_remove(self.0);
    }
}

fn from_ring(consumer: &mut spsc::Consumer, take: Take) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match consumer.recv() {
            Ok(message) => {
                let got = message.copy_to(&mut buffer);
                drop(message); // the producer may use its bytes again
                take(&buffer[..got]);
            }
            Err(RecvError::EndOfStream { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn from_pipe(mut pipe: io::PipeReader, take: Take) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer)? {
            0 => return Ok(()),
            got => take(&buffer[..got]),
        }
    }
}

fn produce(file: &str, kind: &str, to: &str) -> Result<()> {
    SigSet::all().thread_unblock()?;
    let file = File::open(file)?;
    if kind == "ring" {
        let mut producer = spsc::open(to)?.attach_producer()?;
        loop {
            let mut message = producer.reserve(CHUNK)?;
            match message.fill_from(&file)? {
                0 => return Ok(()), // discards the reservation; the end of this process ends the stream
                read => message.truncate(read),
            }
            message.commit();
        }
    }
    let mut buffer = vec![0; to.parse()?];
    let mut pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    loop {
        match (&file).read(&mut buffer)? {
            0 => return Ok(()),
            read => pipe.write_all(&buffer[..read])?,
        }
    }
}
