//! One file, one process, two threads: a ring, a producer, a consumer, an end of stream.
//!
//! ```sh
//! cargo run --example hello
//! ```

use semring::RecvError;
use semring::spsc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("hello-{}", std::process::id());
    let ring = spsc::Builder::new(&name).capacity(64 << 10).create()?;
    let mut consumer = ring.attach_consumer()?;

    let mut producer = ring.attach_producer()?;
    let sending = std::thread::spawn(move || -> Result<(), semring::SendError> {
        for word in ["hello", "from", "another", "thread"] {
            producer.send(word.as_bytes())?;
        }
        Ok(()) // dropping the producer detaches it: the consumer sees the end
    });

    loop {
        match consumer.recv() {
            Ok(message) => println!("{}", String::from_utf8_lossy(&message.to_vec())),
            Err(RecvError::EndOfStream { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    sending.join().expect("the sending thread does not panic")?;
    consumer.remove_at_end()?;
    Ok(())
}
