//! Two rings as one connection in both directions, and calls over it: a replacement for two pipes or a
//! Unix socket.
//!
//! A [`Pair`] is two SPSC rings, one [to the server](Pair::to_server) and one [to the
//! client](Pair::to_client). It has two ends; each can be [taken](Pair::server_end) once, and its [`Endpoint`] sends and
//! receives messages. Apart from these names the ends are equal.
//!
//! ```
//! use semring::duplex::Builder;
//! # let name = format!("doc-duplex-{}", std::process::id());
//! let mut server = Builder::new(&name).create()?.server_end()?;
//!
//! // Usually in another process:
//! let mut client = Builder::new(&name).open()?.client_end()?;
//! client.send(b"ping")?;
//!
//! assert_eq!(server.recv()?.to_vec(), b"ping");
//! server.send(b"pong")?;
//! assert_eq!(client.recv()?.to_vec(), b"pong");
//!
//! let mut receiver = client.close_sending(); // as shutdown(2) with SHUT_WR
//! assert!(matches!(server.recv(), Err(semring::RecvError::EndOfStream { .. })));
//! drop(server);
//! assert!(matches!(receiver.recv(), Err(semring::RecvError::EndOfStream { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # One conversation
//! Like a connected socket, a pair is for one conversation. When one end is gone, by close, exit or
//! SIGKILL, the other end receives the messages that are left, then only end of stream; its `send`
//! returns a broken pipe. No process can take the end over: it gets
//! [`EndError::Spent`](crate::EndError::Spent). So a server that starts in place of a dead one never gets
//! the rest of the old conversation. To go on, make a new pair; under the same name
//! [`create`](Builder::create) replaces a pair whose users are gone.
//!
//! The last end that is dropped removes the names. A pair left by killed processes is replaced by the
//! next `create`; [`remove`] removes it.
//!
//! # One client
//! A ring has one consumer, so a pair has one client. For many clients a program makes many pairs: the
//! server has a thread for each, or calls [`Endpoint::try_recv`] on them in turn. The program chooses how
//! clients and server meet: for example, each client makes a pair and sends its name through an MPSC ring
//! that the server reads (`examples/rpc.rs`); or they use a Unix socket and [`Pair::send_over`].
//!
//! # Two full rings
//! As with two pipes, if both ends wait in `send` for the other one to receive, they wait for ever. An end
//! that sends much before it receives uses [`try_send`](Endpoint::try_send), a time-out, or a thread for
//! each direction ([`Endpoint::split`]). [`Client`] and [`Server`] avoid this: a client that finds the ring
//! full takes in replies while it waits.
//!
//! # Calls
//! [`Client`] and [`Server`] put an id in front of each message. Several calls may be in flight at once, and
//! may be answered in any order.
//!
//! ```
//! use std::time::Duration;
//! use semring::duplex::{Builder, Client, Server};
//!
//! let pair = Builder::memfd().create()?;
//! let mut server = Server::new(pair.server_end()?);
//! let mut client = Client::new(pair.client_end()?);
//! let serving = std::thread::spawn(move || {
//!     while let Ok(request) = server.next_request() {
//!         let answer = request.bytes().to_ascii_uppercase();
//!         let _ = request.reply(&answer); // the client may be gone
//!     }
//! });
//! let reply = client.call_deadline(b"hello", Duration::from_secs(5))?;
//! assert_eq!(reply.bytes(), b"HELLO");
//! drop(client); // the server sees the end
//! serving.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod client;
mod endpoint;
mod frame;
mod names;
mod outbox;
mod pair;
mod server;

pub use builder::Builder;
pub use client::{Client, Reply};
pub use endpoint::{Consumer, Endpoint, Producer};
pub use frame::CallId;
pub use names::pair_at;
pub use pair::{Pair, force_remove, remove};
pub use server::{Request, Server, ServerInterrupter};

#[cfg(not(semring_loom))]
const _: () = {
    use crate::channel::threads::{send, send_and_sync};

    send_and_sync::<Builder>();
    send_and_sync::<Pair>();
    send_and_sync::<ServerInterrupter>();
    send::<Endpoint>();
    send::<Producer>();
    send::<Consumer>();
    send::<Client>();
    send::<Server>();
    send::<Request>();
};
