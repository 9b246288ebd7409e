//! Sends a number each 100 ms. The other half is `consumer`; start them in two terminals, in either
//! order:
//!
//! ```sh
//! cargo run --example producer [RING [COUNT]]
//! cargo run --example consumer [RING]
//! ```
//! Things to try:
//! * Producer first: it makes the ring and fills it; the consumer finds everything.
//! * End the producer, by Ctrl-C or `kill -9`: the consumer takes what is left and ends, too.
//! * End the consumer likewise: the producer's next call reports a broken pipe.
//! * `producer sysv:numbers` and `consumer sysv:numbers`: the same over System V shared memory.

use std::error::Error;
use std::time::Duration;

use semring::{SendError, spsc};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "numbers".into());
    let count = arguments.next().map_or(Ok(100u64), |count| count.parse())?;

    // The first process makes the ring; the other opens the same one.
    let ring = spsc::Builder::new(&name).open_or_create()?;
    let mut producer = ring.attach_producer()?; // refused while there is another one: the ring has one lane

    for number in 1..=count {
        match producer.send(&number.to_le_bytes()) {
            Ok(()) => println!("sent {number}"),
            // The consumer that was there is gone: a broken pipe. Before the first consumer comes
            // there is none; messages then wait in the ring.
            Err(SendError::ConsumerGone) => {
                eprintln!("broken pipe: the consumer is gone");
                drop(producer);
                // Unread messages are removed with the ring, as with a pipe.
                ring.remove()?;
                std::process::exit(141); // what a shell shows for SIGPIPE
            }
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(()) // leaving is the end of the stream; the consumer removes the ring
}
