//! ipc-channel: channels over Unix sockets, and shared memory for long messages.

use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};
use semring_bench::{Bytes, End, Link, Setup, Result, Category, Spec, Way, no_obstacle, wrong_length};
use serde::{Deserialize, Serialize};

pub(crate) const WAYS: [Way; 1] = [Way {
    name: "ipc-channel",
    label: "ipc-channel",
    about: "A channel of bytes over a Unix socket.",
    category: Category::Library,
    obstacle: no_obstacle,
    make,
    open,
}];

/// The first message of the other process: where to send to it, and where it expects the address
/// for replies.
#[derive(Serialize, Deserialize)]
struct Greeting {
    there: IpcBytesSender,
    back: IpcSender<IpcBytesSender>,
}

/// The side that measures. The others come when it is used for the first time.
struct FirstLink {
    expected: Vec<IpcOneShotServer<Greeting>>,
    /// Cloned for each of the others.
    back: IpcBytesSender,
    input: IpcBytesReceiver,
    outputs: Vec<IpcBytesSender>,
}

fn make(mut spec: Spec) -> Result<Setup> {
    let mut expected = Vec::new();
    for _ in 0..spec.senders {
        let (server, name) = IpcOneShotServer::new()?;
        expected.push(server);
        spec.names.push(name);
    }
    let (back, input) = bytes_channel()?;
    let link = FirstLink {
        expected,
        back,
        input,
        outputs: Vec::new(),
    };
    Ok(Setup::named(spec, link))
}

impl FirstLink {
    #[inline]
    fn meet(&mut self) -> Result<()> {
        for server in self.expected.drain(..) {
            let (_, greeting) = server.accept()?;
            greeting.back.send(self.back.clone())?;
            self.outputs.push(greeting.there);
        }
        Ok(())
    }
}

impl<M: Bytes> Link<M> for FirstLink {
    fn send(&mut self, message: &M) -> Result<()> {
        self.meet()?;
        let first = self.outputs.first().ok_or("no receiver came")?;
        Ok(first.send(message.bytes())?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        self.meet()?;
        take(&self.input, message.bytes_mut())
    }
}

fn take(input: &IpcBytesReceiver, bytes: &mut [u8]) -> Result<()> {
    let message = input.recv()?;
    if message.len() != bytes.len() {
        return Err(wrong_length(message.len(), bytes.len()));
    }
    bytes.copy_from_slice(&message);
    Ok(())
}

/// The other side.
struct SecondLink {
    output: IpcBytesSender,
    input: IpcBytesReceiver,
}

fn open(spec: &Spec, receiver: usize) -> Result<Box<dyn End>> {
    let name = spec.names.get(receiver).ok_or("no receiver waits for this one")?;
    let server: IpcSender<Greeting> = IpcSender::connect(name.clone())?;
    let (there, input) = bytes_channel()?;
    let (back, answer) = ipc::channel()?;
    server.send(Greeting { there, back })?;
    let output = answer.recv()?;
    Ok(Box::new(SecondLink { output, input }))
}

impl<M: Bytes> Link<M> for SecondLink {
    fn send(&mut self, message: &M) -> Result<()> {
        Ok(self.output.send(message.bytes())?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        take(&self.input, message.bytes_mut())
    }
}
