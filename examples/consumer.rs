//! Prints the numbers that `producer` sends; see there for what to try.
//!
//! ```sh
//! cargo run --example consumer [RING]
//! ```

use std::error::Error;

use semring::{RecvError, spsc};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "numbers".into());
    let ring = spsc::Builder::new(&name).open_or_create()?;
    // Refused while there is another consumer. Messages that a predecessor received and did not
    // release come again.
    let mut consumer = ring.attach_consumer()?;
    println!("waiting at {}", ring.address());

    loop {
        let ended = match consumer.recv() {
            Ok(message) => {
                let mut number = [0; 8];
                if message.len() != number.len() {
                    return Err(format!("a message of {} bytes is no number", message.len()).into());
                }
                message.copy_to(&mut number);
                println!("got {}", u64::from_le_bytes(number));
                false
            } // the message is dropped: released
            // The producer is gone, by exit or by a signal, and nothing is left.
            Err(RecvError::EndOfStream { .. }) => true,
            Err(error) => return Err(error.into()),
        };
        // Not removed if another producer came in this very moment: then go on.
        if ended && consumer.remove_at_end()?.is_removed() {
            println!("end of stream");
            return Ok(());
        }
    }
}
