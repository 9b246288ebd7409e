//! ipmpsc: a ring of serialised messages in a mapped file, with a robust mutex and condition variables.

use std::path::PathBuf;

use ipmpsc::{Receiver, Sender, SharedRingBuffer};
use semring_bench::{
    Bytes, End, Link, Setup, Result, Category, Spec, CleanupGuard, Way, no_obstacle, wrong_length,
};

use crate::capacity_bytes;

pub(crate) const WAYS: [Way; 1] = [Way {
    name: "ipmpsc",
    label: "ipmpsc",
    about: "A ring for many senders: `send` of bytes, received without a copy.",
    category: Category::Library,
    obstacle: no_obstacle,
    make,
    open,
}];

struct RingLink {
    output: Sender,
    input: Receiver,
    _cleanup: Vec<CleanupGuard>,
}

fn path(spec: &Spec, direction: &str) -> String {
    format!("/dev/shm/{}-{direction}", spec.name)
}

fn new_ring(spec: &Spec, direction: &str) -> Result<(SharedRingBuffer, CleanupGuard)> {
    let path = path(spec, direction);
    let mut made = None;
    let cleanup = CleanupGuard::file(PathBuf::from(&path), || {
        let bytes = u32::try_from(capacity_bytes(spec.size))?;
        made = Some(SharedRingBuffer::create(&path, bytes)?);
        Ok(())
    })?;
    Ok((made.ok_or("a ring was made")?, cleanup))
}

fn make(spec: Spec) -> Result<Setup> {
    let (there, there_cleanup) = new_ring(&spec, "there")?;
    let (back, back_cleanup) = new_ring(&spec, "back")?;
    let link = RingLink {
        output: Sender::new(there),
        input: Receiver::new(back),
        _cleanup: vec![there_cleanup, back_cleanup],
    };
    Ok(Setup::named(spec, link))
}

fn open(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    Ok(Box::new(RingLink {
        output: Sender::new(SharedRingBuffer::open(&path(spec, "back"))?),
        input: Receiver::new(SharedRingBuffer::open(&path(spec, "there"))?),
        _cleanup: Vec::new(),
    }))
}

impl<M: Bytes> Link<M> for RingLink {
    fn send(&mut self, message: &M) -> Result<()> {
        Ok(self
            .output
            .send(&serde_bytes::Bytes::new(message.bytes()))?)
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let bytes = message.bytes_mut();
        let mut context = self.input.zero_copy_context();
        let received: &[u8] = context.recv()?;
        if received.len() != bytes.len() {
            return Err(wrong_length(received.len(), bytes.len()));
        }
        bytes.copy_from_slice(received);
        Ok(())
    }
}
