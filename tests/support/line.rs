//! The peer's commands for a pair of rings and for calls over it.

use std::time::Duration;

use semring::CallError;
use semring::duplex::{CallId, Client, Pair, Request, Server};

use super::{Answer, Words, failed};
use crate::rings;

/// The peer's ends of a pair.
#[derive(Default)]
pub struct Line {
    client: Option<Client>,
    requests: Vec<Request>,
    server: Option<Server>,
    pair: Option<Pair>,
}

impl Line {
    fn pair(&self) -> &Pair {
        self.pair.as_ref().expect("a pair is open")
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("the client's end is taken")
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the server's end is taken")
    }

    pub fn obey(&mut self, words: &mut Words<'_>) -> Answer {
        match words.text() {
            "create" => {
                let builder = rings::pair(words.text()).capacity(words.number());
                self.pair = Some(builder.create().map_err(failed)?);
            }
            "open" => self.pair = Some(rings::pair(words.text()).open().map_err(failed)?),
            "open-or-create" => {
                let builder = rings::pair(words.text()).capacity(words.number());
                self.pair = Some(builder.open_or_create().map_err(failed)?);
            }
            "serve-end" => {
                self.server = Some(Server::new(self.pair().server_end().map_err(failed)?));
            }
            "call-end" => {
                self.client = Some(Client::new(self.pair().client_end().map_err(failed)?));
            }
            "drop" => *self = Self::default(),
            "serve" => return Ok(self.serve()),
            "hold" => {
                let request = self.server().next_request().map_err(failed)?;
                let id = request.id();
                self.requests.push(request);
                return Ok(format!("ok {id}"));
            }
            "call" => {
                let bytes = vec![7; words.size()];
                let reply = self.client().call(&bytes).map_err(failed)?;
                assert_eq!(reply.bytes(), bytes);
            }
            "calls" => self.calls(words)?,
            "churn" => churn(words)?,
            other => panic!("no such command: line {other}"),
        }
        Ok("ok".to_owned())
    }

    /// Answers each request with its own bytes, to the end.
    fn serve(&mut self) -> String {
        let mut served = 0;
        loop {
            let error = match self.server().next_request() {
                Ok(request) => {
                    let bytes = request.bytes().to_vec();
                    if request.reply(&bytes).is_ok() {
                        served += 1;
                    }
                    continue;
                }
                Err(error) => error,
            };
            return format!("served {served} {}", super::flow::shown(error));
        }
    }

    /// This many calls, all in flight at once, waited for from the last one on.
    fn calls(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let (count, len) = (words.number(), words.size());
        let client = self.client();
        let request = |number: u64| number.to_le_bytes().repeat(len.div_ceil(8));
        let ids: Result<Vec<CallId>, CallError> = (0..count)
            .map(|number| client.start(&request(number)))
            .collect();
        let ids = ids.map_err(failed)?;
        for (number, id) in ids.into_iter().enumerate().rev() {
            let reply = client.wait(id).map_err(failed)?;
            assert_eq!(reply.bytes(), request(number as u64));
        }
        Ok(())
    }
}

/// Makes or opens a pair, takes an end or both, exchanges messages, and drops all of it, repeatedly, while
/// other processes do the same.
fn churn(words: &mut Words<'_>) -> Result<(), String> {
    let builder = rings::pair(words.text()).capacity(words.number());
    for round in 0..words.number() {
        let pair = builder
            .open_or_create()
            .map_err(|error| format!("{} at {round}", failed(error)))?;
        // Another process may have them.
        let (server, client) = (pair.server_end(), pair.client_end());
        let (Ok(mut server), Ok(mut client)) = (server, client) else {
            continue;
        };
        client.send(b"there").map_err(failed)?;
        match server.recv_deadline(Duration::from_secs(60)) {
            Ok(message) => assert_eq!(message.to_vec(), b"there"),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
