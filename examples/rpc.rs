//! A server that answers calls of many clients, each over a pair of rings of its own. Client and
//! server meet through one more ring: each client sends into it the name of the pair that it has
//! made.
//!
//! ```sh
//! cargo run --example rpc                      # a server and three clients, then the server is killed
//! cargo run --example rpc serve shouting       # or by hand: the server in one terminal,
//! cargo run --example rpc call shouting hello  # calls in another
//! ```

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use semring::duplex::{Builder, Client, Server};
use semring::{CallError, RecvError, mpsc};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", door] => serve(door),
        ["call", door, ref texts @ ..] => call(door, texts),
        [] => demonstrate(),
        _ => Err("rpc [serve NAME | call NAME TEXT…]".into()),
    }
}

/// Answers in capitals, until it is killed.
fn serve(door: &str) -> Result<(), Box<dyn Error>> {
    let mut visitors = mpsc::Builder::new(door)
        .open_or_create()?
        .attach_consumer()?;
    loop {
        let received = visitors.recv().map(|message| message.to_vec());
        let name = match received {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // No client is attached at the moment.
            Err(RecvError::EndOfStream { .. }) => {
                visitors.resume();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // If the client is gone by now, only this thread is wasted.
        std::thread::spawn(move || {
            if let Err(error) = answer(&name) {
                eprintln!("{name}: {error}");
            }
        });
    }
}

fn answer(name: &str) -> Result<(), Box<dyn Error>> {
    let mut server = Server::new(Builder::new(name).open()?.server_end()?);
    // Until the client is gone, by close, exit or a signal.
    while let Ok(request) = server.next_request() {
        let text = String::from_utf8_lossy(request.bytes()).to_uppercase();
        request.reply(text.as_bytes())?;
    }
    Ok(()) // the last one out takes the pair's names away
}

fn call(door: &str, texts: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = connect(door)?;
    // All at once; the replies may come in any order.
    let calls: Result<Vec<_>, _> = texts
        .iter()
        .map(|text| client.start(text.as_bytes()))
        .collect();
    for id in calls? {
        let reply = client.wait_deadline(id, Duration::from_secs(5))?;
        println!("{id}: {}", String::from_utf8_lossy(reply.bytes()));
    }
    Ok(())
}

fn connect(door: &str) -> Result<Client, Box<dyn Error>> {
    let name = format!("{door}-{}", std::process::id());
    let pair = Builder::new(&name).capacity(16 << 10).create()?;
    // First take the end, then send the name: the server must find a client.
    let client = Client::new(pair.client_end()?);
    mpsc::Builder::new(door)
        .open()?
        .attach_producer()?
        .send(name.as_bytes())?;
    Ok(client)
}

fn demonstrate() -> Result<(), Box<dyn Error>> {
    let door = format!("rpc-{}", std::process::id());
    let ring = mpsc::Builder::new(&door).create()?;
    let program = std::env::current_exe()?;
    let mut server = Command::new(&program).args(["serve", &door]).spawn()?;
    for texts in [["hello", "world"], ["one", "two"], ["in any", "order"]] {
        let called = Command::new(&program)
            .args(["call", &door])
            .args(texts)
            .status()?;
        assert!(called.success());
    }
    let mut client = connect(&door)?;
    client.call_deadline(b"are you there?", Duration::from_secs(5))?;
    server.kill()?;
    // At once, not when the time is over.
    let refused = client.call_deadline(b"and now?", Duration::from_secs(3600));
    assert_eq!(refused, Err(CallError::PeerGone));
    println!("the server was killed: {}", CallError::PeerGone);
    server.wait()?;
    ring.remove()?;
    Ok(())
}
