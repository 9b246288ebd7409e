//! Bytes that are written and read where they lie, without a copy between program and ring.
//!
//! ```sh
//! cargo run --example zero_copy
//! ```
//! Three ways: write through a reservation, let the kernel read and write the ring's memory, and, if
//! the peers are trusted, plain slices.

use std::error::Error;
use std::io::{Seek, Write};

use semring::spsc;

fn main() -> Result<(), Box<dyn Error>> {
    let name = format!("zero-copy-{}", std::process::id());
    // SAFETY: the promise that slices need: no other process writes into bytes of which this
    // process holds a reservation or a message. The only peers are the two handles below, both
    // unmodified semring, and mode 0600 keeps other users away.
    let trusting = unsafe { spsc::Builder::new(&name).mode(0o600).trust_peers() };
    let ring = trusting.create()?;
    let mut producer = ring.attach_producer()?;
    let mut consumer = ring.attach_consumer()?;

    // 1. A reservation is a place in the ring. The length need not be known: reserve the most, write,
    //    give the rest back. Nothing is visible before the commit.
    let mut reservation = producer.reserve(100)?;
    write!(reservation, "{} squared is {}", 12, 12 * 12)?;
    let written = reservation.written();
    reservation.truncate(written);
    reservation.commit();
    // A reservation that is dropped instead has never been.
    producer.reserve(100)?.discard();

    let message = consumer.recv()?;
    println!(
        "{} bytes at {}: {:?}",
        message.len(),
        message.position(),
        text(&message.to_vec())
    );
    message.release();

    // 2. From one file descriptor to another: read(2) and write(2) work on the ring's own memory.
    //    A socket or a pipe would do as well.
    let mut source = unnamed_file("source")?;
    source.write_all(b"from a file, through the ring, ")?;
    source.rewind()?;
    let mut reservation = producer.reserve(4096)?;
    while reservation.fill_from(&source)? > 0 {}
    let written = reservation.written();
    reservation.truncate(written);
    reservation.commit();

    let message = consumer.recv()?;
    let mut gone = 0;
    while gone < message.len() {
        gone += message.write_to(gone, std::io::stdout())?; // write(2) may take less than all
    }
    message.release();
    println!("to standard output");

    // 3. Slices. Safe code gets none by default: memory that another process can change at any time
    //    must not be referenced. `trust_peers` above allows it.
    let mut reservation = producer.reserve(8 * 1000)?;
    let bytes = reservation
        .as_mut_slice()
        .expect("the builder trusts its peers");
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(index as u64).to_le_bytes());
    }
    reservation.commit();

    let message = consumer.recv()?;
    let bytes = message.as_slice().expect("the builder trusts its peers");
    let sum: u64 = bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .sum();
    println!(
        "the sum of {} numbers, added up in the ring: {sum}",
        bytes.len() / 8
    );
    message.release();

    drop(producer);
    consumer.remove_at_end()?;
    Ok(())
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A temporary file that is gone when it is closed.
fn unnamed_file(what: &str) -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("zero-copy-{what}-{}", std::process::id()));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
